//! `landfall healthcheck`: whether the agent lives, and with `--ready` whether it has done what it was started for. For
//! `HEALTHCHECK` of an image and probes of a pod.

use std::time::Duration;

use clap::Args;

use crate::wire::api::{App, Status};

use super::exit::{CliError, Exit, Outcome};
use super::when::parse_length;
use super::{Context, terminal};

/// Options of `landfall healthcheck`.
#[derive(Debug, Clone, Args)]
pub struct HealthcheckArgs {
    /// Also ask that every source has been read and every app of them is live
    #[arg(long)]
    ready: bool,
    /// The agent must have answered after this long
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_length)]
    timeout: Duration,
}

/// Says nothing when all is well but for `--json`; exits with 1 and one line where not.
pub async fn run(context: &Context, args: &HealthcheckArgs) -> Outcome {
    let looked = async {
        let status = context.client.status().await?;
        let apps = if args.ready { context.client.apps(None).await? } else { Vec::new() };
        Ok::<_, CliError>((status, apps))
    };
    let late = || CliError::new(Exit::Failed, format!("the agent has not answered within {:?}", args.timeout));
    let (status, apps) = tokio::time::timeout(args.timeout, looked).await.map_err(|_| late())??;
    if let Some(why) = not_ready(&status, &apps).filter(|_| args.ready) {
        return Err(CliError::new(Exit::Failed, why));
    }
    if context.json {
        terminal::json(&serde_json::json!({ "alive": true, "ready": args.ready.then_some(true) }))?;
    }
    Ok(Exit::Ok)
}

/// What is missing until everything that the sources ask for is there for the first time.
fn not_ready(status: &Status, apps: &[App]) -> Option<String> {
    let unread = status.sources.iter().find(|source| source.read_at.is_none());
    if let Some(source) = unread {
        let why = source.error.as_deref().unwrap_or("it is being looked at");
        return Some(format!("source {} has not been read yet: {why}", source.source));
    }
    let wanted = |app: &&App| app.stopped.is_none() && app.suspension.is_none();
    let app = apps.iter().filter(wanted).find(|app| app.live_version.is_none())?;
    let why = app.message.as_deref().or(app.manifest_error.as_deref()).unwrap_or("its first version is on its way");
    Some(format!("app {} is not live yet: {why}", app.app))
}
