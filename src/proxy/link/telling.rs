//! What the proxy tells its controller: ends of calls, loads, answers, drains, and what it waits for.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedWriteHalf;
use tokio::time::timeout;

use super::super::queue::Object;
use super::{Link, Lost};
use crate::domain::attempt::INLINE;
use crate::domain::{AppKey, Grants, InstanceId, ObjectName, VersionNumber};
use crate::wire::calls::Ended;
use crate::wire::frame::encode;
use crate::wire::proxy::{FromProxy, ObjectLoad};

/// A controller that reads nothing for this long is no controller.
const SEND: Duration = Duration::from_secs(10);
/// Results in one message, in bytes, before they are written as JSON.
const ENDS_IN_BYTES: u64 = 4 * 1024 * 1024;
/// Objects whose answers go into one message.
const ANSWERS: usize = 500;

/// What belongs to one connection.
pub(super) struct Talk {
    write: OwnedWriteHalf,
    /// Drains that were asked for here and not reported yet.
    pub(super) asked: HashSet<InstanceId>,
    /// Instances of which was said here that a call on them is overdue.
    given_up: HashSet<InstanceId>,
    /// What was last said of each object.
    said: HashMap<Which, ObjectLoad>,
}

impl Talk {
    pub(super) fn new(write: OwnedWriteHalf) -> Self {
        Self { write, asked: HashSet::new(), given_up: HashSet::new(), said: HashMap::new() }
    }

    pub(super) async fn send(&mut self, message: &FromProxy) -> Result<(), Lost> {
        let frame = encode(message)?;
        timeout(SEND, self.write.write_all(&frame)).await.map_err(|_| Lost::Stuck)??;
        Ok(())
    }

    /// In as many messages as it takes: results that go along may be many.
    pub(super) async fn send_ends(&mut self, ended: Vec<Ended>) -> Result<(), Lost> {
        let length = |one: &Ended| one.result.as_ref().map_or(0, |result| result.payload.bytes.min(INLINE as u64));
        let (mut piece, mut bytes) = (Vec::new(), 0);
        for one in ended {
            bytes += length(&one);
            piece.push(one);
            if bytes >= ENDS_IN_BYTES {
                bytes = 0;
                self.send(&FromProxy::Ended { ended: std::mem::take(&mut piece) }).await?;
            }
        }
        if piece.is_empty() { Ok(()) } else { self.send(&FromProxy::Ended { ended: piece }).await }
    }
}

impl Link {
    pub(super) async fn tell_used(&self, grants: &Grants, talk: &mut Talk) -> Result<(), Lost> {
        let tokens = grants.take_used();
        if tokens.is_empty() { Ok(()) } else { talk.send(&FromProxy::TokensUsed { tokens }).await }
    }

    pub(super) async fn tell_drained(&mut self, instance: InstanceId, talk: &mut Talk) -> Result<(), Lost> {
        self.registry.forget_unused();
        if talk.asked.remove(&instance) {
            talk.send(&FromProxy::Drained { instance }).await?;
        }
        Ok(())
    }

    /// Said once on each connection: a controller that was away hears of it when it is back.
    pub(super) async fn tell_given_up(&self, talk: &mut Talk) -> Result<(), Lost> {
        talk.given_up.retain(|id| self.registry.instance(id).is_some());
        for instance in self.registry.given_up() {
            if let Some(call) = instance.given_up_for()
                && talk.given_up.insert(instance.id.clone())
            {
                talk.send(&FromProxy::Overdue { instance: instance.id.clone(), call }).await?;
            }
        }
        Ok(())
    }

    /// A new controller has not heard of waves that began before.
    pub(super) async fn repeat_wanted(&self, talk: &mut Talk) -> Result<(), Lost> {
        for route in self.registry.routes() {
            let object = &*route.object;
            if object.is_wanted() && object.waiting() > 0 {
                talk.send(&wanted(object)).await?;
            }
        }
        Ok(())
    }

    /// What was answered since this was last told. What a broken line did not take whole, the controller has not read: it
    /// is told on the next one. What it took may be lost with its reader, and is never told twice.
    pub(super) async fn tell_answers(&self, talk: &mut Talk) -> Result<(), Lost> {
        let untold: Vec<&Arc<Object>> = self.registry.untold().collect();
        for some in untold.chunks(ANSWERS) {
            let taken: Vec<_> = some.iter().filter_map(|object| Some((*object, object.traffic.take()?))).collect();
            let objects = taken.iter().map(|(object, taken)| taken.of(object)).collect();
            if let Err(lost) = talk.send(&FromProxy::Answers { objects }).await {
                taken.iter().for_each(|(object, taken)| object.traffic.give_back(taken));
                return Err(lost);
            }
        }
        Ok(())
    }

    pub(super) async fn report(&mut self, talk: &mut Talk) -> Result<(), Lost> {
        self.tell_used(&self.shared.grants.load_full(), talk).await?;
        self.tell_answers(talk).await?;
        self.registry.forget_unused();
        let mut loads: HashMap<Which, ObjectLoad> = HashMap::new();
        for route in self.registry.routes() {
            let object = &route.object;
            loads.insert(
                which(object),
                ObjectLoad {
                    app: object.app.clone(),
                    object: object.name.clone(),
                    pinned: object.pinned,
                    in_flight: route.instances.iter().map(|one| (one.id.clone(), one.in_flight())).collect(),
                    queued: u32::try_from(object.waiting()).unwrap_or(u32::MAX),
                    requests: object.requests(),
                },
            );
        }
        for instance in self.registry.leaving() {
            let object = &instance.object;
            if let Some(load) = loads.get_mut(&which(object))
                && !load.in_flight.iter().any(|(id, _)| *id == instance.id)
            {
                load.in_flight.push((instance.id.clone(), instance.in_flight()));
            }
        }
        let changed: Vec<ObjectLoad> = loads
            .iter()
            .filter(|(key, load)| talk.said.get(*key) != Some(*load))
            .map(|(_, load)| load.clone())
            .collect();
        talk.said = loads;
        if changed.is_empty() {
            return Ok(());
        }
        talk.send(&FromProxy::Load { objects: changed }).await
    }
}

/// What tells objects apart.
type Which = (AppKey, ObjectName, Option<VersionNumber>);

fn which(object: &Object) -> Which {
    (object.app.clone(), object.name.clone(), object.pinned)
}

pub(super) fn wanted(object: &Object) -> FromProxy {
    FromProxy::Wanted { app: object.app.clone(), object: object.name.clone(), pinned: object.pinned }
}
