//! Reads a cron expression: what Debian's cron means by it, and nothing that it only lets pass.
//!
//! Debian's parser takes `5-3` (never), `5~10` (5) and 30 February (never) without a word. Each of these is a
//! mistake of the writer, so here they are errors that name the field and say what to write.

use std::str::FromStr;

use super::cron::{Cron, DayRule, Field, Set, longest};
use super::{MAX_EXPRESSION, ScheduleError};

/// Names for whole expressions.
const SHORTHANDS: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// Longest piece of a text that an error repeats.
const SHOWN: usize = 40;

impl FromStr for Cron {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        if text.len() > MAX_EXPRESSION {
            let message = format!("the expression has {} bytes, more than {MAX_EXPRESSION}", text.len());
            return Err(ScheduleError::new(message, "write ranges and steps instead of long lists"));
        }
        let text = text.trim_matches([' ', '\t']);
        let written = if text.starts_with('@') { shorthand(text)? } else { text };
        let mut sets = [Set::default(); 5];
        let fields = split(written)?;
        for ((field, text), set) in Field::ALL.into_iter().zip(fields).zip(&mut sets) {
            *set = read_field(field, text)?;
        }
        let [minutes, hours, days, months, weekdays] = sets;
        let [minute, hour, day, _, weekday] = fields.map(|text| text.starts_with('*'));
        let day_rule = if day || weekday { DayRule::Both } else { DayRule::Either };
        let wildcard = minute || hour;
        let cron = Cron {
            text: text.to_owned(),
            minutes,
            hours,
            days,
            months,
            weekdays: sunday(weekdays),
            day_rule,
            wildcard,
        };
        if cron.comes() { Ok(cron) } else { Err(never(&cron)) }
    }
}

/// 7 is Sunday as 0 is.
fn sunday(mut weekdays: Set) -> Set {
    if weekdays.contains(7) {
        weekdays.remove(7);
        weekdays.insert(0);
    }
    weekdays
}

fn shorthand(text: &str) -> Result<&'static str, ScheduleError> {
    if let Some((_, meaning)) = SHORTHANDS.iter().find(|(name, _)| *name == text) {
        return Ok(meaning);
    }
    let word = text.split([' ', '\t']).next().unwrap_or_default();
    let hint = match word {
        "@reboot" => "what starts with the agent is a worker".to_owned(),
        "@every" => "an interval is written as `every: 15m`, on the command line as --every 15m".to_owned(),
        _ => format!("write one of {}", SHORTHANDS.map(|(name, _)| name).join(", ")),
    };
    Err(ScheduleError::new(format!("`{}` is not supported", shown(text)), hint))
}

/// The five fields.
fn split(text: &str) -> Result<[&str; 5], ScheduleError> {
    let fields: Vec<_> = text.split([' ', '\t']).filter(|field| !field.is_empty()).collect();
    if let Ok(fields) = <[&str; 5]>::try_from(fields.as_slice()) {
        return Ok(fields);
    }
    let order = "the five fields are minute, hour, day of month, month, day of week, like `0 4 * * *`";
    let (message, hint) = match fields.as_slice() {
        [] => ("the expression is empty".to_owned(), order.to_owned()),
        [first, ..] if first.contains('=') => (
            format!("`{}` sets a variable before the expression", shown(first)),
            "give the zone beside the expression: `timezone`, on the command line --timezone".to_owned(),
        ),
        [_, rest @ ..] if rest.len() == 5 => (
            "six fields: seconds are not supported".to_owned(),
            format!("leave the first field away: `{}`; for steps of seconds use an interval", shown(&rest.join(" "))),
        ),
        [_, rest @ .., _] if rest.len() == 5 => (
            "seven fields: seconds and years are not supported".to_owned(),
            format!("leave the first and the last away: `{}`", shown(&rest.join(" "))),
        ),
        fields => (format!("{} fields instead of five", fields.len()), order.to_owned()),
    };
    Err(ScheduleError::new(message, hint))
}

fn read_field(field: Field, text: &str) -> Result<Set, ScheduleError> {
    let mut set = Set::default();
    for element in text.split(',') {
        if element.is_empty() {
            return Err(wrong(field, text, "has an empty place in its list", "write one comma between two numbers"));
        }
        let (from, to, step) = read_element(field, element)?;
        (from..=to).step_by(step).for_each(|number| set.insert(number));
    }
    Ok(set)
}

