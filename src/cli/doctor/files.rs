//! The data directory: who may read and write what, the key of secrets, sockets.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Finding, Patient};
use crate::secrets::KeyRing;

/// A port of this machine answers at once or not at all.
const CONNECT: Duration = Duration::from_secs(2);
/// Nobody but the agent may read these, where they are.
const PRIVATE: [&str; 5] = ["run/token.key", "run/tokens.json", "certificates", "acme", "secrets.key"];

pub(super) fn check(patient: &Patient) -> Vec<Finding> {
    let Some(data_dir) = &patient.data_dir else {
        let mend = "run `landfall doctor` on the agent's machine";
        return vec![Finding::warning("data", "the agent is elsewhere: its files and sockets are not looked at", mend)];
    };
    let mut found = directory(data_dir);
    let key_file = patient.config.as_ref().and_then(|config| config.secrets.key_file.clone());
    found.push(key(&key_file.unwrap_or_else(|| data_dir.join("secrets.key"))));
    found.extend(sockets(patient, data_dir));
    found.extend(ports(patient));
    found
}

fn directory(data_dir: &Path) -> Vec<Finding> {
    const CHECK: &str = "data";
    let about = match data_dir.metadata() {
        Ok(about) if about.is_dir() => about,
        Ok(_) => {
            let mend = "name another `data_dir`, or move what is there away";
            return vec![Finding::failure(CHECK, format!("{} is no directory", data_dir.display()), mend)];
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return vec![Finding::ok(
                CHECK,
                format!("{} is not there yet: the first start makes it", data_dir.display()),
            )];
        }
        Err(error) => {
            let what = format!("{} cannot be looked at: {error}", data_dir.display());
            return vec![Finding::failure(CHECK, what, "run `landfall doctor` as the agent's user, or as root")];
        }
    };
    let mut found = Vec::new();
    if about.mode() & 0o002 != 0 {
        let what = format!("everybody may write in {}", data_dir.display());
        found.push(Finding::failure(CHECK, what, format!("`chmod o-w {}`", data_dir.display())));
    }
    for name in PRIVATE {
        let path = data_dir.join(name);
        // What is not there, or hidden from us, is open to nobody.
        let Ok(about) = path.symlink_metadata() else { continue };
        if about.mode() & 0o077 != 0 {
            let mode = about.mode() & 0o777;
            let what = format!("others than the agent may read {} (mode {mode:o})", path.display());
            let mend = format!("`chmod go-rwx {}`, and renew what it held: others may have read it", path.display());
            found.push(Finding::failure(CHECK, what, mend));
        }
    }
    if found.is_empty() {
        found.push(Finding::ok(CHECK, format!("{}: only the agent may read its keys", data_dir.display())));
    }
    found
}

fn key(file: &Path) -> Finding {
    const CHECK: &str = "secrets key";
    match KeyRing::read(file) {
        Ok(Some(_)) => {
            Finding::ok(CHECK, format!("{} can be read; keep a copy of it apart from the ledger's", file.display()))
        }
        Ok(None) => Finding::ok(CHECK, format!("{} is made with the first secret that is stored", file.display())),
        Err(error) => {
            let denied =
                std::fs::File::open(file).err().is_some_and(|error| error.kind() == ErrorKind::PermissionDenied);
            if denied {
                let mend = "run `landfall doctor` as the agent's user, or as root, to have it checked";
                return Finding::warning(CHECK, format!("{} may not be read by this user", file.display()), mend);
            }
            let mend = "put the copy of the key file back: without it the secrets in the ledger cannot be opened";
            Finding::failure(CHECK, error.to_string(), mend)
        }
    }
}

/// How a socket's file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Answers,
    Stale,
    Missing,
    NoSocket,
    Forbidden,
}

fn standing(path: &Path) -> Standing {
    match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Standing::Forbidden,
        Err(_) => return Standing::Missing,
        Ok(about) if !about.file_type().is_socket() => return Standing::NoSocket,
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Standing::Answers,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Standing::Forbidden,
        Err(_) => Standing::Stale,
    }
}

