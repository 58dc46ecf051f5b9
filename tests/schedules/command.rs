//! `landfall schedule next`: the real program.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use super::{Vector, vectors};

/// The program without an agent and without zone files of the machine, so that the answers are the same everywhere.
fn landfall(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
    command.args(["schedule", "next"]).args(arguments).stdin(Stdio::null());
    command.env("LANDFALL_AGENT", "/nowhere/agent.sock");
    command
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = landfall(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn request(vector: &Vector) -> String {
    json!({"expr": vector.expr, "tz": vector.tz, "start": vector.start, "count": vector.next.len()}).to_string()
}

#[test]
fn a_person_sees_the_weekday_and_both_clocks() {
    let (code, stdout, _) =
        run(&["30 2 * * *", "--timezone", "Europe/Oslo", "--from", "2026-03-28T12:00:00Z", "--count", "2"]);
    assert_eq!(code, 0);
    let lines: Vec<Vec<&str>> = stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["DAY", "Europe/Oslo", "UTC"]);
    assert_eq!(lines[1], ["Sun", "2026-03-29", "03:00:00", "+02:00", "2026-03-29", "01:00:00Z"]);
    assert_eq!(lines[2], ["Mon", "2026-03-30", "02:30:00", "+02:00", "2026-03-30", "00:30:00Z"]);
}

#[test]
fn a_program_gets_json_and_nothing_of_it_depends_on_the_machine() {
    let (code, stdout, _) = run(&["@monthly", "--from", "2026-11-05T00:00:00+01:00", "--count", "2", "--json"]);
    assert_eq!(code, 0);
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    let next = json!(["2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"]);
    assert_eq!(
        answer,
        json!({"schedule": "@monthly", "timezone": "UTC", "from": "2026-11-04T23:00:00Z", "next": next})
    );
}

#[test]
fn an_interval_counts_from_the_epoch() {
    let (code, stdout, _) = run(&["--every", "15m", "--from", "2026-11-05T00:07:00Z", "--count", "1", "--json"]);
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &answer["next"]), (0, &json!(["2026-11-05T00:15:00Z"])));
}

#[test]
fn without_a_moment_the_next_starts_are_ahead_of_now() {
    let before = jiff::Timestamp::now();
    let (_, stdout, _) = run(&["* * * * *", "--json", "--count", "1"]);
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    let next: jiff::Timestamp = answer["next"][0].as_str().unwrap().parse().unwrap();
    assert!(next > before, "{next} is not after {before}");
}

#[test]
fn what_is_wrong_ends_with_2_and_says_what_to_write() {
    for (arguments, parts) in [
        (&["60 * * * *"][..], &["minute: `60` is out of range", "hint: write 0-59"][..]),
        (&["0 0 4 * * *"], &["seconds", "`0 4 * * *`"]),
        (&["0 0 30 2 *"], &["never comes"]),
        (&["@reboot"], &["worker"]),
        (&["0 4 * * *", "--timezone", "Europe/Olso"], &["--timezone", "did you mean Europe/Oslo"]),
        (&["0 4 * * *", "--from", "yesterday"], &["yesterday", "2026-03-01T12:00:00Z"]),
        (&["0 4 * * *", "--count", "0"], &["1..=10000"]),
        (&["--every", "500ms"], &["at least 1s"]),
        (&["--every", "often"], &["15m"]),
        (&["0 4 * * *", "--every", "15m"], &["cannot be used"]),
        (&[], &["EXPR"]),
    ] {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
        for part in parts {
            assert!(stderr.contains(part), "{arguments:?}: `{part}` is missing in: {stderr}");
        }
    }
}

#[test]
fn old_zone_files_of_the_machine_are_a_warning_and_missing_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let oslo = Path::new("/usr/share/zoneinfo/Europe/Oslo");
    if !oslo.exists() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI must have tzdata");
        println!("skipped: this machine has no zone files (Debian: tzdata)");
        return;
    }
    std::fs::create_dir(dir.path().join("Europe")).unwrap();
    std::fs::copy(oslo, dir.path().join("Europe/Oslo")).unwrap();
    std::fs::write(dir.path().join("tzdata.zi"), "# version 2019c\n").unwrap();
    let ask = |directory: &Path, zone: &str| {
        let output = landfall(&["0 4 * * *", "--timezone", zone]).env("TZDIR", directory).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let warning = ask(dir.path(), "Europe/Oslo");
    assert!(warning.starts_with("warning: ") && warning.contains("2019c") && warning.contains("tzdata"), "{warning}");
    assert_eq!(ask(dir.path(), "UTC"), "");
    // A zone that the machine lacks is found in the program.
    assert!(ask(dir.path(), "Asia/Tokyo").contains("2019c"));
}

#[test]
fn a_batch_meets_all_expected_starts() {
    let vectors = vectors();
    let input: String = vectors.iter().map(|vector| request(vector) + "\n").collect();
    let answers = batch(&input);
    assert_eq!(answers.len(), vectors.len());
    for (vector, answer) in vectors.iter().zip(answers) {
        assert_eq!(answer, json!({"next": vector.next}), "{vector:?}");
    }
}

/// Number of requests in one batch; more for a longer run.
const REQUESTS: &str = "LANDFALL_TEST_CRON_REQUESTS";
const USUAL_REQUESTS: usize = 10_000;

#[test]
fn a_batch_of_many_requests_is_answered_in_one_go() {
    let vectors = vectors();
    let number = std::env::var(REQUESTS).map_or(USUAL_REQUESTS, |text| text.parse().expect("a number"));
    let input: String = vectors.iter().cycle().take(number).map(|vector| request(vector) + "\n").collect();
    let begun = Instant::now();
    let answers = batch(&input);
    println!("{number} requests for 5 starts each: {:?}", begun.elapsed());
    assert_eq!(answers.len(), number);
}

/// Writes all requests while the answers are read, as a pipe does.
fn batch(input: &str) -> Vec<Value> {
    let mut child = landfall(&["-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let answers = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input.as_bytes()).unwrap());
        BufReader::new(stdout).lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
    });
    assert!(child.wait().unwrap().success());
    answers
}

#[test]
fn a_dialogue_gets_each_answer_before_the_next_request() {
    let mut child = landfall(&["-", "--timezone", "Europe/Oslo", "--count", "1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let mut ask = |request: &str| -> Value {
        writeln!(stdin, "{request}").unwrap();
        let mut answer = String::new();
        stdout.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    };
    let first = ask(r#"{"expr": "0 4 * * *", "start": "2026-11-05T00:00:00Z"}"#);
    assert_eq!(first, json!({"next": ["2026-11-05T03:00:00Z"]}));
    assert!(ask("nonsense")["error"].as_str().unwrap().contains("no request"));
    assert_eq!(
        ask(&json!({"expr": "0 4 * * *", "start": first["next"][0]}).to_string())["next"][0],
        "2026-11-06T03:00:00Z"
    );
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
