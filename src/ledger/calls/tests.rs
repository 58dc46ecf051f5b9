//! A call's life as the record tells it.

use std::time::Duration;

use super::*;
use crate::decide::retry::Policy;
use crate::domain::{AppKey, AttemptEnd, AttemptId, AttemptOutcome, CallError, CallOutcome, CallResult};

const TWICE: Policy =
    Policy { max: 1, delay: Duration::from_secs(10), backoff: 2.0, max_delay: Duration::from_secs(60) };

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + second).expect("a time")
}

fn function(name: &str) -> FunctionKey {
    let app = AppKey::new("main".parse().expect("a name"), "shop".parse().expect("a name"));
    FunctionKey::new(app, name.parse().expect("a name"))
}

fn new(name: &str, number: u128, second: i64) -> NewCall {
    NewCall {
        id: CallId::new(at(second), number),
        function: function(name),
        version: None,
        trigger: Trigger::Spawn,
        actor: Actor::User { name: "ada".into() },
        created_at: at(second),
        due_at: at(second),
        scheduled_at: None,
        retry_until: None,
        body: Payload::inline(Some("application/json".into()), b"{\"n\":1}".to_vec()),
        key: None,
        redrive_of: None,
    }
}

fn ended(outcome: AttemptOutcome, second: i64) -> AttemptEnd {
    let error = (outcome != AttemptOutcome::Succeeded).then(|| CallError::new("ValueError", "no such thing"));
    AttemptEnd::without_report(outcome, at(second), error)
}

fn answer() -> CallResult {
    CallResult { status: 200, payload: Payload::inline(Some("application/json".into()), b"42".to_vec()) }
}

fn turns(connection: &Connection, second: i64) -> Turns {
    waiting(connection, &function("resize"), at(second), 100).expect("read")
}

#[test]
fn calls_have_their_turn_in_the_order_they_came_and_attempts_are_numbered() {
    let ledger = crate::ledger::in_memory();
    let calls: Vec<NewCall> = (0..5).map(|n| new("resize", 100 - n, 0)).collect();
    for call in &calls {
        assert_eq!(take(&ledger, call).expect("taken"), Taken::New);
    }
    let now: Vec<CallId> = turns(&ledger, 1).now.iter().map(|turn| turn.id).collect();
    assert_eq!(now, calls.iter().map(|call| call.id).collect::<Vec<_>>());
    let two = waiting(&ledger, &function("resize"), at(1), 2).expect("read");
    assert!(two.now.len() == 2 && two.more && two.next_due.is_none(), "{two:?}");

    let begun = begin(&ledger, &now[..1], at(1)).expect("begun");
    assert_eq!(begun[0].attempt, AttemptId { call: now[0], attempt: 1 });
    assert_eq!(begun[0].body, calls[0].body);
    assert!(begin(&ledger, &now[..1], at(1)).expect("nothing").is_empty(), "it runs already");

    let first = begun[0].attempt;
    let failed = end(&ledger, first, &ended(AttemptOutcome::Failed, 2), None, &TWICE, at(2)).expect("recorded");
    assert_eq!(failed, Ended::Again(at(12)));
    assert_eq!(turns(&ledger, 11).next_due, Some(at(12)));
    let again = begin(&ledger, &now[..1], at(12)).expect("begun")[0].attempt;
    assert_eq!(again, AttemptId { call: now[0], attempt: 2 });
    let late = end(&ledger, first, &ended(AttemptOutcome::Succeeded, 13), None, &TWICE, at(13)).expect("read");
    assert_eq!(late, Ended::Stale, "the first attempt has had its end");

    let answered = answer();
    let done = end(&ledger, again, &ended(AttemptOutcome::Succeeded, 13), Some(&answered), &TWICE, at(13));
    assert_eq!(done.expect("recorded"), Ended::Done(CallOutcome::Succeeded));
    let twice = end(&ledger, again, &ended(AttemptOutcome::Failed, 14), None, &TWICE, at(14)).expect("read");
    assert_eq!(twice, Ended::Stale);
    let call = one(&ledger, now[0]).expect("read").expect("there");
    assert_eq!((call.state, call.outcome, call.attempts), (CallState::Done, Some(CallOutcome::Succeeded), 2));
    assert_eq!(result(&ledger, now[0]).expect("read"), Some((answered, 2)));
    let outcomes: Vec<_> =
        attempts(&ledger, now[0]).expect("read").into_iter().map(|one| one.end.map(|end| end.outcome)).collect();
    assert_eq!(outcomes, [Some(AttemptOutcome::Failed), Some(AttemptOutcome::Succeeded)]);
}

#[test]
fn a_key_makes_one_call_and_tells_when_it_is_used_for_another() {
    let ledger = crate::ledger::in_memory();
    let keyed = |number, digest| NewCall {
        key: Some(Key { text: "order-7".into(), digest: [digest; 32] }),
        ..new("resize", number, 0)
    };
    let first = keyed(1, 1);
    assert_eq!(take(&ledger, &first).expect("taken"), Taken::New);
    assert_eq!(take(&ledger, &keyed(2, 1)).expect("known"), Taken::Known(first.id));
    assert_eq!(take(&ledger, &keyed(3, 2)).expect("used"), Taken::KeyUsed(first.id));
    let other_function = NewCall { function: function("notify"), ..keyed(4, 2) };
    assert_eq!(take(&ledger, &other_function).expect("taken"), Taken::New);
}