fn sockets(patient: &Patient, data_dir: &Path) -> Vec<Finding> {
    const CHECK: &str = "sockets";
    let runs = patient.status.is_some();
    let own = ["control.sock", "calls.sock", "apps.sock"].map(|name| data_dir.join("run").join(name));
    let all: Vec<PathBuf> = patient.socket.iter().cloned().chain(own).collect();
    let mut found = Vec::new();
    for path in &all {
        let shown = path.display();
        match (standing(path), runs) {
            (Standing::Answers, true) | (Standing::Missing, false) => {}
            (Standing::Answers, false) => found.push(Finding::warning(
                CHECK,
                format!("something listens at {shown}, but no agent answers"),
                "look at the agent's log: it starts, or it hangs",
            )),
            (Standing::Stale, false) => found.push(Finding::warning(
                CHECK,
                format!("{shown} was left behind by an agent that has ended"),
                "start the agent: it takes its place",
            )),
            (Standing::Stale, true) => {
                found.push(Finding::failure(CHECK, format!("nobody listens at {shown}"), "start the agent anew"));
            }
            (Standing::Missing, true) => found.push(Finding::failure(
                CHECK,
                format!("{shown} is gone while the agent runs"),
                "start the agent anew, and let nothing tidy up there",
            )),
            (Standing::NoSocket, _) => found.push(Finding::failure(
                CHECK,
                format!("{shown} is no socket"),
                "move it away, and start the agent anew",
            )),
            (Standing::Forbidden, _) => found.push(Finding::warning(
                CHECK,
                format!("this user may not use {shown}"),
                "run `landfall doctor` as the agent's user, or as root",
            )),
        }
    }
    if found.is_empty() {
        let words = if runs { "all answer" } else { "none is left behind" };
        found.push(Finding::ok(CHECK, words));
    }
    found
}

/// Whether apps can be reached, or can be once the agent runs.
fn ports(patient: &Patient) -> Vec<Finding> {
    const CHECK: &str = "addresses";
    let configured = patient.config.as_ref().map(|config| &config.proxy);
    let addresses: Vec<SocketAddr> = match (&patient.status, configured) {
        (Some(status), _) => status.listen.proxy.iter().filter_map(|text| text.parse().ok()).collect(),
        (None, Some(proxy)) => {
            proxy.listen.iter().copied().chain(proxy.tls.iter().flat_map(|tls| tls.listen.clone())).collect()
        }
        (None, None) => Vec::new(),
    };
    let runs = patient.status.is_some();
    let taken = addresses.into_iter().map(|address| {
        let answers = TcpStream::connect_timeout(&reachable(address), CONNECT).is_ok();
        match (runs, answers) {
            (true, true) => Finding::ok(CHECK, format!("apps answer at {address}")),
            (true, false) => Finding::failure(
                CHECK,
                format!("nobody answers at {address}, where apps should"),
                "look at `landfall status` and the agent's log: the proxy may be starting",
            ),
            (false, false) => Finding::ok(CHECK, format!("{address} is free")),
            (false, true) => Finding::failure(
                CHECK,
                format!("another program listens at {address} already"),
                format!(
                    "end it (`ss -ltnp` shows which), or name another address in `proxy.listen`; port {}",
                    address.port()
                ),
            ),
        }
    });
    taken.collect()
}

/// From this machine: an address that stands for all is reached at the loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use super::super::Level;
    use super::*;

    #[test]
    fn keys_that_others_may_read_are_a_failure_with_their_path() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        let key = dir.path().join("run/token.key");
        std::fs::write(&key, "key").unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(directory(dir.path())[0].level, Level::Ok);
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
        let found = directory(dir.path());
        assert_eq!((found.len(), found[0].level), (1, Level::Failure));
        assert!(found[0].message.contains("run/token.key (mode 640)"), "{}", found[0].message);
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(directory(dir.path()).len(), 2);
        assert_eq!(directory(&dir.path().join("none"))[0].level, Level::Ok);
        assert_eq!(directory(&key)[0].level, Level::Failure);
    }

    #[test]
    fn a_socket_answers_is_stale_or_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        assert_eq!(standing(&path), Standing::Missing);
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(standing(&path), Standing::Answers);
        drop(listener);
        assert_eq!(standing(&path), Standing::Stale);
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert_eq!(standing(&dir.path().join("file")), Standing::NoSocket);
    }

    #[test]
    fn a_key_file_is_there_missing_or_broken() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secrets.key");
        assert_eq!(key(&file).level, Level::Ok);
        std::fs::write(&file, "nonsense").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(key(&file).level, Level::Failure);
        std::fs::remove_file(&file).unwrap();
        KeyRing::new().unwrap().write(&file).unwrap();
        assert_eq!(key(&file).level, Level::Ok);
    }
}
