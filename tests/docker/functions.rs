//! Functions and their schedules, in containers.

use landfall::client::CallBody;

use crate::engine::{agent_at, engine, manifest, owner, python_image, running, scene};
use crate::support::asking::name;
use crate::support::{Agent, until};

async fn called(agent: &Agent, app: &str, function: &str, body: &str) -> Result<String, String> {
    let function = function.parse().expect("a name");
    let body = if body.is_empty() { CallBody::empty() } else { CallBody::json(body) };
    let answer = agent.client.call_function(None, &name(app), &function, None, body).await;
    let mut answer = answer.map_err(|error| error.to_string())?;
    let text = answer.whole().await.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&text).into_owned();
    if answer.status.is_success() { Ok(text) } else { Err(format!("{}: {text}", answer.status)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_and_a_process_per_call_answer_from_containers() {
    let Some((mut agent, image)) = scene().await else { return };
    let text = format!(
        "app: pods\nimage: {image}\nbake: 200ms\nfunctions:\n  warm: {{command: [/app/test-app, calls, /tmp/calls], mode: server}}\n  once: {{command: [/app/test-app, exit, \"0\", done], mode: exec}}\n  bad: {{command: [/app/test-app, exit, \"3\", went wrong], mode: exec}}\n"
    );
    agent.repo.write("pods/landfall.yaml", text);
    agent.repo.push("functions");
    agent.until_live("pods", 1).await;
    until("the warm one answers", || async { called(&agent, "pods", "warm", "{}").await }).await;
    called(&agent, "pods", "once", "").await.expect("ends well");
    let error = called(&agent, "pods", "bad", "").await.expect_err("ends badly");
    assert!(error.contains('3'), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_runs_with_the_image_s_python_and_its_schedule_too() {
    let Some(address) = engine() else { return };
    let Some(image) = python_image(&address) else { return };
    let mut agent = agent_at(&address, "").await;
    let text = format!(
        "app: pods\nimage: {image}\nbake: 200ms\nfunctions:\n  hello: {{handler: \"app.py:hello\", schedule: {{every: 10s}}}}\n"
    );
    agent.repo.write("pods/landfall.yaml", text);
    agent.repo.write("pods/app.py", "def hello(who='nobody'):\n    print('greets', who)\n    return {'hello': who}\n");
    agent.repo.push("a handler");
    agent.until_live("pods", 1).await;
    let answer = called(&agent, "pods", "hello", "{\"who\": \"world\"}").await.expect("an answer");
    assert_eq!(answer.replace(' ', "").trim(), "{\"hello\":\"world\"}");
    until("the schedule has called it", || async {
        match crate::engine::logs(&agent, "pods").contains("greets nobody") {
            true => Ok(()),
            false => Err("not yet".to_owned()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_somebody_wants_gone_is_replaced() {
    let Some((mut agent, image)) = scene().await else { return };
    agent.repo.write("shop/landfall.yaml", manifest("shop", &image, "")).write("shop/content.txt", "v1\n");
    agent.repo.push("v1");
    agent.until_body("shop", "v1\n").await;
    let before = running(&agent).await;
    let instance = agent.instances("shop").await.expect("instances").remove(0).instance.to_string();
    agent.client.stop_instance(&instance).await.expect("stopped");
    until("another has its place", || async {
        let now = crate::engine::containers_at(&engine().expect("an engine"), &agent, "status=running");
        if now.len() == 1 && now[0] != before { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    agent.until_body("shop", "v1\n").await;
    assert_eq!(owner(&agent).len(), 12);
}
