//! Reading an app's logs: all its instances merged by time, filtered, followed.
//!
//! Invariant: what a reader does not take is not read from disk, so a slow one costs nothing. Memory is
//! bounded by `tail`, or by one line per instance.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::domain::{AppKey, CallId, VersionNumber};
use crate::wire::api::LogLine;

use super::app_logs;
use super::logfile::{Forward, Line, Position, last_lines};

/// Lines that may wait for a reader.
const CHANNEL: usize = 256;
/// How often followed logs are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Lines read at once while following.
const BATCH: usize = 1000;
/// More than this is never kept for a `tail`.
const LARGEST_TAIL: usize = 100_000;

/// Which lines are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogFilter {
    /// Go on with new lines as they come.
    pub follow: bool,
    /// Not older than this.
    pub since: Option<Timestamp>,
    /// Not newer than this.
    pub until: Option<Timestamp>,
    /// Only the last so many of what is there already.
    pub tail: Option<usize>,
    /// Only this object (`build` for builds).
    pub object: Option<String>,
    /// Only this version.
    pub version: Option<VersionNumber>,
    /// Only this instance.
    pub instance: Option<String>,
    /// Only `stdout`, `stderr` or `system`.
    pub source: Option<String>,
    /// Only what was written in this call.
    pub call: Option<CallId>,
}

impl LogFilter {
    fn wants_line(&self, line: &Line) -> bool {
        self.wants(line.at, &line.source) && self.call.is_none_or(|wanted| line.call == Some(wanted))
    }

    fn wants(&self, at: Timestamp, source: &str) -> bool {
        self.since.is_none_or(|since| at >= since)
            && self.until.is_none_or(|until| at <= until)
            && self.source.as_ref().is_none_or(|wanted| wanted == source)
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Timestamp::now() > until)
    }
}

impl fmt::Display for LogFilter {
    /// The places it names, as `version v3, object main`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.version.map(|version| format!("version {version}"));
        let object = self.object.as_ref().map(|object| format!("object {object}"));
        let instance = self.instance.as_ref().map(|instance| format!("instance {instance}"));
        let named: Vec<String> = [version, object, instance].into_iter().flatten().collect();
        f.write_str(&named.join(", "))
    }
}

/// Whether there is any log of the version, object and instance a filter names.
pub async fn exist(root: &Path, app: &AppKey, filter: &LogFilter) -> bool {
    let (directory, filter) = (root.join(app_logs(app)), filter.clone());
    tokio::task::spawn_blocking(move || !find(&directory, &filter).is_empty()).await.unwrap_or(true)
}

/// The lines of an app's logs below `root`, oldest first. The stream ends when all is read, or, when following,
/// with the reader or at `until`.
pub fn read(root: &Path, app: &AppKey, filter: LogFilter) -> mpsc::Receiver<LogLine> {
    let (sender, receiver) = mpsc::channel(CHANNEL);
    let directory = root.join(app_logs(app));
    tokio::spawn(async move {
        let history = {
            let (directory, filter, sender) = (directory.clone(), filter.clone(), sender.clone());
            tokio::task::spawn_blocking(move || History { directory, filter, sender }.send()).await
        };
        match history {
            Ok(Some(positions)) if filter.follow => {
                Follower { directory, readers: HashMap::new(), positions, filter }.run(sender).await;
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "reading logs failed"),
        }
    });
    receiver
}

/// The last lines an instance itself wrote, at most `count`, for the report of a failure. Blocks shortly.
pub fn tail_lines(path: &Path, count: usize) -> Vec<String> {
    let own = |_, source: &str| source != "system";
    match last_lines(path, count, &own) {
        Ok((lines, _)) => lines.into_iter().map(|line| line.text).collect(),
        Err(error) => vec![format!("(the log {} cannot be read: {error})", path.display())],
    }
}

/// The log of one instance and what it is of.
#[derive(Debug, Clone)]
struct Log {
    path: PathBuf,
    version: VersionNumber,
    object: String,
    instance: String,
    modified: SystemTime,
}

