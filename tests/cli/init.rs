//! `landfall init`: what is written where, and what never is.

use std::fs;

use crate::run;

const COMPOSE: &str = "services:
  web: {build: ., ports: ['80:8000'], networks: [front]}
  cache: {image: 'redis:7'}
networks: {front: {}}
";

#[test]
fn manifests_are_written_once_and_what_is_left_out_is_said_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let (code, _, stderr) = run(dir.path(), &["init"]);
    assert!(code == 2 && stderr.contains("--from"), "{stderr}");

    fs::write(dir.path().join("compose.yaml"), COMPOSE).unwrap();
    let (code, shown, _) = run(dir.path(), &["init", "--print"]);
    assert!(code == 0 && shown.contains("port: 8000") && shown.contains("image: redis:7"), "{shown}");
    assert!(!dir.path().join("landfall.yaml").exists() && !dir.path().join("cache").exists(), "only printed");

    let (code, said, _) = run(dir.path(), &["init"]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("compose.yaml:2: services.web.networks: ") && said.contains("compose.yaml:4: networks: "),
        "{said}"
    );
    let (code, checked, _) = run(dir.path(), &["check", "."]);
    assert_eq!((code, checked.trim()), (0, "2 files: ok"));

    fs::remove_file(dir.path().join("landfall.yaml")).unwrap();
    fs::write(dir.path().join("cache/landfall.yaml"), "app: mine\n").unwrap();
    let (code, _, stderr) = run(dir.path(), &["init"]);
    assert!(code == 5 && stderr.contains("cache/landfall.yaml") && stderr.contains("--force"), "{stderr}");
    assert!(!dir.path().join("landfall.yaml").exists(), "all or none");
    assert_eq!(run(dir.path(), &["init", "--force"]).0, 0);
    assert!(fs::read_to_string(dir.path().join("cache/landfall.yaml")).unwrap().contains("redis"));
}

#[test]
fn a_manifest_that_would_not_load_is_written_with_its_mistakes_and_ends_with_1() {
    let dir = tempfile::tempdir().unwrap();
    let text = "services: {web: {image: nginx, ports: [80], deploy: {replicas: many}}}\n";
    fs::write(dir.path().join("docker-compose.yml"), text).unwrap();
    let (code, said, _) = run(dir.path(), &["init", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(code, 1);
    assert!(report["manifests"][0]["errors"][0].as_str().unwrap().contains("instances"), "{said}");
    assert!(dir.path().join("landfall.yaml").exists());

    fs::write(dir.path().join("Procfile"), "web: ./server\n").unwrap();
    assert_eq!(run(dir.path(), &["init", "--from", "Procfile", "--force"]).0, 0);
    assert!(fs::read_to_string(dir.path().join("landfall.yaml")).unwrap().contains("command: ./server"));
}
