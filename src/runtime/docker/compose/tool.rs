//! The engine's own tool for Compose projects: `docker compose`, or `docker-compose` as distributions still have it.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::super::Settings;
use super::{ComposeError, Order};

/// A tool must have told its version after this long.
const HELLO: Duration = Duration::from_secs(20);
/// A tool that is told to end gets this long before SIGKILL.
const GRACE: Duration = Duration::from_secs(10);
/// The tools in the order they are looked for.
const TOOLS: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];

/// Why a command of the tool did not do its work.
#[derive(Debug)]
pub(super) enum Failed {
    /// It was told to stop.
    Stopped,
    /// It failed; what it said is in the log.
    Ended(String),
}

/// The tool with what it is told each time.
#[derive(Debug)]
pub(super) struct Tool {
    name: String,
    program: &'static str,
    /// Which project: they come before the command.
    arguments: Vec<String>,
    /// How the engine is spoken to.
    env: Vec<(&'static str, String)>,
}

impl Tool {
    /// The first that works here, told about a project. The error says what mends it.
    pub(super) async fn find(order: &Order, project: &str, settings: &Settings) -> Result<Self, String> {
        let env = over_tls(settings).map_err(|error| format!("files for TLS cannot be laid out: {error}"))?;
        for tool in TOOLS {
            let Some((program, first)) = tool.split_first() else { continue };
            let mut command = Command::new(program);
            command.args(first).arg("version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let status = tokio::time::timeout(HELLO, command.kill_on_drop(true).status()).await;
            if !matches!(status, Ok(Ok(status)) if status.success()) {
                continue;
            }
            let mut arguments: Vec<String> = first.iter().map(|&word| word.to_owned()).collect();
            arguments.push(format!("--project-name={project}"));
            arguments.push("--ansi=never".to_owned());
            arguments.extend(order.files.iter().map(|file| format!("--file={file}")));
            arguments.extend(order.profiles.iter().map(|profile| format!("--profile={profile}")));
            return Ok(Self { name: tool.join(" "), program, arguments, env });
        }
        Err("neither `docker compose` nor `docker-compose` works here: install Docker's Compose plugin (package \
             docker-compose-plugin, docker-compose-v2 or docker-compose) where the agent's PATH finds it"
            .to_owned())
    }

    /// Has services run other images than their files say, by one more file, and fetch none.
    pub(super) fn overlay(&mut self, order: &Order, images: &BTreeMap<String, String>) -> Result<(), ComposeError> {
        if images.is_empty() {
            return Ok(());
        }
        let file = std::env::temp_dir().join("images.yaml");
        let failed = |error: std::io::Error| ComposeError::of(&file.display().to_string(), error);
        let services: serde_json::Map<String, Value> = images
            .iter()
            .map(|(service, image)| (service.clone(), json!({"image": image, "pull_policy": "never"})))
            .collect();
        let mut all = json!({"services": services});
        // `docker-compose` wants files of one version.
        if let Some(version) = order.files.first().and_then(|first| version_of(Path::new(first))) {
            all["version"] = json!(version);
        }
        // JSON is YAML.
        std::fs::write(&file, all.to_string()).map_err(failed)?;
        self.arguments.push(format!("--file={}", file.display()));
        Ok(())
    }

    /// What a command of the tool prints.
    pub(super) async fn output(
        &self,
        command: &[&str],
        longest: Duration,
        stop: &CancellationToken,
    ) -> Result<String, Failed> {
        let what = self.what(command);
        let mut prepared = self.command(command);
        prepared.stdout(Stdio::piped());
        let child = spawn(&what, prepared)?;
        let output = within(&what, longest, stop, child.wait_with_output()).await?;
        succeeded(&what, output.status)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// How a command is called in messages.
    fn what(&self, command: &[&str]) -> String {
        format!("`{} {}`", self.name, command.first().unwrap_or(&""))
    }

    fn command(&self, command: &[&str]) -> Command {
        let mut prepared = Command::new(self.program);
        prepared.args(&self.arguments).args(command).envs(self.env.iter().map(|(name, value)| (name, value)));
        prepared.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
        prepared
    }

    /// Runs a command of the tool to its end, at most for so long. What it writes goes into the instance's log.
    pub(super) async fn run(
        &self,
        command: &[&str],
        longest: Duration,
        stop: &CancellationToken,
    ) -> Result<(), Failed> {
        let what = self.what(command);
        let mut child = spawn(&what, self.command(command))?;
        match within(&what, longest, stop, child.wait()).await {
            Ok(status) => succeeded(&what, status),
            Err(why) => {
                end(&mut child).await;
                Err(why)
            }
        }
    }
}

fn spawn(what: &str, mut prepared: Command) -> Result<Child, Failed> {
    prepared.spawn().map_err(|error| Failed::Ended(format!("{what} cannot be started: {error}")))
}

/// What a command comes to, unless it takes longer or is to stop before.
async fn within<T>(
    what: &str,
    longest: Duration,
    stop: &CancellationToken,
    over: impl Future<Output = std::io::Result<T>>,
) -> Result<T, Failed> {
    tokio::select! {
        over = over => over.map_err(|error| Failed::Ended(format!("the end of {what} cannot be awaited: {error}"))),
        () = tokio::time::sleep(longest) => {
            Err(Failed::Ended(format!("{what} was not over within {} s", longest.as_secs())))
        }
        () = stop.cancelled() => Err(Failed::Stopped),
    }
}

fn succeeded(what: &str, status: ExitStatus) -> Result<(), Failed> {
    if status.success() { Ok(()) } else { Err(Failed::Ended(format!("{what} failed: {status}"))) }
}

/// The format a file says it has.
fn version_of(file: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Head {
        version: Option<String>,
    }
    // A file that cannot be read is the tool's to complain of.
    serde_yaml::from_str::<Head>(&std::fs::read_to_string(file).ok()?).ok()?.version
}

/// Ends a tool with everything it started.
async fn end(child: &mut Child) {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let Some(group) = group else { return };
    // It may have ended just now; its number is its own until it is reaped below.
    let _ = killpg(group, Signal::SIGTERM);
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        let _ = killpg(group, Signal::SIGKILL);
        let _ = child.wait().await;
    }
}

/// The tools want the files of TLS under names of their own, in one directory.
fn over_tls(settings: &Settings) -> std::io::Result<Vec<(&'static str, String)>> {
    let Some(tls) = &settings.tls else { return Ok(Vec::new()) };
    let directory = std::env::temp_dir().join("engine");
    std::fs::create_dir_all(&directory)?;
    let link = |name: &str, file: &Path| {
        let at = directory.join(name);
        let _ = std::fs::remove_file(&at);
        symlink(file, at)
    };
    link("ca.pem", &tls.authority)?;
    if let Some(own) = &tls.own {
        link("cert.pem", &own.certificate)?;
        link("key.pem", &own.key)?;
    }
    Ok(vec![("DOCKER_TLS_VERIFY", "1".to_owned()), ("DOCKER_CERT_PATH", directory.display().to_string())])
}
