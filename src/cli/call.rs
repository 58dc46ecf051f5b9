//! `landfall call`.

use std::io::{IsTerminal, Read, Write};

use clap::Args;
use serde::Deserialize;

use jiff::Timestamp;

use crate::client::{CallAnswer, CallBody, Follow, LogQuery};
use crate::domain::{AppName, CallId, ObjectName, VersionNumber};
use crate::wire::api::LogLine;

use super::exit::{CliError, Exit, Outcome};
use super::{Context, terminal};

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
    /// Do not print the call's identifier, nor what it writes to its log
    #[arg(short, long)]
    quiet: bool,
    /// Do not wait: record the call, print its identifier, and let it run whatever dies (see `landfall calls`)
    #[arg(long)]
    spawn: bool,
    /// With --spawn: at most one call is made for this key
    #[arg(long, value_name = "KEY", requires = "spawn")]
    key: Option<String>,
}

/// What a call writes to its log, on standard error as it comes.
struct Logs<'a> {
    context: &'a Context,
    app: &'a AppName,
    query: LogQuery,
    quiet: bool,
    stream: Option<Follow<LogLine>>,
    printed: usize,
}

impl<'a> Logs<'a> {
    fn of(context: &'a Context, args: &'a CallArgs, call: CallId) -> Self {
        let object = Some(args.function.to_string());
        let query = LogQuery { object, call: Some(call), follow: true, ..LogQuery::default() };
        Self { context, app: &args.app, query, quiet: args.quiet, stream: None, printed: 0 }
    }

    /// Prints lines until something else is over.
    async fn until<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = std::pin::pin!(other);
        loop {
            tokio::select! {
                biased;
                over = &mut other => return over,
                line = self.next() => match line {
                    Some(line) => self.print(&line),
                    None => return other.await,
                }
            }
        }
    }

    /// The next line; `None` when there will be none. What the log cannot say must not keep the result back.
    async fn next(&mut self) -> Option<LogLine> {
        if self.quiet {
            return None;
        }
        if self.stream.is_none() {
            let stream = self.context.client.logs(self.context.environment(), self.app, &self.query).await;
            self.stream = Some(stream.ok()?);
        }
        self.stream.as_mut()?.next().await.ok()?
    }

    /// What is there now and was not printed yet.
    async fn rest(&mut self) {
        let query = LogQuery { follow: false, ..self.query.clone() };
        if self.quiet {
            return;
        }
        let Ok(mut lines) = self.context.client.logs(self.context.environment(), self.app, &query).await else {
            return;
        };
        let mut seen = 0;
        while let Ok(Some(line)) = lines.next().await {
            seen += 1;
            if seen > self.printed {
                self.print(&line);
            }
        }
    }

    fn print(&mut self, line: &LogLine) {
        self.printed += 1;
        // Nobody may be there to read it.
        let _ = writeln!(std::io::stderr(), "{}", line.line);
    }
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
    if args.spawn {
        let (app, function, key) = (&args.app, &args.function, args.key.as_deref());
        let spawned = client.spawn(context.environment(), app, function, version, body, key).await?;
        if context.json {
            terminal::json(&spawned)?;
        } else {
            terminal::line(spawned.call.to_string())?;
        }
        return Ok(Exit::Ok);
    }
    let call = CallId::new(Timestamp::now(), fastrand::u128(..));
    if !args.quiet {
        // Nobody may be there to read it.
        let _ = writeln!(std::io::stderr(), "call {call}");
    }
    let mut logs = Logs::of(context, args, call);
    let calling = client.call_function_as(call, context.environment(), &args.app, &args.function, version, body);
    let answered = logs.until(calling).await;
    let mut answer = match answered {
        Ok(answer) => answer,
        Err(error) => {
            logs.rest().await;
            return Err(error.into());
        }
    };
    if answer.status.is_success() {
        let printed = logs.until(print(&mut answer)).await;
        logs.rest().await;
        return printed.map(|()| Exit::Ok);
    }
    let said = answer.whole().await?;
    logs.rest().await;
    Err(failed(args, &answer, &said, logs.printed == 0))
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
fn failed(args: &CallArgs, answer: &CallAnswer, said: &[u8], with_traceback: bool) -> CliError {
    let version = answer.version.map(|version| format!(" {version}")).unwrap_or_default();
    let place = format!("{}{version} {}", args.app, args.function);
    let hint = format!("`landfall app logs {} --object {}` shows what it wrote", args.app, args.function);
    let own = serde_json::from_slice::<OwnError>(said).ok().filter(|_| answer.is_own_error);
    let message = match own {
        Some(error) => {
            // Functions write it to their log as well, which was shown.
            let traceback = if with_traceback { error.traceback.trim_end() } else { "" };
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
