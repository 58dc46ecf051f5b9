//! The library against all expected starts.

use jiff::Timestamp;
use landfall::decide::due::Due;
use landfall::domain::Schedule;
use landfall::zones::Zones;

use super::{Vector, vectors};

/// The first version of the zone data that the expected starts hold for.
const FROM_VERSION: &str = "2025b";

/// What is wrong with the answer to one of them.
fn difference(vector: &Vector, zones: &Zones) -> Option<String> {
    let Vector { expr, tz, start, next } = vector;
    let zone = zones.find(tz).unwrap();
    let cron = expr.parse().unwrap_or_else(|error| panic!("{expr}: {error}"));
    let due = Due::new(&Schedule::Cron { cron, zone }).unwrap();
    let start: Timestamp = start.parse().unwrap();
    let found: Vec<_> = due.upcoming(start).take(next.len()).map(|at| at.to_string()).collect();
    (found != *next).then(|| format!("`{expr}` in {tz} after {start}: {found:?} instead of {next:?}"))
}

fn assert_all(zones: &Zones) {
    let all = vectors();
    let wrong: Vec<_> = all.iter().filter_map(|vector| difference(vector, zones)).collect();
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), all.len(), wrong.join("\n"));
}

#[test]
fn all_expected_starts_are_met_with_the_zones_inside_the_program() {
    assert_all(&Zones::bundled_only());
}

#[test]
fn all_expected_starts_are_met_with_the_zones_of_the_machine() {
    let data = Zones::of_this_machine().data();
    match data.system.as_deref() {
        Some(version) if version >= FROM_VERSION => assert_all(Zones::of_this_machine()),
        version => {
            println!("skipped: the machine's zone files are of {version:?}, older than {FROM_VERSION} or missing")
        }
    }
}
