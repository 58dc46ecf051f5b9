//! What the language means and what it refuses.

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Cron {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(text: &str) -> String {
    match text.parse::<Cron>() {
        Ok(cron) => panic!("{text} was read as {cron:?}"),
        Err(error) => error.to_string(),
    }
}

fn numbers(set: Set) -> Vec<u8> {
    set.iter().collect()
}

#[test]
fn lists_ranges_steps_and_names_are_sets() {
    let cron = read("0,30 8-18/5  */10\tjan-Mar,DEC mon-fri/2,7");
    assert_eq!(numbers(cron.minutes()), [0, 30]);
    assert_eq!(numbers(cron.hours()), [8, 13, 18]);
    assert_eq!(numbers(cron.days()), [1, 11, 21, 31]);
    assert_eq!(numbers(cron.months()), [1, 2, 3, 12]);
    assert_eq!(numbers(cron.weekdays()), [0, 1, 3, 5]);
    assert_eq!(cron.to_string(), "0,30 8-18/5  */10\tjan-Mar,DEC mon-fri/2,7");
}

#[test]
fn zero_and_seven_are_sunday() {
    for (text, days) in [
        ("0", &[0][..]),
        ("7", &[0]),
        ("SUN", &[0]),
        ("5-7", &[0, 5, 6]),
        ("0-7", &[0, 1, 2, 3, 4, 5, 6]),
        ("*", &[0, 1, 2, 3, 4, 5, 6]),
        ("*/7", &[0]),
        ("1-7/3", &[0, 1, 4]),
    ] {
        assert_eq!(numbers(read(&format!("0 0 * * {text}")).weekdays()), days, "{text}");
    }
}

#[test]
fn a_step_longer_than_its_range_leaves_the_first_number() {
    assert_eq!(numbers(read("*/90 * * * *").minutes()), [0]);
    assert_eq!(numbers(read("2-3/45 * * * *").minutes()), [2]);
}

#[test]
fn only_a_star_at_the_start_of_a_field_counts() {
    for (text, rule, wildcard) in [
        ("0 4 1 * 1", DayRule::Either, false),
        ("0 4 * * 1", DayRule::Both, false),
        ("0 4 1 * *", DayRule::Both, false),
        ("0 4 */2 * 1", DayRule::Both, false),
        ("0 4 1,* * 1", DayRule::Either, false),
        ("0 4 *,1 * 1", DayRule::Both, false),
        ("* 4 1 * 1", DayRule::Either, true),
        ("0 */2 1 * 1", DayRule::Either, true),
        ("0-59 0-23 1 * 1", DayRule::Either, false),
    ] {
        let cron = read(text);
        assert_eq!((cron.day_rule(), cron.is_wildcard()), (rule, wildcard), "{text}");
    }
}

#[test]
fn shorthands_are_whole_expressions() {
    for (name, meaning) in SHORTHANDS {
        let (short, long) = (read(name), read(meaning));
        assert_eq!(Cron { text: long.text.clone(), ..short.clone() }, long, "{name}");
        assert_eq!(short.to_string(), name);
    }
}

#[test]
fn every_refusal_names_the_field_and_what_to_write() {
    for (text, parts) in [
        ("", &["empty", "0 4 * * *"][..]),
        (" \t ", &["empty"]),
        ("* * * *", &["4 fields", "minute, hour"]),
        ("0 0 4 * * *", &["seconds", "`0 4 * * *`"]),
        ("0 0 4 * * * 2030", &["years", "`0 4 * * *`"]),
        ("1 2 3 4 5 6 7 8", &["8 fields"]),
        ("CRON_TZ=Europe/Oslo 0 4 * * *", &["variable", "timezone"]),
        ("@reboot", &["@reboot", "worker"]),
        ("@every 15m", &["@every", "--every 15m"]),
        ("@Daily", &["@daily", "not supported"]),
        ("60 * * * *", &["minute: `60` is out of range", "0-59"]),
        ("999 * * * *", &["minute: `999` is out of range"]),
        ("* 24 * * *", &["hour: `24`", "0-23"]),
        ("* * 0 * *", &["day of month: `0`", "1-31"]),
        ("* * 32 * *", &["day of month: `32`"]),
        ("* * * 0 *", &["month: `0`", "1-12 or jan-dec"]),
        ("* * * 13 *", &["month: `13`"]),
        ("* * * * 8", &["day of week: `8`", "0-7 or sun-sat"]),
        ("5-3 * * * *", &["minute: `5-3` runs backwards", "`5-59,0-3`"]),
        ("* 22-6 * * *", &["hour: `22-6` runs backwards", "`22-23,0-6`"]),
        ("* * * nov-feb *", &["month: `nov-feb`", "`11-12,1-2`"]),
        ("* * * * fri-sun", &["day of week: `fri-sun`", "`5-7`"]),
        ("* * * * sat-mon", &["day of week: `sat-mon`", "`6-6,0-1`"]),
        ("5/2 * * * *", &["minute: `5/2`", "`5-59/2`"]),
        ("*/0 * * * *", &["minute: `*/0`", "*/5"]),
        ("*/ * * * *", &["minute: `*/`"]),
        ("*/+2 * * * *", &["minute: `*/+2`"]),
        ("*/-1 * * * *", &["minute: `*/-1`"]),
        ("*/1/2 * * * *", &["minute: `*/1/2`"]),
        ("1,,2 * * * *", &["minute: `1,,2`", "comma"]),
        (",1 * * * *", &["minute: `,1`"]),
        ("1, * * * *", &["minute: `1,`"]),
        ("5~10 * * * *", &["minute: `5~10` is not understood"]),
        ("** * * * *", &["minute: `**`"]),
        ("*-5 * * * *", &["minute: `*`"]),
        ("1-2-3 * * * *", &["minute: `2-3`"]),
        ("+5 * * * *", &["minute: `+5`"]),
        ("-5 * * * *", &["minute: ``"]),
        ("5.5 * * * *", &["minute: `5.5`"]),
        ("* * ? * *", &["day of month: `?`", "`*`"]),
        ("* * L * *", &["day of month: `L`", "28-31"]),
        ("* * 15W * *", &["day of month: `15W`", "weekdays"]),
        ("* * * * 5L", &["day of week: `5L`", "check the date"]),
        ("* * * * 1#1", &["day of week: `1#1`", "days 1-7"]),
        ("* * * * monday", &["day of week: `monday`", "write `mon`"]),
        ("* * * january *", &["month: `january`", "write `jan`"]),
        ("* * mon * *", &["day of month: `mon`", "1-31"]),
        ("٣ * * * *", &["minute: `٣` is not understood"]),
        ("0 4 * * *\n", &["day of week: `*\\n`"]),
        ("0 0 30 2 *", &["day of month: day 30 never comes", "29 days"]),
        ("0 0 31 2,4,6,9,11 *", &["day 31 never comes", "30 days"]),
        ("0 0 30,31 feb */2", &["day 30 never comes"]),
    ] {
        let error = refused(text);
        for part in parts {
            assert!(error.contains(part), "{text:?}: `{part}` is missing in: {error}");
        }
    }
}

#[test]
fn what_comes_seldom_is_no_mistake() {
    for text in ["0 0 29 2 *", "0 0 29 2 */7", "0 0 31 2,3 *", "0 0 30 2 1", "0 0 */30 2 *"] {
        read(text);
    }
}

#[test]
fn a_long_expression_is_refused_and_not_repeated_in_the_error() {
    let long = format!("{} * * * *", "1,".repeat(600));
    let error = refused(&long);
    assert!(error.contains("more than 1000") && error.len() < 200, "{error}");
    let word = refused(&format!("{} * * * *", "x".repeat(900)));
    assert!(word.contains('…') && word.len() < 200, "{word}");
    let list = |low: u8, high: u8| (low..=high).map(|number| number.to_string()).collect::<Vec<_>>().join(",");
    read(&[list(0, 59), list(0, 23), list(1, 31), list(1, 12), list(0, 7)].join(" "));
}

proptest! {
    #[test]
    fn no_text_is_too_strange(text in "[-*/,0-9a-zL#?@ \t\u{e4}]{0,40}") {
        if let Ok(cron) = text.parse::<Cron>() {
            for (set, field) in [cron.minutes(), cron.hours(), cron.days(), cron.months(), cron.weekdays()]
                .into_iter()
                .zip(Field::ALL)
            {
                let (low, high) = field.bounds();
                prop_assert!(set.first().is_some());
                prop_assert!(set.iter().all(|number| (low..=high).contains(&number)));
            }
            prop_assert!(!cron.weekdays().contains(7));
        }
    }
}
