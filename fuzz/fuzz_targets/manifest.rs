//! Fuzzes `photonc_fuzz::manifest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| photonc_fuzz::manifest(input));

photonc_fuzz::structured_mutator!("manifest");
