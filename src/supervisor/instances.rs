//! Starting, watching and ending instances.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::domain::{ExitStatus, InstanceId};
use crate::secret_files::{Readers, SecretFiles};
use crate::wire::supervisor::{self as wire, FromSupervisor, StartRequest};

use super::cgroup::Leaf;
use super::child::{Child, Stage};
use super::logs::{SavedLog, Stream, stays_below};
use super::own;
use super::requests::unknown;
use super::root::{Root, Source, Who};
use super::spawn::{self, Refusal};

/// How soon output that waits for the disk is tried again.
pub(super) const FLUSH: Duration = Duration::from_millis(100);
/// Buffers read from one instance per wake-up, so that one that floods does not starve the others.
const READS: usize = 4;
/// What may still be in the pipes of an instance of which nothing lives: the largest pipe an app can ask for.
const LAST_READS: usize = 64;

impl Root {
    /// Starts an instance; one that exists is left as it is.
    pub(super) fn start(&mut self, request: StartRequest) -> Result<wire::Child, Refusal> {
        self.while_running()?;
        if let Some(child) = self.children.get(&request.instance) {
            return Ok(child.report());
        }
        let name = request.instance.as_str();
        if !stays_below(name.as_ref()) || name.contains('/') || !stays_below(&request.log) {
            let message = format!("instance `{name}` or its log {} is no valid name", request.log.display());
            return Err(Refusal::new("not_permitted", message));
        }
        let mut log = self.logs.log(&request.log, SavedLog::default());
        let (started, leaf, temporary) = match self.spawn(&request) {
            Ok(started) => started,
            Err(refusal) => {
                self.logs.system(&mut log, &format!("not started: {}", refusal.message));
                self.logs.finish(&mut log);
                return Err(refusal);
            }
        };
        let line = format!("started, pid {}: {}", started.process.pid, request.command.join(" "));
        self.logs.system(&mut log, &line);
        if let Some(line) = self.unenforced(&request, leaf.as_ref()) {
            self.logs.system(&mut log, &line);
        }
        self.watch(&started.stdout, Source::Output(request.instance.clone(), Stream::Stdout));
        self.watch(&started.stderr, Source::Output(request.instance.clone(), Stream::Stderr));
        self.by_pid.insert(started.process.pid, Who::Instance(request.instance.clone()));
        let kind = request.labels.kind;
        let child = Child {
            instance: request.instance.clone(),
            labels: request.labels,
            process: started.process,
            started_at: Timestamp::now(),
            log_path: request.log,
            grace: request.grace,
            stage: Stage::Running,
            status: None,
            stdout: Some(started.stdout),
            stderr: Some(started.stderr),
            log,
            cgroup: leaf,
            temporary,
            lent: lent(&self.plan, &request.directory, kind),
        };
        let report = child.report();
        let process = child.process;
        self.children.insert(request.instance.clone(), child);
        self.record_start(&request.instance, process);
        Ok(report)
    }

    fn spawn(&self, request: &StartRequest) -> Result<(spawn::Started, Option<Leaf>, PathBuf), Refusal> {
        let name = request.instance.as_str();
        let user = self.apps_user();
        let temporary = spawn::temporary_directory(&self.plan.data_dir, name, user).map_err(|error| {
            Refusal::new("io", format!("temporary directory of {name} cannot be made: {error}; is the disk full?"))
        })?;
        let given = self.provide(request).and_then(|()| self.secret_files(request));
        let secret_files = match given {
            Ok(directory) => directory,
            Err(error) => {
                let _ = fs::remove_dir(&temporary);
                self.remove_secret_files(name);
                return Err(Refusal::new("io", format!("directories of {name} cannot be provided: {error}")));
            }
        };
        let leaf = self.cgroups.as_ref().and_then(|groups| groups.create(name, &request.resources));
        let grouped = leaf.as_ref().is_some_and(Leaf::limits_memory);
        let data_limit = request.resources.memory.filter(|_| !grouped).map(|bytes| bytes.0);
        match spawn::instance(request, &temporary, secret_files.as_deref(), user, leaf.as_ref(), data_limit) {
            Ok(started) => {
                let pid = started.process.pid;
                let joined = |leaf: &Leaf| leaf.processes().contains(&pid) || leaf.populated() == Some(true);
                // One it could not join, or left already by ending, would make it look as if nothing of it lived.
                let leaf = leaf.filter(|leaf| {
                    let joined = joined(leaf);
                    if !joined {
                        leaf.remove();
                    }
                    joined
                });
                Ok((started, leaf, temporary))
            }
            Err(refusal) => {
                self.take_back(lent(&self.plan, &request.directory, request.labels.kind).as_deref(), name);
                leaf.iter().for_each(Leaf::remove);
                let _ = fs::remove_dir(&temporary);
                self.remove_secret_files(name);
                Err(refusal)
            }
        }
    }

