//! Values only: dtype, dim, shape, tensor, the operation table and what operations mean.

pub mod dtype;
