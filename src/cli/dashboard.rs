//! `landfall dashboard`: where the agent's pages are.

use super::Context;
use super::app_show::browse;
use super::exit::{CliError, Exit, Outcome};
use super::terminal;

/// `dashboard`
pub async fn run(context: &Context) -> Outcome {
    let status = context.client.status().await?;
    let Some(address) = status.listen.api else {
        return Err(CliError::hinted(
            Exit::Failed,
            "the agent listens on its Unix socket only, so it has no dashboard",
            "add `listen: \"127.0.0.1:7171\"` to `api` in its configuration",
        ));
    };
    let url = url(&address);
    if context.json {
        terminal::json(&serde_json::json!({ "url": url }))?;
    } else {
        browse(&url)?;
    }
    Ok(Exit::Ok)
}

/// An address that a browser can go to: nobody is at "every address".
fn url(address: &str) -> String {
    let port = address.rsplit_once(':').map_or("", |(_, port)| port);
    match address {
        _ if address.starts_with("0.0.0.0:") || address.starts_with("127.0.0.1:") => {
            format!("http://localhost:{port}/")
        }
        _ if address.starts_with("[::]:") || address.starts_with("[::1]:") => format!("http://localhost:{port}/"),
        _ => format!("http://{address}/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_one_that_a_browser_can_go_to() {
        for (address, expected) in [
            ("127.0.0.1:7171", "http://localhost:7171/"),
            ("0.0.0.0:7171", "http://localhost:7171/"),
            ("[::]:80", "http://localhost:80/"),
            ("192.0.2.7:7171", "http://192.0.2.7:7171/"),
        ] {
            assert_eq!(url(address), expected);
        }
    }
}
