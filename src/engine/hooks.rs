//! Push hooks on their way from the API to the watcher of their source.
//!
//! [`receive`] checks one and records it; the [`HookBook`] of the source is what its watcher and the receivers share.
//! Everything durable is in the ledger. Neighbours: `source::hook` knows forges and signatures; `watcher` looks.
//!
//! ```text
//! body, headers ─► genuine? ─no─► Refused (a counter, now and then a line in the log; never a row)
//!                     └─► meant for the source? ─► recorded, with the mark ─► announced ─► Taken
//! ```
//!
//! Invariants: a hook is answered, and announced to the watcher, only after it is committed, so a look that starts after
//! [`HookBook::take_mark`] sees what was pushed before any hook that was taken. To the sender a source that does not
//! exist, one without secrets and a wrong signature are the same, in the answer and in the work they cause.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Notify;
use tracing::{debug, warn};

use super::reconciler::internal;
use super::watcher::Watching;
use super::{CommandError, Result};
use crate::domain::{Event, EventKind, HookOutcome, LastHook, SourceName};
use crate::files::config::{GitReference, GitSource, SourceKind};
use crate::ledger::{Connection, Ledger, facts, sources};
use crate::source::hook::{Claim, Hint, Secrets, Told, Unreadable};

/// At most one line per source about refused hooks in this time.
const QUIET: Duration = Duration::from_secs(60);

/// A hook as it came.
#[derive(Debug)]
pub struct Hook {
    /// The source it was sent to, as the sender wrote it.
    pub source: String,
    /// What its headers claim.
    pub claim: Claim,
    /// Its body.
    pub body: bytes::Bytes,
}

/// What became of a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookAnswer {
    /// No source of this name takes hooks, or the signature is wrong. Which of these is for the log alone.
    Refused,
    /// It is genuine, but cannot be understood.
    Unreadable {
        /// What is wrong.
        what: String,
        /// What to do.
        mend: String,
    },
    /// It is recorded.
    Taken {
        /// The source.
        source: SourceName,
        /// What follows.
        outcome: HookOutcome,
        /// The same in words.
        message: String,
    },
}

/// A bound for lines in the log that strangers can cause.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    said: Mutex<Option<Instant>>,
    unsaid: AtomicU64,
}

impl Quiet {
    /// Whether a line may be written now, and how many were not since the last one.
    fn speak(&self, now: Instant) -> Option<u64> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_some_and(|said| now.duration_since(said) < QUIET) {
            self.unsaid.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        *said = Some(now);
        Some(self.unsaid.swap(0, Ordering::Relaxed))
    }
}

/// How a hook looks from inside.
enum Checked {
    Refused(String),
    Unreadable(Unreadable),
    Meant(HookOutcome, Option<String>),
}

