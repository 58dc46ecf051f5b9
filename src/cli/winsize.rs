//! The size of the terminal that this program is in.

use crate::wire::exec::TerminalSize;

/// Columns of the terminal standard output goes to; `None` when it is none or does not know.
pub fn columns() -> Option<usize> {
    size_of(rustix::stdio::stdout()).map(|size| usize::from(size.columns))
}

/// The size of the terminal that standard input comes from.
pub fn size() -> Option<TerminalSize> {
    size_of(rustix::stdio::stdin())
}

fn size_of(terminal: std::os::fd::BorrowedFd<'_>) -> Option<TerminalSize> {
    let size = rustix::termios::tcgetwinsize(terminal).ok()?;
    (size.ws_col > 0).then_some(TerminalSize { rows: size.ws_row, columns: size.ws_col })
}
