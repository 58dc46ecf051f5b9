//! The evaluator against the bitmask evaluator, and the cases that people ask about.

use std::fmt::Write;

use jiff::tz::TimeZone;

use super::bitmask::Bits;
use super::*;

/// Number of generated cases; more for a longer run.
const CASES: &str = "LANDFALL_TEST_CRON_CASES";
const USUAL_CASES: u64 = 20_000;
/// Starts asked for in each case.
const STARTS: usize = 3;

/// Both evaluators look further than this from every generated moment.
const HORIZON: &str = "2090-01-01T00:00:00Z";

/// Zones with every kind of change: an hour, half an hour, two hours, at midnight, four in a year, negative daylight
/// saving, quarters of an hour, a skipped day, and none at all.
const ZONES: [&str; 24] = [
    "UTC",
    "Europe/Oslo",
    "Europe/London",
    "Europe/Dublin",
    "America/New_York",
    "America/Los_Angeles",
    "America/St_Johns",
    "America/Santiago",
    "America/Sao_Paulo",
    "America/Nuuk",
    "America/Havana",
    "America/Asuncion",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Asia/Jerusalem",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Asia/Gaza",
    "Australia/Lord_Howe",
    "Australia/Adelaide",
    "Pacific/Chatham",
    "Pacific/Apia",
    "Antarctica/Troll",
    "Antarctica/Casey",
];

fn zone(name: &str) -> TimeZone {
    crate::zones::Zones::bundled_only().find(name).unwrap()
}

