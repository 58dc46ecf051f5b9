//! Proof by trying: no claim after drained, under real threads and over every order of steps.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use crate::domain::{AppKey, InstanceId};

use super::claim::{Instance, Refusal};
use super::pick::{NoPlace, pick};
use super::queue::{Activity, Object};

fn object() -> Arc<Object> {
    let app = AppKey::new("main".parse().expect("a name"), "shop".parse().expect("a name"));
    Arc::new(Object::new(app, "main".parse().expect("a name"), Arc::new(Activity::default())))
}

fn instance(serial: u64, drained: &mpsc::UnboundedSender<InstanceId>) -> Arc<Instance> {
    Arc::new(Instance::new(
        InstanceId::from_recorded(format!("shop-main-v1-{serial}")),
        "127.0.0.1:1".parse().expect("an address"),
        crate::domain::VersionNumber::FIRST,
        serial,
        object(),
        drained.clone(),
    ))
}

#[test]
fn a_drained_instance_is_reported_once_and_never_claimed_again() {
    let (sender, mut drained) = mpsc::unbounded_channel();
    let one = instance(1, &sender);
    let claim = one.claim(2).expect("claims");
    let second = one.claim(2).expect("claims");
    assert_eq!(one.claim(2).err(), Some(Refusal::Full));
    assert!(!one.drain(Duration::ZERO));
    assert_eq!(one.claim(9).err(), Some(Refusal::Draining));
    drop(claim);
    assert!(drained.try_recv().is_err());
    drop(second);
    assert_eq!(drained.try_recv().ok().as_ref(), Some(&one.id));
    assert!(one.is_drained() && one.drain(Duration::ZERO));
    assert!(drained.try_recv().is_err(), "said once");
    let idle = instance(2, &sender);
    assert!(idle.drain(Duration::ZERO) && idle.is_drained());
}

#[test]
fn full_and_draining_instances_are_passed_over() {
    let (sender, _drained) = mpsc::unbounded_channel();
    let all: Vec<_> = (0..5).map(|serial| instance(serial, &sender)).collect();
    assert_eq!(pick(&[], 1, None).err(), Some(NoPlace::Empty));
    all[0].drain(Duration::ZERO);
    let claims: Vec<_> = (0..4).map(|_| pick(&all, 1, Some(3)).expect("a place")).collect();
    let taken: HashSet<u64> = claims.iter().map(|claim| claim.instance().serial).collect();
    assert_eq!(taken, HashSet::from([1, 2, 3, 4]));
    assert_eq!(pick(&all, 1, None).err(), Some(NoPlace::Full));
    for one in &all {
        one.drain(Duration::ZERO);
    }
    assert_eq!(pick(&all, 1, None).err(), Some(NoPlace::Draining));
    drop(claims);
    // The one to avoid is better than none.
    let one = [instance(9, &sender)];
    assert!(pick(&one, 1, Some(9)).is_ok());
}

/// Many threads claim from a table whose one instance is replaced and drained all the time, as the proxy does it: publish,
/// then drain; a refused claim looks again and gives up only if the table is the same.
#[test]
fn under_load_no_claim_follows_drained_and_none_is_refused() {
    const SWITCHES: u64 = 3_000;
    let (sender, mut drained) = mpsc::unbounded_channel();
    let table = ArcSwap::from_pointee(instance(0, &sender));
    // Serial numbers up to this one have drained: nobody may claim them.
    let gone = AtomicU64::new(0);
    let (stop, claims) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let mut seen = table.load_full();
                    loop {
                        let gone_before = gone.load(Ordering::SeqCst);
                        match seen.claim(u32::MAX) {
                            Ok(claim) => {
                                assert!(claim.instance().serial >= gone_before, "claimed after drained");
                                claims.fetch_add(1, Ordering::Relaxed);
                                break;
                            }
                            Err(refusal) => {
                                assert_eq!(refusal, Refusal::Draining);
                                let now = table.load_full();
                                assert!(!Arc::ptr_eq(&now, &seen), "refused although the table had not changed");
                                seen = now;
                            }
                        }
                    }
                }
            });
        }
        let mut old = Arc::clone(&*table.load_full());
        for serial in 1..=SWITCHES {
            let new = instance(serial, &sender);
            table.store(Arc::new(Arc::clone(&new)));
            if !old.drain(Duration::ZERO) {
                assert_eq!(drained.blocking_recv().as_ref(), Some(&old.id));
            }
            gone.store(serial, Ordering::SeqCst);
            assert!(old.is_drained() && old.in_flight() == 0);
            old = new;
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert!(claims.load(Ordering::Relaxed) > SWITCHES);
}

