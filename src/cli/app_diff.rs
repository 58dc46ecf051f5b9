//! `landfall app diff`: how one version differs from another.

use std::fmt::Write as _;

use clap::Args;

use crate::domain::{AppName, VersionNumber};
use crate::wire::api::Version;
use crate::wire::diffs::{FieldDiff, FileDiff, FilesDiff, GivenSecret, SecretDiff, VersionDiff, base};

use super::exit::{CliError, Exit, Outcome};
use super::terminal::{Paint, Terminal};
use super::{Context, terminal};

/// Widest bar of a file's changes.
const BAR: u32 = 30;

/// Which versions.
#[derive(Debug, Clone, Args)]
pub struct DiffArgs {
    /// The app
    pub app: AppName,
    /// The version to compare with (`v3` or `3`) [default: the one that was live before]
    pub from: Option<VersionNumber>,
    /// The version to look at [default: the live one]
    pub to: Option<VersionNumber>,
    /// Only which files differ and by how much
    #[arg(long)]
    pub stat: bool,
}

/// Carries it out.
pub async fn run(context: &Context, args: &DiffArgs) -> Outcome {
    let pair = match (args.from, args.to) {
        (Some(from), Some(to)) => (from, to),
        (from, _) => {
            let versions = context.client.versions(context.environment(), &args.app).await?;
            pair(&args.app, &versions, from)?
        }
    };
    let diff = context.client.diff(context.environment(), &args.app, pair, args.stat).await?;
    if context.json {
        terminal::json(&diff)?;
    } else {
        terminal::print(&written(&diff, args.stat, context.terminal))?;
    }
    Ok(Exit::Ok)
}

/// The live version, and the one it is compared with.
fn pair(
    app: &AppName,
    versions: &[Version],
    from: Option<VersionNumber>,
) -> Result<(VersionNumber, VersionNumber), CliError> {
    let Some(live) = versions.iter().find(|version| version.live) else {
        let hint = format!("name two versions of `landfall app history {app}`");
        return Err(CliError::hinted(Exit::Conflict, format!("no version of {app} is live"), hint));
    };
    match from.or_else(|| base(versions, live.version)) {
        Some(from) => Ok((from, live.version)),
        None => Err(CliError::hinted(
            Exit::Conflict,
            format!("{} is the first version of {app}", live.version),
            "there is nothing to compare it with before its next deployment",
        )),
    }
}

fn written(diff: &VersionDiff, stat: bool, terminal: Terminal) -> String {
    let mut text = terminal.paint(Paint::Bold, &heading(diff));
    text.push('\n');
    if diff.is_empty() {
        text.push_str("They do not differ.\n");
        return text;
    }
    part(&mut text, terminal, "Manifest", diff.manifest.iter().map(|change| field(change, terminal)));
    part(&mut text, terminal, "Secrets", diff.secrets.iter().map(secret));
    match (&diff.files, &diff.missing) {
        (Some(files), _) if files.total > 0 => {
            part(&mut text, terminal, "Files", stats(files, terminal).into_iter());
            if !stat {
                patches(&mut text, files, terminal);
            }
        }
        (None, Some(missing)) => part(&mut text, terminal, "Files", std::iter::once(missing.clone())),
        (Some(_) | None, _) => {}
    }
    text
}

fn heading(diff: &VersionDiff) -> String {
    let commit = |commit: &Option<crate::domain::CommitId>| {
        commit.as_ref().map(|commit| format!(" (commit {})", commit.short())).unwrap_or_default()
    };
    let (from, to) = (commit(&diff.from_commit), commit(&diff.to_commit));
    format!("{} in {}: {}{from} → {}{to}", diff.app, diff.environment, diff.from, diff.to)
}

fn part(text: &mut String, terminal: Terminal, name: &str, lines: impl Iterator<Item = String>) {
    let mut lines = lines.peekable();
    if lines.peek().is_some() {
        let _ = writeln!(text, "\n{}", terminal.paint(Paint::Bold, name));
        lines.for_each(|line| text.push_str(&format!("  {line}\n")));
    }
}

fn field(change: &FieldDiff, terminal: Terminal) -> String {
    let plain = |text: &str| terminal.harmless(text);
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => format!(
            "{}: {} → {}",
            change.field,
            terminal.paint(Paint::Bad, &plain(before)),
            terminal.paint(Paint::Good, &plain(after))
        ),
        (None, _) => terminal.paint(Paint::Good, &format!("{}: added", change.field)),
        (Some(_), None) => terminal.paint(Paint::Bad, &format!("{}: removed", change.field)),
    }
}

fn secret(change: &SecretDiff) -> String {
    let given = |given: &Option<GivenSecret>| match given {
        Some(GivenSecret { secret, from, revision }) => format!("{secret} ({from}, revision {revision})"),
        None => "none".to_owned(),
    };
    format!("{}: {} → {}", change.variable, given(&change.before), given(&change.after))
}

