//! `landfall check` and `landfall schema`: the two files people write, without an agent.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::files::check as files;
use crate::files::schema::{self, Which};

use super::exit::{Exit, Outcome};
use super::{locate, terminal};

/// Options of `landfall check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Manifests, agent configurations, or directories with manifests below them
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print each file complete with its defaults
    #[arg(long)]
    explain: bool,
}

/// Options of `landfall schema`.
#[derive(Debug, Clone, Copy, Args)]
pub struct SchemaArgs {
    /// Which file
    #[arg(value_enum)]
    file: SchemaOf,
}

/// Files with a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SchemaOf {
    /// `landfall.yaml` of an app.
    Manifest,
    /// The agent's configuration.
    Config,
}

/// Checks files; all errors at once, exit code 2 if there are any.
pub fn check(args: &CheckArgs, json: bool) -> Outcome {
    let variables: Vec<_> = locate::variables().collect();
    let report = files::check(&args.files, &variables);
    if json {
        terminal::json(&json_of(&report))?;
    } else {
        for file in &report.files {
            if args.explain
                && let Some(explained) = &file.explained
            {
                terminal::line(format!("# {}\n{}", file.path.display(), explained.trim_end()))?;
            }
        }
        for error in &report.errors {
            terminal::line(error.to_string())?;
        }
        terminal::line(summary(&report))?;
    }
    Ok(if report.is_good() { Exit::Ok } else { Exit::Usage })
}

fn summary(report: &files::CheckReport) -> String {
    let count = |number: usize, one: &str| format!("{number} {one}{}", if number == 1 { "" } else { "s" });
    let read = count(report.files.len(), "file");
    if report.is_good() { format!("{read}: ok") } else { format!("{read}: {}", count(report.errors.len(), "error")) }
}

#[derive(Debug, Serialize)]
struct JsonReport {
    ok: bool,
    files: Vec<JsonFile>,
    errors: Vec<JsonError>,
}

#[derive(Debug, Serialize)]
struct JsonFile {
    file: String,
    kind: &'static str,
    app: Option<String>,
}

#[derive(Debug, Serialize)]
struct JsonError {
    file: String,
    line: usize,
    column: usize,
    key: String,
    message: String,
    hint: Option<String>,
}

fn json_of(report: &files::CheckReport) -> JsonReport {
    let file = |file: &files::CheckedFile| JsonFile {
        file: file.path.display().to_string(),
        kind: match file.which {
            Which::Manifest => "manifest",
            Which::Config => "config",
        },
        app: file.app.clone(),
    };
    let error = |error: &crate::files::FileError| JsonError {
        file: error.file.clone(),
        line: error.line,
        column: error.column,
        key: error.path.clone(),
        message: error.message.clone(),
        hint: error.hint.clone(),
    };
    JsonReport {
        ok: report.is_good(),
        files: report.files.iter().map(file).collect(),
        errors: report.errors.iter().map(error).collect(),
    }
}

/// Prints a JSON Schema.
pub fn schema(args: &SchemaArgs) -> Outcome {
    let which = match args.file {
        SchemaOf::Manifest => Which::Manifest,
        SchemaOf::Config => Which::Config,
    };
    terminal::json(&schema::schema(which))?;
    Ok(Exit::Ok)
}
