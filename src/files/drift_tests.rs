//! What is generated from the tables of keys must stay what is committed and what the reader accepts.
//! `LANDFALL_UPDATE_DOCS=1 cargo test --lib drift` writes the committed files anew.

use std::path::PathBuf;

use super::explain::explain;
use super::reference::reference;
use super::schema::{Which, schema};
use super::{config, manifest};

const MANIFEST: &str = "app: shop\nbuild: {command: [make]}\nenv: {A: 'yes', B: 2}\nweb: {main: {command: [x, '5'], instances: {max: 3}, resources: {cpu: 0.5}}, b: {command: run}}\nworkers: {w: {command: [z]}}";
const CONFIG: &str = "sources: [{name: a, git: {url: /x}}, {name: b, directory: {path: .}}]\nusers: {agent: a, apps: b}\nnotifications: {ops: {exec: {command: [x]}}}";

fn committed(path: &str, generated: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("LANDFALL_UPDATE_DOCS").is_some() {
        std::fs::write(&path, generated).expect("written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == generated,
        "{} is out of date; run `LANDFALL_UPDATE_DOCS=1 cargo test --lib drift`",
        path.display()
    );
}

fn pretty(which: Which) -> String {
    format!("{:#}\n", schema(which))
}

#[test]
fn the_committed_schemas_are_up_to_date() {
    committed("docs/schema/manifest.schema.json", &pretty(Which::Manifest));
    committed("docs/schema/config.schema.json", &pretty(Which::Config));
}

#[test]
fn the_committed_reference_is_up_to_date() {
    committed("docs/manifest.md", &reference(Which::Manifest));
    committed("docs/configuration.md", &reference(Which::Config));
}

#[test]
fn what_explain_prints_reads_back_as_the_same() {
    let explained = explain(&manifest::read_record("m", MANIFEST).expect("a manifest"));
    let again = manifest::read_manifest("m", &explained).unwrap_or_else(|errors| panic!("{errors}\n{explained}"));
    assert_eq!(Ok(again), manifest::read_manifest("m", MANIFEST));
    assert!(explained.contains("    drain: 30s"), "{explained}");

    let file = std::path::Path::new("/etc/landfall.yaml");
    let read = |text: &str| config::read_config(file, text, &mut std::iter::empty());
    let record = config::read_record("c", CONFIG, &mut std::iter::empty()).expect("a configuration");
    let explained = explain(&record);
    let again = read(&explained).unwrap_or_else(|errors| panic!("{errors}\n{explained}"));
    assert_eq!(Ok(again), read(CONFIG));
}

#[test]
fn every_key_that_explain_shows_carries_its_meaning() {
    let explained = explain(&manifest::read_record("m", MANIFEST).expect("a manifest"));
    let line = explained.lines().find(|line| line.trim_start().starts_with("bake:")).expect("bake");
    assert!(line.contains("# default · How long crashes"), "{line}");
}
