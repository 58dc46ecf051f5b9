//! Reading an app's logs: all its instances merged by time, filtered, followed.
//!
//! Lines come in the order of their times, those of one time in the order of their files' paths; so a time and a count
//! are a place in the stream ([`LogPlace`]) that holds for any reader at any time. While it follows, a reader waits
//! for [`SETTLED`] before it takes a line: by then everything older is on disk, in whatever file.
//!
//! Invariant: what a reader does not take is not read from disk, so a slow one costs nothing. Memory is
//! bounded by `tail`, or by one line per instance.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
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
/// The supervisor stamps a line when it reads it and writes it at once; later than this it is on disk, also where
/// the machine is so busy that the two lie some time slices apart. A reader that breaks off behind a newer line would
/// not be given one that came later than this.
pub(super) const SETTLED: Duration = Duration::from_millis(100);
/// A line stamped this far ahead of the clock is not waited for: the clock was set back.
const AHEAD: Duration = Duration::from_secs(1);
/// Lines read at once while following.
const BATCH: usize = 1000;
/// A file's time of change may be so much older than the last line in it: kernels take it from a clock that stands still
/// between two ticks, and some filesystems keep whole seconds.
const COARSE: Duration = Duration::from_secs(2);
/// More than this is never kept for a `tail`.
const LARGEST_TAIL: usize = 100_000;

/// A place between two lines of a stream: behind all lines before a time, and so many of that very time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPlace {
    /// The time.
    pub at: Timestamp,
    /// How many lines of that time lie before it.
    pub seen: u32,
}

impl LogPlace {
    /// The place behind a line that was sent now. A line that comes later than newer ones moves nothing.
    pub fn pass(&mut self, at: Timestamp) {
        match at.cmp(&self.at) {
            Ordering::Greater => *self = Self { at, seen: 1 },
            Ordering::Equal => self.seen = self.seen.saturating_add(1),
            Ordering::Less => {}
        }
    }
}

/// `1764352800.123456789-2`: seconds since 1970, lines.
impl fmt::Display for LogPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}-{}", self.at.as_second(), self.at.subsec_nanosecond().max(0), self.seen)
    }
}

impl FromStr for LogPlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (at, seen) = text.split_once('-')?;
            let (seconds, nanos) = at.split_once('.').filter(|(_, nanos)| nanos.len() == 9)?;
            let at = Timestamp::new(seconds.parse().ok()?, nanos.parse().ok()?).ok()?;
            Some(Self { at, seen: seen.parse().ok()? })
        };
        read().ok_or_else(|| format!("`{}` is no place in a log", text.chars().take(60).collect::<String>()))
    }
}

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
    /// Only what comes behind this place in the stream of these very lines; `tail` then says nothing.
    pub after: Option<LogPlace>,
}

impl LogFilter {
    /// No older line is wanted.
    fn oldest(&self) -> Option<Timestamp> {
        self.since.max(self.after.map(|place| place.at))
    }

    fn wants_line(&self, line: &Line) -> bool {
        self.wants(line.at, &line.source) && self.call.is_none_or(|wanted| line.call == Some(wanted))
    }

    fn wants(&self, at: Timestamp, source: &str) -> bool {
        self.oldest().is_none_or(|oldest| at >= oldest)
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
        // What is older than this moment is history, what is newer is followed.
        let border = filter.follow.then(Timestamp::now);
        if filter.follow {
            tokio::time::sleep(SETTLED).await;
        }
        let history = {
            let (directory, filter, sender) = (directory.clone(), filter.clone(), sender.clone());
            tokio::task::spawn_blocking(move || History { directory, filter, sender, border }.send()).await
        };
        match history {
            Ok(Some(streams)) if filter.follow => Follower { directory, streams, filter }.run(sender).await,
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
    /// Where it ended when it was found.
    end: Position,
}

impl Log {
    /// Whether it surely holds no line of this time or later.
    fn is_older(&self, at: Timestamp) -> bool {
        let latest = self.modified.checked_add(COARSE).and_then(|latest| Timestamp::try_from(latest).ok());
        latest.is_some_and(|latest| latest < at)
    }

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
                let meta = fs::metadata(&path).and_then(|meta| Ok((meta.modified()?, meta)));
                if let (true, Ok((modified, meta))) = (wanted, meta) {
                    let (object, instance) = (object.clone(), instance.to_owned());
                    let end = Position { inode: meta.ino(), offset: meta.len() };
                    logs.push(Log { path, version, object, instance, modified, end });
                }
            }
        }
    }
    logs.sort_by(|a, b| a.path.cmp(&b.path));
    logs
}

