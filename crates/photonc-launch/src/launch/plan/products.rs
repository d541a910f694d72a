//! Linear maps, norms and SwiGLU. Owns which products become one, which run in our kernels and which in cuBLASLt.

use super::emit::Emitter;
use super::stored::{Matrix, Whole};
use super::view::{Element, View};
use super::weights::unsliced;
use super::{Call, PlanError};
use crate::launch::arguments::{
    CodesArguments, DequantizeArguments, LinearArguments, NormArguments, Rows, SwigluArguments,
};
use crate::launch::device::MatMul;
use photonc_graph::graph::NodeId;
use photonc_graph::ir::bytes::narrow;
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::op::Op;

/// What a product reads and where its result goes.
struct Product {
    x: View,
    /// Weight and eps of the norm that the kernel computes first.
    norm: Option<(u64, f64)>,
    weight: Matrix,
    bias: u64,
    residual: Option<View>,
    out: View,
    swiglu: bool,
}

impl Emitter<'_> {
    /// The operand of a product, with the norm to compute first.
    fn operand(&mut self, linear: NodeId) -> Result<(View, Option<(u64, f64)>), PlanError> {
        let graph = self.demand.graph;
        let x = graph.operands(linear)[0];
        let Some(norm) = self.demand.folded_norm(linear) else { return Ok((self.value(x)?, None)) };
        let operands = graph.operands(norm);
        let Op::RmsNorm { eps } = graph.op(norm) else { return Ok((self.value(x)?, None)) };
        let weight = self.weight(norm, operands[1])?;
        let whole = self.value(operands[0])?;
        Ok((self.sliced(whole, x, norm), Some((weight, eps.get()))))
    }

    /// The slices between `root` and `id`, applied to a value that stands for `root`.
    fn sliced(&self, root_view: View, id: NodeId, root: NodeId) -> View {
        if id == root {
            return root_view;
        }
        let graph = self.demand.graph;
        match (graph.op(id), graph.operands(id).as_slice()) {
            (Op::Slice { axis, start, len, from_end }, [of]) => {
                let view = self.sliced(root_view, *of, root);
                let first = if *from_end { view.dims[*axis].saturating_sub(*start) } else { *start };
                view.slice(*axis, first, *len)
            }
            _ => root_view,
        }
    }

    fn bias(&mut self, linear: NodeId) -> Result<u64, PlanError> {
        match self.demand.graph.operands(linear).get(2) {
            Some(bias) if self.demand.own_residual(linear).is_none() => self.weight(linear, *bias),
            _ => Ok(0),
        }
    }

    pub(super) fn residual(&mut self, id: NodeId, linear: NodeId, other: NodeId) -> Result<(), PlanError> {
        let (x, norm) = self.operand(linear)?;
        let weight = self.matrix_of(linear)?;
        let (bias, residual, out) = (self.bias(linear)?, Some(self.value(other)?), self.target(id));
        self.multiply(id, Product { x, norm, weight, bias, residual, out: out.clone(), swiglu: false })?;
        self.values.insert(id, out);
        Ok(())
    }

    pub(super) fn swiglu_product(&mut self, id: NodeId, gate: NodeId) -> Result<(), PlanError> {
        let (x, norm) = self.operand(gate)?;
        let weight = self.matrix_of(gate)?;
        let out = self.target(id);
        let product = Product { x, norm, weight, bias: 0, residual: None, out: out.clone(), swiglu: true };
        self.multiply(id, product)?;
        self.values.insert(id, out);
        Ok(())
    }

    /// A plain product, together with those of the same operand whose weights lie beside its own.
    pub(super) fn product(&mut self, id: NodeId) -> Result<(), PlanError> {
        let members = self.members(id);
        if members.len() < 2 {
            let (x, norm) = self.operand(id)?;
            let weight = self.matrix_of(id)?;
            let (bias, out) = (self.bias(id)?, self.target(id));
            self.multiply(
                id,
                Product { x, norm, weight, bias, residual: None, out: out.clone(), swiglu: false },
            )?;
            self.values.insert(id, out);
            return Ok(());
        }
        let graph = self.demand.graph;
        let root = unsliced(graph, graph.operands(id)[0]);
        let whole = self.widest(&members);
        let (x, norm) = self.operand(whole)?;
        let weight = self.matrix_of(members[0])?;
        let widths: Vec<usize> = members.iter().map(|member| self.width(*member)).collect();
        let mut dims = x.dims.clone();
        if let Some(last) = dims.last_mut() {
            *last = widths.iter().sum();
        }
        let out = self.fresh(Element::Model, &dims);
        let product = Product { x, norm, weight, bias: 0, residual: None, out: out.clone(), swiglu: false };
        self.multiply(id, product)?;
        let (axis, of) = (dims.len() - 1, graph.operands(whole)[0]);
        let mut start = 0;
        for (member, width) in members.iter().zip(widths) {
            let part = out.slice(axis, start, width);
            let x = graph.operands(*member)[0];
            let from = if of == x { of } else { root };
            self.values.insert(*member, self.sliced(part, x, from));
            start += width;
        }
        Ok(())
    }

    fn width(&self, id: NodeId) -> usize {
        self.demand.dims(id).last().copied().unwrap_or(0)
    }

    /// The member whose operand is the largest.
    fn widest(&self, members: &[NodeId]) -> NodeId {
        let rows = |id: &NodeId| self.demand.rows(*id);
        members.iter().copied().max_by_key(rows).unwrap_or(members[0])
    }

    /// Products that one call computes with `id`, by the order of their weights. Few rows: a product of a slice takes
    /// the whole operand, which costs nothing where weights are what is read.
    fn members(&self, id: NodeId) -> Vec<NodeId> {
        let graph = self.demand.graph;
        let x = graph.operands(id)[0];
        let root = unsliced(graph, x);
        let group = self.demand.groups.get(&root).map_or(&[][..], Vec::as_slice);
        let has_whole = group.iter().any(|member| graph.operands(*member)[0] == root);
        let narrow = self.demand.rows(root) <= self.demand.options.tuning.joined_rows && has_whole;
        let mut members: Vec<NodeId> = group
            .iter()
            .copied()
            .filter(|member| {
                let same = graph.operands(*member)[0] == x || narrow;
                let fused = self.demand.fused.values().any(|fusion| fusion.takes(*member));
                let free = !self.placed.contains_key(member) && !self.wide.contains(member);
                let pending = !self.values.contains_key(member);
                same && !fused && free && pending && self.demand.weight_place(*member).is_some()
            })
            .collect();
        members
            .sort_by_key(|member| self.demand.weight_place(*member).map(|place| (place.pack, place.offset)));
        let adjacent =
            |pair: &[NodeId]| match (self.demand.weight_place(pair[0]), self.demand.weight_place(pair[1])) {
                (Some(a), Some(b)) => a.pack == b.pack && a.offset + a.elements == b.offset,
                _ => false,
            };
        let Some(at) = members.iter().position(|member| *member == id) else { return vec![id] };
        let (mut first, mut last) = (at, at);
        while first > 0 && adjacent(&members[first - 1..=first]) {
            first -= 1;
        }
        while last + 1 < members.len() && adjacent(&members[last..=last + 1]) {
            last += 1;
        }
        members[first..=last].to_vec()
    }

    fn multiply(&mut self, id: NodeId, product: Product) -> Result<(), PlanError> {
        let (k, width) =
            (product.x.dims.last().copied().unwrap_or(1), product.out.dims.last().copied().unwrap_or(1));
        let rows = product.x.elements() / k.max(1);
        if rows == 0 || width == 0 {
            return Ok(());
        }
        // cuBLASLt adds only what has the type of its result.
        let mixed =
            product.out.element == Element::Float && (product.bias != 0 || product.residual.is_some());
        let tuning = self.demand.options.tuning;
        let narrow_rows = match product.weight {
            Matrix::Whole(_) => tuning.skinny_rows,
            Matrix::Coded { .. } => tuning.skinny_rows.max(tuning.code_rows),
        };
        if rows > narrow_rows && !(mixed && self.dtype != Dtype::F32) {
            let weight = match product.weight {
                Matrix::Whole(weight) => weight,
                Matrix::Coded { codes, scales, scheme } => {
                    let address = self.dequantized(id, [codes, scales], scheme, [width, k])?;
                    Whole { address, dtype: self.dtype }
                }
            };
            return self.wide_product(id, &product, weight, [rows, width, k]);
        }
        let arguments = LinearArguments {
            x: self.rows(id, &product.x)?,
            residual: match &product.residual {
                Some(residual) => self.rows(id, residual)?,
                None => Rows { split: 1, ..Rows::default() },
            },
            out: self.out_rows(id, &product.out)?,
            norm: product.norm.map_or(0, |(weight, _)| weight),
            weight: match product.weight {
                Matrix::Whole(Whole { address, .. }) | Matrix::Coded { codes: address, .. } => address,
            },
            bias: product.bias,
            rows: self.count(id, rows)?,
            k: self.count(id, k)?,
            n: self.count(id, width)?,
            mode: i32::from(product.swiglu),
            wide: i32::from(product.out.element == Element::Float),
            eps: product.norm.map_or(0.0, |(_, eps)| narrow(eps)),
        };
        match product.weight {
            Matrix::Whole(weight) => self.step_with(id, Call::Linear(arguments), weight.dtype),
            Matrix::Coded { scales, scheme, .. } => {
                let codes = CodesArguments { linear: arguments, scales, scheme, unused: 0 };
                self.step(id, Call::Codes(codes));
            }
        }
        Ok(())
    }

    /// A weight in few bits made whole, for a product of cuBLASLt: its symbolic address.
    fn dequantized(
        &mut self,
        id: NodeId,
        [codes, scales]: [u64; 2],
        scheme: i32,
        [rows, k]: [usize; 2],
    ) -> Result<u64, PlanError> {
        let out = self.fresh(Element::Model, &[rows, k]).address(self.dtype);
        let (rows, k) = (self.count(id, rows)?, self.count(id, k)?);
        let arguments = DequantizeArguments { codes, scales, out, rows, k, scheme, unused: 0 };
        self.step(id, Call::Dequantize(arguments));
        Ok(out)
    }

    fn out_rows(&self, id: NodeId, out: &View) -> Result<Rows, PlanError> {
        out.rows(self.dtype).ok_or_else(|| self.demand.error(id, "the result's rows are scattered"))
    }

    /// A product through cuBLASLt, whose matrices have one stride each.
    fn wide_product(
        &mut self,
        id: NodeId,
        product: &Product,
        weight: Whole,
        [m, n, k]: [usize; 3],
    ) -> Result<(), PlanError> {
        let x = self.matrix(id, &product.x)?;
        let residual = match &product.residual {
            Some(residual) => Some(self.matrix(id, residual)?),
            None => None,
        };
        let direct = matrix_stride(&product.out).is_some();
        let out =
            if direct { product.out.clone() } else { self.fresh(product.out.element, &product.out.dims) };
        let call = MatMul {
            m,
            n,
            k,
            dtype: self.dtype,
            out_dtype: if out.element == Element::Float { Dtype::F32 } else { self.dtype },
            x: x.address(self.dtype),
            x_stride: matrix_stride(&x).unwrap_or(k),
            weight: weight.address,
            bias: product.bias,
            residual: residual.as_ref().map_or(0, |view| view.address(self.dtype)),
            residual_stride: residual.as_ref().and_then(matrix_stride).unwrap_or(0),
            out: out.address(self.dtype),
            out_stride: matrix_stride(&out).unwrap_or(n),
        };
        self.step_with(id, Call::MatMul(call), weight.dtype);
        if !direct {
            self.copy(id, &out, &product.out)?;
        }
        Ok(())
    }

    fn matrix(&mut self, id: NodeId, view: &View) -> Result<View, PlanError> {
        if matrix_stride(view).is_some() {
            return Ok(view.clone());
        }
        let copy = self.fresh(view.element, &view.dims);
        self.copy(id, view, &copy)?;
        Ok(copy)
    }

    pub(super) fn norm(&mut self, id: NodeId, operands: &[NodeId], eps: f64) -> Result<(), PlanError> {
        let x = self.value(operands[0])?;
        let out = self.target(id);
        let absent = Rows { split: 1, ..Rows::default() };
        let arguments = NormArguments {
            x: self.rows(id, &x)?,
            residual: absent,
            sum: absent,
            out: self.out_rows(id, &out)?,
            weight: self.weight(id, operands[1])?,
            rows: self.count(id, self.demand.rows(id))?,
            width: self.count(id, self.width(id))?,
            eps: narrow(eps),
            unused: 0,
        };
        self.step(id, Call::Norm(arguments));
        self.values.insert(id, out);
        Ok(())
    }

    pub(super) fn swiglu(&mut self, id: NodeId, operands: &[NodeId]) -> Result<(), PlanError> {
        let (gate, up) = (self.value(operands[0])?, self.value(operands[1])?);
        let out = self.target(id);
        let arguments = SwigluArguments {
            gate: self.rows(id, &gate)?,
            up: self.rows(id, &up)?,
            out: self.out_rows(id, &out)?,
            rows: self.count(id, self.demand.rows(id))?,
            width: self.count(id, self.width(id))?,
        };
        self.step(id, Call::Swiglu(arguments));
        self.values.insert(id, out);
        Ok(())
    }
}

/// Elements from one row to the next, where one stride serves all rows.
fn matrix_stride(view: &View) -> Option<usize> {
    let width = view.dims.last().copied()?;
    if width > 1 && view.strides.last() != Some(&1) {
        return None;
    }
    let lead = view.dims.len() - 1;
    let leading =
        View { dims: view.dims[..lead].to_vec(), strides: view.strides[..lead].to_vec(), ..view.clone() };
    match leading.runs().as_slice() {
        [] => Some(width),
        [(_, stride)] => usize::try_from(*stride).ok(),
        _ => None,
    }
}
