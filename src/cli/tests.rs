//! How command lines are read.

use clap::{CommandFactory, Parser};

use super::app::AppCommand;
use super::follow::Waiting;
use super::{Cli, Command, LogFormat};

fn parse(line: &str) -> Cli {
    Cli::try_parse_from(line.split_whitespace()).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn refused(line: &str) -> String {
    match Cli::try_parse_from(line.split_whitespace()) {
        Ok(read) => panic!("{line} was read as {read:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_commands_are_sound() {
    Cli::command().debug_assert();
}

#[test]
fn a_version_is_named_with_or_without_its_v() {
    for line in ["landfall app rollback shop v3", "landfall app rollback shop 3"] {
        let Command::App(AppCommand::Rollback { version: Some(version), .. }) = parse(line).command else {
            panic!("{line}");
        };
        assert_eq!(version.get(), 3);
    }
    assert!(refused("landfall app rollback shop v0").contains("write v3 or 3"));
    assert!(refused("landfall app rollback Shop").contains("only a-z"));
}

#[test]
fn global_options_stand_before_or_after_the_command() {
    for line in
        ["landfall --json --agent a.sock --env dev app list", "landfall app list --env dev --json --agent a.sock"]
    {
        let globals = parse(line).globals;
        assert!(globals.json);
        assert_eq!(globals.agent.as_deref(), Some("a.sock"));
        assert_eq!(globals.environment.unwrap().as_str(), "dev");
        assert_eq!(globals.log_format, LogFormat::Text);
    }
}

#[test]
fn deployments_are_watched_until_live_unless_told_otherwise() {
    let waiting = |options: &str| match parse(&format!("landfall app rollover shop {options}")).command {
        Command::App(AppCommand::Rollover { wait, .. }) => wait.waiting(),
        other => panic!("{other:?}"),
    };
    assert!(matches!(waiting(""), Waiting::UntilLive(_)));
    assert!(matches!(waiting("--wait-done --timeout 90s"), Waiting::UntilDone(limit) if limit.as_secs() == 90));
    assert_eq!(waiting("--no-wait"), Waiting::No);
    refused("landfall app rollover shop --no-wait --wait-done");
    assert!(refused("landfall app rollover shop --timeout soon").contains("write a length like 30m"));
}

#[test]
fn the_supervisor_starts_its_roles_with_the_words_that_are_understood() {
    use crate::supervisor::{CONTROLLER_COMMAND, PROXY_COMMAND, RESUME_OPTION, SUPERVISOR_COMMAND};
    let controller = parse(&format!("landfall {CONTROLLER_COMMAND} --data-dir /d --config /c.yaml"));
    assert!(matches!(controller.command, Command::InternalController { .. }));
    assert_eq!(controller.globals.config.as_deref(), Some(std::path::Path::new("/c.yaml")));
    let proxy = parse(&format!("landfall {PROXY_COMMAND} --data-dir /d"));
    assert!(matches!(proxy.command, Command::InternalProxy { .. }));
    let supervisor = parse(&format!("landfall {SUPERVISOR_COMMAND} {RESUME_OPTION} 7"));
    assert!(matches!(supervisor.command, Command::InternalSupervisor { resume_fd: Some(7), .. }));
}

#[test]
fn hidden_roles_are_not_in_the_help() {
    let help = Cli::command().render_long_help().to_string();
    assert!(!help.contains("internal-"), "{help}");
    assert!(help.contains("130"), "exit codes are missing: {help}");
}
