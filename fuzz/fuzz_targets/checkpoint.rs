//! Fuzzes `photonc_fuzz::checkpoint`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| photonc_fuzz::checkpoint(input));

photonc_fuzz::structured_mutator!("checkpoint");
