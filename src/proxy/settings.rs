//! What a proxy is told at its start, and what the controller may change later.
//!
//! Made by `main.rs` from arguments and inherited descriptors; read by `mod.rs` and `connection.rs`.

use std::net::{IpAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tracing::error;

use crate::wire::proxy::ProxyOptions;

use super::ProxyError;
use super::inherited;
use super::worker::Timings;

/// Everything a proxy needs to run.
#[derive(Debug)]
pub struct ProxySettings {
    /// The data directory: control socket, routes and access log lie in it.
    pub data_dir: PathBuf,
    /// Listening sockets for HTTP.
    pub listeners: Vec<TcpListener>,
    /// Listening sockets for HTTPS.
    pub tls_listeners: Vec<TcpListener>,
    /// The listening socket for calls of functions; without one none can be called.
    pub calls: Option<UnixListener>,
    /// Gets one byte once connections are accepted, then is closed.
    pub ready: Option<OwnedFd>,
    /// What the controller may change later.
    pub options: ProxyOptions,
    /// Threads; 0 is one for each processor.
    pub threads: usize,
    /// How long clients may take.
    pub timings: Timings,
}

impl ProxySettings {
    /// Settings of a proxy that was started by the supervisor.
    pub fn from_environment(data_dir: PathBuf, options: ProxyOptions) -> Result<Self, ProxyError> {
        let inherited = inherited::from_environment()?;
        Ok(Self {
            data_dir,
            listeners: inherited.listeners,
            tls_listeners: inherited.tls_listeners,
            calls: inherited.calls,
            ready: inherited.ready,
            options,
            threads: 0,
            timings: Timings::default(),
        })
    }

    /// Where the controller listens.
    pub fn control_socket(&self) -> PathBuf {
        self.data_dir.join("run").join("control.sock")
    }

    /// Where the controller answers apps.
    pub fn apps_socket(&self) -> PathBuf {
        self.data_dir.join("run").join("apps.sock")
    }

    /// The copy of the last route table.
    pub fn routes_file(&self) -> PathBuf {
        self.data_dir.join("run").join("routes.json")
    }

    /// The copy of the living tokens.
    pub fn tokens_file(&self) -> PathBuf {
        self.data_dir.join("run").join("tokens.json")
    }

    /// Where the controller lays certificates.
    pub fn certificates_directory(&self) -> PathBuf {
        self.data_dir.join("certificates")
    }

    /// Bodies and results of calls that are too long for the record.
    pub fn calls_directory(&self) -> PathBuf {
        self.data_dir.join("calls")
    }

    /// The access log.
    pub fn access_log(&self) -> PathBuf {
        self.data_dir.join("logs").join("access.log")
    }
}

/// The options in the form requests use them.
#[derive(Debug)]
pub struct Live {
    /// Peers whose headers about the client are believed.
    pub trusted: Vec<Network>,
    /// Whether requests are logged.
    pub access_log: bool,
    /// How long callers are kept waiting.
    pub call_wait: Duration,
    /// Functions are told of traces, of which one in so many is kept.
    pub traces: Option<u32>,
}

impl Default for Live {
    fn default() -> Self {
        Self::new(&ProxyOptions::default())
    }
}

impl Live {
    /// Networks that cannot be read are left out, and said: believing too few is the safe side.
    pub fn new(options: &ProxyOptions) -> Self {
        let trusted = options.trusted_proxies.iter().filter_map(|text| match text.parse() {
            Ok(network) => Some(network),
            Err(reason) => {
                error!(network = %text, reason, "trusted_proxies: this entry is ignored");
                None
            }
        });
        Self {
            trusted: trusted.collect(),
            access_log: options.access_log,
            call_wait: options.call_wait.duration(),
            traces: options.traces,
        }
    }

    /// Whether what this peer says about the client is believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.iter().any(|network| network.contains(peer))
    }
}

/// A network in CIDR form; an address alone is a network of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether the address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| "not an IP address; write 10.0.0.0/8")?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().ok().filter(|p| *p <= longest).ok_or("not a prefix length")?,
            None => longest,
        };
        Ok(Self { address, prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_networks_are_trusted() {
        let trusted_proxies = ["10.0.0.0/8", "192.0.2.7", "fd00::/8", "nonsense", "1.2.3.4/33"];
        let options =
            ProxyOptions { trusted_proxies: trusted_proxies.map(String::from).to_vec(), ..ProxyOptions::default() };
        let live = Live::new(&options);
        assert_eq!(live.trusted.len(), 3);
        for (address, expected) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("11.1.2.3", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("fd12::1", true),
            ("fe80::1", false),
        ] {
            assert_eq!(live.trusts(address.parse().expect("an address")), expected, "{address}");
        }
        let everyone: Network = "0.0.0.0/0".parse().expect("a network");
        assert!(everyone.contains("8.8.8.8".parse().expect("an address")));
    }
}
