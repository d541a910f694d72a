//! Matrix products as the CUDA runtime asks a device for them. Owns which of them exist at all.

use super::device::DeviceError;
use photonc_graph::ir::dtype::Dtype;

/// `out [m, n] = x [m, k] weight[n, k]^T + bias [n] + residual [m, n]`; products accumulate in f32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MatMul {
    /// Rows of `x`.
    pub m: usize,
    /// Rows of `weight`.
    pub n: usize,
    /// Columns of both.
    pub k: usize,
    /// Type of `x`, `weight`, `bias` and `residual`.
    pub dtype: Dtype,
    /// Type of `out`: `dtype` or f32.
    pub out_dtype: Dtype,
    /// Address of `x`.
    pub x: u64,
    /// Elements from one row of `x` to the next.
    pub x_stride: usize,
    /// Address of `weight`, rows contiguous.
    pub weight: u64,
    /// Address of `bias`, or 0; only where `out_dtype` is `dtype`.
    pub bias: u64,
    /// Address of `residual`, or 0; only where `out_dtype` is `dtype`. May be `out` itself.
    pub residual: u64,
    /// Elements from one row of `residual` to the next.
    pub residual_stride: usize,
    /// Address of `out`.
    pub out: u64,
    /// Elements from one row of `out` to the next.
    pub out_stride: usize,
}

/// All that the choice of an algorithm for a product depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProductKind {
    /// Rows of `x`, rows of `weight`, columns of both.
    pub sizes: [usize; 3],
    /// Elements from one row to the next: of `x`, of what is added and of `out`.
    pub strides: [usize; 3],
    /// Type of the operands.
    pub dtype: Dtype,
    /// Type of `out`.
    pub out_dtype: Dtype,
    /// Whether there is a bias.
    pub bias: bool,
    /// Whether there is a residual.
    pub residual: bool,
    /// Alignment in bytes, at most 256, of `weight`, `x`, what is added and `out`.
    pub alignments: [u32; 4],
}

impl MatMul {
    /// What the choice of an algorithm depends on.
    #[must_use]
    pub fn kind(&self) -> ProductKind {
        let alignment = |address: u64| 1u32 << address.trailing_zeros().min(8);
        let (added, added_stride) = match self.residual {
            0 => (self.out, self.out_stride),
            residual => (residual, self.residual_stride),
        };
        ProductKind {
            sizes: [self.m, self.n, self.k],
            strides: [self.x_stride, added_stride, self.out_stride],
            dtype: self.dtype,
            out_dtype: self.out_dtype,
            bias: self.bias != 0,
            residual: self.residual != 0,
            alignments: [self.weight, self.x, added, self.out].map(alignment),
        }
    }

    /// Refuses products that no device has: of other types, with a result of another type that is added to, with rows
    /// that overlap.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), DeviceError> {
        let error = |message: String| DeviceError::Call { call: "matmul", message };
        let same = self.out_dtype == self.dtype;
        if !self.dtype.is_float() || !(same || self.out_dtype == Dtype::F32) {
            return Err(error(format!("no products of {} to {}", self.dtype, self.out_dtype)));
        }
        if !same && (self.bias != 0 || self.residual != 0) {
            return Err(error(format!(
                "a bias or residual is {}, the result {}",
                self.dtype, self.out_dtype
            )));
        }
        let overlap = self.residual != 0 && self.residual_stride < self.n;
        if self.k == 0 || self.x_stride < self.k || self.out_stride < self.n || overlap {
            return Err(error(format!(
                "rows of {} and {} elements, {} and {} (residual {}) apart",
                self.k, self.n, self.x_stride, self.out_stride, self.residual_stride
            )));
        }
        Ok(())
    }
}
