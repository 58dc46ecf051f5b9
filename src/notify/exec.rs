//! A program on this machine: the notice as JSON on its standard input, the most important of it in variables.
//!
//! It sees nothing of the agent's own environment but `PATH` and `HOME`. It and all it started are ended at the
//! deadline.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::{Delivery, chain, shown};
use crate::domain::Notice;

/// Of its error output, so much is kept.
const KEPT: u64 = 4096;

pub(super) async fn run(command: &[String], timeout: Duration, notice: &Notice) -> Delivery {
    let Some((program, arguments)) = command.split_first() else {
        return Delivery::Never { why: "the channel names no program".to_owned() };
    };
    let later = |why: String| Delivery::Later { after: None, why: shown(&why, &[]) };
    let mut prepared = Command::new(program);
    prepared
        .args(arguments)
        .env_clear()
        .envs(["PATH", "HOME"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .env("LANDFALL_NOTICE_ID", &notice.id)
        .env("LANDFALL_NOTICE_EVENT", &notice.event)
        .env("LANDFALL_NOTICE_STATUS", notice.status.as_str())
        .env("LANDFALL_NOTICE_SUBJECTS", notice.subjects.join(","))
        .env("LANDFALL_NOTICE_TITLE", notice.title.replace('\0', " "))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = match prepared.spawn() {
        Ok(child) => child,
        Err(error) => return later(format!("{program} cannot be started: {}", chain(&error))),
    };
    let group = Group(child.id());
    let result = tokio::time::timeout(timeout, converse(&mut child, notice)).await;
    drop(group);
    match result {
        Ok(Ok((status, _))) if status.success() => Delivery::Delivered,
        Ok(Ok((status, said))) => later(format!("{program} ended with {status}: {said}")),
        Ok(Err(error)) => later(format!("{program}: {error}")),
        Err(_) => later(format!("{program} was not over after {} s and was ended", timeout.as_secs())),
    }
}

/// Gives it the notice and waits for its end.
async fn converse(child: &mut Child, notice: &Notice) -> std::io::Result<(ExitStatus, String)> {
    let body = serde_json::to_vec(notice).unwrap_or_default();
    let (input, errors) = (child.stdin.take(), child.stderr.take());
    let give = async {
        if let Some(mut input) = input {
            // A program that does not read is its own business.
            let _ = input.write_all(&body).await;
        }
    };
    let listen = async {
        let mut said = Vec::new();
        if let Some(errors) = errors {
            let mut errors = errors;
            let _ = (&mut errors).take(KEPT).read_to_end(&mut said).await;
            // The rest is read and forgotten, so that it does not block.
            let _ = tokio::io::copy(&mut errors, &mut tokio::io::sink()).await;
        }
        said
    };
    let ((), said, status) = tokio::join!(give, listen, child.wait());
    Ok((status?, String::from_utf8_lossy(&said).into_owned()))
}

/// Ends the program's whole group, however the delivery ends.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0.and_then(|pid| i32::try_from(pid).ok()) {
            // Gone already is as good.
            let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}