/// Checks a hook and records what it says. `watching` is the source it names, if there is one; `strangers` bounds what
/// is logged about those that name none.
pub(super) async fn receive(
    ledger: &Ledger,
    watching: Option<&Watching>,
    strangers: &Quiet,
    hook: Hook,
) -> Result<HookAnswer> {
    let git = watching.and_then(|watching| match &watching.config.kind {
        SourceKind::Git(git) => Some(git),
        SourceKind::Directory(_) => None,
    });
    let files = git.and_then(|git| git.webhook.as_ref()).map(|webhook| webhook.secret_files.clone());
    let reference = git.map_or(GitReference::Head, |git| git.reference.clone());
    let provider = hook.claim.provider();
    let named = hook.source.clone();
    // Reading secrets may wait for a disk, and a large body takes milliseconds.
    let checking = tokio::task::spawn_blocking(move || check(&hook, files, &reference));
    let checked = checking.await.map_err(|error| CommandError::Internal { what: error.to_string() })?;
    let (outcome, gone) = match checked {
        Checked::Refused(why) => {
            refuse(watching, strangers, &named, &why);
            return Ok(HookAnswer::Refused);
        }
        Checked::Unreadable(error) => {
            if let Some(watching) = watching
                && watching.hooks.quiet.speak(Instant::now()).is_some()
            {
                warn!(source = %watching.config.name, %provider, "{error}; {}", error.mend());
            }
            return Ok(HookAnswer::Unreadable { what: error.to_string(), mend: error.mend().to_owned() });
        }
        Checked::Meant(outcome, gone) => (outcome, gone),
    };
    // What is genuine was compared with the secrets of a repository that is configured.
    let (Some(watching), Some(git)) = (watching, git) else { return Ok(HookAnswer::Refused) };
    let source = watching.config.name.clone();
    let last = LastHook { at: Timestamp::now(), provider, outcome };
    let name = source.clone();
    let recorded = ledger.write(move |ledger| record(ledger, &name, last, gone)).await.map_err(internal)?;
    if !recorded {
        let what = format!("source {source} is just being removed from the configuration");
        return Err(CommandError::Unavailable { what, mend: "remove the hook at the forge as well".into() });
    }
    watching.hooks.announce(last);
    debug!(%source, %provider, outcome = outcome.as_str(), "a hook was taken");
    let message = words(&source, git, outcome);
    Ok(HookAnswer::Taken { source, outcome, message })
}

/// Blocking.
fn check(hook: &Hook, files: Option<Vec<PathBuf>>, reference: &GitReference) -> Checked {
    let (secrets, troubles) = files.as_deref().map(Secrets::read).unwrap_or_default();
    let genuine = hook.claim.is_genuine(&hook.body, secrets.as_ref().unwrap_or(&Secrets::nobodys()));
    let trouble = troubles.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    match (&files, &secrets) {
        (None, _) => return Checked::Refused("no git source of this name has a `webhook` in the configuration".into()),
        (Some(_), None) => return Checked::Refused(trouble),
        (Some(_), Some(_)) if !genuine => {
            let beside = if trouble.is_empty() { trouble } else { format!(" ({trouble})") };
            let provider = hook.claim.provider();
            return Checked::Refused(format!(
                "it is not signed with a secret of the source{beside}; give the hook at {provider} the secret in `webhook.secret_files`"
            ));
        }
        (Some(_), Some(_)) => {}
    }
    match hook.claim.told(&hook.body) {
        Err(error) => Checked::Unreadable(error),
        Ok(Told::Ping) => Checked::Meant(HookOutcome::Ping, None),
        Ok(Told::Other) => Checked::Meant(HookOutcome::Ignored, None),
        Ok(Told::Pushed(push)) => match push.meant_for(reference) {
            Hint::Look => Checked::Meant(HookOutcome::Accepted, None),
            Hint::Elsewhere => Checked::Meant(HookOutcome::Ignored, None),
            Hint::Deleted(name) => Checked::Meant(HookOutcome::Deleted, Some(name)),
        },
    }
}

fn refuse(watching: Option<&Watching>, strangers: &Quiet, named: &str, why: &str) {
    let quiet = watching.map_or(strangers, |watching| &watching.hooks.quiet);
    if let Some(watching) = watching {
        watching.hooks.refuse();
    }
    if let Some(unsaid) = quiet.speak(Instant::now()) {
        let named: String = named.chars().take(60).collect();
        warn!(source = ?named, others_since_the_last_such_line = unsaid, "a push hook was refused: {why}");
    }
}

/// Answers whether the source is still there.
fn record(
    ledger: &Connection,
    source: &SourceName,
    hook: LastHook,
    gone: Option<String>,
) -> crate::ledger::Result<bool> {
    let Some(before) = sources::last_hook(ledger, source)? else { return Ok(false) };
    sources::record_hook(ledger, source, &hook)?;
    // Said once: a delivery that is repeated is no news.
    let news = before.is_none_or(|before| before.outcome != HookOutcome::Deleted);
    if let Some(name) = gone.filter(|_| news) {
        let message = format!(
            "{name} was deleted at {}; what runs goes on. Push it again, or let source {source} follow another",
            hook.provider
        );
        let kind = EventKind::SourceRefDeleted;
        let event = Event {
            at: hook.at,
            kind,
            app: None,
            version: None,
            source: Some(source.clone()),
            object: None,
            cause: None,
            message,
        };
        facts::event(ledger, &event)?;
    }
    Ok(true)
}

