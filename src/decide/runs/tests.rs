//! What is decided about runs, case by case.

use super::*;
use crate::domain::Schedule;
use crate::domain::schedule::Every;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn cron(expression: &str, zone: &str) -> Due {
    let zone = crate::zones::Zones::bundled_only().find(zone).unwrap();
    Due::new(&Schedule::Cron { cron: expression.parse().unwrap(), zone }).unwrap()
}

fn every(seconds: u64) -> Due {
    Due::new(&Schedule::Every(Every::new(Duration::from_secs(seconds)).unwrap())).unwrap()
}

fn rules(due: Due, overlap: Overlap) -> Rules {
    Rules { due, overlap, catch_up: SignedDuration::ZERO, offset: SignedDuration::ZERO }
}

fn hourly(overlap: Overlap) -> (Rules, Runs) {
    (rules(every(3600), overlap), Runs::new(at("2026-03-01T00:30:00Z")))
}

fn start(text: &str, cause: Cause) -> Decision {
    Decision::Start { at: at(text), cause }
}

fn gap(first: &str, last: &str, count: u32) -> Decision {
    Decision::Missed(Gap { first: at(first), last: at(last), count, more: false })
}

#[test]
fn a_run_starts_at_its_instant_and_not_again() {
    let (rules, mut runs) = hourly(Overlap::Skip);
    assert_eq!(runs.wakes_at(&rules), Some(at("2026-03-01T01:00:00Z")));
    assert_eq!(runs.tick(&rules, at("2026-03-01T00:59:59.999Z")), []);
    assert_eq!(runs.tick(&rules, at("2026-03-01T01:00:00Z")), [start("2026-03-01T01:00:00Z", Cause::OnTime)]);
    assert_eq!(runs.tick(&rules, at("2026-03-01T01:00:00Z")), []);
    // The clock is set back by a little, and comes by again.
    assert_eq!(runs.tick(&rules, at("2026-03-01T00:59:30Z")), []);
    assert!(!runs.is_ahead_of(&rules, at("2026-03-01T00:59:30Z")));
    assert_eq!(runs.tick(&rules, at("2026-03-01T01:00:01Z")), []);
    assert_eq!(runs.wakes_at(&rules), Some(at("2026-03-01T02:00:00Z")));
}

#[test]
fn what_passes_during_a_restart_of_seconds_is_on_time() {
    let (rules, mut runs) = hourly(Overlap::Skip);
    assert_eq!(runs.tick(&rules, at("2026-03-01T01:00:10Z")), [start("2026-03-01T01:00:00Z", Cause::OnTime)]);
    assert_eq!(
        runs.tick(&rules, at("2026-03-01T02:00:10.001Z")),
        [gap("2026-03-01T02:00:00Z", "2026-03-01T02:00:00Z", 1)]
    );
}

#[test]
fn of_what_was_missed_only_the_latest_is_caught_up_with() {
    let (mut rules, mut runs) = hourly(Overlap::Queue);
    rules.catch_up = SignedDuration::from_mins(30);
    let late = runs.tick(&rules, at("2026-03-01T05:30:00Z"));
    let expected =
        [gap("2026-03-01T01:00:00Z", "2026-03-01T04:00:00Z", 4), start("2026-03-01T05:00:00Z", Cause::CatchUp)];
    assert_eq!(late, expected);
    assert_eq!(runs.ended(&rules, at("2026-03-01T05:00:00Z")), []);
    let too_late = runs.tick(&rules, at("2026-03-01T07:30:01Z"));
    assert_eq!(too_late, [gap("2026-03-01T06:00:00Z", "2026-03-01T07:00:00Z", 2)]);
}

#[test]
fn a_year_without_power_is_one_record() {
    let rules = rules(every(1), Overlap::Allow);
    let mut runs = Runs::new(at("2026-01-01T00:00:00Z"));
    let now = at("2027-01-01T00:00:00.5Z");
    let decisions = runs.tick(&rules, now);
    let missed =
        Gap { first: at("2026-01-01T00:00:01Z"), last: at("2026-12-31T23:59:59Z"), count: MOST_COUNTED, more: true };
    assert_eq!(decisions, [Decision::Missed(missed), start("2027-01-01T00:00:00Z", Cause::OnTime)]);
    assert_eq!(runs.tick(&rules, now), []);
}

