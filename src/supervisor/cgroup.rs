//! Control groups (version 2), where this agent may have its own.
//!
//! One leaf per instance gives limits over all its processes together, an exact membership that no
//! process can leave, and `cgroup.kill`. Used only in a hierarchy that is ours: a directory the service
//! manager delegated (its `delegate` attribute says so) or the root of the hierarchy this process sees
//! (a container). Without one, or when any step fails, instances run without: nothing here is fatal.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::domain::manifest::Resources;

use super::sys;

/// The directory below which instances have their groups.
#[derive(Debug)]
pub(super) struct Cgroups {
    root: PathBuf,
    /// Controllers that can be used in leaves.
    controllers: Vec<&'static str>,
}

/// One instance's group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaf {
    path: PathBuf,
}

const WANTED: [&str; 3] = ["cpu", "memory", "pids"];

impl Cgroups {
    /// Finds and prepares our directory. Whatever an earlier agent on this data directory left there is ended.
    pub(super) fn prepare(data_dir: &Path) -> Option<Self> {
        let base = own_directory()?;
        let name = format!("landfall-{:016x}", fingerprint(data_dir));
        let root = base.join(&name);
        if !root.is_dir() {
            fs::create_dir(&root).ok()?;
        }
        let groups = Self { controllers: Vec::new(), root };
        groups.remove_leftovers();
        let mut controllers: Vec<_> = WANTED.into_iter().filter(|c| enable(&base, c)).collect();
        if controllers.is_empty() && WANTED.iter().any(|c| offers(&base, c)) {
            // A group with processes in it cannot have controllers in its children: step aside and try again.
            let aside = base.join(format!("{name}-agent"));
            let stepped = fs::create_dir_all(&aside).and_then(|()| fs::write(aside.join("cgroup.procs"), "0"));
            if stepped.is_ok() {
                controllers = WANTED.into_iter().filter(|c| enable(&base, c)).collect();
            }
        }
        controllers.retain(|c| enable(&groups.root, c));
        Some(Self { controllers, ..groups })
    }

    /// Takes up the directory again after an upgrade in place.
    pub(super) fn resume(root: PathBuf) -> Option<Self> {
        let enabled = fs::read_to_string(root.join("cgroup.subtree_control")).ok()?;
        let controllers = WANTED.into_iter().filter(|c| enabled.split_ascii_whitespace().any(|e| e == *c)).collect();
        Some(Self { root, controllers })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// A group for an instance with its limits set; `None` when it cannot be made.
    pub(super) fn create(&self, instance: &str, limits: &Resources) -> Option<Leaf> {
        let leaf = Leaf { path: self.root.join(instance) };
        fs::create_dir(&leaf.path).ok()?;
        if let Some(memory) = limits.memory.filter(|_| self.has("memory")) {
            leaf.set("memory.max", &memory.0.to_string());
            leaf.set("memory.swap.max", "0");
            leaf.set("memory.oom.group", "1");
        }
        if let Some(millis) = limits.cpu_millis.filter(|_| self.has("cpu")) {
            leaf.set("cpu.max", &format!("{} 100000", u64::from(millis) * 100));
        }
        if let Some(processes) = limits.processes.filter(|_| self.has("pids")) {
            leaf.set("pids.max", &processes.to_string());
        }
        Some(leaf)
    }

    /// Whether limits of this sort hold.
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.contains(&controller)
    }

    /// Ends what is still in it and removes the directory.
    pub(super) fn remove(&self) {
        self.remove_leftovers();
        let _ = fs::remove_dir(&self.root);
    }

    fn remove_leftovers(&self) {
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                let leaf = Leaf { path: entry.path() };
                leaf.kill();
                leaf.remove();
            }
        }
    }
}

impl Leaf {
    pub(super) fn resume(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file a process writes its number to in order to join.
    pub(super) fn entry(&self) -> Option<OwnedFd> {
        OpenOptions::new().write(true).open(self.path.join("cgroup.procs")).ok().map(OwnedFd::from)
    }

    /// SIGKILL to everything in it, at once and without a gap to fork through.
    pub(super) fn kill(&self) {
        self.set("cgroup.kill", "1");
    }

    /// Whether a process is in it; `None` when that cannot be read.
    pub(super) fn populated(&self) -> Option<bool> {
        let events = fs::read_to_string(self.path.join("cgroup.events")).ok()?;
        events.lines().find_map(|line| line.strip_prefix("populated ")).map(|value| value.trim() == "1")
    }

    /// Whether the kernel ended something in it for want of memory.
    pub(super) fn oom(&self) -> bool {
        let events = fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        events.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
    }

    /// The processes in it.
    pub(super) fn processes(&self) -> Vec<i32> {
        let list = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        list.lines().filter_map(|line| line.trim().parse().ok()).collect()
    }

    pub(super) fn remove(&self) {
        let _ = fs::remove_dir(&self.path);
    }

    fn set(&self, file: &str, value: &str) {
        if let Err(error) = write_control(&self.path.join(file), value) {
            tracing::debug!(path = %self.path.display(), file, %error, "control group setting not taken");
        }
    }
}

/// Control files take exactly one `write` and must never be created.
fn write_control(path: &Path, value: &str) -> std::io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).open(path)?;
    file.write_all(value.as_bytes())
}

fn offers(group: &Path, controller: &str) -> bool {
    fs::read_to_string(group.join("cgroup.controllers"))
        .is_ok_and(|list| list.split_ascii_whitespace().any(|offered| offered == controller))
}

fn enable(group: &Path, controller: &str) -> bool {
    offers(group, controller) && write_control(&group.join("cgroup.subtree_control"), &format!("+{controller}")).is_ok()
}

/// The directory of this process's group, if it is ours to use.
fn own_directory() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let directory = mount_point()?.join(path.trim_start_matches('/'));
    let delegated = [c"trusted.delegate", c"user.delegate"]
        .iter()
        .any(|name| sys::attribute(&directory, name).is_some_and(|value| value == b"1"));
    (path == "/" || delegated).then_some(directory)
}

fn mount_point() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        (after.split(' ').next()? == "cgroup2").then(|| before.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// FNV-1a: stable over releases, so that a new agent finds what an old one left.
fn fingerprint(path: &Path) -> u64 {
    path.as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
