//! What containers write, on its way into Landfall's own log files.
//!
//! The engine keeps a copy of its own, with times; so a controller that was away reads on where the last line in the
//! log file was written. The supervisor writes the files: all of them stay below one limit.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;
use futures_util::StreamExt;
use jiff::Timestamp;
use tokio_util::task::AbortOnDropHandle;

use super::connection::status;
use super::{Shared, inspect};

/// Lines are handed on when so many bytes have come …
const BATCH: usize = 64 * 1024;
/// … or after this long.
const PATIENCE: Duration = Duration::from_millis(50);
/// After an engine that did not answer it is asked again.
const AGAIN: Duration = Duration::from_millis(500);
/// The end of a log file in which the last line is looked for.
const TAIL: u64 = 64 * 1024;

/// Brings a container's output into its log until the container has ended. `after`: lines up to this time are there
/// already.
pub(super) fn follow(
    shared: &Arc<Shared>,
    container: String,
    log: PathBuf,
    after: Option<Timestamp>,
) -> AbortOnDropHandle<()> {
    let shared = Arc::downgrade(shared);
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut reader = Reader { container, log, after, batch: String::new() };
        while let Then::Again = reader.read(&shared).await {
            tokio::time::sleep(AGAIN).await;
        }
    }))
}

enum Then {
    Ended,
    Again,
}

struct Reader {
    container: String,
    log: PathBuf,
    after: Option<Timestamp>,
    batch: String,
}

impl Reader {
    /// Reads until the stream ends: then the container has, or the engine does not answer any more.
    async fn read(&mut self, shared: &Weak<Shared>) -> Then {
        let Some(client) = self.client(shared).await else {
            return if shared.strong_count() == 0 { Then::Ended } else { Then::Again };
        };
        let since = self.after.map_or(0, |at| i32::try_from(at.as_second()).unwrap_or(0));
        let options = LogsOptions {
            follow: true,
            stdout: true,
            stderr: true,
            timestamps: true,
            since,
            tail: "all".to_owned(),
            ..Default::default()
        };
        let mut stream = std::pin::pin!(client.logs(&self.container, Some(options)));
        let mut failed = None;
        loop {
            let next = if self.batch.is_empty() {
                stream.next().await
            } else {
                match tokio::time::timeout(PATIENCE, stream.next()).await {
                    Ok(next) => next,
                    Err(_) => {
                        self.flush(shared).await;
                        continue;
                    }
                }
            };
            match next {
                Some(Ok(output)) => self.take(&output),
                Some(Err(error)) => {
                    failed = Some(error);
                    break;
                }
                None => break,
            }
            if self.batch.len() >= BATCH {
                self.flush(shared).await;
            }
        }
        self.flush(shared).await;
        match failed {
            Some(error) if matches!(status(&error), Some(404 | 409 | 501)) => Then::Ended,
            Some(_) => Then::Again,
            None => match inspect::container(&client, &self.container).await {
                Ok(seen) if seen.running => Then::Again,
                Ok(_) => Then::Ended,
                Err(error) if status(&error) == Some(404) => Then::Ended,
                Err(_) => Then::Again,
            },
        }
    }

    async fn client(&self, shared: &Weak<Shared>) -> Option<bollard::Docker> {
        shared.upgrade()?.client().await.ok()
    }

    async fn flush(&mut self, shared: &Weak<Shared>) {
        let lines = std::mem::take(&mut self.batch);
        if lines.is_empty() {
            return;
        }
        if let Some(shared) = shared.upgrade() {
            shared.append(&self.log, lines).await;
        }
    }

    fn take(&mut self, output: &LogOutput) {
        let (source, message) = match output {
            LogOutput::StdErr { message } => ("stderr", message),
            LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message } => {
                ("stdout", message)
            }
        };
        let (at, text) = timed(message);
        let at = at.unwrap_or_else(Timestamp::now);
        if self.after.is_some_and(|after| at <= after) {
            return;
        }
        self.after = Some(at);
        // A line that is too long for the engine comes in pieces; all but the last have no end.
        let (tag, text) = match text.strip_suffix(b"\n") {
            Some(whole) => ('F', whole.strip_suffix(b"\r").unwrap_or(whole)),
            None => ('P', text),
        };
        let text = String::from_utf8_lossy(text).replace('\n', " ");
        self.batch.push_str(&format!("{at:.9} {source} {tag} {text}\n"));
    }
}

/// The time in front of a line, and the line.
fn timed(message: &[u8]) -> (Option<Timestamp>, &[u8]) {
    let Some(space) = message.iter().take(64).position(|byte| *byte == b' ') else { return (None, message) };
    let (time, rest) = message.split_at(space);
    match std::str::from_utf8(time).ok().and_then(|text| text.parse().ok()) {
        Some(at) => (Some(at), rest.get(1..).unwrap_or_default()),
        None => (None, message),
    }
}

/// When the last line of a container's own in a log file was written.
pub(super) fn last_line(path: &Path) -> Option<Timestamp> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    let mut times = bytes.split(|byte| *byte == b'\n').rev().filter_map(|line| {
        let (at, rest) = timed(line);
        Some((at?, rest.starts_with(b"stdout ") || rest.starts_with(b"stderr ")))
    });
    let mut oldest = None;
    times.find_map(|(at, own)| {
        oldest = Some(at);
        own.then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(after: Option<Timestamp>) -> Reader {
        Reader { container: "c".into(), log: "l".into(), after, batch: String::new() }
    }

    fn out(text: &str) -> LogOutput {
        LogOutput::StdOut { message: text.to_owned().into() }
    }

    #[test]
    fn lines_get_the_format_of_all_logs_and_keep_their_times() {
        let mut reader = reader(None);
        reader.take(&out("2026-11-28T17:00:00.000000001Z hello\n"));
        reader.take(&LogOutput::StdErr { message: "2026-11-28T17:00:01Z half".into() });
        assert_eq!(
            reader.batch,
            "2026-11-28T17:00:00.000000001Z stdout F hello\n2026-11-28T17:00:01.000000000Z stderr P half\n"
        );
    }

    #[test]
    fn what_is_in_the_file_already_is_not_written_again() {
        let after = "2026-11-28T17:00:00.5Z".parse().ok();
        let mut reader = reader(after);
        reader.take(&out("2026-11-28T17:00:00.4Z before\n"));
        reader.take(&out("2026-11-28T17:00:00.5Z the last one\n"));
        reader.take(&out("2026-11-28T17:00:00.6Z after\n"));
        assert_eq!(reader.batch, "2026-11-28T17:00:00.600000000Z stdout F after\n");
    }

    #[test]
    fn the_last_line_of_the_container_is_found_behind_lines_of_landfall() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("x.log");
        let text =
            "2026-11-28T17:00:00.1Z stdout F a\n2026-11-28T17:00:00.2Z stderr F b\n2026-11-28T17:00:09Z system F c\n";
        std::fs::write(&path, text).expect("written");
        assert_eq!(last_line(&path), "2026-11-28T17:00:00.2Z".parse().ok());
        assert_eq!(last_line(&directory.path().join("none")), None);
    }
}
