//! A command in an instance, as its parts go between client, controller and the program that runs it.
//!
//! Both directions are sequences of frames: one byte that says what it is, four bytes of length (big endian), the
//! payload. Whoever asks says [`Frame::Start`] first; whoever runs it says [`Frame::Ended`] last. The same bytes are a
//! request's and an answer's body on the API and go over the socket of the program that runs the command.

use serde::{Deserialize, Serialize};

/// Longest payload of a frame, in bytes. Output comes in pieces of at most this length.
pub const MAX_PAYLOAD: usize = 64 * 1024;
/// What a terminal takes for the end of input (termios(3): `VEOF`).
pub const END_OF_INPUT: u8 = 4;
/// The media type of a sequence of frames.
pub const MEDIA_TYPE: &str = "application/vnd.landfall.exec";

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct ExecStart {
    /// Program and arguments; the program is looked up in the instance's `PATH`.
    pub command: Vec<String>,
    /// The terminal it is to have; without one, its input and its two outputs are pipes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<TerminalSize>,
    /// `TERM` for a command with a terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<String>,
}

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum ExecEnd {
    /// By itself.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// By a signal.
    Killed {
        /// Its number.
        signal: i32,
    },
    /// It did not begin, or nobody knows how it ended.
    Failed {
        /// `not_found`, `not_permitted`, `failed` or `lost`.
        code: String,
        /// What is wrong and how to mend it.
        message: String,
    },
}

/// One part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The first: what is to be run.
    Start(ExecStart),
    /// For its standard input.
    Input(Vec<u8>),
    /// Its standard input ends here.
    InputEnd,
    /// Its terminal has another size now.
    Resize(TerminalSize),
    /// From its standard output, or its terminal.
    Output(Vec<u8>),
    /// From its standard error.
    Error(Vec<u8>),
    /// The last: how it ended.
    Ended(ExecEnd),
}

/// Why bytes are no frames. The connection they came over is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum BadFrame {
    /// A payload is longer than [`MAX_PAYLOAD`].
    #[error("a frame of {0} bytes is longer than the limit of {MAX_PAYLOAD}")]
    TooLong(usize),
    /// No frame begins with this byte.
    #[error("there are no frames of sort {0}")]
    Unknown(u8),
    /// Its payload is not what such a frame holds.
    #[error("a frame cannot be understood: {0}")]
    Malformed(String),
}

const START: u8 = 1;
const INPUT: u8 = 2;
const INPUT_END: u8 = 3;
const RESIZE: u8 = 4;
const OUTPUT: u8 = 5;
const ERROR: u8 = 6;
const ENDED: u8 = 7;
const HEAD: usize = 5;

impl Frame {
    /// As bytes. Fails for a payload that is too long; output and input are to be cut before.
    pub fn encode(&self) -> Result<Vec<u8>, BadFrame> {
        let json = |value: serde_json::Result<Vec<u8>>| value.map_err(|error| BadFrame::Malformed(error.to_string()));
        let (sort, payload) = match self {
            Frame::Start(start) => (START, json(serde_json::to_vec(start))?),
            Frame::Input(bytes) => (INPUT, bytes.clone()),
            Frame::InputEnd => (INPUT_END, Vec::new()),
            Frame::Resize(size) => (RESIZE, json(serde_json::to_vec(size))?),
            Frame::Output(bytes) => (OUTPUT, bytes.clone()),
            Frame::Error(bytes) => (ERROR, bytes.clone()),
            Frame::Ended(end) => (ENDED, json(serde_json::to_vec(end))?),
        };
        let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= MAX_PAYLOAD);
        let length = length.ok_or(BadFrame::TooLong(payload.len()))?;
        let mut bytes = Vec::with_capacity(HEAD + payload.len());
        bytes.push(sort);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&payload);
        Ok(bytes)
    }

    fn decode(sort: u8, payload: &[u8]) -> Result<Self, BadFrame> {
        fn json<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Result<T, BadFrame> {
            serde_json::from_slice(payload).map_err(|error| BadFrame::Malformed(error.to_string()))
        }
        Ok(match sort {
            START => Frame::Start(json(payload)?),
            INPUT => Frame::Input(payload.to_vec()),
            INPUT_END => Frame::InputEnd,
            RESIZE => Frame::Resize(json(payload)?),
            OUTPUT => Frame::Output(payload.to_vec()),
            ERROR => Frame::Error(payload.to_vec()),
            ENDED => Frame::Ended(json(payload)?),
            other => return Err(BadFrame::Unknown(other)),
        })
    }
}

