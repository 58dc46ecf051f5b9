//! Which route a host and a path lead to, and what survives a change of tables.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::domain::manifest::{Bytes, Millis};
use crate::domain::{AppKey, InstanceId, VersionNumber};
use crate::wire::proxy::{AppRoutes, FunctionRoute, ObjectRoute, RouteTable, Upstream, WhenEmpty};

use super::queue::Activity;
use super::table::{Gap, Lookup, Registry, Table};

fn key(name: &str) -> AppKey {
    AppKey::new("main".parse().expect("a name"), name.parse().expect("a name"))
}

fn app(name: &str, routes: &[(&str, &str)], instances: &[&str]) -> AppRoutes {
    let objects = routes.iter().enumerate().map(|(index, (host, path))| ObjectRoute {
        object: format!("o{index}").parse().expect("a name"),
        hosts: vec![(*host).to_owned()],
        path: (*path).to_owned(),
        strip_prefix: false,
        needs_token: false,
        concurrency: 1,
        request_timeout: Millis(1),
        max_body: Bytes(1),
        queue: 1,
        queue_timeout: Millis(1),
        instances: instances
            .iter()
            .map(|id| Upstream {
                instance: InstanceId::from_recorded(format!("{id}-{index}")),
                address: "127.0.0.1:1".parse().expect("an address"),
                version: VersionNumber::FIRST,
            })
            .collect(),
        when_empty: WhenEmpty::Wait,
    });
    AppRoutes { app: key(name), version: VersionNumber::FIRST, objects: objects.collect(), functions: Vec::new() }
}

fn registry() -> (Registry, mpsc::UnboundedReceiver<InstanceId>) {
    let (drained, receiver) = mpsc::unbounded_channel();
    (Registry::new(Arc::new(Activity::default()), drained), receiver)
}

fn found(table: &Table, host: &str, path: &str) -> String {
    match table.find(host, path) {
        Lookup::Found(route) => format!("{}:{}", route.object.app.app, route.prefix),
        Lookup::UnknownHost => "host?".into(),
        Lookup::UnknownPath => "path?".into(),
        Lookup::Ambiguous => "ambiguous".into(),
        other => format!("{other:?}"),
    }
}

#[test]
fn the_exact_host_then_the_longest_prefix_on_segment_borders() {
    let (mut registry, _drained) = registry();
    registry.replace(RouteTable {
        generation: 1,
        apps: vec![
            app("a", &[("a.example.com", "/"), ("a.example.com", "/api"), ("a.example.com", "/api/v2/")], &[]),
            app("b", &[("b.example.com", "/only")], &[]),
            app("wild", &[("*.example.com", "/")], &[]),
            app("z", &[("A.example.com", "/api")], &[]),
        ],
    });
    let table = registry.table();
    for (host, path, expected) in [
        ("a.example.com", "/", "a:"),
        ("A.Example.COM:8080", "/apix", "a:"),
        ("a.example.com.", "/api", "a:/api"),
        ("a.example.com", "/api/", "a:/api"),
        ("a.example.com", "/api/v2", "a:/api/v2"),
        ("a.example.com", "/api/v2/x", "a:/api/v2"),
        ("a.example.com", "/api/v2x", "a:/api"),
        ("a.example.com", "*", "a:"),
        ("a.example.com", "", "a:"),
        ("b.example.com", "/only/x", "b:/only"),
        ("b.example.com", "/other", "path?"),
        ("c.example.com", "/", "wild:"),
        ("c.d.example.com", "/", "host?"),
        ("example.com", "/", "host?"),
        (".example.com", "/", "host?"),
        ("[::1]:80", "/", "host?"),
        ("", "/", "host?"),
        ("c.example.com", "/../%2e%2e//x", "wild:"),
        ("a.example.com", "/api/../x", "ambiguous"),
        ("a.example.com", "/x/../api", "ambiguous"),
        ("a.example.com", "/api%2fv2", "ambiguous"),
        ("a.example.com", "/api%252fv2", "ambiguous"),
        ("a.example.com", "/%61pi", "ambiguous"),
        ("a.example.com", "/x\\..\\api", "ambiguous"),
        ("a.example.com", "//api", "ambiguous"),
        ("a.example.com", "/./api", "ambiguous"),
        ("a.example.com", "/api/./x", "a:/api"),
        ("a.example.com", "/api/x%2fy", "a:/api"),
        ("a.example.com", "/%zz", "a:"),
    ] {
        assert_eq!(found(&table, host, path), expected, "{host} {path}");
    }
    let endless = format!("/{}", "%25".repeat(20_000));
    assert_eq!(found(&table, "a.example.com", &endless), "a:");
}

