//! Text that nobody wrote in good faith: never a panic, always an answer within the limits.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::yaml::{MAX_DEPTH, MAX_DOCUMENT};
use super::{FileErrors, read_config, read_manifest};

/// Far above what the limits allow on a loaded machine, far below what a bomb would take.
const SOON: Duration = Duration::from_secs(10);

const MANIFEST: &str = "app: shop\nbuild: {command: [make], timeout: 1m}\nenv: &e {A: b}\nweb:\n  main:\n    command: [x]\n    env: *e\n    health: {path: /h, rise: 2}\n    instances: {min: 0, max: 2}\n    hosts: [a.example.com]\nworkers:\n  w: {command: run me, grace: 5s}\n";

/// Reads the text as either file and checks that every error lies within it.
fn survive(text: &str) -> Vec<FileErrors> {
    let started = Instant::now();
    let config = read_config(std::path::Path::new("/c.yaml"), text, &mut std::iter::empty());
    let errors: Vec<_> = [read_manifest("m.yaml", text).err(), config.err()].into_iter().flatten().collect();
    assert!(started.elapsed() < SOON, "took {:?}", started.elapsed());
    let lines: Vec<&str> = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).collect();
    for error in errors.iter().flatten() {
        assert!(!error.to_string().is_empty());
        assert!(error.line <= lines.len() + 1, "line {} of {}: {error}", error.line, lines.len());
        assert!(error.snippet.chars().count() < 400, "{error}");
    }
    errors
}

#[test]
fn an_alias_bomb_costs_nothing() {
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for level in 1..20 {
        let parts = vec![format!("*a{}", level - 1); 9].join(",");
        bomb.push_str(&format!("a{level}: &a{level} [{parts}]\n"));
    }
    let errors = survive(&bomb);
    assert!(errors[0].to_string().contains("aliases counted in full"), "{}", errors[0]);
    let wide = format!("a: &a \"{}\"\nb: [{}]\n", "x".repeat(500_000), vec!["*a"; 1000].join(","));
    assert!(survive(&wide)[0].to_string().contains("aliases counted in full"));
}

#[test]
fn depth_is_limited_however_it_is_written() {
    for text in ["[".repeat(100_000), "{a: ".repeat(10_000), "- ".repeat(10_000), "? ".repeat(10_000)] {
        assert!(!survive(&text).is_empty());
    }
    let aliased = (1..40)
        .fold(String::from("a0: &a0 [x]\n"), |text, level| format!("{text}a{level}: &a{level} [*a{}]\n", level - 1));
    assert!(survive(&aliased)[0].to_string().contains(&format!("deeper than {MAX_DEPTH}")));
}

#[test]
fn a_huge_document_is_refused_by_its_size() {
    let huge = "a".repeat(MAX_DOCUMENT + 1);
    assert!(survive(&huge)[0].to_string().contains("1 MiB"));
    let many: String = (0..40_000).map(|number| format!("k{number}: v\n")).collect();
    assert!(!survive(&many).is_empty());
}

#[test]
fn an_alias_within_itself_is_refused() {
    assert!(survive("app: s\nweb: &w {main: *w}")[0].to_string().contains("contains itself"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        survive(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_yaml_like_text_makes_the_reader_panic(text in "[a-z0-9:{}\\[\\],&*!|>'\"#%@?\n \t-]{0,200}") {
        survive(&text);
    }

    #[test]
    fn no_change_to_a_good_manifest_makes_the_reader_panic(
        at in 0..MANIFEST.len(), length in 0_usize..12, insert in "[a-z:{}\\[\\],&*!\n -]{0,6}",
    ) {
        let end = (at + length).min(MANIFEST.len());
        survive(&format!("{}{insert}{}", &MANIFEST[..at], &MANIFEST[end..]));
    }
}
