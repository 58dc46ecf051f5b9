//! `GET /v1/openapi.json`: what this API takes and answers, as an OpenAPI 3.1 document.
//!
//! Made from what the routes themselves go by: [`super::rules`] for who may, the query structs and the types of `wire` for
//! what is read and written, and one table ([`operations`]) for the words. Neighbours: `docs/openapi.json`, a copy of it
//! for those without an agent; `tests/openapi`, which tries a running agent against it. Invariant: every route of `RULES`
//! that is not a page for people is in it, once, with a description.

mod document;
mod operations;

use std::sync::OnceLock;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::header;

use super::problem::Refusal;
use super::routes::Context;

/// The route, for the router of all.
pub(super) fn routes() -> Router<Context> {
    Router::new().route("/v1/openapi.json", get(openapi))
}

async fn openapi() -> Result<Response, Refusal> {
    static TEXT: OnceLock<Result<Bytes, String>> = OnceLock::new();
    match TEXT.get_or_init(|| text().map(Bytes::from)) {
        Ok(text) => Ok(([(header::CONTENT_TYPE, "application/json")], text.clone()).into_response()),
        Err(error) => Err(Refusal::internal(format!("the OpenAPI document cannot be made: {error}"))),
    }
}

/// The document as it is served.
fn text() -> Result<String, String> {
    let document = document::document(&operations::all())?;
    serde_json::to_string_pretty(&document).map(|text| text + "\n").map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use serde_json::Value;

    use super::super::rules::{RULES, Rule};
    use super::*;

    /// Whether programs are meant. Everything else is a page for people, and promises nothing.
    fn is_for_programs(rule: &Rule) -> bool {
        rule.path.starts_with("/v1/")
            || matches!((rule.method, rule.path), ("GET", "/metrics") | ("POST", "/login" | "/logout"))
    }

    fn served() -> Value {
        serde_json::from_str(&text().expect("a document")).expect("JSON")
    }

    #[test]
    fn every_route_for_programs_is_described_once_and_nothing_else_is() {
        let rules: BTreeSet<(&str, &str)> =
            RULES.iter().filter(|rule| is_for_programs(rule)).map(|rule| (rule.method, rule.path)).collect();
        let operations = operations::all();
        let described: BTreeSet<(&str, &str)> = operations.iter().map(|one| (one.method, one.path)).collect();
        assert_eq!(described.len(), operations.len(), "a route is described twice");
        let without: Vec<_> = rules.difference(&described).collect();
        assert!(without.is_empty(), "routes without a description in api/openapi/operations.rs: {without:?}");
        let dead: Vec<_> = described.difference(&rules).collect();
        assert!(dead.is_empty(), "descriptions in api/openapi/operations.rs without a route: {dead:?}");
        let names: BTreeSet<&str> = operations.iter().map(|one| one.id).collect();
        assert_eq!(names.len(), operations.len(), "two operations have the same name");
        for operation in &operations {
            assert!(
                operation.words.len() > 10 && operation.words.ends_with('.'),
                "{}: {:?}",
                operation.path,
                operation.words
            );
        }
    }

    /// Every `$ref` below `value`.
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|inner| references(inner, found));
            }
            Value::Array(list) => list.iter().for_each(|inner| references(inner, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn what_is_referred_to_is_there_and_what_is_there_is_described() {
        let document = served();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for reference in &found {
            let place = reference.strip_prefix('#').expect("a place in this document");
            assert!(document.pointer(place).is_some(), "{reference} is not there");
        }
        for (name, schema) in document["components"]["schemas"].as_object().expect("schemas") {
            assert!(found.contains(&format!("#/components/schemas/{name}")), "nothing refers to {name}");
            assert!(schema["description"].is_string(), "{name} has no description");
            for (field, inner) in schema["properties"].as_object().into_iter().flatten() {
                let described = inner["description"].is_string() || inner.get("$ref").is_some();
                assert!(described, "{name}.{field} has no description");
            }
        }
    }

    #[test]
    fn every_operation_says_who_may_what_it_takes_and_what_it_answers() {
        let document = served();
        for (path, item) in document["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("methods") {
                let here = format!("{method} {path}");
                assert!(operation["security"].is_array(), "{here}");
                let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
                let in_path = parameters.iter().filter(|one| one["in"] == "path").count();
                assert_eq!(in_path, path.matches('{').count(), "{here}");
                for parameter in &parameters {
                    assert!(
                        parameter["description"].is_string() && parameter["schema"].is_object(),
                        "{here} {parameter}"
                    );
                }
                let answers = operation["responses"].as_object().expect("answers");
                assert!(answers.keys().any(|status| status.starts_with(['2', '3']) || status == "default"), "{here}");
                assert!(answers.contains_key("4XX") || answers.contains_key("default"), "{here}");
            }
        }
        let logs = &document["paths"]["/v1/apps/{app}/logs"]["get"];
        assert!(logs["responses"]["200"]["content"]["text/event-stream"].is_object(), "{logs}");
        assert_eq!(logs["security"][0]["bearer"][0], "read");
    }

    #[test]
    fn the_copy_in_the_documentation_is_this_document() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
        let wanted = text().expect("a document");
        if std::env::var_os("LANDFALL_UPDATE_DOCS").is_some() {
            std::fs::write(&path, &wanted).expect("written");
        }
        let now = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(now == wanted, "docs/openapi.json is out of date; run the tests once with LANDFALL_UPDATE_DOCS=1");
    }
}