fn cron(expression: &str, zone_name: &str) -> Due {
    Due::new(&Schedule::Cron { cron: expression.parse().unwrap(), zone: zone(zone_name) }).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[track_caller]
fn assert_starts(expression: &str, zone: &str, after: &str, expected: &[&str]) {
    let found: Vec<_> =
        cron(expression, zone).upcoming(at(after)).take(expected.len()).map(|at| at.to_string()).collect();
    assert_eq!(found, expected, "{expression} in {zone} after {after}");
}

#[test]
fn fixed_times_in_a_gap_start_once_at_its_end() {
    let spring = "2026-03-28T12:00:00Z";
    assert_starts("30 2 * * *", "Europe/Oslo", spring, &["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
    assert_starts("0,15,45 2 * * *", "Europe/Oslo", spring, &["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"]);
    // 03:00 is the end of the gap: its own start and the one that is made up for are the same.
    assert_starts("30 2,3 * * *", "Europe/Oslo", spring, &["2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"]);
    assert_starts("0 2,3 * * *", "Europe/Oslo", spring, &["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"]);
}

#[test]
fn wildcard_times_skip_a_gap() {
    let before = "2026-03-29T00:45:00Z";
    assert_starts("*/30 * * * *", "Europe/Oslo", before, &["2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"]);
    assert_starts("* 2 * * *", "Europe/Oslo", before, &["2026-03-30T00:00:00Z", "2026-03-30T00:01:00Z"]);
}

#[test]
fn fixed_times_in_an_overlap_start_the_first_time_only() {
    let before = "2026-10-24T12:00:00Z";
    assert_starts("30 2 * * *", "Europe/Oslo", before, &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    // Asked in the second pass, its first pass is over.
    assert_starts("45 2 * * *", "Europe/Oslo", "2026-10-25T01:30:00Z", &["2026-10-26T01:45:00Z"]);
}

#[test]
fn wildcard_times_start_in_both_passes_of_an_overlap() {
    assert_starts(
        "*/30 * * * *",
        "Europe/Oslo",
        "2026-10-24T23:45:00Z",
        &[
            "2026-10-25T00:00:00Z",
            "2026-10-25T00:30:00Z",
            "2026-10-25T01:00:00Z",
            "2026-10-25T01:30:00Z",
            "2026-10-25T02:00:00Z",
        ],
    );
    assert_starts("20 * * * *", "Europe/Oslo", "2026-10-25T00:30:00Z", &["2026-10-25T01:20:00Z"]);
    assert_starts("*/1 2 * * *", "Europe/Oslo", "2026-10-25T01:59:00Z", &["2026-10-26T01:00:00Z"]);
}

#[test]
fn a_day_that_a_place_never_had_is_not_made_up_for() {
    // Samoa skipped 2011-12-30.
    assert_starts(
        "0 12 * * *",
        "Pacific/Apia",
        "2011-12-29T12:00:00Z",
        &["2011-12-29T22:00:00Z", "2011-12-30T22:00:00Z"],
    );
    assert_starts("0 12 30 12 *", "Pacific/Apia", "2011-12-01T00:00:00Z", &["2012-12-29T22:00:00Z"]);
}

#[test]
fn a_change_that_is_only_in_the_rule_for_later_years_is_none() {
    // Greenland's summer time begins with 2024; the rule for the years from there on would have put the clock back
    // on 29 October 2023 as well.
    let before = "2023-10-29T01:00:04Z";
    assert_starts("27,44 * * * *", "America/Nuuk", before, &["2023-10-29T01:27:00Z", "2023-10-29T01:44:00Z"]);
    assert_starts("27 0-23 * * *", "America/Nuuk", before, &["2023-10-29T01:27:00Z", "2023-10-29T02:27:00Z"]);
}

#[test]
fn one_day_field_is_enough_when_neither_starts_with_a_star() {
    let october = "2026-10-07T00:00:00Z";
    // The 13th is a Tuesday.
    assert_starts(
        "0 4 13 * 5",
        "UTC",
        october,
        &["2026-10-09T04:00:00Z", "2026-10-13T04:00:00Z", "2026-10-16T04:00:00Z"],
    );
    let from = "2026-11-01T00:00:00Z";
    assert_starts("0 4 */13 * 5", "UTC", from, &["2026-11-27T04:00:00Z", "2027-01-01T04:00:00Z"]);
    assert_starts("0 4 30 2 1", "UTC", from, &["2027-02-01T04:00:00Z"]);
}

#[test]
fn a_leap_day_on_a_sunday_is_found() {
    assert_starts("0 0 29 2 */7", "UTC", "2026-01-01T00:00:00Z", &["2032-02-29T00:00:00Z", "2060-02-29T00:00:00Z"]);
}

#[test]
fn the_end_of_what_is_known_is_the_end_of_the_schedule() {
    assert_starts("0 0 1 1 *", "UTC", "2099-06-01T00:00:00Z", &["2100-01-01T00:00:00Z"]);
    assert_eq!(cron("0 0 1 1 *", "UTC").next(at("2100-01-01T00:00:00Z")), None);
    assert_eq!(cron("* * * * *", "UTC").next(Timestamp::MAX), None);
    assert_eq!(cron("* * * * *", "UTC").next(Timestamp::MIN), Some(Timestamp::UNIX_EPOCH));
}

#[test]
fn a_fraction_of_a_second_is_later_than_its_second() {
    let due = cron("0 4 * * *", "UTC");
    let four = at("2026-11-01T04:00:00Z");
    assert_eq!(due.next(at("2026-11-01T03:59:59.999Z")), Some(four));
    assert_eq!(due.next(at("2026-11-01T04:00:00.001Z")), Some(at("2026-11-02T04:00:00Z")));
    assert_eq!(due.next(four), Some(at("2026-11-02T04:00:00Z")));
    assert_eq!(whole_second(at("1969-12-31T23:59:59.5Z")), -1);
}

#[test]
fn intervals_count_from_the_epoch() {
    let every =
        |seconds| Due::new(&Schedule::Every(Every::new(std::time::Duration::from_secs(seconds)).unwrap())).unwrap();
    assert_eq!(every(900).next(at("2026-11-01T04:07:12Z")), Some(at("2026-11-01T04:15:00Z")));
    assert_eq!(every(900).next(at("2026-11-01T04:15:00Z")), Some(at("2026-11-01T04:30:00Z")));
    assert_eq!(every(7).next(at("1970-01-01T00:00:07Z")), Some(at("1970-01-01T00:00:14Z")));
    assert_eq!(every(7).next(at("1969-12-31T23:59:59Z")), Some(Timestamp::UNIX_EPOCH));
    assert_eq!(every(3600).next(Timestamp::MAX), None);
}

/// A small generator of numbers that is the same everywhere, so that a failing case can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }

    /// A field as text and as the bits that it stands for.
    fn field(&mut self, low: u64, high: u64, names: &[&str]) -> (String, u64) {
        let (mut text, mut bits) = (String::new(), 0);
        for place in 0..=self.below(3) {
            if place > 0 {
                text.push(',');
            }
            let (a, b) = (low + self.below(high - low + 1), low + self.below(high - low + 1));
            let (from, to) = (a.min(b), a.max(b));
            let step = 1 + self.below(high + 2);
            let word = |number: u64| match names.get(usize::try_from(number - low).unwrap()) {
                Some(name) => (*name).to_owned(),
                None => number.to_string(),
            };
            let (from, to, step) = match self.below(6) {
                0 => {
                    text.push('*');
                    (low, high, 1)
                }
                1 => {
                    write!(text, "*/{step}").unwrap();
                    (low, high, step)
                }
                2 => {
                    write!(text, "{}-{}/{step}", word(from), word(to)).unwrap();
                    (from, to, step)
                }
                3 => {
                    write!(text, "{}-{}", word(from), word(to)).unwrap();
                    (from, to, 1)
                }
                _ => {
                    text.push_str(&word(from));
                    (from, from, 1)
                }
            };
            let mut number = from;
            while number <= to {
                bits |= 1 << number;
                number += step;
            }
        }
        (text, bits)
    }

    /// An expression as text and as bits.
    fn expression(&mut self) -> (String, Bits) {
        let (minute, minutes) = self.field(0, 59, &[]);
        let (hour, hours) = self.field(0, 23, &[]);
        let stars = self.below(4);
        let day_field = |random: &mut Self, plain: bool, low, high, names: &[&str]| {
            if plain { ("*".to_owned(), u64::MAX) } else { random.field(low, high, names) }
        };
        let (day, days) = day_field(self, stars & 1 == 1, 1, 31, &[]);
        let month_plain = self.below(2) == 0;
        let (month, months) = day_field(self, month_plain, 1, 12, &["jan", "Feb", "MAR"]);
        let (weekday, weekdays) = day_field(self, stars & 2 == 2, 0, 7, &["SUN", "mon"]);
        let bits = Bits {
            minutes,
            hours: hours as u32,
            days: days as u32,
            months: months as u16,
            weekdays: (weekdays | weekdays >> 7) as u8 & 0x7f,
            either: !day.starts_with('*') && !weekday.starts_with('*'),
            wildcard: minute.starts_with('*') || hour.starts_with('*'),
        };
        (format!("{minute} {hour} {day} {month} {weekday}"), bits)
    }
}

/// Most moments lie within two days of a change of the clock, where mistakes are made.
fn moment(random: &mut Random, zone: &TimeZone) -> i64 {
    let day = 86_400;
    // 2005 to 2050.
    let anywhere = 35 * 365 * day + i64::try_from(random.below(45 * 365 * 86_400)).unwrap();
    let near = i64::try_from(random.below(3 * 86_400)).unwrap() - 2 * day;
    match zone.following(Timestamp::from_second(anywhere).unwrap()).next() {
        Some(change) if random.below(4) > 0 => change.timestamp().as_second() + near,
        Some(_) | None => anywhere,
    }
}

#[test]
fn generated_schedules_start_when_a_bitmask_says_so_and_never_go_back() {
    let cases = std::env::var(CASES).map_or(USUAL_CASES, |text| text.parse().expect("a number"));
    let zones: Vec<_> = ZONES.iter().map(|name| (*name, zone(name))).collect();
    let (mut evaluated, mut starts, mut refused) = (0_u64, 0_u64, 0_u64);
    let horizon = at(HORIZON);
    let mut case = 0;
    while evaluated < cases {
        case += 1;
        let mut random = Random(case);
        let (text, bits) = random.expression();
        let (name, zone) = random.one_of(&zones);
        let mut last = moment(&mut random, zone);
        let Ok(cron) = text.parse() else {
            // The one thing that can be wrong with a generated expression.
            assert_eq!(bits.next(&TimeZone::UTC, 0), None, "{text} was refused");
            refused += 1;
            continue;
        };
        let due = Due::new(&Schedule::Cron { cron, zone: zone.clone() }).unwrap();
        for _ in 0..STARTS {
            let asked = Timestamp::from_second(last).unwrap();
            let next = due.next(asked).filter(|next| *next < horizon);
            let expected = bits.next(zone, last).map(|at| Timestamp::from_second(at).unwrap());
            assert_eq!(next, expected.filter(|next| *next < horizon), "case {case}: `{text}` in {name} after {asked}");
            let Some(next) = next else { break };
            assert!(next > asked, "case {case}: `{text}` in {name} goes back from {asked} to {next}");
            last = next.as_second();
            starts += 1;
        }
        evaluated += 1;
    }
    println!("{evaluated} schedules, {starts} starts alike, {refused} expressions that never come");
}
