//! Failures as people read them: what failed, where, why, and what to do.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fleet::{BuildEnd, HostConflict, ObjectProgress, Progress, StartFailure, WaitingInstance};
use super::spec::VersionSpec;
use crate::domain::manifest::ObjectKind;
use crate::domain::{AppKey, Failure, ObjectName, Phase};
use crate::runtime::docker::ImageError;
pub(super) use crate::runtime::docker::SECRET_MISSING;
use crate::runtime::supervisor_link::StartError;

/// Lines of an instance's log that go into a failure.
const TAIL: usize = 50;

/// Where a failing process told its story.
pub(super) struct Told {
    pub logs: PathBuf,
    pub log: PathBuf,
}

impl Told {
    async fn tail(&self) -> Vec<String> {
        tail(self.logs.join(&self.log)).await
    }
}

async fn tail(path: PathBuf) -> Vec<String> {
    let read = tokio::task::spawn_blocking(move || crate::runtime::logs::tail_lines(&path, TAIL));
    read.await.unwrap_or_default()
}

fn plain(code: &str, phase: Phase, message: String) -> Failure {
    Failure { code: code.to_owned(), message, phase, object: None, last_probe: None, exit: None, log_tail: Vec::new() }
}

/// A failure before anything ran.
pub(super) fn preparation(message: String) -> Failure {
    plain("preparation_failed", Phase::Preparing, message)
}

/// A secret is missing; nothing was built or started.
pub(super) fn no_secret(key: &AppKey, phase: Phase, why: &str) -> Failure {
    let again = format!("Then `landfall app release --force {}` starts this version's content again", key.app);
    plain(SECRET_MISSING, phase, format!("{why}. {again}"))
}

pub(super) fn host_conflict(key: &AppKey, conflict: &HostConflict) -> Failure {
    let message = format!(
        "{} is already served by app {}. Give {} another name, another `path`, or another host in `hosts`",
        conflict.place, conflict.owner.app, key.app
    );
    plain("host_conflict", Phase::Starting, message)
}

pub(super) async fn build_failure(end: Result<BuildEnd, StartError>, told: &Told) -> Failure {
    let (code, message, exit) = match end {
        Err(error) => ("build_failed", format!("the build cannot be started: {error}"), None),
        Ok(end) if end.oom => {
            ("build_failed", "the build was ended by the kernel for want of memory".to_owned(), Some(end.status))
        }
        Ok(end) => {
            let message = format!("the build failed: {}; its last lines are in the log of object `build`", end.status);
            ("build_failed", message, Some(end.status))
        }
    };
    Failure {
        exit: exit.map(|status| status.to_string()),
        object: Some("build".to_owned()),
        log_tail: told.tail().await,
        ..plain(code, Phase::Building, message)
    }
}

/// The agent's configuration allows containers only.
pub(super) fn only_containers() -> Failure {
    let message = "the app has no image, and this agent runs containers only (`runtime: docker` in its configuration): name an `image` or a `build.dockerfile`";
    plain("no_image", Phase::Preparing, message.to_owned())
}

/// There is no image to make containers from.
pub(super) async fn no_image(error: &ImageError, phase: Phase, told: &Told) -> Failure {
    Failure {
        object: (phase == Phase::Building).then(|| "build".to_owned()),
        log_tail: told.tail().await,
        ..plain(error.code, phase, error.message.clone())
    }
}

/// What a Compose project runs could not be found out or built.
pub(super) async fn no_project_images(
    end: Option<Result<BuildEnd, StartError>>,
    limit: Duration,
    told: &Told,
) -> Failure {
    let (words, exit) = match end {
        None => (format!("they were not there after {}: set a longer `compose.timeout`", words_of(limit)), None),
        Some(Err(error)) => (format!("what builds them cannot be started: {error}"), None),
        Some(Ok(end)) => ("the last lines say why; all are in the log of object `build`".to_owned(), Some(end.status)),
    };
    Failure {
        exit: exit.map(|status| status.to_string()),
        object: Some("build".to_owned()),
        log_tail: told.tail().await,
        ..plain("project_images", Phase::Building, format!("no images for the Compose project: {words}"))
    }
}

