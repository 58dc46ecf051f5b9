//! Takes what looks like a secret out of a text before it leaves the agent: messages carry lines of logs.

const MASK: &str = "[redacted]";
/// Names that end so are names of secrets.
const NAMES: [&str; 8] = ["password", "passwd", "secret", "token", "api_key", "apikey", "access_key", "private_key"];

/// The text without passwords in URLs, values of variables and fields that are named like secrets, and `Bearer` or
/// `Basic` credentials.
pub fn redact(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(|line| credentials(&values(&urls(line)))).collect();
    lines.join("\n")
}

/// `scheme://user:password@host`
fn urls(line: &str) -> String {
    let (mut out, mut rest) = (String::new(), line);
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || "/?#\"'<>".contains(c)).unwrap_or(after.len());
        let (authority, tail) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((login, host)) if login.contains(':') => {
                let user = login.split(':').next().unwrap_or_default();
                out.push_str(&format!("{user}:{MASK}@{host}"));
            }
            Some(_) | None => out.push_str(authority),
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// `NAME=value`, `name: value`, `"name": "value"`
fn values(line: &str) -> String {
    let (mut out, mut rest) = (String::new(), line);
    while let Some(at) = rest.find(['=', ':']) {
        let (before, after) = rest.split_at(at + 1);
        out.push_str(before);
        rest = after;
        let name = before[..at].trim_end_matches(['"', '\'', ' ']).to_ascii_lowercase().replace('-', "_");
        if !NAMES.iter().any(|secret| name.ends_with(secret)) || after.starts_with("//") {
            continue;
        }
        let start = after.find(|c: char| !(c == ' ' || c == '"' || c == '\'')).unwrap_or(after.len());
        let value = &after[start..];
        let length = value.find(|c: char| c.is_whitespace() || "\"'&,;".contains(c)).unwrap_or(value.len());
        if length > 0 {
            out.push_str(&after[..start]);
            out.push_str(MASK);
            rest = &value[length..];
        }
    }
    out.push_str(rest);
    out
}

/// `Bearer abc`, `Basic abc`
fn credentials(line: &str) -> String {
    let mut out = line.to_owned();
    for scheme in ["Bearer ", "bearer ", "Basic "] {
        let mut from = 0;
        while let Some(at) = out[from..].find(scheme) {
            let start = from + at + scheme.len();
            let length =
                out[start..].find(|c: char| c.is_whitespace() || "\"',".contains(c)).unwrap_or(out.len() - start);
            // Short words are language, not credentials.
            if length >= 8 {
                out.replace_range(start..start + length, MASK);
            }
            from = start;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_taken_out_and_the_rest_stays() {
        for (text, expected) in [
            ("postgres://app:hunter2@db:5432/x failed", "postgres://app:[redacted]@db:5432/x failed"),
            (
                "see https://example.com/a@b:c and http://ada@host/",
                "see https://example.com/a@b:c and http://ada@host/",
            ),
            ("DB_PASSWORD=hunter2 LOG=info", "DB_PASSWORD=[redacted] LOG=info"),
            ("{\"api-key\": \"abc\", \"port\": 1}", "{\"api-key\": \"[redacted]\", \"port\": 1}"),
            ("?access_token=abc&x=1", "?access_token=[redacted]&x=1"),
            ("Authorization: Bearer abcdef123456", "Authorization: Bearer [redacted]"),
            ("no token: \nnext line", "no token: \nnext line"),
            ("Basic needs are met: 3", "Basic needs are met: 3"),
            ("exit code: 3, ß", "exit code: 3, ß"),
        ] {
            assert_eq!(redact(text), expected);
        }
    }
}
