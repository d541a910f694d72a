//! From a call of a plan to a kernel: the one match over calls and over types. Owns neither memory nor order.

use super::attend::{self, Attention};
use super::lanes::Form;
use super::pool::Pool;
use super::product::{Product, multiply};
use super::rows::{self, Place, size};
use super::scalar::{Codes, Floats, Scalar, Weights};
use super::{element, experts, general, sample};
use crate::launch::arguments::{CodesArguments, DequantizeArguments, LinearArguments};
use crate::launch::device::{CallTypes, DeviceError, MatMul};
use crate::launch::plan::Call;
use half::{bf16, f16};
use photonc_graph::ir::dtype::Dtype;

/// What kernels run with.
pub struct Processor {
    /// Instructions.
    pub form: Form,
    /// Threads.
    pub pool: Pool,
}

/// Calls `$body` with `$T` the Rust type of a float.
macro_rules! with_float {
    ($dtype:expr, $T:ident, $body:expr) => {
        match $dtype {
            Dtype::F16 => {
                type $T = f16;
                $body
            }
            Dtype::Bf16 => {
                type $T = bf16;
                $body
            }
            _ => {
                type $T = f32;
                $body
            }
        }
    };
}

/// Refuses what no kernel can compute.
///
/// # Errors
/// What is wrong.
pub fn check(call: &Call, dtype: Dtype) -> Result<(), DeviceError> {
    let wrong = |message: String| DeviceError::Call { call: "making a call ready", message };
    if !dtype.is_float() {
        return Err(wrong(format!("no kernels compute in {dtype}")));
    }
    match call {
        Call::MatMul(product) => product.check(),
        Call::Codes(CodesArguments { scheme, .. }) | Call::Dequantize(DequantizeArguments { scheme, .. })
            if !(0..=2).contains(scheme) =>
        {
            Err(wrong(format!("no codes of scheme {scheme}")))
        }
        Call::AttendWindow(_, width)
        | Call::AttendCache(_, width)
        | Call::AttendStream(_, width)
        | Call::AppendKeys(_, width)
            if *width > 256 || width % 2 != 0 =>
        {
            Err(wrong(format!("no kernel for heads of {width} elements")))
        }
        _ => Ok(()),
    }
}

/// Does a call that `check` accepts.
///
/// # Safety
/// Every address is valid for the call's sizes.
pub unsafe fn run(on: &Processor, call: &Call, types: CallTypes) {
    // SAFETY: that of the caller.
    with_float!(types.activations, T, unsafe { run_in::<T>(on, call, types.matrices) });
}

unsafe fn run_in<T: Scalar>(on: &Processor, call: &Call, matrices: Dtype) {
    let (form, pool) = (on.form, &on.pool);
    // SAFETY: that of the caller.
    unsafe {
        match call {
            Call::Linear(a) => with_float!(matrices, W, {
                let weights = Floats { base: a.weight as *const W, columns: size(a.k) };
                multiply(form, pool, &product_of::<T, _>(a, weights));
            }),
            Call::Codes(a) => codes::<T>(on, a),
            Call::MatMul(a) => with_float!(matrices, W, {
                let weights = Floats { base: a.weight as *const W, columns: a.k };
                multiply(form, pool, &matrix_product::<T, _>(a, weights));
            }),
            Call::Dequantize(a) => match a.scheme {
                0 => dequantize::<T, 0>(a),
                1 => dequantize::<T, 1>(a),
                _ => dequantize::<T, 2>(a),
            },
            Call::Norm(a) => rows::norm::<T>(form, pool, a),
            Call::Swiglu(a) => rows::swiglu::<T>(form, pool, a),
            Call::Embed(a) => with_float!(matrices, W, rows::embed::<T, W>(a)),
            Call::AttendWindow(arguments, width)
            | Call::AttendCache(arguments, width)
            | Call::AttendStream(arguments, width) => {
                attend::attend::<T>(form, pool, Attention { arguments, width: *width, attends: true });
            }
            Call::AppendKeys(arguments, width) => {
                attend::attend::<T>(form, pool, Attention { arguments, width: *width, attends: false });
            }
            Call::Sample(a) => sample::sample::<T>(form, pool, a),
            Call::Element(a) => element::elements::<T>(form, a),
            Call::Gather(a) => rows::gather::<T>(a),
            Call::Iota(a) => rows::iota(a),
            Call::Uniforms(a) => sample::uniforms(a),
            Call::Read(a) => rows::read(form, pool, a),
            Call::Rope(a) => general::rope::<T>(pool, a),
            Call::AttendGeneral(a) => general::attend::<T>(form, pool, a),
            Call::Append(a) => general::append::<T>(a),
            Call::Route(a) => experts::route::<T>(pool, a),
            Call::ExpertsUp(a) => with_float!(matrices, W, experts::up::<T, W>(form, pool, a)),
            Call::ExpertsDown(a) => with_float!(matrices, W, experts::down::<T, W>(form, pool, a)),
        }
    }
}

fn product_of<T, W>(a: &LinearArguments, weights: W) -> Product<T, W> {
    Product {
        x: Place::of(&a.x),
        norm: a.norm as *const T,
        eps: a.eps,
        weights,
        bias: a.bias as *const T,
        residual: Place::of(&a.residual),
        out: Place::of(&a.out),
        wide: a.wide != 0,
        swiglu: a.mode == 1,
        sizes: [size(a.rows), size(a.k), size(a.n)],
    }
}

fn matrix_product<T, W>(a: &MatMul, weights: W) -> Product<T, W> {
    Product {
        x: Place::apart(a.x, a.x_stride),
        norm: std::ptr::null(),
        eps: 0.0,
        weights,
        bias: a.bias as *const T,
        residual: Place::apart(a.residual, a.residual_stride),
        out: Place::apart(a.out, a.out_stride),
        wide: a.out_dtype == Dtype::F32,
        swiglu: false,
        sizes: [a.m, a.k, a.n],
    }
}

unsafe fn codes<T: Scalar>(on: &Processor, a: &CodesArguments) {
    unsafe fn of<T: Scalar, W: Weights>(on: &Processor, a: &LinearArguments, weights: W) {
        // SAFETY: that of the caller.
        unsafe { multiply(on.form, &on.pool, &product_of::<T, W>(a, weights)) }
    }
    let linear = &a.linear;
    let (codes, scales, columns) = (linear.weight as *const u8, a.scales as *const f32, size(linear.k));
    // SAFETY: that of the caller.
    unsafe {
        match a.scheme {
            0 => of::<T, _>(on, linear, Codes::<0> { codes, scales, columns }),
            1 => of::<T, _>(on, linear, Codes::<1> { codes, scales, columns }),
            _ => of::<T, _>(on, linear, Codes::<2> { codes, scales, columns }),
        }
    }
}

unsafe fn dequantize<T: Scalar, const SCHEME: i32>(a: &DequantizeArguments) {
    use super::lanes::{LANES, Portable};
    let columns = size(a.k);
    let weights = Codes::<SCHEME> { codes: a.codes as *const u8, scales: a.scales as *const f32, columns };
    for row in 0..size(a.rows) {
        for at in (0..columns).step_by(LANES) {
            let count = LANES.min(columns - at);
            // SAFETY: that of the caller.
            unsafe {
                let values = weights.part::<Portable>(row, at, count);
                super::scalar::store_part((a.out as *mut T).add(row * columns + at), values, count);
            }
        }
    }
}