impl Log {
    fn line(&self, line: Line) -> LogLine {
        LogLine {
            at: line.at,
            source: line.source,
            version: self.version,
            object: self.object.clone(),
            instance: self.instance.clone(),
            call: line.call,
            line: line.text,
        }
    }
}

/// All logs of an app the filter does not exclude: `v<version>/<object>/<instance>.log`.
fn find(directory: &Path, filter: &LogFilter) -> Vec<Log> {
    let mut logs = Vec::new();
    for (version, path) in entries(directory) {
        let Ok(version) = version.parse::<VersionNumber>() else { continue };
        if filter.version.is_some_and(|wanted| wanted != version) {
            continue;
        }
        for (object, path) in entries(&path) {
            if filter.object.as_ref().is_some_and(|wanted| *wanted != object) {
                continue;
            }
            for (file, path) in entries(&path) {
                let Some(instance) = file.strip_suffix(".log") else { continue };
                let wanted = filter.instance.as_ref().is_none_or(|wanted| wanted == instance);
                let modified = fs::metadata(&path).and_then(|meta| meta.modified());
                if let (true, Ok(modified)) = (wanted, modified) {
                    let (object, instance) = (object.clone(), instance.to_owned());
                    logs.push(Log { path, version, object, instance, modified });
                }
            }
        }
    }
    logs
}

fn entries(directory: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
}

/// How far each log was read.
type Positions = HashMap<PathBuf, Position>;

/// What is there when the reader comes.
struct History {
    directory: PathBuf,
    filter: LogFilter,
    sender: mpsc::Sender<LogLine>,
}

impl History {
    /// Sends it all; `None` when the reader has left.
    fn send(self) -> Option<Positions> {
        let mut logs = find(&self.directory, &self.filter);
        if let Some(since) = self.filter.since
            && !self.filter.follow
        {
            // A file not touched since then cannot hold a newer line.
            logs.retain(|log| Timestamp::try_from(log.modified).is_ok_and(|modified| modified >= since));
        }
        match self.filter.tail {
            // Which call a line belongs to stands at its beginning, which a reader from the end comes to last.
            Some(count) if self.filter.call.is_some() => {
                let mut last = VecDeque::new();
                let positions = self.read_all(&logs, &mut |line| {
                    last.push_back(line);
                    last.drain(..last.len().saturating_sub(count.min(LARGEST_TAIL)));
                    Some(())
                })?;
                last.into_iter().try_for_each(|line| self.sender.blocking_send(line).ok()).map(|()| positions)
            }
            Some(count) => self.send_last(logs, count.min(LARGEST_TAIL)),
            None => self.read_all(&logs, &mut |line| self.sender.blocking_send(line).ok()),
        }
    }

    fn send_last(self, mut logs: Vec<Log>, count: usize) -> Option<Positions> {
        logs.sort_by_key(|log| Reverse(log.modified));
        let mut positions = Positions::new();
        let mut lines: Vec<LogLine> = Vec::new();
        for log in &logs {
            let oldest = lines.get(lines.len().wrapping_sub(count)).map(|line| line.at);
            let too_old = oldest.is_some_and(|at| Timestamp::try_from(log.modified).is_ok_and(|m| m < at));
            // Its end must be known for following; its lines cannot be among the last.
            if too_old && !self.filter.follow {
                break;
            }
            let of_this = if too_old { 0 } else { count };
            match last_lines(&log.path, of_this, &|at, source| self.filter.wants(at, source)) {
                Ok((last, position)) => {
                    positions.insert(log.path.clone(), position);
                    lines.extend(last.into_iter().map(|line| log.line(line)));
                    lines.sort_by_key(|line| line.at);
                    lines.drain(..lines.len().saturating_sub(count));
                }
                Err(error) => tracing::warn!(log = %log.path.display(), %error, "log cannot be read"),
            }
        }
        lines.into_iter().try_for_each(|line| self.sender.blocking_send(line).ok()).map(|()| positions)
    }

