//! The access log: one JSON line for each request, written by a thread of its own.
//!
//! Owned by `mod.rs`; every thread holds a handle. Neighbours: `exchange.rs` makes the lines.
//!
//! Invariant: a slow or full disk never slows a request. Lines that find the queue full are dropped and counted, and the
//! count is written into the log when there is room again. Files are rotated by rename; a second proxy may write to the
//! same file meanwhile, so each batch is appended with one write and the file is opened again when it is no longer the
//! one under its name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::{info, warn};

use crate::wire::proxy::AccessLine;

/// Lines that may wait for the disk.
const QUEUE: usize = 8192;
/// A batch is written when it has this many bytes, or when no more lines wait.
const BATCH: usize = 128 * 1024;
/// A file is rotated when it has this many bytes.
pub const ROTATE: u64 = 64 * 1024 * 1024;
/// Rotated files that are kept.
pub const KEEP: u32 = 4;
/// Lines are gathered so long before they are written: a writer that waits for each would have to be woken for each, and
/// waking it costs whoever brings a line more than the line. A full queue of lines is more than come in this time.
const GATHER: Duration = Duration::from_millis(20);
/// How often a writer without work looks whether dropped lines must be told.
const LOOK: Duration = Duration::from_secs(5);

/// The handle.
#[derive(Debug, Clone)]
pub struct AccessLog {
    lines: SyncSender<Box<AccessLine>>,
    dropped: Arc<AtomicU64>,
}

impl AccessLog {
    /// Starts the writer. It ends, everything written, when the last handle is dropped.
    pub fn start(path: PathBuf, rotate: u64) -> io::Result<(Self, JoinHandle<()>)> {
        let (lines, queue) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = Writer { path, rotate, file: None, dropped: Arc::clone(&dropped), complained: false };
        let thread = std::thread::Builder::new().name("access-log".into()).spawn(move || writer.run(&queue))?;
        Ok((Self { lines, dropped }, thread))
    }

    /// Hands over a line; never waits.
    pub fn write(&self, line: AccessLine) {
        if self.lines.try_send(Box::new(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Writer {
    path: PathBuf,
    rotate: u64,
    file: Option<File>,
    dropped: Arc<AtomicU64>,
    complained: bool,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Box<AccessLine>>) {
        let mut batch = Vec::new();
        loop {
            let first = queue.recv_timeout(LOOK);
            if matches!(first, Err(RecvTimeoutError::Disconnected)) {
                return;
            }
            if first.is_ok() {
                std::thread::sleep(GATHER);
            }
            for line in first.into_iter().chain(queue.try_iter()) {
                // A line is made of strings and numbers: it cannot fail to be JSON.
                if serde_json::to_writer(&mut batch, &line).is_ok() {
                    batch.push(b'\n');
                }
                if batch.len() >= BATCH {
                    self.flush(&mut batch);
                }
            }
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                let _ = writeln!(batch, "{{\"dropped\":{dropped}}}");
            }
            self.flush(&mut batch);
        }
    }

    fn flush(&mut self, batch: &mut Vec<u8>) {
        if batch.is_empty() {
            return;
        }
        match self.append(batch) {
            Ok(()) if self.complained => {
                self.complained = false;
                info!(path = %self.path.display(), "the access log is written again");
            }
            Ok(()) => {}
            Err(error) => {
                self.file = None;
                let lines = batch.iter().filter(|byte| **byte == b'\n').count();
                self.dropped.fetch_add(lines as u64, Ordering::Relaxed);
                if !std::mem::replace(&mut self.complained, true) {
                    warn!(path = %self.path.display(), %error, "the access log cannot be written; lines are dropped until it can");
                }
            }
        }
        batch.clear();
        // A burst is over: its memory is not needed again soon.
        batch.shrink_to(BATCH);
    }

    fn append(&mut self, batch: &[u8]) -> io::Result<()> {
        let mut file = self.open()?;
        file.write_all(batch)?;
        if file.metadata()?.len() >= self.rotate {
            drop(file);
            rotate(&self.path)
        } else {
            self.file = Some(file);
            Ok(())
        }
    }

    /// The file under the log's name, also when somebody else rotated it.
    fn open(&mut self) -> io::Result<File> {
        if let Some(file) = self.file.take() {
            let (mine, named) = (file.metadata()?, fs::metadata(&self.path));
            if named.is_ok_and(|named| (named.dev(), named.ino()) == (mine.dev(), mine.ino())) {
                return Ok(file);
            }
        }
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        OpenOptions::new().append(true).create(true).open(&self.path)
    }
}

/// `access.log` becomes `access.log.1`, that becomes `.2`, and so on; the oldest goes.
fn rotate(path: &Path) -> io::Result<()> {
    let name = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    for number in (1..KEEP).rev() {
        rename_if_there(&name(number), &name(number + 1))?;
    }
    rename_if_there(path, &name(1))
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: u32) -> AccessLine {
        AccessLine {
            at: jiff::Timestamp::UNIX_EPOCH,
            request_id: id.to_string(),
            client: String::new(),
            method: String::new(),
            host: String::new(),
            path: String::new(),
            status: 200,
            app: None,
            object: None,
            version: None,
            instance: None,
            duration_ms: 0.0,
            queued_ms: 0.0,
            bytes_in: 0,
            bytes_out: 0,
            reason: None,
        }
    }

    #[test]
    fn files_are_rotated_and_the_oldest_go() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("logs").join("access.log");
        for id in 0..10 {
            // Every batch fills a file.
            let (log, thread) = AccessLog::start(path.clone(), 1).expect("starts");
            log.write(line(id));
            drop(log);
            thread.join().expect("no panic");
        }
        let ids: Vec<String> = (1..=KEEP)
            .map(|number| std::fs::read_to_string(path.with_extension(format!("log.{number}"))).expect("a file"))
            .map(|text| serde_json::from_str::<AccessLine>(text.trim()).expect("a line").request_id)
            .collect();
        assert_eq!(ids, ["9", "8", "7", "6"]);
        assert_eq!(std::fs::read_dir(dir.path().join("logs")).expect("reads").count(), KEEP as usize);
    }

    #[test]
    fn a_disk_that_takes_nothing_stops_nobody_and_is_counted() {
        let dir = tempfile::tempdir().expect("a directory");
        // A file where the directory should be.
        let logs = dir.path().join("logs");
        std::fs::write(&logs, "").expect("writes");
        let dropped = Arc::new(AtomicU64::new(0));
        let path = logs.join("access.log");
        let mut writer =
            Writer { path: path.clone(), rotate: ROTATE, file: None, dropped: Arc::clone(&dropped), complained: false };
        writer.flush(&mut b"1\n2\n".to_vec());
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
        std::fs::remove_file(&logs).expect("removes");
        writer.flush(&mut b"3\n".to_vec());
        // Somebody else rotates: the next batch goes to a new file.
        std::fs::rename(&path, logs.join("elsewhere")).expect("renames");
        writer.flush(&mut b"4\n".to_vec());
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), "4\n");
    }
}