fn entries(directory: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
}

/// Every log with how far it was read.
type Streams = BTreeMap<PathBuf, Stream>;

/// What is there when the reader comes.
struct History {
    directory: PathBuf,
    filter: LogFilter,
    sender: mpsc::Sender<LogLine>,
    /// Newer lines are left to whoever follows.
    border: Option<Timestamp>,
}

impl History {
    /// Sends it all; `None` when the reader has left.
    fn send(self) -> Option<Streams> {
        let logs = find(&self.directory, &self.filter);
        let mut streams = Streams::new();
        for log in logs {
            // A file not touched since then cannot hold a newer line.
            let old = self.filter.oldest().is_some_and(|oldest| log.is_older(oldest));
            let start = if old { log.end } else { Position::default() };
            streams.insert(log.path.clone(), Stream::new(log, start));
        }
        match self.filter.tail.filter(|_| self.filter.after.is_none()) {
            // Which call a line belongs to stands at its beginning, which a reader from the end comes to last.
            Some(count) if self.filter.call.is_some() => {
                let mut last = VecDeque::new();
                self.merge(&mut streams, &mut |line| {
                    last.push_back(line);
                    last.drain(..last.len().saturating_sub(count.min(LARGEST_TAIL)));
                    Some(())
                })?;
                last.into_iter().try_for_each(|line| self.sender.blocking_send(line).ok())?;
            }
            Some(count) => self.send_last(&mut streams, count.min(LARGEST_TAIL))?,
            None => {
                // Of the lines of that very time, so many were had.
                let mut had = self.filter.after.map_or(0, |place| place.seen);
                self.merge(&mut streams, &mut |line| {
                    if had > 0 && self.filter.after.is_some_and(|place| place.at == line.at) {
                        had -= 1;
                        return Some(());
                    }
                    self.sender.blocking_send(line).ok()
                })?;
            }
        }
        Some(streams)
    }

    fn send_last(&self, streams: &mut Streams, count: usize) -> Option<()> {
        let mut newest_first: Vec<&mut Stream> = streams.values_mut().collect();
        newest_first.sort_by_key(|stream| Reverse(stream.log.modified));
        let mut lines: Vec<LogLine> = Vec::new();
        for stream in newest_first {
            let log = &stream.log;
            let oldest = lines.get(lines.len().wrapping_sub(count)).map(|line| line.at);
            let too_old = oldest.is_some_and(|at| log.is_older(at));
            // Its end must be known for following; its lines cannot be among the last.
            if too_old && self.border.is_none() {
                break;
            }
            let of_this = if too_old { 0 } else { count };
            match last_lines(&log.path, of_this, &|at, source| self.filter.wants(at, source)) {
                Ok((last, position)) => {
                    let (last, newer): (Vec<_>, Vec<_>) = last.into_iter().partition(|line| self.is_history(line.at));
                    lines.extend(last.into_iter().map(|line| log.line(line)));
                    lines.sort_by_key(|line| line.at);
                    lines.drain(..lines.len().saturating_sub(count));
                    stream.reader = Forward::new(log.path.clone(), position);
                    stream.next = newer.into();
                }
                Err(error) => tracing::warn!(log = %log.path.display(), %error, "log cannot be read"),
            }
        }
        lines.into_iter().try_for_each(|line| self.sender.blocking_send(line).ok())
    }

