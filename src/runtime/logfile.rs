//! One instance's log on disk: its file and the rotated ones before it, as lines.
//!
//! The supervisor writes them ([`crate::wire::supervisor`] names the file); CRI text format, pieces of long
//! lines marked `P`. A log is read forwards from a [`Position`], or backwards from its end. A file that
//! vanishes while it is read has been thrown away for space: what is left is read.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::domain::CallId;

/// Rotated files that can exist; the supervisor keeps fewer.
const MOST_ROTATED: usize = 16;
/// A line put together from pieces is cut here.
const LONGEST_LINE: usize = 1024 * 1024;
/// No tag has its end later.
const LONGEST_TAG: usize = 64;
const BLOCK: u64 = 64 * 1024;

/// A whole line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub at: Timestamp,
    pub source: String,
    /// The call it was written in, where its writer tagged it.
    pub call: Option<CallId>,
    pub text: String,
}

impl Line {
    /// Takes the tag off: RS, the call's identifier, US, then the line itself.
    fn new(at: Timestamp, source: String, bytes: &[u8]) -> Self {
        let tagged = bytes.strip_prefix(b"\x1e").and_then(|rest| {
            let end = rest.iter().take(LONGEST_TAG).position(|byte| *byte == 0x1f)?;
            let call = std::str::from_utf8(rest.get(..end)?).ok()?.parse().ok()?;
            Some((call, rest.get(end + 1..)?))
        });
        let (call, text) = tagged.map_or((None, bytes), |(call, text)| (Some(call), text));
        Self { at, source, call, text: String::from_utf8_lossy(text).into_owned() }
    }
}

/// How far a log has been read: the file by its inode, since rotation changes its name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub inode: u64,
    pub offset: u64,
}

struct Entry<'a> {
    at: Timestamp,
    source: &'a str,
    whole: bool,
    text: &'a [u8],
}

fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let at = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let source = std::str::from_utf8(parts.next()?).ok()?;
    let whole = parts.next()? == b"F";
    Some(Entry { at, source, whole, text: parts.next().unwrap_or_default() })
}

/// The files of a log, oldest first, the one being written last.
fn files(base: &Path) -> Vec<PathBuf> {
    let numbered = |number: usize| {
        let mut name = base.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    let mut files: Vec<_> = (1..=MOST_ROTATED).map(numbered).take_while(|path| path.exists()).collect();
    files.reverse();
    files.push(base.to_owned());
    files
}

/// Reads a log forwards.
#[derive(Debug)]
pub(super) struct Forward {
    base: PathBuf,
    position: Position,
    reader: Option<BufReader<File>>,
    pieces: HashMap<String, (Timestamp, Vec<u8>)>,
    line: Vec<u8>,
}

impl Forward {
    /// From `position`; the default one is the beginning of the oldest file.
    pub(super) fn new(base: PathBuf, position: Position) -> Self {
        Self { base, position, reader: None, pieces: HashMap::new(), line: Vec::new() }
    }

    /// Whether there may be something new, without opening anything.
    pub(super) fn has_changed(&self) -> bool {
        fs::metadata(&self.base)
            .is_ok_and(|meta| meta.ino() != self.position.inode || meta.len() != self.position.offset)
    }

    /// Closes the file until the next line is asked for.
    pub(super) fn close(&mut self) {
        self.reader = None;
    }

    /// The next whole line; `None` when there is none yet. The file is then closed, and opened again when asked again.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            if self.reader.is_none() && !self.open()? {
                return Ok(None);
            }
            let Some(reader) = &mut self.reader else { return Ok(None) };
            self.line.clear();
            let count = reader.read_until(b'\n', &mut self.line)?;
            if self.line.last() == Some(&b'\n') {
                self.position.offset += count as u64;
                if let Some(line) = self.take_entry() {
                    return Ok(Some(line));
                }
                continue;
            }
            // The end, or half a line: the supervisor is writing the rest.
            self.reader = None;
            if !self.next_file(count as u64)? {
                return Ok(None);
            }
        }
    }

    fn take_entry(&mut self) -> Option<Line> {
        let entry = parse(self.line.strip_suffix(b"\n").unwrap_or(&self.line))?;
        if !entry.whole {
            let (_, kept) = self.pieces.entry(entry.source.to_owned()).or_insert((entry.at, Vec::new()));
            if kept.len() < LONGEST_LINE {
                kept.extend_from_slice(entry.text);
            }
            return None;
        }
        let (at, text) = match self.pieces.remove(entry.source) {
            None => (entry.at, Cow::Borrowed(entry.text)),
            Some((at, mut kept)) => {
                kept.extend_from_slice(entry.text);
                (at, Cow::Owned(kept))
            }
        };
        Some(Line::new(at, entry.source.to_owned(), &text))
    }

    /// Opens the file of the position. False when there is none.
    fn open(&mut self) -> io::Result<bool> {
        let mut first = None;
        for path in files(&self.base) {
            let Some((file, inode)) = open(&path)? else { continue };
            if inode == self.position.inode {
                return self.start(file, self.position);
            }
            first.get_or_insert((file, inode));
        }
        // Nothing was read yet, or what was read is gone: all that is there is newer.
        match first {
            Some((file, inode)) => self.start(file, Position { inode, offset: 0 }),
            None => Ok(false),
        }
    }

    /// Moves to the file after the one that was read to its end, where `half` bytes of a line were left.
    /// False when that was the last.
    fn next_file(&mut self, half: u64) -> io::Result<bool> {
        let mut current = None;
        for path in files(&self.base) {
            let Some((file, inode)) = open(&path)? else { continue };
            if let Some(current) = current {
                // It may have grown between its end and its rotation; nothing grows after that.
                let current: File = current;
                let grown = current.metadata()?.len() > self.position.offset + half;
                let (file, position) =
                    if grown { (current, self.position) } else { (file, Position { inode, offset: 0 }) };
                return self.start(file, position);
            }
            current = (inode == self.position.inode).then_some(file);
        }
        Ok(false)
    }

    fn start(&mut self, mut file: File, position: Position) -> io::Result<bool> {
        file.seek(SeekFrom::Start(position.offset))?;
        self.position = position;
        self.reader = Some(BufReader::with_capacity(BLOCK as usize, file));
        Ok(true)
    }
}