    /// Makes the instance's volumes, and lends a build its files.
    fn provide(&self, request: &StartRequest) -> std::io::Result<()> {
        let data_dir = &self.plan.data_dir;
        for volume in &request.volumes {
            own::volume(data_dir, volume, self.apps_user())?;
        }
        match (lent(&self.plan, &request.directory, request.labels.kind), self.apps_user()) {
            (Some(directory), Some(user)) => own::give(data_dir, &directory, user),
            _ => Ok(()),
        }
    }

    /// Writes the instance's secrets that are files, where it has any; answers their directory.
    fn secret_files(&self, request: &StartRequest) -> io::Result<Option<PathBuf>> {
        if request.secret_files.is_empty() {
            return Ok(None);
        }
        let readers = Readers::User(self.apps_user().map(|user| (user.uid, user.gid)));
        let files = SecretFiles::of_processes(&self.plan.data_dir);
        files.put(request.instance.as_str(), request.secret_files.exposed(), readers).map(Some)
    }

    fn remove_secret_files(&self, instance: &str) {
        if let Err(error) = SecretFiles::of_processes(&self.plan.data_dir).remove(instance) {
            tracing::error!(instance, %error, "files with secrets of an instance that has ended are left");
        }
    }

    /// Gives a build's files back to the agent's user.
    fn take_back(&self, lent: Option<&std::path::Path>, instance: &str) {
        if let (Some(directory), Some(users)) = (lent, &self.plan.users)
            && let Err(error) = own::give(&self.plan.data_dir, directory, &users.agent)
        {
            tracing::error!(instance, directory = %directory.display(), %error, "a build's files cannot be taken back");
        }
    }

    /// What of the wanted limits does not hold here, in words.
    fn unenforced(&self, request: &StartRequest, leaf: Option<&Leaf>) -> Option<String> {
        let has = |controller| leaf.is_some() && self.cgroups.as_ref().is_some_and(|groups| groups.has(controller));
        let wanted = &request.resources;
        let mut missing = Vec::new();
        if wanted.memory.is_some() && !leaf.is_some_and(Leaf::limits_memory) {
            missing.push("memory holds for each process, not for all together");
        }
        if wanted.cpu_millis.is_some() && !has("cpu") {
            missing.push("cpu is not limited");
        }
        if wanted.processes.is_some() && !has("pids") {
            missing.push("processes are not limited");
        }
        (!missing.is_empty()).then(|| format!("no control group with these controllers: {}", missing.join(", ")))
    }

    /// Asks an instance to end. False when it is unknown.
    pub(super) fn stop(&mut self, instance: &InstanceId, grace: Duration, now: Instant) -> bool {
        let by_pid = &self.by_pid;
        let Some(child) = self.children.get_mut(instance) else { return false };
        let line = format!("stop requested, SIGTERM now, SIGKILL after {} ms", grace.as_millis());
        if child.terminate(grace, true, now, &|pid| by_pid.contains_key(&pid)) {
            self.logs.system(&mut child.log, &line);
        }
        self.look_at_timers();
        true
    }

    pub(super) fn forget(&mut self, instance: &InstanceId) -> Result<(), Refusal> {
        match self.children.get(instance) {
            Some(child) if !child.has_exited() => {
                Err(Refusal::new("running", format!("instance {instance} has not ended; stop it first")))
            }
            // Forgetting twice is forgetting.
            Some(_) | None => {
                self.children.remove(instance);
                Ok(())
            }
        }
    }

    pub(super) fn log_line(&mut self, instance: &InstanceId, line: &str) -> Result<(), Refusal> {
        let child = self.children.get_mut(instance).ok_or_else(|| unknown(instance))?;
        self.logs.system(&mut child.log, line);
        if child.has_exited() {
            self.logs.finish(&mut child.log);
        }
        Ok(())
    }

    /// The first process of an instance was reaped.
    pub(super) fn leader_ended(&mut self, instance: &InstanceId, status: ExitStatus, now: Instant) {
        let by_pid = &self.by_pid;
        if let Some(child) = self.children.get_mut(instance) {
            child.leader_ended(status, now, &|pid| by_pid.contains_key(&pid));
        }
        self.advance_child(instance, now);
    }

