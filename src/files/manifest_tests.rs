//! Manifests as people write them, right and wrong.

use super::*;
use crate::domain::manifest::{Auth, Bytes, Millis};

fn read(text: &str) -> Manifest {
    read_manifest("landfall.yaml", text).unwrap_or_else(|errors| panic!("{errors}"))
}

fn refused(text: &str) -> FileErrors {
    match read_manifest("apps/shop/landfall.yaml", text) {
        Ok(manifest) => panic!("accepted: {manifest:?}"),
        Err(errors) => errors,
    }
}

/// The only error of a text.
fn error(text: &str) -> FileError {
    let errors = refused(text);
    assert_eq!(errors.len(), 1, "{errors}");
    errors.into_iter().next().expect("one error")
}

/// A web endpoint with more keys, one per line.
fn web(keys: &str) -> String {
    format!("app: shop\nweb:\n  main:\n    command: [./serve]\n    {keys}\n")
}

const EVERYTHING: &str = r#"
app: shop
runtime: process
build: {command: [sh, -c, "make"], timeout: 5m}
include: [../common, ../assets/]
env: {LOG_LEVEL: info, RETRIES: 3, DEBUG: false}
volumes: {data: /data}
strategy: recreate
bake: 1m
web:
  main:
    command: [python3, server.py]
    env: {LOG_LEVEL: debug}
    health: {path: /healthz, deadline: 20s, interval: 2s, timeout: 3s, rise: 2, fall: 4}
    instances: {min: 0, max: 4, idle: 90s}
    concurrency: 10
    request_timeout: 15s
    max_body: 1GiB
    drain: 45s
    grace: 5s
    hosts: [Shop.Example.com, "*.shop.example.com"]
    path: shop/
    strip_prefix: true
    auth: token
    resources: {memory: 512MiB, cpu: 0.5, processes: 64}
workers:
  mailer:
    command: python3 mailer.py | tee log
    env: {}
    instances: 2
    handover: start-first
    grace: 20s
    resources: {memory: 64MiB}
"#;

#[test]
fn every_key_reaches_the_manifest() {
    let manifest = read(EVERYTHING);
    assert_eq!(
        manifest.build,
        Some(Build { command: ["sh", "-c", "make"].map(String::from).into(), timeout: Millis::seconds(300) })
    );
    assert_eq!(manifest.include, ["../assets", "../common"]);
    assert_eq!(manifest.env.get("RETRIES").map(String::as_str), Some("3"));
    assert_eq!(manifest.env.get("DEBUG").map(String::as_str), Some("false"));
    assert_eq!(manifest.volumes.get("data").map(String::as_str), Some("/data"));
    assert_eq!((manifest.strategy, manifest.bake), (Strategy::Recreate, Millis::seconds(60)));
    let main = manifest.web.values().next().expect("main");
    let health = Health {
        path: Some("/healthz".into()),
        deadline: Millis::seconds(20),
        interval: Millis::seconds(2),
        timeout: Millis::seconds(3),
        rise: 2,
        fall: 4,
    };
    let expected = Web {
        command: vec!["python3".into(), "server.py".into()],
        port: None,
        env: [("LOG_LEVEL".into(), "debug".into())].into(),
        health,
        instances: Instances { min: 0, max: 4, idle: Millis::seconds(90) },
        concurrency: 10,
        request_timeout: Millis::seconds(15),
        max_body: Bytes::mib(1024),
        drain: Millis::seconds(45),
        grace: Millis::seconds(5),
        hosts: vec!["*.shop.example.com".into(), "shop.example.com".into()],
        path: "/shop".into(),
        strip_prefix: true,
        auth: Auth::Token,
        resources: Resources { memory: Some(Bytes::mib(512)), cpu_millis: Some(500), processes: Some(64) },
    };
    assert_eq!(main, &expected);
    let mailer = manifest.workers.values().next().expect("mailer");
    assert_eq!(mailer.command, ["sh", "-c", "python3 mailer.py | tee log"]);
    assert_eq!((mailer.instances, mailer.handover, mailer.grace), (2, Handover::StartFirst, Millis::seconds(20)));
    assert_eq!(mailer.resources.memory, Some(Bytes::mib(64)));
}

#[test]
fn a_short_manifest_is_completed_with_the_defaults() {
    let main = read("app: shop\nweb: {main: {command: [./serve]}}").web.into_values().next().expect("main");
    assert_eq!(main.instances, Instances { min: 1, max: 1, idle: defaults::IDLE });
    assert_eq!((main.drain, main.grace), (defaults::DRAIN, defaults::GRACE));
    assert_eq!((main.max_body, main.path.as_str()), (defaults::MAX_BODY, "/"));
    assert_eq!((main.health.path, main.health.fall), (None, defaults::HEALTH_FALL));
    let worker = read("app: shop\nworkers: {w: {command: [./w]}}").workers.into_values().next().expect("w");
    assert_eq!((worker.instances, worker.handover), (1, Handover::StopFirst));
}

