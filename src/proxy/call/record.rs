//! What is known of a call when it is over.
//!
//! Made when the call is asked, filled in as it goes, written when it is dropped: whatever ends a call ends its record
//! too. The only place that hears of every end.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use jiff::Timestamp;

use crate::domain::{AttemptOutcome, CallError, CallOutcome, FunctionKey, Times, Trigger};
use crate::proxy::claim::Instance;
use crate::proxy::worker::Worker;
use crate::wire::calls::CallRecord;
use crate::wire::proxy::AccessLine;

use super::Ask;

/// One call, from being asked to its end.
#[derive(Debug)]
pub struct Record {
    /// The thread it runs on.
    pub worker: Rc<Worker>,
    /// What was asked.
    pub ask: Ask,
    /// When, on the wall clock.
    pub at: Timestamp,
    /// When, for lengths of time.
    pub began: Instant,
    /// How long it was in line.
    pub queued: Duration,
    /// For how long of that no instance was ready.
    pub starting: Duration,
    /// The instance it was given to.
    pub instance: Option<Arc<Instance>>,
    /// What the instance answered, or what Landfall did.
    pub status: StatusCode,
    /// Why Landfall itself answered, where it did.
    pub reason: Option<&'static str>,
    /// How it ended. Until something else is known it was given up.
    pub outcome: AttemptOutcome,
    /// Bytes of its body.
    pub bytes_in: u64,
    /// Bytes of its answer.
    pub bytes_out: u64,
}

impl Record {
    /// Begins with a call that was just asked.
    pub fn begin(worker: &Rc<Worker>, ask: Ask) -> Self {
        worker.calls.set(worker.calls.get() + 1);
        Self {
            worker: Rc::clone(worker),
            ask,
            at: Timestamp::now(),
            began: Instant::now(),
            queued: Duration::ZERO,
            starting: Duration::ZERO,
            instance: None,
            status: GIVEN_UP,
            reason: None,
            outcome: AttemptOutcome::Cancelled,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    fn write_access_line(&self) {
        let shared = &self.worker.shared;
        if !shared.settings.load().access_log {
            return;
        }
        let millis = |time: Duration| time.as_micros() as f64 / 1000.0;
        shared.access_log.write(AccessLine {
            at: self.at,
            request_id: self.ask.call.to_string(),
            client: String::new(),
            method: "CALL".to_owned(),
            host: String::new(),
            path: String::new(),
            status: self.status.as_u16(),
            app: Some(self.ask.app.to_string()),
            object: Some(self.ask.function.to_string()),
            version: self.instance.as_ref().map(|instance| instance.version),
            instance: self.instance.as_ref().map(|instance| instance.id.to_string()),
            duration_ms: millis(self.began.elapsed()),
            queued_ms: millis(self.queued),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            reason: self.reason.map(str::to_owned),
        });
    }
}

impl Record {
    /// Where its time has gone until now.
    pub fn times(&self) -> Times {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let all = micros(self.began.elapsed());
        // One that never got to an instance has been in line all the time.
        let queued_us = if self.instance.is_some() { micros(self.queued).min(all) } else { all };
        Times { queued_us, starting_us: micros(self.starting).min(queued_us), running_us: all - queued_us }
    }

    /// For the history of calls, where nobody else keeps a record.
    fn tell(&self) {
        let Some(actor) = self.ask.actor.as_ref().filter(|_| !self.ask.kept.get()) else { return };
        let outcome = match self.outcome {
            AttemptOutcome::Succeeded => CallOutcome::Succeeded,
            AttemptOutcome::TimedOut => CallOutcome::TimedOut,
            AttemptOutcome::Cancelled => CallOutcome::Cancelled,
            AttemptOutcome::Failed | AttemptOutcome::Crashed | AttemptOutcome::Lost | AttemptOutcome::Refused => {
                CallOutcome::Failed
            }
        };
        self.worker.shared.records.tell(CallRecord {
            id: self.ask.call,
            function: FunctionKey::new(self.ask.app.clone(), self.ask.function.clone()),
            version: self.instance.as_ref().map(|instance| instance.version),
            instance: self.instance.as_ref().map(|instance| instance.id.clone()),
            trigger: Trigger::Call,
            actor: actor.clone(),
            outcome,
            status: self.status.as_u16(),
            created_at: self.at,
            times: self.times(),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            error: self.reason.map(|reason| CallError::new(reason, format!("answered {}", self.status.as_u16()))),
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.write_access_line();
        self.tell();
        self.worker.calls.set(self.worker.calls.get() - 1);
    }
}

/// "Client closed request", as in the access log of web requests; never sent.
const GIVEN_UP: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::BAD_REQUEST,
};
