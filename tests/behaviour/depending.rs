//! `depends_on`: the order in which apps become live, what waiting looks like, and what no order can help.

use std::os::unix::fs::PermissionsExt;

use landfall::domain::{DeploymentOutcome, EventKind, Phase};
use landfall::wire::api;

use crate::sources::until_source;
use crate::support::asking::{back_to, name};
use crate::support::{Agent, Repo, Setup, until, web_manifest};

/// `a-shop` needs `z-db`: by their names alone the order would be the other one.
fn shop(content: &str) -> String {
    format!("{}depends_on: [z-db]\n# {content}\n", web_manifest("a-shop", ""))
}

impl Agent {
    fn write_shop(&mut self, content: &str) -> &mut Repo {
        self.repo.app("a-shop", content).write("a-shop/landfall.yaml", shop(content))
    }

    /// A database whose build ends once the file is there.
    fn write_slow_db(&mut self, content: &str, go: &std::path::Path) -> &mut Repo {
        let build = format!("build: {{command: [sh, -c, 'while [ ! -e {} ]; do sleep 0.02; done']}}\n", go.display());
        self.repo.app("z-db", content).write("z-db/landfall.yaml", format!("{}{build}", web_manifest("z-db", "")))
    }

    async fn newest(&self, app: &str) -> Result<api::Deployment, String> {
        let all = self.client.deployments(None, &name(app), Some(1)).await.map_err(|error| error.to_string())?;
        all.into_iter().next().ok_or_else(|| "there is none".to_owned())
    }

    /// Waits until the newest deployment of an app waits, saying this.
    async fn until_waiting(&self, app: &str, words: &str) -> api::Deployment {
        let deployment = until(&format!("{app} waits: {words}"), || async {
            let deployment = self.newest(app).await?;
            let says = deployment.progress.as_deref().is_some_and(|progress| progress.contains(words));
            if says && deployment.phase == Phase::Pending { Ok(deployment) } else { Err(format!("{deployment:?}")) }
        })
        .await;
        let shown = self.app(app).await.expect("the app");
        assert_eq!(shown.state, api::AppState::Deploying);
        assert!(shown.message.as_deref().is_some_and(|message| message.contains(words)), "{shown:?}");
        assert_eq!(deployment.outcome, None);
        deployment
    }
}

