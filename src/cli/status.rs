//! `landfall status`: the agent as a whole.

use jiff::Timestamp;

use crate::wire::api::{Process, Status};

use super::Context;
use super::exit::{Exit, Outcome};
use super::table::Table;
use super::terminal::{self, Paint, Terminal};
use super::when::{relative, stamp};

/// Prints it; problems make exit code 1.
pub async fn run(context: &Context) -> Outcome {
    let status = context.client.status().await?;
    if context.json {
        terminal::json(&status)?;
    } else {
        terminal::print(&text(&status, context.terminal, Timestamp::now()))?;
    }
    Ok(if status.healthy { Exit::Ok } else { Exit::Failed })
}

fn text(status: &Status, terminal: Terminal, now: Timestamp) -> String {
    let mut text = processes(status, now).render(terminal.width());
    text.push('\n');
    let mut fact = |name: &str, value: String| text.push_str(&format!("{name:<13}{value}\n"));
    fact("Web", format!("{} (domain {})", status.listen.proxy.join(", "), status.listen.domain));
    let api = status.listen.api.as_ref().map(|address| format!(", http://{address}")).unwrap_or_default();
    fact("API", format!("{}{api}", status.listen.api_socket));
    fact("Data", status.data_dir.clone());
    if let Some(configuration) = &status.configuration {
        let file = configuration.file.as_deref().unwrap_or("none, all by default");
        fact("Config", format!("{file}, read {}", relative(configuration.read_at, now)));
    }
    let states: Vec<String> = status.apps.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let apps = if states.is_empty() { "none".to_owned() } else { states.join(", ") };
    fact("Apps", format!("{apps} in {}; {} instances", status.environment, status.instances));
    for source in &status.sources {
        // The time of a failing source is that of its last success; the error itself is among the problems.
        let read = match (source.looked_at.map(|at| relative(at, now)), &source.error) {
            (Some(at), None) => at,
            (Some(at), Some(_)) => format!("failing, last read {at}"),
            (None, Some(_)) => "failing, not read yet".to_owned(),
            (None, None) => "not read yet".to_owned(),
        };
        fact("Source", format!("{}: {} apps, {read}", source.source, source.apps));
    }
    if !status.channels.is_empty() {
        let waiting: u32 = status.channels.iter().map(|channel| channel.standing.queued).sum();
        let names: Vec<&str> = status.channels.iter().map(|channel| channel.channel.as_str()).collect();
        fact("Channels", format!("{}; {waiting} messages waiting", names.join(", ")));
    }
    if let Some(zones) = &status.time_zones {
        let of_machine = match (&zones.directory, &zones.system) {
            (Some(directory), Some(version)) => format!("{version} in {directory}"),
            (Some(directory), None) => format!("those in {directory}"),
            (None, _) => "none of this machine".to_owned(),
        };
        fact("Time zones", format!("{of_machine}; {} in the program", zones.bundled));
    }
    text.push('\n');
    for warning in status.time_zones.iter().filter_map(|zones| zones.warning.as_ref()) {
        text.push_str(&format!("{} {warning}\n", terminal.paint(Paint::Busy, "warning:")));
    }
    if status.problems.is_empty() {
        text.push_str(&terminal.paint(Paint::Good, "Nothing is wrong."));
        text.push('\n');
    }
    for problem in &status.problems {
        text.push_str(&format!("{} {problem}\n", terminal.paint(Paint::Bad, "problem:")));
    }
    text
}

fn processes(status: &Status, now: Timestamp) -> Table {
    let mut table = Table::new(&["PROCESS", "PID", "VERSION", "SINCE"]);
    let mut row = |name: &str, process: &Process| {
        let since = format!("{} ({})", stamp(process.started_at), relative(process.started_at, now));
        table.row([name.to_owned(), process.pid.to_string(), process.version.clone(), since]);
    };
    row("supervisor", &status.processes.supervisor);
    row("controller", &status.processes.controller);
    if let Some(proxy) = &status.processes.proxy {
        row("proxy", proxy);
    }
    for proxy in &status.processes.draining_proxies {
        row("proxy (draining)", proxy);
    }
    if status.processes.proxy.is_none() {
        table.row(["proxy".to_owned(), "-".to_owned(), "-".to_owned(), "restarting".to_owned()]);
    }
    table
}