    fn is_history(&self, at: Timestamp) -> bool {
        self.border.is_none_or(|border| at <= border)
    }

    /// Takes all there is, in order, until the reader has left.
    fn merge(&self, streams: &mut Streams, take: &mut dyn FnMut(LogLine) -> Option<()>) -> Option<()> {
        merge(streams.values_mut().collect(), &self.filter, &|at| self.is_history(at), take)
    }
}

/// Takes lines in order: as long as they may be taken, and `take` goes on.
fn merge(
    mut streams: Vec<&mut Stream>,
    filter: &LogFilter,
    may: &dyn Fn(Timestamp) -> bool,
    take: &mut dyn FnMut(LogLine) -> Option<()>,
) -> Option<()> {
    let mut heap = BinaryHeap::new();
    for (index, stream) in streams.iter_mut().enumerate() {
        if let Some(at) = stream.peek(filter) {
            heap.push(Reverse((at, index)));
        }
        // Opened again when its turn comes: only logs that overlap in time are open together.
        stream.reader.close();
    }
    let mut open = Vec::new();
    let outcome = loop {
        let Some(Reverse((at, index))) = heap.pop() else { break Some(()) };
        let Some(stream) = streams.get_mut(index).filter(|_| may(at)) else { continue };
        if let Some(line) = stream.next.pop_front()
            && take(stream.log.line(line)).is_none()
        {
            break None;
        }
        if let Some(at) = stream.peek(filter) {
            heap.push(Reverse((at, index)));
            open.push(index);
        }
    };
    // What waits for its time must not hold files open.
    for index in open {
        if let Some(stream) = streams.get_mut(index) {
            stream.reader.close();
        }
    }
    outcome
}

/// One log with its next lines.
struct Stream {
    log: Log,
    reader: Forward,
    next: VecDeque<Line>,
}

impl Stream {
    fn new(log: Log, from: Position) -> Self {
        Self { reader: Forward::new(log.path.clone(), from), log, next: VecDeque::new() }
    }

    /// The time of its next line.
    fn peek(&mut self, filter: &LogFilter) -> Option<Timestamp> {
        while self.next.is_empty() {
            match self.reader.next() {
                Ok(Some(line)) if filter.wants_line(&line) => self.next.push_back(line),
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => {
                    tracing::warn!(log = %self.log.path.display(), %error, "log cannot be read");
                    return None;
                }
            }
        }
        self.next.front().map(|line| line.at)
    }
}

/// Goes on with new lines.
struct Follower {
    directory: PathBuf,
    filter: LogFilter,
    streams: Streams,
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
            let waiting = self.streams.values().any(|stream| !stream.next.is_empty());
            if over && !full && !waiting {
                return;
            }
            if !full {
                tokio::select! {
                    () = sender.closed() => return,
                    () = tokio::time::sleep(if waiting { SETTLED } else { LOOK }) => {}
                }
            }
        }
    }

    /// What has come since the last look and is settled, at most [`BATCH`] lines.
    fn step(&mut self) -> Vec<LogLine> {
        let now = Timestamp::now();
        let settled = now.checked_sub(SETTLED).unwrap_or(now);
        let ahead = now.checked_add(AHEAD).unwrap_or(now);
        let logs = find(&self.directory, &self.filter);
        self.streams.retain(|path, _| logs.iter().any(|log| log.path == *path));
        for log in logs {
            self.streams.entry(log.path.clone()).or_insert_with(|| Stream::new(log, Position::default()));
        }
        let has_news = |stream: &&mut Stream| !stream.next.is_empty() || stream.reader.has_changed();
        let news: Vec<&mut Stream> = self.streams.values_mut().filter(has_news).collect();
        let mut lines = Vec::new();
        let may = |at: Timestamp| at <= settled || at > ahead;
        let _ = merge(news, &self.filter, &may, &mut |line| {
            lines.push(line);
            (lines.len() < BATCH).then_some(())
        });
        lines
    }
}