/// Collects bytes as they arrive and yields whole frames. Holds no more than it was given since the last whole one.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: Vec<u8>,
    start: usize,
}

impl Frames {
    /// Adds bytes that were read.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame; `None` when more bytes are needed. Not an iterator: a bad frame is the end.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, BadFrame> {
        let waiting = self.buffer.get(self.start..).unwrap_or_default();
        let Some((head, rest)) = waiting.split_first_chunk::<HEAD>() else { return Ok(None) };
        let [sort, length @ ..] = *head;
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_PAYLOAD {
            return Err(BadFrame::TooLong(length));
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let frame = Frame::decode(sort, payload)?;
        self.start += HEAD + length;
        Ok(Some(frame))
    }

    /// The next frame of a stream; `None` when it has ended or cannot be read. May be dropped and called again without
    /// losing anything.
    #[cfg(feature = "server")]
    pub async fn read(&mut self, from: &mut (impl tokio::io::AsyncRead + Unpin)) -> Result<Option<Frame>, BadFrame> {
        use tokio::io::AsyncReadExt;
        loop {
            if let Some(frame) = self.next_frame()? {
                return Ok(Some(frame));
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            self.buffer.reserve(HEAD + MAX_PAYLOAD);
            if !matches!(from.read_buf(&mut self.buffer).await, Ok(1..)) {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let start = ExecStart {
            command: vec!["sh".into(), "-c".into(), "ls".into()],
            terminal: Some(TerminalSize { rows: 24, columns: 80 }),
            term: Some("xterm".into()),
        };
        let all = [
            Frame::Start(start),
            Frame::Input(vec![0, 255, 7]),
            Frame::InputEnd,
            Frame::Resize(TerminalSize { rows: 1, columns: 2 }),
            Frame::Output(vec![b'x'; MAX_PAYLOAD]),
            Frame::Error(Vec::new()),
            Frame::Ended(ExecEnd::Failed { code: "lost".into(), message: "gone".into() }),
        ];
        let bytes: Vec<u8> = all.iter().flat_map(|frame| frame.encode().expect("encodes")).collect();
        for size in [1, 2, 3, 4, 5, 6, 1000, bytes.len()] {
            let mut frames = Frames::default();
            let mut found = Vec::new();
            for piece in bytes.chunks(size) {
                frames.extend(piece);
                while let Some(frame) = frames.next_frame().expect("frames") {
                    found.push(frame);
                }
            }
            assert!(found == all, "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_frame_is_refused_before_it_is_held() {
        let next = |bytes: &[u8]| {
            let mut frames = Frames::default();
            frames.extend(bytes);
            frames.next_frame()
        };
        assert!(matches!(next(&[INPUT, 0, 1, 0, 1]), Err(BadFrame::TooLong(65537))));
        assert!(matches!(next(&[9, 0, 0, 0, 0]), Err(BadFrame::Unknown(9))));
        assert!(matches!(next(&[RESIZE, 0, 0, 0, 2, b'{', b'}']), Err(BadFrame::Malformed(_))));
        assert!(matches!(Frame::Input(vec![0; MAX_PAYLOAD + 1]).encode(), Err(BadFrame::TooLong(_))));
        assert!(matches!(next(&[OUTPUT, 0, 0]), Ok(None)));
    }
}