    /// Reads all there is, in order, until the reader has left.
    fn read_all(&self, logs: &[Log], take: &mut dyn FnMut(LogLine) -> Option<()>) -> Option<Positions> {
        let mut streams: Vec<Stream> = Vec::with_capacity(logs.len());
        let mut heap = BinaryHeap::new();
        for (index, log) in logs.iter().enumerate() {
            let mut stream = Stream { reader: Forward::new(log.path.clone(), Position::default()), next: None };
            if let Some(at) = stream.advance(&self.filter) {
                heap.push(Reverse((at, index)));
            }
            // Opened again when its turn comes: only logs that overlap in time are open together.
            stream.reader.close();
            streams.push(stream);
        }
        while let Some(Reverse((_, index))) = heap.pop() {
            let (Some(stream), Some(log)) = (streams.get_mut(index), logs.get(index)) else { continue };
            if let Some(line) = stream.next.take() {
                take(log.line(line))?;
            }
            if let Some(at) = stream.advance(&self.filter) {
                heap.push(Reverse((at, index)));
            }
        }
        Some(logs.iter().zip(&streams).map(|(log, stream)| (log.path.clone(), stream.reader.position())).collect())
    }
}

/// One log with its next line.
struct Stream {
    reader: Forward,
    next: Option<Line>,
}

impl Stream {
    fn advance(&mut self, filter: &LogFilter) -> Option<Timestamp> {
        loop {
            match self.reader.next() {
                Ok(Some(line)) if filter.wants_line(&line) => {
                    let at = line.at;
                    self.next = Some(line);
                    return Some(at);
                }
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => {
                    tracing::warn!(%error, "log cannot be read");
                    return None;
                }
            }
        }
    }
}

/// Goes on with new lines.
struct Follower {
    directory: PathBuf,
    filter: LogFilter,
    /// Where the history ended.
    positions: Positions,
    readers: HashMap<PathBuf, Forward>,
}

impl Follower {
    async fn run(mut self, sender: mpsc::Sender<LogLine>) {
        while !sender.is_closed() {
            let over = self.filter.is_over();
            let step = tokio::task::spawn_blocking(move || {
                let lines = self.step();
                (self, lines)
            });
            let Ok((back, lines)) = step.await else { return };
            self = back;
            let full = lines.len() >= BATCH;
            for line in lines {
                if sender.send(line).await.is_err() {
                    return;
                }
            }
            if over && !full {
                return;
            }
            if !full {
                tokio::select! {
                    () = sender.closed() => return,
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
        }
    }

    /// What has come since the last look, at most [`BATCH`] lines.
    fn step(&mut self) -> Vec<LogLine> {
        let mut lines = Vec::new();
        let logs = find(&self.directory, &self.filter);
        self.readers.retain(|path, _| logs.iter().any(|log| log.path == *path));
        for log in &logs {
            let position = self.positions.get(&log.path).copied().unwrap_or_default();
            let reader =
                self.readers.entry(log.path.clone()).or_insert_with(|| Forward::new(log.path.clone(), position));
            if !reader.has_changed() {
                continue;
            }
            while lines.len() < BATCH {
                match reader.next() {
                    Ok(Some(line)) if self.filter.wants_line(&line) => lines.push(log.line(line)),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(log = %log.path.display(), %error, "log cannot be read");
                        break;
                    }
                }
            }
        }
        lines.sort_by_key(|line| line.at);
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn key() -> AppKey {
        AppKey::new("main".parse().expect("a name"), "shop".parse().expect("a name"))
    }

    fn write(root: &Path, version: u32, object: &str, instance: &str, lines: &[(u32, &str, &str)]) {
        let version = VersionNumber::new(version).expect("a version");
        let id = crate::domain::InstanceId::from_recorded(instance);
        let path = root.join(super::super::log_path(&key(), version, object, &id));
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
                tokio::time::timeout(Duration::from_secs(10), receiver.recv())
                    .await
                    .expect("in time")
                    .expect("a line")
                    .line
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
}
