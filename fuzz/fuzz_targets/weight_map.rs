//! Fuzzes `photonc_fuzz::weight_map`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| photonc_fuzz::weight_map(input));

photonc_fuzz::structured_mutator!("weight_map");
