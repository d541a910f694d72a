//! Fuzzes `photonc_fuzz::bundle`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| photonc_fuzz::bundle(input));

photonc_fuzz::structured_mutator!("bundle");
