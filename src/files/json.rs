//! YAML values as JSON: bodies of calls that stand in a manifest.

use serde_json::{Map, Number, Value};

use super::yaml::{Meaning, Node, NodeKind, Place, Scalar, Style};

/// Why a value is not JSON, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct NotJson {
    /// Where the part stands that is not.
    pub place: Place,
    /// Why.
    pub message: String,
}

/// The value as JSON, maps sorted by key so that their order means nothing; `None` where it was reported as wrong.
pub fn from_node(node: &Node) -> Result<Option<Value>, NotJson> {
    Ok(Some(match &node.kind {
        NodeKind::Broken => return Ok(None),
        NodeKind::Scalar(value) => scalar(value).map_err(|message| NotJson { place: node.place.clone(), message })?,
        NodeKind::List(items) => match items.iter().map(from_node).collect::<Result<Option<Vec<_>>, _>>()? {
            Some(items) => Value::Array(items),
            None => return Ok(None),
        },
        NodeKind::Map(entries) => {
            let mut sorted: Vec<_> = entries.iter().collect();
            sorted.sort_by(|(a, _), (b, _)| a.text.cmp(&b.text));
            let mut map = Map::new();
            for (key, node) in sorted {
                let Some(value) = from_node(node)? else { return Ok(None) };
                map.insert(key.text.clone(), value);
            }
            Value::Object(map)
        }
    }))
}

fn scalar(scalar: &Scalar) -> Result<Value, String> {
    let text = &scalar.text;
    Ok(match (scalar.style, scalar.meaning()) {
        (Style::Text, _) | (_, Meaning::Text) => Value::String(text.clone()),
        (_, Meaning::Null) => Value::Null,
        (_, Meaning::Bool(value)) => Value::Bool(value),
        (_, Meaning::OldBool) => {
            return Err(format!(
                "`{text}` without quotes is a boolean to many YAML readers; quote it, or write true or false"
            ));
        }
        (_, Meaning::Number) => {
            Value::Number(number(text).ok_or_else(|| format!("`{text}` is no number that JSON has"))?)
        }
    })
}

fn number(text: &str) -> Option<Number> {
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let radix = |digits: &str, radix| i64::from_str_radix(digits, radix).ok();
    let whole = match (digits.strip_prefix("0x"), digits.strip_prefix("0o")) {
        (Some(hex), _) => Some(radix(hex, 16)?),
        (None, Some(octal)) => Some(radix(octal, 8)?),
        (None, None) => digits.parse::<i64>().ok(),
    };
    if let Some(whole) = whole {
        return Some(Number::from(if negative { -whole } else { whole }));
    }
    if !negative && let Ok(large) = digits.parse::<u64>() {
        return Some(Number::from(large));
    }
    Number::from_f64(text.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;
    use super::super::yaml;
    use super::*;

    fn read(text: &str) -> Result<Option<Value>, NotJson> {
        let (tree, errors) = yaml::parse(&Source { file: "x", text });
        assert!(errors.is_empty(), "{text}: {errors:?}");
        from_node(&tree.unwrap())
    }

    #[test]
    fn yaml_values_become_json_in_one_form() {
        for (yaml, json) in [
            ("{b: 1, a: [true, ~, 'x', 1.50, -3]}", r#"{"a":[true,null,"x",1.5,-3],"b":1}"#),
            (
                "{a: 0x1f, b: 0o17, c: +5, d: '5', e: 18446744073709551615}",
                r#"{"a":31,"b":15,"c":5,"d":"5","e":18446744073709551615}"#,
            ),
            ("text", r#""text""#),
            ("{}", "{}"),
        ] {
            assert_eq!(read(yaml).unwrap().unwrap().to_string(), json, "{yaml}");
        }
    }

    #[test]
    fn what_json_does_not_have_is_refused() {
        for yaml in ["{a: yes}", "[.inf]", "{a: {b: .nan}}", "[0xffffffffffffffffff]"] {
            assert!(read(yaml).is_err(), "{yaml}");
        }
    }
}