fn open(path: &Path) -> io::Result<Option<(File, u64)>> {
    match File::open(path) {
        Ok(file) => {
            let inode = file.metadata()?.ino();
            Ok(Some((file, inode)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The last `count` lines that `wanted` takes, oldest first, and the position behind the last whole line.
pub(super) fn last_lines(
    base: &Path,
    count: usize,
    wanted: &dyn Fn(Timestamp, &str) -> bool,
) -> io::Result<(Vec<Line>, Position)> {
    let mut found = Backward { lines: Vec::new(), latest: HashMap::new(), count, wanted };
    let mut position = Position::default();
    for path in files(base).into_iter().rev() {
        let Some((mut file, inode)) = open(&path)? else { continue };
        let end = found.read(&mut file)?;
        if position == Position::default() {
            position = Position { inode, offset: end };
        }
        if found.is_full() {
            break;
        }
    }
    let mut lines: Vec<Line> = found.lines.into_iter().take(count).map(Collected::into_line).collect();
    lines.reverse();
    Ok((lines, position))
}

struct Collected {
    at: Timestamp,
    source: String,
    /// Last piece first.
    pieces: Vec<Vec<u8>>,
}

impl Collected {
    fn into_line(self) -> Line {
        let bytes: Vec<u8> = self.pieces.into_iter().rev().flatten().take(LONGEST_LINE).collect();
        Line::new(self.at, self.source, &bytes)
    }
}

struct Backward<'a> {
    /// Newest first.
    lines: Vec<Collected>,
    /// Per source the line whose earlier pieces may still come; `None` when it was not wanted.
    latest: HashMap<String, Option<usize>>,
    count: usize,
    wanted: &'a dyn Fn(Timestamp, &str) -> bool,
}

impl Backward<'_> {
    /// One more than wanted, to be sure that the first of them has all its pieces.
    fn is_full(&self) -> bool {
        self.lines.len() > self.count
    }

    /// Reads a file from its end; returns the end of its last whole line.
    fn read(&mut self, file: &mut File) -> io::Result<u64> {
        let length = file.seek(SeekFrom::End(0))?;
        let mut start = length;
        // Bytes before the first line break of what was read so far.
        let mut rest: Vec<u8> = Vec::new();
        let mut end = None;
        while start > 0 && !self.is_full() {
            let from = start.saturating_sub(BLOCK);
            let mut block = vec![0; usize::try_from(start - from).unwrap_or_default()];
            file.seek(SeekFrom::Start(from))?;
            file.read_exact(&mut block)?;
            block.append(&mut rest);
            if end.is_none()
                && let Some(last) = block.iter().rposition(|byte| *byte == b'\n')
            {
                // What follows the last line break is half a line.
                block.truncate(last + 1);
                end = Some(from + last as u64 + 1);
            }
            start = from;
            let first =
                if from == 0 { 0 } else { block.iter().position(|b| *b == b'\n').map_or(block.len(), |i| i + 1) };
            for line in block.get(first..).unwrap_or_default().rsplit(|byte| *byte == b'\n').filter(|l| !l.is_empty()) {
                self.take(line);
                if self.is_full() {
                    break;
                }
            }
            block.truncate(first);
            rest = block;
        }
        Ok(end.unwrap_or(0))
    }

    fn take(&mut self, line: &[u8]) {
        let Some(entry) = parse(line) else { return };
        if !entry.whole
            && let Some(place) = self.latest.get(entry.source)
        {
            if let Some(line) = place.and_then(|index| self.lines.get_mut(index)) {
                line.pieces.push(entry.text.to_vec());
                line.at = entry.at;
            }
            return;
        }
        let place = (self.wanted)(entry.at, entry.source).then(|| {
            let pieces = vec![entry.text.to_vec()];
            self.lines.push(Collected { at: entry.at, source: entry.source.to_owned(), pieces });
            self.lines.len() - 1
        });
        self.latest.insert(entry.source.to_owned(), place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &dyn Fn(Timestamp, &str) -> bool = &|_, _| true;

    fn entry(second: u32, tag: &str, text: &str) -> String {
        format!("2026-11-21T09:{:02}:{:02}.000000001Z stdout {tag} {text}\n", second / 60, second % 60)
    }

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    fn forward(base: &Path) -> Vec<Line> {
        let mut reader = Forward::new(base.to_owned(), Position::default());
        std::iter::from_fn(|| reader.next().expect("reads")).collect()
    }

    #[test]
    fn forwards_and_backwards_see_the_same_lines() {
        let directory = tempfile::tempdir().expect("a directory");
        let base = directory.path().join("x.log");
        let mut files = [String::new(), String::new()];
        for number in 0..3000 {
            let file = &mut files[usize::from(number > 1000)];
            if number % 7 == 0 {
                file.push_str(&entry(number % 3600, "P", &"long ".repeat(600)));
            }
            file.push_str(&entry(number % 3600, "F", &format!("line {number} {}", "x".repeat(number as usize % 90))));
        }
        // A line cut by rotation, and half a line that is being written.
        files[0].push_str(&entry(1, "P", "begins in one file, "));
        files[1].insert_str(0, &entry(1, "F", "ends in the next"));
        files[1].push_str("2026-11-21T09:00");
        fs::write(directory.path().join("x.log.1"), &files[0]).expect("written");
        fs::write(&base, &files[1]).expect("written");
        let all = forward(&base);
        assert_eq!(all.len(), 3001);
        assert!(texts(&all).contains(&"begins in one file, ends in the next"));
        for count in [1, 2, 50, 1998, 2000, 2001, 3001, 5000] {
            let (lines, _) = last_lines(&base, count, ALL).expect("reads");
            assert!(lines == all[all.len().saturating_sub(count)..], "the last {count}");
        }
    }

    #[test]
    fn reading_goes_on_behind_the_last_lines_and_through_rotations() {
        let directory = tempfile::tempdir().expect("a directory");
        let base = directory.path().join("x.log");
        let at = |number: usize| directory.path().join(format!("x.log.{number}"));
        fs::write(&base, entry(1, "F", "one")).expect("written");
        let (_, position) = last_lines(&base, 1, ALL).expect("reads");
        let mut reader = Forward::new(base.clone(), position);
        assert!(!reader.has_changed() && reader.next().expect("reads").is_none());
        let append = |text: &str| {
            use std::io::Write;
            File::options().append(true).open(&base).expect("opens").write_all(text.as_bytes()).expect("written");
        };
        append(&entry(2, "F", "two"));
        append("2026-11-21T09:00:03Z stdo");
        assert!(reader.has_changed());
        assert_eq!(reader.next().expect("reads").expect("a line").text, "two");
        assert_eq!(reader.next().expect("reads"), None);
        append("ut F three\n");
        fs::rename(&base, at(1)).expect("rotated");
        fs::write(&base, entry(4, "F", "four")).expect("written");
        fs::rename(at(1), at(2)).expect("rotated");
        fs::rename(&base, at(1)).expect("rotated");
        fs::write(&base, entry(5, "F", "five")).expect("written");
        let rest: Vec<Line> = std::iter::from_fn(|| reader.next().expect("reads")).collect();
        assert_eq!(texts(&rest), ["three", "four", "five"]);
        assert!(!reader.has_changed());
    }

    #[test]
    fn bytes_that_are_no_text_and_lines_that_are_no_log_do_no_harm() {
        let directory = tempfile::tempdir().expect("a directory");
        let base = directory.path().join("x.log");
        let mut bytes = b"garbage\n\n2026-11-21T09:00:00Z stderr F ".to_vec();
        bytes.extend_from_slice(&[0xff, b'a', b'\n']);
        fs::write(&base, bytes).expect("written");
        assert_eq!(texts(&forward(&base)), ["\u{fffd}a"]);
        assert_eq!(last_lines(&base, 9, ALL).expect("reads").0, forward(&base));
        assert!(forward(Path::new("/nowhere/x.log")).is_empty());
    }
}
