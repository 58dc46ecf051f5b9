//! Traces of deployments and calls, at a collector that speaks OTLP over HTTP.

use std::collections::BTreeMap;

use landfall::client::CallBody;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::support::asking::{function, name};
use crate::support::receiver::{Answer, Receiver, Request};
use crate::support::{Agent, Setup, until};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A span as the collector has got it.
#[derive(Debug, Clone)]
struct Span(Value);

impl Span {
    fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_default()
    }

    fn attribute(&self, key: &str) -> Option<&str> {
        let attribute = self.0["attributes"].as_array()?.iter().find(|attribute| attribute["key"] == key)?;
        let value = &attribute["value"];
        value["stringValue"].as_str().or(value["intValue"].as_str())
    }

    fn nanos(&self, key: &str) -> u128 {
        self.text(key).parse().expect("nanoseconds")
    }

    /// Whether it lies within the other.
    fn is_within(&self, other: &Span) -> bool {
        other.nanos("startTimeUnixNano") <= self.nanos("startTimeUnixNano")
            && self.nanos("endTimeUnixNano") <= other.nanos("endTimeUnixNano")
    }
}

/// All spans of these requests, none of which came twice.
fn spans(requests: &[Request]) -> BTreeMap<(String, String), Span> {
    let mut found = BTreeMap::new();
    for request in requests {
        assert_eq!((request.path.as_str(), request.header("content-type")), ("/v1/traces", Some("application/json")));
        for resource in request.body["resourceSpans"].as_array().expect("resources") {
            for scope in resource["scopeSpans"].as_array().expect("scopes") {
                for span in scope["spans"].as_array().expect("spans") {
                    let span = Span(span.clone());
                    let key = (span.text("traceId").to_owned(), span.text("spanId").to_owned());
                    assert!(key.0.len() == 32 && key.1.len() == 16, "{key:?}");
                    assert!(found.insert(key, span).is_none(), "a span came twice");
                }
            }
        }
    }
    found
}

/// The first span of that name, once it is there, with its parts by name.
async fn until_span(collector: &Receiver, name: &str) -> (Span, BTreeMap<String, Span>) {
    until(&format!("the span `{name}` comes"), || async {
        let all = spans(&collector.taken());
        let root = all.values().find(|span| span.text("name") == name).cloned();
        let root =
            root.ok_or_else(|| format!("{:?}", all.values().map(|span| span.text("name")).collect::<Vec<_>>()))?;
        let below = all.values().filter(|span| span.text("traceId") == root.text("traceId"));
        let below = below.map(|span| (span.text("name").to_owned(), span.clone())).collect();
        Ok::<_, String>((root, below))
    })
    .await
}

async fn agent(collector: &Receiver, more: &str) -> Agent {
    let mut setup = Setup::new();
    let headers = setup.dir.path().join("headers");
    std::fs::write(&headers, "x-tenant: harbour\n").expect("written");
    setup.more =
        format!("traces: {{endpoint: \"http://{}\", headers_file: {}{more}}}\n", collector.address, headers.display());
    let mut agent = setup.start().await;
    agent
        .deploy_functions(&[
            "told: {command: \"printf %s \\\"$TRACEPARENT\\\"\", mode: exec}",
            "breaks: {command: [\"false\"], mode: exec}",
        ])
        .await;
    agent
}

/// Calls a function with a `traceparent`; answers what it wrote.
async fn call_below(agent: &Agent, parent: &str) -> String {
    let mut stream = UnixStream::connect(agent.root.join("agent.sock")).await.expect("connects");
    let request = format!(
        "POST /v1/apps/pods/functions/told/call HTTP/1.1\r\nhost: localhost\r\ntraceparent: {parent}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.rsplit_once("\r\n\r\n").map(|(_, body)| body.trim().to_owned()).expect("a body")
}

#[tokio::test(flavor = "multi_thread")]
async fn deployments_and_calls_are_spans_at_the_collector_and_functions_hear_of_their_trace() {
    let collector = Receiver::start().await;
    let agent = agent(&collector, "").await;

    let (deployment, phases) = until_span(&collector, "deploy pods").await;
    assert_eq!(deployment.attribute("landfall.outcome"), Some("succeeded"));
    for phase in ["pending", "preparing", "starting", "switching", "baking"] {
        assert!(phases[phase].is_within(&deployment), "{phase}: {phases:?}");
        assert_eq!(phases[phase].text("parentSpanId"), deployment.text("spanId"));
    }
    assert!(collector.taken().iter().all(|request| request.header("x-tenant") == Some("harbour")));

    // A call somebody waits for, in its caller's trace.
    let told = call_below(&agent, PARENT).await;
    let (call, parts) = until_span(&collector, "call pods told").await;
    assert_eq!(call.text("traceId"), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(call.text("parentSpanId"), "b7ad6b7169203331");
    let attempt = &parts["attempt 1"];
    assert_eq!(told, format!("00-{}-{}-01", call.text("traceId"), attempt.text("spanId")), "what the function heard");
    assert_eq!(attempt.text("parentSpanId"), call.text("spanId"));
    assert!(parts["run told"].is_within(attempt), "{parts:?}");

    // One that is on record before it runs begins a trace of its own, and says why it failed.
    let spawned =
        agent.client.spawn(None, &name("pods"), &function("breaks"), None, CallBody::json("null"), None).await;
    let spawned = spawned.expect("spawned").call.to_string();
    let (call, parts) = until_span(&collector, "call pods breaks").await;
    assert_eq!(call.attribute("landfall.call"), Some(spawned.as_str()));
    assert_eq!((call.0["status"]["code"].as_u64(), call.text("parentSpanId")), (Some(2), ""));
    assert!(call.0["status"]["message"].as_str().is_some_and(|why| why.contains("exit code 1")), "{call:?}");
    assert!(parts["attempt 1"].is_within(&call), "{parts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_holds_nobody_up_and_gets_what_waited() {
    let collector = Receiver::start().await;
    collector.otherwise(Answer::Refused("503 Service Unavailable"));
    let agent = agent(&collector, "").await;
    until("that it is not taken is shown", || async {
        let problems = agent.client.status().await.map_err(|error| error.to_string())?.problems;
        let shown = problems.iter().any(|problem| problem.contains("traces are not taken") && problem.contains("503"));
        if shown { Ok(()) } else { Err(format!("{problems:?}")) }
    })
    .await;
    collector.otherwise(Answer::Created);
    until_span(&collector, "deploy pods").await;
    until("nothing is wrong any more", || async {
        let problems = agent.client.status().await.map_err(|error| error.to_string())?.problems;
        if problems.is_empty() { Ok(()) } else { Err(format!("{problems:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_traces_few_are_kept_but_a_caller_decides_for_its_own() {
    let collector = Receiver::start().await;
    let agent = agent(&collector, ", one_in: 1000000").await;
    let unwanted = PARENT.replace("-01", "-00");
    assert!(call_below(&agent, &unwanted).await.ends_with("-00"), "the caller's word is handed on");
    assert!(call_below(&agent, PARENT).await.ends_with("-01"));
    let (call, _) = until_span(&collector, "call pods told").await;
    assert_eq!(call.text("parentSpanId"), "b7ad6b7169203331");
    let calls = spans(&collector.taken()).values().filter(|span| span.text("name") == "call pods told").count();
    assert_eq!(calls, 1, "only the one that is wanted");
}
