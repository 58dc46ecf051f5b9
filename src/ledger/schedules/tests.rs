//! Schedules and their runs as the record tells them.

use super::*;
use crate::decide::runs::Gap;
use crate::domain::{CallError, CallId, Trigger};
use crate::ledger::schema::migrate;

fn ledger() -> (tempfile::TempDir, Connection) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ledger.db");
    let mut connection = Connection::open(&path).expect("opens");
    migrate(&mut connection, &path).expect("migrates");
    connection.pragma_update(None, "foreign_keys", true).expect("a pragma");
    connection
        .execute_batch("INSERT INTO apps VALUES (1,'main','shop',NULL,NULL,'content',NULL,NULL,NULL,10,20);")
        .expect("an app");
    (dir, connection)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + second).expect("a time")
}

fn key() -> FunctionKey {
    let app = AppKey::new("main".parse().expect("a name"), "shop".parse().expect("a name"));
    FunctionKey::new(app, "report".parse().expect("a name"))
}

fn run(second: i64, call: Option<u128>) -> NewRun {
    NewRun {
        at: at(second),
        trigger: Trigger::Schedule,
        actor: None,
        caught_up: false,
        call: call.map(|number| CallId::new(at(second), number)),
        decided_at: at(second),
    }
}

#[test]
fn an_instant_has_one_record_whatever_is_tried() {
    let (_dir, ledger) = ledger();
    let id = activate(&ledger, &key(), "every 1m", at(0)).expect("recorded").expect("an app").id;
    assert!(add(&ledger, id, &run(60, Some(1))).expect("added"));
    assert!(!add(&ledger, id, &run(60, Some(2))).expect("refused"));
    assert!(!skip(&ledger, id, at(60), at(61)).expect("refused"));
    let gap = Gap { first: at(60), last: at(60), count: 1, more: false };
    assert!(!missed(&ledger, id, &gap, at(61)).expect("refused"));
    assert_eq!(history(&ledger, id, None, None, 10).expect("read").len(), 1);
}

#[test]
fn a_schedule_keeps_its_place_over_deployments_and_begins_anew_with_another_expression() {
    let (_dir, ledger) = ledger();
    let first = activate(&ledger, &key(), "every 1m", at(0)).expect("recorded").expect("an app");
    decided(&ledger, first.id, at(120)).expect("recorded");
    let again = activate(&ledger, &key(), "every 1m", at(500)).expect("recorded").expect("an app");
    assert_eq!((again.id, again.decided_at), (first.id, at(120)));
    let other = activate(&ledger, &key(), "every 2m", at(500)).expect("recorded").expect("an app");
    assert_eq!((other.id, other.decided_at), (first.id, at(500)));
    deactivate(&ledger, first.id).expect("recorded");
    assert!(!one(&ledger, &key()).expect("read").expect("there").active);
    let back = activate(&ledger, &key(), "every 2m", at(900)).expect("recorded").expect("an app");
    assert_eq!((back.active, back.decided_at), (true, at(900)));
    // A clock that went back makes nothing undecided.
    assert_eq!(activate(&ledger, &key(), "every 3m", at(800)).expect("recorded").expect("an app").decided_at, at(900));
    assert_eq!(all(&ledger).expect("read"), of_app(&ledger, &key().app).expect("read"));
}

#[test]
fn a_run_that_waited_gets_its_call_and_its_one_outcome() {
    let (_dir, ledger) = ledger();
    let id = activate(&ledger, &key(), "every 1m", at(0)).expect("recorded").expect("an app").id;
    add(&ledger, id, &run(60, Some(1))).expect("added");
    let asked = NewRun { trigger: Trigger::Manual, actor: Some(Actor::Agent), ..run(120, None) };
    add(&ledger, id, &asked).expect("added");
    let found = open(&ledger, id).expect("read");
    assert_eq!((found.running.len(), found.waiting.len()), (1, 1));
    let call = CallId::new(at(130), 7);
    assert_eq!(asked_by(&ledger, id, at(120)).expect("read"), Some((Trigger::Manual, Some(Actor::Agent))));
    assert!(start_waiting(&ledger, id, at(120), call, at(130)).expect("started"));
    assert!(!start_waiting(&ledger, id, at(120), call, at(131)).expect("once"));
    assert_eq!(running(&ledger).expect("read").len(), 2);
    let error = CallError::new("KeyError", "no such thing");
    let ended = finish(&ledger, call, CallOutcome::Failed, Some(&error), at(140)).expect("ended").expect("was open");
    assert_eq!((ended.schedule, ended.at), (id, at(120)));
    assert_eq!(finish(&ledger, call, CallOutcome::Succeeded, None, at(141)).expect("read"), None);
    let last = last_failure(&ledger, id).expect("read").expect("there");
    assert_eq!((last.call, last.error, last.outcome), (Some(call), Some(error), Some(CallOutcome::Failed)));
}

