//! Who is related to whom, read from `/proc`.
//!
//! Invariant used everywhere here: the supervisor is a child subreaper, so every process an instance
//! leaves behind is a descendant of the supervisor. Once an instance's first process (its *leader*) has been
//! reaped, whatever is left of it hangs below *orphans*: direct children of the supervisor that it did
//! not start itself. A process belongs to an instance by descent, by its session or group, or by
//! `LANDFALL_INSTANCE` in its first environment. Only a daemon that leaves its parents, its session *and* its
//! environment is not recognised (unless there is a control group); it ends with the agent.

use std::collections::{HashMap, HashSet};
use std::fs;

use serde::{Deserialize, Serialize};

use super::sys;

/// Names one process for all time within one boot: pids are used again, pairs are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Process id.
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`.
    pub start_ticks: u64,
}

/// What `/proc/<pid>/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub identity: Identity,
    pub zombie: bool,
    pub parent: i32,
    pub group: i32,
    pub session: i32,
}

/// The process of that number, if there is one.
pub(super) fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    let pid = text.split(' ').next()?.parse().ok()?;
    // The second field is the program's name in parentheses and may contain anything, `)` included.
    let mut fields = text.get(text.rfind(')')? + 2..)?.split(' ');
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let session = fields.next()?.parse().ok()?;
    let threads: u32 = fields.nth(13)?.parse().ok()?;
    let start_ticks = fields.nth(1)?.trim().parse().ok()?;
    // The first thread may have ended while others go on: such a process lives.
    let zombie = matches!(state, "Z" | "X" | "x") && threads <= 1;
    Some(Stat { identity: Identity { pid, start_ticks }, zombie, parent, group, session })
}

/// Sends a signal to exactly that process; a process that is gone is no error.
pub(super) fn signal(process: Identity, signal: nix::sys::signal::Signal) {
    let Ok(pidfd) = sys::pidfd_open(process.pid) else { return };
    // Looked up after the descriptor was opened: if the start still matches, the descriptor is the right one.
    if stat(process.pid).is_some_and(|now| now.identity == process) {
        let _ = sys::pidfd_signal(&pidfd, signal as i32);
    }
}

/// Direct children of the supervisor which are not in `known`. Cheap: one file where the kernel has it.
pub(super) fn orphans(me: i32, known: &dyn Fn(i32) -> bool) -> Vec<i32> {
    let children = match fs::read_to_string(format!("/proc/{me}/task/{me}/children")) {
        Ok(list) => list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect(),
        Err(_) => all().into_values().filter(|p| p.parent == me).map(|p| p.identity.pid).collect::<Vec<i32>>(),
    };
    children.into_iter().filter(|pid| !known(*pid)).collect()
}

/// Every process there is.
pub(super) fn all() -> HashMap<i32, Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return HashMap::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(stat)
        .map(|process| (process.identity.pid, process))
        .collect()
}

/// Variable with the name of the instance a process was started for.
pub(super) const INSTANCE_VARIABLE: &str = "LANDFALL_INSTANCE";
/// Variable with the mark of the supervisor that started it; see [`mark`].
pub(super) const SUPERVISOR_VARIABLE: &str = "LANDFALL_SUPERVISOR";

/// A variable of a process's first environment.
pub(super) fn variable(pid: i32, name: &str) -> Option<String> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let value =
        environ.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    String::from_utf8(value.to_vec()).ok()
}

/// The identity of this process. An upgrade in place keeps it.
pub(super) fn own() -> Identity {
    let pid = nix::unistd::getpid().as_raw();
    stat(pid).map_or(Identity { pid, start_ticks: 0 }, |stat| stat.identity)
}

/// What a supervisor writes into the environment of its instances, to tell them from those of another agent.
pub(super) fn mark(supervisor: Identity) -> String {
    format!("{}.{}", supervisor.pid, supervisor.start_ticks)
}

/// All living processes that belong to an instance, its leader excluded.
///
/// `leader` is the number its first process has or had; `known` tells the supervisor's own children
/// (leaders of all instances, controller, proxies), below which nothing of *another* instance is looked for.
pub(super) fn members(me: i32, instance: &str, leader: i32, known: &dyn Fn(i32) -> bool) -> Vec<Identity> {
    let all = all();
    let mut below: HashMap<i32, Vec<i32>> = HashMap::new();
    for process in all.values() {
        below.entry(process.parent).or_default().push(process.identity.pid);
    }
    let mut found = HashSet::new();
    // (process, whether its parent belongs to the instance)
    let mut queue: Vec<(i32, bool)> = below.get(&me).into_iter().flatten().map(|pid| (*pid, false)).collect();
    while let Some((pid, inherited)) = queue.pop() {
        let Some(process) = all.get(&pid) else { continue };
        let direct = process.parent == me;
        if direct && pid != leader && known(pid) {
            continue;
        }
        let belongs = inherited
            || pid == leader
            || process.session == leader
            || process.group == leader
            || (!process.zombie && variable(pid, INSTANCE_VARIABLE).as_deref() == Some(instance));
        if belongs && pid != leader && !process.zombie {
            found.insert(process.identity);
        }
        queue.extend(below.get(&pid).into_iter().flatten().map(|child| (*child, belongs)));
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let text = "7 (a) b (c) S 1 2 3 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1000 10\n";
        let stat = parse_stat(text).expect("parses");
        assert_eq!(stat.identity, Identity { pid: 7, start_ticks: 4711 });
        assert_eq!((stat.parent, stat.group, stat.session, stat.zombie), (1, 2, 3, false));
        let ended = text.replace(" S ", " Z ");
        assert!(parse_stat(&ended).expect("parses").zombie);
        let first_thread_only = ended.replace(" 20 0 1 0 ", " 20 0 2 0 ");
        assert!(!parse_stat(&first_thread_only).expect("parses").zombie);
    }

    #[test]
    fn variables_are_found_by_their_whole_name() {
        let me = nix::unistd::getpid().as_raw();
        assert_eq!(variable(me, "PATH"), std::env::var("PATH").ok());
        assert_eq!(variable(me, "PAT"), None);
        assert_eq!(own(), stat(me).expect("is there").identity);
    }

    #[test]
    fn this_process_is_found_with_its_parent() {
        let me = nix::unistd::getpid().as_raw();
        let stat = stat(me).expect("is there");
        assert_eq!(stat.parent, nix::unistd::getppid().as_raw());
        assert!(all().contains_key(&me));
    }
}
