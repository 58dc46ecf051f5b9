//! `landfall app logs`.

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use crate::client::LogQuery;
use crate::domain::{AppName, CallId, VersionNumber};
use crate::wire::api::LogLine;

use super::Context;
use super::exit::{Exit, Outcome};
use super::terminal::{self, Paint, Terminal};
use super::when::{When, precise};

/// Options of `landfall app logs`.
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// The app
    app: AppName,
    /// Go on with new lines as they come
    #[arg(short, long)]
    follow: bool,
    /// Not older than this long ago (30m) or this time
    #[arg(long, value_name = "WHEN")]
    since: Option<When>,
    /// Not newer than this long ago or this time
    #[arg(long, value_name = "WHEN")]
    until: Option<When>,
    /// Only the last lines [default: 200, all with --since or --until]
    #[arg(short = 'n', long = "lines", visible_alias = "tail", value_name = "NUMBER")]
    lines: Option<usize>,
    /// Only this object (`build` for builds)
    #[arg(long, value_name = "NAME")]
    object: Option<String>,
    /// Only this version (`v3` or `3`)
    #[arg(long = "version", value_name = "VERSION")]
    app_version: Option<VersionNumber>,
    /// Only this instance
    #[arg(long, value_name = "ID")]
    instance: Option<String>,
    /// Only what came from here
    #[arg(long, value_enum)]
    source: Option<LogSource>,
    /// Only what was written in this call
    #[arg(long, value_name = "ID")]
    call: Option<CallId>,
    /// Begin each line with its time
    #[arg(short, long)]
    timestamps: bool,
}

/// Where a line of a log comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogSource {
    /// The app's standard output.
    Stdout,
    /// The app's standard error.
    Stderr,
    /// The agent: starts, probes, exits.
    System,
}

/// So many lines fit a person's attention.
const USUAL_LINES: usize = 200;

impl LogsArgs {
    fn query(&self, now: Timestamp) -> LogQuery {
        let bounded = self.since.is_some() || self.until.is_some();
        LogQuery {
            follow: self.follow,
            since: self.since.map(|when| when.ago(now)),
            until: self.until.map(|when| when.ago(now)),
            tail: self.lines.or((!bounded).then_some(USUAL_LINES)),
            object: self.object.clone(),
            version: self.app_version,
            instance: self.instance.clone(),
            source: self.source.map(|source| {
                match source {
                    LogSource::Stdout => "stdout",
                    LogSource::Stderr => "stderr",
                    LogSource::System => "system",
                }
                .to_owned()
            }),
            call: self.call,
        }
    }
}

/// Prints the log.
pub async fn run(context: &Context, args: &LogsArgs) -> Outcome {
    let query = args.query(Timestamp::now());
    let mut lines = context.client.logs(context.environment(), &args.app, &query).await?;
    while let Some(line) = lines.next().await? {
        print(context, args, &line)?;
    }
    Ok(Exit::Ok)
}

fn print(context: &Context, args: &LogsArgs, line: &LogLine) -> Result<(), super::exit::CliError> {
    if context.json {
        return terminal::json_line(line);
    }
    terminal::line(text(context.terminal, line, args.timestamps))
}

fn text(terminal: Terminal, line: &LogLine, timestamps: bool) -> String {
    let time = if timestamps { format!("{} ", precise(line.at)) } else { String::new() };
    let tail = line.instance.rsplit('-').next().unwrap_or_default();
    let origin = format!("{time}{} {} {tail} |", line.version, line.object);
    let said = match line.source.as_str() {
        "system" => terminal.paint(Paint::Busy, &format!("[landfall] {}", line.line)),
        _ => line.line.clone(),
    };
    format!("{} {said}", terminal.paint(Paint::Dim, &origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_which_version_and_instance_wrote_it() {
        let line = LogLine {
            at: "2026-03-01T12:00:00.5Z".parse().unwrap(),
            source: "stdout".into(),
            version: VersionNumber::FIRST,
            object: "main".into(),
            instance: "shop-main-v1-abcdefgh".into(),
            call: None,
            line: "hello".into(),
        };
        let plain = Terminal { interactive: false, colour: false };
        assert_eq!(text(plain, &line, false), "v1 main abcdefgh | hello");
        assert_eq!(text(plain, &line, true), "2026-03-01T12:00:00.500Z v1 main abcdefgh | hello");
        let system = LogLine { source: "system".into(), ..line };
        assert_eq!(text(plain, &system, false), "v1 main abcdefgh | [landfall] hello");
    }
}
