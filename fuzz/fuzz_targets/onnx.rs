//! Fuzzes `photonc_fuzz::onnx`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| photonc_fuzz::onnx(input));

photonc_fuzz::structured_mutator!("onnx");
