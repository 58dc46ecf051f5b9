//! Commands and questions as the tests put them, and a way to wait until nothing is left to be done.

use std::time::Duration;

use landfall::client::ClientError;
use landfall::domain::{AppName, EventKind, ObjectName, VersionNumber};
use landfall::wire::api;

use super::{Agent, test_app, until};

/// An app's name.
pub fn name(app: &str) -> AppName {
    app.parse().expect("a name")
}

/// A function's name.
pub fn function(name: &str) -> ObjectName {
    name.parse().expect("a name")
}

/// A version's number.
pub fn number(version: u32) -> VersionNumber {
    VersionNumber::new(version).expect("not 0")
}

/// The test app with these arguments, as a manifest's `command`.
pub fn command(arguments: &[&str]) -> String {
    let words: Vec<String> = arguments.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}, {}]", test_app(), words.join(", "))
}

/// A manifest of one web app that runs the test app with these arguments; `more` is added at the end, at the
/// top level.
pub fn manifest(app: &str, arguments: &[&str], bake: &str, more: &str) -> String {
    let command = command(arguments);
    format!(
        "app: {app}\nbake: {bake}\nweb:\n  main:\n    command: {command}\n    health: {{path: /healthz, interval: 50ms}}\n    drain: 2s\n    grace: 2s\n{more}"
    )
}

/// The problem document of a refused command.
pub fn refusal<T: std::fmt::Debug>(result: Result<T, ClientError>) -> api::Problem {
    match result {
        Err(ClientError::Problem(problem)) => problem,
        other => panic!("this should have been refused: {other:?}"),
    }
}

/// A rollback to this version, or to the default one.
pub fn back_to(version: Option<u32>) -> api::RollbackRequest {
    api::RollbackRequest { version: version.and_then(VersionNumber::new), ..Default::default() }
}

/// The instant this far from now.
pub fn from_now(wait: Duration) -> jiff::Timestamp {
    jiff::Timestamp::now() + wait
}

impl Agent {
    /// Deploys the app `pods` with these functions; in them `SERVER` stands for the server of calls of the test app, which
    /// writes what it does to `ran`.
    pub async fn deploy_functions(&mut self, functions: &[&str]) {
        let server = command(&["calls", &self.root.join("ran").display().to_string()]);
        let functions: String =
            functions.iter().map(|line| format!("  {}\n", line.replace("SERVER", &server))).collect();
        self.repo.write("pods/landfall.yaml", format!("app: pods\nbake: 100ms\nfunctions:\n{functions}"));
        self.repo.push("functions");
        self.rest(&["pods"]).await;
    }

    /// Has the source looked at, then waits until no deployment of these apps is open and nothing more follows
    /// from what was seen.
    pub async fn rest(&self, apps: &[&str]) {
        for app in apps {
            self.rest_of(app).await;
        }
    }

    /// Waits until no deployment of this app is open and none follows by itself.
    pub async fn rest_of(&self, app: &str) {
        let source = "fleet".parse().expect("a name");
        until(&format!("{app} is at rest"), || async {
            let before = self.newest_deployment(app).await?;
            let over = before.as_ref().is_none_or(|deployment| deployment.outcome.is_some());
            if !over {
                return Err(format!("{before:?}"));
            }
            // Answered when nothing is left to be decided, of what the look brings and of all that came before.
            self.client.sync(&source).await.map_err(|error| error.to_string())?;
            let after = self.newest_deployment(app).await?;
            if before == after { Ok(()) } else { Err(format!("{after:?}")) }
        })
        .await;
    }

    async fn newest_deployment(&self, app: &str) -> Result<Option<api::Deployment>, String> {
        let all = self.client.deployments(None, &name(app), Some(1)).await.map_err(|error| error.to_string())?;
        Ok(all.into_iter().next())
    }

    pub async fn rollback(&self, app: &str, request: api::RollbackRequest) -> api::Accepted {
        self.client.rollback(None, &name(app), &request).await.expect("the rollback is accepted")
    }

    pub async fn refused_rollback(&self, app: &str, request: api::RollbackRequest) -> api::Problem {
        refusal(self.client.rollback(None, &name(app), &request).await)
    }

    pub async fn release(&self, app: &str, force: bool) -> Result<api::Accepted, ClientError> {
        self.client.release(None, &name(app), &api::ReleaseRequest { force, reason: None }).await
    }

    pub async fn stop_app(&self, app: &str, reason: &str) -> Result<api::Accepted, ClientError> {
        self.client.stop(None, &name(app), &api::ReasonRequest { reason: Some(reason.into()) }).await
    }

    /// The app as it is now.
    pub async fn shown(&self, app: &str) -> api::App {
        self.app(app).await.expect("the app")
    }

    /// Numbers of the live version and of the newest one.
    pub async fn live_and_newest(&self, app: &str) -> (Option<u32>, u32) {
        let versions = self.versions(app).await;
        let newest = versions.first().map_or(0, |version| version.version.get());
        let numbers: Vec<u32> = versions.iter().rev().map(|version| version.version.get()).collect();
        assert_eq!(numbers, (1..=newest).collect::<Vec<_>>(), "versions are dense");
        (versions.iter().find(|version| version.live).map(|version| version.version.get()), newest)
    }

    pub async fn version(&self, app: &str, version: u32) -> api::Version {
        let versions = self.versions(app).await;
        versions.into_iter().find(|found| found.version.get() == version).expect("the version")
    }

    /// The newest deployment of a version.
    pub async fn deployment_of(&self, app: &str, version: u32) -> api::Deployment {
        let id = self.version(app, version).await.deployment.expect("its deployment");
        self.client.deployment(id).await.expect("the deployment")
    }

    /// The app's instances that were not told to stop, sorted.
    pub async fn instance_ids(&self, app: &str) -> Vec<String> {
        use landfall::domain::InstanceState::{Ready, Starting};
        let all = self.client.instances(None, Some(&name(app))).await.expect("instances");
        let mut ids: Vec<String> = all
            .into_iter()
            .filter(|instance| matches!(instance.state, Ready | Starting))
            .map(|instance| instance.instance.to_string())
            .collect();
        ids.sort();
        ids
    }

    /// Messages of all events of a kind about an app, oldest first.
    pub async fn events(&self, app: &str, kind: EventKind) -> Vec<String> {
        let all = self.client.events(0, 1000).await.expect("events");
        let mine = |event: &api::EventRecord| {
            event.event.kind == kind && event.event.app.as_ref().is_some_and(|key| key.app.as_str() == app)
        };
        all.into_iter().filter(mine).map(|event| event.event.message).collect()
    }

    /// Makes the app's instance end with this code; the request itself gets no answer.
    pub async fn crash(&self, app: &str, code: u8) {
        let before = self.instance_ids(app).await;
        let answer = self.get(app, &format!("/exit?code={code}")).await;
        assert!(answer.as_ref().map_or(true, |answer| answer.status >= 500), "{answer:?}");
        until(&format!("an instance of {app} has ended"), || async {
            let now = self.instance_ids(app).await;
            if before.iter().all(|id| now.contains(id)) { Err(format!("{now:?}")) } else { Ok(()) }
        })
        .await;
    }

    /// Waits until a request gets 200, and answers its body.
    pub async fn until_served(&self, app: &str) -> String {
        until(&format!("{app} answers"), || async {
            let answer = self.get(app, "/").await?;
            if answer.status == 200 { Ok(answer.body) } else { Err(format!("{answer:?}")) }
        })
        .await
    }
}
