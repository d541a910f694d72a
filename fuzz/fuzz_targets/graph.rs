//! Fuzzes `photonc_fuzz::graph`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| photonc_fuzz::graph(input));

photonc_fuzz::structured_mutator!("graph");
