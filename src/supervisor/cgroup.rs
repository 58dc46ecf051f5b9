//! Control groups (version 2), where this agent may have its own.
//!
//! One leaf per instance gives limits over all its processes together, an exact membership that no
//! process can leave, and `cgroup.kill`. Used only in a hierarchy that is ours: a directory the service
//! manager delegated (its `delegate` attribute says so) or the root of the hierarchy this process sees
//! (a container). Without one, or when any step fails, instances run without: nothing here is fatal.
//!
//! Where the kernel has its memory controller bound to a hierarchy of version 1, as on machines that mount both, a leaf
//! has a second directory there for the limit of memory and nothing else. Of such a leaf the kernel ends the process it
//! picks rather than all.

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
    /// The same directory in the hierarchy that has the memory controller, where that is one of version 1.
    memory: Option<PathBuf>,
}

/// One instance's group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaf {
    path: PathBuf,
    /// Its directory in the hierarchy of version 1 that limits its memory.
    memory: Option<PathBuf>,
    limits_memory: bool,
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
        let mut groups = Self { controllers: Vec::new(), root, memory: None };
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
        groups.controllers = controllers;
        if !groups.has("memory") {
            groups.memory = memory_of_version_1().map(|base| base.join(&name)).filter(|own| make(own));
            groups.remove_leftovers();
        }
        Some(groups)
    }

    /// Takes up the directory again after an upgrade in place.
    pub(super) fn resume(root: PathBuf) -> Option<Self> {
        let enabled = fs::read_to_string(root.join("cgroup.subtree_control")).ok()?;
        let controllers = WANTED.into_iter().filter(|c| enabled.split_ascii_whitespace().any(|e| e == *c)).collect();
        let memory = root.file_name().and_then(|name| Some(memory_of_version_1()?.join(name)));
        Some(Self { memory: memory.filter(|own| own.is_dir()), root, controllers })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// A group for an instance with its limits set; `None` when it cannot be made.
    pub(super) fn create(&self, instance: &str, limits: &Resources) -> Option<Leaf> {
        let mut leaf = Leaf { path: self.root.join(instance), memory: None, limits_memory: false };
        fs::create_dir(&leaf.path).ok()?;
        if let Some(memory) = limits.memory {
            let bytes = memory.0.to_string();
            if self.controllers.contains(&"memory") {
                leaf.limits_memory = leaf.set("memory.max", &bytes);
                leaf.set("memory.swap.max", "0");
                leaf.set("memory.oom.group", "1");
            } else if let Some(own) = self.memory.as_ref().map(|root| root.join(instance)).filter(|own| make(own)) {
                leaf.limits_memory = take(&own.join("memory.limit_in_bytes"), &bytes);
                take(&own.join("memory.memsw.limit_in_bytes"), &bytes);
                leaf.memory = Some(own);
            }
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
        self.controllers.contains(&controller) || controller == "memory" && self.memory.is_some()
    }

    /// Ends what is still in it and removes the directory.
    pub(super) fn remove(&self) {
        self.remove_leftovers();
        self.memory.iter().chain([&self.root]).for_each(|root| drop(fs::remove_dir(root)));
    }

    fn remove_leftovers(&self) {
        let inside = |root: &Path| fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
        for path in inside(&self.root).filter(|path| path.is_dir()) {
            let leaf = Leaf { path, memory: None, limits_memory: false };
            leaf.kill();
            leaf.remove();
        }
        for path in self.memory.iter().flat_map(|root| inside(root)).filter(|path| path.is_dir()) {
            let _ = fs::remove_dir(path);
        }
    }
}

impl Leaf {
    /// Takes it up again after an upgrade in place.
    pub(super) fn resume(path: PathBuf) -> Self {
        let place = || Some(Path::new(path.parent()?.file_name()?).join(path.file_name()?));
        let memory = place().and_then(|place| Some(memory_of_version_1()?.join(place))).filter(|own| own.is_dir());
        Self { path, memory, limits_memory: true }
    }

    /// Whether its memory is limited for all its processes together.
    pub(super) fn limits_memory(&self) -> bool {
        self.limits_memory
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The files a process writes its number to in order to join.
    pub(super) fn entries(&self) -> Vec<OwnedFd> {
        let open = |directory: &PathBuf| OpenOptions::new().write(true).open(directory.join("cgroup.procs")).ok();
        self.memory.iter().chain([&self.path]).filter_map(open).map(OwnedFd::from).collect()
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
        let file = match &self.memory {
            Some(own) => own.join("memory.oom_control"),
            None => self.path.join("memory.events"),
        };
        let events = fs::read_to_string(file).unwrap_or_default();
        events.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
    }

    /// The processes in it.
    pub(super) fn processes(&self) -> Vec<i32> {
        let list = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        list.lines().filter_map(|line| line.trim().parse().ok()).collect()
    }

    pub(super) fn remove(&self) {
        self.memory.iter().chain([&self.path]).for_each(|path| drop(fs::remove_dir(path)));
    }

    fn set(&self, file: &str, value: &str) -> bool {
        take(&self.path.join(file), value)
    }
}

/// Whether a setting is taken.
fn take(file: &Path, value: &str) -> bool {
    let taken = write_control(file, value);
    if let Err(error) = &taken {
        tracing::debug!(file = %file.display(), %error, "control group setting not taken");
    }
    taken.is_ok()
}

/// Whether there is such a group now.
fn make(group: &Path) -> bool {
    group.is_dir() || fs::create_dir(group).is_ok()
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
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let (_, mount) = mounted(&mounts, |kind, _| kind == "cgroup2")?;
    let directory = mount.join(path.trim_start_matches('/'));
    let delegated = [c"trusted.delegate", c"user.delegate"]
        .iter()
        .any(|name| sys::attribute(&directory, name).is_some_and(|value| value == b"1"));
    (path == "/" || delegated).then_some(directory)
}

/// This process's group in the hierarchy of version 1 that has the memory controller.
fn memory_of_version_1() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    memory_directory(&groups, &fs::read_to_string("/proc/self/mountinfo").ok()?)
}

fn memory_directory(groups: &str, mounts: &str) -> Option<PathBuf> {
    let has = |list: &str| list.split(',').any(|controller| controller == "memory");
    let path = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        fields.next().filter(|controllers| has(controllers))?;
        fields.next()
    })?;
    let (root, mount) = mounted(mounts, |kind, options| kind == "cgroup" && has(options))?;
    // In a container only what is below its own group is mounted.
    let below = Path::new(path).strip_prefix(&root).or_else(|_| Path::new(path).strip_prefix("/")).ok()?;
    Some(mount.join(below))
}

