//! Small languages within Compose files: command lines and variables.

use std::collections::BTreeMap;

/// Splits a command line as a shell would, without carrying out anything else of it; `None` for a quote without its end.
pub(super) fn split(line: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match (quote, c) {
            (Some(end), c) if c == end => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (_, '\\') => word.get_or_insert_default().push(rest.next()?),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// A text with its variables filled in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Filled {
    /// What is known, with nothing in place of the rest.
    pub text: String,
    /// Variables without a value.
    pub missing: Vec<String>,
}

/// Fills in `$NAME`, `${NAME}`, `${NAME:-default}` and their likes as Compose does; `$$` is a dollar sign.
pub(super) fn fill(text: &str, values: &BTreeMap<String, String>) -> Filled {
    let mut filled = Filled::default();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        filled.text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            filled.text.push('$');
            rest = after;
        } else if let Some(within) = rest.strip_prefix('{') {
            let Some(end) = closing(within) else { break };
            braced(&within[..end], values, &mut filled);
            rest = &within[end + 1..];
        } else {
            let name = name_at(rest);
            if name.is_empty() {
                filled.text.push('$');
                continue;
            }
            rest = &rest[name.len()..];
            filled.value(name, values, None);
        }
    }
    filled.text.push_str(rest);
    filled
}

impl Filled {
    fn value(&mut self, name: &str, values: &BTreeMap<String, String>, default: Option<Self>) {
        match (values.get(name), default) {
            (Some(value), _) => self.text.push_str(value),
            (None, Some(default)) => {
                self.text.push_str(&default.text);
                self.missing.extend(default.missing);
            }
            (None, None) => self.missing.push(name.to_owned()),
        }
    }
}

/// What stands between braces: a name, and perhaps what to take without a value.
fn braced(within: &str, values: &BTreeMap<String, String>, filled: &mut Filled) {
    let name = name_at(within);
    let then = &within[name.len()..];
    let of = |sign: &str| then.strip_prefix(':').unwrap_or(then).strip_prefix(sign);
    let known = values.get(name).is_some_and(|value| !value.is_empty() || !then.starts_with(':'));
    match (of("-"), of("+")) {
        (_, Some(instead)) if known => filled.text.push_str(&fill(instead, values).text),
        (_, Some(_)) => {}
        (Some(default), _) if !known => filled.value("", &BTreeMap::new(), Some(fill(default, values))),
        _ => filled.value(name, values, None),
    }
}

fn name_at(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// Where the brace that is open ends, others within it counted.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => open += 1,
            '}' if open == 0 => return Some(at),
            '}' => open -= 1,
            _ => {}
        }
    }
    None
}

/// A word as the name of an app, object, volume or secret: small letters, digits and hyphens, a letter first.
pub(super) fn name(word: &str, otherwise: &str) -> String {
    let small = word.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
    let small: String = small.collect();
    let mut parts = small.split('-').filter(|part| !part.is_empty());
    let joined = parts.by_ref().collect::<Vec<_>>().join("-");
    let begun = joined.trim_start_matches(|c: char| !c.is_ascii_lowercase());
    let cut: String = begun.chars().take(40).collect();
    let name = cut.trim_end_matches('-');
    if name.is_empty() { otherwise.to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_split_as_a_shell_does() {
        let words = |line| split(line).unwrap();
        assert_eq!(words("gunicorn -b 0.0.0.0:8000  app:app"), ["gunicorn", "-b", "0.0.0.0:8000", "app:app"]);
        assert_eq!(words(r#"sh -c "echo 'a b' && exit""#), ["sh", "-c", "echo 'a b' && exit"]);
        assert_eq!(words(r#"a\ b '' "c\"d""#), ["a b", "", "c\"d"]);
        assert_eq!(words("  "), [""; 0]);
        assert_eq!(split("echo 'a"), None);
    }

    #[test]
    fn variables_are_filled_in_as_compose_does() {
        let values = BTreeMap::from([("TAG".to_owned(), "1.27".to_owned()), ("NONE".to_owned(), String::new())]);
        let text = |text: &str| fill(text, &values).text;
        assert_eq!(text("nginx:$TAG-alpine"), "nginx:1.27-alpine");
        assert_eq!(text("${TAG:-latest} ${OTHER:-latest} ${OTHER-x}"), "1.27 latest x");
        assert_eq!(text("${NONE:-empty} ${NONE-unset}"), "empty ");
        assert_eq!(text("${OTHER:-${TAG}} ${TAG:+set} ${OTHER:+set}"), "1.27 set ");
        assert_eq!(text("$$HOME costs 5$"), "$HOME costs 5$");
        assert_eq!(fill("${PW:?say it}@${HOST}", &values).missing, ["PW", "HOST"]);
        assert_eq!(fill("${OPEN", &values).text, "{OPEN");
    }

    #[test]
    fn names_are_made_of_whatever_stands_there() {
        for (word, made) in
            [("Web_App", "web-app"), ("9lives", "lives"), ("--a--b--", "a-b"), ("ß", "app"), ("DB_URL", "db-url")]
        {
            assert_eq!(name(word, "app"), made);
        }
        assert_eq!(name(&"x".repeat(60), "app").len(), 40);
    }
}