/// A line for each file, as `git diff --stat` has it, and one for all.
fn stats(files: &FilesDiff, terminal: Terminal) -> Vec<String> {
    let name = |file: &FileDiff| match &file.old_path {
        Some(old) => terminal.harmless(&format!("{old} → {}", file.path)),
        None => terminal.harmless(&file.path),
    };
    let widest = files.files.iter().map(|file| name(file).chars().count()).max().unwrap_or(0);
    let most = files.files.iter().map(|file| file.added + file.removed).max().unwrap_or(0).max(1);
    let bar = |count: u32, sign: &str| match most {
        0..=BAR => sign.repeat(count as usize),
        most => sign.repeat((u64::from(count) * u64::from(BAR)).div_ceil(u64::from(most)) as usize),
    };
    let mut lines: Vec<String> = files
        .files
        .iter()
        .map(|file| {
            let line = format!("{:<8}  {:<widest$}", file.change.as_str(), name(file));
            if file.binary {
                return format!("{line}  binary");
            }
            let (plus, minus) = (bar(file.added, "+"), bar(file.removed, "-"));
            let (plus, minus) = (terminal.paint(Paint::Good, &plus), terminal.paint(Paint::Bad, &minus));
            format!("{line}  {:>5} {plus}{minus}", file.added + file.removed)
        })
        .collect();
    let left = usize::try_from(files.total).unwrap_or(usize::MAX).saturating_sub(files.files.len());
    if left > 0 {
        lines.push(format!("… and {left} more that are not listed"));
    }
    let plural = if files.total == 1 { "" } else { "s" };
    lines.push(format!("{} file{plural}, {} lines added, {} removed", files.total, files.added, files.removed));
    lines
}

fn patches(text: &mut String, files: &FilesDiff, terminal: Terminal) {
    for file in files.files.iter().filter(|file| file.patch.is_some() || file.cut) {
        text.push('\n');
        for line in file.patch.iter().flat_map(|patch| patch.strip_suffix('\n').unwrap_or(patch).split('\n')) {
            text.push_str(&coloured(&terminal.harmless(line), terminal));
            text.push('\n');
        }
        if file.cut {
            let words = format!("… the rest of {} is cut: it is too long to be shown here", file.path);
            text.push_str(&terminal.paint(Paint::Busy, &terminal.harmless(&words)));
            text.push('\n');
        }
    }
}

fn coloured(line: &str, terminal: Terminal) -> String {
    let header =
        ["diff --git ", "index ", "--- ", "+++ ", "new file", "deleted file", "old mode", "new mode", "rename "];
    if header.iter().any(|start| line.starts_with(start)) {
        return terminal.paint(Paint::Bold, line);
    }
    match line.as_bytes().first() {
        Some(b'+') => terminal.paint(Paint::Good, line),
        Some(b'-') => terminal.paint(Paint::Bad, line),
        Some(b'@') => terminal.paint(Paint::Busy, line),
        Some(_) | None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::diffs::FileChange;

    fn file(path: &str, added: u32, removed: u32) -> FileDiff {
        let patch = Some(format!("diff --git a/{path} b/{path}\n@@ -1 +1 @@\n-old\x1b[31m\n+new\n"));
        FileDiff {
            path: path.into(),
            old_path: None,
            change: FileChange::Modified,
            binary: false,
            added,
            removed,
            patch,
            cut: false,
        }
    }

    fn diff() -> VersionDiff {
        let files = vec![file("server.py", 100, 2), FileDiff { binary: true, patch: None, ..file("logo.png", 0, 0) }];
        VersionDiff {
            app: "shop".parse().unwrap(),
            environment: "main".parse().unwrap(),
            from: VersionNumber::FIRST,
            to: VersionNumber::FIRST.next(),
            from_commit: Some("1a2b3c4d5e6f70819203a4b5c6d7e8f901234567".parse().unwrap()),
            to_commit: None,
            files: Some(FilesDiff { total: 3, added: 100, removed: 2, files, cut: true }),
            missing: None,
            manifest: vec![FieldDiff { field: "bake".into(), before: Some("30s".into()), after: Some("1m".into()) }],
            secrets: Vec::new(),
        }
    }

    const PLAIN: Terminal = Terminal { interactive: true, colour: false };

    #[test]
    fn a_difference_reads_as_people_know_it_and_no_file_can_colour_the_terminal() {
        let text = written(&diff(), false, PLAIN);
        let expected = "shop in main: v1 (commit 1a2b3c4) → v2\n\nManifest\n  bake: 30s → 1m\n\nFiles\n  modified  server.py    102 \
                        ++++++++++++++++++++++++++++++-\n  modified  logo.png   binary\n  … and 1 more that are not listed\n  3 files, 100 \
                        lines added, 2 removed\n\ndiff --git a/server.py b/server.py\n@@ -1 +1 @@\n-old\u{fffd}[31m\n+new\n";
        assert_eq!(text, expected);
        assert!(!written(&diff(), true, PLAIN).contains("@@"));
        let nothing = VersionDiff { files: None, manifest: Vec::new(), ..diff() };
        assert!(written(&nothing, false, PLAIN).ends_with("They do not differ.\n"));
    }
}
