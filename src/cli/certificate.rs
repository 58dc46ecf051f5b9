//! `landfall certificate …`: what clients are shown over HTTPS.

use clap::Subcommand;
use jiff::Timestamp;

use super::Context;
use super::exit::{Exit, Outcome};
use super::table::Table;
use super::terminal;
use super::when::relative;
use crate::wire::certificates::{Certificate, CertificateOrigin};

/// Verbs of `landfall certificate`.
#[derive(Debug, Clone, Subcommand)]
pub enum CertificateCommand {
    /// List the certificates that clients are shown, and what is wrong with them
    #[command(visible_alias = "ls")]
    List,
}

/// Carries out a verb.
pub async fn run(context: &Context, command: &CertificateCommand) -> Outcome {
    match command {
        CertificateCommand::List => {
            let certificates = context.client.certificates().await?;
            if context.json {
                terminal::json(&certificates)?;
            } else if certificates.is_empty() {
                terminal::line("No certificates: set `proxy.tls` in the configuration; see docs/tls.md.")?;
            } else {
                terminal::print(&list(context, &certificates, Timestamp::now()))?;
            }
            Ok(Exit::Ok)
        }
    }
}

fn list(context: &Context, certificates: &[Certificate], now: Timestamp) -> String {
    let mut table = Table::new(&["FOR", "STATE", "FROM", "EXPIRES", "NEXT ORDER"]);
    for certificate in certificates {
        let when = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| relative(at, now));
        table.row([
            if certificate.names.is_empty() { certificate.subject.clone() } else { certificate.names.join(" ") },
            certificate.state.as_str().to_owned(),
            match certificate.origin {
                CertificateOrigin::File => certificate.subject.clone(),
                CertificateOrigin::Acme => certificate.issuer.clone().unwrap_or_else(|| "the authority".to_owned()),
            },
            when(certificate.not_after),
            when(certificate.next_order),
        ]);
    }
    let mut text = table.render(context.terminal.width());
    for certificate in certificates {
        if let Some(problem) = &certificate.problem {
            text.push_str(&format!("\n{}: {problem}\n", certificate.subject));
        }
    }
    text
}
