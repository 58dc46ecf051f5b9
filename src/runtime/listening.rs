//! Which ports an instance listens on, for the message "it listens on 127.0.0.1:3000, not on $PORT (20111)".
//!
//! Reads `/proc` and so blocks for some milliseconds: only asked when something is wrong already. Finds
//! nothing where the app's files may not be read (another user, no root): then there is just no hint.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Addresses the processes of a session or group listen on, by TCP.
pub fn addresses(session: i32) -> Vec<SocketAddr> {
    let inodes: HashSet<u64> = processes(session).into_iter().flat_map(sockets).collect();
    if inodes.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        found.extend(text.lines().filter_map(listener).filter(|(_, inode)| inodes.contains(inode)).map(|(a, _)| a));
    }
    found.sort();
    found.dedup();
    found
}

/// Says where an instance listens when that is not where it should; `None` when it listens nowhere or rightly.
pub fn hint(session: i32, port: u16) -> Option<String> {
    let addresses = addresses(session);
    let reachable = |address: &SocketAddr| {
        address.port() == port && (address.ip().is_unspecified() || address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST))
    };
    if addresses.is_empty() || addresses.iter().any(reachable) {
        return None;
    }
    let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    Some(format!("it listens on {}, not on $PORT ({port})", list.join(" and ")))
}

fn processes(session: i32) -> Vec<u32> {
    let member = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut fields = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default().split(' ').skip(2);
        let wanted = session.to_string();
        fields.next() == Some(wanted.as_str()) || fields.next() == Some(wanted.as_str())
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(member).collect()
}

fn sockets(pid: u32) -> Vec<u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    links.filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()).collect()
}

/// The address and inode of a line of `/proc/net/tcp` in state LISTEN.
fn listener(line: &str) -> Option<(SocketAddr, u64)> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = fields.next()?;
    if fields.nth(1)? != LISTEN {
        return None;
    }
    let inode = fields.nth(5)?.parse().ok()?;
    let (ip, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Words of four bytes in the machine's own order.
    let words: Vec<[u8; 4]> = (0..ip.len() / 8)
        .filter_map(|i| u32::from_str_radix(ip.get(i * 8..i * 8 + 8)?, 16).ok())
        .map(u32::to_ne_bytes)
        .collect();
    let ip = match words.as_slice() {
        [v4] => IpAddr::V4(Ipv4Addr::from(*v4)),
        [a, b, c, d] => {
            let mut bytes = [0; 16];
            bytes.iter_mut().zip([a, b, c, d].into_iter().flatten()).for_each(|(to, from)| *to = *from);
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some((SocketAddr::new(ip, port), inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_listening_and_told_where() {
        let v4 = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let v4 = (v4.local_addr().expect("has one"), v4);
        let session = nix::unistd::getsid(None).expect("has one").as_raw();
        assert!(addresses(session).contains(&v4.0));
        assert_eq!(hint(session, v4.0.port()), None);
        let hint = hint(session, 1).expect("listens elsewhere");
        assert!(hint.contains(&v4.0.to_string()) && hint.ends_with("not on $PORT (1)"), "{hint}");
    }

    #[test]
    fn a_listener_on_ipv6_is_read() {
        let line = "   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1";
        assert_eq!(listener(line), Some(("[::1]:8080".parse().expect("an address"), 4711)));
        assert_eq!(listener(&line.replace(" 0A ", " 01 ")), None);
    }
}
