//! `Element`: operations on boxes of up to five axes, one element at a time but for copies of whole runs.

use super::lanes::{Form, LANES, Lanes, Work, exp, sigmoid, silu, with};
use super::rows::size;
use super::scalar::Scalar;
use crate::launch::arguments::ElementArguments;
use half::{bf16, f16};

/// Where an element lies and how it is kept.
#[derive(Clone, Copy)]
struct Cell<T>(*mut u8, i32, std::marker::PhantomData<T>);

impl<T: Scalar> Cell<T> {
    /// Element `at` of the values at `base`, of type `kind`.
    fn of(base: u64, at: i64, kind: i32) -> Self {
        let bytes = match kind {
            0 => size_of::<T>(),
            1 => 4,
            2 => 8,
            3 => 1,
            _ => 2,
        };
        let address = base.wrapping_add_signed(at.wrapping_mul(bytes as i64));
        Cell(address as *mut u8, kind, std::marker::PhantomData)
    }

    fn is_whole(self) -> bool {
        matches!(self.1, 2 | 3)
    }

    /// # Safety
    /// The address is valid for its type, here and below.
    unsafe fn whole(self) -> i64 {
        // SAFETY: that of the caller.
        unsafe {
            match self.1 {
                2 => self.0.cast::<i64>().read_unaligned(),
                3 => i64::from(self.0.read() != 0),
                // Towards zero, as a cast of floats to integers goes.
                #[expect(clippy::cast_possible_truncation, reason = "what a cast is")]
                _ => self.real() as i64,
            }
        }
    }

    unsafe fn real(self) -> f32 {
        // SAFETY: that of the caller.
        unsafe {
            match self.1 {
                0 => self.0.cast::<T>().read_unaligned().wide(),
                1 => self.0.cast::<f32>().read_unaligned(),
                4 => self.0.cast::<bf16>().read_unaligned().to_f32(),
                5 => self.0.cast::<f16>().read_unaligned().to_f32(),
                #[expect(clippy::cast_precision_loss, reason = "what a cast is")]
                _ => self.whole() as f32,
            }
        }
    }

    unsafe fn set_whole(self, value: i64) {
        // SAFETY: that of the caller.
        unsafe {
            match self.1 {
                2 => self.0.cast::<i64>().write_unaligned(value),
                3 => self.0.write(u8::from(value != 0)),
                #[expect(clippy::cast_precision_loss, reason = "what a cast is")]
                _ => self.set_real(value as f32),
            }
        }
    }

    unsafe fn set_real(self, value: f32) {
        // SAFETY: that of the caller.
        unsafe {
            match self.1 {
                0 => self.0.cast::<T>().write_unaligned(T::narrow(value)),
                1 => self.0.cast::<f32>().write_unaligned(value),
                3 => self.0.write(u8::from(value != 0.0)),
                #[expect(clippy::cast_possible_truncation, reason = "what a cast is")]
                _ => self.set_whole(value as i64),
            }
        }
    }
}

/// A function of one number in the arithmetic of whole vectors, so that it has the bits that fused kernels have.
struct Curve(i32, f32);

impl Work for Curve {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> f32 {
        let mut lanes = [0.0f32; LANES];
        // SAFETY: the array has sixteen elements.
        unsafe {
            let x = L::splat(self.1);
            let y = match self.0 {
                2 => sigmoid(x),
                3 => silu(x),
                _ => exp(x),
            };
            y.store(lanes.as_mut_ptr());
        }
        lanes[0]
    }
}

fn arithmetic<V: Copy + PartialOrd>(operation: i32, a: V, b: V, f: [fn(V, V) -> V; 3], negative: V) -> V {
    match operation {
        1 => negative,
        8 => f[0](a, b),
        9 => f[1](a, b),
        10 => f[2](a, b),
        // Of numbers; of NaN and a number the number, as the first operand.
        #[expect(clippy::eq_op, reason = "finds NaN")]
        11 => {
            if a < b || a != a {
                b
            } else {
                a
            }
        }
        #[expect(clippy::eq_op, reason = "finds NaN")]
        12 => {
            if b < a || a != a {
                b
            } else {
                a
            }
        }
        _ => a,
    }
}

/// # Safety
/// The cells are valid for what the operation reads and writes.
unsafe fn element<T: Scalar>(form: Form, operation: i32, out: Cell<T>, [a, b, c]: [Cell<T>; 3]) {
    let two = operation >= 8;
    // SAFETY: that of the caller.
    unsafe {
        match operation {
            24 => {
                let from = if a.whole() != 0 { b } else { c };
                if from.is_whole() { out.set_whole(from.whole()) } else { out.set_real(from.real()) }
            }
            _ if a.is_whole() && (!two || b.is_whole()) && !(2..8).contains(&operation) => {
                let (x, y) = (a.whole(), if two { b.whole() } else { 0 });
                out.set_whole(match operation {
                    16 => i64::from(x < y),
                    17 => i64::from(x == y),
                    _ => {
                        let f = [i64::wrapping_add, i64::wrapping_sub, i64::wrapping_mul];
                        arithmetic(operation, x, y, f, x.wrapping_neg())
                    }
                });
            }
            _ => {
                let (x, y) = (a.real(), if two { b.real() } else { 0.0 });
                match operation {
                    16 => out.set_whole(i64::from(x < y)),
                    17 => out.set_whole(i64::from(x == y)),
                    2..=4 => out.set_real(with(form, Curve(operation, x))),
                    5 => out.set_real(x.tanh()),
                    _ => {
                        let f: [fn(f32, f32) -> f32; 3] = [|a, b| a + b, |a, b| a - b, |a, b| a * b];
                        out.set_real(arithmetic(operation, x, y, f, -x));
                    }
                }
            }
        }
    }
}

/// `Element`.
///
/// # Safety
/// The addresses are valid.
pub unsafe fn elements<T: Scalar>(form: Form, e: &ElementArguments) {
    let sizes = e.size.map(size);
    let runs: usize = sizes[..4].iter().product();
    let bytes = if e.out_type == 0 { size_of::<T>() } else { [0, 4, 8, 1][e.out_type.clamp(0, 3) as usize] };
    let copied = e.operation == 0 && e.out_type == e.a_type && e.out_stride[4] == 1 && e.a_stride[4] == 1;
    for run in 0..runs {
        let mut rest = run;
        let mut starts = [0i64; 4];
        for axis in (0..4).rev() {
            let index = (rest % sizes[axis]) as i64;
            rest /= sizes[axis];
            for (start, strides) in starts.iter_mut().zip([e.out_stride, e.a_stride, e.b_stride, e.c_stride])
            {
                *start += index * strides[axis];
            }
        }
        let cell = |base: u64, operand: usize, strides: [i64; 5], kind: i32, at: usize| {
            Cell::<T>::of(base, starts[operand] + at as i64 * strides[4], kind)
        };
        if copied {
            let (to, from) =
                (cell(e.out, 0, e.out_stride, e.out_type, 0), cell(e.a, 1, e.a_stride, e.a_type, 0));
            // SAFETY: that of the caller; a plan may copy a value onto itself.
            unsafe { std::ptr::copy(from.0, to.0, sizes[4] * bytes) };
            continue;
        }
        for at in 0..sizes[4] {
            let operands = [
                cell(e.a, 1, e.a_stride, e.a_type, at),
                cell(e.b, 2, e.b_stride, e.b_type, at),
                cell(e.c, 3, e.c_stride, e.c_type, at),
            ];
            // SAFETY: that of the caller.
            unsafe { element(form, e.operation, cell(e.out, 0, e.out_stride, e.out_type, at), operands) };
        }
    }
}
