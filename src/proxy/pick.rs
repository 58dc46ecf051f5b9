//! Which instance a request claims: the one with the least requests of two, then any that has a place.
//!
//! Pure over the instances' counters. Two random choices keep the load within a constant of the best possible
//! without every thread running to the same instance between two reports.

use std::sync::Arc;

use super::claim::{Claim, Instance, Refusal};

/// Why no instance could be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// There is none.
    Empty,
    /// All take nothing new: the table is old.
    Draining,
    /// At least one is open, all open ones are full.
    Full,
}

/// Claims a place on one of `instances`, not on the one with the serial number `avoid` if there is any other.
pub fn pick(instances: &[Arc<Instance>], limit: u32, avoid: Option<u64>) -> Result<Claim, NoPlace> {
    let count = instances.len();
    if count == 0 {
        return Err(NoPlace::Empty);
    }
    let start = if count == 1 { 0 } else { fastrand::usize(..count) };
    if count > 1 {
        let other = (start + 1 + fastrand::usize(..count - 1)) % count;
        let better = if instances[other].in_flight() < instances[start].in_flight() { other } else { start };
        if Some(instances[better].serial) != avoid
            && let Ok(claim) = instances[better].claim(limit)
        {
            return Ok(claim);
        }
    }
    scan(instances, start, limit, avoid)
}

/// One after the other, the one to avoid last.
fn scan(instances: &[Arc<Instance>], start: usize, limit: u32, avoid: Option<u64>) -> Result<Claim, NoPlace> {
    let mut reason = NoPlace::Draining;
    let (before, after) = instances.split_at(start);
    let in_order = || after.iter().chain(before);
    let preferred = in_order().filter(|instance| Some(instance.serial) != avoid);
    let avoided = in_order().filter(|instance| Some(instance.serial) == avoid);
    for instance in preferred.chain(avoided) {
        match instance.claim(limit) {
            Ok(claim) => return Ok(claim),
            Err(Refusal::Full) => reason = NoPlace::Full,
            Err(Refusal::Draining) => {}
        }
    }
    Err(reason)
}
