//! KServe's Open Inference Protocol, version 2, and the generate extension that Triton and KServe have: tensors or a text in,
//! tensors or a text out. Owns paths below `/v2`, their bodies and the form of their errors; tokens come the way of all
//! endpoints ([`super::generation`]). Models have no versions, and tensors are JSON.

pub mod error;
pub mod generate;
pub mod infer;
pub mod info;
pub mod parameters;
pub mod tensors;
