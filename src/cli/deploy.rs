//! `landfall deploy`: a directory becomes a new version, without git.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::files;

use super::Context;
use super::app::WaitArgs;
use super::exit::{CliError, Exit, Outcome};
use super::follow;

/// What an app's manifest is called.
const MANIFEST: &str = "landfall.yaml";

/// Options of `landfall deploy`.
#[derive(Debug, Clone, Args)]
pub struct DeployArgs {
    /// The app's directory, with its landfall.yaml
    #[arg(default_value = ".", value_name = "DIR")]
    directory: PathBuf,
    /// Why, for the history
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Uploads the directory and watches what becomes of it.
pub async fn run(context: &Context, args: &DeployArgs) -> Outcome {
    check(&args.directory)?;
    let accepted = context.client.deploy(context.environment(), &args.directory, args.reason.as_deref()).await?;
    follow::accepted(context, accepted, args.wait.waiting()).await
}

/// Mistakes in the manifest are found here already, with the path as the person typed it.
fn check(directory: &Path) -> Result<(), CliError> {
    let file = directory.join(MANIFEST);
    let text = std::fs::read_to_string(&file).map_err(|error| {
        CliError::hinted(
            Exit::Usage,
            format!("{}: the manifest cannot be read: {error}", file.display()),
            "name the directory that holds the app's landfall.yaml",
        )
    })?;
    files::read_manifest(&file.display().to_string(), &text).map(drop).map_err(|errors| {
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        CliError::new(Exit::Usage, all.join("\n"))
    })
}
