//! From host and path, or a function's name, to a claimed instance: the only way a request gets one.
//!
//! Used by `forward.rs` and `call/`. Looks in the table, claims, waits in line where it must.
//!
//! ```text
//!            ┌──────── the table is another one now ◄──┐
//! look ──► claim ──► claimed                           │
//!            ├─► all draining ─────────────────────────┴─► same table: as if there were no instance
//!            ├─► all full ─► in line ─► (a place, a new table) ─► look
//!            └─► no instance ─► refused, or in line and the controller is told once
//! ```
//!
//! Invariant: a request is refused for want of an instance only if the table it saw is still the published one. The
//! table without an instance is published before that instance drains, so a refused claim finds the new table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::answer::Trouble;
use super::claim::Claim;
use super::guarding;
use super::pick::{NoPlace, pick};
use super::queue::{Object, Ticket};
use super::shared::Shared;
use super::table::{Lookup, Route, Table};
use crate::domain::{AppKey, ObjectName, VersionNumber};
use crate::wire::proxy::WhenEmpty;

/// A request that may go to an instance.
#[derive(Debug)]
pub struct Admitted {
    /// Its route.
    pub route: Arc<Route>,
    /// Its place.
    pub claim: Claim,
    /// How long it waited.
    pub queued: Duration,
    /// For how long of that no instance was ready.
    pub starting: Duration,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// What it is for.
    pub target: Target<'a>,
    /// The body's length, where it is known.
    pub length: Option<u64>,
    /// The token that was sent along.
    pub bearer: Option<&'a str>,
    /// The instance that did not accept a connection a moment ago.
    pub avoid: Option<u64>,
}

/// What a request is for.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// A web object, by what the client asked for.
    Web {
        /// Host as sent.
        host: &'a str,
        /// Path as sent.
        path: &'a str,
    },
    /// A function.
    Function {
        /// Its app.
        app: &'a AppKey,
        /// Its name.
        function: &'a ObjectName,
        /// The version whose code is wanted; without one the live version's.
        version: Option<VersionNumber>,
    },
}

/// What one look gave.
enum Look {
    Admitted(Arc<Route>, Claim),
    Wait(Arc<Route>),
    Refused(Trouble),
}

/// Finds the route and claims an instance, waiting for one as long as the route allows.
pub async fn admit(shared: &Shared, asking: Asking<'_>) -> Result<Admitted, Trouble> {
    let route = match look(shared, asking, None) {
        Look::Admitted(route, claim) => {
            return Ok(Admitted { route, claim, queued: Duration::ZERO, starting: Duration::ZERO });
        }
        Look::Refused(trouble) => return Err(trouble),
        Look::Wait(route) => route,
    };
    let began = Instant::now();
    match timeout(route.queue_timeout, wait(shared, asking, route)).await {
        Ok(Ok((route, claim))) => {
            let queued = began.elapsed();
            let starting = route.object.starting_since(began).min(queued);
            Ok(Admitted { route, claim, queued, starting })
        }
        Ok(Err(trouble)) => Err(trouble),
        Err(_) => Err(Trouble::QueueTimeout),
    }
}

async fn wait(shared: &Shared, asking: Asking<'_>, first: Arc<Route>) -> Result<(Arc<Route>, Claim), Trouble> {
    let mut ticket = first.object.line_up(first.queue).ok_or(Trouble::QueueFull)?;
    loop {
        if ticket.is_front() {
            match look(shared, asking, Some(&ticket)) {
                Look::Admitted(route, claim) => return Ok((route, claim)),
                Look::Refused(trouble) => return Err(trouble),
                Look::Wait(route) if ticket.is_for(&route.object) => {}
                Look::Wait(route) => {
                    // Another object has this host and path now.
                    ticket = route.object.line_up(route.queue).ok_or(Trouble::QueueFull)?;
                    continue;
                }
            }
        }
        ticket.turn().await;
    }
}