    /// Moves every ending instance on.
    pub(super) fn advance_children(&mut self, now: Instant) {
        let ending = |child: &&Child| matches!(child.stage, Stage::Terminating { .. } | Stage::Killing { .. });
        let all: Vec<_> = self.children.values().filter(ending).map(|child| child.instance.clone()).collect();
        for instance in all {
            self.advance_child(&instance, now);
        }
    }

    fn advance_child(&mut self, instance: &InstanceId, now: Instant) {
        let by_pid = &self.by_pid;
        let over =
            self.children.get_mut(instance).is_some_and(|child| child.advance(now, &|pid| by_pid.contains_key(&pid)));
        if over {
            self.close_child(instance);
        }
    }

    /// Nothing of the instance is left: its last output is read, and the controller is told.
    fn close_child(&mut self, instance: &InstanceId) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.read_output(instance, stream, LAST_READS);
            self.close_output(instance, stream);
        }
        let Some(child) = self.children.get_mut(instance) else { return };
        child.close();
        let report = child.report();
        if let wire::ChildState::Exited { status, oom, .. } = report.state {
            let why = if oom { " (out of memory)" } else { "" };
            self.logs.system(&mut child.log, &format!("ended: {status}{why}"));
        }
        self.logs.finish(&mut child.log);
        let lent = child.lent.take();
        remove_temporary(std::mem::take(&mut child.temporary));
        let report = child.report();
        self.take_back(lent.as_deref(), instance.as_str());
        self.remove_secret_files(instance.as_str());
        self.tell(&FromSupervisor::Exited(Box::new(report)));
    }

    /// Writes output that had to wait for the disk. True while some still waits.
    pub(super) fn flush_logs(&mut self) -> bool {
        let mut waiting = false;
        for child in self.children.values_mut().filter(|child| child.log.is_pending()) {
            waiting |= !self.logs.flush(&mut child.log);
        }
        waiting
    }

    /// Moves output that has come into the log.
    pub(super) fn pump(&mut self, instance: &InstanceId, stream: Stream) {
        if !self.read_output(instance, stream, READS) {
            self.close_output(instance, stream);
        }
    }

    /// False when the pipe has ended.
    fn read_output(&mut self, instance: &InstanceId, stream: Stream, reads: usize) -> bool {
        let Some(child) = self.children.get_mut(instance) else { return false };
        let pipe = match stream {
            Stream::Stdout => &child.stdout,
            Stream::Stderr => &child.stderr,
        };
        let Some(pipe) = pipe else { return false };
        let (mut open, mut pending) = (true, false);
        for _ in 0..reads {
            match nix::unistd::read(pipe, &mut self.buffer) {
                Ok(0) => open = false,
                Ok(count) => {
                    let bytes = self.buffer.get(..count).unwrap_or_default();
                    self.logs.feed(&mut child.log, stream, bytes);
                    pending |= child.log.is_pending();
                }
                Err(error) if matches!(io::Error::from(error).kind(), io::ErrorKind::WouldBlock) => break,
                Err(nix::errno::Errno::EINTR) => {}
                Err(_) => open = false,
            }
            if !open {
                break;
            }
        }
        if pending {
            self.look_at_timers_by(Instant::now() + FLUSH);
        }
        open
    }

    fn close_output(&mut self, instance: &InstanceId, stream: Stream) {
        let Some(child) = self.children.get_mut(instance) else { return };
        let pipe = match stream {
            Stream::Stdout => child.stdout.take(),
            Stream::Stderr => child.stderr.take(),
        };
        if let Some(pipe) = pipe {
            self.unwatch(&pipe);
        }
    }
}

/// Removes what an instance left in its temporary directory. Usually nothing; a large tree is removed beside
/// the loop, and whatever a sudden end leaves of it is swept at the next start of the agent.
fn remove_temporary(path: PathBuf) {
    if fs::remove_dir(&path).is_ok() || fs::symlink_metadata(&path).is_err() {
        return;
    }
    let sweep = std::thread::Builder::new().name("sweep".to_owned()).stack_size(256 * 1024);
    if let Err(error) = sweep.spawn(move || fs::remove_dir_all(&path)) {
        tracing::warn!(%error, "temporary directory is left for the next start");
    }
}

/// The directory that is lent to the apps' user: a build's, when there are separate users.
fn lent(plan: &wire::Plan, directory: &std::path::Path, kind: wire::ChildKind) -> Option<PathBuf> {
    let build = kind == wire::ChildKind::Build && plan.users.is_some();
    build.then(|| directory.to_owned())
}
