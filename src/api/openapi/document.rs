//! From operations to the document.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::super::rules;
use super::operations::{Answers, Operation, Takes};
use crate::wire::PROGRAM_VERSION;
use crate::wire::api::Problem;

/// Makes the schema of a type.
pub type SchemaOf = fn(&mut SchemaGenerator) -> schemars::Schema;

const PROBLEM: &str = "application/problem+json";

/// What stands before everything else.
const INTRODUCTION: &str = "The API of a Landfall agent. Keys are snake_case, times RFC 3339, identifiers strings, versions \
numbers. Fields are only added within `/v1`. Errors are problem documents (RFC 9457): `code` is stable, `title` says what is \
wrong, `mend` what to do. Over the agent's Unix socket the user is known and needs no token; `docs/access.md` tells the rest.";

/// Schemas of what is answered are shared under their names; those of what is read stand where they are used, because a
/// type may be read more generously than it is written.
struct Schemas {
    answers: SchemaGenerator,
    bodies: SchemaGenerator,
}

impl Schemas {
    fn new() -> Self {
        let answers = SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        });
        let bodies = SchemaSettings::draft2020_12().with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        });
        Self { answers: answers.for_serialize().into_generator(), bodies: bodies.for_deserialize().into_generator() }
    }
}

/// The whole document.
pub fn document(operations: &[Operation]) -> Result<Value, String> {
    let mut schemas = Schemas::new();
    let mut paths: Map<String, Value> = Map::new();
    let problem = schemas.answers.subschema_for::<Problem>().to_value();
    for operation in operations {
        let item = paths.entry(operation.path).or_insert_with(|| json!({}));
        let described = describe(operation, &mut schemas)?;
        if let Some(methods) = item.as_object_mut() {
            methods.insert(operation.method.to_ascii_lowercase(), described);
        }
    }
    let mut definitions = schemas.answers.take_definitions(true);
    definitions.sort_keys();
    Ok(json!({
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Landfall",
            "version": PROGRAM_VERSION,
            "description": INTRODUCTION,
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "The agent this document was had from."}],
        "tags": tags(operations),
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of `landfall token create`. The verbs an operation needs are named with it.",
                },
            },
            "responses": {
                "Refused": {
                    "description": "The request is wrong, or may not be made.",
                    "content": {PROBLEM: {"schema": problem}},
                },
                "TooMany": {
                    "description": "Too many requests, or too many wrong tokens, from there.",
                    "headers": {"Retry-After": {
                        "description": "Seconds after which it may go better.",
                        "schema": {"type": "integer", "minimum": 0},
                    }},
                    "content": {PROBLEM: {"schema": problem}},
                },
                "Failed": {
                    "description": "The agent cannot do it now, or has failed.",
                    "content": {PROBLEM: {"schema": problem}},
                },
            },
            "schemas": definitions,
        },
    }))
}

fn tags(operations: &[Operation]) -> Vec<Value> {
    let mut names: Vec<&str> = Vec::new();
    for operation in operations {
        if !names.contains(&operation.tag()) {
            names.push(operation.tag());
        }
    }
    names.into_iter().map(|name| json!({"name": name})).collect()
}

fn describe(operation: &Operation, schemas: &mut Schemas) -> Result<Value, String> {
    let rule = rules::rule(operation.method, operation.path)
        .ok_or_else(|| format!("{} {} has no rule", operation.method, operation.path))?;
    // One entry for each verb that will do: in OpenAPI the entries of `security` are alternatives.
    let security: Vec<Value> = rule.verbs.iter().map(|verb| json!({"bearer": [verb.as_str()]})).collect();
    let summary = operation.words.split_once(". ").map_or(operation.words, |(first, _)| first).trim_end_matches('.');
    let mut described = Map::new();
    described.insert("operationId".into(), json!(operation.id));
    described.insert("tags".into(), json!([operation.tag()]));
    described.insert("summary".into(), json!(summary));
    described.insert("description".into(), json!(format!("{}{}", operation.words, needs(rule))));
    described.insert("security".into(), json!(security));
    let parameters = parameters(operation, schemas);
    if !parameters.is_empty() {
        described.insert("parameters".into(), Value::Array(parameters));
    }
    if let Some(body) = body(operation, schemas) {
        described.insert("requestBody".into(), body);
    }
    described.insert("responses".into(), responses(operation, schemas));
    Ok(Value::Object(described))
}

fn needs(rule: &rules::Rule) -> String {
    let verbs: Vec<String> = rule.verbs.iter().map(|verb| format!("`{verb}`")).collect();
    let over = match rule.over {
        rules::Over::App | rules::Over::Owner => "on the app",
        rules::Over::Apps => "and shows what the scope reaches",
        rules::Over::Named => "and, with a scope for some apps, `app`",
        rules::Over::Upload => "on the app in the archive",
        rules::Over::Agent => "on the agent as a whole",
        rules::Over::Open => return String::new(),
    };
    format!(" Needs {} {over}.", verbs.join(" or "))
}

fn parameters(operation: &Operation, schemas: &mut Schemas) -> Vec<Value> {
    let mut found = Vec::new();
    for part in operation.path.split('/') {
        if let Some(name) = part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            let (schema, words) = in_path(name, schemas);
            found.push(json!({
                "name": name, "in": "path", "required": true, "description": words, "schema": schema,
            }));
        }
    }
    if let Some(query) = operation.query {
        let schema = query(&mut schemas.bodies).to_value();
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        for (name, mut inner) in schema["properties"].as_object().cloned().unwrap_or_default() {
            let words = inner.as_object_mut().and_then(|inner| inner.remove("description"));
            without_null(&mut inner);
            found.push(json!({
                "name": name, "in": "query", "required": required.contains(&json!(name)),
                "description": words, "schema": inner,
            }));
        }
    }
    for (name, words) in operation.headers {
        found.push(json!({
            "name": name, "in": "header", "required": false, "description": words, "schema": {"type": "string"},
        }));
    }
    found
}