#[test]
fn the_latest_instant_is_found_among_any_number() {
    for (expression, after, until, expected) in [
        ("* * * 1 *", "2026-01-01T00:00:00Z", "2026-09-01T00:00:30Z", "2026-01-31T23:59:00Z"),
        ("* * * * *", "2020-01-01T00:00:00Z", "2026-09-01T00:00:00Z", "2026-09-01T00:00:00Z"),
        ("* * * * *", "2020-01-01T00:00:00Z", "2026-09-01T00:00:59Z", "2026-09-01T00:00:00Z"),
        ("0 0 29 2 *", "1996-01-01T00:00:00Z", "2026-09-01T00:00:59Z", "2024-02-29T00:00:00Z"),
        ("0,1 0 1 1 *", "2020-01-01T00:00:00Z", "2026-09-01T00:00:00Z", "2026-01-01T00:01:00Z"),
    ] {
        let found = gap::latest(&cron(expression, "UTC"), at(after), at(until));
        assert_eq!(found, Some(at(expected)), "{expression}");
    }
    assert_eq!(gap::latest(&every(60), at("2026-01-01T00:00:00Z"), at("2026-01-01T00:00:59.9Z")), None);
}

#[test]
fn an_overlap_is_skipped_queued_replaced_or_allowed() {
    let (one, two, three) = ("2026-03-01T01:00:00Z", "2026-03-01T02:00:00Z", "2026-03-01T03:00:00Z");
    let second = |overlap| {
        let (rules, mut runs) = hourly(overlap);
        assert_eq!(runs.tick(&rules, at(one)), [start(one, Cause::OnTime)]);
        let decisions = runs.tick(&rules, at(two));
        (rules, runs, decisions)
    };
    let (rules, mut runs, decisions) = second(Overlap::Skip);
    assert_eq!(decisions, [Decision::Skip { at: at(two) }]);
    assert_eq!(runs.ended(&rules, at(one)), []);
    assert_eq!(runs.tick(&rules, at(three)), [start(three, Cause::OnTime)]);

    let (rules, mut runs, decisions) = second(Overlap::Queue);
    assert_eq!(decisions, [Decision::Wait { at: at(two) }]);
    assert_eq!(runs.tick(&rules, at(three)), [Decision::Wait { at: at(three) }]);
    assert_eq!(runs.ended(&rules, at(one)), [start(two, Cause::Waited)]);
    assert_eq!(runs.ended(&rules, at(two)), [start(three, Cause::Waited)]);

    let (rules, mut runs, decisions) = second(Overlap::Replace);
    assert_eq!(decisions, [Decision::Wait { at: at(two) }, Decision::Cancel { at: at(one) }]);
    // It is told to leave once; a third takes the place of the second.
    assert_eq!(runs.tick(&rules, at(three)), [Decision::GiveUp { at: at(two) }, Decision::Wait { at: at(three) }]);
    assert_eq!(runs.ended(&rules, at(one)), [start(three, Cause::Waited)]);

    let (_, _, decisions) = second(Overlap::Allow);
    assert_eq!(decisions, [start(two, Cause::OnTime)]);
}

#[test]
fn the_queue_has_a_bound() {
    let rules = rules(every(1), Overlap::Queue);
    let first = at("2026-03-01T00:00:00Z");
    let mut runs = Runs::new(first);
    let mut skipped = 0;
    for second in 1..=MOST_WAITING as i64 + 5 {
        let decisions = runs.tick(&rules, first + SignedDuration::from_secs(second));
        skipped += decisions.iter().filter(|decision| matches!(decision, Decision::Skip { .. })).count();
    }
    assert_eq!((runs.waiting().count(), skipped), (MOST_WAITING, 4));
}

