//! Values only: dtype, dim, shape, tensor, the operation table and what operations mean.

pub mod attr;
pub mod bytes;
pub mod cost;
pub mod dim;
pub mod dtype;
pub mod eval;
pub mod infer;
pub mod op;
pub mod quant;
pub mod shape;
pub mod tensor;
