//! Admission under change: nobody is refused by a switch, nobody sleeps beside a free place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};

use crate::domain::manifest::{Bytes, Millis};
use crate::domain::{AppKey, InstanceId, VersionNumber};
use crate::wire::proxy::{AppRoutes, ObjectRoute, RouteTable, Upstream, WhenEmpty};

use super::access_log::AccessLog;
use super::admit::{Admitted, Asking, Target, admit};
use super::answer::Trouble;
use super::queue::{Activity, Object};
use super::settings::Live;
use super::shared::{Gate, Shared};
use super::table::{Registry, Table};

struct Hall {
    dir: tempfile::TempDir,
    shared: Arc<Shared>,
    registry: Registry,
    drained: mpsc::UnboundedReceiver<InstanceId>,
    wanted: mpsc::Receiver<Arc<Object>>,
}

fn hall() -> Hall {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("run")).expect("made");
    let (access_log, _) = AccessLog::start(dir.path().join("access.log"), 1).expect("starts");
    let activity = Arc::new(Activity::default());
    let (wanted_sender, wanted) = mpsc::channel(8);
    let (drained_sender, drained) = mpsc::unbounded_channel();
    let (_, leaving) = watch::channel(false);
    let shared = Arc::new(Shared {
        table: ArcSwap::from_pointee(Table::default()),
        settings: ArcSwap::from_pointee(Live::default()),
        activity: Arc::clone(&activity),
        wanted: wanted_sender,
        given_up: tokio::sync::Notify::new(),
        grants: ArcSwap::default(),
        failures: std::sync::Mutex::default(),
        tls: super::tls::Tls::open(dir.path().join("certificates")).expect("prepared"),
        tokens: super::token::Key::open(dir.path()).expect("a key"),
        access_log,
        gate: Gate::new(1),
        ends: mpsc::unbounded_channel().0,
        records: super::call::records::Records::new().0,
        detaching: mpsc::unbounded_channel().0,
        calls_directory: std::path::Path::new("calls").into(),
        apps_socket: std::path::Path::new("apps.sock").into(),
        held: 0.into(),
        threads: Vec::new(),
        leaving,
    });
    Hall { dir, shared, registry: Registry::new(activity, drained_sender), drained, wanted }
}

impl Hall {
    fn publish(&mut self, generation: u64, instances: &[u64], change: impl FnOnce(&mut ObjectRoute)) {
        let app = AppKey::new("main".parse().expect("a name"), "shop".parse().expect("a name"));
        let version = VersionNumber::FIRST;
        let upstream = |number: &u64| Upstream {
            instance: id(*number),
            address: "127.0.0.1:1".parse().expect("an address"),
            version,
        };
        let mut object = ObjectRoute {
            object: "main".parse().expect("a name"),
            hosts: vec!["shop".into()],
            path: "/".into(),
            strip_prefix: false,
            needs_token: false,
            concurrency: 1000,
            request_timeout: Millis::seconds(5),
            max_body: Bytes(10),
            queue: 0,
            queue_timeout: Millis::seconds(20),
            instances: instances.iter().map(upstream).collect(),
            when_empty: WhenEmpty::Refuse { reason: "nothing here".into() },
        };
        change(&mut object);
        self.registry.replace(RouteTable {
            generation,
            apps: vec![AppRoutes { app, version, objects: vec![object], functions: Vec::new() }],
        });
        self.shared.table.store(Arc::new(self.registry.table()));
        self.registry.wake_waiting();
    }
}

fn id(number: u64) -> InstanceId {
    InstanceId::from_recorded(format!("shop-main-v1-{number}"))
}

fn asking() -> Asking<'static> {
    Asking { target: Target::Web { host: "shop", path: "/" }, length: None, avoid: None, bearer: None }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
}

#[test]
fn switches_in_quick_succession_refuse_nobody() {
    const SWITCHES: u64 = 5_000;
    let mut hall = hall();
    hall.publish(1, &[0], |_| ());
    let shared = Arc::clone(&hall.shared);
    let (stop, admitted) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                block_on(async {
                    while !stop.load(Ordering::Relaxed) {
                        if let Err(trouble) = admit(&shared, asking()).await {
                            stop.store(true, Ordering::Relaxed);
                            panic!("refused: {trouble:?}");
                        }
                        admitted.fetch_add(1, Ordering::Relaxed);
                    }
                });
            });
        }
        for number in 1..=SWITCHES {
            hall.publish(number + 1, &[number], |_| ());
            let old = hall.registry.instance(&id(number - 1)).map(Arc::clone);
            if let Some(old) = old
                && !old.drain(Duration::ZERO)
            {
                hall.drained.blocking_recv().expect("drains");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(admitted.load(Ordering::Relaxed) > SWITCHES);
}

#[test]
fn nobody_sleeps_beside_a_free_place() {
    const ROUNDS: usize = 2_000;
    let mut hall = hall();
    // Two places for sixteen: nearly everybody waits, all the time.
    hall.publish(1, &[1, 2], |object| {
        object.concurrency = 1;
        object.queue = 100;
    });
    let shared = &hall.shared;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(move || {
                block_on(async {
                    let one = async || {
                        for _ in 0..ROUNDS / 4 {
                            let Admitted { claim, .. } = admit(shared, asking()).await.expect("a place in time");
                            tokio::task::yield_now().await;
                            drop(claim);
                        }
                    };
                    tokio::join!(one(), one(), one(), one());
                });
            });
        }
    });
}

#[test]
fn a_wave_is_announced_once_and_ends_with_its_last_request() {
    let mut hall = hall();
    let wait = |object: &mut ObjectRoute| {
        object.when_empty = WhenEmpty::Wait;
        object.queue = 2;
        object.queue_timeout = Millis(20);
    };
    hall.publish(1, &[], wait);
    let shared = Arc::clone(&hall.shared);
    for _ in 0..2 {
        block_on(async {
            let one = || admit(&shared, asking());
            let (first, second, third) = tokio::join!(one(), one(), one());
            assert_eq!(first.err(), Some(Trouble::QueueTimeout));
            assert_eq!(second.err(), Some(Trouble::QueueTimeout));
            assert_eq!(third.err(), Some(Trouble::QueueFull));
        });
        assert!(hall.wanted.try_recv().is_ok(), "announced");
        assert!(hall.wanted.try_recv().is_err(), "once");
    }
    assert!(hall.dir.path().exists());
}

#[test]
fn who_waits_is_told_when_the_app_goes() {
    let mut hall = hall();
    hall.publish(1, &[], |object| {
        object.when_empty = WhenEmpty::Wait;
        object.queue = 9;
    });
    let shared = Arc::clone(&hall.shared);
    block_on(async {
        let waiting = async { tokio::join!(admit(&shared, asking()), admit(&shared, asking())) };
        let going = async {
            tokio::task::yield_now().await;
            hall.registry.replace(RouteTable { generation: 2, apps: vec![] });
            hall.shared.table.store(Arc::new(hall.registry.table()));
            hall.registry.wake_waiting();
        };
        let ((one, two), ()) = tokio::join!(waiting, going);
        assert_eq!((one.err(), two.err()), (Some(Trouble::UnknownHost), Some(Trouble::UnknownHost)));
    });
}
