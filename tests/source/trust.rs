//! Signatures made by the real `ssh-keygen` and `gpg`: which revisions are taken, and what is said of the others.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use landfall::files::config::{GitReference, SignedObject, Verification};
use landfall::source::{Look, Looker};

use crate::support::{Daemon, Fleet, Memory, verifying_looker};

/// Whether the tools are here; CI must have them.
fn tools(names: &[&str]) -> bool {
    let there = |name: &&str| {
        Command::new("sh").args(["-c", &format!("command -v {name}")]).output().is_ok_and(|o| o.status.success())
    };
    let missing: Vec<_> = names.iter().filter(|name| !there(name)).collect();
    if missing.is_empty() {
        return true;
    }
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "this test needs {missing:?}");
    eprintln!("skipped: {missing:?} are not here to make signatures with");
    false
}

fn run(program: &str, arguments: &[&str], environment: &[(&str, &str)], input: &str) -> Output {
    use std::io::Write;
    let mut child = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// A repository, SSH keys made by `ssh-keygen`, and a file of allowed signers.
struct Ssh {
    fleet: Fleet,
}

impl Ssh {
    fn new() -> Option<Self> {
        tools(&["ssh-keygen", "git"]).then(|| {
            let fleet = Fleet::new();
            fleet.app("shop", "shop");
            Self { fleet }
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.fleet.dir.path().join(name)
    }

    /// Makes a key; answers its public line.
    fn key(&self, name: &str, kind: &[&str]) -> String {
        let file = self.file(name);
        let mut arguments = vec!["-q", "-N", "", "-C", name, "-f", file.to_str().unwrap()];
        arguments.extend(kind);
        run("ssh-keygen", &arguments, &[], "");
        std::fs::read_to_string(self.file(&format!("{name}.pub"))).unwrap().trim().to_owned()
    }

    fn allow(&self, lines: &[String]) {
        std::fs::write(self.file("allowed"), lines.join("\n")).unwrap();
    }

    /// Commits with this key's signature and pushes.
    fn push_signed(&self, key: &str, subject: &str) -> String {
        let key = format!("user.signingkey={}", self.file(key).display());
        self.fleet.git(&["add", "-A"]);
        self.fleet.git(&["-c", "gpg.format=ssh", "-c", &key, "commit", "-q", "--allow-empty", "-S", "-m", subject]);
        self.fleet.git(&["push", "-q", "--force", "origin", "HEAD:main"]);
        self.fleet.git(&["rev-parse", "HEAD"])
    }

    fn rules(&self, mode: SignedObject) -> Verification {
        Verification { mode, ssh_allowed_signers_file: Some(self.file("allowed")), openpgp_keyring_files: Vec::new() }
    }

    fn looker(&self) -> Looker {
        let url = self.fleet.bare().display().to_string();
        let branch = GitReference::Branch("main".into());
        verifying_looker(&self.fleet.cache(), &url, branch, self.rules(SignedObject::Commit))
    }
}

/// The reason why a look took nothing.
fn refused(memory: &mut Memory, looker: &mut Looker, commit: &str) -> String {
    match memory.look(looker).unwrap() {
        Look::Refused(refusal) => {
            assert_eq!(refusal.commit.as_str(), commit);
            refusal.problem
        }
        other => panic!("{commit} was not refused: {other:?}"),
    }
}

fn taken(memory: &mut Memory, looker: &mut Looker, commit: &str) {
    let reading = memory.read(looker);
    assert_eq!(reading.revision.commit.unwrap().as_str(), commit);
}

/// A commit with this commit's signature over another message, pushed.
fn tamper(fleet: &Fleet) -> String {
    let text = fleet.git(&["cat-file", "commit", "HEAD"]);
    let changed = format!("{}\n", text.replace("Ada", "Eve"));
    assert_ne!(text, changed.trim_end());
    let file = fleet.dir.path().join("tampered");
    std::fs::write(&file, changed).unwrap();
    let commit = fleet.git(&["hash-object", "-t", "commit", "-w", file.to_str().unwrap()]);
    fleet.git(&["reset", "-q", "--hard", &commit]);
    fleet.git(&["push", "-q", "--force", "origin", "HEAD:main"]);
    commit
}

#[test]
fn only_commits_signed_by_a_listed_ssh_key_are_taken() {
    let Some(ssh) = Ssh::new() else { return };
    let (ada, _eve) = (ssh.key("ada", &["-t", "ed25519"]), ssh.key("eve", &["-t", "ed25519"]));
    ssh.allow(&[format!("ada@example.com namespaces=\"git\" {ada}")]);
    let (mut looker, mut memory) = (ssh.looker(), Memory::default());

    let good = ssh.push_signed("ada", "rightly signed");
    taken(&mut memory, &mut looker, &good);
    assert!(memory.is_unchanged(&mut looker));

    ssh.fleet.write("shop/x", "1");
    let unsigned = ssh.fleet.push("unsigned");
    let why = refused(&mut memory, &mut looker, &unsigned);
    assert!(why.contains("is not signed") && why.contains("git commit -S"), "{why}");
    assert_eq!(memory.seen.as_ref().unwrap().commit.as_ref().unwrap().as_str(), good, "the last good one stands");

    let wrong = ssh.push_signed("eve", "by somebody else");
    let why = refused(&mut memory, &mut looker, &wrong);
    assert!(why.contains("SHA256:") && why.contains("not trusted") && why.contains("allowed"), "{why}");

    ssh.push_signed("ada", "about to be changed");
    let tampered = tamper(&ssh.fleet);
    let why = refused(&mut memory, &mut looker, &tampered);
    assert!(why.contains("was changed after it was signed"), "{why}");

    ssh.fleet.write("shop/x", "2");
    let good = ssh.push_signed("ada", "rightly signed again");
    taken(&mut memory, &mut looker, &good);
}

#[test]
fn every_kind_of_ssh_key_that_git_signs_with_is_understood() {
    let Some(ssh) = Ssh::new() else { return };
    let kinds: [(&str, &[&str]); 5] = [
        ("ed", &["-t", "ed25519"]),
        ("p256", &["-t", "ecdsa", "-b", "256"]),
        ("p384", &["-t", "ecdsa", "-b", "384"]),
        ("p521", &["-t", "ecdsa", "-b", "521"]),
        ("rsa", &["-t", "rsa", "-b", "2048"]),
    ];
    let lines: Vec<String> = kinds.iter().map(|(name, kind)| format!("{name} {}", ssh.key(name, kind))).collect();
    ssh.allow(&lines);
    let (mut looker, mut memory) = (ssh.looker(), Memory::default());
    for (name, _) in kinds {
        ssh.fleet.write("shop/x", name);
        let commit = ssh.push_signed(name, name);
        taken(&mut memory, &mut looker, &commit);
    }
    let short = ssh.key("short", &["-t", "rsa", "-b", "1024"]);
    ssh.allow(&[format!("short {short}")]);
    let commit = ssh.push_signed("short", "short");
    let why = refused(&mut memory, &mut looker, &commit);
    assert!(why.contains("shorter than 2048 bits"), "{why}");
}

#[test]
fn the_file_of_ssh_keys_is_read_at_each_look_and_its_limits_hold() {
    let Some(ssh) = Ssh::new() else { return };
    let ada = ssh.key("ada", &["-t", "ed25519"]);
    let commit = ssh.push_signed("ada", "signed");
    let (mut looker, mut memory) = (ssh.looker(), Memory::default());
    for (line, said) in [
        (format!("ada namespaces=\"file\" {ada}"), "other `namespaces`"),
        (format!("ada valid-before=\"20200101Z\" {ada}"), "valid until 2020-01-01"),
        (format!("ada valid-after=\"29990101Z\" {ada}"), "valid from 2999-01-01"),
        (format!("ada cert-authority {ada}"), "not trusted"),
        ("# nobody".to_owned(), "not trusted"),
        (format!("ada colour=red {ada}"), "line 1"),
    ] {
        ssh.allow(std::slice::from_ref(&line));
        let why = refused(&mut memory, &mut looker, &commit);
        assert!(why.contains(said), "{line}: {why}");
    }
    std::fs::remove_file(ssh.file("allowed")).unwrap();
    let why = refused(&mut memory, &mut looker, &commit);
    assert!(why.contains("cannot be read") && why.contains("allowed"), "{why}");
    ssh.allow(&[format!("* valid-after=\"20200101\",valid-before=\"29990101\" {ada}")]);
    taken(&mut memory, &mut looker, &commit);
}

#[test]
fn a_signature_made_for_something_else_does_not_count() {
    let Some(ssh) = Ssh::new() else { return };
    let ada = ssh.key("ada", &["-t", "ed25519"]);
    ssh.allow(&[format!("ada {ada}")]);
    ssh.fleet.push("to be signed as a file");
    let payload = format!("{}\n", ssh.fleet.git(&["cat-file", "commit", "HEAD"]));
    let file = ssh.file("payload");
    std::fs::write(&file, &payload).unwrap();
    let key = ssh.file("ada");
    let (key, file) = (key.to_str().unwrap(), file.to_str().unwrap());
    run("ssh-keygen", &["-q", "-Y", "sign", "-n", "file", "-f", key, file], &[], "");
    let signature = std::fs::read_to_string(ssh.file("payload.sig")).unwrap();
    let (head, message) = payload.split_once("\n\n").unwrap();
    let folded = signature.trim_end().replace('\n', "\n ");
    std::fs::write(file, format!("{head}\ngpgsig {folded}\n\n{message}")).unwrap();
    let commit = ssh.fleet.git(&["hash-object", "-t", "commit", "-w", file]);
    ssh.fleet.git(&["push", "-q", "--force", "origin", &format!("{commit}:refs/heads/main")]);
    let why = refused(&mut Memory::default(), &mut ssh.looker(), &commit);
    assert!(why.contains("made for `file`, not for `git`"), "{why}");
}

/// Tags the head under `name`, signed by `key`, and pushes the tag.
fn tag_signed(ssh: &Ssh, key: &str, name: &str) {
    let key = format!("user.signingkey={}", ssh.file(key).display());
    ssh.fleet.git(&["-c", "gpg.format=ssh", "-c", &key, "tag", "-f", "-s", "-m", "release", name]);
    push_tag(ssh, name);
}

fn push_tag(ssh: &Ssh, name: &str) {
    ssh.fleet.git(&["push", "-q", "--force", "origin", &format!("refs/tags/{name}")]);
}

fn tags_are_verified_at(ssh: &Ssh, url: &str) {
    let (mut looker, mut memory) = (
        verifying_looker(&ssh.fleet.cache(), url, GitReference::Tag("live".into()), ssh.rules(SignedObject::Tag)),
        Memory::default(),
    );
    let first = ssh.fleet.push("an unsigned commit under a signed tag");
    tag_signed(ssh, "ada", "live");
    taken(&mut memory, &mut looker, &first);
    assert!(memory.is_unchanged(&mut looker));

    ssh.fleet.write("shop/x", url);
    let second = ssh.fleet.push("second");
    ssh.fleet.git(&["tag", "-f", "live"]);
    push_tag(ssh, "live");
    let why = refused(&mut memory, &mut looker, &second);
    assert!(why.contains("only a name without a signature"), "{why}");

    ssh.fleet.git(&["tag", "-f", "-a", "-m", "annotated", "live"]);
    push_tag(ssh, "live");
    let why = refused(&mut memory, &mut looker, &second);
    assert!(why.contains("is not signed") && why.contains("git tag -s"), "{why}");

    tag_signed(ssh, "eve", "live");
    let why = refused(&mut memory, &mut looker, &second);
    assert!(why.contains("not trusted"), "{why}");

    // A good tag of ours, put under the name that is followed.
    tag_signed(ssh, "ada", "other");
    ssh.fleet.git(&["push", "-q", "--force", "origin", "refs/tags/other:refs/tags/live"]);
    let why = refused(&mut memory, &mut looker, &second);
    assert!(why.contains("copy of the tag `other`"), "{why}");

    // Our signature, moved to another commit.
    tag_signed(ssh, "ada", "live");
    let text = ssh.fleet.git(&["cat-file", "tag", "live"]).replace(&second, &first);
    let file = ssh.file("tag");
    std::fs::write(&file, format!("{text}\n")).unwrap();
    let forged = ssh.fleet.git(&["hash-object", "-t", "tag", "-w", file.to_str().unwrap()]);
    ssh.fleet.write("shop/x", &format!("again {url}"));
    let third = ssh.fleet.push("third");
    let text = text.replace(&first, &third);
    std::fs::write(&file, format!("{text}\n")).unwrap();
    let forged_third = ssh.fleet.git(&["hash-object", "-t", "tag", "-w", file.to_str().unwrap()]);
    assert_ne!(forged, forged_third);
    ssh.fleet.git(&["update-ref", "refs/tags/live", &forged_third]);
    push_tag(ssh, "live");
    let why = refused(&mut memory, &mut looker, &third);
    assert!(why.contains("was changed after it was signed"), "{why}");

    tag_signed(ssh, "ada", "live");
    taken(&mut memory, &mut looker, &third);
}

#[test]
fn a_followed_tag_must_be_signed_and_carry_its_own_name() {
    let Some(ssh) = Ssh::new() else { return };
    let ada = ssh.key("ada", &["-t", "ed25519"]);
    ssh.key("eve", &["-t", "ed25519"]);
    ssh.allow(&[format!("ada {ada}")]);
    tags_are_verified_at(&ssh, &ssh.fleet.bare().display().to_string());
    let daemon = Daemon::serve(ssh.fleet.dir.path());
    ssh.fleet.git(&["push", "-q", "origin", ":refs/tags/live"]);
    tags_are_verified_at(&ssh, &daemon.url());
}

#[test]
fn an_old_signed_tag_copied_to_a_higher_version_is_refused() {
    let Some(ssh) = Ssh::new() else { return };
    let ada = ssh.key("ada", &["-t", "ed25519"]);
    ssh.allow(&[format!("ada {ada}")]);
    let daemon = Daemon::serve(ssh.fleet.dir.path());
    let first = ssh.fleet.push("first");
    tag_signed(&ssh, "ada", "v1.0.0");
    for url in [ssh.fleet.bare().display().to_string(), daemon.url()] {
        let range = GitReference::Semver("^1".parse().unwrap());
        let mut looker = verifying_looker(&ssh.fleet.cache(), &url, range, ssh.rules(SignedObject::Tag));
        ssh.fleet.git(&["push", "-q", "--force", "origin", "refs/tags/v1.0.0:refs/tags/v1.9.0"]);
        let why = refused(&mut Memory::default(), &mut looker, &first);
        assert!(why.contains("the tag `v1.9.0` is a copy of the tag `v1.0.0`"), "{url}: {why}");
        ssh.fleet.git(&["push", "-q", "origin", ":refs/tags/v1.9.0"]);
        taken(&mut Memory::default(), &mut looker, &first);
    }
}

#[test]
fn a_remote_commit_is_verified_as_well() {
    let Some(ssh) = Ssh::new() else { return };
    let ada = ssh.key("ada", &["-t", "ed25519"]);
    ssh.allow(&[format!("ada {ada}")]);
    let daemon = Daemon::serve(ssh.fleet.dir.path());
    let branch = GitReference::Branch("main".into());
    let mut looker = verifying_looker(&ssh.fleet.cache(), &daemon.url(), branch, ssh.rules(SignedObject::Commit));
    let mut memory = Memory::default();
    let bad = ssh.fleet.push("unsigned");
    for _ in 0..2 {
        assert!(refused(&mut memory, &mut looker, &bad).contains("is not signed"));
    }
    // Enough fetches that the cache is packed anew in between.
    for round in 0..30 {
        ssh.fleet.write("shop/x", &round.to_string());
        let good = ssh.push_signed("ada", "signed");
        taken(&mut memory, &mut looker, &good);
    }
}

/// A home of GnuPG with keys of its own; short, because of the path of its socket.
struct Gpg {
    home: tempfile::TempDir,
    fleet: Fleet,
}

impl Gpg {
    fn new() -> Option<Self> {
        tools(&["gpg", "gpgconf", "git"]).then(|| {
            use std::os::unix::fs::PermissionsExt;
            let home = tempfile::Builder::new().prefix("lf-gpg").tempdir_in("/tmp").unwrap();
            std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
            let fleet = Fleet::new();
            fleet.app("shop", "shop");
            Self { home, fleet }
        })
    }

    fn gpg(&self, arguments: &[&str]) -> String {
        self.gpg_with(arguments, "")
    }

    fn gpg_with(&self, arguments: &[&str], input: &str) -> String {
        let home = self.home.path().display().to_string();
        let mut all =
            vec!["--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "", "--trust-model", "always"];
        all.extend(arguments);
        let output = run("gpg", &all, &[("GNUPGHOME", &home)], input);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Makes a key; answers its fingerprint.
    fn key(&self, user: &str, algorithm: &str, usage: &str, expires: &str) -> String {
        self.gpg(&["--quick-generate-key", user, algorithm, usage, expires]);
        self.fingerprints(user)[0].clone()
    }

    /// Fingerprints of a key and its subkeys.
    fn fingerprints(&self, user: &str) -> Vec<String> {
        let listed = self.gpg(&["--with-colons", "--list-keys", user]);
        listed
            .lines()
            .filter(|line| line.starts_with("fpr:"))
            .map(|l| l.split(':').nth(9).unwrap().to_owned())
            .collect()
    }

    fn revoke_first_subkey(&self, key: &str) {
        let home = self.home.path().display().to_string();
        let arguments = ["--quiet", "--no-tty", "--pinentry-mode", "loopback", "--passphrase", "", "--command-fd", "0"];
        let answers = "key 1\nrevkey\ny\n0\n\ny\nsave\n";
        run("gpg", &[&arguments[..], &["--edit-key", key]].concat(), &[("GNUPGHOME", &home)], answers);
    }

    fn export(&self, file: &str, users: &[&str], armour: bool) -> PathBuf {
        let path = self.fleet.dir.path().join(file);
        let mut arguments = vec!["--yes", "--output", path.to_str().unwrap()];
        if armour {
            arguments.push("--armor");
        }
        arguments.push("--export");
        arguments.extend(users);
        self.gpg(&arguments);
        path
    }

    /// Commits with this key's signature (an exclamation mark picks exactly that subkey) and pushes.
    fn push_signed(&self, key: &str, subject: &str) -> String {
        self.push_signed_with(key, subject, &[])
    }

    fn push_signed_with(&self, key: &str, subject: &str, more: &[&str]) -> String {
        let script = self.fleet.dir.path().join("gpg.sh");
        let home = self.home.path().display();
        let text = format!(
            "#!/bin/sh\nexec env GNUPGHOME={home} gpg --batch --pinentry-mode loopback --passphrase '' {} \"$@\"\n",
            more.join(" ")
        );
        std::fs::write(&script, text).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
        let program = format!("gpg.program={}", script.display());
        let key = format!("user.signingkey={key}");
        self.fleet.git(&["add", "-A"]);
        self.fleet.git(&["-c", &program, "-c", &key, "commit", "-q", "--allow-empty", "-S", "-m", subject]);
        self.fleet.git(&["push", "-q", "--force", "origin", "HEAD:main"]);
        self.fleet.git(&["rev-parse", "HEAD"])
    }

    fn looker(&self, keyrings: &[&Path]) -> Looker {
        let rules = Verification {
            mode: SignedObject::Commit,
            ssh_allowed_signers_file: None,
            openpgp_keyring_files: keyrings.iter().map(|path| path.to_path_buf()).collect(),
        };
        let url = self.fleet.bare().display().to_string();
        verifying_looker(&self.fleet.cache(), &url, GitReference::Branch("main".into()), rules)
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let home = self.home.path();
        let _ = Command::new("gpgconf").arg("--homedir").arg(home).args(["--kill", "all"]).output();
    }
}

#[test]
fn only_commits_signed_by_a_listed_openpgp_key_are_taken() {
    let Some(gpg) = Gpg::new() else { return };
    let ada = gpg.key("Ada <ada@example.com>", "ed25519", "sign", "never");
    let bob = gpg.key("Bob <bob@example.com>", "rsa2048", "sign", "never");
    let eve = gpg.key("Eve <eve@example.com>", "ed25519", "sign", "never");
    let armoured = gpg.export("ada.asc", &[&ada], true);
    let binary = gpg.export("bob.gpg", &[&bob], false);
    let (mut looker, mut memory) = (gpg.looker(&[&armoured, &binary]), Memory::default());

    for (round, key) in [&ada, &bob, &ada].into_iter().enumerate() {
        gpg.fleet.write("shop/x", &round.to_string());
        let commit = gpg.push_signed(key, "rightly signed");
        taken(&mut memory, &mut looker, &commit);
    }
    gpg.fleet.write("shop/x", "unsigned");
    let commit = gpg.fleet.push("unsigned");
    assert!(refused(&mut memory, &mut looker, &commit).contains("is not signed"));

    let commit = gpg.push_signed(&eve, "by somebody else");
    let why = refused(&mut memory, &mut looker, &commit);
    assert!(why.contains(&eve) && why.contains("not trusted") && why.contains("ada.asc"), "{why}");

    gpg.push_signed(&ada, "about to be changed");
    let commit = tamper(&gpg.fleet);
    let why = refused(&mut memory, &mut looker, &commit);
    assert!(why.contains(&ada) && why.contains("was changed after it was signed"), "{why}");

    let commit = gpg.push_signed_with(&bob, "over a weak hash", &["--digest-algo", "SHA1"]);
    let why = refused(&mut memory, &mut looker, &commit);
    assert!(why.contains("SHA1") && why.contains("too weak"), "{why}");
}

#[test]
fn expired_and_revoked_openpgp_keys_do_not_count_and_a_renewed_one_does() {
    let Some(gpg) = Gpg::new() else { return };
    // Signed while the key was good: the clock of the key's maker stood a year ago.
    let old = ["--faked-system-time", "20250101T000000"];
    gpg.gpg(&[&old[..], &["--quick-generate-key", "Old <old@example.com>", "ed25519", "sign", "30d"]].concat());
    let key = gpg.fingerprints("Old")[0].clone();
    let ring = gpg.export("old.asc", &[&key], true);
    let (mut looker, mut memory) = (gpg.looker(&[&ring]), Memory::default());
    let commit = gpg.push_signed_with(&key, "signed in time", &["--faked-system-time", "20250102T000000"]);
    let why = refused(&mut memory, &mut looker, &commit);
    assert!(why.contains(&key) && why.contains("expired at 2025-01-31"), "{why}");

    gpg.gpg(&["--quick-set-expire", &key, "0"]);
    gpg.export("old.asc", &[&key], true);
    taken(&mut memory, &mut looker, &commit);

    gpg.fleet.write("shop/x", "1");
    let commit = gpg.push_signed(&key, "signed before the key was revoked");
    let certificate = gpg.home.path().join(format!("openpgp-revocs.d/{key}.rev"));
    let text = std::fs::read_to_string(certificate).unwrap().replace(":-----BEGIN", "-----BEGIN");
    gpg.gpg_with(&["--import"], &text);
    gpg.export("old.asc", &[&key], true);
    let why = refused(&mut memory, &mut looker, &commit);
    assert!(why.contains(&key) && why.contains("is revoked"), "{why}");
}

#[test]
fn a_subkey_signs_only_if_it_is_meant_to_and_not_revoked() {
    let Some(gpg) = Gpg::new() else { return };
    let primary = gpg.key("Sub <sub@example.com>", "ed25519", "cert", "never");
    gpg.gpg(&["--quick-add-key", &primary, "ed25519", "sign", "never"]);
    let subkey = gpg.fingerprints("Sub")[1].clone();
    let ring = gpg.export("sub.asc", &[&primary], true);
    let (mut looker, mut memory) = (gpg.looker(&[&ring]), Memory::default());
    let commit = gpg.push_signed(&format!("{subkey}!"), "by a subkey");
    taken(&mut memory, &mut looker, &commit);

    gpg.fleet.write("shop/x", "1");
    let commit = gpg.push_signed(&format!("{subkey}!"), "before it was revoked");
    gpg.revoke_first_subkey(&primary);
    gpg.export("sub.asc", &[&primary], true);
    let why = refused(&mut memory, &mut looker, &commit);
    assert!(why.contains(&subkey) && why.contains("revoked subkey"), "{why}");
}

#[test]
fn a_signature_of_one_kind_is_not_trusted_for_keys_of_the_other() {
    let Some(ssh) = Ssh::new() else { return };
    let ada = ssh.key("ada", &["-t", "ed25519"]);
    ssh.allow(&[format!("ada {ada}")]);
    let commit = ssh.push_signed("ada", "signed");
    let rules = Verification {
        mode: SignedObject::Commit,
        ssh_allowed_signers_file: None,
        openpgp_keyring_files: vec![ssh.file("none.asc")],
    };
    let url = ssh.fleet.bare().display().to_string();
    let mut looker = verifying_looker(&ssh.fleet.cache(), &url, GitReference::Head, rules);
    let why = refused(&mut Memory::default(), &mut looker, &commit);
    assert!(why.contains("no SSH key is trusted") && why.contains("ssh_allowed_signers_file"), "{why}");
}
