//! Durations, sizes and processor shares as people write them, in both directions.

use crate::domain::Brake;
use crate::domain::manifest::{Bytes, Millis};

/// How a duration is written, for errors and documentation.
pub const DURATION_FORMS: &str = "a duration like 500ms, 30s, 5m, 2h, 7d or 1h30m";
/// How a size is written, for errors and documentation.
pub const SIZE_FORMS: &str = "a size like 512KiB, 64MiB, 1GiB or 10MB";
/// How processor time is written, for errors and documentation.
pub const CORES_FORMS: &str = "a number of cores like 0.5 or 2";

/// How a brake is written, for errors and documentation.
pub const BRAKE_FORMS: &str = "a number of apps like 5, or a part of them like 30%";

/// The units of durations in milliseconds, largest first.
const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 24 * 60 * 60 * 1000), ("h", 60 * 60 * 1000), ("m", 60 * 1000), ("s", 1000), ("ms", 1)];

/// The units of sizes in bytes.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Reads `500ms`, `30s`, `5m`, `2h`, `7d` and sums of them, the larger unit first (`1h30m`).
/// The error says what is missing.
pub fn parse_duration(text: &str) -> Result<Millis, String> {
    let mut rest = text;
    let mut total: u64 = 0;
    let mut last_unit = u64::MAX;
    while !rest.is_empty() {
        let (digits, unit, after) = number_and_unit(rest);
        if digits.is_empty() {
            return Err(format!("`{text}` is not {DURATION_FORMS}"));
        }
        if unit.is_empty() {
            return Err(format!("`{text}` has no unit; write {digits}s or {digits}m"));
        }
        let Some(&(_, worth)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("`{unit}` is not a unit of time; write {DURATION_FORMS}"));
        };
        if worth >= last_unit {
            return Err(format!("`{text}` must name each unit once, the larger first, like 1h30m"));
        }
        last_unit = worth;
        total = digits
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(worth))
            .and_then(|part| total.checked_add(part))
            .ok_or_else(|| format!("`{text}` is longer than anything can last"))?;
        rest = after;
    }
    if text.is_empty() { Err(format!("empty, write {DURATION_FORMS}")) } else { Ok(Millis(total)) }
}

/// Reads `64MiB`, `1GiB`, `10MB`. The error says what is missing.
pub fn parse_size(text: &str) -> Result<Bytes, String> {
    let (digits, unit, after) = number_and_unit(text);
    if digits.is_empty() || !after.is_empty() {
        return Err(format!("`{text}` is not {SIZE_FORMS}"));
    }
    if unit.is_empty() {
        return Err(format!("`{text}` has no unit; write {digits}MiB, or {digits}B for bytes"));
    }
    let Some(&(_, worth)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(match SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
            Some((name, _)) => format!("`{unit}` is written {name}"),
            None => format!("`{unit}` is not a unit of size; write {SIZE_FORMS}"),
        });
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(worth))
        .map(Bytes)
        .ok_or_else(|| format!("`{text}` is larger than any machine"))
}

/// Reads `0.5` or `2` cores as thousandths of a core.
pub fn parse_cores(text: &str) -> Result<u32, String> {
    let wrong = || format!("`{text}` is not {CORES_FORMS}, with at most three decimals");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 3 {
        return Err(wrong());
    }
    let thousandths: u32 = format!("{fraction:0<3}").parse().map_err(|_| wrong())?;
    let cores: u32 = whole.parse().map_err(|_| wrong())?;
    cores.checked_mul(1000).and_then(|millis| millis.checked_add(thousandths)).ok_or_else(wrong)
}

/// Reads `30%` or `5`: how many apps may vanish at once.
pub fn parse_brake(text: &str) -> Result<Brake, String> {
    let wrong = || format!("`{text}` is not {BRAKE_FORMS}");
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    match text.strip_suffix('%') {
        Some(part) if digits(part) => match part.parse() {
            Ok(percent) if percent <= 100 => Ok(Brake::Percent(percent)),
            Ok(_) | Err(_) => Err(format!("`{text}` is more than all of them; write at most 100%")),
        },
        None if digits(text) => text.parse().map(Brake::Apps).map_err(|_| wrong()),
        Some(_) | None => Err(wrong()),
    }
}

/// Splits leading digits and the letters after them off a text.
fn number_and_unit(text: &str) -> (&str, &str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (unit, after) = rest.split_at(letters);
    (number, unit, after)
}

/// A duration in its shortest exact form.
pub fn format_duration(duration: Millis) -> String {
    duration.to_string()
}

/// A size in the largest binary unit that is exact.
pub fn format_size(size: Bytes) -> String {
    size.to_string()
}

/// Thousandths of a core as a number of cores.
pub fn format_cores(millis: u32) -> String {
    if millis.is_multiple_of(1000) {
        return (millis / 1000).to_string();
    }
    format!("{}.{:03}", millis / 1000, millis % 1000).trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("7d", 604_800_000),
            ("1h30m", 5_400_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Millis(millis)), "{text}");
        }
    }

    #[test]
    fn a_wrong_duration_is_told_what_to_write() {
        assert_eq!(parse_duration("30"), Err("`30` has no unit; write 30s or 30m".into()));
        for bad in
            ["", "s", "30 s", "-5s", "1.5h", "5min", "30m1h", "1s1s", "999999999999999999999d", "99999999999999d"]
        {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_read_in_binary_and_decimal_units() {
        assert_eq!(parse_size("64MiB"), Ok(Bytes::mib(64)));
        assert_eq!(parse_size("1GiB"), Ok(Bytes(1 << 30)));
        assert_eq!(parse_size("10MB"), Ok(Bytes(10_000_000)));
        assert_eq!(parse_size("64mib"), Err("`mib` is written MiB".into()));
        assert_eq!(parse_size("64"), Err("`64` has no unit; write 64MiB, or 64B for bytes".into()));
        for bad in ["", "MiB", "64 MiB", "-1MiB", "1.5GiB", "64MiBs", "64M", "99999999999TiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cores_read_to_thousandths() {
        assert_eq!(parse_cores("0.5"), Ok(500));
        assert_eq!(parse_cores("2"), Ok(2000));
        assert_eq!(parse_cores("1.125"), Ok(1125));
        for bad in ["", ".5", "1.", "-1", "1.0001", "half", "1e3", "9999999"] {
            assert!(parse_cores(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_brake_is_a_number_of_apps_or_a_part_of_them() {
        assert_eq!(parse_brake("30%"), Ok(Brake::Percent(30)));
        assert_eq!(parse_brake("0"), Ok(Brake::Apps(0)));
        assert_eq!(parse_brake("101%"), Err("`101%` is more than all of them; write at most 100%".into()));
        for bad in ["", "%", "-1", "30 %", "1.5%", "many", "300%", "99999999999"] {
            assert!(parse_brake(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back_as_the_same(number in 0_u64..u64::from(u32::MAX)) {
            prop_assert_eq!(parse_duration(&format_duration(Millis(number))), Ok(Millis(number)));
            prop_assert_eq!(parse_size(&format_size(Bytes(number))), Ok(Bytes(number)));
            let cores = (number % 1_000_000) as u32;
            prop_assert_eq!(parse_cores(&format_cores(cores)), Ok(cores));
        }

        #[test]
        fn no_text_makes_a_value_reader_panic(text in "\\PC{0,12}") {
            let _ = (parse_duration(&text), parse_size(&text), parse_cores(&text));
        }
    }
}
