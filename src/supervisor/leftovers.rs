//! What is needed to clean up after a supervisor that was killed.
//!
//! `run/children.json` lists its processes. They die with it (`PR_SET_PDEATHSIG`), but what *they* had started
//! lives on. The next supervisor ends it all before it binds or starts anything.
//!
//! The file is replaced by rename without fsync: it only has to outlive the supervisor, not the machine; after
//! a crash of the machine the boot id differs and the records mean nothing.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::family::{self, Identity, Stat};

/// Processes of one supervisor.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub boot_id: String,
    pub supervisor: Identity,
    pub processes: Vec<Process>,
}

/// One of them.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    /// `None` for the controller and proxies.
    pub instance: Option<String>,
    #[serde(flatten)]
    pub process: Identity,
}

/// All of them must be gone after this long; SIGKILL takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

impl Record {
    pub(super) fn save(&self, path: &Path) -> io::Result<()> {
        let temporary = path.with_extension("tmp");
        // The directory belongs to the agent's user: what lies there under this name is removed, never written through.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        io::Write::write_all(&mut file, &serde_json::to_vec(self)?)?;
        fs::rename(&temporary, path)
    }

    fn load(path: &Path) -> Option<Self> {
        let record: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (record.boot_id == family::boot_id()).then_some(record)
    }

    /// Whether a living process was started by that supervisor, directly or through an instance.
    fn includes(&self, process: &Stat) -> bool {
        let is_leader = |recorded: &Process| recorded.process == process.identity;
        if self.processes.iter().any(is_leader) {
            return true;
        }
        let variable = |name| family::variable(process.identity.pid, name);
        let Some(instance) = variable(family::INSTANCE_VARIABLE) else { return false };
        // Two agents may run instances of the same name.
        variable(family::SUPERVISOR_VARIABLE).as_deref() == Some(family::mark(self.supervisor).as_str())
            && self.processes.iter().any(|recorded| recorded.instance.as_deref() == Some(&instance))
    }
}

/// Ends whatever a killed supervisor left, by the record at `path`.
pub(super) fn clean_up(path: &Path) {
    let Some(record) = Record::load(path).filter(|record| !record.processes.is_empty()) else { return };
    let deadline = Instant::now() + PATIENCE;
    let mut seen = 0;
    loop {
        let all = family::all();
        let leaders: Vec<i32> = record
            .processes
            .iter()
            .filter(|r| all.get(&r.process.pid).is_some_and(|p| p.identity == r.process))
            .map(|r| r.process.pid)
            .collect();
        // The session of a leader that still lives is surely its own; a dead leader's number may be another's.
        let left: Vec<_> =
            all.values().filter(|p| !p.zombie && (leaders.contains(&p.session) || record.includes(p))).collect();
        if left.is_empty() {
            break;
        }
        seen = seen.max(left.len());
        for process in left {
            family::signal(process.identity, Signal::SIGKILL);
        }
        if Instant::now() >= deadline {
            tracing::warn!("processes of the previous agent do not die; going on beside them");
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    if seen > 0 {
        tracing::warn!(processes = seen, "ended what a killed agent had left running");
    }
    let _ = fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_another_boot_mean_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("children.json");
        let process = Process { instance: None, process: Identity { pid: 1, start_ticks: 1 } };
        let mut record = Record { boot_id: "another".into(), supervisor: process.process, processes: vec![process] };
        record.save(&path).expect("saved");
        assert_eq!(Record::load(&path), None);
        record.boot_id = family::boot_id();
        record.save(&path).expect("saved");
        assert_eq!(Record::load(&path), Some(record));
        fs::write(&path, "{").expect("torn");
        assert_eq!(Record::load(&path), None);
    }
}
