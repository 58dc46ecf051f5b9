//! Logs on a disk, merged, filtered and followed.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::logs::*;
use crate::domain::{AppKey, CallId, VersionNumber};

fn key() -> AppKey {
    AppKey::new("main".parse().expect("a name"), "shop".parse().expect("a name"))
}

fn write(root: &Path, version: u32, object: &str, instance: &str, lines: &[(u32, &str, &str)]) {
    let version = VersionNumber::new(version).expect("a version");
    let id = crate::domain::InstanceId::from_recorded(instance);
    let path = root.join(super::log_path(&key(), version, object, &id));
    fs::create_dir_all(path.parent().expect("has one")).expect("made");
    let mut file = fs::File::options().append(true).create(true).open(path).expect("opens");
    for (second, source, text) in lines {
        writeln!(file, "2026-11-21T09:00:{second:02}.000000000Z {source} F {text}").expect("written");
    }
}

fn call(number: u8) -> CallId {
    CallId::from_bytes([number; 16])
}

#[tokio::test]
async fn lines_of_a_call_are_found_by_it_and_shown_without_its_tag() {
    let root = tempfile::tempdir().expect("a directory");
    let tagged = |number: u8, text: &str| format!("\x1e{}\x1f{text}", call(number));
    let lines = [tagged(1, "one"), tagged(2, "two"), "\x1enone\x1fthree".to_owned(), tagged(1, "four")];
    let lines: Vec<_> = (1..).zip(&lines).map(|(second, line)| (second, "stdout", line.as_str())).collect();
    write(root.path(), 1, "resize", "a", &lines);
    let of = |call, tail| LogFilter { call, tail, ..LogFilter::default() };
    assert_eq!(all(root.path(), of(Some(call(1)), None)).await, ["one", "four"]);
    assert_eq!(all(root.path(), of(Some(call(1)), Some(1))).await, ["four"]);
    assert_eq!(all(root.path(), of(None, None)).await, ["one", "two", "\x1enone\x1fthree", "four"]);
    assert_eq!(all(root.path(), of(None, Some(1))).await, ["four"]);
}

fn example() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a directory");
    write(root.path(), 1, "main", "a", &[(1, "stdout", "a1"), (4, "stderr", "a4"), (9, "system", "a9")]);
    write(root.path(), 2, "main", "b", &[(2, "stdout", "b2"), (5, "stdout", "b5")]);
    write(root.path(), 2, "mailer", "c", &[(3, "stdout", "c3"), (6, "stdout", "c6")]);
    root
}

async fn all(root: &Path, filter: LogFilter) -> Vec<String> {
    let mut receiver = read(root, &key(), filter);
    let mut lines = Vec::new();
    while let Some(line) = receiver.recv().await {
        lines.push(line.line);
    }
    lines
}

#[tokio::test]
async fn instances_are_merged_by_time_and_filtered() {
    let root = example();
    let root = root.path();
    let at = |second: u32| format!("2026-11-21T09:00:{second:02}Z").parse::<Timestamp>().ok();
    let none = LogFilter::default;
    assert_eq!(all(root, none()).await, ["a1", "b2", "c3", "a4", "b5", "c6", "a9"]);
    assert_eq!(all(root, LogFilter { tail: Some(3), ..none() }).await, ["b5", "c6", "a9"]);
    assert!(all(root, LogFilter { tail: Some(0), ..none() }).await.is_empty());
    assert_eq!(all(root, LogFilter { version: VersionNumber::new(2), ..none() }).await, ["b2", "c3", "b5", "c6"]);
    assert_eq!(all(root, LogFilter { object: Some("mailer".into()), ..none() }).await, ["c3", "c6"]);
    assert_eq!(all(root, LogFilter { instance: Some("b".into()), ..none() }).await, ["b2", "b5"]);
    assert_eq!(all(root, LogFilter { source: Some("stderr".into()), ..none() }).await, ["a4"]);
    assert_eq!(all(root, LogFilter { until: at(2), ..none() }).await, ["a1", "b2"]);
    assert!(all(root, LogFilter { call: Some(call(1)), ..none() }).await.is_empty());
    assert_eq!(all(root, LogFilter { since: at(4), tail: Some(9), ..none() }).await, ["a4", "b5", "c6", "a9"]);
}

#[tokio::test]
async fn following_sees_new_lines_new_instances_and_nothing_twice() {
    let root = example();
    for tail in [None, Some(1)] {
        let mut receiver = read(root.path(), &key(), LogFilter { follow: true, tail, ..LogFilter::default() });
        let mut next = async || {
            tokio::time::timeout(Duration::from_secs(10), receiver.recv()).await.expect("in time").expect("a line").line
        };
        for expected in if tail.is_some() { &["a9"][..] } else { &["a1", "b2", "c3", "a4", "b5", "c6", "a9"] } {
            assert_eq!(next().await, *expected);
        }
        let fresh = format!("d{}", tail.unwrap_or_default());
        write(root.path(), 3, "main", &fresh, &[(1, "stdout", "from a new instance")]);
        assert_eq!(next().await, "from a new instance");
        write(root.path(), 3, "main", &fresh, &[(2, "stdout", "and more")]);
        assert_eq!(next().await, "and more");
        fs::remove_dir_all(root.path().join("main/shop/v3")).expect("removed");
    }
}

