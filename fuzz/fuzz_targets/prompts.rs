//! Fuzzes `photonc_fuzz::prompts`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| photonc_fuzz::prompts(input));

photonc_fuzz::structured_mutator!("prompts");
