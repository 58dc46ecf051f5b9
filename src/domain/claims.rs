//! What a provider of identities says of somebody, and what they may do for it.
//!
//! Claims are the provider's words, one JSON object for each person. [`AllowRule`]s turn them into a [`Scope`]: the first
//! that matches decides. Invariants: whoever matches no rule may do nothing; an address of mail counts, for a rule and as
//! a name, only where the provider says that it has verified it.

use serde_json::{Map, Value};

use super::access::{Scope, globs};

/// What a provider says of somebody.
pub type Claims = Map<String, Value>;

/// Longest name of a person, in characters.
const LONGEST_NAME: usize = 120;
/// Most characters of a claim that are shown to the one it is about.
const SHOWN: usize = 200;

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowRule {
    /// Claims, each with patterns of which one must match. All of the claims must be there.
    pub when: Vec<(String, Vec<String>)>,
    /// What they may do.
    pub scope: Scope,
}

impl AllowRule {
    /// Whether it is meant for somebody with these claims.
    pub fn matches(&self, claims: &Claims) -> bool {
        !self.when.is_empty() && self.when.iter().all(|(name, patterns)| has(claims, name, patterns))
    }
}

/// What somebody with these claims may do, by the first rule that is meant for them.
pub fn scope_of<'a>(rules: &'a [AllowRule], claims: &Claims) -> Option<&'a Scope> {
    rules.iter().find(|rule| rule.matches(claims)).map(|rule| &rule.scope)
}

/// What somebody is called: the verified address, else the provider's own identifier. One line, at most 120 characters.
pub fn name_of(claims: &Claims) -> String {
    let name = verified_address(claims).or_else(|| claims.get("sub").and_then(Value::as_str)).unwrap_or("nobody");
    name.chars().filter(|c| !c.is_control() && !c.is_whitespace()).take(LONGEST_NAME).collect()
}

/// The claims that rules ask for, as they are, to be told to nobody but the one they are about.
pub fn seen(rules: &[AllowRule], claims: &Claims) -> String {
    let mut names: Vec<&str> = vec!["sub", "email", "email_verified"];
    for (name, _) in rules.iter().flat_map(|rule| &rule.when) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let told = names.into_iter().map(|name| match find(claims, name) {
        Some(value) => format!("{name}: {}", value.to_string().chars().take(SHOWN).collect::<String>()),
        None => format!("{name} is missing"),
    });
    told.collect::<Vec<_>>().join("; ")
}

fn has(claims: &Claims, name: &str, patterns: &[String]) -> bool {
    if name == "email" {
        // Addresses are the same in whatever case they are written.
        let address = verified_address(claims).map(str::to_lowercase);
        return address.is_some_and(|address| patterns.iter().any(|pattern| globs(&pattern.to_lowercase(), &address)));
    }
    let fits = |text: &str| patterns.iter().any(|pattern| globs(pattern, text));
    let value_fits = |value: &Value| match value {
        Value::String(text) => fits(text),
        Value::Bool(_) | Value::Number(_) => fits(&value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    };
    match find(claims, name) {
        Some(Value::Array(values)) => values.iter().any(value_fits),
        Some(value) => value_fits(value),
        None => false,
    }
}

/// A claim by its name or, in objects, by the names on the way to it: `realm_access.roles`.
fn find<'a>(claims: &'a Claims, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let (outer, inner) = name.split_once('.')?;
    find(claims.get(outer)?.as_object()?, inner)
}

fn verified_address(claims: &Claims) -> Option<&str> {
    let is_verified = claims.get("email_verified").is_some_and(|value| *value == true);
    claims.get("email").and_then(Value::as_str).filter(|address| is_verified && !address.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::Verb;

    fn claims(value: Value) -> Claims {
        value.as_object().expect("an object").clone()
    }

    fn rule(when: &[(&str, &[&str])], verb: Verb) -> AllowRule {
        let texts = |patterns: &[&str]| patterns.iter().map(|text| (*text).to_owned()).collect();
        let when = when.iter().map(|(name, patterns)| ((*name).to_owned(), texts(patterns))).collect();
        AllowRule { when, scope: Scope { verbs: vec![verb], apps: Vec::new() } }
    }

    #[test]
    fn a_rule_asks_for_all_its_claims_and_for_one_value_of_each() {
        let ada = claims(json!({
            "sub": "1", "email": "Ada@Example.com", "email_verified": true, "groups": ["dev", "ops"], "level": 3,
            "realm_access": {"roles": ["deployer"]}, "https://example.com/team": "shop", "x": {"y": {"z": true}},
        }));
        type Asked<'a> = &'a [(&'a str, &'a [&'a str])];
        let table: [(Asked<'_>, bool); 13] = [
            (&[("email", &["*@example.com"])], true),
            (&[("email", &["eve@example.com", "ADA@example.com"])], true),
            (&[("email", &["*@example.com"]), ("groups", &["admin"])], false),
            (&[("email", &["*@example.com"]), ("groups", &["admin", "op*"])], true),
            (&[("groups", &["op"])], false),
            (&[("level", &["3"])], true),
            (&[("realm_access.roles", &["deployer"])], true),
            (&[("realm_access", &["*"])], false),
            (&[("https://example.com/team", &["shop"])], true),
            (&[("x.y.z", &["true"])], true),
            (&[("x.y.q", &["*"])], false),
            (&[("sub", &["*"])], true),
            (&[], false),
        ];
        for (when, wanted) in table {
            assert_eq!(rule(when, Verb::Read).matches(&ada), wanted, "{when:?}");
        }
    }

    #[test]
    fn an_address_that_is_not_verified_is_none() {
        for verified in [json!(false), json!("true"), json!(null)] {
            let eve = claims(json!({"sub": "2", "email": "ada@example.com", "email_verified": verified}));
            assert!(!rule(&[("email", &["*"])], Verb::Read).matches(&eve));
            assert_eq!(name_of(&eve), "2");
        }
        let ada = claims(json!({"sub": "1", "email": "ada@example.com\n", "email_verified": true}));
        assert_eq!(name_of(&ada), "ada@example.com");
    }

    #[test]
    fn the_first_rule_decides_and_without_one_there_is_nothing() {
        let rules = [rule(&[("groups", &["ops"])], Verb::Admin), rule(&[("sub", &["*"])], Verb::Read)];
        let verbs = |value| scope_of(&rules, &claims(value)).map(|scope| scope.verbs.clone());
        assert_eq!(verbs(json!({"sub": "1", "groups": ["ops"]})), Some(vec![Verb::Admin]));
        assert_eq!(verbs(json!({"sub": "1", "groups": "dev"})), Some(vec![Verb::Read]));
        assert_eq!(verbs(json!({})), None);
        let told = seen(&rules, &claims(json!({"sub": "1", "groups": ["dev"], "other": "kept"})));
        assert_eq!(told, r#"sub: "1"; email is missing; email_verified is missing; groups: ["dev"]"#);
    }
}
