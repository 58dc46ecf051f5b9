//! Attempts that were refused, on record in the audit log: who they said they were, from where, what for.
//!
//! Invariant: whoever makes them, and however many, no more are written than [`BURST`] at once and one in [`EVERY`] from then on;
//! how many were left out is in the next entry.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::Request;
use http::StatusCode;
use serde_json::json;

use super::audit::word;
use super::peer::Peer;
use super::problem::Refusal;
use crate::decide::pacing::Pace;
use crate::domain::{Access, Actor};
use crate::engine::{Engine, NewEntry};

/// So many are written at once.
const BURST: f64 = 60.0;
/// Afterwards one in this time.
const EVERY: Duration = Duration::from_secs(10);
/// Longest path that is kept.
const PATH: usize = 200;

/// What somebody tried.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Who it was, as far as that is known.
    pub access: Option<Access>,
    peer: Option<Peer>,
    method: String,
    path: String,
    /// On record whatever it is answered.
    always: bool,
}

impl Attempt {
    /// What a request asks for.
    pub fn of(request: &Request) -> Self {
        Self {
            access: None,
            peer: request.extensions().get::<Peer>().copied(),
            method: request.method().as_str().chars().take(20).collect(),
            path: request.uri().path().chars().take(PATH).collect(),
            always: false,
        }
    }

    /// A try to sign in: on record also where it failed for somebody else's fault.
    pub fn on_the_way_in(self) -> Self {
        Self { always: true, ..self }
    }
}

/// Bounds what is written.
#[derive(Debug, Default)]
pub struct Refused {
    pace: Mutex<Pace<()>>,
    left_out: AtomicU64,
}

impl Refused {
    /// Records an attempt, in the background.
    pub fn note(&self, engine: &Engine, attempt: Attempt, refusal: &Refusal) {
        if !attempt.always && !matches!(refusal.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return;
        }
        let permit = self.pace.lock().unwrap_or_else(PoisonError::into_inner).take(
            &(),
            EVERY.as_secs_f64().recip(),
            BURST,
            Instant::now(),
        );
        if permit.is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut detail = json!({"method": attempt.method, "path": attempt.path});
        let left_out = self.left_out.swap(0, Ordering::Relaxed);
        if left_out > 0 {
            detail["left_out_before"] = json!(left_out);
        }
        let (actor, via) = match attempt.access {
            Some(access) => (access.actor, word(&access.via)),
            None => (Actor::User { name: "unknown".to_owned() }, "unknown"),
        };
        let address = attempt.peer.and_then(Peer::address).map(|address| address.to_string());
        let entry = NewEntry { actor, via, address, action: "refused".to_owned(), app: None, detail, before: None };
        let result = json!({"status": refusal.status().as_u16(), "title": refusal.title()});
        let engine = engine.clone();
        tokio::spawn(async move {
            if let Err(error) = engine.audit_done(entry, result).await {
                tracing::error!("a refused attempt could not be recorded: {error}");
            }
        });
    }
}