fn words(source: &SourceName, git: &GitSource, outcome: HookOutcome) -> String {
    let follows = &git.reference;
    match outcome {
        HookOutcome::Accepted => format!("source {source} is looked at"),
        HookOutcome::Ignored => format!("source {source} follows {follows}; this is not about it"),
        HookOutcome::Deleted => format!("source {source} follows {follows}, which was deleted; what runs goes on"),
        HookOutcome::Ping => format!("source {source} takes hooks and follows {follows}"),
    }
}

/// The live side of a source's hooks.
#[derive(Debug, Default)]
pub(super) struct HookBook {
    last: Mutex<Option<LastHook>>,
    refused: AtomicU64,
    quiet: Quiet,
    /// The ledger says that there is more to see.
    marked: AtomicBool,
    wake: Notify,
}

impl HookBook {
    /// From what the ledger remembers.
    pub(super) fn new(last: Option<LastHook>, dirty: bool) -> Self {
        let book = Self { last: Mutex::new(last), marked: AtomicBool::new(dirty), ..Self::default() };
        if dirty {
            book.wake.notify_one();
        }
        book
    }

    /// The last genuine hook.
    pub(super) fn last(&self) -> Option<LastHook> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many were refused.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// One more was refused.
    fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A hook was recorded.
    fn announce(&self, hook: LastHook) {
        {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_none_or(|last| last.at <= hook.at) {
                *last = Some(hook);
            }
        }
        if hook.outcome == HookOutcome::Accepted {
            self.marked.store(true, Ordering::Release);
            self.wake.notify_one();
        }
    }

    /// Whether the ledger's mark must be cleared before the look that begins now.
    pub(super) fn take_mark(&self) -> bool {
        self.marked.swap(false, Ordering::AcqRel)
    }

    /// Returns when a hook has been announced since the last time.
    pub(super) async fn announced(&self) {
        self.wake.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Provider;

    fn hook(second: i64, outcome: HookOutcome) -> LastHook {
        let at = Timestamp::from_second(second).expect("a time");
        LastHook { at, provider: Provider::GitHub, outcome }
    }

    #[test]
    fn only_hooks_that_say_so_mark_the_source() {
        let book = HookBook::new(None, false);
        book.announce(hook(1, HookOutcome::Ping));
        assert!(!book.take_mark());
        book.announce(hook(2, HookOutcome::Accepted));
        assert!(book.take_mark());
        assert!(!book.take_mark(), "a mark is taken once");
        assert_eq!(book.last(), Some(hook(2, HookOutcome::Accepted)));
    }

    #[test]
    fn hooks_that_end_out_of_order_leave_the_newest() {
        let book = HookBook::new(None, false);
        book.announce(hook(5, HookOutcome::Accepted));
        book.announce(hook(4, HookOutcome::Ignored));
        assert_eq!(book.last(), Some(hook(5, HookOutcome::Accepted)));
    }

    #[test]
    fn refusals_are_told_once_a_minute_and_counted() {
        let (quiet, start) = (Quiet::default(), Instant::now());
        assert_eq!(quiet.speak(start), Some(0));
        for second in 1..60 {
            assert_eq!(quiet.speak(start + Duration::from_secs(second)), None);
        }
        assert_eq!(quiet.speak(start + QUIET), Some(59));
    }

    #[tokio::test]
    async fn a_mark_left_by_the_controller_before_is_announced() {
        let book = HookBook::new(None, true);
        book.announced().await;
        assert!(book.take_mark());
    }
}
