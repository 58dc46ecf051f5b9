//! Deploys a directory and tells how it goes; with `--undo` brings the version before back afterwards.
//!
//! `cargo run --example client_deploy -- SOCKET|URL DIRECTORY [--undo]`, with `LANDFALL_TOKEN` where the agent wants one.

use std::path::Path;
use std::process::ExitCode;

use landfall::client::{Client, ClientError, Credentials, Target};
use landfall::domain::{DeploymentOutcome, Secret};
use landfall::wire::api::RollbackRequest;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (agent, directory, undo) = match arguments.as_slice() {
        [agent, directory] => (agent, directory, false),
        [agent, directory, word] if word == "--undo" => (agent, directory, true),
        _ => {
            eprintln!("say where the agent is and which directory: SOCKET|URL DIRECTORY [--undo]");
            return ExitCode::from(2);
        }
    };
    match deploy(agent, Path::new(directory), undo).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}\n{}", error.mend());
            ExitCode::FAILURE
        }
    }
}

async fn deploy(agent: &str, directory: &Path, undo: bool) -> Result<ExitCode, ClientError> {
    let Ok(target) = agent.parse::<Target>();
    let token = std::env::var("LANDFALL_TOKEN").ok().map(Secret::new);
    let client = Client::connect_with(&target, &Credentials { token, ca_file: None })?;
    let accepted = client.deploy(None, directory, Some("from an example")).await?;
    println!("{}", accepted.message);
    let Some(id) = accepted.deployment.filter(|_| accepted.changed) else { return Ok(ExitCode::SUCCESS) };
    // Goes on by itself should the agent restart meanwhile.
    let mut states = client.follow_deployment(id).await?;
    while let Some(state) = states.next().await? {
        println!("{} {}", state.version, state.phase.as_str());
        if let Some(failure) = &state.failure {
            println!("{}", failure.message);
        }
        match state.outcome {
            None => {}
            Some(DeploymentOutcome::Succeeded) => {
                if undo {
                    let request = RollbackRequest { reason: Some("only tried".into()), ..RollbackRequest::default() };
                    println!("{}", client.rollback(Some(&state.environment), &state.app, &request).await?.message);
                }
                return Ok(ExitCode::SUCCESS);
            }
            // A version that never became live has changed nothing, and one that turned bad is rolled back already.
            Some(DeploymentOutcome::Failed | DeploymentOutcome::Cancelled | DeploymentOutcome::RolledBack) => {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