/// The protocol as a machine of single atomic steps, tried in every order.
mod model {
    use std::collections::HashSet;

    /// A request: looks, claims (one compare-and-swap), releases (one subtraction, then one compare-and-swap).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    enum Request {
        Look,
        Claim { seen: usize },
        LookAgain { seen: usize },
        Work { on: usize },
        Report { on: usize },
        Done,
        Refused,
    }

    /// The link: publishes instance 1, drains instance 0 (set the bit, then perhaps report).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    enum Link {
        Publish,
        SetBit,
        Report,
        Done,
    }

    #[derive(Clone, PartialEq, Eq, Hash, Debug)]
    struct State {
        table: usize,
        count: [u8; 2],
        draining: [bool; 2],
        reported: [bool; 2],
        reports: u8,
        requests: [Request; 3],
        link: Link,
    }

    fn step_request(mut state: State, index: usize) -> Option<State> {
        state.requests[index] = match state.requests[index] {
            Request::Look => Request::Claim { seen: state.table },
            Request::Claim { seen } if state.draining[seen] => Request::LookAgain { seen },
            Request::Claim { seen } => {
                assert!(!state.reported[seen], "claimed after drained: {state:?}");
                state.count[seen] += 1;
                Request::Work { on: seen }
            }
            Request::LookAgain { seen } if state.table == seen => Request::Refused,
            Request::LookAgain { .. } => Request::Claim { seen: state.table },
            Request::Work { on } => {
                assert!(!state.reported[on], "at work after drained: {state:?}");
                state.count[on] -= 1;
                if state.draining[on] && state.count[on] == 0 { Request::Report { on } } else { Request::Done }
            }
            Request::Report { on } => {
                report(&mut state, on);
                Request::Done
            }
            Request::Done | Request::Refused => return None,
        };
        Some(state)
    }

    fn step_link(mut state: State, drain_first: bool) -> Option<State> {
        state.link = match (state.link, drain_first) {
            (Link::Publish, false) => {
                state.table = 1;
                Link::SetBit
            }
            (Link::Publish, true) | (Link::SetBit, false) => {
                state.draining[0] = true;
                match (state.count[0], drain_first) {
                    (0, _) => Link::Report,
                    (_, false) => Link::Done,
                    (_, true) => Link::SetBit,
                }
            }
            (Link::SetBit, true) => {
                state.table = 1;
                Link::Done
            }
            (Link::Report, _) => {
                report(&mut state, 0);
                if drain_first { Link::SetBit } else { Link::Done }
            }
            (Link::Done, _) => return None,
        };
        Some(state)
    }

    fn report(state: &mut State, on: usize) {
        if state.draining[on] && state.count[on] == 0 && !state.reported[on] {
            state.reported[on] = true;
            state.reports += 1;
        }
    }

    /// Walks through every order; the final states.
    fn explore(drain_first: bool) -> (usize, Vec<State>) {
        let start = State {
            table: 0,
            count: [0; 2],
            draining: [false; 2],
            reported: [false; 2],
            reports: 0,
            requests: [Request::Look; 3],
            link: Link::Publish,
        };
        let (mut seen, mut open, mut ends) = (HashSet::from([start.clone()]), vec![start], Vec::new());
        while let Some(state) = open.pop() {
            let mut moved = false;
            let steps = (0..3).map(|index| step_request(state.clone(), index));
            for next in steps.chain([step_link(state.clone(), drain_first)]).flatten() {
                moved = true;
                if seen.insert(next.clone()) {
                    open.push(next);
                }
            }
            if !moved {
                ends.push(state);
            }
        }
        (seen.len(), ends)
    }

    #[test]
    fn in_every_order_each_request_is_served_and_drained_is_said_once() {
        let (states, ends) = explore(false);
        assert!(states > 500, "only {states} states were tried");
        for end in ends {
            assert!(end.requests.iter().all(|request| *request == Request::Done), "{end:?}");
            assert_eq!((end.reports, end.reported[0]), (1, true), "{end:?}");
        }
    }

    #[test]
    fn the_model_finds_what_is_wrong_with_draining_before_publishing() {
        let (_, ends) = explore(true);
        assert!(ends.iter().any(|end| end.requests.contains(&Request::Refused)));
    }
}