#[test]
fn a_pause_starts_nothing_and_is_not_made_up_for() {
    let (mut rules, mut runs) = hourly(Overlap::Queue);
    rules.catch_up = SignedDuration::from_hours(24);
    assert_eq!(runs.tick(&rules, at("2026-03-01T01:00:00Z")), [start("2026-03-01T01:00:00Z", Cause::OnTime)]);
    assert_eq!(runs.tick(&rules, at("2026-03-01T02:00:00Z")), [Decision::Wait { at: at("2026-03-01T02:00:00Z") }]);
    runs.pause_now(Some(at("2026-03-01T05:30:00Z")));
    assert_eq!(runs.wakes_at(&rules), Some(at("2026-03-01T05:30:00Z")));
    assert_eq!(runs.tick(&rules, at("2026-03-01T03:00:00Z")), []);
    // What was waiting goes on waiting.
    assert_eq!(runs.ended(&rules, at("2026-03-01T01:00:00Z")), []);
    let decisions = runs.tick(&rules, at("2026-03-01T05:30:00Z"));
    assert_eq!(decisions, [Decision::Resumed, start("2026-03-01T02:00:00Z", Cause::Waited)]);
    assert_eq!(runs.wakes_at(&rules), Some(at("2026-03-01T06:00:00Z")));
    runs.pause_now(None);
    assert_eq!(runs.wakes_at(&rules), None);
    assert_eq!(runs.resume(&rules, at("2026-03-01T09:10:00Z")), []);
    assert_eq!(runs.wakes_at(&rules), Some(at("2026-03-01T10:00:00Z")));
}

#[test]
fn what_passes_between_the_end_of_a_pause_and_now_is_judged_as_always() {
    let (rules, mut runs) = hourly(Overlap::Skip);
    runs.pause_now(Some(at("2026-03-01T03:30:00Z")));
    let decisions = runs.tick(&rules, at("2026-03-01T05:30:00Z"));
    assert_eq!(decisions, [Decision::Resumed, gap("2026-03-01T04:00:00Z", "2026-03-01T05:00:00Z", 2)]);
}

#[test]
fn a_run_that_is_asked_for_minds_what_runs_but_no_pause() {
    let now = at("2026-03-01T00:40:00.123Z");
    let (queue, mut runs) = hourly(Overlap::Queue);
    runs.pause_now(None);
    assert_eq!(runs.ask(&queue, now), Ok(vec![Decision::Start { at: now, cause: Cause::Asked }]));
    assert_eq!(runs.ask(&queue, at("2026-03-01T00:50:00Z")), Err(now));
    let _ = runs.resume(&queue, at("2026-03-01T00:55:00Z"));
    // It is in the way of the next one like any other.
    assert_eq!(runs.tick(&queue, at("2026-03-01T01:00:00Z")), [Decision::Wait { at: at("2026-03-01T01:00:00Z") }]);
    let (replace, mut runs) = hourly(Overlap::Replace);
    assert_eq!(runs.tick(&replace, at("2026-03-01T01:00:00Z")), [start("2026-03-01T01:00:00Z", Cause::OnTime)]);
    let asked = at("2026-03-01T01:10:00Z");
    let expected = vec![Decision::Wait { at: asked }, Decision::Cancel { at: at("2026-03-01T01:00:00Z") }];
    assert_eq!(runs.ask(&replace, asked), Ok(expected));
}

#[test]
fn another_expression_makes_up_for_nothing_and_a_removed_one_leaves_what_runs() {
    let (_, mut runs) = hourly(Overlap::Queue);
    let other = rules(cron("*/5 * * * *", "UTC"), Overlap::Queue);
    runs.changed(&other, at("2026-03-01T00:58:00Z"));
    assert_eq!(runs.tick(&other, at("2026-03-01T01:00:00Z")), [start("2026-03-01T01:00:00Z", Cause::OnTime)]);
    assert_eq!(runs.tick(&other, at("2026-03-01T01:05:00Z")), [Decision::Wait { at: at("2026-03-01T01:05:00Z") }]);
    assert_eq!(runs.removed(), [Decision::GiveUp { at: at("2026-03-01T01:05:00Z") }]);
    assert_eq!(runs.running().collect::<Vec<_>>(), [at("2026-03-01T01:00:00Z")]);
}

