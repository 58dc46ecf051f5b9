//! The machine: disk, clock, time zones, control groups, open files.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp};
use nix::sys::statvfs::statvfs;

use super::{Finding, Patient};
use crate::domain::manifest::Bytes;
use crate::zones::{ZoneData, Zones};

/// The clock was never set when it says something earlier.
const EARLIEST: &str = "2026-01-01T00:00:00Z";
/// What was written so much later than now was written under another clock.
const AHEAD: SignedDuration = SignedDuration::from_secs(60);
/// Files for everything that is no connection.
const BASE_FILES: u64 = 512;
/// Each connection of a client has another one to an instance.
const FILES_PER_CONNECTION: u64 = 2;

pub(super) fn check(patient: &Patient) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(data_dir) = &patient.data_dir {
        let least = patient.config.as_ref().and_then(|config| config.limits.disk_free);
        found.push(disk(data_dir, least));
    }
    found.push(clock(patient.now, patient.data_dir.as_deref().and_then(newest)));
    found.push(zones(&Zones::of_this_machine().data()));
    if patient.data_dir.is_some() {
        let supervisor = patient.status.as_ref().map(|status| status.processes.supervisor.pid);
        found.push(cgroups(supervisor));
        let connections = patient.config.as_ref().map(|config| config.proxy.max_connections);
        found.extend(open_files(supervisor, connections));
    }
    found
}

/// The directory itself, or the nearest one above that is there.
fn existing(path: &Path) -> Option<&Path> {
    path.ancestors().find(|path| path.exists())
}

fn disk(data_dir: &Path, least: Option<Bytes>) -> Finding {
    const CHECK: &str = "disk";
    let Some((place, disk)) = existing(data_dir).and_then(|place| Some((place, statvfs(place).ok()?))) else {
        let mend = "check that this user may look there";
        return Finding::warning(CHECK, format!("the disk with {} cannot be asked", data_dir.display()), mend);
    };
    if let Some(problem) = crate::engine::disk_problem(place, least) {
        let (what, mend) = problem.split_once("; ").unwrap_or((&problem, "free some space"));
        return Finding::failure(CHECK, what, mend);
    }
    let (inodes, free) = (disk.files(), disk.files_available());
    if inodes > 0 && free < inodes / 100 {
        let what = format!("the disk with {} has room for {free} more files only", data_dir.display());
        return Finding::failure(CHECK, what, "remove what is not needed there: it has many small files");
    }
    let bytes = disk.blocks_available().saturating_mul(disk.fragment_size());
    Finding::ok(CHECK, format!("{} MiB are free for {}", bytes / 1024 / 1024, data_dir.display()))
}

/// When something was last written to the record, by the file's own time: the record itself is the agent's.
fn newest(data_dir: &Path) -> Option<Timestamp> {
    let written = |name: &str| data_dir.join(name).metadata().and_then(|about| about.modified()).ok();
    let newest: SystemTime = [written("ledger.db"), written("ledger.db-wal")].into_iter().flatten().max()?;
    Timestamp::try_from(newest).ok()
}

fn clock(now: Timestamp, newest: Option<Timestamp>) -> Finding {
    const CHECK: &str = "clock";
    const MEND: &str =
        "set the clock and keep it right, with `systemd-timesyncd` or `chrony`: schedules and certificates go by it";
    let said = now.strftime("%Y-%m-%d %H:%M:%S UTC");
    if EARLIEST.parse().is_ok_and(|earliest: Timestamp| now < earliest) {
        return Finding::failure(CHECK, format!("it says {said}: it was never set"), MEND);
    }
    match newest {
        Some(newest) if newest.duration_since(now) > AHEAD => {
            let ahead = newest.duration_since(now).as_secs();
            let what = format!("it says {said}, and the record was written {ahead} s later than that: it was set back");
            Finding::failure(CHECK, what, MEND)
        }
        Some(_) => Finding::ok(CHECK, format!("it says {said}, later than all that is on record")),
        None => Finding::ok(CHECK, format!("it says {said}")),
    }
}

fn zones(data: &ZoneData) -> Finding {
    const CHECK: &str = "time zones";
    match (data.warning(), &data.directory, &data.system) {
        (Some(warning), ..) => {
            let (what, mend) = warning.split_once("; ").unwrap_or((&warning, "update the system's package `tzdata`"));
            Finding::warning(CHECK, what, mend)
        }
        (None, Some(directory), Some(version)) => {
            Finding::ok(CHECK, format!("{version} in {}; {} in the program", directory.display(), data.bundled))
        }
        (None, Some(directory), None) => Finding::ok(
            CHECK,
            format!(
                "those in {}, which do not tell their version; {} in the program",
                directory.display(),
                data.bundled
            ),
        ),
        (None, None, _) => {
            Finding::ok(CHECK, format!("this machine has none: {} of the program are used", data.bundled))
        }
    }
}