fn look(shared: &Shared, asking: Asking<'_>, ticket: Option<&Ticket>) -> Look {
    let mut table = shared.table.load();
    loop {
        let route = match find(shared, &table, asking) {
            Ok(route) => route,
            Err(trouble) => return Look::Refused(trouble),
        };
        // First come, first served: who is not in line goes to its end.
        let may_claim = route.object.waiting() == 0 || ticket.is_some_and(|ticket| ticket.is_for(&route.object));
        if !may_claim {
            return Look::Wait(Arc::clone(route));
        }
        match pick(&route.instances, route.concurrency, asking.avoid) {
            Ok(claim) => return Look::Admitted(Arc::clone(route), claim),
            Err(NoPlace::Full) => return Look::Wait(Arc::clone(route)),
            Err(NoPlace::Empty | NoPlace::Draining) => {
                let now = shared.table.load();
                if Arc::ptr_eq(&now, &table) {
                    return empty(shared, route);
                }
                table = now;
            }
        }
    }
}

/// The largest body that what is asked for takes now; 0 when it is there no more.
pub fn limit_of(shared: &Shared, asking: Asking<'_>) -> u64 {
    find(shared, &shared.table.load(), Asking { length: None, ..asking }).map_or(0, |route| route.max_body)
}

/// The object that what is asked for belongs to now, whether or not it may be had.
pub fn object_of(shared: &Shared, asking: Asking<'_>) -> Option<Arc<Object>> {
    match lookup(&shared.table.load(), asking.target) {
        Lookup::Found(route) => Some(Arc::clone(&route.object)),
        _ => None,
    }
}

fn lookup<'a>(table: &'a Table, target: Target<'_>) -> Lookup<'a> {
    match target {
        Target::Web { host, path } => table.find(host, path),
        Target::Function { app, function, version } => table.find_function(app, function, version),
    }
}

fn find<'a>(shared: &Shared, table: &'a Table, asking: Asking<'_>) -> Result<&'a Arc<Route>, Trouble> {
    let found = lookup(table, asking.target);
    // Before anything is told of the app, and before a place in its line is taken.
    if let Lookup::Found(route) = found
        && route.needs_token
    {
        guarding::may_call(shared, &route.object.app, asking.bearer)?;
    }
    match found {
        Lookup::Found(route) if asking.length.is_some_and(|length| length > route.max_body) => {
            Err(Trouble::TooLarge { limit: route.max_body })
        }
        Lookup::Found(route) => Ok(route),
        Lookup::UnknownHost => Err(Trouble::UnknownHost),
        Lookup::UnknownPath => Err(Trouble::UnknownPath),
        Lookup::Ambiguous => Err(Trouble::AmbiguousPath),
        Lookup::UnknownApp | Lookup::UnknownFunction | Lookup::UnknownVersion => {
            Err(unknown(table, asking.target, &found))
        }
    }
}

/// Who calls an app by its name may know its functions; which apps they may know only they who checked them can say.
fn unknown(table: &Table, target: Target<'_>, found: &Lookup<'_>) -> Trouble {
    let Target::Function { app, function, version: _ } = target else { return Trouble::UnknownHost };
    match found {
        Lookup::UnknownApp => Trouble::UnknownApp { app: app.clone(), near: None },
        Lookup::UnknownFunction => Trouble::UnknownFunction { near: table.function_near(app, function) },
        _ => Trouble::UnknownVersion,
    }
}

fn empty(shared: &Shared, route: &Arc<Route>) -> Look {
    match &route.when_empty {
        WhenEmpty::Refuse { reason } => Look::Refused(Trouble::NotReady { reason: reason.clone() }),
        WhenEmpty::Wait => {
            want(shared, &route.object);
            Look::Wait(Arc::clone(route))
        }
    }
}

fn want(shared: &Shared, object: &Arc<Object>) {
    if object.begin_wave() && shared.wanted.try_send(Arc::clone(object)).is_err() {
        // The link has a thousand to tell already; the next request of this object tries again.
        object.end_wave();
    }
}
