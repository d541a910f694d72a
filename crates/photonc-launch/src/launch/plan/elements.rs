//! Everything that is not a product, a norm or attention: copies, elementwise operations, gathers, samples.

use super::emit::Emitter;
use super::view::{Element, View, int, located};
use super::{Call, PlanError};
use crate::launch::arguments::{
    ElementArguments, EmbedArguments, GatherArguments, IotaArguments, SampleArguments,
};
use photonc_graph::graph::NodeId;
use photonc_graph::ir::attr::{BinaryFn, CompareFn, UnaryFn};
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::op::Op;

/// Axes of `elementwise`.
const AXES: usize = 5;
/// Number of `copy` in `kernels/abi.cuh`.
const COPY: i32 = 0;
/// Number of the sum.
const ADD: i32 = 8;

/// Numbers of operations in `kernels/abi.cuh`.
fn operation(op: &Op) -> Option<i32> {
    Some(match op {
        Op::Cast { .. } => COPY,
        Op::Unary { function: UnaryFn::Neg } => 1,
        Op::Unary { function: UnaryFn::Sigmoid } => 2,
        Op::Unary { function: UnaryFn::Silu } => 3,
        Op::Unary { function: UnaryFn::Tanh } => 5,
        Op::Binary { function: BinaryFn::Add } => ADD,
        Op::Binary { function: BinaryFn::Sub } => 9,
        Op::Binary { function: BinaryFn::Mul } => 10,
        Op::Binary { function: BinaryFn::Max } => 11,
        Op::Binary { function: BinaryFn::Min } => 12,
        Op::Compare { function: CompareFn::Less } => 16,
        Op::Compare { function: CompareFn::Equal } => 17,
        Op::Where => 24,
        _ => return None,
    })
}

/// Strides of a value broadcast to `dims`.
fn broadcast(view: &View, dims: &[usize]) -> Vec<i64> {
    let missing = dims.len().saturating_sub(view.dims.len());
    let known =
        view.dims.iter().zip(&view.strides).map(|(size, stride)| if *size == 1 { 0 } else { *stride });
    std::iter::repeat_n(0, missing).chain(known).collect()
}

impl ElementArguments {
    /// A copy of `from` to `to`, converting; addresses are added to those of the views' own offsets. `None` if more than
    /// five axes remain after joining.
    #[must_use]
    pub fn copy(dtype: Dtype, from: (u64, &View), to: (u64, &View)) -> Option<Self> {
        Self::of(dtype, COPY, to, &[from])
    }

    /// `to += by`, by broadcast to the sizes of `to`; `None` if more than five axes remain.
    #[must_use]
    pub fn sum(dtype: Dtype, to: (u64, &View), by: (u64, &View)) -> Option<Self> {
        Self::of(dtype, ADD, to, &[to, by])
    }

    /// An operation over views: symbolic addresses where `base` is 0, else the views' offsets behind `base`.
    fn of(dtype: Dtype, operation: i32, out: (u64, &View), operands: &[(u64, &View)]) -> Option<Self> {
        let address = |(base, view): (u64, &View)| match base {
            0 => view.address(dtype),
            base => base + view.offset.unsigned_abs() * view.element.size_bytes(dtype) as u64,
        };
        let dims = &out.1.dims;
        let strides: Vec<Vec<i64>> = std::iter::once(out.1.strides.clone())
            .chain(operands.iter().map(|(_, view)| broadcast(view, dims)))
            .collect();
        let (sizes, strides) = joined(dims, &strides);
        let first = AXES.checked_sub(sizes.len())?;
        let mut size = [1; AXES];
        for (axis, entries) in sizes.iter().enumerate() {
            size[first + axis] = i32::try_from(*entries).ok()?;
        }
        let padded = |operand: usize| {
            let mut padded = [0; AXES];
            if let Some(known) = strides.get(operand) {
                padded[first..].copy_from_slice(known);
            }
            padded
        };
        let at = |operand: usize| operands.get(operand).map_or(0, |operand| address(*operand));
        let code = |operand: usize| operands.get(operand).map_or(0, |(_, view)| view.element.code());
        Some(ElementArguments {
            out: address(out),
            a: at(0),
            b: at(1),
            c: at(2),
            out_stride: padded(0),
            a_stride: padded(1),
            b_stride: padded(2),
            c_stride: padded(3),
            size,
            operation,
            out_type: out.1.element.code(),
            a_type: code(0),
            b_type: code(1),
            c_type: code(2),
        })
    }
}

