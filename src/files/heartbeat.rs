//! `heartbeat`: the address that hears now and then that the agent is alive.

use std::time::Duration;

use super::keys::{Default, Key, Kind, Table};
use super::record::Record;
use super::schedule_keys::PING_URL;
use crate::domain::manifest::Millis;

const EVERY: Millis = Millis::seconds(60);

/// Who hears that the agent is alive, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatConfig {
    /// The address.
    pub url: String,
    /// Between two beats.
    pub every: Duration,
}

pub(super) static HEARTBEAT: Table = Table {
    what: "the agent's heartbeat",
    place: "heartbeat",
    keys: &[
        Key {
            name: "url",
            kind: Kind::Text(&PING_URL),
            default: Default::Required,
            doc: "An address of a monitoring service that raises the alarm when nobody asks for it in time.",
        },
        Key {
            name: "every",
            kind: Kind::Duration(Millis::seconds(1), Millis::seconds(24 * 3600)),
            default: Default::Duration(EVERY),
            doc: "It is asked for this often.",
        },
    ],
};

/// The heartbeat, if there is one.
pub(super) fn heartbeat(config: &Record) -> Option<HeartbeatConfig> {
    let heartbeat = config.record("heartbeat")?;
    Some(HeartbeatConfig { url: heartbeat.text("url")?.to_owned(), every: heartbeat.duration("every")?.duration() })
}
