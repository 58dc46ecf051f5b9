//! What is known of a call when it is over.
//!
//! Made when the call is asked, filled in as it goes, written when it is dropped: whatever ends a call ends its record
//! too. The only place that hears of every end.

use std::rc::Rc;
use std::time::Duration;

use http::StatusCode;

use crate::domain::{AttemptOutcome, CallError, CallOutcome, FunctionKey, Trigger};
use crate::proxy::answer::Trouble;
use crate::proxy::worker::Worker;
use crate::wire::calls::CallRecord;
use crate::wire::proxy::{AccessLine, WhyOver};

use super::Ask;
use super::underway::UnderWay;

/// One call, from being asked to its end.
#[derive(Debug)]
pub struct Record {
    /// The thread it runs on.
    pub worker: Rc<Worker>,
    /// What was asked, and how far it has come.
    pub call: Rc<UnderWay>,
    slot: usize,
    /// What the instance answered, or what Landfall did.
    pub status: StatusCode,
    /// Why Landfall itself answered, where it did.
    pub reason: Option<&'static str>,
    /// The same in a sentence.
    pub words: Option<String>,
    /// How it ended. Until something else is known it was given up.
    pub outcome: AttemptOutcome,
    /// Bytes of its body.
    pub bytes_in: u64,
    /// Bytes of its answer.
    pub bytes_out: u64,
}

impl Record {
    /// Begins with a call that was just asked.
    pub fn begin(worker: &Rc<Worker>, ask: Rc<Ask>) -> Self {
        let call = UnderWay::begin(ask);
        let slot = worker.under_way.insert(&call);
        Self {
            worker: Rc::clone(worker),
            call,
            slot,
            status: GIVEN_UP,
            reason: None,
            words: None,
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
        let (call, instance) = (&*self.call, self.call.instance());
        shared.access_log.write(AccessLine {
            at: call.at,
            request_id: call.ask.call.to_string(),
            client: String::new(),
            method: "CALL".to_owned(),
            host: String::new(),
            path: String::new(),
            status: self.status.as_u16(),
            app: Some(call.ask.app.to_string()),
            object: Some(call.ask.function.to_string()),
            version: instance.as_ref().map(|instance| instance.version),
            instance: instance.as_ref().map(|instance| instance.id.to_string()),
            duration_ms: millis(call.began.elapsed()),
            queued_ms: millis(call.queued.get()),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            reason: self.reason.map(str::to_owned),
        });
    }
}

impl Record {
    /// For the history of calls, where nobody else keeps a record.
    fn tell(&self) {
        let (ask, instance) = (&self.call.ask, self.call.instance());
        let Some(actor) = ask.actor.as_ref().filter(|_| !ask.kept.get()) else { return };
        let outcome = match self.outcome {
            AttemptOutcome::Succeeded => CallOutcome::Succeeded,
            AttemptOutcome::TimedOut => CallOutcome::TimedOut,
            AttemptOutcome::Cancelled => CallOutcome::Cancelled,
            AttemptOutcome::Failed | AttemptOutcome::Crashed | AttemptOutcome::Lost | AttemptOutcome::Refused => {
                CallOutcome::Failed
            }
        };
        self.worker.shared.records.tell(CallRecord {
            id: ask.call,
            function: FunctionKey::new(ask.app.clone(), ask.function.clone()),
            version: instance.as_ref().map(|instance| instance.version),
            instance: instance.as_ref().map(|instance| instance.id.clone()),
            trigger: Trigger::Call,
            actor: actor.clone(),
            outcome,
            status: self.status.as_u16(),
            created_at: self.call.at,
            times: self.call.times(),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            error: self.error(),
            trace: ask.trace,
        });
    }
}

impl Record {
    fn error(&self) -> Option<CallError> {
        let reason = self.reason?;
        let instance = self.call.instance();
        let words = match (self.call.ended_by(), instance.and_then(|instance| instance.why_over())) {
            (Some(actor), _) if self.outcome == AttemptOutcome::Cancelled => format!("{actor} ended the call"),
            // It broke off in the middle of its answer.
            (_, Some(WhyOver::OutOfMemory { limit })) if self.outcome == AttemptOutcome::Crashed => {
                let trouble = Trouble::OutOfMemory { limit };
                return Some(CallError::new(trouble.code().1, trouble.what()));
            }
            (_, _) => self.words.clone().unwrap_or_else(|| format!("answered {}", self.status.as_u16())),
        };
        Some(CallError::new(reason, words))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.write_access_line();
        self.tell();
        self.worker.under_way.remove(self.slot);
    }
}

/// "Client closed request", as in the access log of web requests; never sent.
const GIVEN_UP: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::BAD_REQUEST,
};
