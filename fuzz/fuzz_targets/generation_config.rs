//! Fuzzes `photonc_fuzz::generation_config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| photonc_fuzz::generation_config(input));

photonc_fuzz::structured_mutator!("generation_config");