/// First, last and step of `*`, `5`, `1-5`, `*/2` or `1-5/2`.
fn read_element(field: Field, text: &str) -> Result<(u8, u8, usize), ScheduleError> {
    if text == "?" {
        return Err(wrong(field, text, "is not supported", "write `*` for every value"));
    }
    let (range, step) = match text.split_once('/') {
        Some((range, step)) => (range, Some(read_step(field, text, step)?)),
        None => (text, None),
    };
    let (low, high) = field.bounds();
    if range == "*" {
        return Ok((low, high, step.unwrap_or(1)));
    }
    let Some((from, to)) = range.split_once('-') else {
        let number = read_number(field, range)?;
        return match step {
            None => Ok((number, number, 1)),
            Some(step) => {
                let hint = format!("write the range as well: `{number}-{high}/{step}`");
                Err(wrong(field, text, "has a step after a single value", &hint))
            }
        };
    };
    let (from, to) = (read_number(field, from)?, read_number(field, to)?);
    if from > to {
        return Err(wrong(field, text, "runs backwards", &forwards(field, from, to)));
    }
    Ok((from, to, step.unwrap_or(1)))
}

/// What somebody means who writes a range backwards.
fn forwards(field: Field, from: u8, to: u8) -> String {
    let (low, high) = field.bounds();
    match field {
        Field::DayOfWeek if to == 0 => format!("write `{from}-7`: 7 is Sunday as well"),
        Field::DayOfWeek => format!("write both parts: `{from}-6,0-{to}`"),
        Field::Minute | Field::Hour | Field::DayOfMonth | Field::Month => {
            format!("write both parts: `{from}-{high},{low}-{to}`")
        }
    }
}

/// A step; one that is longer than its range leaves the first number alone, as in Debian.
fn read_step(field: Field, element: &str, text: &str) -> Result<usize, ScheduleError> {
    match text.parse::<u16>() {
        Ok(step) if step > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(usize::from(step)),
        Ok(_) | Err(_) => Err(wrong(field, element, "has no step after `/`", "write a number from 1, like `*/5`")),
    }
}

fn read_number(field: Field, text: &str) -> Result<u8, ScheduleError> {
    let (low, high) = field.bounds();
    let names = field.names();
    if let Some(index) = names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
        return Ok(u8::try_from(index).unwrap_or(0) + low);
    }
    let forms = match (names.first(), names.last()) {
        (Some(first), Some(last)) => format!("write {low}-{high} or {first}-{last}"),
        (_, _) => format!("write {low}-{high}"),
    };
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        let hint = extension_hint(field, text).unwrap_or(forms);
        return Err(wrong(field, text, "is not understood", &hint));
    }
    match text.parse::<u8>() {
        Ok(number) if (low..=high).contains(&number) => Ok(number),
        Ok(_) | Err(_) => Err(wrong(field, text, "is out of range", &forms)),
    }
}

/// What to do instead of the extensions that other schedulers have.
fn extension_hint(field: Field, text: &str) -> Option<String> {
    let instead = |what: &str, how: &str| Some(format!("{what} is not supported; {how}"));
    let whole = |name: &&&str| text.len() > 3 && text.to_ascii_lowercase().starts_with(**name);
    match field {
        _ if text.contains('#') => instead("`#`", "for the first Monday start daily on days 1-7 and check the weekday"),
        Field::DayOfMonth if text.eq_ignore_ascii_case("l") => {
            instead("`L`", "start on days 28-31 and check in the program whether tomorrow is the 1st")
        }
        Field::DayOfMonth if text.ends_with(['W', 'w']) => {
            instead("`W`", "start on weekdays and check the date in the program")
        }
        Field::DayOfWeek if text.len() > 1 && text.ends_with(['L', 'l']) => {
            instead("`L`", "start on that weekday and check the date in the program")
        }
        Field::Minute | Field::Hour | Field::DayOfMonth | Field::Month | Field::DayOfWeek => {
            field.names().iter().find(whole).map(|name| format!("write `{name}`"))
        }
    }
}

fn never(cron: &Cron) -> ScheduleError {
    let day = cron.days.first().unwrap_or_default();
    let most = cron.months.iter().map(longest).max().unwrap_or_default();
    let message = format!("{}: day {day} never comes in the months that are named", Field::DayOfMonth);
    ScheduleError::new(message, format!("the longest of them has {most} days; name an earlier day or another month"))
}

fn wrong(field: Field, text: &str, what: &str, hint: &str) -> ScheduleError {
    ScheduleError::new(format!("{field}: `{}` {what}", shown(text)), hint)
}

fn shown(text: &str) -> String {
    if text.chars().count() <= SHOWN {
        return text.escape_debug().to_string();
    }
    let start: String = text.chars().take(SHOWN).collect();
    format!("{}…", start.escape_debug())
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