#[test]
fn an_instant_of_a_schedule_has_one_run_also_when_it_begins_with_its_record() {
    let ledger = crate::ledger::in_memory();
    let run = |number| NewCall { scheduled_at: Some(at(60)), trigger: Trigger::Schedule, ..new("resize", number, 60) };
    let first = run(1);
    let (taken, begun) = take_begun(&ledger, &first).expect("recorded");
    let begun = begun.expect("it has begun");
    assert_eq!(taken, Taken::New);
    assert_eq!(begun.attempt, AttemptId { call: first.id, attempt: 1 });
    assert_eq!((begun.scheduled_at, begun.trigger, &begun.body), (Some(at(60)), Trigger::Schedule, &first.body));
    assert_eq!(take(&ledger, &run(2)).expect("known"), Taken::Known(first.id));
    assert_eq!(take_begun(&ledger, &run(3)).expect("known"), (Taken::Known(first.id), None));
    assert!(turns(&ledger, 100).now.is_empty(), "it is not in line any more");
    assert_eq!(open_attempts(&ledger).expect("read").len(), 1, "who starts anew finds it");
    let done = end(&ledger, begun.attempt, &ended(AttemptOutcome::Succeeded, 61), None, &TWICE, at(61));
    assert_eq!(done.expect("recorded"), Ended::Done(CallOutcome::Succeeded));
    assert_eq!(attempts(&ledger, first.id).expect("read").len(), 1);
}

#[test]
fn a_queued_call_is_cancelled_at_once_and_a_running_one_when_its_attempt_ends() {
    let ledger = crate::ledger::in_memory();
    let (queued, running) = (new("resize", 1, 0), new("resize", 2, 0));
    take(&ledger, &queued).expect("taken");
    take(&ledger, &running).expect("taken");
    let ada = Actor::User { name: "ada".into() };
    let attempt = begin(&ledger, &[running.id], at(1)).expect("begun")[0].attempt;
    assert_eq!(cancel(&ledger, queued.id, &ada, at(1)).expect("done"), Cancelled::Done);
    assert_eq!(cancel(&ledger, running.id, &ada, at(1)).expect("asked"), Cancelled::Asked(attempt));
    assert!(begin(&ledger, &[queued.id], at(2)).expect("nothing").is_empty());
    let lost = end(&ledger, attempt, &ended(AttemptOutcome::Lost, 2), None, &TWICE, at(2)).expect("recorded");
    assert_eq!(lost, Ended::Done(CallOutcome::Cancelled), "nobody wants it tried again");
    assert_eq!(cancel(&ledger, running.id, &ada, at(3)).expect("over"), Cancelled::Over(CallOutcome::Cancelled));
    assert_eq!(cancel(&ledger, CallId::new(at(0), 9), &ada, at(3)).expect("unknown"), Cancelled::Unknown);
}

#[test]
fn what_succeeded_in_spite_of_a_cancel_has_succeeded() {
    let ledger = crate::ledger::in_memory();
    let call = new("resize", 1, 0);
    take(&ledger, &call).expect("taken");
    let attempt = begin(&ledger, &[call.id], at(1)).expect("begun")[0].attempt;
    cancel(&ledger, call.id, &Actor::Agent, at(1)).expect("asked");
    let done = end(&ledger, attempt, &ended(AttemptOutcome::Succeeded, 2), Some(&answer()), &TWICE, at(2));
    assert_eq!(done.expect("recorded"), Ended::Done(CallOutcome::Succeeded));
}

#[test]
fn a_call_that_failed_stays_on_the_list_of_the_dead_until_it_is_tried_anew_once() {
    let ledger = crate::ledger::in_memory();
    let call = new("resize", 1, 0);
    take(&ledger, &call).expect("taken");
    let attempt = begin(&ledger, &[call.id], at(1)).expect("begun")[0].attempt;
    end(&ledger, attempt, &ended(AttemptOutcome::TimedOut, 2), None, &Policy::NEVER, at(2)).expect("recorded");
    let dead = Filter { dead: true, limit: 10, ..Filter::default() };
    let listed: Vec<CallId> = list(&ledger, &dead).expect("read").iter().map(|call| call.id).collect();
    assert_eq!(listed, [call.id]);
    let anew = NewCall { redrive_of: Some(call.id), trigger: Trigger::Redrive, ..new("resize", 2, 5) };
    assert_eq!(take(&ledger, &anew).expect("taken"), Taken::New);
    let twice = NewCall { redrive_of: Some(call.id), ..new("resize", 3, 5) };
    assert_eq!(take(&ledger, &twice).expect("known"), Taken::Redriven(anew.id));
    assert!(list(&ledger, &dead).expect("read").is_empty());
    assert_eq!(one(&ledger, call.id).expect("read").expect("there").redriven_as, Some(anew.id));
}