fn began(deployment: &api::Deployment) -> jiff::Timestamp {
    let preparing = deployment.phases.iter().find(|phase| phase.phase == Phase::Preparing);
    preparing.expect("it has begun").at
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_of_one_commit_become_live_in_their_order() {
    let mut agent = Agent::start().await;
    let go = agent.root.join("go");
    agent.write_slow_db("db\n", &go);
    agent.write_shop("shop\n");
    agent.repo.push("both");
    let waiting = agent.until_waiting("a-shop", "waits for z-db, whose v1 is on its way").await;
    std::fs::write(&go, "").expect("written");
    agent.until_body("a-shop", "shop\n").await;
    let (db, shop) = (agent.until_done("z-db").await, agent.until_done("a-shop").await);
    assert_eq!((waiting.id, shop.outcome), (shop.id, Some(DeploymentOutcome::Succeeded)));
    assert!(db.live_at.expect("live") <= began(&shop), "{db:?}\n{shop:?}");

    // The same again for a commit that changes both, while both run.
    std::fs::remove_file(&go).expect("removed");
    agent.write_slow_db("db two\n", &go);
    agent.write_shop("shop two\n");
    agent.repo.push("both again");
    agent.until_waiting("a-shop", "waits for z-db, whose v2 is on its way").await;
    assert_eq!(agent.get("a-shop", "/").await.expect("an answer").body, "shop\n");
    // Whoever drives it on after a crash keeps the order.
    let before = agent.kill_controller().await;
    agent.until_new_controller(before).await;
    agent.until_waiting("a-shop", "waits for z-db, whose v2 is on its way").await;
    std::fs::write(&go, "").expect("written");
    agent.until_body("a-shop", "shop two\n").await;
    assert!(agent.until_done("z-db").await.live_at.expect("live") <= began(&agent.until_done("a-shop").await));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_healthy_is_not_waited_for_and_its_rollback_restarts_nobody() {
    let mut agent = Agent::start().await;
    agent.repo.app("z-db", "db\n");
    agent.write_shop("shop\n");
    agent.repo.push("both");
    agent.until_body("a-shop", "shop\n").await;
    agent.repo.app("z-db", "db two\n");
    agent.repo.push("the database alone");
    agent.until_body("z-db", "db two\n").await;
    agent.rest(&["z-db", "a-shop"]).await;
    let instances = agent.instance_ids("a-shop").await;
    agent.rollback("z-db", back_to(None)).await;
    agent.until_body("z-db", "db\n").await;
    agent.rest(&["z-db", "a-shop"]).await;
    assert_eq!(agent.live_and_newest("a-shop").await, (Some(1), 1));
    assert_eq!(agent.instance_ids("a-shop").await, instances);
    // Held at a version that is healthy, it holds nobody up.
    agent.write_shop("shop two\n");
    agent.repo.push("the shop alone");
    agent.until_body("a-shop", "shop two\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_waited_for_and_a_person_need_not_wait() {
    let mut agent = Agent::start().await;
    let broken = "app: z-db\nweb: {main: {command: [sh, -c, 'echo no disk >&2; exit 3']}}\n";
    agent.repo.app("z-db", "db\n").write("z-db/landfall.yaml", broken);
    agent.write_shop("shop\n");
    agent.repo.push("both");
    agent.until_waiting("a-shop", "waits for z-db: what its source asks for failed to deploy").await;
    agent.repo.app("z-db", "db\n");
    agent.repo.push("mended");
    agent.until_body("a-shop", "shop\n").await;
    agent.rest(&["z-db", "a-shop"]).await;
    assert_eq!(agent.live_and_newest("a-shop").await, (Some(1), 1));

    // The new version of the one fails while its old one runs: the other may have been made for the new one.
    agent.repo.write("z-db/landfall.yaml", broken);
    agent.write_shop("shop two\n");
    agent.repo.push("both again");
    agent.until_waiting("a-shop", "failed to deploy").await;
    assert_eq!(agent.get("a-shop", "/").await.expect("an answer").body, "shop\n");
    assert_eq!(agent.get("z-db", "/").await.expect("an answer").body, "db\n");
    agent.release("a-shop", false).await.expect("released");
    agent.until_body("a-shop", "shop two\n").await;

    // A rollback waits for nobody either.
    agent.rest_of("a-shop").await;
    agent.rollback("a-shop", back_to(Some(1))).await;
    agent.until_body("a-shop", "shop\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_and_is_not_healthy_is_waited_for() {
    let mut agent = Agent::start().await;
    agent.repo.app("z-db", "db\n");
    agent.repo.push("the database");
    agent.until_body("z-db", "db\n").await;
    agent.until_done("z-db").await;
    // It answers probes with what it finds where it runs.
    let instance = agent.instances("z-db").await.expect("instances").remove(0);
    let directory =
        std::fs::read_link(format!("/proc/{}/cwd", instance.pid.expect("a process"))).expect("where it runs");
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755)).expect("the mode");
    let health = directory.join("health");
    std::fs::write(&health, "503").expect("written");
    agent.until_app("z-db", "it is not ready", |app| app.ready == 0).await;
    agent.write_shop("shop\n");
    agent.repo.push("the shop");
    agent.until_waiting("a-shop", "waits for z-db, which is not healthy").await;
    std::fs::remove_file(&health).expect("removed");
    agent.until_body("a-shop", "shop\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_lead_nowhere_or_in_a_circle_are_mistakes_with_their_place() {
    let mut setup = Setup::new();
    let mut second = Repo::create(&setup.dir.path().join("second.git"));
    second.app("cart", "cart\n");
    second.push("cart");
    setup.sources = Some(format!(
        "sources:\n  - {{name: fleet, git: {{url: {}}}}}\n  - {{name: second, git: {{url: {}}}}}\n",
        setup.repo.path().display(),
        second.path().display()
    ));
    let mut agent = setup.start().await;
    agent.until_body("cart", "cart\n").await;
    let needs = |names: &str| format!("depends_on: [{names}]\n{}", web_manifest("shop", ""));
    agent.repo.app("basket", "basket\n");
    agent.repo.app("shop", "shop\n").write("shop/landfall.yaml", needs("baskett"));
    agent.repo.push("a slip of the pen");
    let errors = |source: &api::Source| source.manifest_errors.join("\n");
    let told = errors(&until_source(&agent, "fleet", "the mistake is told", |source| !errors(source).is_empty()).await);
    assert!(told.starts_with("shop/landfall.yaml:1:14: `depends_on` names `baskett`"), "{told}");
    assert!(told.contains("did you mean `basket`?") && told.contains("1 | depends_on: [baskett]"), "{told}");
    // Who writes in one source need not know what others have.
    agent.repo.write("shop/landfall.yaml", needs("kart"));
    agent.repo.push("another one");
    let told = errors(&until_source(&agent, "fleet", "that is told", |source| errors(source).contains("`kart`")).await);
    assert!(!told.contains("`cart`") && !told.contains("did you mean"), "{told}");
    let status = agent.client.status().await.expect("status");
    assert!(status.problems.iter().any(|problem| problem.contains("`kart`")), "{:?}", status.problems);
    assert_eq!(agent.versions("shop").await.len(), 0, "nothing of it is recorded");

    // Over sources, names count as they do within one.
    agent.repo.write("shop/landfall.yaml", needs("cart"));
    agent.repo.push("mended");
    agent.until_body("shop", "shop\n").await;
    until_source(&agent, "fleet", "all is well", |source| source.manifest_errors.is_empty()).await;

    // A circle over both: what runs goes on, and nothing new comes.
    second.write("cart/landfall.yaml", format!("{}depends_on: [shop]\n", web_manifest("cart", "")));
    second.push("a circle");
    let app = agent.until_app("cart", "the circle is told", |app| app.manifest_error.is_some()).await;
    let told = app.manifest_error.unwrap_or_default();
    assert!(told.contains("`depends_on` leads in a circle: cart → shop → cart"), "{told}");
    let shop = agent.until_app("shop", "the circle is told", |app| app.manifest_error.is_some()).await;
    assert!(shop.manifest_error.is_some_and(|told| told.contains("shop → cart → shop")));
    assert_eq!(agent.live_and_newest("cart").await, (Some(1), 1));
    assert!(!agent.events("cart", EventKind::ManifestInvalid).await.is_empty());
    agent.repo.write("shop/landfall.yaml", web_manifest("shop", ""));
    agent.repo.push("one of the two is taken out");
    agent.until_live("cart", 2).await;
    agent.until_app("shop", "all is well", |app| app.manifest_error.is_none()).await;
}