/// A parameter is there or not; there is no way to write `null` in a query.
fn without_null(schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else { return };
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|one| one != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".into(), only);
        }
    }
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
    if let Some(Value::Array(all)) = schema.get_mut("anyOf") {
        all.retain(|one| one["type"] != "null");
        if let [only] = all.as_slice() {
            let only = only.as_object().cloned().unwrap_or_default();
            schema.remove("anyOf");
            schema.extend(only);
        }
    }
}

fn in_path(name: &str, schemas: &mut Schemas) -> (Value, &'static str) {
    use crate::domain::{AppName, CallId, DeploymentId, ObjectName, SourceName, VersionNumber};
    let bodies = &mut schemas.bodies;
    let (schema, words) = match name {
        "app" => (bodies.subschema_for::<AppName>(), "The app's name."),
        "function" => (bodies.subschema_for::<ObjectName>(), "The function's name."),
        "deployment" => (bodies.subschema_for::<DeploymentId>(), "The deployment's number."),
        "call" => (bodies.subschema_for::<CallId>(), "The call's identifier."),
        "source" => (bodies.subschema_for::<SourceName>(), "The source's name."),
        "from" => (bodies.subschema_for::<VersionNumber>(), "The version that is compared with."),
        "to" => (bodies.subschema_for::<VersionNumber>(), "The version that is looked at."),
        "instance" => (bodies.subschema_for::<String>(), "The instance's identifier."),
        "channel" => (bodies.subschema_for::<String>(), "The channel's name."),
        _ => (bodies.subschema_for::<String>(), "Its name."),
    };
    let mut schema = schema.to_value();
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("description");
        // A path with an empty part is another path.
        schema.entry("minLength").or_insert(json!(1));
    }
    (schema, words)
}

fn body(operation: &Operation, schemas: &mut Schemas) -> Option<Value> {
    let any = |media: &str, words: &str| json!({"description": words, "content": {media: {}}});
    Some(match operation.takes {
        Takes::Nothing => return None,
        Takes::Json { schema, required } => {
            let schema = schema(&mut schemas.bodies).to_value();
            json!({"required": required, "content": {"application/json": {"schema": schema}}})
        }
        Takes::Media { media, words } => any(media, words),
        Takes::Form { fields } => {
            let properties: Map<String, Value> = fields
                .iter()
                .map(|(name, words)| ((*name).to_owned(), json!({"type": "string", "description": words})))
                .collect();
            let schema = json!({"type": "object", "properties": properties});
            json!({"content": {"application/x-www-form-urlencoded": {"schema": schema}}})
        }
    })
}

fn responses(operation: &Operation, schemas: &mut Schemas) -> Value {
    let mut answers = Map::new();
    let refused = |name: &str| json!({"$ref": format!("#/components/responses/{name}")});
    let mut insert = |status: &str, answer: Value| answers.insert(status.to_owned(), answer);
    match operation.answers {
        Answers::Json { status, schema } => {
            let schema = schema(&mut schemas.answers).to_value();
            insert(
                status,
                json!({"description": operation.brings, "content": {"application/json": {"schema": schema}}}),
            );
            if status == "202" {
                // What was asked for twice, or came to nothing, is answered with 200.
                insert(
                    "200",
                    json!({"description": operation.brings, "content": {"application/json": {"schema": schema}}}),
                );
            }
        }
        Answers::Stream { schema } => {
            let schema = schema(&mut schemas.answers).to_value();
            insert("200", stream(operation.brings, &schema));
        }
        Answers::Media { media } => {
            insert("200", json!({"description": operation.brings, "content": {media: {}}}));
        }
        Answers::Redirect => {
            insert(
                "303",
                json!({
                    "description": operation.brings,
                    "headers": {"Location": {"description": "Where to go on.", "schema": {"type": "string"}}},
                }),
            );
        }
        Answers::Function => {
            insert(
                "default",
                json!({
                    "description": "What the function answered, as it came; refusals of the agent are problem documents.",
                    "content": {"*/*": {}},
                }),
            );
            return Value::Object(answers);
        }
    }
    insert("4XX", refused("Refused"));
    insert("429", refused("TooMany"));
    insert("5XX", refused("Failed"));
    Value::Object(answers)
}

/// An event stream; its schema is that of each event, as OpenAPI 3.2 writes it.
fn stream(brings: &str, data: &Value) -> Value {
    let text = |words: &str| json!({"type": "string", "description": words});
    json!({
        "description": format!(
            "{brings} Server-sent events. Whoever was cut off sends the `id` of the last one as `Last-Event-ID` and gets what \
             came after it; the event `end` says that there is no more."
        ),
        "content": {"text/event-stream": {"schema": {
            "type": "object",
            "properties": {
                "id": text("The place behind this event; it holds over restarts of the agent."),
                "event": text("Left out, or `end`."),
                "data": {
                    "type": "string",
                    "description": "A value as JSON; of `end` an empty object.",
                    "contentMediaType": "application/json",
                    "contentSchema": {"anyOf": [data, {"type": "object", "maxProperties": 0}]},
                },
            },
        }}},
    })
}