#[test]
fn gaps_of_a_wrong_clock_are_cut() {
    let (_dir, ledger) = ledger();
    let id = activate(&ledger, &key(), "every 1m", at(0)).expect("recorded").expect("an app").id;
    let gap = |first, last, count| Gap { first: at(first), last: at(last), count, more: false };
    for gap in [gap(60, 120, 2), gap(180, 600, 8), gap(660, 900, 5)] {
        assert!(missed(&ledger, id, &gap, at(1000)).expect("recorded"));
    }
    add(&ledger, id, &run(960, Some(1))).expect("added");
    assert_eq!(gaps_beyond(&ledger, id, at(300)).expect("read"), [gap(180, 600, 8), gap(660, 900, 5)]);
    cut_gap(&ledger, id, at(180), Some(&gap(180, 300, 3))).expect("cut");
    cut_gap(&ledger, id, at(660), None).expect("cut");
    assert_eq!(gaps_beyond(&ledger, id, at(0)).expect("read"), [gap(60, 120, 2), gap(180, 300, 3)]);
    assert_eq!(instants_after(&ledger, id, at(300), 10).expect("read"), BTreeSet::from([at(960)]));
}

#[test]
fn old_runs_are_forgotten_but_never_the_last_failure_or_what_is_open() {
    let (_dir, ledger) = ledger();
    let id = activate(&ledger, &key(), "every 1m", at(0)).expect("recorded").expect("an app").id;
    for number in 1..=50 {
        add(&ledger, id, &run(number * 60, Some(number as u128))).expect("added");
        let outcome = if number == 3 { CallOutcome::Failed } else { CallOutcome::Succeeded };
        if number != 5 {
            let call = CallId::new(at(number * 60), number as u128);
            finish(&ledger, call, outcome, None, at(number * 60 + 1)).expect("ended");
        }
    }
    assert_eq!(prune(&ledger, at(0), 10, 100).expect("pruned"), 0, "nothing is old enough");
    assert_eq!(prune(&ledger, at(600), 10, 100).expect("pruned"), 8, "two of the ten are kept");
    assert_eq!(prune(&ledger, at(10_000), 10, 100).expect("pruned"), 30);
    assert_eq!(prune(&ledger, at(0), 5, 5).expect("pruned"), 5, "no more than so many, however new");
    let left: Vec<_> = history(&ledger, id, None, None, 100).expect("read").iter().map(|run| run.at).collect();
    let newest = (46..=50).rev().map(|number| at(number * 60));
    assert_eq!(left, newest.chain([at(300), at(180)]).collect::<Vec<_>>());
}

#[test]
fn a_pause_and_a_streak_survive() {
    let (_dir, ledger) = ledger();
    let id = activate(&ledger, &key(), "every 1m", at(0)).expect("recorded").expect("an app").id;
    let pause = PauseRecord { actor: Actor::Agent, since: at(1), until: Some(at(100)), reason: Some("a move".into()) };
    set_pause(&ledger, id, Some(&pause)).expect("recorded");
    let (streak, _) = Streak::default().after(CallOutcome::Failed, Some("KeyError"), 1);
    remember(&ledger, id, &streak, at(60), CallOutcome::Failed).expect("recorded");
    let found = one(&ledger, &key()).expect("read").expect("there");
    assert_eq!((found.pause, found.streak.clone()), (Some(pause), streak));
    assert_eq!((found.last, found.last_success), (Some((at(60), CallOutcome::Failed)), None));
    remember(&ledger, id, &found.streak, at(120), CallOutcome::Succeeded).expect("recorded");
    set_pause(&ledger, id, None).expect("recorded");
    let found = one(&ledger, &key()).expect("read").expect("there");
    assert_eq!((found.pause, found.last_success), (None, Some(at(120))));
}

#[test]
fn runs_stay_counted_and_the_output_of_the_last_failures_stays() {
    let (_dir, ledger) = ledger();
    let id = activate(&ledger, &key(), "every 1m", at(0)).expect("recorded").expect("an app").id;
    let output = |number: i64| Output { head: format!("run {number}"), left_out: 7, tail: "the end".into() };
    for number in 1..=20 {
        add(&ledger, id, &run(number * 60, Some(number as u128))).expect("added");
        let outcome = if number <= 8 { CallOutcome::Failed } else { CallOutcome::Succeeded };
        let call = CallId::new(at(number * 60), number as u128);
        finish(&ledger, call, outcome, None, at(number * 60 + 1)).expect("ended");
        keep_output(&ledger, id, at(number * 60), &output(number)).expect("kept");
    }
    skip(&ledger, id, at(21 * 60), at(21 * 60)).expect("skipped");
    missed(&ledger, id, &Gap { first: at(1320), last: at(1500), count: 4, more: false }, at(1500)).expect("recorded");
    let kept = |number: i64| self::output(&ledger, id, at(number * 60)).expect("read");
    assert_eq!((kept(3), kept(4), kept(8)), (None, Some(output(4)), Some(output(8))));
    assert_eq!(
        (kept(17), kept(18), kept(20)),
        (None, Some(output(18)), Some(output(20))),
        "others crowd out no failure"
    );
    prune(&ledger, at(10_000), 5, 100).expect("pruned");
    assert_eq!((kept(7), kept(8)), (None, Some(output(8))), "the last failure and what it wrote");
    keep_output(&ledger, id, at(7 * 60), &output(7)).expect("nothing to keep it for");
    assert_eq!(kept(7), None);
    use CallOutcome::{Failed, Missed, SkippedOverlap, Succeeded};
    let counted: Vec<_> = tallies(&ledger).expect("read").into_iter().map(|(_, outcome, n)| (outcome, n)).collect();
    assert_eq!(counted, [(Failed, 8), (Missed, 4), (SkippedOverlap, 1), (Succeeded, 12)]);
    deactivate(&ledger, id).expect("recorded");
    assert_eq!(tallies(&ledger).expect("read"), [], "only what is live is shown");
}
