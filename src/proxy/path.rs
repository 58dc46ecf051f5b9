//! How else a path could be read.
//!
//! Pure. Paths are forwarded as they came; but an instance may decode `%2e` and `%2f`, resolve `..`, or merge slashes,
//! and so see another path than the one that chose the route. [`understood`] is that other path.

use std::borrow::Cow;

/// The path with encoded letters, dots and slashes decoded, `\` read as `/`, empty segments merged and dot segments
/// resolved. `None` when it reads the same either way.
pub fn understood(path: &str) -> Option<String> {
    let suspicious = path.contains(['%', '\\']) || path.contains("/.") || path.contains("//");
    if !suspicious {
        return None;
    }
    let decoded = decode(path);
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split(['/', '\\']) {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    Some(format!("/{}", segments.join("/")))
}

/// How many readers in a row are thought of: `%252e` is two of them away from a dot. Bounded, because each reads all of
/// a path that may be as long as a request's head.
const READERS: usize = 3;

fn decode(path: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(path);
    for _ in 0..READERS {
        match decode_once(&text) {
            Some(next) => text = Cow::Owned(next),
            None => break,
        }
    }
    text
}

fn decode_once(path: &str) -> Option<String> {
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes.get(at..at + 3).and_then(hex_triplet).filter(u8::is_ascii_graphic) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    if out.len() == bytes.len() { None } else { Some(String::from_utf8_lossy(&out).into_owned()) }
}

fn hex_triplet(triplet: &[u8]) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16);
    match triplet {
        [b'%', high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
        _ => None,
    }
}
