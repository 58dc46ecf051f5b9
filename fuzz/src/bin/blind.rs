//! The targets without a fuzzer's guidance, where there is no nightly toolchain: `blind <target> <seconds>` changes the seeds
//! of `corpus/<target>` at random, again and again, and says how many inputs passed. What panics is written to `artifacts/`.

use std::path::Path;
use std::time::{Duration, Instant};

/// A plain generator: what counts is that a run can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound.max(1) as u64).unwrap_or(0)
    }
}

/// Changes an input in one to eight places: bytes, pieces removed, doubled, or taken from another seed.
fn mutate(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut input = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(8) {
        let at = random.below(input.len() + 1);
        let length = random.below(40).min(input.len() - at);
        match random.below(6) {
            0 => input.insert(at, u8::try_from(random.below(256)).unwrap_or(0)),
            1 if at < input.len() => input[at] ^= 1 << random.below(8),
            2 => drop(input.drain(at..at + length)),
            3 => {
                let piece = input[at..at + length].to_vec();
                input.splice(at..at, piece);
            }
            4 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                let piece = other[from..(from + random.below(60)).min(other.len())].to_vec();
                input.splice(at..at + length, piece);
            }
            _ => {
                let pieces: [&[u8]; 8] = [b"\n", b": ", b"{", b"]", b"\"", b"&a ", b"*a", "\u{feff}".as_bytes()];
                let piece = pieces[random.below(pieces.len())].to_vec();
                input.splice(at..at, piece);
            }
        }
    }
    input
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, name, seconds] = arguments.as_slice() else { return Err("blind <target> <seconds>".into()) };
    let target: fn(&[u8]) = match name.as_str() {
        "manifest" => landfall_fuzz::manifest,
        "config" => landfall_fuzz::config,
        "hook" => landfall_fuzz::hook,
        "signature" => landfall_fuzz::signature,
        other => return Err(format!("there is no target {other}").into()),
    };
    let mut seeds = Vec::new();
    for entry in std::fs::read_dir(Path::new("corpus").join(name))? {
        seeds.push(std::fs::read(entry?.path())?);
    }
    if seeds.is_empty() {
        return Err("there are no seeds; run seeds.sh".into());
    }
    let end = Instant::now() + Duration::from_secs(seconds.parse()?);
    let (mut random, mut passed) = (Random(0x9e37_79b9_7f4a_7c15), 0_u64);
    while Instant::now() < end {
        let input = mutate(&mut random, &seeds);
        if std::panic::catch_unwind(|| target(&input)).is_err() {
            std::fs::create_dir_all("artifacts")?;
            std::fs::write(Path::new("artifacts").join(format!("{name}-{passed}")), &input)?;
            return Err(format!("input {passed} does not pass; it is kept in artifacts/").into());
        }
        passed += 1;
    }
    println!("{name}: {passed} inputs passed, from {} seeds", seeds.len());
    Ok(())
}
