//! Where the apps under test run. As processes; or, with `LANDFALL_TEST_RUNTIME=docker`, the very same tests with containers
//! of the engine that `LANDFALL_TEST_DOCKER` names: the runtimes have one behaviour.

use std::path::Path;
use std::sync::OnceLock;

use super::making;

/// What a container brings along: nothing of this machine but the test app.
const NOT_IN_CONTAINERS: [&str; 5] = ["image:", "build:", "handler:", "runtime:", "[sh, "];

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

/// A manifest for that place. One that runs other programs of this machine than the test app stays one of processes.
pub fn placed(manifest: &str) -> String {
    let Some(containers) = containers() else { return manifest.to_owned() };
    let app = super::test_app();
    let fits = manifest.contains(&app) && !NOT_IN_CONTAINERS.iter().any(|key| manifest.contains(key));
    match manifest.split_once('\n') {
        Some((name, rest)) if fits => {
            format!("{name}\nimage: {}\n{}", containers.image, rest.replace(&app, "/app/test-app"))
        }
        _ => manifest.to_owned(),
    }
}

/// What an agent's configuration has besides.
pub fn configuration() -> String {
    containers().map_or_else(String::new, |containers| format!("docker: {{socket: \"{}\"}}\n", containers.address))
}
