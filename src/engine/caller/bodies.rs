//! Files of bodies and results that are too long for the record, and what is no longer kept of calls.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use tracing::{info, warn};

use crate::domain::attempt::{Blob, INLINE, body_file, result_file};
use crate::domain::{AttemptId, CallId, Payload, Place};
use crate::engine::records::Settings;
use crate::ledger::calls::{self, Expired};
use crate::ledger::{Ledger, LedgerError};
use crate::whole;

/// The record of a call is kept this many times as long as what it carried.
const RECORDS_KEPT_TIMES: i32 = 4;
/// Calls that expire, or are forgotten, in one commit.
const AT_ONCE: u32 = 500;

/// Where bodies and results lie, and how long.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Bodies {
    directory: PathBuf,
    settings: Arc<ArcSwap<Settings>>,
}

impl Bodies {
    /// In the data directory; how long is looked up each time.
    pub fn new(settings: Arc<ArcSwap<Settings>>) -> Self {
        let directory = settings.load().data_dir.join("calls");
        Self { directory, settings }
    }

    /// A body as it goes into the record: a long one is written to its file first, and is on disk when this answers.
    pub async fn keep(&self, call: CallId, media: Option<String>, bytes: bytes::Bytes) -> io::Result<Payload> {
        if bytes.len() <= INLINE {
            return Ok(Payload::inline(media, bytes.into()));
        }
        let (directory, length) = (self.directory.clone(), bytes.len() as u64);
        let written = tokio::task::spawn_blocking(move || {
            let name = body_file(call);
            whole::write(&directory.join(&name), &directory.join(format!("{name}.part")), &bytes)
        });
        written.await.map_err(io::Error::other)??;
        Ok(Payload::file(media, length))
    }

    /// Another call's body, as that of this one.
    pub async fn copy(&self, from: CallId, to: CallId, payload: Payload) -> io::Result<Payload> {
        if payload.place == Place::File {
            let (from, to) = (self.directory.join(body_file(from)), self.directory.join(body_file(to)));
            // Nobody ever writes to a body again: two names for one file are as good as two files.
            tokio::fs::hard_link(from, to).await?;
        }
        Ok(payload)
    }

    /// The bytes of a result; `None` when it is no longer kept.
    pub async fn result(&self, attempt: AttemptId, payload: Payload) -> io::Result<Option<Vec<u8>>> {
        match payload.place {
            Place::Inline(Blob(bytes)) => Ok(Some(bytes)),
            Place::File => tokio::fs::read(self.directory.join(result_file(attempt))).await.map(Some),
            Place::Expired => Ok(None),
        }
    }

    /// Removes what a crash left behind: files that no recorded call needs.
    pub async fn sweep(&self, ledger: &Ledger) -> Result<(), LedgerError> {
        let needed = ledger.read(calls::body_files).await?;
        let directory = self.directory.clone();
        let swept = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&directory)?;
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700))?;
            for entry in std::fs::read_dir(&directory)? {
                let entry = entry?;
                if !needed.contains(entry.file_name().to_string_lossy().as_ref()) {
                    std::fs::remove_file(entry.path())?;
                }
            }
            io::Result::Ok(())
        });
        if let Ok(Err(error)) = swept.await {
            warn!(directory = %self.directory.display(), %error, "left-over bodies of calls cannot be removed");
        }
        Ok(())
    }

    /// Gives up what is older than it is kept.
    pub async fn tidy(&self, ledger: &Ledger, now: Timestamp) -> Result<(), LedgerError> {
        let keep = SignedDuration::try_from(self.settings.load().keep_calls).unwrap_or(SignedDuration::MAX);
        let before = |times: i32| now.checked_sub(keep.saturating_mul(times)).unwrap_or(Timestamp::MIN);
        let (results, records) = (before(1), before(RECORDS_KEPT_TIMES));
        loop {
            let expired = ledger.write(move |ledger| calls::expire(ledger, results, AT_ONCE)).await?;
            let Expired { calls, files } = expired;
            for file in files {
                // Gone already is as good.
                let _ = tokio::fs::remove_file(self.directory.join(file)).await;
            }
            if calls > 0 {
                info!(calls, "bodies and results of old calls are removed");
            }
            if calls < AT_ONCE as usize {
                break;
            }
        }
        while ledger.write(move |ledger| calls::forget(ledger, records, AT_ONCE)).await? == AT_ONCE as usize {}
        Ok(())
    }
}