#[test]
fn texts_that_mean_the_same_give_equal_manifests() {
    let short = read(&web("hosts: [b.example.com, A.example.com]\n    path: /x/\n    drain: 30s"));
    let long = read(&web(
        "path: x\n    drain: 30000ms\n    hosts:\n      - a.example.com\n      - b.example.com\n    instances: 1",
    ));
    assert_eq!(short, long);
}

#[test]
fn an_unknown_key_is_shown_with_the_one_that_was_meant() {
    let text = "app: shop\n\nweb:\n  # the shop itself\n  main:\n    command: [./serve]\n    helth: {path: /}\n";
    let expected = "apps/shop/landfall.yaml:7:5: unknown key `helth`, did you mean `health`?\n  7 |     helth: {path: /}\n    |     ^^^^^";
    assert_eq!(error(text).to_string(), expected);
    let error = error(&web("colour: red"));
    assert_eq!(error.path, "web.main.colour");
    assert!(error.hint.expect("a hint").contains("strip_prefix"));
}

#[test]
fn every_mistake_is_found_at_once() {
    let text = "app: Shop\nstrategy: roling\nbake: 30\nenv: {PORT: 80}\nweb:\n  main:\n    comand: [x]\n    instances: 0\n    drain: 5min\n    hosts: [a.example.com:80]\nworkers:\n  main:\n    command: []\n";
    let errors = refused(text);
    let lines: Vec<_> = errors.iter().map(|error| error.line).collect();
    assert_eq!(lines, [1, 2, 3, 4, 7, 7, 8, 9, 10, 12, 13], "{errors}");
}

#[test]
fn what_yaml_takes_for_something_else_must_be_quoted() {
    for (text, word) in [("[sleep, 5]", "5"), ("[true]", "true"), ("[echo, no]", "no"), ("[\"x\", 1.5]", "1.5")] {
        let error = error(&format!("app: shop\nweb: {{main: {{command: {text}}}}}"));
        assert_eq!(error.hint, Some(format!("quote it: \"{word}\"")), "{text}");
    }
    assert!(error("app: on\nweb: {main: {command: [x]}}").message.contains("without quotes is a boolean"));
    assert!(error(&web("env: {A: yes}")).hint.expect("hint").contains("quote it"));
    assert!(error(&web("env: {A: }")).message.contains("no value"));
    assert!(error(&web("env: {A: [1]}")).message.contains("a list"));
    assert!(error(&web("strip_prefix: yes")).message.contains("true or false"));
}

#[test]
fn a_key_of_a_later_version_is_refused_by_name() {
    let error = error("app: shop\nruntime: kubernetes\nweb: {main: {command: [x]}}");
    assert!(error.message.contains("not available in this version"), "{error}");
    assert!(error.message.contains("nothing of this app is deployed"), "{error}");
}

#[test]
fn a_variable_is_written_down_or_secret_and_not_both() {
    let read = |more: &str| format!("app: shop\n{more}\nweb: {{main: {{command: [x], env: {{B: c}}}}}}");
    let manifest = read_manifest("landfall.yaml", &read("secrets: {TOKEN: hf-token}")).expect("a manifest");
    assert_eq!(manifest.secrets["TOKEN"].as_str(), "hf-token");
    assert!(error(&read("env: {A: b}\nsecrets: {A: token}")).message.contains("under `env` as well"));
    let files = read_manifest("landfall.yaml", &read("secret_files: {TOKEN_FILE: hf-token}")).expect("a manifest");
    assert_eq!(files.secret_files["TOKEN_FILE"].as_str(), "hf-token");
    assert!(error(&read("secrets: {A: x}\nsecret_files: {A: x}")).message.contains("under `secrets` as well"));
    assert!(error(&read("secret_files: {B: x}")).message.contains("under `env` as well"));
    assert!(error(&read("secrets: {B: token}")).message.contains("under `env` as well"));
    assert!(error(&read("secrets: {A: Not a name}")).message.contains("name"));
    assert!(error(&read("secrets: {PORT: token}")).message.contains("set by Landfall"));
}

