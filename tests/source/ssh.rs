//! Repositories behind ssh: a real OpenSSH server, right and wrong keys on both sides, and connections that fail.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use landfall::files::config::{GitReference, GitSource, SshConfig};
use landfall::source::{Looker, SourceError, SourceErrorKind};

use crate::ports::free_port;
use crate::sshd::{Sshd, available, fingerprint, keygen, public, user};
use crate::support::{Fleet, Memory, Silent, listing, looker_of, paths, soon, within};

/// A repository with one app, a server before it, and a key that is let in.
struct Scene {
    fleet: Fleet,
    sshd: Sshd,
    ssh: SshConfig,
}

impl Scene {
    fn new() -> Option<Self> {
        Self::with(&["ed25519"], "")
    }

    fn with(host_keys: &[&str], more: &str) -> Option<Self> {
        if !available() {
            return None;
        }
        let fleet = Fleet::new();
        fleet.app("shop", "shop");
        fleet.push("first");
        let sshd = Sshd::serve(fleet.dir.path(), host_keys, more);
        let key_file = fleet.dir.path().join("key");
        sshd.authorize(&keygen(&key_file, &["-t", "ed25519"], ""));
        let known_hosts = fleet.dir.path().join("known_hosts");
        std::fs::write(&known_hosts, sshd.pin(host_keys[0])).unwrap();
        let ssh = SshConfig { key_file, passphrase_file: None, known_hosts_file: Some(known_hosts) };
        Some(Self { fleet, sshd, ssh })
    }

    fn url(&self) -> String {
        self.sshd.url(&self.fleet.bare())
    }

    fn looker(&self) -> Looker {
        self.looker_at(&self.url())
    }

    fn looker_at(&self, url: &str) -> Looker {
        let reference = GitReference::Branch("main".into());
        looker_of(&self.fleet.cache(), GitSource { reference, ssh: Some(self.ssh.clone()), ..GitSource::at(url) })
    }

    fn succeeds(&self) {
        let _ = std::fs::remove_dir_all(self.fleet.cache());
        assert_eq!(paths(&Memory::default().read(&mut self.looker())), ["shop"]);
    }

    fn error(&self) -> SourceError {
        Memory::default().look(&mut self.looker()).map(drop).unwrap_err()
    }

    fn known_hosts(&self) -> PathBuf {
        self.ssh.known_hosts_file.clone().unwrap()
    }

    fn pin(&self, text: &str) {
        std::fs::write(self.known_hosts(), text).unwrap();
    }
}

