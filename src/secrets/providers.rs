//! Places of the operator's own that know values: a directory of files, the agent's variables, a program.
//!
//! Asked anew each time, so that what was rotated there needs no restart. Invariant: of what a program says on its
//! standard output nothing is told but the value, to the one who asked.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::domain::{AppKey, Secret, SecretName};
use crate::files::config::SecretProvider;

/// Of a program's error output, so much is shown, in characters.
const SHOWN: usize = 200;

/// The value that a provider has of a name for an app; `None` if it has none, an error if it cannot say.
pub async fn look(provider: &SecretProvider, app: &AppKey, name: &SecretName) -> Result<Option<Secret>, String> {
    let found = match provider {
        SecretProvider::Files { directory } => {
            let (directory, app, name) = (directory.clone(), app.clone(), name.clone());
            let read = tokio::task::spawn_blocking(move || of_files(&directory, &app, &name)).await;
            read.map_err(|error| error.to_string())??
        }
        SecretProvider::Environment { prefix } => {
            let variable = format!("{prefix}{}", name.as_str().to_uppercase().replace('-', "_"));
            std::env::var(variable).ok()
        }
        SecretProvider::Command { command, timeout } => of_program(command, *timeout, app, name).await?,
    };
    found.filter(|value| !value.is_empty()).map(|value| checked(value, name)).transpose()
}

/// What can be a variable's value.
fn checked(value: String, name: &SecretName) -> Result<Secret, String> {
    match value {
        value if value.len() > Secret::LONGEST => {
            Err(format!("its value of {name} has more than {} bytes", Secret::LONGEST))
        }
        value if value.contains('\0') => Err(format!("its value of {name} holds a NUL, and cannot be a variable")),
        value => Ok(Secret::new(value)),
    }
}

/// A file of the app's own directory before one for all.
fn of_files(directory: &Path, app: &AppKey, name: &SecretName) -> Result<Option<String>, String> {
    for path in [directory.join(app.app.as_str()).join(name.as_str()), directory.join(name.as_str())] {
        match std::fs::read_to_string(&path) {
            Ok(text) => return Ok(Some(without_end(text))),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {}
            // A directory of this name holds the secrets of an app that is named like it.
            Err(error) if error.kind() == std::io::ErrorKind::IsADirectory => {}
            Err(error) => return Err(format!("{} cannot be read: {error}", path.display())),
        }
    }
    Ok(None)
}

/// The last line's end is the editor's, not the value's.
fn without_end(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
    }
    text
}

async fn of_program(
    command: &[String],
    timeout: Duration,
    app: &AppKey,
    name: &SecretName,
) -> Result<Option<String>, String> {
    let Some((program, arguments)) = command.split_first() else { return Err("it names no program".to_owned()) };
    let mut prepared = Command::new(program);
    prepared
        .args(arguments)
        .arg(name.as_str())
        .env("LANDFALL_APP", app.app.as_str())
        .env("LANDFALL_ENVIRONMENT", app.environment.as_str())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = prepared.spawn().map_err(|error| format!("`{program}` cannot be started: {error}"))?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(nix::unistd::Pid::from_raw);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (mut value, mut said) = (Vec::new(), Vec::new());
    let conversation = async {
        let listen = async {
            if let Some(stdout) = stdout {
                let _ = stdout.take(Secret::LONGEST as u64 + 2).read_to_end(&mut value).await;
            }
        };
        let complain = async {
            if let Some(stderr) = stderr {
                let _ = stderr.take(4096).read_to_end(&mut said).await;
            }
        };
        let ((), (), status) = tokio::join!(listen, complain, child.wait());
        status
    };
    let status = tokio::time::timeout(timeout, conversation).await;
    if status.is_err()
        && let Some(group) = group
    {
        // Gone already is as good.
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
    }
    let status = status.map_err(|_| format!("`{program}` was not done within {} s", timeout.as_secs()))?;
    let status = status.map_err(|error| format!("the end of `{program}` cannot be awaited: {error}"))?;
    if !status.success() {
        let said: String = String::from_utf8_lossy(&said).trim().chars().take(SHOWN).collect();
        return Err(format!("`{program}` ended with {status}: {said}"));
    }
    let value = String::from_utf8(value).map_err(|_| format!("what `{program}` says of {name} is no text"))?;
    Ok(Some(without_end(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> AppKey {
        AppKey::new("main".parse().unwrap(), "shop".parse().unwrap())
    }

    async fn ask(provider: &SecretProvider, name: &str) -> Result<Option<String>, String> {
        let found = look(provider, &app(), &name.parse().unwrap()).await?;
        Ok(found.map(|value| value.expose().to_owned()))
    }

    #[tokio::test]
    async fn a_file_of_the_app_wins_over_one_for_all_and_no_file_is_no_value() {
        let dir = tempfile::tempdir().unwrap();
        let files = SecretProvider::Files { directory: dir.path().to_owned() };
        assert_eq!(ask(&files, "token").await, Ok(None));
        std::fs::write(dir.path().join("token"), "for all\n").unwrap();
        assert_eq!(ask(&files, "token").await, Ok(Some("for all".into())));
        std::fs::create_dir(dir.path().join("shop")).unwrap();
        std::fs::write(dir.path().join("shop/token"), "for the shop\n\n").unwrap();
        assert_eq!(ask(&files, "token").await, Ok(Some("for the shop\n".into())), "one end of line is the editor's");
        assert_eq!(ask(&files, "shop").await, Ok(None), "a directory is no value");
    }

    #[tokio::test]
    async fn a_program_is_given_the_name_and_its_failure_is_told() {
        let program = |script: &str, timeout: u64| SecretProvider::Command {
            command: ["sh", "-c", script, "sh"].map(str::to_owned).to_vec(),
            timeout: Duration::from_millis(timeout),
        };
        let says = program("echo \"$1 of $LANDFALL_APP\"", 30_000);
        assert_eq!(ask(&says, "token").await, Ok(Some("token of shop".into())));
        assert_eq!(ask(&program("true", 30_000), "token").await, Ok(None), "nothing said is no value");
        let failed = ask(&program("echo half a value; echo locked >&2; exit 3", 30_000), "token").await.unwrap_err();
        assert!(failed.contains("locked") && !failed.contains("half"), "{failed}");
        let slow = ask(&program("sleep 600", 100), "token").await.unwrap_err();
        assert!(slow.contains("not done within"), "{slow}");
    }
}