#[test]
fn a_failure_report_has_the_last_lines_the_app_wrote() {
    let root = example();
    let path = root.path().join("main/shop/v1/main/a.log");
    assert_eq!(tail_lines(&path, 50), ["a1", "a4"]);
    assert_eq!(tail_lines(&path, 1), ["a4"]);
    assert!(tail_lines(Path::new("/nowhere.log"), 50).is_empty());
}

#[tokio::test]
async fn a_stream_goes_on_behind_any_of_its_lines() {
    let root = example();
    // Lines of one moment, in one file and in several.
    write(root.path(), 2, "main", "b", &[(9, "stdout", "b9"), (9, "stdout", "b9 again")]);
    write(root.path(), 3, "main", "d", &[(9, "stdout", "d9"), (10, "stdout", "d10")]);
    let mut receiver = read(root.path(), &key(), LogFilter::default());
    let mut lines = Vec::new();
    while let Some(line) = receiver.recv().await {
        lines.push(line);
    }
    assert_eq!(lines.len(), 11);
    let mut place = LogPlace { at: Timestamp::UNIX_EPOCH, seen: 0 };
    for (count, line) in lines.iter().enumerate() {
        place.pass(line.at);
        let written = place.to_string().parse::<LogPlace>();
        assert_eq!(written, Ok(place));
        let rest: Vec<String> = lines[count + 1..].iter().map(|line| line.line.clone()).collect();
        let filter = LogFilter { after: written.ok(), tail: Some(1), ..LogFilter::default() };
        assert_eq!(all(root.path(), filter).await, rest, "behind {place}");
    }
    for bad in ["", "1", "1.2-3", "1.123456789", "x.123456789-1", "1.123456789--1"] {
        assert!(bad.parse::<LogPlace>().is_err(), "{bad}");
    }
}

#[tokio::test]
async fn a_file_that_seems_older_than_its_last_line_is_read() {
    let root = tempfile::tempdir().expect("a directory");
    write(root.path(), 1, "main", "a", &[(8, "stdout", "had")]);
    write(root.path(), 1, "main", "b", &[(9, "stdout", "new")]);
    // The kernel's clock for files stood still meanwhile.
    let id = crate::domain::InstanceId::from_recorded("b");
    let path = root.path().join(super::log_path(&key(), VersionNumber::FIRST, "main", &id));
    let had: Timestamp = "2026-11-21T09:00:08Z".parse().expect("a time");
    let stood = std::time::SystemTime::from(had) - Duration::from_millis(4);
    fs::File::options().append(true).open(path).expect("opens").set_modified(stood).expect("set");
    let filter = LogFilter { after: Some(LogPlace { at: had, seen: 1 }), ..LogFilter::default() };
    assert_eq!(all(root.path(), filter).await, ["new"]);
}

/// Writes as the supervisor does: one after the other, stamped just before. The last line is called `end`. Returns
/// the lines the machine let it write so late that the reader no longer promises them.
fn writer(root: &Path, lines: usize) -> std::thread::JoinHandle<Vec<usize>> {
    let root = root.to_owned();
    std::thread::spawn(move || {
        let mut files: Vec<fs::File> = (0..4)
            .map(|instance| {
                let version = VersionNumber::FIRST;
                let id = crate::domain::InstanceId::from_recorded(format!("i{instance}"));
                let path = root.join(super::log_path(&key(), version, "main", &id));
                fs::create_dir_all(path.parent().expect("has one")).expect("made");
                fs::File::options().append(true).create(true).open(path).expect("opens")
            })
            .collect();
        let mut late = Vec::new();
        for number in 0..lines {
            let file = &mut files[fastrand::usize(..4)];
            let stamped = std::time::Instant::now();
            writeln!(file, "{:.9} stdout F {number}", Timestamp::now()).expect("written");
            if stamped.elapsed() >= SETTLED {
                late.push(number);
            }
            if number % 50 == 0 {
                std::thread::sleep(Duration::from_millis(fastrand::u64(..5)));
            }
        }
        writeln!(files[0], "{:.9} stdout F end", Timestamp::now()).expect("written");
        late
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_breaks_off_again_and_again_gets_every_line_once() {
    const LINES: usize = 20_000;
    let root = tempfile::tempdir().expect("a directory");
    let writing = writer(root.path(), LINES);
    let (mut seen, mut place) = (vec![0; LINES], None);
    'all: loop {
        let filter = LogFilter { follow: true, after: place, ..LogFilter::default() };
        let mut receiver = read(root.path(), &key(), filter);
        for _ in 0..fastrand::usize(1..2000) {
            let line = tokio::time::timeout(Duration::from_secs(30), receiver.recv()).await.expect("in time");
            let line = line.expect("a line");
            place.get_or_insert(LogPlace { at: Timestamp::UNIX_EPOCH, seen: 0 }).pass(line.at);
            if line.line == "end" {
                break 'all;
            }
            seen[line.line.parse::<usize>().expect("a number")] += 1;
        }
    }
    let late = writing.join().expect("written");
    assert!(late.len() < LINES / 100, "the machine was too busy for this test: {} lines late", late.len());
    let right = |number: usize, times: usize| times == 1 || times == 0 && late.contains(&number);
    let wrong: Vec<_> = (0..).zip(seen).filter(|(number, times)| !right(*number, *times)).take(10).collect();
    assert!(wrong.is_empty(), "lines that came more or less than once: {wrong:?}");
}