#[test]
fn after_the_clock_went_back_a_year_instants_come_but_never_twice() {
    let (rules, mut runs) = hourly(Overlap::Allow);
    let wrong = at("2027-03-01T01:00:05Z");
    let decisions = runs.tick(&rules, wrong);
    let Some(Decision::Missed(missed)) = decisions.first().cloned() else { panic!("{decisions:?}") };
    assert_eq!(decisions.get(1), Some(&start("2027-03-01T01:00:00Z", Cause::OnTime)));
    let right = at("2026-03-01T00:31:00Z");
    assert!(runs.is_ahead_of(&rules, right));
    assert_eq!(missed.cut(&rules.due, right), None);
    runs.went_back(&rules, right, BTreeSet::from([at("2027-03-01T01:00:00Z")]));
    assert!(!runs.is_ahead_of(&rules, right));
    assert_eq!(runs.tick(&rules, at("2026-03-01T01:00:00Z")), [start("2026-03-01T01:00:00Z", Cause::OnTime)]);
    let later = runs.tick(&rules, at("2027-03-01T01:00:00Z"));
    let last = "2027-03-01T00:00:00Z";
    assert!(matches!(later.as_slice(), [Decision::Missed(gap)] if gap.last == at(last)), "{later:?}");
    assert_eq!(runs.tick(&rules, at("2027-03-01T02:00:00Z")), [start("2027-03-01T02:00:00Z", Cause::OnTime)]);
}

#[test]
fn fixed_times_over_a_change_of_the_clocks_run_once() {
    let rules = rules(cron("30 2 * * *", "Europe/Oslo"), Overlap::Allow);
    for (from, to, expected) in [
        ("2026-03-28T12:00:00Z", "2026-03-30T00:00:00Z", vec!["2026-03-29T01:00:00Z"]),
        ("2026-10-24T12:00:00Z", "2026-10-26T00:00:00Z", vec!["2026-10-25T00:30:00Z"]),
    ] {
        let (mut now, end) = (at(from), at(to));
        let mut runs = Runs::new(now);
        let mut started = Vec::new();
        while now < end {
            started.extend(runs.tick(&rules, now));
            now += SignedDuration::from_secs(7);
        }
        let expected: Vec<_> = expected.into_iter().map(|text| start(text, Cause::OnTime)).collect();
        assert_eq!(started, expected);
    }
}

#[test]
fn jitter_is_stable_spread_out_and_within_its_bound() {
    let app = |name: &str| AppKey::new("main".parse().unwrap(), name.parse().unwrap());
    let most = Duration::from_secs(60);
    assert_eq!(offset(&app("a"), "f", Duration::ZERO), SignedDuration::ZERO);
    let mut offsets = BTreeSet::new();
    for number in 0..100 {
        let found = offset(&app(&format!("app-{number}")), "f", most);
        assert_eq!(found, offset(&app(&format!("app-{number}")), "f", most));
        assert!(found >= SignedDuration::ZERO && found < SignedDuration::from_secs(60));
        offsets.insert(found.as_secs() / 6);
    }
    assert_eq!(offsets.len(), 10, "every tenth of the minute has some");
    // A number from outside of this program, so that a rewrite that moves everybody's runs is noticed.
    assert_eq!(offset(&app("shop"), "report", most).as_millis(), 15_684);
    let shifted = Rules { offset: SignedDuration::from_secs(20), ..rules(every(60), Overlap::Skip) };
    let mut runs = Runs::new(at("2026-03-01T00:00:00Z"));
    assert_eq!(runs.wakes_at(&shifted), Some(at("2026-03-01T00:01:20Z")));
    assert_eq!(runs.tick(&shifted, at("2026-03-01T00:01:19Z")), []);
    assert_eq!(runs.tick(&shifted, at("2026-03-01T00:01:20Z")), [start("2026-03-01T00:01:00Z", Cause::OnTime)]);
}
