//! Any headers and body of a stranger.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| landfall_fuzz::signature(data));
