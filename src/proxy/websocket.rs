//! Where WebSocket frames begin and end (RFC 6455 §5.2), so that a close frame can be put between two of them.
//!
//! Pure. Reads lengths only; what is in the frames stays unread.

/// The close frame a server sends when it goes away: 1001, unmasked.
pub const GOING_AWAY: [u8; 4] = [0x88, 0x02, 0x03, 0xE9];

/// Follows the frames of one direction.
///
/// ```text
/// border ─► header (2 to 14 bytes) ─► payload ─► border
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frames {
    header: [u8; 14],
    have: usize,
    payload: u64,
}

impl Frames {
    /// Whether the bytes so far end with a whole frame.
    pub fn at_border(&self) -> bool {
        self.have == 0 && self.payload == 0
    }

    /// Reads on.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = self.step(bytes);
            bytes = &bytes[taken..];
        }
    }

    /// Reads to the end of the frame that is under way: how many of `bytes` belong to it, `None` if all and more.
    pub fn feed_to_border(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while !self.at_border() {
            if at == bytes.len() {
                return None;
            }
            at += self.step(&bytes[at..]);
        }
        Some(at)
    }

    /// Takes one byte of a header or as much of a payload as there is; how many bytes that were.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.payload > 0 {
            let taken = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
            self.payload -= taken as u64;
            return taken;
        }
        self.header[self.have] = bytes[0];
        self.have += 1;
        if let Some(payload) = self.header_complete() {
            self.payload = payload;
            self.have = 0;
        }
        1
    }

    /// The payload's length, once the header is whole.
    fn header_complete(&self) -> Option<u64> {
        if self.have < 2 {
            return None;
        }
        let mask = if self.header[1] & 0x80 != 0 { 4 } else { 0 };
        let extended = match self.header[1] & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if self.have < 2 + extended + mask {
            return None;
        }
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
        Some(match extended {
            0 => u64::from(self.header[1] & 0x7F),
            length => number(&self.header[2..2 + length]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: usize, masked: bool) -> Vec<u8> {
        let mask_bit = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x82];
        match payload {
            0..126 => frame.push(payload as u8 | mask_bit),
            126..65536 => {
                frame.push(126 | mask_bit);
                frame.extend((payload as u16).to_be_bytes());
            }
            _ => {
                frame.push(127 | mask_bit);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        if masked {
            frame.extend([1, 2, 3, 4]);
        }
        frame.resize(frame.len() + payload, 0x88);
        frame
    }

    #[test]
    fn borders_are_found_however_the_bytes_arrive() {
        let frames: Vec<Vec<u8>> =
            [(0, false), (1, true), (125, false), (126, true), (65535, false), (65536, true), (0, true)]
                .map(|(payload, masked)| frame(payload, masked))
                .to_vec();
        let bytes: Vec<u8> = frames.concat();
        let mut borders = Vec::new();
        let mut at = 0;
        for frame in &frames {
            at += frame.len();
            borders.push(at);
        }
        let mut follow = Frames::default();
        let mut found = Vec::new();
        for (index, byte) in bytes.iter().enumerate() {
            follow.feed(std::slice::from_ref(byte));
            if follow.at_border() {
                found.push(index + 1);
            }
        }
        assert_eq!(found, borders);
        for cut in [1, 2, 3, 100, 127, 200, 60_000, bytes.len() - 1] {
            let mut follow = Frames::default();
            follow.feed(&bytes[..cut]);
            let next = borders.iter().find(|border| **border >= cut).expect("a border");
            assert_eq!(follow.feed_to_border(&bytes[cut..]), Some(next - cut), "cut at {cut}");
        }
    }
}