fn write_secret(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Does what an error's mend says, word by word.
fn run_mend(error: &SourceError) {
    let command = error.mend.rsplit_once("run: ").expect(&error.mend).1;
    let command = command.split(" and set `").next().unwrap();
    let output = Command::new("sh").arg("-c").arg(command).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_repository_is_followed_over_ssh() {
    let Some(scene) = Scene::new() else { return };
    let (mut looker, mut memory) = (scene.looker(), Memory::default());
    assert_eq!(paths(&memory.read(&mut looker)), ["shop"]);
    let before = listing(&scene.fleet.cache());
    assert!(memory.is_unchanged(&mut looker));
    assert_eq!(listing(&scene.fleet.cache()), before, "a look without news writes nothing");
    for round in 0..3 {
        scene.fleet.write("shop/x", &round.to_string());
        let commit = scene.fleet.push("more");
        let reading = memory.read(&mut looker);
        assert_eq!(reading.revision.commit.as_ref().unwrap().as_str(), commit);
        assert!(std::fs::read_to_string(reading.objects.join("shallow")).is_ok(), "one commit deep");
    }
}

#[test]
fn a_big_pack_comes_through_whole() {
    let Some(scene) = Scene::new() else { return };
    // More than a window of the protocol holds, and nothing that compresses.
    let noise: String = (0..6_000_000).map(|_| fastrand::alphanumeric()).collect();
    scene.fleet.write("shop/noise", &noise);
    scene.fleet.push("big");
    scene.succeeds();
}

#[test]
fn every_modern_key_signs_in_and_every_format_is_read() {
    let Some(mut scene) = Scene::new() else { return };
    for (arguments, passphrase) in [
        (&["-t", "ecdsa", "-b", "256"][..], ""),
        (&["-t", "ecdsa", "-b", "384"], ""),
        (&["-t", "ecdsa", "-b", "521"], ""),
        (&["-t", "rsa", "-b", "3072"], ""),
        (&["-t", "rsa", "-b", "2048", "-m", "PEM"], ""),
        (&["-t", "rsa", "-b", "2048", "-m", "PKCS8"], ""),
        (&["-t", "ed25519"], "open sesame"),
        (&["-t", "rsa", "-b", "2048"], "open sesame"),
        (&["-t", "ecdsa", "-m", "PKCS8"], "open sesame"),
    ] {
        scene.sshd.authorize(&keygen(&scene.ssh.key_file, arguments, passphrase));
        scene.ssh.passphrase_file = (!passphrase.is_empty()).then(|| scene.fleet.dir.path().join("passphrase"));
        if let Some(file) = &scene.ssh.passphrase_file {
            write_secret(file, &format!("{passphrase}\n"));
        }
        let result = Memory::default().look(&mut scene.looker());
        assert!(result.is_ok(), "{arguments:?} {passphrase:?}: {}", result.unwrap_err());
    }
}

#[test]
fn an_encrypted_key_needs_its_passphrase() {
    let Some(mut scene) = Scene::new() else { return };
    scene.sshd.authorize(&keygen(&scene.ssh.key_file, &["-t", "ed25519"], "open sesame"));
    let without = scene.error();
    assert_eq!(without.kind, SourceErrorKind::Credentials);
    assert!(without.to_string().contains("is encrypted") && without.mend.contains("passphrase_file"), "{without}");
    let file = scene.fleet.dir.path().join("passphrase");
    scene.ssh.passphrase_file = Some(file.clone());
    write_secret(&file, "open barley\n");
    let wrong = scene.error();
    assert_eq!(wrong.kind, SourceErrorKind::Credentials);
    assert!(wrong.to_string().contains(&format!("{} does not open", file.display())), "{wrong}");
    assert!(!wrong.to_string().contains("barley"), "{wrong}");
    let missing = file.with_file_name("nowhere");
    scene.ssh.passphrase_file = Some(missing.clone());
    assert!(scene.error().to_string().contains(&missing.display().to_string()));
    // Both are read at every look, so that putting it right is enough.
    scene.ssh.passphrase_file = Some(file.clone());
    write_secret(&file, "open sesame");
    scene.succeeds();
}

#[test]
fn a_key_the_server_does_not_know_is_named_with_user_and_fingerprint() {
    let Some(scene) = Scene::new() else { return };
    let other = scene.fleet.dir.path().join("other");
    scene.sshd.authorize(&keygen(&other, &["-t", "ed25519"], ""));
    let error = scene.error();
    assert_eq!(error.kind, SourceErrorKind::Auth, "{error}");
    let print = fingerprint(&scene.ssh.key_file);
    assert!(error.what.contains(&print) && error.what.contains(&format!("user `{}`", user())), "{error}");
    assert!(error.mend.ends_with(&public(&scene.ssh.key_file)), "{error}");
    assert!(!error.is_transient());
}

#[test]
fn a_key_rotated_in_its_file_is_used_at_the_next_look() {
    let Some(scene) = Scene::new() else { return };
    let (mut looker, mut memory) = (scene.looker(), Memory::default());
    memory.read(&mut looker);
    let fresh = scene.fleet.dir.path().join("fresh");
    scene.sshd.authorize(&keygen(&fresh, &["-t", "rsa", "-b", "2048"], ""));
    scene.fleet.write("shop/x", "1");
    scene.fleet.push("second");
    assert_eq!(memory.look(&mut looker).unwrap_err().kind, SourceErrorKind::Auth);
    std::fs::rename(&fresh, &scene.ssh.key_file).unwrap();
    assert_eq!(paths(&memory.read(&mut looker)), ["shop"]);
}

#[test]
fn a_changed_host_key_stops_everything_until_somebody_pins_it() {
    let Some(scene) = Scene::new() else { return };
    let old = scene.fleet.dir.path().join("old");
    let line = format!("{} {}\n", scene.sshd.name(), keygen(&old, &["-t", "ed25519"], ""));
    scene.pin(&line);
    let error = scene.error();
    assert_eq!(error.kind, SourceErrorKind::HostKeyChanged, "{error}");
    let (expected, offered) = (fingerprint(&old), fingerprint(&scene.sshd.host_key("ed25519")));
    assert!(error.what.contains(&format!("expected {expected}")), "{error}");
    assert!(error.what.contains(&format!("offered {offered}")), "{error}");
    assert!(error.what.contains(&format!("{}:1", scene.known_hosts().display())), "{error}");
    // Looking again does not make it trusted, and the file is as it was.
    assert_eq!(scene.error().kind, SourceErrorKind::HostKeyChanged);
    assert_eq!(std::fs::read_to_string(scene.known_hosts()).unwrap(), line);
    let log = std::fs::read_to_string(scene.sshd.dir.join("log")).unwrap();
    assert!(!log.contains("publickey"), "the key is not shown to a server that is not trusted: {log}");
    run_mend(&error);
    scene.succeeds();
}

#[test]
fn a_changed_key_under_a_hashed_name_is_mended_by_the_command_too() {
    let Some(scene) = Scene::new() else { return };
    let old = scene.fleet.dir.path().join("old");
    scene.pin(&format!("{} {}\nother {}\n", scene.sshd.name(), keygen(&old, &["-t", "ed25519"], ""), public(&old)));
    let hashed = Command::new("ssh-keygen").arg("-H").arg("-f").arg(scene.known_hosts()).output().unwrap();
    assert!(hashed.status.success());
    let error = scene.error();
    assert_eq!(error.kind, SourceErrorKind::HostKeyChanged, "{error}");
    run_mend(&error);
    scene.succeeds();
}

#[test]
fn an_unknown_host_is_refused_with_its_fingerprint_and_never_remembered() {
    let Some(mut scene) = Scene::new() else { return };
    scene.pin(&format!("other.example.com {}\n", public(&scene.sshd.host_key("ed25519"))));
    let print = fingerprint(&scene.sshd.host_key("ed25519"));
    for _ in 0..2 {
        let error = scene.error();
        assert_eq!(error.kind, SourceErrorKind::HostKeyUnknown, "{error}");
        assert!(error.what.contains(&print) && error.what.contains(&scene.sshd.name()), "{error}");
    }
    let error = scene.error();
    run_mend(&error);
    scene.succeeds();

    // The same without any file: the command starts one beside the key, and says what to configure.
    std::fs::remove_file(scene.known_hosts()).unwrap();
    let file = scene.ssh.known_hosts_file.take();
    let error = scene.error();
    assert_eq!(error.kind, SourceErrorKind::HostKeyUnknown, "{error}");
    assert!(error.mend.contains("set `git.ssh.known_hosts_file:"), "{error}");
    run_mend(&error);
    scene.ssh.known_hosts_file = file;
    scene.succeeds();
}

#[test]
fn a_pinned_type_is_asked_for_even_where_the_server_prefers_another() {
    let Some(scene) = Scene::with(&["rsa", "ed25519", "ecdsa"], "") else { return };
    scene.succeeds();
    scene.pin(&scene.sshd.pin("ecdsa"));
    scene.succeeds();
    scene.pin(&format!("@revoked * {}\n{}", public(&scene.sshd.host_key("ecdsa")), scene.sshd.pin("ecdsa")));
    let error = scene.error();
    assert_eq!(error.kind, SourceErrorKind::HostKeyChanged, "{error}");
    assert!(error.what.contains("is revoked by"), "{error}");
}

#[test]
fn files_that_others_may_read_or_change_are_refused_with_the_command() {
    let Some(mut scene) = Scene::new() else { return };
    let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(&scene.ssh.key_file, 0o644);
    let error = scene.error();
    assert_eq!(error.kind, SourceErrorKind::Credentials);
    assert!(error.what.contains("can be read by others"), "{error}");
    run_mend(&error);
    scene.succeeds();
    mode(&scene.known_hosts(), 0o666);
    let error = scene.error();
    assert!(error.what.contains("can be changed by others"), "{error}");
    run_mend(&error);
    scene.succeeds();
    let passphrase = scene.fleet.dir.path().join("passphrase");
    scene.sshd.authorize(&keygen(&scene.ssh.key_file, &["-t", "ed25519"], "open sesame"));
    write_secret(&passphrase, "open sesame");
    mode(&passphrase, 0o640);
    scene.ssh.passphrase_file = Some(passphrase);
    run_mend(&scene.error());
    scene.succeeds();
}

#[test]
fn a_file_that_is_no_private_key_is_told_apart() {
    let Some(mut scene) = Scene::new() else { return };
    let private = scene.ssh.key_file.clone();
    scene.ssh.key_file = private.with_extension("pub");
    std::fs::set_permissions(&scene.ssh.key_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(scene.error().to_string().contains("is a public key"), "{}", scene.error());
    scene.ssh.key_file = private.with_extension("missing");
    assert!(scene.error().to_string().contains("key.missing"), "{}", scene.error());
    scene.ssh.key_file = private;
    write_secret(&scene.ssh.key_file, "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n");
    assert!(scene.error().to_string().contains("not a private key that can be read"), "{}", scene.error());
}

#[test]
fn a_repository_the_server_does_not_have_is_told_in_the_servers_words() {
    let Some(scene) = Scene::new() else { return };
    let url = scene.sshd.url(&scene.fleet.dir.path().join("float.git"));
    let error = Memory::default().look(&mut scene.looker_at(&url)).map(drop).unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::NotFound, "{error}");
    assert!(
        error.what.contains("float.git") && error.what.contains("does not appear to be a git repository"),
        "{error}"
    );
}

#[test]
fn an_account_that_may_not_run_git_is_told_in_the_servers_words() {
    let Some(scene) = Scene::with(&["ed25519"], "ForceCommand echo 'no git for you' >&2; exit 3\n") else { return };
    let error = scene.error();
    assert_eq!(error.kind, SourceErrorKind::NotFound, "{error}");
    assert!(error.what.contains("no git for you"), "{error}");
    drop(scene);
    let Some(scene) = Scene::with(&["ed25519"], "ForceCommand exit 3\n") else { return };
    assert!(scene.error().what.contains("ended with status 3"), "{}", scene.error());
}

#[test]
fn a_server_that_says_nothing_costs_no_more_than_the_deadline() {
    let Some(scene) = Scene::with(&["ed25519"], "ForceCommand sleep 600\n") else { return };
    let silent: [&'static [u8]; 2] = [b"", b"SSH-2.0-OpenSSH_9.2\r\n"];
    let servers = silent.map(Silent::serve);
    let fake = servers.iter().map(|server| format!("ssh://git@127.0.0.1:{}/x", server.port));
    for url in fake.chain([scene.url()]) {
        let mut looker = scene.looker_at(&url);
        let started = Instant::now();
        let error =
            Memory::default().look_within(&mut looker, &within(Duration::from_millis(1500))).map(drop).unwrap_err();
        assert_eq!(error.kind, SourceErrorKind::Timeout, "{url}: {error}");
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    }
}

#[test]
fn a_look_over_ssh_can_be_cancelled_and_leaves_no_connection() {
    let Some(scene) = Scene::new() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut looker = scene.looker_at(&format!("ssh://git@{}/x", listener.local_addr().unwrap()));
    let limits = soon();
    let cancel = limits.cancel.clone();
    let look = std::thread::spawn(move || Memory::default().look_within(&mut looker, &limits).map(drop));
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap();
    // It has begun to agree on keys.
    let mut greeting = [0; 600];
    stream.read_exact(&mut greeting).unwrap();
    cancel.store(true, Ordering::Relaxed);
    assert_eq!(look.join().unwrap().unwrap_err().kind, SourceErrorKind::Cancelled);
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the connection ends with the look");
}

#[test]
fn what_is_no_ssh_server_and_nobody_at_all_are_network_errors() {
    let Some(scene) = Scene::new() else { return };
    let closed = free_port();
    let web = Silent::serve(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    for port in [closed, web.port] {
        let url = format!("ssh://git@127.0.0.1:{port}/x");
        let error = Memory::default()
            .look_within(&mut scene.looker_at(&url), &within(Duration::from_secs(3)))
            .map(drop)
            .unwrap_err();
        assert!(
            matches!(error.kind, SourceErrorKind::Network | SourceErrorKind::Protocol | SourceErrorKind::Timeout),
            "{error}"
        );
        assert!(error.to_string().contains("127.0.0.1"), "{error}");
    }
}

#[test]
fn the_short_form_of_an_address_goes_the_same_way() {
    let Some(scene) = Scene::new() else { return };
    // Its port is that of the machine's own server, if there is one: unknown to this file, and never signed in to.
    let error = Memory::default().look(&mut scene.looker_at("git@127.0.0.1:fleet.git")).map(drop).unwrap_err();
    assert!(matches!(error.kind, SourceErrorKind::Network | SourceErrorKind::HostKeyUnknown), "{error}");
    assert!(error.what.contains("127.0.0.1"), "{error}");
}

/// Passes one connection on to a server, and cuts it after so many bytes from there.
fn cutting(port: u16, after: u64) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        let _ = std::io::copy(&mut (&server).take(after), &mut &client);
        let _ = client.shutdown(std::net::Shutdown::Both);
        let _ = server.shutdown(std::net::Shutdown::Both);
    });
    own
}

fn one_pack(fleet: &Fleet) {
    let entries = std::fs::read_dir(fleet.cache().join("fleet.git/objects/pack")).unwrap();
    let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names.len(), 2, "one pack and its index: {names:?}");
}

