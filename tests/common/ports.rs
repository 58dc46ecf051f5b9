//! Ports for servers that a test starts, and for addresses where nobody is to answer.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::Mutex;

/// Outside what the kernel hands out for outgoing connections and for port 0, and outside what agents give their
/// instances ([`landfall::runtime::ports::RANGE`]): what is free stays free until the server that is started next binds it.
const RANGE: Range<u16> = 10_000..20_000;

/// A port nothing listens on, that no other test of this program gets.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let start = fastrand::u16(RANGE);
    let mut ports = (start..RANGE.end).chain(RANGE.start..start);
    let free = |port: &u16| given.insert(*port) && TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok();
    ports.find(free).expect("a free port")
}
