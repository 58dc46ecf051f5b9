//! Output of instances on its way into log files.
//!
//! CRI text format: `2026-11-21T09:00:00.123456789Z stdout F a line`; `P` instead of `F` marks a piece
//! of a line that goes on. The source `system` holds what Landfall says about the instance. A file is
//! rotated by rename (`x.log` → `x.log.1` → …), and [`Budget`] keeps all files together below a limit.
//!
//! Invariant: writing never fails and never waits for long. While the disk is full or slower than the app,
//! up to [`PENDING_LIMIT`] is kept in memory; beyond that output is dropped and counted, and a `system` line says
//! how much, once there is room again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::budget::Budget;

/// A file is rotated beyond this.
pub(super) const FILE_LIMIT: u64 = 10 * 1024 * 1024;
/// Rotated files kept per log.
pub(super) const ROTATED: usize = 4;
/// A longer line is cut into pieces.
const LINE_LIMIT: usize = 16 * 1024;
/// What waits in memory for the disk, per log.
const PENDING_LIMIT: usize = 512 * 1024;
/// Writing may take this much of every [`DISK_WINDOW`]; beyond it output waits for the next one.
const DISK_SHARE: Duration = Duration::from_millis(300);
const DISK_WINDOW: Duration = Duration::from_millis(500);
/// After a failed write the file is left alone for this long.
const PAUSE: Duration = Duration::from_secs(1);

/// Where a line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// All logs together.
#[derive(Debug)]
pub(super) struct Logs {
    root: PathBuf,
    owner: Option<(u32, u32)>,
    budget: Budget,
    window: Instant,
    spent: Duration,
    scratch: Vec<u8>,
}

/// One instance's log.
#[derive(Debug)]
pub(super) struct Log {
    /// Relative to the root of all logs.
    path: PathBuf,
    file: Option<File>,
    size: u64,
    tails: [Vec<u8>; 2],
    /// Whole lines the disk has not taken yet, and how many bytes of them the instance wrote.
    pending: Vec<u8>,
    pending_output: usize,
    dropped: u64,
    unreported: u64,
    paused_until: Option<Instant>,
}

/// What a log keeps across an upgrade in place.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct SavedLog {
    tails: [Vec<u8>; 2],
    #[serde(default)]
    pending: Vec<u8>,
    #[serde(default)]
    pending_output: usize,
    dropped: u64,
    unreported: u64,
}

/// Whether a path stays below the directory it is relative to.
pub(super) fn stays_below(path: &Path) -> bool {
    path.file_name().is_some() && path.components().all(|part| matches!(part, Component::Normal(_)))
}

impl Logs {
    /// Looks once at what is there; afterwards sizes are kept in memory.
    pub(super) fn open(root: PathBuf, limit: u64, owner: Option<(u32, u32)>) -> Self {
        let budget = Budget::scan(&root, limit);
        Self { root, owner, budget, window: Instant::now(), spent: Duration::ZERO, scratch: Vec::new() }
    }

    pub(super) fn set_limit(&mut self, limit: u64, owner: Option<(u32, u32)>) {
        self.owner = owner;
        self.budget.set_limit(limit);
        self.budget.make_room(&self.root, 0);
    }

    /// The log of that name, appended to if it exists.
    pub(super) fn log(&mut self, path: &Path, saved: SavedLog) -> Log {
        let SavedLog { tails, pending, pending_output, dropped, unreported } = saved;
        let mut log = Log {
            path: path.to_owned(),
            file: None,
            size: 0,
            tails,
            pending,
            pending_output,
            dropped,
            unreported,
            paused_until: None,
        };
        self.reopen(&mut log);
        self.budget.activate(&log.path, log.size);
        log
    }

    /// Takes output as it was read.
    pub(super) fn feed(&mut self, log: &mut Log, stream: Stream, bytes: &[u8]) {
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        format_lines(&mut out, &now(), stream, &mut log.tails[stream as usize], bytes);
        self.put(log, &out, bytes.len());
        self.scratch = out;
        // Keeps a burst from holding memory for ever.
        self.scratch.shrink_to(128 * 1024);
    }

