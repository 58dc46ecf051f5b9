//! `landfall schedule next -`: a request on each line in, an answer on each line out.
//!
//! For programs that ask for many schedules. Answers come in the order of the requests and as soon as no further
//! request is waiting, so that it can be used in dialogue. A request that cannot be answered is answered with an
//! error, and the next one is read.
//!
//! Invariant: as many lines out as in, and memory that does not grow with the number of requests.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::decide::due::Due;
use crate::domain::schedule::{Schedule, ScheduleError};
use crate::zones::Zones;

use super::exit::{Exit, Outcome};
use super::schedule::{MOST_STARTS, read_instant, warn_of_old_zones};

/// Longest line that is read, in bytes.
const LONGEST_LINE: usize = 16 * 1024;
/// Prepared schedules that are kept for requests to come.
const KEPT: usize = 4096;
/// The keys of a request.
const KEYS: [&str; 4] = ["expr", "tz", "start", "count"];

/// What a request means that leaves something out.
#[derive(Debug, Clone, Copy)]
pub struct Defaults<'a> {
    /// Name of the zone.
    pub zone: &'a str,
    /// Starts later than this; else than the moment the request is read.
    pub start: Option<Timestamp>,
    /// Number of starts.
    pub count: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Next(Vec<Timestamp>),
    Error(String),
}

/// Answers until the input ends.
pub fn run(input: impl Read, output: &mut impl Write, defaults: &Defaults<'_>) -> Outcome {
    let mut input = BufReader::with_capacity(LONGEST_LINE, input);
    let mut output = BufWriter::new(output);
    let mut answerer = Answerer { defaults, prepared: HashMap::new(), warned: false };
    let mut line = Vec::new();
    loop {
        // Whoever waits for an answer before the next request gets it before we wait for that.
        if input.buffer().is_empty() {
            output.flush()?;
        }
        let answer = match read_line(&mut input, &mut line)? {
            Line::End => break,
            Line::Whole => answerer.answer(&line).unwrap_or_else(Answer::Error),
            Line::TooLong => Answer::Error(format!("the line has more than {LONGEST_LINE} bytes")),
        };
        serde_json::to_writer(&mut output, &answer).map_err(std::io::Error::from)?;
        output.write_all(b"\n")?;
    }
    output.flush()?;
    Ok(Exit::Ok)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Whole,
    TooLong,
    End,
}

/// The next line without its end. Of one that is too long nothing is kept.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<Line> {
    line.clear();
    let limit = u64::try_from(LONGEST_LINE).unwrap_or(u64::MAX);
    if input.by_ref().take(limit + 1).read_until(b'\n', line)? == 0 {
        return Ok(Line::End);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        return Ok(Line::Whole);
    }
    if line.len() <= LONGEST_LINE {
        // The last line may end without a line feed.
        return Ok(Line::Whole);
    }
    input.skip_until(b'\n')?;
    Ok(Line::TooLong)
}

struct Answerer<'a> {
    defaults: &'a Defaults<'a>,
    prepared: HashMap<(String, String), Due>,
    warned: bool,
}

impl Answerer<'_> {
    fn answer(&mut self, line: &[u8]) -> Result<Answer, String> {
        let request: Map<String, Value> =
            serde_json::from_slice(line).map_err(|error| format!("no request: {error}; {}", form()))?;
        // With all four there is no doubt about what is asked; else a key that nobody knows is a misspelt one.
        if KEYS.iter().any(|key| !request.contains_key(*key))
            && let Some(unknown) = request.keys().find(|key| !KEYS.contains(&key.as_str()))
        {
            let cut: String = unknown.chars().take(40).collect();
            return Err(format!("unknown key `{}`; {}", cut.escape_debug(), form()));
        }
        let expression = text(&request, "expr")?.ok_or_else(|| format!("`expr` is missing; {}", form()))?;
        let zone = text(&request, "tz")?.unwrap_or(self.defaults.zone);
        let start = match text(&request, "start")? {
            Some(start) => read_instant(start).map_err(|error| format!("`start`: {error}"))?,
            None => self.defaults.start.unwrap_or_else(Timestamp::now),
        };
        let count = count(&request)?.unwrap_or(self.defaults.count);
        let due = self.prepare(expression, zone)?;
        Ok(Answer::Next(due.upcoming(start).take(usize::try_from(count).unwrap_or(usize::MAX)).collect()))
    }

    fn prepare(&mut self, expression: &str, zone: &str) -> Result<&Due, String> {
        let key = (expression.to_owned(), zone.to_owned());
        if self.prepared.len() >= KEPT && !self.prepared.contains_key(&key) {
            self.prepared.clear();
        }
        match self.prepared.entry(key) {
            std::collections::hash_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let cron = expression.parse().map_err(|error: ScheduleError| error.to_string())?;
                let zone = Zones::of_this_machine().find(zone).map_err(|error| error.to_string())?;
                if !std::mem::replace(&mut self.warned, true) {
                    warn_of_old_zones(&zone);
                }
                let due = Due::new(&Schedule::Cron { cron, zone }).map_err(|defect| defect.to_string())?;
                Ok(entry.insert(due))
            }
        }
    }
}

