//! Exported models against the interpreter: in tract here, and as files that `tests/python/onnx_check.py` runs through
//! `onnx.checker` and ONNX Runtime.

#![allow(clippy::panic, reason = "a failed case stops its test")]

#[path = "../fixture/mod.rs"]
mod fixture;
mod goldens;
mod harness;
mod ops;
mod refusals;
