//! What this agent's containers were when they started, for a controller that begins while the engine is away.
//!
//! Owned by the controller: a file for each instance in `<data_dir>/containers`, written before the instance is known to
//! run, gone with its container. The engine's labels are what counts; this is read only while there is nobody to ask, so
//! that what runs goes on being served and nothing is started beside it. When the engine answers, `watch` compares: one that
//! ended is reported as ended. Invariant: nothing secret is in it, since nothing secret is in a label.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::inspect::Seen;
use crate::domain::InstanceId;
use crate::{boot, whole};

/// The end of each file's name.
const SUFFIX: &str = ".json";

/// The records. All methods block.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    directory: PathBuf,
}

/// One record as it lies on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// After another boot nothing runs, and addresses may be others'.
    boot: String,
    seen: Seen,
}

impl Remembered {
    /// Those of the agent that keeps its things in `data_dir`.
    pub fn of(data_dir: &Path) -> Self {
        Self { directory: data_dir.join("containers") }
    }

    /// Remembers an instance's container as the engine shows it.
    pub fn put(&self, instance: &InstanceId, seen: &Seen) -> io::Result<()> {
        let path = self.path(instance)?;
        fs::create_dir_all(&self.directory)?;
        let record = serde_json::to_vec(&Record { boot: boot::id(), seen: seen.clone() })?;
        whole::write_private(&path, &path.with_extension("new"), &record)
    }

    /// Forgets an instance, if it was remembered.
    pub fn remove(&self, instance: &InstanceId) -> io::Result<()> {
        match fs::remove_file(self.path(instance)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// All containers that were there in this boot. A record that cannot be read is as good as none.
    pub fn all(&self) -> Vec<Seen> {
        let boot = boot::id();
        let records = self.files().filter(|path| path.to_string_lossy().ends_with(SUFFIX)).filter_map(|path| {
            let record: Record = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
            (record.boot == boot).then_some(record.seen)
        });
        records.collect()
    }

    /// Forgets all instances that are not to be kept, and what a sudden end left half written.
    pub fn sweep(&self, keep: impl Fn(&InstanceId) -> bool) {
        for path in self.files() {
            let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(SUFFIX));
            if !name.is_some_and(|instance| keep(&InstanceId::from_recorded(instance))) {
                // Tried again at the next start.
                let _ = fs::remove_file(path);
            }
        }
    }

    fn files(&self) -> impl Iterator<Item = PathBuf> {
        fs::read_dir(&self.directory).into_iter().flatten().flatten().map(|entry| entry.path())
    }

    /// Labels come from the engine: one that somebody else wrote must not lead out of the directory.
    fn path(&self, instance: &InstanceId) -> io::Result<PathBuf> {
        match instance.as_str().contains('/') {
            true => Err(io::Error::other(format!("{instance} is no instance's name"))),
            false => Ok(self.directory.join(format!("{instance}{SUFFIX}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(id: &str) -> Seen {
        Seen {
            id: id.to_owned(),
            labels: [("landfall.app".to_owned(), "shop".to_owned())].into(),
            pid: 7,
            running: true,
            started: true,
            started_at: jiff::Timestamp::UNIX_EPOCH,
            address: "172.17.0.2".parse().ok(),
            exit_code: 0,
            finished_at: jiff::Timestamp::UNIX_EPOCH,
            oom: false,
            own_check: true,
            on_host: false,
            shape: super::super::drift::Shape { name: "a".to_owned(), networks: 1, ..Default::default() },
        }
    }

    fn instance(name: &str) -> InstanceId {
        InstanceId::from_recorded(name)
    }

    #[test]
    fn what_started_is_remembered_until_it_is_gone() {
        let data_dir = tempfile::tempdir().expect("a directory");
        let remembered = Remembered::of(data_dir.path());
        assert_eq!(remembered.all(), vec![], "nothing was there yet");
        remembered.put(&instance("shop-main-v1-a"), &seen("1")).expect("written");
        remembered.put(&instance("shop-main-v1-a"), &seen("2")).expect("written anew");
        assert_eq!(Remembered::of(data_dir.path()).all(), vec![seen("2")]);
        remembered.remove(&instance("shop-main-v1-a")).expect("removed");
        remembered.remove(&instance("shop-main-v1-a")).expect("nothing to remove");
        assert_eq!(remembered.all(), vec![]);
    }

    #[test]
    fn records_of_another_boot_broken_ones_and_leftovers_say_nothing_and_are_swept() {
        let data_dir = tempfile::tempdir().expect("a directory");
        let remembered = Remembered::of(data_dir.path());
        remembered.put(&instance("kept"), &seen("1")).expect("written");
        let write = |name: &str, text: &str| fs::write(remembered.directory.join(name), text).expect("written");
        let earlier = Record { boot: "another".to_owned(), seen: seen("2") };
        write("earlier.json", &serde_json::to_string(&earlier).expect("text"));
        write("broken.json", "{\"boot\":");
        write("half.new", "{");
        assert_eq!(remembered.all(), vec![seen("1")]);
        remembered.sweep(|instance| instance.as_str() == "kept");
        assert_eq!(remembered.files().count(), 1);
        assert_eq!(remembered.all(), vec![seen("1")]);
    }

    #[test]
    fn a_name_does_not_lead_elsewhere() {
        let data_dir = tempfile::tempdir().expect("a directory");
        let remembered = Remembered::of(data_dir.path());
        assert!(remembered.put(&instance("../ledger"), &seen("1")).is_err());
        assert!(remembered.remove(&instance("../ledger")).is_err());
    }
}
