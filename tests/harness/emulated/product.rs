//! Matrix products of the emulated device: plain sums in f32, one rounding at the end.

use half::{bf16, f16};
use photonc::ir::dtype::Dtype;
use photonc::runtime::launch::device::MatMul;
use rayon::prelude::*;

/// Element `at` from `address`, as f32.
///
/// # Safety
/// The element lies in live memory.
pub unsafe fn load(address: u64, at: usize, dtype: Dtype) -> f32 {
    // SAFETY: as the caller promises.
    unsafe {
        match dtype {
            Dtype::F32 => *(address as *const f32).add(at),
            Dtype::Bf16 => bf16::from_bits(*(address as *const u16).add(at)).to_f32(),
            Dtype::F16 => f16::from_bits(*(address as *const u16).add(at)).to_f32(),
            Dtype::I64 | Dtype::Bool => f32::NAN,
        }
    }
}

unsafe fn store(address: u64, at: usize, dtype: Dtype, value: f32) {
    // SAFETY: as the caller promises.
    unsafe {
        match dtype {
            Dtype::F32 => *(address as *mut f32).add(at) = value,
            Dtype::Bf16 => *(address as *mut u16).add(at) = bf16::from_f32(value).to_bits(),
            Dtype::F16 => *(address as *mut u16).add(at) = f16::from_f32(value).to_bits(),
            Dtype::I64 | Dtype::Bool => {}
        }
    }
}

/// The matrices of a product and their extents in bytes, to be checked before it runs.
pub fn extents(p: &MatMul) -> [(u64, usize); 5] {
    let size = p.dtype.size_bytes();
    let rows = |stride: usize, columns: usize, size: usize| {
        if p.m == 0 || columns == 0 { 0 } else { ((p.m - 1) * stride + columns) * size }
    };
    [
        (p.x, rows(p.x_stride, p.k, size)),
        (p.weight, p.n * p.k * size),
        (p.bias, if p.bias == 0 { 0 } else { p.n * size }),
        (p.residual, if p.residual == 0 { 0 } else { rows(p.residual_stride, p.n, size) }),
        (p.out, rows(p.out_stride, p.n, p.out_dtype.size_bytes())),
    ]
}

/// Does the product.
///
/// # Safety
/// All `extents` lie in live memory, and `out` overlaps no other one, `residual` with equal stride excepted.
pub unsafe fn run(p: &MatMul) {
    // SAFETY: the indices below stay inside the extents, which are live as the caller promises.
    let value = |address: u64, at: usize| unsafe { load(address, at, p.dtype) };
    let value_or_zero = |address: u64, at: usize| if address == 0 { 0.0 } else { value(address, at) };
    let row = |m: usize| (0..p.k).map(|i| value(p.x, m * p.x_stride + i)).collect::<Vec<f32>>();
    let x: Vec<Vec<f32>> = (0..p.m).map(row).collect();
    (0..p.n).into_par_iter().for_each(|n| {
        let weight: Vec<f32> = (0..p.k).map(|i| value(p.weight, n * p.k + i)).collect();
        let bias = value_or_zero(p.bias, n);
        for (m, row) in x.iter().enumerate() {
            let sum: f32 = row.iter().zip(&weight).map(|(x, w)| x * w).sum();
            let residual = value_or_zero(p.residual, m * p.residual_stride + n);
            // SAFETY: inside the extent of `out`; each element is written by one thread.
            unsafe { store(p.out, m * p.out_stride + n, p.out_dtype, sum + bias + residual) };
        }
    });
}
