//! Where the apps under test run. As processes; or, with `LANDFALL_TEST_RUNTIME=docker`, the very same tests with containers
//! of the engine that `LANDFALL_TEST_DOCKER` names: the runtimes have one behaviour.

use std::path::Path;
use std::sync::OnceLock;

use super::making;

/// What a container brings along: nothing of this machine but the test app.
const NOT_IN_CONTAINERS: [&str; 4] = ["image:", "build:", "handler:", "runtime:"];
/// The volume in which apps leave files for their test.
const SHARED: &str = "shared";

struct Containers {
    address: String,
    image: String,
}

fn containers() -> Option<&'static Containers> {
    static CHOSEN: OnceLock<Option<Containers>> = OnceLock::new();
    let chosen = || match std::env::var("LANDFALL_TEST_RUNTIME").as_deref() {
        Ok("docker") => {
            let address = std::env::var("LANDFALL_TEST_DOCKER").expect("LANDFALL_TEST_DOCKER names an engine");
            let image = making::app_image(&address, Path::new(&super::test_app()));
            Some(Containers { address, image })
        }
        Ok("process") | Err(_) => None,
        Ok(other) => panic!("LANDFALL_TEST_RUNTIME={other} is neither process nor docker"),
    };
    CHOSEN.get_or_init(chosen).as_ref()
}

/// A manifest for that place. One that needs more of this machine than the test app and, for each call, a shell stays one of
/// processes. Files that the app writes below `root`, the test's directory, lie in a volume there: see [`written`].
pub fn placed(manifest: &str, root: &Path) -> String {
    let Some(containers) = containers() else { return manifest.to_owned() };
    let app = super::test_app();
    let runs = manifest.contains("mode: exec") || (manifest.contains(&app) && !manifest.contains("[sh, "));
    let fits = runs && !NOT_IN_CONTAINERS.iter().any(|key| manifest.contains(key));
    match manifest.split_once('\n') {
        Some((name, rest)) if fits => {
            let root = root.display().to_string();
            let volume = match rest.contains(&root) {
                true => format!("volumes: {{{SHARED}: {root}}}\n"),
                false => String::new(),
            };
            format!("{name}\nimage: {}\n{volume}{}", containers.image, rest.replace(&app, "/app/test-app"))
        }
        _ => manifest.to_owned(),
    }
}

/// Containers of the test's agent that run: none may when it has ended.
pub fn running(root: &Path) -> Vec<String> {
    let (Some(containers), Ok(owner)) = (containers(), std::fs::read_to_string(root.join("data/owner"))) else {
        return Vec::new();
    };
    let label = format!("label=landfall.owner={}", owner.trim());
    let list = ["ps", "--format", "{{.Names}}", "--filter", &label];
    let found = making::docker_at(&containers.address, &list).expect("the engine answers");
    found.lines().map(str::to_owned).collect()
}

/// The main processes of the containers of the test's agent.
pub fn processes(root: &Path) -> Vec<i32> {
    let Some(containers) = containers() else { return Vec::new() };
    let pid = |name: String| {
        // One that has ended meanwhile has none.
        let pid = making::docker_at(&containers.address, &["inspect", "--format", "{{.State.Pid}}", &name]).ok()?;
        pid.parse().ok().filter(|pid| *pid != 0)
    };
    running(root).into_iter().filter_map(pid).collect()
}

/// What an app has written to a file below the test's directory; nothing if it has not.
pub fn written(root: &Path, app: &str, file: &str) -> String {
    let path = root.join(file);
    let Some(containers) = containers() else { return std::fs::read_to_string(path).unwrap_or_default() };
    let owner = std::fs::read_to_string(root.join("data/owner")).expect("the agent has a name in the engine");
    let volume = format!("landfall-{}-main-{app}-{SHARED}:{}:ro", owner.trim(), root.display());
    let path = path.display().to_string();
    let cat = ["run", "--rm", "--network=none", "--volume", &volume, &containers.image, "/bin/cat", &path];
    making::docker_at(&containers.address, &cat).unwrap_or_default()
}

/// What an agent's configuration has besides.
pub fn configuration() -> String {
    containers().map_or_else(String::new, |containers| format!("docker: {{socket: \"{}\"}}\n", containers.address))
}
