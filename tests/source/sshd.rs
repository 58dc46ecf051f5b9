//! A real OpenSSH server on loopback, with a configuration and keys of its own. Shared by the tests that need one.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SSHD: &str = "/usr/sbin/sshd";

/// A running server. Nothing of the machine's own ssh configuration is used or changed.
pub struct Sshd {
    process: Child,
    pub port: u16,
    /// Host keys, `authorized_keys` and the log are in here.
    pub dir: PathBuf,
}

/// Whether the tests of ssh can run here; in CI they must.
pub fn available() -> bool {
    let there = Path::new(SSHD).exists() && Command::new("ssh-keygen").arg("-?").output().is_ok();
    if !there {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "this test needs sshd and ssh-keygen");
        eprintln!("skipped: there is no {SSHD} here (Debian: openssh-server)");
    }
    there
}

/// The user who runs the tests, and so the one who may sign in.
pub fn user() -> String {
    nix::unistd::User::from_uid(nix::unistd::geteuid()).expect("users").expect("a user").name
}

/// Makes a pair of keys; gives the public line.
pub fn keygen(path: &Path, arguments: &[&str], passphrase: &str) -> String {
    let _ = std::fs::remove_file(path);
    let output = Command::new("ssh-keygen")
        .args(["-q", "-C", "a comment", "-N", passphrase, "-f"])
        .arg(path)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("ssh-keygen");
    assert!(output.status.success(), "ssh-keygen {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    public(path)
}

/// The public line of a key, without its comment.
pub fn public(path: &Path) -> String {
    let text =
        std::fs::read_to_string(path.with_file_name(format!("{}.pub", path.file_name().expect("a name").display())));
    text.expect("the public key").split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// Gives a file another content at once: whoever reads it meanwhile finds one or the other.
pub fn replace(path: &Path, content: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, content).and_then(|()| std::fs::rename(&beside, path)).expect("written");
}

/// The fingerprint of a key as ssh-keygen tells it.
pub fn fingerprint(path: &Path) -> String {
    let output = Command::new("ssh-keygen").arg("-lf").arg(path).output().expect("ssh-keygen");
    String::from_utf8_lossy(&output.stdout).split_whitespace().nth(1).expect("a fingerprint").to_owned()
}

impl Sshd {
    /// Starts a server below `root` with host keys of these types. `more` is added to its configuration.
    pub fn serve(root: &Path, host_keys: &[&str], more: &str) -> Self {
        let dir = root.join("sshd");
        std::fs::create_dir_all(&dir).expect("a directory");
        let mut config = format!(
            "ListenAddress 127.0.0.1\nPidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nAuthorizedKeysFile {}\nLogLevel VERBOSE\n",
            dir.join("authorized_keys").display()
        );
        for kind in host_keys {
            let key = dir.join(format!("host_{kind}"));
            if !key.exists() {
                keygen(&key, &["-t", kind], "");
            }
            config.push_str(&format!("HostKey {}\n", key.display()));
        }
        config.push_str(more);
        std::fs::write(dir.join("config"), config).expect("the configuration");
        if nix::unistd::geteuid().is_root() {
            // Where sshd locks itself in as root; the package's start script makes it.
            std::fs::create_dir_all("/run/sshd").expect("/run/sshd");
        }
        Self::start(&dir)
    }

    fn start(dir: &Path) -> Self {
        // The port is free when asked for and may be taken a moment later; then another is tried.
        for _ in 0..20 {
            let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
            let log = std::fs::File::create(dir.join("log")).expect("a log");
            let mut process = Command::new(SSHD)
                .arg("-D")
                .arg("-e")
                .arg("-f")
                .arg(dir.join("config"))
                .arg(format!("-p{port}"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .expect("sshd");
            let deadline = Instant::now() + Duration::from_secs(10);
            while Instant::now() < deadline && process.try_wait().expect("sshd").is_none() {
                if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Self { process, port, dir: dir.to_owned() };
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = process.kill();
            let _ = process.wait();
        }
        panic!("sshd does not start: {}", std::fs::read_to_string(dir.join("log")).unwrap_or_default());
    }

    /// The host as files of known hosts name it.
    pub fn name(&self) -> String {
        format!("[127.0.0.1]:{}", self.port)
    }

    /// The URL of a repository by its path on this machine.
    pub fn url(&self, repository: &Path) -> String {
        format!("ssh://{}@127.0.0.1:{}{}", user(), self.port, repository.display())
    }

    /// Lets the owner of a public key in, and nobody else.
    pub fn authorize(&self, public: &str) {
        replace(&self.dir.join("authorized_keys"), &format!("{public}\n"));
    }

    /// The line that pins the host key of this type.
    pub fn pin(&self, kind: &str) -> String {
        format!("{} {}\n", self.name(), public(&self.host_key(kind)))
    }

    pub fn host_key(&self, kind: &str) -> PathBuf {
        self.dir.join(format!("host_{kind}"))
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
