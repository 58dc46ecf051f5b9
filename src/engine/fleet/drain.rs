//! Outdated instances: taken from the routes, drained, stopped.
//!
//! ```text
//! published without it ─► Drain sent ─► every proxy: Drained ─► stopped
//!                              └─ drain time over ─► Cut ─► every proxy: Drained, or a moment later ─► stopped
//! ```

use std::time::Duration;

use tokio::time::Instant;

use super::{State, Timer};
use crate::domain::manifest::{Millis, ObjectKind};
use crate::domain::{InstanceId, InstanceState};
use crate::wire::proxy::ToProxy;

/// Close frames to WebSockets are spread over this share of the drain time.
const STAGGER_SHARE: u64 = 4;
/// After the cut a proxy has this long to end what is left.
const AFTER_CUT: Duration = Duration::from_secs(2);

impl State {
    /// Drains and stops these instances. Their app's routes must have been published without them, or be about
    /// to be in this very call's [`State::publish`].
    pub(super) fn retire(&mut self, instances: &[InstanceId]) {
        self.publish();
        let mut draining = Vec::new();
        let mut longest = Millis(0);
        for id in instances {
            let Some(inst) = self.instances.get_mut(id) else { continue };
            if matches!(inst.state, InstanceState::Stopping | InstanceState::Exited) {
                continue;
            }
            if let Some(probe) = inst.probe.take() {
                probe.abort();
            }
            if inst.kind == ObjectKind::Worker || inst.pid.is_none() {
                self.stop_instance(id);
                continue;
            }
            // A failing instance keeps its state, so that its end is not taken for a second failure.
            if inst.state != InstanceState::Failing {
                inst.state = InstanceState::Outdated;
            }
            let deadline = Instant::now() + inst.drain.duration();
            inst.drain_deadline = Some(deadline);
            longest = longest.max(inst.drain);
            self.timers.insert((deadline, Timer::DrainOver { instance: id.clone() }));
            draining.push(id.clone());
        }
        if draining.is_empty() {
            return;
        }
        // On each connection this follows the table without them, and proxies take messages in order.
        let stagger = Millis(longest.0 / STAGGER_SHARE);
        self.broadcast(&ToProxy::Drain { instances: draining.clone(), stagger });
        for id in &draining {
            self.stop_if_drained(id);
        }
    }

    /// What a proxy that has just connected must be told to drain.
    pub(super) fn draining(&self) -> Vec<InstanceId> {
        self.instances.iter().filter(|(_, inst)| inst.drain_deadline.is_some()).map(|(id, _)| id.clone()).collect()
    }

    pub(super) fn drained(&mut self, id: &InstanceId, connection: u64) {
        if let Some(inst) = self.instances.get_mut(id) {
            inst.drained_by.insert(connection);
            self.stop_if_drained(id);
        }
    }

    /// Stops an instance once every proxy process has said that nothing is on it. A proxy that is alive but not
    /// connected may still serve requests on it, so it counts as not having said so.
    pub(super) fn stop_if_drained(&mut self, id: &InstanceId) {
        let Some(inst) = self.instances.get(id) else { return };
        if inst.drain_deadline.is_none() || matches!(inst.state, InstanceState::Stopping) {
            return;
        }
        if self.proxies.all_have_drained(&inst.drained_by) {
            self.stop_instance(id);
        }
    }

    /// Looks again at everything that drains, after the set of proxies has changed.
    pub(super) fn recheck_drains(&mut self) {
        for id in self.draining() {
            self.stop_if_drained(&id);
        }
    }

    pub(super) fn drain_over(&mut self, id: &InstanceId) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        if inst.drain_deadline.is_none() || inst.state == InstanceState::Stopping {
            return;
        }
        if inst.cut {
            self.stop_instance(id);
            return;
        }
        inst.cut = true;
        self.after(AFTER_CUT, Timer::DrainOver { instance: id.clone() });
        self.broadcast(&ToProxy::Cut { instances: vec![id.clone()] });
    }
}
