//! Where a value lies: a buffer, an offset and a stride for every axis. Owns the reshapes, slices and transposes that
//! cost nothing; refuses those that would move elements.

use super::super::arguments::{Heads, Rows};

use photonc_graph::ir::dtype::Dtype;

/// Element type of a value on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Element {
    /// The type of activations and weights that the plan was made for.
    Model,
    /// f32 whatever the model's type: logits, uniform numbers, sampling parameters.
    Float,
    /// i64: ids, lengths, positions.
    Int,
    /// One byte, 0 or 1.
    Bool,
}

impl Element {
    /// Size in bytes where activations have the type `model`.
    #[must_use]
    pub fn size_bytes(self, model: Dtype) -> usize {
        match self {
            Element::Model => model.size_bytes(),
            Element::Float => Dtype::F32.size_bytes(),
            Element::Int => Dtype::I64.size_bytes(),
            Element::Bool => Dtype::Bool.size_bytes(),
        }
    }

    /// Number of the type in `kernels/abi.cuh`.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Element::Model => 0,
            Element::Float => 1,
            Element::Int => 2,
            Element::Bool => 3,
        }
    }
}

/// A box of elements in a buffer of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Index of the buffer.
    pub buffer: usize,
    /// Element type.
    pub element: Element,
    /// Elements before the first one.
    pub offset: i64,
    /// Sizes of the axes, outermost first.
    pub dims: Vec<usize>,
    /// Elements from one entry to the next, an axis each.
    pub strides: Vec<i64>,
}

/// Bits of a symbolic address that count bytes inside a buffer.
const OFFSET_BITS: u32 = 40;

/// Address of byte `offset_bytes` of buffer `buffer`, before buffers have addresses; never 0.
#[must_use]
pub fn symbolic(buffer: usize, offset_bytes: usize) -> u64 {
    ((buffer as u64 + 1) << OFFSET_BITS) | offset_bytes as u64
}

/// Buffer and byte of a symbolic address; `None` for 0.
#[must_use]
pub fn located(address: u64) -> Option<(usize, u64)> {
    let buffer = usize::try_from(address >> OFFSET_BITS).ok()?.checked_sub(1)?;
    Some((buffer, address & ((1 << OFFSET_BITS) - 1)))
}

/// Strides of a row-major box.
#[must_use]
pub fn row_major(dims: &[usize]) -> Vec<i64> {
    let mut strides = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * int(dims[axis]);
    }
    strides
}

/// A size as a stride; sizes of values in memory are far below 2^63.
#[must_use]
pub fn int(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

impl View {
    /// A row-major value that fills `buffer`.
    #[must_use]
    pub fn whole(buffer: usize, element: Element, dims: &[usize]) -> Self {
        View { buffer, element, offset: 0, dims: dims.to_vec(), strides: row_major(dims) }
    }

    /// Number of elements.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// Symbolic address of the first element.
    #[must_use]
    pub fn address(&self, model: Dtype) -> u64 {
        let first = usize::try_from(self.offset).expect("invariant: views begin inside their buffer");
        let bytes = first * self.element.size_bytes(model);
        symbolic(self.buffer, bytes)
    }

    /// Entries `start .. start + len` of `axis`.
    #[must_use]
    pub fn slice(&self, axis: usize, start: usize, len: usize) -> View {
        let mut part = self.clone();
        part.offset += int(start) * self.strides[axis];
        part.dims[axis] = len;
        part
    }

    /// Axis `i` of the result is axis `perm[i]`.
    #[must_use]
    pub fn transpose(&self, perm: &[usize]) -> View {
        let dims = perm.iter().map(|axis| self.dims[*axis]).collect();
        let strides = perm.iter().map(|axis| self.strides[*axis]).collect();
        View { dims, strides, ..self.clone() }
    }

    /// The value whose transpose by `perm` this is.
    #[must_use]
    pub fn untranspose(&self, perm: &[usize]) -> View {
        let mut inverse = vec![0; perm.len()];
        perm.iter().enumerate().for_each(|(to, from)| inverse[*from] = to);
        self.transpose(&inverse)
    }

    /// The same elements in the same order under other sizes, where strides can say so.
    #[must_use]
    pub fn reshape(&self, dims: &[usize]) -> Option<View> {
        if self.elements() != dims.iter().product::<usize>() {
            return None;
        }
        if self.elements() == 0 {
            return Some(View { dims: dims.to_vec(), strides: row_major(dims), ..self.clone() });
        }
        // Runs of axes that are one axis in memory, outermost first.
        let mut runs = self.runs().into_iter();
        let mut strides = vec![0; dims.len()];
        let (mut left, mut stride) = (1usize, 1i64);
        for axis in (0..dims.len()).rev() {
            if dims[axis] == 1 {
                strides[axis] = stride;
                continue;
            }
            if left == 1 {
                (left, stride) = runs.next_back()?;
            }
            if left % dims[axis] != 0 {
                return None;
            }
            strides[axis] = stride;
            stride *= int(dims[axis]);
            left /= dims[axis];
        }
        (left == 1 && runs.next().is_none()).then(|| View { dims: dims.to_vec(), strides, ..self.clone() })
    }

    /// Sizes and strides with neighbouring axes joined where memory allows, axes of one entry left out.
    #[must_use]
    pub fn runs(&self) -> Vec<(usize, i64)> {
        let mut runs: Vec<(usize, i64)> = Vec::new();
        for (size, stride) in self.dims.iter().zip(&self.strides).filter(|(size, _)| **size != 1) {
            match runs.last_mut() {
                Some((before, outer)) if *outer == stride * int(*size) => {
                    *before *= size;
                    *outer = *stride;
                }
                _ => runs.push((*size, *stride)),
            }
        }
        runs
    }

    /// Whether elements follow each other without gaps in row-major order.
    #[must_use]
    pub fn is_contiguous(&self) -> bool {
        self.elements() == 0
            || self.runs().as_slice().iter().all(|(_, stride)| *stride == 1) && self.runs().len() <= 1
    }

    /// Whether all but the last axis step over an even number of elements, from an even place on.
    #[must_use]
    pub fn is_in_pairs(&self) -> bool {
        let outer = self.strides.split_last().map_or(&[][..], |(_, outer)| outer);
        self.offset % 2 == 0 && outer.iter().all(|stride| stride % 2 == 0)
    }

    /// As a matrix of rows of the last axis, where two strides can say so.
    #[must_use]
    pub fn rows(&self, model: Dtype) -> Option<Rows> {
        let (width, lead) = (self.dims.last().copied().unwrap_or(1), self.dims.len().saturating_sub(1));
        if width > 1 && self.strides.last() != Some(&1) {
            return None;
        }
        let leading =
            View { dims: self.dims[..lead].to_vec(), strides: self.strides[..lead].to_vec(), ..self.clone() };
        let base = self.address(model);
        match leading.runs().as_slice() {
            [] => Some(Rows { base, outer: int(width), inner: 0, split: 1, unused: 0 }),
            [(_, stride)] => Some(Rows { base, outer: *stride, inner: 0, split: 1, unused: 0 }),
            [(_, outer), (size, inner)] => Some(Rows {
                base,
                outer: *outer,
                inner: *inner,
                split: i32::try_from(*size).ok()?,
                unused: 0,
            }),
            _ => None,
        }
    }

    /// As heads `[rows, heads, positions, width]`.
    #[must_use]
    pub fn heads(&self, model: Dtype) -> Option<Heads> {
        match self.strides.as_slice() {
            [row, head, position, 1] => {
                Some(Heads { base: self.address(model), row: *row, position: *position, head: *head })
            }
            _ => None,
        }
    }
}
