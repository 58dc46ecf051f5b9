//! Choosing a port for an instance.
//!
//! A port is free when nothing is bound to it on any address; it may be taken by someone else between this
//! look and the instance's own `bind`. That is rare, because the range lies outside the one the kernel hands out for
//! outgoing connections, and shows as a failed start, which is tried again with another port.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;

use tokio::net::TcpSocket;

/// Ports instances get.
pub const RANGE: RangeInclusive<u16> = 20_000..=29_999;

/// Every port of [`RANGE`] is taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no free port between {} and {} is left for another instance", RANGE.start(), RANGE.end())]
pub struct NoFreePort;

/// A free port that is not `used` (by an instance that may not have bound it yet).
pub fn choose(used: impl Fn(u16) -> bool) -> Result<u16, NoFreePort> {
    let ephemeral = ephemeral_range();
    let outside = |port: &u16| !ephemeral.contains(port);
    // Where an operator has widened the kernel's range over ours, one inside it is better than none.
    find(&used, outside).or_else(|| find(&used, |_| true)).ok_or(NoFreePort)
}

fn find(used: &impl Fn(u16) -> bool, allowed: impl Fn(&u16) -> bool) -> Option<u16> {
    let start = fastrand::u16(RANGE);
    let ports = (start..=*RANGE.end()).chain(*RANGE.start()..start);
    ports.filter(allowed).find(|port| !used(*port) && is_free(*port))
}

/// Bound for a moment and never listened on, so nobody can connect by mistake.
fn is_free(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    TcpSocket::new_v4().and_then(|socket| socket.bind(address)).is_ok()
}

fn ephemeral_range() -> RangeInclusive<u16> {
    const DEFAULT: RangeInclusive<u16> = 32_768..=60_999;
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_ascii_whitespace().filter_map(|number| number.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(first), Some(last)) => first..=last,
        _ => DEFAULT,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_chosen_port_is_in_range_free_and_not_promised_to_another() {
        let mut used = HashSet::new();
        for _ in 0..50 {
            let port = choose(|port| used.contains(&port)).expect("there is one");
            assert!(RANGE.contains(&port) && used.insert(port));
            std::net::TcpListener::bind(("127.0.0.1", port)).expect("it is free");
        }
    }

    #[test]
    fn a_port_someone_listens_on_is_not_free() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        assert!(!is_free(listener.local_addr().expect("has one").port()));
    }

    #[test]
    fn when_all_are_used_it_says_so() {
        assert_eq!(choose(|_| true), Err(NoFreePort));
    }
}