pub(super) async fn build_timed_out(limit: Duration, told: &Told) -> Failure {
    let message =
        format!("the build was not over after {}: make it quicker or set a longer `build.timeout`", words_of(limit));
    Failure {
        object: Some("build".to_owned()),
        log_tail: told.tail().await,
        ..plain("build_timed_out", Phase::Building, message)
    }
}

/// How a step of a version failed.
pub(super) struct StepFailure {
    words: String,
    pub log_tail: Vec<String>,
}

impl std::fmt::Display for StepFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.words)
    }
}

pub(super) async fn step_failure(
    end: Option<Result<BuildEnd, StartError>>,
    limit: Duration,
    told: &Told,
) -> StepFailure {
    let words = match end {
        Some(Err(error)) => format!("it cannot be started: {error}"),
        Some(Ok(end)) if end.oom => "it was ended by the kernel for want of memory".to_owned(),
        Some(Ok(end)) => end.status.to_string(),
        None => format!("it was not over after {}", words_of(limit)),
    };
    StepFailure { words, log_tail: told.tail().await }
}

/// A tree could not be published.
pub(super) fn publishing(code: &str, phase: Phase, message: String) -> Failure {
    Failure { object: Some(super::publishing::OBJECT.to_owned()), ..plain(code, phase, message) }
}

pub(super) async fn start_failure(
    progress: &Progress,
    spec: &VersionSpec,
    object: Option<&ObjectName>,
    phase: Phase,
    logs: &Path,
) -> Failure {
    let found = progress.objects.iter().find(|candidate| Some(&candidate.object) == object);
    let Some((object, failure)) = found.and_then(|object| Some((object, object.failure.as_ref()?))) else {
        return plain("start_failed", phase, "an instance could not be started".to_owned());
    };
    Failure {
        object: Some(object.object.to_string()),
        last_probe: failure.last_probe.clone(),
        exit: failure.exit.map(|status| status.to_string()),
        log_tail: tail(logs.join(&failure.log)).await,
        ..plain(failure.code, phase, start_message(spec, object, failure) + &unexpanded_in(spec, &object.object))
    }
}

/// What to do about a `$PORT` that no shell replaces, where the object's command has one.
fn unexpanded_in(spec: &VersionSpec, object: &ObjectName) -> String {
    match spec.written_command(object).filter(|command| has_unexpanded_port(command)) {
        Some(_) => {
            ". `$PORT` in a list of arguments is passed on as it stands: write `command` as one text, for a shell"
                .into()
        }
        None => String::new(),
    }
}

fn has_unexpanded_port(command: &[String]) -> bool {
    let Some((program, arguments)) = command.split_first() else { return false };
    let name = program.rsplit('/').next().unwrap_or(program);
    let is_shell = matches!(name, "sh" | "ash" | "bash" | "dash" | "ksh" | "zsh" | "fish" | "busybox");
    !is_shell && arguments.iter().any(|argument| argument.contains("$PORT") || argument.contains("${PORT"))
}

fn start_message(spec: &VersionSpec, object: &ObjectProgress, failure: &StartFailure) -> String {
    let name = &object.object;
    if failure.code == "start_failed" {
        return format!("`{name}` cannot be started: {}", failure.message);
    }
    if spec.manifest.compose.is_some() {
        return "the Compose project did not come up: its last lines say why; correct the file or its services".into();
    }
    let mend = match (object.kind, failure.oom) {
        (_, true) => "give it more `resources.memory`, or find out what needs so much",
        (ObjectKind::Web, false) => "it must keep running and listen on $PORT; its last lines are in the log",
        (ObjectKind::Function, false) => "it must load and keep running; its last lines are in the log",
        (ObjectKind::Worker, false) => {
            "a worker must keep running until it gets SIGTERM; its last lines are in the log"
        }
    };
    format!("`{name}` {} before it was ready: {mend}", failure.message)
}

