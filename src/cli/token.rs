//! `landfall token …`: who may ask from elsewhere.

use clap::{Args, Subcommand};
use jiff::Timestamp;

use crate::domain::{AppPattern, Scope, Verb};
use crate::wire::tokens::{Token, TokenRequest};

use super::Context;
use super::exit::{Exit, Outcome};
use super::table::Table;
use super::terminal;
use super::when::{When, relative, stamp};

/// Verbs of `landfall token`.
#[derive(Debug, Clone, Subcommand)]
pub enum TokenCommand {
    /// Make a token; it is printed once and never again
    Create(CreateArgs),
    /// List the tokens, with their scopes and when each was last used
    #[command(visible_alias = "ls")]
    List {
        /// Revoked ones and those that are over, too
        #[arg(long)]
        all: bool,
    },
    /// Revoke a token: it is worth nothing any more, and browsers signed in with it are signed out
    Revoke {
        /// Its name
        name: String,
    },
}

/// Options of `landfall token create`.
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// Its name
    name: String,
    /// What may be done with it: read, call, deploy, admin (everything)
    #[arg(long, value_delimiter = ',', required = true, value_name = "VERBS")]
    scope: Vec<Verb>,
    /// Only to these apps: shop, shop-*, prod/*, prod/shop
    #[arg(long, value_delimiter = ',', value_name = "PATTERN")]
    app: Vec<AppPattern>,
    /// Whom it is for, as history and audit log show it [default: its name]
    #[arg(long = "for", value_name = "WHO")]
    holder: Option<String>,
    /// From when on it is worth nothing: a length of time such as 90d, or a time
    #[arg(long, value_name = "WHEN")]
    expires: Option<When>,
}

/// Carries out a verb.
pub async fn run(context: &Context, command: &TokenCommand) -> Outcome {
    match command {
        TokenCommand::Create(args) => create(context, args).await,
        TokenCommand::List { all } => list(context, *all).await,
        TokenCommand::Revoke { name } => {
            let token = context.client.revoke_token(name).await?;
            if context.json {
                terminal::json(&token)?;
            } else {
                terminal::line(format!("{} is worth nothing any more", token.name))?;
            }
            Ok(Exit::Ok)
        }
    }
}

async fn create(context: &Context, args: &CreateArgs) -> Outcome {
    let request = TokenRequest {
        name: args.name.clone(),
        actor: args.holder.clone(),
        scope: Scope { verbs: args.scope.clone(), apps: args.app.clone() },
        expires_at: args.expires.map(|when| when.ahead(Timestamp::now())),
    };
    let made = context.client.create_token(&request).await?;
    if context.json {
        terminal::json(&made)?;
        return Ok(Exit::Ok);
    }
    // The token alone on standard output, so that it can be put where it belongs without being seen.
    terminal::line(&made.secret)?;
    let end = made.token.expires_at.map(|end| format!(", until {}", stamp(end))).unwrap_or_default();
    eprintln!(
        "This is the token `{}` ({}{end}). It is shown this once: keep it now.\n\
         Use it as LANDFALL_TOKEN beside LANDFALL_AGENT, or as `Authorization: Bearer`.",
        made.token.name, made.token.scope
    );
    Ok(Exit::Ok)
}

async fn list(context: &Context, all: bool) -> Outcome {
    let now = Timestamp::now();
    let mut tokens = context.client.tokens().await?;
    tokens.retain(|token| all || state(token, now) == "living");
    if context.json {
        terminal::json(&tokens)?;
    } else if tokens.is_empty() {
        terminal::line("No tokens: `landfall token create NAME --scope read` makes one.")?;
    } else {
        terminal::print(&table(&tokens, now).render(context.terminal.width()))?;
    }
    Ok(Exit::Ok)
}

fn state(token: &Token, now: Timestamp) -> &'static str {
    if token.revoked_at.is_some() {
        "revoked"
    } else if token.expires_at.is_some_and(|end| end <= now) {
        "over"
    } else {
        "living"
    }
}

fn table(tokens: &[Token], now: Timestamp) -> Table {
    let mut table = Table::new(&["TOKEN", "FOR", "STATE", "LAST USED", "ENDS", "MADE", "BY", "SCOPE"]);
    for token in tokens {
        table.row([
            token.name.clone(),
            token.actor.clone(),
            state(token, now).to_owned(),
            token.last_used_at.map_or_else(|| "never".to_owned(), |at| relative(at, now)),
            token.expires_at.map_or_else(|| "never".to_owned(), |at| relative(at, now)),
            relative(token.created_at, now),
            token.created_by.clone(),
            token.scope.to_string(),
        ]);
    }
    table
}