#[test]
fn an_app_without_objects_is_refused() {
    assert!(error("app: shop").message.contains("nothing to run"));
    assert!(error("app: shop\nweb: {}").message.contains("nothing to run"));
    assert_eq!(error("").message, "the file is empty");
    assert_eq!(error("# nothing\n").message, "the file is empty");
    assert!(error("- a\n- b").message.contains("the file must be a map"));
    assert!(refused("web: {main: {}}").len() == 2);
}

#[test]
fn names_are_unique_and_free() {
    let both = "app: shop\nweb: {a: {command: [x]}}\nworkers: {a: {command: [x]}}";
    assert!(error(both).message.contains("also the name of a web endpoint"));
    assert!(error("app: shop\nweb: {build: {command: [x]}}").message.contains("taken"));
    assert!(error(&format!("app: {}\nweb: {{main: {{command: [x]}}}}", "a".repeat(41))).message.contains("at most 40"));
}

#[test]
fn two_endpoints_cannot_claim_one_place() {
    let two = |path: &str| {
        format!(
            "app: s\nweb:\n  a: {{command: [x], hosts: [h.example.com]}}\n  b: {{command: [x], hosts: [h.example.com], path: {path}}}"
        )
    };
    assert!(error(&two("/")).message.contains("already belongs to `web.a`"));
    read(&two("/b"));
    assert!(error(&web("hosts: [h.example.com, H.example.com]")).message.contains("twice"));
}

#[test]
fn numbers_stay_within_sensible_bounds() {
    for keys in [
        "instances: 0",
        "instances: 1001",
        "instances: -1",
        "instances: two",
        "instances: {min: 3, max: 2}",
        "instances: {min: 0, max: 0}",
        "instances: {min: 1}",
        "concurrency: 0",
        "drain: 2d",
        "health: {interval: 1ms}",
        "health: {rise: 0}",
        "health: {rise: 40, interval: 1s}",
        "max_body: 2TiB",
        "resources: {memory: 1MiB}",
        "resources: {cpu: 0}",
        "concurrency: \"5\"",
    ] {
        error(&web(keys));
    }
}

#[test]
fn two_documents_and_duplicate_keys_are_refused() {
    let error_of_two = error("app: a\n---\napp: b\n");
    assert_eq!((error_of_two.line, error_of_two.column), (2, 1));
    let twice = error("app: a\napp: b\nweb: {main: {command: [x]}}");
    assert_eq!((twice.line, twice.message.as_str()), (2, "the key `app` stands here a second time, first in line 1"));
}

#[test]
fn aliases_work_and_merge_keys_are_explained() {
    let text = "app: s\nweb:\n  a: {command: &c [./x], health: &h {path: /}}\n  b: {command: *c, health: *h}";
    assert_eq!(read(text).web.values().filter(|web| web.health.path.is_some()).count(), 2);
    assert!(error("app: s\nweb: {a: &a {command: [x]}, b: {<<: *a, command: [z]}}").message.contains("merge keys"));
    assert!(error("app: s\nweb: {a: {command: [x], env: *e}}").message.contains("refers to nothing"));
}

#[test]
fn a_function_is_a_handler_or_a_command_with_its_mode() {
    let manifest = read(
        "app: pods\nfunctions:\n  a: {handler: app.py:run}\n  b: {handler: ./lib/b.mjs:run, instances: {max: 8, spare: 2}}\n  \
         c: {command: [./c], mode: exec, timeout: 2s, retries: {max: 3}}\n  d: {command: ./d, mode: server, concurrency: 16}",
    );
    let function = |name: &str| manifest.functions[&name.parse().expect("a name")].clone();
    let handler = |file: &str| Handler { file: file.to_owned(), name: "run".to_owned() };
    assert_eq!(function("a").code, Code::Python(handler("app.py")));
    assert_eq!(function("b").code, Code::JavaScript(handler("lib/b.mjs")));
    assert_eq!(function("c").code, Code::Exec(vec!["./c".into()]));
    assert_eq!(function("d").code, Code::Server(vec!["sh".into(), "-c".into(), "./d".into()]));
    assert_eq!((function("a").concurrency, function("a").retries.max, function("c").retries.max), (1, 0, 3));
    let range = function("b").instances;
    assert_eq!((range.min, range.max, function("b").spare), (1, 8, 2));
}

#[test]
fn what_runs_a_function_is_said_once_and_completely() {
    let said = |keys: &str| error(&format!("app: pods\nfunctions: {{f: {{{keys}}}}}")).message;
    assert!(said("timeout: 5s").contains("neither `handler` nor `command`"));
    assert!(said("mode: exec").contains("neither `handler` nor `command`"));
    assert!(said("handler: a.py:f, command: [./f], mode: exec").contains("both"));
    assert!(said("handler: a.py:f, mode: exec").contains("`mode` belongs to `command`"));
    assert!(said("command: [./f]").contains("needs `mode`"));
    assert!(said("handler: a.py").contains("names no function"));
    assert!(said("handler: a.py:f, instances: {min: 3, max: 2}").contains("min is 3"));
    let both = error("app: pods\nfunctions: {f: {handler: a.py:f}}\nweb: {f: {command: [x]}}");
    assert!(both.message.contains("also the name of a web endpoint"), "{both}");
}