#[test]
fn an_instance_keeps_its_requests_over_tables_and_is_forgotten_when_nobody_can_claim_it() {
    let (mut registry, _drained) = registry();
    registry.replace(RouteTable { generation: 4, apps: vec![app("a", &[("a", "/")], &["one"])] });
    let old = registry.table();
    let id = InstanceId::from_recorded("one-0");
    let Lookup::Found(route) = old.find("a", "/") else { panic!("not found") };
    let claim = route.instances[0].claim(1).expect("claims");
    registry.change(5, vec![app("a", &[("a", "/")], &["one", "two"])], &[]).expect("follows");
    let both = registry.table();
    let Lookup::Found(route) = both.find("a", "/") else { panic!("not found") };
    assert_eq!((route.instances.len(), route.instances[0].in_flight()), (2, 1));
    registry.change(6, vec![], &[key("a")]).expect("follows");
    assert_eq!(found(&registry.table(), "a", "/"), "host?");
    drop(both);
    registry.forget_unused();
    assert!(registry.instance(&id).is_some(), "somebody with the old table could still claim it");
    drop(old);
    registry.forget_unused();
    assert!(registry.instance(&id).is_some(), "it has a request");
    drop(claim);
    registry.forget_unused();
    assert!(registry.instance(&id).is_none());
}

#[test]
fn a_change_must_follow_the_generation_before() {
    let (mut registry, _drained) = registry();
    assert_eq!(registry.change(1, vec![], &[]), Err(Gap { have: 0, got: 1 }));
    registry.replace(RouteTable { generation: 3, apps: vec![] });
    assert_eq!(registry.change(5, vec![], &[]), Err(Gap { have: 3, got: 5 }));
    assert_eq!(registry.change(3, vec![], &[]), Err(Gap { have: 3, got: 3 }));
    assert_eq!(registry.change(4, vec![app("a", &[("a", "/")], &[])], &[]), Ok(()));
}

#[test]
fn what_is_written_to_disk_is_the_whole_table() {
    let (mut registry, _drained) = registry();
    let written = |registry: &Registry| serde_json::from_slice::<RouteTable>(&registry.written()).expect("a table");
    assert_eq!(written(&registry), RouteTable { generation: 0, apps: vec![] });
    let apps = vec![app("a", &[("a", "/")], &["one"]), app("b", &[("b", "/"), ("b", "/c")], &[])];
    let table = RouteTable { generation: 3, apps };
    registry.replace(table.clone());
    assert_eq!(written(&registry), table);
    let changed = app("a", &[("a", "/")], &["two"]);
    registry.change(4, vec![changed.clone()], &[key("b")]).expect("follows");
    assert_eq!(written(&registry), RouteTable { generation: 4, apps: vec![changed] });
}

#[test]
fn draining_survives_a_full_table_that_does_not_know_it() {
    let (mut registry, _drained) = registry();
    registry.replace(RouteTable { generation: 1, apps: vec![app("a", &[("a", "/")], &["one"])] });
    let id = InstanceId::from_recorded("one-0");
    let claim = registry.instance(&id).expect("known").claim(1).expect("claims");
    registry.instance(&id).expect("known").drain(Duration::ZERO);
    registry.replace(RouteTable { generation: 9, apps: vec![app("a", &[("a", "/")], &["one"])] });
    assert!(registry.instance(&id).expect("known").is_draining());
    drop(claim);
    assert!(registry.instance(&id).expect("known").is_drained());
}

#[test]
fn an_app_that_may_have_been_meant_is_named_only_to_those_who_may_know_of_it() {
    let (mut registry, _drained) = registry();
    let with_function = |name: &str| {
        let function = FunctionRoute {
            function: "resize".parse().expect("a name"),
            version: VersionNumber::FIRST,
            pinned: false,
            concurrency: 1,
            isolated: false,
            timeout: Millis(1),
            max_body: Bytes(1),
            queue: 1,
            queue_timeout: Millis(1),
            instances: Vec::new(),
            when_empty: WhenEmpty::Wait,
        };
        AppRoutes { functions: vec![function], ..app(name, &[], &[]) }
    };
    let apps = vec![with_function("shop"), with_function("shop-admin"), app("shops", &[], &[])];
    registry.replace(RouteTable { generation: 1, apps });
    let table = registry.table();
    assert_eq!(table.app_near(&key("shop-admni"), |_| true).as_deref(), Some("shop-admin"));
    assert_eq!(table.app_near(&key("shop-admni"), |app| *app == key("shop")).as_deref(), Some("shop"));
    assert_eq!(table.app_near(&key("shop-admni"), |_| false), None);
    let elsewhere = AppKey::new("test".parse().expect("a name"), "shpo".parse().expect("a name"));
    assert_eq!(table.app_near(&elsewhere, |_| true), None, "an environment does not tell of another");
    let function = "resise".parse().expect("a name");
    assert_eq!(table.function_near(&key("shop"), &function).as_deref(), Some("resize"));
    assert_eq!(table.function_near(&key("shops"), &function), None);
}
