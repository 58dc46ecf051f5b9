//! Aligned columns, the way people and `awk` both read them.
//!
//! Invariant: without a width (a pipe, a file) no cell is ever cut; with one, only the last column is.

/// Rows of text under headings.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

/// Between two columns.
const GAP: &str = "  ";

impl Table {
    /// A table with these headings.
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()] }
    }

    /// Adds a row; cells of one line only: line breaks and control characters become spaces.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| one_line(&cell)).collect());
    }

    /// The text, each line ended by a line feed. `width` is that of the terminal, where there is one.
    pub fn render(&self, width: Option<usize>) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cells(cell)).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let line = line(row, &widths);
            text.push_str(&width.map_or_else(|| line.clone(), |width| cut(&line, width)));
            text.push('\n');
        }
        text
    }
}

fn line(row: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width) in row.iter().zip(widths) {
        line.push_str(cell);
        let missing = width.saturating_sub(cells(cell));
        line.extend(std::iter::repeat_n(' ', missing));
        line.push_str(GAP);
    }
    line.truncate(line.trim_end().len());
    line
}

/// Names and messages are short and mostly Latin: one character is one cell.
fn cells(text: &str) -> usize {
    text.chars().count()
}

/// At most `width` characters; a cut is marked.
pub fn cut(line: &str, width: usize) -> String {
    if cells(line) <= width {
        return line.to_owned();
    }
    let mut short: String = line.chars().take(width.saturating_sub(1)).collect();
    short.truncate(short.trim_end().len());
    short.push('…');
    short
}

/// What an app or a commit says must not move the cursor.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["APP", "STATE", "MESSAGE"]);
        table.row(["shop".into(), "deployed".into(), String::new()]);
        table.row(["été".into(), "failed".into(), "exit code 1:\nno such file".into()]);
        table
    }

    #[test]
    fn columns_are_aligned_by_characters_and_lines_end_without_spaces() {
        let text = table().render(None);
        assert_eq!(text, "APP   STATE     MESSAGE\nshop  deployed\nété   failed    exit code 1: no such file\n");
    }

    #[test]
    fn a_terminal_cuts_long_lines_and_a_pipe_does_not() {
        let text = table().render(Some(24));
        assert!(text.lines().all(|line| line.chars().count() <= 24), "{text}");
        assert!(text.contains("failed    exit co…"), "{text}");
        assert!(table().render(None).contains("no such file"));
    }

    #[test]
    fn control_characters_of_others_do_not_reach_the_terminal() {
        assert_eq!(one_line("a\x1b[2Jb\tc"), "a [2Jb c");
    }
}