/// Whether instances can be held to their limits as whole groups.
fn cgroups(supervisor: Option<i32>) -> Finding {
    const CHECK: &str = "control groups";
    const WITHOUT: &str = "instances are not held to their limits as groups";
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let Some(root) = hierarchy(&mounts) else {
        let mend = "boot with control groups of version 2 (`systemd.unified_cgroup_hierarchy=1`)";
        return Finding::warning(CHECK, format!("there are none of version 2: {WITHOUT}"), mend);
    };
    let process = supervisor.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let Some(own) = own_group(&process).map(|path| root.join(path)) else {
        let mend = "run `landfall doctor` as the agent's user, or as root";
        return Finding::warning(CHECK, "the agent's own cannot be found", mend);
    };
    // The supervisor may have stepped aside into a group below its own.
    let candidates = [Some(own.as_path()), own.parent().filter(|above| above.starts_with(&root))];
    let has_ours = |place: &Path| {
        let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).any(|name| name.starts_with("landfall-"))
    };
    match supervisor {
        Some(_) if candidates.into_iter().flatten().any(has_ours) => {
            Finding::ok(CHECK, format!("instances have their own below {}", own.display()))
        }
        Some(_) => Finding::warning(
            CHECK,
            format!("the agent may make none in {}: {WITHOUT}", own.display()),
            "set `Delegate=yes` in its systemd unit, or start its container with a writable hierarchy of its own",
        ),
        None => {
            Finding::ok(CHECK, "there are those of version 2; whether the agent may use them is seen while it runs")
        }
    }
}

/// Where control groups of version 2 are mounted.
fn hierarchy(mounts: &str) -> Option<PathBuf> {
    let mut lines = mounts.lines().map(|line| line.split(' '));
    lines.find_map(|mut fields| {
        let place = fields.nth(1)?;
        (fields.next() == Some("cgroup2")).then(|| PathBuf::from(place))
    })
}

/// The control group of a process, relative to the root of the hierarchy.
fn own_group(process: &str) -> Option<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(PathBuf::from(path))
}

fn open_files(supervisor: Option<i32>, connections: Option<u32>) -> Option<Finding> {
    const CHECK: &str = "open files";
    let process = supervisor.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let text = std::fs::read_to_string(format!("/proc/{process}/limits")).ok()?;
    let hard = limit_of(&text)?;
    let wanted = BASE_FILES + FILES_PER_CONNECTION * u64::from(connections.unwrap_or(0));
    Some(if hard < wanted {
        Finding::warning(
            CHECK,
            format!("a process may open {hard}, and `proxy.max_connections` may need {wanted}"),
            format!("set `LimitNOFILE={wanted}` in the systemd unit, or lower `proxy.max_connections`"),
        )
    } else {
        Finding::ok(CHECK, format!("a process may open {hard}"))
    })
}

/// The hard limit: the program raises its soft one to that.
fn limit_of(limits: &str) -> Option<u64> {
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    match line.split_whitespace().nth(4)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn a_clock_that_was_never_set_or_set_back_is_a_failure() {
        let now = at("2026-11-28T12:00:00Z");
        assert_eq!(clock(now, None).level, Level::Ok);
        assert_eq!(clock(now, Some(at("2026-11-28T12:00:30Z"))).level, Level::Ok);
        let back = clock(now, Some(at("2026-11-28T13:00:00Z")));
        assert_eq!(back.level, Level::Failure);
        assert!(back.message.contains("3600 s later"), "{}", back.message);
        assert_eq!(clock(at("1970-01-01T00:01:00Z"), None).level, Level::Failure);
    }

    #[test]
    fn old_zone_files_are_a_warning_with_what_to_do() {
        let data = |system: Option<&str>| ZoneData {
            directory: system.map(|_| PathBuf::from("/usr/share/zoneinfo")),
            system: system.map(str::to_owned),
            bundled: "2026a".into(),
        };
        assert_eq!(zones(&data(Some("2026b"))).level, Level::Ok);
        assert_eq!(zones(&data(None)).level, Level::Ok);
        let old = zones(&data(Some("2024a")));
        assert_eq!(old.level, Level::Warning);
        assert!(old.mend.is_some_and(|mend| mend.contains("tzdata")));
    }

    #[test]
    fn the_hard_limit_of_open_files_is_read_and_held_against_connections() {
        let text = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files\n";
        assert_eq!(limit_of(text), Some(524_288));
        assert_eq!(limit_of(&text.replace("524288", "unlimited")), Some(u64::MAX));
        assert_eq!(limit_of("nothing"), None);
        assert_eq!(open_files(None, None).map(|finding| finding.check), Some("open files"));
        assert_eq!(open_files(None, Some(u32::MAX)).map(|finding| finding.level), Some(Level::Warning));
    }

    #[test]
    fn the_hierarchy_of_version_2_is_found_where_it_is_mounted() {
        let mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(hierarchy(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(hierarchy("proc /proc proc rw 0 0\n"), None);
    }

    #[test]
    fn a_disk_has_room_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("not/there/yet");
        assert_eq!(disk(&below, Some(Bytes(0))).level, Level::Ok);
        let full = disk(&below, Some(Bytes(u64::MAX)));
        assert_eq!(full.level, Level::Failure);
        assert!(full.message.contains("nearly full") && full.mend.is_some_and(|mend| mend.contains("free some space")));
    }
}
