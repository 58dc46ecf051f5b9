//! What the output goes to: a terminal that can be redrawn and coloured, or a pipe that wants plain lines.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::exit::CliError;
use super::table::Table;

/// Width when a terminal does not tell.
const USUAL_WIDTH: usize = 80;

/// Standard output and what it can do.
#[derive(Debug, Clone, Copy)]
pub struct Terminal {
    /// Output is a terminal.
    pub interactive: bool,
    /// Colours are wanted and understood.
    pub colour: bool,
}

/// The few colours used, by meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// Good.
    Good,
    /// Bad.
    Bad,
    /// Under way, or to be noticed.
    Busy,
    /// Less important.
    Dim,
    /// More important.
    Bold,
}

impl Terminal {
    /// Looks at standard output and at `NO_COLOR`, `TERM`.
    pub fn detect() -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self::from_facts(io::stdout().is_terminal(), no_colour, std::env::var("TERM").is_ok_and(|term| term == "dumb"))
    }

    fn from_facts(terminal: bool, no_colour: bool, dumb: bool) -> Self {
        Self { interactive: terminal && !dumb, colour: terminal && !no_colour && !dumb }
    }

    /// The terminal's width, asked each time because windows change; `None` for a pipe.
    pub fn width(self) -> Option<usize> {
        if !self.interactive {
            return None;
        }
        Some(super::winsize::columns().unwrap_or(USUAL_WIDTH))
    }

    /// The text in a colour, where colours are wanted.
    pub fn paint(self, paint: Paint, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match paint {
            Paint::Good => "32",
            Paint::Bad => "31",
            Paint::Busy => "33",
            Paint::Dim => "2",
            Paint::Bold => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Somebody else's text as a person may see it: on a terminal without characters that command it. A pipe gets it
    /// as it is.
    pub fn harmless(self, text: &str) -> String {
        if !self.interactive {
            return text.to_owned();
        }
        text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
    }

    /// The same for a text of several lines.
    pub fn harmless_lines(self, text: &str) -> String {
        let lines: Vec<String> = text.split('\n').map(|line| self.harmless(line)).collect();
        lines.join("\n")
    }

    /// Prints a table.
    pub fn table(self, table: &Table) -> Result<(), CliError> {
        print(&table.render(self.width()))
    }
}

/// Prints text to standard output; a reader that has gone ends the program silently.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Prints a line.
pub fn line(text: impl AsRef<str>) -> Result<(), CliError> {
    print(&format!("{}\n", text.as_ref()))
}

/// Prints a value as indented JSON.
pub fn json<T: Serialize>(value: &T) -> Result<(), CliError> {
    line(serde_json::to_string_pretty(value).map_err(io::Error::other)?)
}

/// Prints a value as JSON on one line, for streams.
pub fn json_line<T: Serialize>(value: &T) -> Result<(), CliError> {
    line(serde_json::to_string(value).map_err(io::Error::other)?)
}

/// Whether a person sits at both ends and can be asked.
pub fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks a person on standard error; only `y` and `yes` mean yes.
pub fn ask(question: &str) -> Result<bool, CliError> {
    let mut err = io::stderr().lock();
    write!(err, "{question} [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_only_where_a_terminal_wants_them() {
        let plain = [(false, false, false), (true, true, false), (true, false, true)];
        for (terminal, no_colour, dumb) in plain {
            assert_eq!(Terminal::from_facts(terminal, no_colour, dumb).paint(Paint::Bad, "x"), "x");
        }
        assert_eq!(Terminal::from_facts(true, false, false).paint(Paint::Bad, "x"), "\x1b[31mx\x1b[0m");
        assert_eq!(Terminal::from_facts(false, false, false).width(), None);
    }

    #[test]
    fn a_text_commands_no_terminal_and_reaches_a_pipe_unchanged() {
        let (screen, pipe) = (Terminal::from_facts(true, false, false), Terminal::from_facts(false, false, false));
        assert_eq!(screen.harmless("a\tb\x1b[2J\r"), "a\tb\u{fffd}[2J\u{fffd}");
        assert_eq!(pipe.harmless("a\x1b[2J\r"), "a\x1b[2J\r");
    }
}
