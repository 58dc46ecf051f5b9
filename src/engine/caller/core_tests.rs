//! Generated sequences of everything that can go wrong between a record and a function, against the real record.

use jiff::SignedDuration;
use proptest::prelude::*;

use super::core_world::{ROOM, World, function, steps};
use crate::decide::retry::FREE_CRASHES;
use crate::domain::{AttemptId, AttemptOutcome, CallOutcome, Payload};
use crate::ledger::calls;

/// How many of the user's attempts were used up.
fn blamed(ends: &[AttemptOutcome]) -> usize {
    let (mut blamed, mut crashes) = (0, 0);
    for end in ends {
        crashes += u32::from(*end == AttemptOutcome::Crashed);
        if matches!(end, AttemptOutcome::Failed | AttemptOutcome::TimedOut) || crashes > FREE_CRASHES {
            (blamed, crashes) = (blamed + 1, 0);
        }
    }
    blamed
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_dies_every_call_has_one_outcome_and_every_attempt_its_record(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.come_to_rest();
        for (attempt, times) in &world.ran {
            prop_assert_eq!(*times, 1, "{} ran more than once", attempt);
        }
        for call in &world.spawned {
            let recorded = world.recorded(*call);
            let outcome = recorded.outcome.expect("it is done");
            let attempts = calls::attempts(&world.ledger, *call).expect("read");
            let numbers: Vec<u32> = attempts.iter().map(|attempt| attempt.number).collect();
            prop_assert_eq!(&numbers, &(1..=recorded.attempts).collect::<Vec<_>>());
            let ends: Vec<AttemptOutcome> =
                attempts.iter().map(|attempt| attempt.end.as_ref().expect("it has ended").outcome).collect();
            let blamed = blamed(&ends);
            prop_assert!(blamed <= 2, "{:?}", ends);
            prop_assert!(world.told.get(call).is_none_or(|told| told.as_slice() == [outcome]));
            match outcome {
                CallOutcome::Succeeded => {
                    prop_assert_eq!(ends.last(), Some(&AttemptOutcome::Succeeded));
                    let (result, by) = calls::result(&world.ledger, *call).expect("read").expect("a result");
                    let words = AttemptId { call: *call, attempt: by }.to_string().into_bytes();
                    prop_assert_eq!(result.payload, Payload::inline(None, words));
                }
                CallOutcome::Failed | CallOutcome::TimedOut => prop_assert_eq!(blamed, 2),
                CallOutcome::Cancelled => prop_assert!(recorded.cancelled_by.is_some()),
                CallOutcome::SkippedOverlap | CallOutcome::Missed => prop_assert!(false, "{} is no run", call),
            }
            // What a proxy carried out and lived to tell is what the record says.
            for (attempt, end) in attempts.iter().zip(&ends) {
                let id = AttemptId { call: *call, attempt: attempt.number };
                prop_assert!(*end == AttemptOutcome::Lost || world.ran.contains_key(&id), "{} never ran, and is {}", id, end);
            }
        }
        for call in &world.detached {
            let ran = world.ran.get(&AttemptId { call: *call, attempt: 1 });
            let Some(recorded) = calls::one(&world.ledger, *call).expect("read") else {
                // Its proxy died before the controller had heard of it, and before its caller was told anything.
                continue;
            };
            prop_assert_eq!(recorded.attempts, 1, "a call whose body is gone is not tried again");
            match recorded.outcome.expect("it is done") {
                CallOutcome::Succeeded => prop_assert!(ran.is_some()),
                CallOutcome::Failed | CallOutcome::TimedOut | CallOutcome::Cancelled => {}
                other => prop_assert!(false, "{} is {}", call, other),
            }
        }
        for other in [false, true] {
            prop_assert_eq!(world.core.flying(&function(other)), (0, 0));
        }
    }
}

/// A world with one proxy on the line.
fn connected() -> World {
    let mut world = World::new();
    world.connect(0);
    world
}

#[test]
fn a_function_gets_no_more_than_its_room_and_keeps_no_other_waiting() {
    let mut world = connected();
    for _ in 0..50 {
        world.spawn(false);
    }
    for _ in 0..2 {
        world.spawn(true);
    }
    world.turn(false);
    while world.hear(0) {}
    let (long, short) = (world.core.flying(&function(false)).0, world.core.flying(&function(true)).0);
    assert_eq!((long, short), (ROOM, 2));
    world.come_to_rest();
}

#[test]
fn what_a_dead_proxy_had_is_lost_and_tried_again_and_what_a_living_one_has_is_not() {
    let mut world = connected();
    world.spawn(false);
    world.turn(false);
    world.hear(0);
    world.new_proxy();
    world.connect(1);
    // Its line breaks, and it lives: it may still carry the call out.
    world.break_line(0);
    world.turn(false);
    assert_eq!(world.recorded(world.spawned[0]).attempts, 1);
    world.connect(0);
    world.finish(0, 0, AttemptOutcome::Succeeded);
    while world.listen(0) {}
    world.turn(false);
    assert_eq!(world.recorded(world.spawned[0]).outcome, Some(CallOutcome::Succeeded));

    world.spawn(false);
    world.turn(false);
    let newest = world.proxies.iter().position(|proxy| !proxy.to.is_empty()).expect("one was told");
    while world.hear(newest) {}
    world.kill_proxy(newest);
    world.turn(false);
    let ends = calls::attempts(&world.ledger, world.spawned[1]).expect("read");
    assert_eq!(ends[0].end.as_ref().map(|end| end.outcome), Some(AttemptOutcome::Lost));
    world.come_to_rest();
    assert_eq!(world.recorded(world.spawned[1]).attempts, 2);
}

#[test]
fn a_new_controller_sends_nothing_that_a_proxy_has() {
    let mut world = connected();
    world.spawn(false);
    world.turn(false);
    world.hear(0);
    world.kill_controller();
    world.turn(false);
    world.connect(0);
    world.turn(false);
    assert!(world.proxies[0].to.is_empty(), "{:?}", world.proxies[0].to);
    world.come_to_rest();
    assert_eq!(world.recorded(world.spawned[0]).attempts, 1);
}

#[test]
fn where_one_call_finds_no_instance_the_thousand_behind_it_are_not_tried() {
    let mut world = connected();
    for _ in 0..100 {
        world.spawn(false);
    }
    for _ in 0..50 {
        world.turn(false);
        while world.hear(0) {}
        for _ in 0..ROOM {
            world.finish(0, 0, AttemptOutcome::Refused);
        }
        while world.listen(0) {}
        world.now += SignedDuration::from_millis(200);
    }
    // 10 s of pauses that double from 100 ms: a handful of rounds, however many calls wait.
    assert!(world.ran.len() <= 8 * ROOM, "{} attempts", world.ran.len());
    world.come_to_rest();
}
