//! A parser for server-sent events, fed with whatever pieces the network delivers.
//!
//! Invariant: [`SseParser`] never holds more than [`MAX_EVENT`] bytes, whatever the other side sends.

use std::collections::VecDeque;

/// Longest event that is accepted; far beyond any log line or deployment.
pub const MAX_EVENT: usize = 4 * 1024 * 1024;

/// The other side sent an event that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of more than {MAX_EVENT} bytes")]
pub struct TooLong;

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// Its type; empty for a plain one.
    pub kind: String,
    /// Its data.
    pub data: Vec<u8>,
    /// The place behind it, as far as one was named.
    place: Option<String>,
}

/// Turns bytes into events.
#[derive(Debug, Default)]
pub struct SseParser {
    /// The line that is not complete yet.
    line: Vec<u8>,
    /// Data lines of the event that is not complete yet, each followed by a newline.
    data: Vec<u8>,
    /// The last byte was a carriage return, so a line feed right after it belongs to the same line end.
    after_return: bool,
    kind: String,
    /// The place the last `id` named.
    named: Option<String>,
    /// The place behind the last event that was taken.
    place: Option<String>,
    ready: VecDeque<Event>,
}

impl SseParser {
    /// Takes the next piece.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), TooLong> {
        let mut rest = piece;
        while !rest.is_empty() {
            if std::mem::take(&mut self.after_return) && rest.first() == Some(&b'\n') {
                rest = &rest[1..];
                continue;
            }
            match rest.iter().position(|b| matches!(b, b'\n' | b'\r')) {
                Some(end) => {
                    self.keep(&rest[..end])?;
                    self.after_return = rest[end] == b'\r';
                    rest = &rest[end + 1..];
                    self.end_line();
                }
                None => {
                    self.keep(rest)?;
                    rest = &[];
                }
            }
        }
        Ok(())
    }

    /// The next complete event.
    pub fn next(&mut self) -> Option<Event> {
        let event = self.ready.pop_front()?;
        self.place.clone_from(&event.place);
        Some(event)
    }

    /// The place behind the last event that was taken, or a later one up to which there was none.
    pub fn place(&self) -> Option<&str> {
        self.place.as_deref()
    }

    /// The connection is gone: what is not complete never will be. Complete events stay.
    pub fn cut_off(&mut self) {
        self.line.clear();
        self.data.clear();
        self.kind.clear();
        self.after_return = false;
        self.named = self.ready.back().map_or_else(|| self.place.clone(), |event| event.place.clone());
    }

    fn keep(&mut self, part: &[u8]) -> Result<(), TooLong> {
        if self.line.len() + self.data.len() + part.len() > MAX_EVENT {
            return Err(TooLong);
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn end_line(&mut self) {
        if self.line.is_empty() {
            // A blank line ends the event; one without data (a lone comment) is none.
            let (kind, data) = (std::mem::take(&mut self.kind), std::mem::take(&mut self.data));
            if let Some((_, data)) = data.split_last() {
                self.ready.push_back(Event { kind, data: data.to_vec(), place: self.named.clone() });
            } else if self.ready.is_empty() {
                self.place.clone_from(&self.named);
            }
        } else if let Some(value) = self.line.strip_prefix(b"id:") {
            self.named = String::from_utf8(trimmed(value).to_vec()).ok();
        } else if let Some(value) = self.line.strip_prefix(b"event:") {
            self.kind = String::from_utf8_lossy(trimmed(value)).into_owned();
        } else if let Some(value) = self.line.strip_prefix(b"data:") {
            self.data.extend_from_slice(trimmed(value));
            self.data.push(b'\n');
        }
        // Comments and the field `retry` carry nothing for us.
        self.line.clear();
    }
}

/// One space after the colon is no part of the value.
fn trimmed(value: &[u8]) -> &[u8] {
    value.strip_prefix(b" ").unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(pieces: &[&[u8]]) -> Vec<String> {
        let mut parser = SseParser::default();
        let mut found = Vec::new();
        for piece in pieces {
            parser.feed(piece).expect("short enough");
            while let Some(event) = parser.next() {
                found.push(String::from_utf8(event.data).expect("text"));
            }
        }
        found
    }

    #[test]
    fn events_come_out_the_same_however_they_are_cut() {
        let text =
            "data: {\"a\":1}\n\n: keep-alive\n\ndata:two\ndata: lines\n\r\ndata: ü\r\n\r\nid: 7\nevent: x\ndata: z\r\r";
        let expected = ["{\"a\":1}", "two\nlines", "ü", "z"];
        assert_eq!(events(&[text.as_bytes()]), expected);
        for cut in 0..text.len() {
            let (a, b) = text.as_bytes().split_at(cut);
            assert_eq!(events(&[a, b]), expected, "cut at {cut}");
        }
        let single: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(events(&single), expected);
    }

    #[test]
    fn the_place_is_that_of_the_last_event_that_was_taken() {
        let mut parser = SseParser::default();
        let feed = |text: &str, parser: &mut SseParser| parser.feed(text.as_bytes()).expect("short enough");
        feed("id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\ndata: cut", &mut parser);
        assert_eq!(parser.place(), None);
        assert_eq!(parser.next().map(|event| event.data), Some(b"a".to_vec()));
        assert_eq!(parser.place(), Some("1"));
        parser.cut_off();
        assert_eq!(parser.next().map(|event| event.data), Some(b"b".to_vec()));
        assert_eq!((parser.next(), parser.place()), (None, Some("2")));
        // Nothing came, and it is known up to where.
        feed(": keep-alive\nid: 9\n\n", &mut parser);
        assert_eq!(parser.place(), Some("9"));
        feed("event: end\ndata: {}\n\n", &mut parser);
        assert_eq!(parser.next().map(|event| event.kind).as_deref(), Some("end"));
    }

    #[test]
    fn comments_and_unfinished_events_are_no_events() {
        assert!(events(&[b": keep-alive\n\n", b"\n\n", b"data: cut off"]).is_empty());
    }

    #[test]
    fn an_endless_event_is_refused_before_it_fills_the_memory() {
        let mut parser = SseParser::default();
        let piece = [b'x'; 64 * 1024];
        let fed = (0..).take_while(|_| parser.feed(&piece).is_ok()).count();
        assert_eq!(fed, MAX_EVENT / piece.len());
        let mut parser = SseParser::default();
        let line = [b"data: ".as_slice(), &[b'x'; 1000], b"\n"].concat();
        assert!((0..MAX_EVENT / 1000 + 2).any(|_| parser.feed(&line) == Err(TooLong)));
    }
}
