//! `landfall call`.

use std::io::{IsTerminal, Read, Write};

use clap::Args;
use serde::Deserialize;

use crate::client::{CallAnswer, CallBody};
use crate::domain::{AppName, ObjectName, VersionNumber};

use super::Context;
use super::exit::{CliError, Exit, Outcome};

/// Options of `landfall call`.
#[derive(Debug, Clone, Args)]
pub struct CallArgs {
    /// The app
    app: AppName,
    /// The function
    function: ObjectName,
    /// What it is called with: JSON (an object names arguments, an array lists them), or `-` for standard input
    #[arg(value_name = "BODY", allow_hyphen_values = true)]
    body: Option<String>,
    /// Media type of the body [default: application/json for JSON, else application/octet-stream]
    #[arg(long = "type", value_name = "MEDIA-TYPE")]
    kind: Option<String>,
    /// Run this version's code (`v3` or `3`) [default: the live version's]
    #[arg(long = "version", value_name = "VERSION")]
    app_version: Option<VersionNumber>,
}

/// How a function says that it failed.
#[derive(Debug, Deserialize)]
struct OwnError {
    #[serde(rename = "type")]
    kind: String,
    message: String,
    #[serde(default)]
    traceback: String,
}

/// Calls the function and prints what it answers.
pub async fn run(context: &Context, args: &CallArgs) -> Outcome {
    let body = args.body()?;
    let (client, version) = (&context.client, args.app_version);
    let mut answer = client.call_function(context.environment(), &args.app, &args.function, version, body).await?;
    if answer.status.is_success() {
        print(&mut answer).await?;
        return Ok(Exit::Ok);
    }
    let said = answer.whole().await?;
    Err(failed(args, &answer, &said))
}

impl CallArgs {
    fn body(&self) -> Result<CallBody, CliError> {
        let bytes = match self.body.as_deref() {
            None => return Ok(CallBody { content_type: self.kind.clone(), bytes: Vec::new() }),
            Some("-") => {
                let mut bytes = Vec::new();
                let read = std::io::stdin().lock().read_to_end(&mut bytes);
                read.map_err(|error| CliError::new(Exit::Failed, format!("standard input cannot be read: {error}")))?;
                bytes
            }
            Some(text) => text.as_bytes().to_vec(),
        };
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok();
        match (&self.kind, is_json, self.body.as_deref()) {
            (Some(kind), _, _) => Ok(CallBody { content_type: Some(kind.clone()), bytes }),
            (None, true, _) => Ok(CallBody::json(bytes)),
            (None, false, Some("-")) => Ok(CallBody::bytes(bytes)),
            (None, false, _) => Err(CliError::hinted(
                Exit::Usage,
                "the body is not JSON",
                r#"quote it for the shell: '{"name": "x"}', '"a text"', 5; or say what it is: --type text/plain"#,
            )),
        }
    }
}

/// The result on standard output, as it comes.
async fn print(answer: &mut CallAnswer) -> Result<(), CliError> {
    let mut out = std::io::stdout();
    let mut last = b'\n';
    while let Some(piece) = answer.chunk().await? {
        out.write_all(&piece)?;
        out.flush()?;
        last = piece.last().copied().unwrap_or(last);
    }
    let for_people = answer.content_type.starts_with("application/json") || out.is_terminal();
    if for_people && last != b'\n' {
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Ok(())
}

/// What the function said about its failure, and where more is.
fn failed(args: &CallArgs, answer: &CallAnswer, said: &[u8]) -> CliError {
    let version = answer.version.map(|version| format!(" {version}")).unwrap_or_default();
    let place = format!("{}{version} {}", args.app, args.function);
    let hint = format!("`landfall app logs {} --object {}` shows what it wrote", args.app, args.function);
    let own = serde_json::from_slice::<OwnError>(said).ok().filter(|_| answer.is_own_error);
    let message = match own {
        Some(error) => {
            let traceback = error.traceback.trim_end();
            let traceback = if traceback.is_empty() { String::new() } else { format!("{traceback}\n") };
            format!("{traceback}{place} failed: {}: {}", error.kind, error.message)
        }
        None => {
            let text: String = String::from_utf8_lossy(said).chars().take(2000).collect();
            format!("{place} failed with status {}: {}", answer.status.as_u16(), text.trim())
        }
    };
    CliError::hinted(Exit::Failed, message, hint)
}