#[test]
fn an_app_without_functions_keeps_the_identity_it_had_before_there_were_any() {
    let text = serde_json::to_string(&read(&web("strip_prefix: true"))).expect("JSON");
    assert!(!text.contains("functions"), "{text}");
}

#[test]
fn apps_that_are_named_keep_no_order_and_no_app_names_itself() {
    let read = |names: &str| {
        read_manifest("landfall.yaml", &format!("app: shop\n{names}\nweb: {{main: {{command: [x]}}}}")).unwrap()
    };
    assert_eq!(read("depends_on: [db, cart, db]"), read("depends_on: [cart, db]"));
    // The identity of content is made of this text: manifests without the key keep theirs.
    assert!(!serde_json::to_string(&read("depends_on: []")).unwrap().contains("depends_on"));
    let itself = error("app: shop\ndepends_on: [db, shop]\nweb: {main: {command: [x]}}");
    assert_eq!((itself.line, itself.path.as_str()), (2, "depends_on[1]"));
    assert!(itself.message.contains("names the app itself"), "{itself}");
}

/// A function with this schedule.
fn scheduled(schedule: &str) -> String {
    format!("app: shop\nfunctions:\n  report: {{command: [./report], mode: exec, schedule: {schedule}}}\n")
}

#[test]
fn a_schedule_is_an_expression_or_a_table_and_means_the_same() {
    let short = read(&scheduled("'0 4  * * *'"));
    let long = read(&scheduled("{cron: '0 4 * * *', timezone: utc, overlap: skip, notify_after: 1}"));
    assert_eq!(short, long);
    let function = short.functions.values().next().expect("a function");
    assert_eq!(function.timeout, Millis::seconds(3600), "runs may take an hour");
    let own = scheduled("{every: 15m}").replace("mode: exec", "mode: exec, timeout: 20s");
    assert_eq!(read(&own).functions.values().next().expect("a function").timeout, Millis::seconds(20));
    let plain = scheduled("'@daily'").replace(", schedule: '@daily'", "");
    assert_eq!(read(&plain).functions.values().next().expect("a function").timeout, Millis::seconds(300));
    let table = "{cron: '0 4 * * 1-5', timezone: europe/oslo, overlap: queue, catch_up: 1h, jitter: 30s, \
                 body: {b: [1, 'x'], a: true}, notify_after: 3, ping: 'https://hc.example.com/1'}";
    let manifest = read(&scheduled(table));
    let schedule = manifest.functions.values().next().and_then(|function| function.schedule.clone()).expect("one");
    assert_eq!(schedule.when.to_string(), "0 4 * * 1-5 Europe/Oslo");
    assert_eq!(schedule.body.as_deref(), Some(r#"{"a":true,"b":[1,"x"]}"#));
    assert_eq!((schedule.catch_up, schedule.notify_after), (Millis::seconds(3600), 3));
}

#[test]
fn a_wrong_schedule_is_refused_with_what_to_write() {
    for (schedule, said) in [
        ("'0 4 * *'", "fields"),
        ("'0 0 4 * * *'", "fields"),
        ("'0 0 30 2 *'", "never"),
        ("'@reboot'", "@reboot"),
        ("{overlap: skip}", "neither `cron` nor `every`"),
        ("{cron: '0 4 * * *', every: 1h}", "both `cron` and `every`"),
        ("{every: 1h, timezone: Europe/Oslo}", "`timezone` belongs to `cron`"),
        ("{every: 1500ms}", "whole seconds"),
        ("{every: 100ms}", "from 1s"),
        ("{cron: '0 4 * * *', timezone: Europe/Olso}", "is not a time zone"),
        ("{cron: '0 4 * * *', overlap: wait}", "skip or queue or replace or allow"),
        ("{cron: '0 4 * * *', body: [.inf]}", "no number that JSON has"),
        ("{cron: '0 4 * * *', ping: 'hc.example.com'}", "https://"),
        ("{cron: '0 4 * * *', retry: 1}", "unknown key"),
    ] {
        let error = error(&scheduled(schedule));
        let text = format!("{error}");
        assert!(text.contains(said), "{schedule}: {text}");
    }
}