    /// Takes whole lines in the log's own format.
    pub(super) fn append(&mut self, log: &mut Log, lines: &[u8]) {
        self.put(log, lines, lines.len());
    }

    /// Writes what Landfall itself has to say about the instance.
    pub(super) fn system(&mut self, log: &mut Log, line: &str) {
        let line = line.replace('\n', " ");
        self.put(log, format!("{} system F {line}\n", now()).as_bytes(), 0);
    }

    /// Writes what waits, if the disk has time. False while something still waits.
    pub(super) fn flush(&mut self, log: &mut Log) -> bool {
        log.pending.is_empty() || (self.may_write(log) && self.write_pending(log))
    }

    /// Ends the log: unfinished lines are written as they are and the file is closed.
    pub(super) fn finish(&mut self, log: &mut Log) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let tail = std::mem::take(&mut log.tails[stream as usize]);
            if !tail.is_empty() {
                let mut out = Vec::with_capacity(tail.len() + 64);
                push_line(&mut out, &now(), stream, b'F', &tail);
                self.put(log, &out, tail.len());
            }
        }
        // The last chance, whatever the disk has done before.
        if !self.write_pending(log) {
            log.pending = Vec::new();
            let lost = std::mem::take(&mut log.pending_output);
            log.drop_bytes(lost);
        }
        log.file = None;
        self.budget.deactivate(&log.path);
    }

    /// Writes whole lines, `of_output` bytes of them the instance's own, now or as soon as the disk allows.
    fn put(&mut self, log: &mut Log, lines: &[u8], of_output: usize) {
        if lines.is_empty() || (self.may_write(log) && self.write_pending(log) && self.write(log, lines)) {
            return;
        }
        if log.pending.len() + lines.len() <= PENDING_LIMIT {
            log.pending.extend_from_slice(lines);
            log.pending_output += of_output;
        } else {
            log.drop_bytes(of_output);
        }
    }

    /// Whether the disk has time for this log now.
    fn may_write(&mut self, log: &mut Log) -> bool {
        let now = Instant::now();
        if now.duration_since(self.window) > DISK_WINDOW {
            self.window = now;
            self.spent = Duration::ZERO;
        }
        if self.spent > DISK_SHARE || log.paused_until.is_some_and(|until| now < until) {
            return false;
        }
        if log.paused_until.take().is_some() || log.file.is_none() {
            self.reopen(log);
        }
        true
    }

    /// Writes what waited, and how much was lost meanwhile. True when nothing waits any more.
    fn write_pending(&mut self, log: &mut Log) -> bool {
        if !log.pending.is_empty() {
            let pending = std::mem::take(&mut log.pending);
            if !self.write(log, &pending) {
                log.pending = pending;
                return false;
            }
            log.pending_output = 0;
        }
        if log.unreported > 0 {
            let bytes = log.unreported;
            let line = format!("{} system F {bytes} bytes of output dropped: the disk is full or too slow\n", now());
            if !self.write(log, line.as_bytes()) {
                return false;
            }
            log.unreported = 0;
        }
        true
    }

    /// Appends whole lines to the file: all of them, or none and false.
    fn write(&mut self, log: &mut Log, lines: &[u8]) -> bool {
        let length = lines.len() as u64;
        let file_limit = FILE_LIMIT.min(self.budget.limit() / 4).max(64 * 1024);
        if log.size > 0 && log.size + length > file_limit {
            self.rotate(log);
        }
        self.budget.make_room(&self.root, length);
        let started = Instant::now();
        let result = match &mut log.file {
            Some(file) => file.write_all(lines),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        self.spent += started.elapsed();
        match result {
            Ok(()) => {
                log.size += length;
                self.budget.grow(&log.path, length);
                true
            }
            Err(error) => {
                if log.pending.is_empty() && log.unreported == 0 {
                    tracing::warn!(log = %log.path.display(), %error, "log cannot be written; output waits, then is dropped");
                }
                // Half a line must not stay: readers would take what follows for its end.
                if let Some(file) = &log.file {
                    let _ = file.set_len(log.size);
                }
                log.paused_until = Some(Instant::now() + PAUSE);
                false
            }
        }
    }

    fn rotate(&mut self, log: &mut Log) {
        log.file = None;
        let base = self.root.join(&log.path);
        let _ = fs::remove_file(numbered(&base, ROTATED));
        for number in (1..ROTATED).rev() {
            let _ = fs::rename(numbered(&base, number), numbered(&base, number + 1));
        }
        let _ = fs::rename(&base, numbered(&base, 1));
        self.budget.rotated(&log.path);
        self.reopen(log);
    }

    fn reopen(&mut self, log: &mut Log) {
        let path = self.root.join(&log.path);
        let opened = self.open_file(&path);
        log.size = opened.as_ref().ok().and_then(|file| file.metadata().ok()).map_or(0, |meta| meta.len());
        if let Err(error) = &opened {
            tracing::warn!(log = %path.display(), %error, "log cannot be opened; output is dropped");
            log.paused_until = Some(Instant::now() + PAUSE);
        }
        log.file = opened.ok();
    }

    fn open_file(&self, path: &Path) -> io::Result<File> {
        if let Some(parent) = path.parent() {
            self.create_directories(parent)?;
        }
        let mut options = fs::OpenOptions::new();
        options.create(true).append(true).mode(0o640).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(path)?;
        if let Some((uid, gid)) = self.owner {
            std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        Ok(file)
    }

    fn create_directories(&self, directory: &Path) -> io::Result<()> {
        if directory.is_dir() {
            return Ok(());
        }
        if let Some(parent) = directory.parent().filter(|parent| parent.starts_with(&self.root)) {
            self.create_directories(parent)?;
        }
        fs::create_dir(directory)?;
        match self.owner {
            Some((uid, gid)) => std::os::unix::fs::lchown(directory, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }
}

impl Log {
    /// Bytes of output that were lost.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn save(&self) -> SavedLog {
        SavedLog {
            tails: self.tails.clone(),
            pending: self.pending.clone(),
            pending_output: self.pending_output,
            dropped: self.dropped,
            unreported: self.unreported,
        }
    }

    /// Whether something waits for the disk.
    pub(super) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    fn drop_bytes(&mut self, count: usize) {
        self.dropped += count as u64;
        self.unreported += count as u64;
    }
}

/// `x.log` → `x.log.2`
pub(super) fn numbered(base: &Path, number: usize) -> PathBuf {
    let mut name = base.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

fn now() -> String {
    format!("{:.9}", Timestamp::now())
}

/// Cuts `bytes` into lines behind what `tail` still holds, and leaves in `tail` what has no end yet.
fn format_lines(out: &mut Vec<u8>, at: &str, stream: Stream, tail: &mut Vec<u8>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let room = LINE_LIMIT - tail.len();
        match bytes.iter().take(room + 1).position(|byte| *byte == b'\n') {
            Some(end) => {
                let (line, rest) = bytes.split_at(end);
                if tail.is_empty() {
                    push_line(out, at, stream, b'F', line);
                } else {
                    tail.extend_from_slice(line);
                    push_line(out, at, stream, b'F', tail);
                    tail.clear();
                }
                bytes = rest.get(1..).unwrap_or_default();
            }
            None if bytes.len() <= room => {
                tail.extend_from_slice(bytes);
                return;
            }
            None => {
                let (piece, rest) = bytes.split_at(room);
                tail.extend_from_slice(piece);
                push_line(out, at, stream, b'P', tail);
                tail.clear();
                bytes = rest;
            }
        }
    }
}

fn push_line(out: &mut Vec<u8>, at: &str, stream: Stream, tag: u8, line: &[u8]) {
    out.extend_from_slice(at.as_bytes());
    out.push(b' ');
    out.extend_from_slice(stream.name().as_bytes());
    out.extend_from_slice(&[b' ', tag, b' ']);
    out.extend_from_slice(line);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[&[u8]]) -> (String, Vec<u8>) {
        let (mut out, mut tail) = (Vec::new(), Vec::new());
        for chunk in chunks {
            format_lines(&mut out, "T", Stream::Stdout, &mut tail, chunk);
        }
        (String::from_utf8(out).expect("text"), tail)
    }

    #[test]
    fn lines_survive_any_cut() {
        assert_eq!(cut(&[b"a", b"b\nc\n\nd"]), ("T stdout F ab\nT stdout F c\nT stdout F \n".into(), b"d".to_vec()));
        let whole = cut(&[b"one\ntwo\nthree\n"]).0;
        for size in 1..14 {
            let chunks: Vec<&[u8]> = b"one\ntwo\nthree\n".chunks(size).collect();
            assert_eq!(cut(&chunks).0, whole);
        }
    }

    #[test]
    fn a_line_without_end_is_written_in_marked_pieces() {
        let long = vec![b'x'; LINE_LIMIT + 5];
        let (out, tail) = cut(&[&long, b"\n"]);
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("T stdout P xxx") && lines[0].len() == LINE_LIMIT + "T stdout P ".len());
        assert_eq!(lines[1], "T stdout F xxxxx");
        assert!(tail.is_empty());
        // A line of exactly the limit is whole.
        let exact = vec![b'y'; LINE_LIMIT];
        let (out, _) = cut(&[&exact, b"\n"]);
        assert!(out.starts_with("T stdout F ") && out.lines().count() == 1);
    }

    #[test]
    fn a_path_that_leaves_the_logs_is_recognised() {
        assert!(stays_below(Path::new("main/shop/v1/web/a.log")));
        for bad in ["/etc/x", "../x", "a/../../x", ""] {
            assert!(!stays_below(Path::new(bad)), "{bad}");
        }
    }

    #[test]
    fn all_files_together_stay_below_the_limit() {
        let directory = tempfile::tempdir().expect("a directory");
        let limit = 1024 * 1024;
        let mut logs = Logs::open(directory.path().to_owned(), limit, None);
        let chunk = [b"0123456789abcdef".repeat(1023).as_slice(), b"\n"].concat();
        for name in ["a/1.log", "a/2.log", "b/3.log"] {
            let mut log = logs.log(Path::new(name), SavedLog::default());
            for _ in 0..200 {
                logs.spent = Duration::ZERO;
                logs.feed(&mut log, Stream::Stdout, &chunk);
                assert!(size_of(directory.path()) <= limit);
            }
            assert_eq!(log.dropped(), 0);
            logs.finish(&mut log);
        }
        assert!(size_of(directory.path()) > limit / 2, "and no more is thrown away than needed");
    }

    #[test]
    fn what_the_disk_does_not_take_waits_and_what_is_too_much_is_counted_and_said() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut logs = Logs::open(directory.path().to_owned(), 64 << 20, None);
        let mut log = logs.log(Path::new("x.log"), SavedLog::default());
        // Writing to a file opened for reading fails, as on a full disk.
        log.file = File::options().read(true).open("/dev/null").ok();
        logs.feed(&mut log, Stream::Stderr, b"waits\n");
        assert!(log.is_pending() && log.dropped() == 0);
        let flood = [b"x".repeat(99), b"\n".to_vec()].concat().repeat(600);
        while log.dropped() == 0 {
            logs.feed(&mut log, Stream::Stdout, &flood);
        }
        assert!(log.pending.len() <= PENDING_LIMIT && log.dropped().is_multiple_of(flood.len() as u64));
        log.paused_until = Some(Instant::now());
        assert!(logs.flush(&mut log), "the disk has room again");
        logs.feed(&mut log, Stream::Stderr, b"goes on\n");
        logs.finish(&mut log);
        let text = fs::read_to_string(directory.path().join("x.log")).expect("reads");
        let said = format!("system F {} bytes of output dropped", log.dropped());
        assert!(text.contains("stderr F waits\n") && text.contains(&said) && text.ends_with("stderr F goes on\n"));
    }

    fn size_of(directory: &Path) -> u64 {
        let entries = fs::read_dir(directory).expect("lists").flatten();
        entries.map(|e| if e.path().is_dir() { size_of(&e.path()) } else { e.metadata().map_or(0, |m| m.len()) }).sum()
    }
}
