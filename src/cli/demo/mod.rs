//! `landfall demo`: out of nothing a git repository, an agent that watches it, and example apps.
//!
//! ```text
//! prepare ─► start the agent ─► wait for the apps ─► show them ─► tell what happens ─► (Ctrl-C) stop, tidy up
//! ```
//!
//! | file | what |
//! |---|---|
//! | `place` | the directory: repository, configuration, data |
//! | `seed` | the first commit |
//! | `child` | the agent's process |
//! | `notices` | what the demo's channel was told |
//!
//! Invariant: however the demo ends, its agent is told to end first.

mod child;
mod notices;
mod place;
mod seed;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::client::{Client, ClientError, Target};
use crate::domain::{EventKind, Tone};
use crate::wire::api::{App, AppState, EventRecord};

use self::child::Agent;
use self::notices::Notices;
use self::place::Place;
use super::exit::{CliError, Exit, Outcome};
use super::table::{Table, one_line};
use super::terminal::{self, Paint, Terminal};
use super::when::{clock, elapsed};

/// The apps are up within this time, or something is wrong.
const UP_DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks at the agent.
const LOOK: Duration = Duration::from_millis(300);
/// Between two looks while the apps come up.
const EAGER_LOOK: Duration = Duration::from_millis(50);
/// Events asked for at once.
const EVENTS: u32 = 500;

/// Options of `landfall demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Keep everything in this directory, and go on there the next time [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Where the apps answer
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where the dashboard is [default: 127.0.0.1:7171, another port if that is in use]
    #[arg(long, value_name = "ADDRESS:PORT")]
    dashboard: Option<SocketAddr>,
}

/// Runs the demo until it is told to stop.
pub async fn run(args: DemoArgs) -> Outcome {
    // Before anything exists that would have to be tidied up.
    let mut stopping = Stopping::listen()?;
    let place = Place::prepare(args.dir.as_deref(), args.listen, args.dashboard)?;
    let client = Client::connect(&Target::Socket(place.socket()))?;
    let notices = Notices::after(&place.notices());
    let mut agent = Agent::start(&place)?;
    let outcome = tokio::select! {
        outcome = show(&place, &client, &mut agent, notices) => outcome,
        () = stopping.wait() => Ok(Exit::Ok),
    };
    // A reader that has gone must not keep the agent alive.
    let _ = terminal::line("\nStopping …");
    let complaint = agent.stop().await;
    let goodbye = place.leave();
    let _ = terminal::line(complaint.map_or_else(|| goodbye.clone(), |complaint| format!("{complaint}\n{goodbye}")));
    outcome
}

/// Everything that tells a program in a terminal to end.
struct Stopping {
    signals: [Signal; 3],
}

impl Stopping {
    fn listen() -> Result<Self, CliError> {
        let on = |kind| {
            signal(kind).map_err(|error| CliError::new(Exit::Failed, format!("signals cannot be awaited: {error}")))
        };
        Ok(Self { signals: [on(SignalKind::interrupt())?, on(SignalKind::terminate())?, on(SignalKind::hangup())?] })
    }

