//! Reading about apps: list, show, history, open.

use std::io::IsTerminal;
use std::process::{Command, Stdio};

use jiff::Timestamp;

use crate::domain::AppName;
use crate::wire::api::{App, AppState, Version, VersionImage};

use super::exit::{CliError, Exit, Outcome};
use super::table::Table;
use super::terminal::{self, Paint};
use super::when::{relative, stamp};
use super::{Context, tree};

/// `app list`
pub async fn list(context: &Context) -> Outcome {
    let apps = context.client.apps(context.environment()).await?;
    if context.json {
        terminal::json(&apps)?;
    } else if apps.is_empty() {
        terminal::line("No apps yet: push a directory with a landfall.yaml, or `landfall deploy DIR`.")?;
    } else {
        context.terminal.table(&apps_table(&apps))?;
    }
    Ok(Exit::Ok)
}

/// The environment has a column only where there is more than one.
fn apps_table(apps: &[App]) -> Table {
    let several = apps.iter().any(|app| apps.first().is_some_and(|first| first.environment != app.environment));
    let mut headings = vec!["APP", "STATE", "LIVE", "COMMIT", "INSTANCES", "URL", "MESSAGE"];
    if several {
        headings.insert(0, "ENVIRONMENT");
    }
    let mut table = Table::new(&headings);
    for app in apps {
        let mut row = vec![
            app.app.to_string(),
            app.state.as_str().to_owned(),
            app.live_version.map_or_else(dash, |version| version.to_string()),
            app.commit.as_ref().map_or_else(dash, |commit| commit.short().to_owned()),
            format!("{}/{}", app.ready, app.instances),
            app.urls.first().map_or_else(dash, |url| url.url.clone()),
            message(app),
        ];
        if several {
            row.insert(0, app.environment.to_string());
        }
        table.row(row);
    }
    table
}

fn message(app: &App) -> String {
    app.message.clone().or_else(|| app.manifest_error.clone()).unwrap_or_default()
}

fn dash() -> String {
    "-".to_owned()
}

/// `app show`
pub async fn show(context: &Context, app: &AppName) -> Outcome {
    let shown = context.client.app(context.environment(), app).await?;
    if context.json {
        terminal::json(&shown)?;
        return Ok(Exit::Ok);
    }
    let now = Timestamp::now();
    let versions = context.client.versions(context.environment(), app).await?;
    let live = versions.into_iter().find(|version| version.live);
    let images = live.map(|version| images(&version)).unwrap_or_default();
    let state = context.terminal.paint(paint(shown.state), shown.state.as_str());
    terminal::print(&details(&shown, &images, state, now))?;
    if let Some(id) = shown.deployment {
        let deployment = context.client.deployment(id).await?;
        terminal::line("\nLast deployment:")?;
        terminal::line(tree::lines(&deployment, context.terminal, now).join("\n"))?;
    }
    Ok(Exit::Ok)
}

fn paint(state: AppState) -> Paint {
    match state {
        AppState::Deployed => Paint::Good,
        AppState::Failed | AppState::Crashing => Paint::Bad,
        AppState::Deploying | AppState::Held | AppState::Suspended => Paint::Busy,
        AppState::Stopped => Paint::Dim,
    }
}

/// The images that a version runs, each as a line.
fn images(version: &Version) -> Vec<String> {
    let line = |image: &VersionImage| {
        let exactly = image.digest.as_ref().unwrap_or(&image.id);
        let exactly = exactly.rsplit_once('@').map_or(exactly.as_str(), |(_, digest)| digest);
        format!("{} ({exactly})", image.reference)
    };
    let of_services = version.services.iter().map(|(service, image)| format!("{service}: {}", line(image)));
    version.image.iter().map(line).chain(of_services).collect()
}

/// Everything there is to say, one fact a line.
fn details(app: &App, images: &[String], state: String, now: Timestamp) -> String {
    let mut text = String::new();
    let mut fact = |name: &str, value: String| text.push_str(&format!("{name:<13}{value}\n"));
    fact("App", format!("{} in {}", app.app, app.environment));
    fact("State", app.message.as_ref().map_or_else(|| state.clone(), |message| format!("{state}: {message}")));
    if let Some(version) = app.live_version {
        let commit = app.commit.as_ref().map(|commit| format!(" (commit {})", commit.short())).unwrap_or_default();
        fact("Live", format!("{version}{commit}"));
    }
    for image in images {
        fact("Image", image.clone());
    }
    fact("Instances", format!("{} running, {} of the live version ready", app.instances, app.ready));
    for url in &app.urls {
        fact("URL", format!("{} ({})", url.url, url.object));
    }
    match (&app.source, &app.path) {
        (Some(source), Some(path)) => fact("Source", format!("{source}: {path}")),
        (Some(source), None) => fact("Source", source.to_string()),
        (None, _) => fact("Source", "uploaded".to_owned()),
    }
    if let Some(hold) = &app.hold {
        let until = hold.until.map(|until| format!(", until {}", stamp(until))).unwrap_or_default();
        let who = format!("{} by {}, {}{until}", hold.version, hold.actor, relative(hold.since, now));
        fact("Held at", format!("{who}: {}", hold.reason));
        fact("", format!("ends with new content in git, or by `landfall app release {}`", app.app));
    }
    if let Some(freeze) = &app.suspension {
        let until = freeze.until.map(|until| format!(", until {}", stamp(until))).unwrap_or_default();
        fact("Suspended", format!("by {}, {}{until}: {}", freeze.actor, relative(freeze.since, now), freeze.reason));
    }
    if let Some(stopped) = &app.stopped {
        let why = stopped.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        fact("Stopped", format!("by {}, {}{why}", stopped.actor, relative(stopped.at, now)));
    }
    if let Some(error) = &app.manifest_error {
        fact("Manifest", error.clone());
    }
    for warning in &app.warnings {
        fact("Warning", warning.clone());
    }
    fact("Changed", format!("{} ({})", stamp(app.updated_at), relative(app.updated_at, now)));
    text
}