/// What is mounted of a filesystem, and where.
fn mounted(mounts: &str, is_meant: impl Fn(&str, &str) -> bool) -> Option<(PathBuf, PathBuf)> {
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let (kind, options) = (after.next()?, after.nth(1).unwrap_or_default());
        let mut before = before.split(' ').skip(3);
        is_meant(kind, options).then(|| Some((before.next()?.into(), before.next()?.into())))?
    })
}

/// FNV-1a: stable over releases, so that a new agent finds what an old one left.
fn fingerprint(path: &Path) -> u64 {
    path.as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::manifest::Bytes;

    /// A directory with the files that a group of version 2 has, as far as they are used here.
    fn group(files: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        files.iter().for_each(|file| fs::write(directory.path().join(file), "").expect("written"));
        directory
    }

    #[test]
    fn the_directory_of_the_memory_controller_is_found_on_machines_that_mount_both_versions() {
        let groups = "9:name=systemd:/\n4:cpu,memory:/system.slice/landfall.service\n0::/\n";
        let mounts = "30 25 0:26 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n\
                      34 25 0:30 / /sys/fs/cgroup/memory rw,relatime shared:13 - cgroup cgroup rw,memory\n";
        let found = memory_directory(groups, mounts);
        assert_eq!(found, Some("/sys/fs/cgroup/memory/system.slice/landfall.service".into()));
        // In a container.
        let mounts = "34 25 0:30 /system.slice /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        assert_eq!(memory_directory(groups, mounts), Some("/sys/fs/cgroup/memory/landfall.service".into()));
        let unified = "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(memory_directory("0::/x\n", unified), None);
    }

    #[test]
    fn a_leaf_says_whether_the_kernel_ended_something_in_it_for_want_of_memory() {
        let version_2 = group(&["memory.events"]);
        let leaf = Leaf { path: version_2.path().to_owned(), memory: None, limits_memory: true };
        assert!(!leaf.oom());
        fs::write(version_2.path().join("memory.events"), "low 0\nmax 31\noom 1\noom_kill 0\n").expect("written");
        assert!(!leaf.oom(), "what was only refused is no end");
        fs::write(version_2.path().join("memory.events"), "max 31\noom 1\noom_kill 2\n").expect("written");
        assert!(leaf.oom());
        let version_1 = group(&[]);
        fs::write(version_1.path().join("memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
            .expect("written");
        let empty = group(&[]);
        let memory = Some(version_1.path().to_owned());
        assert!(Leaf { path: empty.path().to_owned(), memory, limits_memory: true }.oom());
        assert!(!Leaf { path: empty.path().to_owned(), memory: None, limits_memory: true }.oom());
    }

    #[test]
    fn a_limit_that_is_not_taken_is_not_said_to_hold() {
        let root = group(&[]);
        let groups = Cgroups { root: root.path().to_owned(), controllers: vec!["memory"], memory: None };
        let limits = Resources { memory: Some(Bytes(64 << 20)), ..Resources::default() };
        let leaf = groups.create("one", &limits).expect("a leaf");
        assert!(leaf.path().is_dir() && !leaf.limits_memory(), "there is no control file to take it: {leaf:?}");
    }
}
