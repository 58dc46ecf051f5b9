//! Functions: called by name, on real workers.

use std::process::{Output, Stdio};

use landfall::client::{CallBody, ClientError, LogQuery};
use landfall::domain::{DeploymentOutcome, InstanceState};
use landfall::wire::api;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::support::asking::{name, number, refusal};
use crate::support::{Agent, landfall, number_from, until};

const PYTHON: &str = r#"
import asyncio, os, sys, time

calls = 0

def hello(name="world"):
    global calls
    calls += 1
    print("greets", name)
    return {"hello": name, "calls": calls, "version": os.environ["LANDFALL_VERSION"]}

def fail(text):
    raise ValueError(text)

def size(data=b""):
    return len(data)

def count(to):
    for number in range(to):
        yield {"number": number}

async def nap(seconds):
    await asyncio.sleep(seconds)
    return os.getpid()

def block(seconds):
    time.sleep(seconds)
    return os.environ["LANDFALL_VERSION"]

def die():
    os._exit(9)

def flood(lines):
    for number in range(lines):
        print("x" * 200)
    return lines
"#;

/// A manifest of functions, one per line, that all lie in `app.py`.
fn manifest(app: &str, functions: &[&str]) -> String {
    let functions: String = functions.iter().map(|line| format!("  {line}\n")).collect();
    format!("app: {app}\nbake: 200ms\nfunctions:\n{functions}")
}

/// Whether this machine can run it; in CI everything can be run.
pub fn has(program: &str) -> bool {
    let found =
        std::process::Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    assert!(found || std::env::var_os("CI").is_none(), "{program} is missing");
    if !found {
        eprintln!("skipped: {program} is not on this machine");
    }
    found
}

async fn with_functions(functions: &[&str]) -> Agent {
    let mut agent = Agent::start().await;
    agent.repo.write("pods/landfall.yaml", manifest("pods", functions)).write("pods/app.py", PYTHON);
    agent.repo.push("functions");
    agent.rest(&["pods"]).await;
    agent
}

