//! Fuzzes `photonc_fuzz::chat_template`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| photonc_fuzz::chat_template(input));

photonc_fuzz::structured_mutator!("chat_template");