/// `app history`
pub async fn history(context: &Context, app: &AppName, limit: Option<usize>) -> Outcome {
    let mut versions = context.client.versions(context.environment(), app).await?;
    versions.truncate(limit.unwrap_or(usize::MAX));
    if context.json {
        terminal::json(&versions)?;
    } else {
        context.terminal.table(&history_table(&versions))?;
    }
    Ok(Exit::Ok)
}

fn history_table(versions: &[Version]) -> Table {
    let mut table = Table::new(&["", "VERSION", "WHEN", "STATUS", "KIND", "COMMIT", "AUTHOR", "ACTOR", "REASON"]);
    for version in versions {
        let status = version.status.as_str();
        table.row([
            if version.live { "*" } else { "" }.to_owned(),
            version.version.to_string(),
            stamp(version.created_at),
            if version.quarantined { format!("{status}, quarantined") } else { status.to_owned() },
            kind(version),
            version.commit.as_ref().map_or_else(dash, |commit| commit.short().to_owned()),
            version.author.as_deref().map_or_else(dash, name_of),
            version.actor.clone(),
            version.reason.clone().or_else(|| version.subject.clone()).unwrap_or_default(),
        ]);
    }
    table
}

fn kind(version: &Version) -> String {
    match (version.rollback_of, version.rollover_of) {
        (Some(of), _) => format!("rollback of {of}"),
        (None, Some(of)) => format!("rollover of {of}"),
        (None, None) => version.kind.clone(),
    }
}

/// `Name <mail>` → `Name`
fn name_of(author: &str) -> String {
    let name = author.split('<').next().unwrap_or(author).trim();
    if name.is_empty() { author.to_owned() } else { name.to_owned() }
}

/// `app open`
pub async fn open(context: &Context, app: &AppName) -> Outcome {
    let shown = context.client.app(context.environment(), app).await?;
    let Some(first) = shown.urls.first() else {
        return Err(CliError::hinted(
            Exit::Failed,
            format!("{app} has no URL: it has no `web` object, or never was live"),
            format!("see `landfall app show {app}`"),
        ));
    };
    if context.json {
        terminal::json(&shown.urls)?;
        return Ok(Exit::Ok);
    }
    browse(&first.url)?;
    Ok(Exit::Ok)
}

/// Prints an address and, where there is a desktop, opens it.
pub fn browse(url: &str) -> Result<(), CliError> {
    terminal::line(url)?;
    let desktop = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
    if desktop && std::io::stdout().is_terminal() {
        // The URL is printed: a desktop without a browser is no failure.
        let _ =
            Command::new("xdg-open").arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{VersionNumber, VersionStatus};

    fn version(number: u32, status: VersionStatus, rollback_of: Option<u32>) -> Version {
        Version {
            version: VersionNumber::new(number).unwrap(),
            status,
            kind: if rollback_of.is_some() { "rollback" } else { "deploy" }.into(),
            rollback_of: rollback_of.and_then(VersionNumber::new),
            rollover_of: None,
            commit: Some("1a2b3c4d5e6f70819203a4b5c6d7e8f901234567".parse().unwrap()),
            author: Some("Ada Lovelace <ada@example.com>".into()),
            subject: None,
            actor: "ada".into(),
            reason: Some("checkout is broken".into()),
            created_at: "2026-03-01T12:00:00Z".parse().unwrap(),
            live: status == VersionStatus::Live,
            quarantined: status == VersionStatus::Superseded,
            kept: true,
            secrets: Vec::new(),
            image: None,
            services: Default::default(),
            deployment: None,
        }
    }

    #[test]
    fn history_marks_the_live_version_and_names_what_was_rolled_back() {
        let versions = [version(4, VersionStatus::Live, Some(2)), version(3, VersionStatus::Superseded, None)];
        let text = history_table(&versions).render(None);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1],
            "*  v4       2026-03-01 12:00:00Z  live                     rollback of v2  1a2b3c4  Ada Lovelace  ada    checkout is broken"
        );
        assert!(lines[2].starts_with("   v3") && lines[2].contains("superseded, quarantined"), "{text}");
    }
}
