//! `landfall completions SHELL`.

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::{Shell as Generator, generate};

use super::exit::{Exit, Outcome};
use super::{Cli, terminal};

/// Options of `landfall completions`.
#[derive(Debug, Clone, Copy, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Shells with completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    /// For `~/.bashrc`: `source <(landfall completions bash)`.
    Bash,
    /// For a file `_landfall` in a directory of `fpath`.
    Zsh,
    /// For `~/.config/fish/completions/landfall.fish`.
    Fish,
}

/// Prints the script.
pub fn run(args: &CompletionsArgs) -> Outcome {
    let shell = match args.shell {
        Shell::Bash => Generator::Bash,
        Shell::Zsh => Generator::Zsh,
        Shell::Fish => Generator::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "landfall", &mut script);
    terminal::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}
