//! Fuzzes `photonc_fuzz::request_body`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| photonc_fuzz::request_body(input));

photonc_fuzz::structured_mutator!("request_body");