impl Emitter<'_> {
    /// Copies `from` to `to`, converting between element types.
    pub(super) fn copy(&mut self, id: NodeId, from: &View, to: &View) -> Result<(), PlanError> {
        self.element_call(id, COPY, to, &[from])
    }

    fn element_call(
        &mut self,
        id: NodeId,
        operation: i32,
        out: &View,
        operands: &[&View],
    ) -> Result<(), PlanError> {
        if out.elements() == 0 {
            return Ok(());
        }
        let arguments = ElementArguments::of(
            self.dtype,
            operation,
            (0, out),
            &operands.iter().map(|view| (0, *view)).collect::<Vec<_>>(),
        );
        let Some(arguments) = arguments else {
            return Err(self
                .demand
                .error(id, format!("moves elements of {:?} along too many axes at once", out.dims)));
        };
        self.step(id, Call::Element(arguments));
        Ok(())
    }

    pub(super) fn elementwise(&mut self, id: NodeId, operands: &[NodeId]) -> Result<(), PlanError> {
        let Some(operation) = operation(self.demand.graph.op(id)) else {
            return Err(self.demand.error(id, "not an elementwise operation"));
        };
        let views: Vec<View> = operands.iter().map(|id| self.value(*id)).collect::<Result<_, _>>()?;
        // A cast between types that the device holds alike moves nothing.
        if operation == COPY && views[0].element == self.element(id) && !self.placed.contains_key(&id) {
            self.values.insert(id, views[0].clone());
            return Ok(());
        }
        let out = self.target(id);
        self.element_call(id, operation, &out, &views.iter().collect::<Vec<_>>())?;
        self.values.insert(id, out);
        Ok(())
    }

    /// A weight read as a value, such as a start latent.
    pub(super) fn weight_value(&mut self, id: NodeId) -> Result<(), PlanError> {
        let address = self.weight(id, id)?;
        let (buffer, bytes) = located(address).expect("invariant: weights have symbolic addresses");
        let size = Element::Model.size_bytes(self.dtype) as u64;
        let offset = int(usize::try_from(bytes / size).expect("invariant: buffers are smaller than memory"));
        let whole = View::whole(buffer, Element::Model, self.demand.dims(id));
        self.values.insert(id, View { offset, ..whole });
        Ok(())
    }

    pub(super) fn reshape(&mut self, id: NodeId, of: NodeId) -> Result<(), PlanError> {
        let (value, dims) = (self.value(of)?, self.demand.dims(id).to_vec());
        let view = match value.reshape(&dims) {
            Some(view) => view,
            None => {
                let copy = self.fresh(value.element, &value.dims);
                self.copy(id, &value, &copy)?;
                View { dims: dims.clone(), strides: super::view::row_major(&dims), ..copy }
            }
        };
        self.values.insert(id, view);
        Ok(())
    }

    pub(super) fn concat(&mut self, id: NodeId, operands: &[NodeId], axis: usize) -> Result<(), PlanError> {
        let whole = self.target(id);
        let mut start = 0;
        for part in operands {
            let value = self.value(*part)?;
            let target = whole.slice(axis, start, value.dims[axis]);
            start += value.dims[axis];
            if !same_memory(&value, &target) {
                self.copy(id, &value, &target)?;
            }
        }
        self.values.insert(id, whole);
        Ok(())
    }

    pub(super) fn shift(&mut self, id: NodeId, operands: &[NodeId]) -> Result<(), PlanError> {
        let (value, first, out) = (self.value(operands[0])?, self.value(operands[1])?, self.target(id));
        let entries = out.dims[1];
        if entries > 0 {
            self.copy(id, &first, &out.slice(1, 0, 1))?;
        }
        if entries > 1 {
            self.copy(id, &value.slice(1, 0, entries - 1), &out.slice(1, 1, entries - 1))?;
        }
        self.values.insert(id, out);
        Ok(())
    }

    pub(super) fn contiguous(&mut self, id: NodeId, view: View) -> Result<View, PlanError> {
        if view.is_contiguous() {
            return Ok(view);
        }
        let copy = self.fresh(view.element, &view.dims);
        self.copy(id, &view, &copy)?;
        Ok(copy)
    }

    pub(super) fn embed(&mut self, id: NodeId, operands: &[NodeId]) -> Result<(), PlanError> {
        let ids = self.value(operands[1])?;
        let ids = self.contiguous(id, ids)?;
        let table = self.demand.dims(operands[0]).to_vec();
        let out = self.target(id);
        let Some(rows) = out.rows(self.dtype) else {
            return Err(self.demand.error(id, "the result's rows are scattered"));
        };
        let table_of = self.whole(id, operands[0])?;
        let arguments = EmbedArguments {
            ids: ids.address(self.dtype),
            table: table_of.address,
            out: rows,
            rows: self.count(id, ids.elements())?,
            width: self.count(id, table[1])?,
            vocabulary: self.count(id, table[0])?,
            unused: 0,
        };
        self.step_with(id, Call::Embed(arguments), table_of.dtype);
        self.values.insert(id, out);
        Ok(())
    }

    pub(super) fn gather_rows(&mut self, id: NodeId, operands: &[NodeId]) -> Result<(), PlanError> {
        let (x, index) = (self.value(operands[0])?, self.value(operands[1])?);
        let ([batch, length, width], [_, count]) =
            (x.dims[..].try_into().unwrap_or([0; 3]), index.dims[..].try_into().unwrap_or([0; 2]));
        if x.strides.last() != Some(&1) {
            return Err(self.demand.error(id, "gathers from rows that are not contiguous"));
        }
        let out = self.fresh(x.element, &[batch, count, width]);
        let arguments = GatherArguments {
            x: x.address(self.dtype),
            index: index.address(self.dtype),
            out: out.address(self.dtype),
            x_row: x.strides[0],
            x_position: x.strides[1],
            index_row: index.strides[0],
            index_inner: index.strides[1],
            batch: self.count(id, batch)?,
            length: self.count(id, length)?,
            count: self.count(id, count)?,
            width: self.count(id, width)?,
        };
        self.step(id, Call::Gather(arguments));
        self.values.insert(id, out);
        Ok(())
    }

    pub(super) fn iota(&mut self, id: NodeId) -> Result<(), PlanError> {
        let out = self.target(id);
        let count = self.count(id, out.elements())?;
        self.step(id, Call::Iota(IotaArguments { out: out.address(self.dtype), count, unused: 0 }));
        self.values.insert(id, out);
        Ok(())
    }

    pub(super) fn sample(&mut self, id: NodeId, operands: &[NodeId]) -> Result<(), PlanError> {
        let views: Vec<View> = operands.iter().map(|id| self.value(*id)).collect::<Result<_, _>>()?;
        let logits = self.contiguous(id, views[0].clone())?;
        let (rows, vocabulary) = (self.demand.rows(operands[0]), logits.dims.last().copied().unwrap_or(0));
        let parameters = views[2].elements();
        let out = self.target(id);
        if rows == 0 {
            self.values.insert(id, out);
            return Ok(());
        }
        let (ids_split, ids_outer, ids_inner) = self.pairs(id, &out)?;
        let (uniforms_split, uniforms_outer, uniforms_inner) = self.pairs(id, &views[1])?;
        let arguments = SampleArguments {
            logits: logits.address(self.dtype),
            logits_stride: int(vocabulary),
            uniforms: views[1].address(self.dtype),
            temperature: views[2].address(self.dtype),
            top_k: views[3].address(self.dtype),
            top_p: views[4].address(self.dtype),
            min_p: self.min_p(parameters),
            ids: out.address(self.dtype),
            ids_outer,
            ids_inner,
            ids_split,
            uniforms_split,
            uniforms_outer,
            uniforms_inner,
            rows: self.count(id, rows)?,
            rows_per_parameter: self.count(id, rows / parameters.max(1))?,
            vocabulary: self.count(id, vocabulary)?,
            wide: i32::from(logits.element == Element::Float),
        };
        self.step(id, Call::Sample(arguments));
        self.values.insert(id, out);
        Ok(())
    }

    /// Entries of a value as groups: size of a group, stride between groups and inside one.
    fn pairs(&self, id: NodeId, view: &View) -> Result<(i32, i64, i64), PlanError> {
        match view.runs().as_slice() {
            [] => Ok((1, 0, 0)),
            [(_, stride)] => Ok((1, *stride, 0)),
            [(_, outer), (size, inner)] => Ok((self.count(id, *size)?, *outer, *inner)),
            _ => Err(self.demand.error(id, "the rows of a sampler are scattered")),
        }
    }
}