pub(super) async fn never_ready(
    progress: &Progress,
    spec: &VersionSpec,
    objects: &BTreeSet<ObjectName>,
    phase: Phase,
    waited: Duration,
    logs: &Path,
) -> Failure {
    let slow = progress.objects.iter().find(|object| objects.contains(&object.object) && object.ready < object.wanted);
    let Some(object) = slow else {
        return plain("not_ready", phase, format!("not ready after {}", words_of(waited)));
    };
    let mut message = format!(
        "`{}` was not ready after {} ({} of {} instances)",
        object.object,
        words_of(waited),
        object.ready,
        object.wanted
    );
    let mut failure = plain("not_ready", phase, String::new());
    failure.object = Some(object.object.to_string());
    if let Some(waiting) = &object.waiting {
        if let Some(last) = &waiting.last_probe {
            message.push_str(&format!("; last probe: {last}"));
        }
        if let Some(hint) = listens_elsewhere(waiting).await {
            message.push_str(&format!("; {hint}"));
        }
        failure.last_probe = waiting.last_probe.clone();
        failure.log_tail = tail(logs.join(&waiting.log)).await;
    }
    let key = match object.kind {
        ObjectKind::Web | ObjectKind::Worker => "health.deadline",
        ObjectKind::Function => "startup_timeout",
    };
    let answer = match spec.web(&object.object).and_then(|web| web.health.path.as_deref()) {
        Some(path) => format!(", answer `GET {path}` with 2xx or 3xx"),
        None => String::new(),
    };
    message.push_str(&format!(". Listen on $PORT{answer}, or allow more time with `{key}`"));
    message.push_str(&unexpanded_in(spec, &object.object));
    failure.message = message;
    failure
}

/// Says so when the instance listens, but not where it was told to.
async fn listens_elsewhere(waiting: &WaitingInstance) -> Option<String> {
    let (pid, port) = (waiting.pid?, waiting.port?);
    tokio::task::spawn_blocking(move || crate::runtime::listening::hint(pid, port)).await.ok().flatten()
}

pub(super) async fn bake_failure(progress: &Progress, window: Duration, logs: &Path) -> Failure {
    let bad = progress
        .objects
        .iter()
        .find(|object| object.last_end.is_some())
        .or_else(|| progress.objects.iter().find(|object| object.ready == 0 && object.wanted > 0));
    let within = words_of(window);
    let Some(object) = bad else {
        return plain("bake_failed", Phase::Baking, format!("the version failed within {within} after its switch"));
    };
    let what = match (&object.last_end, &object.waiting) {
        (Some(end), _) => end.clone(),
        (None, Some(waiting)) => format!(
            "`{}` is not ready: {}",
            object.object,
            waiting.last_probe.as_deref().unwrap_or("no probe has answered")
        ),
        (None, None) => format!("`{}` has no instance", object.object),
    };
    let log = object.waiting.as_ref().map(|waiting| waiting.log.clone());
    Failure {
        object: Some(object.object.to_string()),
        last_probe: object.waiting.as_ref().and_then(|waiting| waiting.last_probe.clone()),
        log_tail: match log {
            Some(log) => tail(logs.join(log)).await,
            None => Vec::new(),
        },
        ..plain("bake_failed", Phase::Baking, format!("within {within} after the switch: {what}"))
    }
}

/// What a deployment waits for, in words.
pub(super) fn describe(progress: &Progress, objects: &BTreeSet<ObjectName>) -> String {
    let waiting: Vec<String> = progress
        .objects
        .iter()
        .filter(|object| objects.contains(&object.object) && object.ready < object.wanted)
        .map(|object| {
            let last = object.waiting.as_ref().and_then(|waiting| waiting.last_probe.as_deref());
            let last = last.map(|last| format!(", last probe: {last}")).unwrap_or_default();
            let line = if object.in_line > 0 { ", the start waits for those of others" } else { "" };
            format!("{}: {} of {} ready{line}{last}", object.object, object.ready, object.wanted)
        })
        .collect();
    waiting.join("; ")
}

/// A length of time as people write it.
pub(super) fn words_of(time: Duration) -> String {
    let millis = time.as_millis();
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..120_000 if millis % 1000 < 50 => format!("{} s", millis / 1000),
        1_000..120_000 => format!("{:.1} s", time.as_secs_f64()),
        _ => format!("{} min", time.as_secs() / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_no_shell_replaces_is_recognised() {
        let command = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(has_unexpanded_port(&command(&["python3", "-m", "http.server", "$PORT"])));
        assert!(has_unexpanded_port(&command(&["./server", "--listen=127.0.0.1:${PORT}"])));
        assert!(!has_unexpanded_port(&command(&["/bin/sh", "-c", "./server $PORT"])));
        assert!(!has_unexpanded_port(&command(&["./server", "--port-from-env"])));
        assert!(!has_unexpanded_port(&[]));
    }
}