impl Agent {
    /// `landfall call pods …`
    pub async fn call(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(landfall())
            .arg("--agent")
            .arg(self.root.join("agent.sock"))
            .args(["call", "pods"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        // A call that takes no body does not read it.
        let _ = stdin.write_all(input).await;
        drop(stdin);
        child.wait_with_output().await.expect("its end")
    }

    /// The result of a call that succeeds, as text.
    pub async fn called(&self, arguments: &[&str]) -> String {
        let output = self.call(arguments, b"").await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// What a call that fails says, with its exit code.
    pub async fn call_fails(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.call(arguments, b"").await;
        assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
        (output.status.code().expect("a code"), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_function_is_loaded_once_and_called_by_name() {
    if !has("python3") {
        return;
    }
    let agent = with_functions(&[
        "hello: {handler: app.py:hello}",
        "fail: {handler: app.py:fail}",
        "size: {handler: app.py:size, max_body: 2MiB}",
        "count: {handler: app.py:count}",
    ])
    .await;
    assert_eq!(agent.called(&["hello"]).await, "{\"hello\": \"world\", \"calls\": 1, \"version\": \"1\"}\n");
    let by_name = agent.called(&["hello", r#"{"name": "Ada"}"#]).await;
    assert_eq!(by_name, "{\"hello\": \"Ada\", \"calls\": 2, \"version\": \"1\"}\n", "it keeps its state");
    assert!(agent.called(&["hello", r#"["Bo"]"#]).await.contains("\"hello\": \"Bo\", \"calls\": 3"));
    assert_eq!(agent.called(&["count", "[3]"]).await, "{\"number\": 0}\n{\"number\": 1}\n{\"number\": 2}\n");

    let (code, said) = agent.call_fails(&["fail", r#"["no such pod"]"#]).await;
    assert_eq!(code, 1);
    assert!(said.contains("ValueError: no such pod") && said.contains("app.py\", line"), "{said}");
    assert!(!said.contains("worker.py"), "only the author's own frames: {said}");
    let (code, said) = agent.call_fails(&["hello", r#"{"nome": 1}"#]).await;
    assert!(code == 1 && said.contains("unexpected keyword argument 'nome'"), "{said}");
    let (code, said) = agent.call_fails(&["nothing"]).await;
    assert!(
        code == 4
            && said.contains("app pods has no function nothing")
            && said.contains("it has: count, fail, hello, size"),
        "{said}"
    );
    let (code, said) = agent.call_fails(&["hello", "{name: x}"]).await;
    assert!(code == 2 && said.contains("not JSON"), "{said}");

    for length in [0, 1, 2 * 1024 * 1024] {
        let output = agent.call(&["size", "-", "--type", "application/octet-stream"], &vec![b'x'; length]).await;
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{length}\n"));
    }
    let body = CallBody::bytes(vec![b'x'; 2 * 1024 * 1024 + 1]);
    let refused = agent.client.call_function(None, &name("pods"), &"size".parse().expect("a name"), None, body).await;
    match refused {
        Err(ClientError::Problem(problem)) => assert_eq!((problem.status, &*problem.code), (413, "body_too_large")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_call_prints_is_shown_to_its_caller_and_found_by_its_identifier() {
    if !has("python3") {
        return;
    }
    let agent = with_functions(&["hello: {handler: app.py:hello}", "fail: {handler: app.py:fail}"]).await;
    let function = "hello".parse().expect("a name");
    let mut ids = Vec::new();
    for person in ["Ada", "Bo"] {
        let body = CallBody::json(format!("[\"{person}\"]"));
        let answer = agent.client.call_function(None, &name("pods"), &function, None, body).await.expect("an answer");
        ids.push(answer.call.expect("an identifier"));
    }
    for (id, said) in ids.iter().zip(["greets Ada", "greets Bo"]) {
        let query = LogQuery { call: Some(*id), ..LogQuery::default() };
        until("the line is in the log", || async {
            let mut lines = agent.client.logs(None, &name("pods"), &query).await.map_err(|error| error.to_string())?;
            let mut found = Vec::new();
            while let Some(line) = lines.next().await.map_err(|error| error.to_string())? {
                found.push((line.call, line.line));
            }
            if found == [(Some(*id), said.to_owned())] { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }
    // The caller sees the call's identifier and the log on standard error, as soon as it is written.
    until("the caller sees what is printed", || async {
        let output = agent.call(&["hello", r#"["Cy"]"#], b"").await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let said: Vec<_> = said.lines().collect();
        if said.len() == 2 && said[0].starts_with("call ") && said[1] == "greets Cy" {
            Ok(())
        } else {
            Err(said.join("\n"))
        }
    })
    .await;
    let quiet = agent.call(&["hello", "--quiet"], b"").await;
    assert!(quiet.stderr.is_empty(), "{quiet:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_javascript_function_is_loaded_once_and_called_by_name() {
    if !has("node") {
        return;
    }
    let mut agent = Agent::start().await;
    let functions = [
        "hello: {handler: app.mjs:hello, concurrency: 8}",
        "fail: {handler: app.mjs:fail}",
        "count: {handler: app.mjs:count}",
        "size: {handler: old.cjs:size}",
    ];
    let code = "let calls = 0;\nexport async function hello({ name = 'world' } = {}) {\n  calls += 1;\n  console.log('greets', name);\n  return { hello: name, calls };\n}\nexport function fail(text) {\n  throw new TypeError(text);\n}\nexport function* count(to) {\n  for (let number = 0; number < to; number += 1) yield { number };\n}\n";
    agent
        .repo
        .write("pods/landfall.yaml", manifest("pods", &functions))
        .write("pods/app.mjs", code)
        .write("pods/old.cjs", "exports.size = (data) => data?.length ?? 0;\n");
    agent.repo.push("functions");
    agent.rest(&["pods"]).await;
    assert_eq!(agent.called(&["hello"]).await, "{\"hello\":\"world\",\"calls\":1}\n");
    assert_eq!(agent.called(&["hello", r#"{"name": "Ada"}"#]).await, "{\"hello\":\"Ada\",\"calls\":2}\n");
    assert_eq!(agent.called(&["count", "[2]"]).await, "{\"number\":0}\n{\"number\":1}\n");
    let output = agent.call(&["size", "-", "--type", "application/octet-stream"], &[b'x'; 70_000]).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "70000\n");
    let (code, said) = agent.call_fails(&["fail", r#"["no"]"#]).await;
    assert!(code == 1 && said.contains("TypeError: no") && said.contains("app.mjs:8"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_functions_answer() {
    if !has("python3") || !has("node") {
        return;
    }
    let mut agent = Agent::start().await;
    for app in ["functions", "functions-js"] {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(app);
        for entry in std::fs::read_dir(directory).expect("the example").flatten() {
            let text = std::fs::read_to_string(entry.path()).expect("a file");
            agent.repo.write(&format!("{app}/{}", entry.file_name().to_string_lossy()), text);
        }
    }
    agent.repo.push("examples");
    agent.rest(&["functions", "functions-js"]).await;
    let call = async |app: &str, function: &str, body: CallBody| {
        let answer = agent.client.call_function(None, &name(app), &function.parse().expect("a name"), None, body).await;
        let mut answer = answer.unwrap_or_else(|error| panic!("{app} {function}: {error}"));
        let body = String::from_utf8(answer.whole().await.expect("a body")).expect("text");
        assert!(answer.status.is_success(), "{app} {function}: {body}");
        body
    };
    let greeting = call("functions", "greet", CallBody::json(r#"{"name": "Ada"}"#)).await;
    assert_eq!(greeting, r#"{"text": "Hello, Ada!", "greeted": 1}"#);
    assert_eq!(call("functions", "primes", CallBody::json("[12]")).await, "2\n3\n5\n7\n11\n");
    assert!(call("functions", "count", CallBody::bytes("one two three")).await.contains("\"words\": 3"));
    assert_eq!(call("functions", "shout", CallBody::bytes("quiet")).await, "QUIET");
    assert_eq!(
        call("functions-js", "slug", CallBody::json(r#"["How it began, and why"]"#)).await,
        "\"how-it-began-and-why\""
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_run_once_for_each_call() {
    let agent = with_functions(&[
        r#"upper: {command: "tr a-z A-Z", mode: exec, concurrency: 4}"#,
        r#"told: {command: "echo $LANDFALL_CALL $LANDFALL_ATTEMPT $LANDFALL_FUNCTION", mode: exec}"#,
        r#"fail: {command: "echo one >&2; echo two >&2; exit 3", mode: exec}"#,
        r#"missing: {command: [./missing], mode: exec}"#,
    ])
    .await;
    let output = agent.call(&["upper", "-"], b"hello").await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "HELLO");
    let told = agent.called(&["told"]).await;
    let words: Vec<&str> = told.split_whitespace().collect();
    assert!(words.len() == 3 && words[0].len() == 26 && words[1..] == ["1", "told"], "{told}");
    let (code, said) = agent.call_fails(&["fail"]).await;
    assert!(code == 1 && said.contains("exit code 3") && said.contains("one\ntwo"), "{said}");
    let (code, said) = agent.call_fails(&["missing"]).await;
    assert!(code == 1 && said.contains("`./missing` cannot be started"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_does_not_load_fails_the_deployment_with_its_traceback() {
    if !has("python3") {
        return;
    }
    let mut agent = with_functions(&["hello: {handler: app.py:hello}"]).await;
    agent.repo.write("pods/app.py", "def hello(:\n    pass\n");
    agent.repo.push("broken");
    agent.rest(&["pods"]).await;
    let deployment = agent.deployment_of("pods", 2).await;
    assert_eq!(deployment.outcome, Some(DeploymentOutcome::Failed));
    let failure = deployment.failure.expect("a failure");
    assert_eq!((failure.code.as_str(), failure.object.as_deref()), ("exited_early", Some("hello")));
    let log = failure.log_tail.join("\n");
    assert!(log.contains("app.py\", line 1") && log.contains("SyntaxError"), "{log}");
    assert!(agent.called(&["hello"]).await.contains("\"version\": \"1\""), "the version before goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_takes_too_long_is_ended_with_its_instance_which_is_replaced() {
    if !has("python3") {
        return;
    }
    let agent = with_functions(&["block: {handler: app.py:block, timeout: 500ms, queue: 1}"]).await;
    let before = agent.instance_ids("pods").await;
    let (code, said) = agent.call_fails(&["block", "[600]"]).await;
    assert!(code == 6 && said.contains("not over after 500ms"), "{code} {said}");
    until("another instance is ready", || async {
        let instances = agent.instances("pods").await?;
        let ready = instances
            .iter()
            .find(|one| one.state == InstanceState::Ready && !before.contains(&one.instance.to_string()));
        ready.map(|_| ()).ok_or_else(|| format!("{instances:?}"))
    })
    .await;
    assert_eq!(agent.called(&["block", "[0]"]).await, "\"1\"\n");
    until("the overdue instance is gone", || async {
        let instances = agent.instance_ids("pods").await;
        if instances.iter().any(|id| before.contains(id)) { Err(format!("{instances:?}")) } else { Ok(()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_takes_too_long_ends_and_its_instance_stays() {
    let agent = with_functions(&[r#"nap: {command: "sleep \"$(cat)\"; echo done", mode: exec, timeout: 500ms}"#]).await;
    let before = agent.instance_ids("pods").await;
    let output = agent.call(&["nap", "-", "--type", "text/plain"], b"600").await;
    assert_eq!(output.status.code(), Some(6), "{}", String::from_utf8_lossy(&output.stderr));
    until("the process has ended", || async {
        let processes = crate::support::processes_of(&agent.root);
        let left: Vec<_> = processes.iter().filter(|process| process.contains("sleep 600")).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    let output = agent.call(&["nap", "-", "--type", "text/plain"], b"0").await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n");
    assert_eq!(agent.instance_ids("pods").await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_first_calls_at_once_wait_for_one_wave_and_all_succeed() {
    if !has("python3") {
        return;
    }
    const CALLS: usize = 500;
    let agent =
        with_functions(&["nap: {handler: app.py:nap, instances: {min: 0, max: 2, idle: 3s}, concurrency: 32}"]).await;
    until("there is no instance", || async {
        let instances = agent.instances("pods").await?;
        if instances.is_empty() { Ok(()) } else { Err(format!("{instances:?}")) }
    })
    .await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..CALLS {
        let client = agent.client.clone();
        calls.spawn(async move {
            let body = CallBody::json("[0.01]");
            let answer = client.call_function(None, &name("pods"), &"nap".parse().expect("a name"), None, body).await;
            let mut answer = answer.expect("an answer");
            let body = answer.whole().await.expect("a body");
            assert!(answer.status.is_success(), "{}", String::from_utf8_lossy(&body));
        });
    }
    assert_eq!(calls.join_all().await.len(), CALLS);
    let waves = agent.log().matches("started for a request that waits").count();
    assert_eq!(waves, 1, "one start, however many wait");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_end_on_the_version_they_began_on_while_another_is_deployed() {
    if !has("python3") {
        return;
    }
    let seconds = number_from("LANDFALL_TEST_CALL_SECONDS", 3);
    let function = format!("block: {{handler: app.py:block, instances: 2, timeout: {}s}}", seconds + 60);
    let mut agent = with_functions(&[&function]).await;
    let client = agent.client.clone();
    let call = move |body: String| {
        let client = client.clone();
        async move {
            let function = "block".parse().expect("a name");
            let answer = client.call_function(None, &name("pods"), &function, None, CallBody::json(body)).await;
            String::from_utf8(answer.expect("an answer").whole().await.expect("a body")).expect("text")
        }
    };
    let long: Vec<_> = (0..2).map(|_| tokio::spawn(call(format!("[{seconds}]")))).collect();
    until("both instances are busy", || async {
        let instances = agent.instances("pods").await?;
        let busy = instances.iter().filter(|instance| instance.in_flight == 1).count();
        if busy == 2 { Ok(()) } else { Err(format!("{instances:?}")) }
    })
    .await;
    agent.repo.write("pods/landfall.yaml", manifest("pods", &[&function]) + "env: {NEW: \"1\"}\n");
    agent.repo.push("two");
    agent.until_live("pods", 2).await;
    // Both places are taken on v1, for as long as they are: the deployment went on all the same.
    assert_eq!(call("[0]".to_owned()).await, "\"2\"", "a new call does not wait for the busy ones");
    for call in long {
        assert_eq!(call.await.expect("ends"), "\"1\"", "what began on v1 ends there");
    }
    until("v1 is gone", || async {
        let instances = agent.instances("pods").await?;
        if instances.iter().all(|one| one.version == number(2)) { Ok(()) } else { Err(format!("{instances:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_names_an_earlier_version_runs_its_code_and_leaves_the_live_one_alone() {
    if !has("python3") {
        return;
    }
    let function = "hello: {handler: app.py:hello, instances: {min: 1, max: 2, idle: 2s}}";
    let mut agent = with_functions(&[function]).await;
    agent.repo.write("pods/landfall.yaml", manifest("pods", &[function]) + "env: {NEW: \"1\"}\n");
    agent.repo.push("two");
    agent.rest(&["pods"]).await;
    assert!(agent.called(&["hello"]).await.contains("\"version\": \"2\""));
    assert!(agent.called(&["hello", "--version", "v1"]).await.contains("\"calls\": 1, \"version\": \"1\""));
    assert!(agent.called(&["hello", "--version", "1"]).await.contains("\"calls\": 2, \"version\": \"1\""), "kept warm");
    assert!(agent.called(&["hello"]).await.contains("\"calls\": 2, \"version\": \"2\""));
    assert!(agent.called(&["hello", "--version", "2"]).await.contains("\"calls\": 3"), "the live one is used as it is");
    until("what was started for the pin is gone", || async {
        let instances = agent.instances("pods").await?;
        if instances.iter().all(|one| one.version == number(2)) { Ok(()) } else { Err(format!("{instances:?}")) }
    })
    .await;
    assert!(agent.called(&["hello", "--version", "1"]).await.contains("\"calls\": 1, \"version\": \"1\""), "afresh");
    let (code, said) = agent.call_fails(&["hello", "--version", "9"]).await;
    assert!(code == 4 && said.contains("has no version v9"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_scaled_by_hand_until_the_next_deployment() {
    if !has("python3") {
        return;
    }
    let mut agent = with_functions(&["hello: {handler: app.py:hello}"]).await;
    let scale = |min, max| api::ScaleRequest { object: "hello".parse().expect("a name"), min, max };
    let scaled = agent.client.scale(None, &name("pods"), &scale(Some(3), Some(3))).await.expect("scaled");
    assert_eq!((scaled.min, scaled.max), (3, 3));
    let ready = async |count: usize| {
        until("so many instances are ready", || async {
            let instances = agent.instances("pods").await?;
            let ready = instances.iter().filter(|one| one.state == InstanceState::Ready).count();
            if (ready, instances.len()) == (count, count) { Ok(()) } else { Err(format!("{instances:?}")) }
        })
        .await;
    };
    ready(3).await;
    let problem = refusal(agent.client.scale(None, &name("pods"), &scale(Some(2), Some(1))).await);
    assert_eq!(problem.status, 422, "{problem:?}");
    agent.client.scale(None, &name("pods"), &scale(None, None)).await.expect("scaled back");
    ready(1).await;
    agent.client.scale(None, &name("pods"), &scale(Some(2), Some(4))).await.expect("scaled");
    ready(2).await;
    agent.repo.write("pods/more.txt", "two");
    agent.repo.push("two");
    agent.rest(&["pods"]).await;
    until("the next version has its own number", || async {
        let instances = agent.instances("pods").await?;
        let good = instances.len() == 1 && instances[0].version == number(2);
        if good { Ok(()) } else { Err(format!("{instances:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_call_functions_of_others_with_the_token_they_were_given() {
    if !has("python3") {
        return;
    }
    let code = r#"
import json, os, urllib.error, urllib.request

def relay(app, function, token=None):
    url = f"{os.environ['LANDFALL_URL']}/v1/apps/{app}/functions/{function}/call"
    bearer = os.environ["LANDFALL_TOKEN"] if token is None else token
    headers = {"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, b'["Ada"]', headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return [answer.status, json.load(answer)]
    except urllib.error.HTTPError as error:
        return [error.code, json.load(error)["code"]]
"#;
    let mut agent = with_functions(&["hello: {handler: app.py:hello}"]).await;
    agent.repo.write("caller/landfall.yaml", manifest("caller", &["relay: {handler: app.py:relay}"]));
    agent.repo.write("caller/app.py", code);
    agent.repo.push("caller");
    agent.rest(&["caller"]).await;
    let relay = async |body: &str| {
        let (app, function) = (name("caller"), "relay".parse().expect("a name"));
        let answer = agent.client.call_function(None, &app, &function, None, CallBody::json(body)).await;
        String::from_utf8(answer.expect("an answer").whole().await.expect("a body")).expect("text")
    };
    let good = relay(r#"["pods", "hello"]"#).await;
    assert!(good.starts_with("[200, ") && good.contains("\"hello\": \"Ada\""), "{good}");
    assert_eq!(relay(r#"["pods", "nothing"]"#).await, "[404, \"unknown_function\"]");
    assert_eq!(relay(r#"["pods", "hello", "lf1.main.pods.1.00"]"#).await, "[401, \"no_token\"]");
    assert_eq!(relay(r#"["pods", "hello", ""]"#).await, "[401, \"no_token\"]");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_keeps_dying_is_refused_with_the_reason_and_announced() {
    if !has("python3") {
        return;
    }
    let mut agent = with_functions(&["die: {handler: app.py:die, instances: 1}"]).await;
    agent.until_app("pods", "the deployment is over", |app| app.live_version == Some(number(1))).await;
    agent.rest(&["pods"]).await;
    let (code, said) = agent.call_fails(&["die"]).await;
    assert!(code == 1 && said.contains("ended before the call was over"), "{said}");
    until("it counts as crashing", || async {
        let (_, said) = agent.call_fails(&["die"]).await;
        if said.contains("exit code 9") && said.contains("no instance is ready") { Ok(()) } else { Err(said) }
    })
    .await;
    let app = agent.shown("pods").await;
    assert!(app.message.as_deref().is_some_and(|message| message.contains("exit code 9")), "{app:?}");

    agent.stop();
}