#[test]
fn open_attempts_and_queues_are_found_again_after_a_restart() {
    let ledger = crate::ledger::in_memory();
    let (first, second) = (new("resize", 1, 0), new("notify", 2, 0));
    take(&ledger, &first).expect("taken");
    take(&ledger, &second).expect("taken");
    let attempt = begin(&ledger, &[first.id], at(1)).expect("begun")[0].attempt;
    let open = open_attempts(&ledger).expect("read");
    assert_eq!(
        open,
        [OpenAttempt { attempt, function: function("resize"), trigger: Trigger::Spawn, cancelled: false }]
    );
    assert_eq!(functions_with_queue(&ledger).expect("read"), [function("notify")]);
    let backlogs = backlogs(&ledger).expect("read");
    assert_eq!(backlogs[&function("notify")], Backlog { queued: 1, running: 0, oldest: Some(at(0)) });
    assert_eq!(backlogs[&function("resize")], Backlog { queued: 0, running: 1, oldest: None });
    for (name, most, found) in [("notify", 9, 1), ("notify", 0, 0), ("resize", 9, 0), ("nothing", 9, 0)] {
        assert_eq!(queued(&ledger, &function(name), most).expect("read"), found, "{name}");
    }
}

#[test]
fn bodies_and_results_expire_before_the_record_does() {
    let ledger = crate::ledger::in_memory();
    let long = NewCall { body: Payload::file(None, 1 << 20), ..new("resize", 1, 0) };
    take(&ledger, &long).expect("taken");
    let attempt = begin(&ledger, &[long.id], at(1)).expect("begun")[0].attempt;
    let result_of = CallResult { status: 200, payload: Payload::file(None, 1 << 21) };
    end(&ledger, attempt, &ended(AttemptOutcome::Succeeded, 2), Some(&result_of), &TWICE, at(2)).expect("recorded");
    let files = body_files(&ledger).expect("read");
    assert_eq!(files.len(), 2, "{files:?}");
    assert_eq!(forget(&ledger, at(1000), 10).expect("nothing"), 0, "it has not expired");
    assert_eq!(expire(&ledger, at(2), 10).expect("nothing").calls, 0);
    let expired = expire(&ledger, at(3), 10).expect("expired");
    assert_eq!((expired.calls, expired.files.into_iter().collect()), (1, files));
    assert_eq!(expire(&ledger, at(3), 10).expect("nothing").calls, 0);
    let (kept, _) = result(&ledger, long.id).expect("read").expect("its head is there");
    assert_eq!((kept.payload.place, kept.payload.bytes), (Place::Expired, 1 << 21));
    assert_eq!(forget(&ledger, at(1), 10).expect("forgotten"), 1);
    assert_eq!(one(&ledger, long.id).expect("read"), None);
    assert!(attempts(&ledger, long.id).expect("read").is_empty());
}

#[test]
fn lists_go_backwards_in_pages_and_filter() {
    let ledger = crate::ledger::in_memory();
    for n in 0..10 {
        take(&ledger, &new(if n % 2 == 0 { "resize" } else { "notify" }, 1, n)).expect("taken");
    }
    let app = Some(function("resize").app);
    let page = Filter { app: app.clone(), limit: 4, ..Filter::default() };
    let first = list(&ledger, &page).expect("read");
    let second = list(&ledger, &Filter { before: first.last().map(|call| call.id), ..page }).expect("read");
    let seconds: Vec<i64> =
        first.iter().chain(&second).map(|call| call.created_at.duration_since(at(0)).as_secs()).collect();
    assert_eq!(seconds, [9, 8, 7, 6, 5, 4, 3, 2]);
    let notify = Filter { app, function: Some("notify".parse().expect("a name")), limit: 100, ..Filter::default() };
    assert_eq!(list(&ledger, &notify).expect("read").len(), 5);
    let done = Filter { state: Some(CallState::Done), limit: 100, ..Filter::default() };
    assert!(list(&ledger, &done).expect("read").is_empty());
}

#[test]
fn no_attempt_begins_later_than_a_call_may() {
    let ledger = crate::ledger::in_memory();
    let call = NewCall { retry_until: Some(at(20)), ..new("resize", 1, 0) };
    let patient = Policy { max: 9, ..TWICE };
    take(&ledger, &call).expect("taken");
    let attempt = begin(&ledger, &[call.id], at(1)).expect("begun")[0].attempt;
    let failed = end(&ledger, attempt, &ended(AttemptOutcome::Failed, 5), None, &patient, at(5)).expect("recorded");
    assert_eq!(failed, Ended::Again(at(15)));
    let attempt = begin(&ledger, &[call.id], at(15)).expect("begun")[0].attempt;
    let late = end(&ledger, attempt, &ended(AttemptOutcome::TimedOut, 16), None, &patient, at(16)).expect("recorded");
    assert_eq!(late, Ended::Done(CallOutcome::TimedOut));
}