#[test]
fn a_pack_cut_by_the_network_leaves_nothing_and_the_next_look_succeeds() {
    let Some(scene) = Scene::new() else { return };
    let noise: String = (0..200_000).map(|_| fastrand::alphanumeric()).collect();
    scene.fleet.write("shop/noise", &noise);
    scene.fleet.push("noise");
    let port = cutting(scene.sshd.port, 60_000);
    scene.pin(&format!(
        "[127.0.0.1]:{port} {}\n{}",
        public(&scene.sshd.host_key("ed25519")),
        scene.sshd.pin("ed25519")
    ));
    let url = scene.url().replace(&scene.sshd.port.to_string(), &port.to_string());
    let mut memory = Memory::default();
    let error = memory.look(&mut scene.looker_at(&url)).map(drop).unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::Network, "{error}");
    assert_eq!(paths(&memory.read(&mut scene.looker())), ["shop"]);
    one_pack(&scene.fleet);
}

#[test]
fn a_pack_cut_by_the_server_leaves_nothing_and_the_next_look_succeeds() {
    let cut = "ForceCommand eval \"$SSH_ORIGINAL_COMMAND\" | stdbuf -o0 head -c 60000\n";
    let Some(scene) = Scene::with(&["ed25519"], cut) else { return };
    let noise: String = (0..200_000).map(|_| fastrand::alphanumeric()).collect();
    scene.fleet.write("shop/noise", &noise);
    scene.fleet.push("noise");
    let mut memory = Memory::default();
    let error = memory.look(&mut scene.looker()).map(drop).unwrap_err();
    // The server ended in good order, only too early: that is told as an answer that is no pack.
    assert_eq!(error.kind, SourceErrorKind::Protocol, "{error}");
    assert!(error.is_transient());
    let Scene { fleet, sshd, ssh } = scene;
    drop(sshd);
    let sshd = Sshd::serve(fleet.dir.path(), &["ed25519"], "");
    let scene = Scene { fleet, sshd, ssh };
    scene.pin(&scene.sshd.pin("ed25519"));
    assert_eq!(paths(&memory.read(&mut scene.looker())), ["shop"]);
    one_pack(&scene.fleet);
}