    async fn wait(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// From the start to the last event; ends only by an error.
async fn show(place: &Place, client: &Client, agent: &mut Agent, mut notices: Notices) -> Outcome {
    let began = Timestamp::now();
    let terminal = Terminal::detect();
    for (program, apps) in &place.left_out {
        let apps = apps.join(", ");
        terminal::line(format!("`{program}` is not in PATH, so of the example apps these are left out: {apps}."))?;
    }
    if !place.left_out.is_empty() {
        terminal::line("Your own apps can be written in anything.")?;
    }
    terminal::line(format!("Starting an agent on {} …", place.repository().display()))?;
    let apps = come_up(place, client, agent).await?;
    let mut after = newest(client).await?;
    terminal::print(&tree(&apps, terminal))?;
    terminal::line(format!("Up after {}.\n", elapsed(Timestamp::now().duration_since(began))))?;
    terminal::print(&invitation(place))?;
    loop {
        tokio::time::sleep(LOOK).await;
        agent.check(place)?;
        for notice in notices.read() {
            let kind = terminal.paint(Paint::Busy, "notification");
            terminal::line(format!("{} {kind} {notice}", clock(Timestamp::now())))?;
        }
        match client.events(after, EVENTS).await {
            Ok(events) => {
                for event in events {
                    after = after.max(event.sequence);
                    if let Some(text) = told(&event, terminal) {
                        terminal::line(text)?;
                    }
                }
            }
            // The control plane may be killed, that is part of the show; the apps run on.
            Err(_) => continue,
        }
    }
}

/// Waits until nothing is on its way any more.
async fn come_up(place: &Place, client: &Client, agent: &mut Agent) -> Result<Vec<App>, CliError> {
    let expected = if place.fresh { seed::app_names().len() - place.without().len() } else { 1 };
    let deadline = Instant::now() + UP_DEADLINE;
    loop {
        agent.check(place)?;
        let seen = client.apps(None).await;
        if let Ok(apps) = &seen
            && apps.len() >= expected
            && apps.iter().all(settled)
        {
            return Ok(apps.clone());
        }
        if Instant::now() >= deadline {
            return Err(not_up(place, client, seen).await);
        }
        tokio::time::sleep(EAGER_LOOK).await;
    }
}

/// A failed app is an answer too: the tree shows why.
fn settled(app: &App) -> bool {
    match app.state {
        AppState::Deploying => false,
        AppState::Deployed => app.ready > 0,
        AppState::Failed | AppState::Crashing | AppState::Held | AppState::Suspended | AppState::Stopped => true,
    }
}

async fn not_up(place: &Place, client: &Client, seen: Result<Vec<App>, ClientError>) -> CliError {
    let mut wrong: Vec<String> = match seen {
        Err(error) => vec![error.to_string()],
        Ok(apps) if apps.is_empty() => vec!["the agent has found no app yet".to_owned()],
        Ok(apps) => apps.iter().filter(|app| !settled(app)).map(state_of).collect(),
    };
    if let Ok(status) = client.status().await {
        wrong.extend(status.problems);
    }
    CliError::hinted(
        Exit::TimedOut,
        format!("the apps are not up after {} s:\n  {}", UP_DEADLINE.as_secs(), wrong.join("\n  ")),
        format!("with `--dir DIR` the agent's log is kept as DIR/{}", file_name(place)),
    )
}

fn file_name(place: &Place) -> String {
    place.log().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn state_of(app: &App) -> String {
    let message = app.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
    format!("{} is {}{message}", app.app, app.state.as_str())
}

/// The apps with versions and URLs.
fn tree(apps: &[App], terminal: Terminal) -> String {
    let mut table = Table::new(&["fleet", "", "", ""]);
    for (index, app) in apps.iter().enumerate() {
        let branch = if index + 1 == apps.len() { "└─" } else { "├─" };
        let urls: Vec<&str> = app.urls.iter().map(|url| url.url.as_str()).collect();
        let what = if urls.is_empty() { format!("`landfall app logs {}`", app.app) } else { urls.join("  ") };
        table.row([
            format!("{branch} {}", app.app),
            app.live_version.map_or_else(|| "-".to_owned(), |version| version.to_string()),
            app.state.as_str().to_owned(),
            if app.state == AppState::Deployed { what } else { app.message.clone().unwrap_or(what) },
        ]);
    }
    table.render(terminal.width())
}

/// What to type in another terminal.
fn invitation(place: &Place) -> String {
    let (begin, edit, message) = if !place.lacks("python3") {
        (
            "Open the page of hello, then change it",
            "s/seagreen/rebeccapurple/' fleet/hello/server.py",
            "hello: another colour",
        )
    } else {
        ("Change the clock", "s/every=5/every=1/' fleet/clock/clock.sh", "clock: quicker")
    };
    format!(
        "{begin}, in another terminal:\n\n  \
         git clone {repository} fleet\n  \
         sed -i '{edit}\n  \
         git -C fleet commit -am '{message}' && git -C fleet push\n\n\
         Ask the agent:  landfall --agent {socket} app list\n{call}\
         Look at it all: http://{dashboard}/\n\
         Ctrl-C ends the demo.\n\n",
        repository = place.repository().display(),
        socket = place.socket().display(),
        call = call(place),
        dashboard = place.dashboard,
    )
}

/// A function to call, where there is one.
fn call(place: &Place) -> String {
    if place.lacks("python3") || !place.fresh {
        return String::new();
    }
    let socket = place.socket();
    format!("Call a function: landfall --agent {} call functions greet '{{\"name\": \"Ada\"}}'\n", socket.display())
}

async fn newest(client: &Client) -> Result<i64, CliError> {
    let mut after = 0;
    loop {
        let events = client.events(after, EVENTS).await?;
        match events.last() {
            Some(last) => after = last.sequence,
            None => return Ok(after),
        }
    }
}

/// An event as a line; `None` for those that only announce others.
fn told(record: &EventRecord, terminal: Terminal) -> Option<String> {
    let event = &record.event;
    let paint = match (event.kind, event.kind.tone()) {
        (EventKind::DeploymentPending | EventKind::DeploymentSucceeded, _) => return None,
        // In the demo nobody has asked for one: a version was bad.
        (EventKind::Rollback, _) | (_, Tone::Bad) => Paint::Bad,
        (_, Tone::Good) => Paint::Good,
        (_, Tone::Warning | Tone::Quiet) => Paint::Busy,
    };
    let app = event.app.as_ref().map(|key| format!(" {}", key.app)).unwrap_or_default();
    let version = event.version.map(|version| format!(" {version}")).unwrap_or_default();
    let kind = terminal.paint(paint, event.kind.as_str());
    Some(format!("{} {kind}{app}{version}: {}", clock(event.at), one_line(&event.message)))
}