fn form() -> &'static str {
    r#"write {"expr":"0 4 * * *","tz":"Europe/Oslo","start":"2026-03-01T12:00:00Z","count":5}"#
}

fn text<'r>(request: &'r Map<String, Value>, key: &str) -> Result<Option<&'r str>, String> {
    match request.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("`{key}` must be a text")),
    }
}

fn count(request: &Map<String, Value>) -> Result<Option<u32>, String> {
    match request.get("count") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_u64()
            .and_then(|count| u32::try_from(count).ok())
            .filter(|count| (1..=MOST_STARTS).contains(count))
            .map(Some)
            .ok_or_else(|| format!("`count` must be a number from 1 to {MOST_STARTS}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: Defaults<'_> = Defaults { zone: "UTC", start: Some(Timestamp::UNIX_EPOCH), count: 2 };

    fn answers(input: &[u8]) -> Vec<Value> {
        let mut output = Vec::new();
        run(input, &mut output, &DEFAULTS).unwrap();
        String::from_utf8(output).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_request_is_answered_on_one_line_in_utc() {
        let asked = br#"{"expr":"0 4 * * *","tz":"Europe/Oslo","start":"2026-11-01T12:00:00+01:00","count":1}"#;
        assert_eq!(answers(asked), [serde_json::json!({"next": ["2026-11-02T03:00:00Z"]})]);
        let defaults = serde_json::json!({"next": ["1970-01-02T00:00:00Z", "1970-01-03T00:00:00Z"]});
        assert_eq!(answers(b"{\"expr\":\"@daily\"}\n"), [defaults]);
    }

    #[test]
    fn bad_lines_are_answered_and_the_next_ones_as_well() {
        let long = format!("{{\"expr\":\"{}\"}}", "x".repeat(3 * LONGEST_LINE));
        let bad: [(&[u8], &str); 15] = [
            (b"", "no request"),
            (b"nonsense", "no request"),
            (b"[1]", "no request"),
            (b"{\"expr\":\"\xff\"}", "no request"),
            (b"{}", "`expr` is missing"),
            (br#"{"expr":5}"#, "`expr` must be a text"),
            (br#"{"expr":"60 * * * *"}"#, "minute: `60`"),
            (br#"{"expr":"* * * * *","tz":"Oslo"}"#, "Europe/Oslo"),
            (br#"{"expr":"* * * * *","timezone":"Europe/Oslo"}"#, "unknown key `timezone`"),
            (br#"{"expr":"* * * * *","start":"2026-11-01"}"#, "`start`"),
            (br#"{"expr":"* * * * *","start":"2026-11-01T12:00:00"}"#, "`start`"),
            (br#"{"expr":"* * * * *","count":0}"#, "1 to 10000"),
            (br#"{"expr":"* * * * *","count":10001}"#, "1 to 10000"),
            (br#"{"expr":"* * * * *","count":"5"}"#, "`count`"),
            (long.as_bytes(), "more than 16384 bytes"),
        ];
        let mut input = Vec::new();
        for (line, _) in &bad {
            input.extend_from_slice(line);
            input.extend_from_slice(b"\n{\"expr\":\"@daily\",\"count\":1}\n");
        }
        let answers = answers(&input);
        assert_eq!(answers.len(), 2 * bad.len());
        for ((line, said), pair) in bad.iter().zip(answers.chunks(2)) {
            let error = pair[0]["error"].as_str().unwrap_or_default();
            assert!(error.contains(said), "{}: {}", String::from_utf8_lossy(line), pair[0]);
            assert_eq!(pair[1]["next"][0], "1970-01-02T00:00:00Z");
        }
    }

    #[test]
    fn a_line_may_be_as_long_as_is_allowed() {
        let mut line = br#"{"expr":"@daily","count":1}"#.to_vec();
        line.resize(LONGEST_LINE, b' ');
        let twice = [line.as_slice(), b"\n", line.as_slice()].concat();
        assert!(answers(&twice).iter().all(|answer| answer["next"].is_array()));
    }

    #[test]
    fn what_is_kept_for_later_requests_is_bounded() {
        let mut answerer = Answerer { defaults: &DEFAULTS, prepared: HashMap::new(), warned: true };
        for number in 0..KEPT + 10 {
            let expression = format!("{} {} {} * *", number % 60, number / 60 % 24, 1 + number / 1440);
            answerer.prepare(&expression, "UTC").unwrap();
            assert!(answerer.prepared.len() <= KEPT);
        }
        assert_eq!(answerer.prepared.len(), 10);
    }
}