/// Whether both are the same elements at the same places.
pub(super) fn same_memory(a: &View, b: &View) -> bool {
    a.buffer == b.buffer
        && a.offset == b.offset
        && a.element == b.element
        && a.dims == b.dims
        && a.runs() == b.runs()
}

/// Axes joined where all operands' strides allow it, those of one entry left out.
fn joined(dims: &[usize], strides: &[Vec<i64>]) -> (Vec<usize>, Vec<Vec<i64>>) {
    let mut sizes: Vec<usize> = Vec::new();
    let mut kept: Vec<Vec<i64>> = vec![Vec::new(); strides.len()];
    for (axis, size) in dims.iter().enumerate().filter(|(_, size)| **size != 1) {
        let joins = !sizes.is_empty()
            && kept.iter().zip(strides).all(|(kept, all)| kept.last() == Some(&(all[axis] * int(*size))));
        match (joins, sizes.last_mut()) {
            (true, Some(last)) => {
                *last *= size;
                kept.iter_mut().zip(strides).for_each(|(kept, all)| {
                    if let Some(last) = kept.last_mut() {
                        *last = all[axis];
                    }
                });
            }
            _ => {
                sizes.push(*size);
                kept.iter_mut().zip(strides).for_each(|(kept, all)| kept.push(all[axis]));
            }
        }
    }
    (sizes, kept)
}
