//! Calls the function `greet` of the example app `functions` in three ways: waiting for it, spawned, and for many at once.
//!
//! `cargo run --example client_call -- SOCKET|URL APP NAME…`, with `LANDFALL_TOKEN` where the agent wants one.

use std::process::ExitCode;

use landfall::client::{Client, ClientError, Credentials, Function, Target};
use landfall::domain::Secret;
use serde::Serialize;

/// What `greet` takes.
#[derive(Debug, Serialize)]
struct Greet {
    name: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [agent, app, names @ ..] = arguments.as_slice() else {
        eprintln!("say where the agent is, which app, and whom to greet: SOCKET|URL APP NAME…");
        return ExitCode::from(2);
    };
    let greet = match Function::new(app, "greet") {
        Ok(greet) => greet,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    match run(agent, &greet, names).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}\n{}", error.mend());
            ExitCode::FAILURE
        }
    }
}

async fn run(agent: &str, greet: &Function, names: &[String]) -> Result<(), ClientError> {
    let Ok(target) = agent.parse::<Target>();
    let token = std::env::var("LANDFALL_TOKEN").ok().map(Secret::new);
    let client = Client::connect_with(&target, &Credentials { token, ca_file: None })?;
    let whom = |name: &String| Greet { name: name.clone() };
    for name in names {
        let answer: serde_json::Value = client.call_as(greet, &whom(name)).await?;
        println!("called: {answer}");
        // Whatever dies meanwhile, this one is carried out, and once for its key.
        let spawned = client.spawn_as(greet, &whom(name), None).await?;
        let answer: serde_json::Value = client.result_as(spawned.call).await?;
        println!("spawned: {answer}");
    }
    let mut answers = client.map_as::<serde_json::Value>(greet, names.iter().map(whom)).await?;
    while let Some(mapped) = answers.next().await? {
        match mapped.result {
            Ok(answer) => println!("mapped {}: {answer}", mapped.index),
            Err(error) => println!("mapped {}: {error}", mapped.index),
        }
    }
    Ok(())
}
