//! Length-limited frames: four bytes of length (big endian), then that many bytes of JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest body of a frame in bytes. A route table of ten thousand objects takes about 5 MiB.
pub const MAX_FRAME: usize = 64 * 1024 * 1024;

/// Why a frame cannot be written or read. The connection it came over must be closed.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The body is longer than [`MAX_FRAME`].
    #[error("a message of {0} bytes is longer than the limit of {MAX_FRAME}")]
    TooLong(usize),
    /// The body is not the JSON expected here.
    #[error("a message cannot be understood: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// One message as bytes, ready to be written.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    let prefix = u32::try_from(length).ok().filter(|_| length <= MAX_FRAME).ok_or(FrameError::TooLong(length))?;
    frame[..4].copy_from_slice(&prefix.to_be_bytes());
    Ok(frame)
}

/// Collects bytes as they arrive and yields whole messages.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// Adds bytes that were read.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, `None` when more bytes are needed.
    pub fn message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let waiting = &self.buffer[self.start..];
        let Some((prefix, rest)) = waiting.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > MAX_FRAME {
            return Err(FrameError::TooLong(length));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let message = serde_json::from_slice(body)?;
        self.start += 4 + length;
        if self.start > 64 * 1024 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let messages = ["one".to_owned(), String::new(), "x".repeat(100_000)];
        let bytes: Vec<u8> = messages.iter().flat_map(|m| encode(m).expect("encodes")).collect();
        for cut in [1, 3, 4, 7, 4096, bytes.len()] {
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for chunk in bytes.chunks(cut) {
                decoder.extend(chunk);
                while let Some(message) = decoder.message::<String>().expect("decodes") {
                    seen.push(message);
                }
            }
            assert_eq!(seen, messages, "cut every {cut} bytes");
        }
    }

    #[test]
    fn an_oversized_frame_is_refused_before_its_body_arrives() {
        let mut decoder = Decoder::default();
        decoder.extend(&u32::MAX.to_be_bytes());
        assert!(matches!(decoder.message::<String>(), Err(FrameError::TooLong(_))));
    }
}
