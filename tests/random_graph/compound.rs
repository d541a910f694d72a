//! Operations whose operands must fit each other in several ways, grown together with them.

use super::Grower;
use photonc::graph::NodeId;
use photonc::ir::attr::{BinaryFn, Mask, Reach, Real, Role, Scores};
use photonc::ir::dim::Dim;
use photonc::ir::dtype::Dtype;
use photonc::ir::op::Op;
use photonc::ir::shape::{Shape, Type};

const HEADS: usize = 2;
const WIDTH: usize = 2;

impl Grower {
    /// `[B, heads, n, d]` of f32, there or fresh.
    fn heads(&mut self, n: u16) -> NodeId {
        let fits = |id: NodeId| {
            let ty = self.ty(id);
            ty.dtype == Dtype::F32
                && ty.shape.rank() == 4
                && [1, 2, 3].iter().all(|axis| ty.shape.0[*axis].as_const().is_some())
                && ty.shape.0[3].as_const() == Some(WIDTH)
                && ty.shape.0[1].as_const() == Some(HEADS)
        };
        match self.pick(n, fits) {
            Some(id) if !n.is_multiple_of(4) => id,
            _ => self.input(["batch, 2, 3, 2", "batch, 2, 1, 2", "batch, 2, 2, 2"][usize::from(n) % 3]),
        }
    }

    pub(super) fn rope(&mut self, n: &[u16; 4]) -> Option<()> {
        let x = self.heads(n[0]);
        let dims = self.dims(x);
        let rows = [dims[0].clone(), dims[2].clone()];
        let fits = |id: NodeId| {
            let ty = self.ty(id);
            ty.dtype == Dtype::I64 && (ty.shape.0 == rows[1..] || ty.shape.0 == rows)
        };
        let positions = match self.pick(n[1], fits) {
            Some(positions) => positions,
            None => {
                let shape = if n[2].is_multiple_of(2) { rows.to_vec() } else { rows[1..].to_vec() };
                self.input_of(Type::new(Dtype::I64, Shape(shape)))
            }
        };
        self.add(Op::Rope { theta: Real::from(10000.0) }, &[x, positions]).map(|_| ())
    }

    /// Causal: as many keys as queries, or more.
    pub(super) fn attention(&mut self, n: &[u16; 4]) -> Option<()> {
        let q = self.heads(n[0]);
        let dims = self.dims(q);
        let queries = dims[2].as_const()?;
        let fits = |id: NodeId| {
            let ty = self.ty(id);
            ty.dtype == Dtype::F32
                && ty.shape.rank() == 4
                && ty.shape.0[0] == dims[0]
                && ty.shape.0[3] == dims[3]
                && ty.shape.0[1].as_const().is_some_and(|groups| HEADS.is_multiple_of(groups))
                && ty.shape.0[2].as_const().is_some_and(|keys| keys >= queries)
        };
        let k = self.pick(n[1], fits)?;
        let v = self.pick(n[2], |id| self.ty(id) == self.ty(k))?;
        let reach = Reach::window(n[3].is_multiple_of(3).then_some(1 + usize::from(n[2]) % 3));
        let op = Op::Attention { scale: Real::from(0.5), mask: Mask::Causal, reach };
        let attended = self.add(op, &[q, k, v])?;
        if n[3].is_multiple_of(2) {
            // Some of the queries, as in the last layer of a window.
            let start = usize::from(n[1]) % queries;
            let len = 1 + usize::from(n[2]) % (queries - start);
            self.add(Op::Slice { axis: 2, start, len, from_end: false }, &[attended])?;
            self.hide(attended);
        }
        Some(())
    }

    /// Keys and values of a step appended to caches, which are state, and read by the step's queries.
    pub(super) fn cached_attention(&mut self, n: &[u16; 4]) -> Option<()> {
        let new = 1 + usize::from(n[0]) % 2;
        let shape = |slots: Dim| {
            let ends = [Dim::from(2usize), slots, Dim::from(WIDTH)];
            let batch = Dim::parse("batch").into_iter();
            Type::new(Dtype::F32, Shape(batch.chain(ends).collect()))
        };
        let lengths = match self.pick(n[1], |id| {
            self.bounds.get(&id).is_some_and(|bound| *bound <= 2) && self.ty(id).to_string() == "i64[batch]"
        }) {
            Some(lengths) => lengths,
            None => self.input_of(Type::parse("i64[batch]")?),
        };
        let mut appended = Vec::new();
        for kind in ["key", "value"] {
            let (name, scope) = (self.name(kind), self.scope.clone());
            let cache = self.graph.add_delay(&name, shape(Dim::parse("2*capacity")?), &scope);
            let fresh = shape(Dim::from(new));
            let slice = match self.pick(n[2], |id| *self.ty(id) == fresh) {
                Some(slice) => slice,
                None => self.input_of(fresh),
            };
            let next = self.add(Op::CacheAppend, &[cache, slice, lengths])?;
            self.graph.set_next(cache, next).ok()?;
            appended.push(next);
        }
        let fresh = shape(Dim::from(new));
        let q = match self.pick(n[0], |id| *self.ty(id) == fresh) {
            Some(q) => q,
            None => self.input_of(fresh),
        };
        let op = Op::Attention { scale: Real::from(0.7), mask: Mask::Cache, reach: Reach::ALL };
        self.add(op, &[q, appended[0], appended[1], lengths]).map(|_| ())
    }

    /// Queries, keys and values of one vector `[B, n, width]`, split into heads.
    pub(super) fn projections(&mut self, n: &[u16; 4]) -> Option<()> {
        let rank3 = |id: NodeId| {
            let shape = &self.ty(id).shape.0;
            self.ty(id).dtype == Dtype::F32
                && shape.len() == 3
                && shape[1].as_const().is_some()
                && shape[2].as_const().is_some()
        };
        let x = match self.pick(n[0], rank3) {
            Some(x) => x,
            None => self.input("batch, 2, 4"),
        };
        let dims = self.dims(x);
        for (at, heads) in [HEADS, 1, 1 + usize::from(n[1]) % 2].into_iter().enumerate() {
            let rows = Dim::from(heads * WIDTH);
            let w = self.weight(Dtype::F32, vec![rows, dims[2].clone()], n[2].wrapping_add(at as u16 % 2))?;
            let product = self.add(Op::Linear, &[x, w])?;
            let split = Shape(vec![dims[0].clone(), dims[1].clone(), heads.into(), WIDTH.into()]);
            let split = self.add(Op::Reshape { shape: split }, &[product])?;
            self.hide(product);
            if !n[1].is_multiple_of(5) {
                self.add(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[split])?;
                self.hide(split);
            }
        }
        Some(())
    }

    /// Gate and up of one vector, sometimes with one of them in sight of others.
    pub(super) fn gated(&mut self, n: &[u16; 4]) -> Option<()> {
        let (x, width) = self.vector(n[0])?;
        let dtype = self.ty(x).dtype;
        let mut maps = Vec::new();
        for at in 0..2 {
            let w = self.weight(dtype, vec![4.into(), width.into()], n[2].wrapping_add(at))?;
            maps.push(self.add(Op::Linear, &[x, w])?);
        }
        self.add(Op::SwiGlu, &maps)?;
        let hidden = if n[1].is_multiple_of(5) { 1 } else { 2 };
        for map in maps.into_iter().take(hidden) {
            self.hide(map);
        }
        Some(())
    }

    /// A choice of experts for every row, and what they make of it.
    pub(super) fn routed(&mut self, n: &[u16; 4]) -> Option<()> {
        let (x, width) = self.vector(n[0])?;
        let dtype = self.ty(x).dtype;
        let w = self.weight(dtype, vec![4.into(), width.into()], n[2])?;
        let mut operands = vec![self.add(Op::Linear, &[x, w])?];
        if n[1].is_multiple_of(3) {
            operands.push(self.weight(dtype, vec![4.into()], n[2])?);
        }
        let (groups, top_k) = (1 + usize::from(n[1]) % 2, 1 + usize::from(n[2]) % 2);
        let scores = if n[3].is_multiple_of(2) { Scores::Sigmoid } else { Scores::Softmax };
        let normalize = n[2].is_multiple_of(3);
        let route = Op::Route { scores, top_k, groups, kept_groups: 1, normalize, factor: Real::from(2.0) };
        let gates = self.add(route, &operands)?;
        let up = self.weight(dtype, vec![4.into(), width.into(), 4.into()], n[2])?;
        let down = self.weight(dtype, vec![4.into(), 2.into(), width.into()], n[2])?;
        self.add(Op::Experts { top_k }, &[x, gates, up, down]).map(|_| ())
    }

    /// A value plus a map of it, of one or of any number of axes, or the map that starts from the value.
    pub(super) fn residual(&mut self, n: &[u16; 4]) -> Option<()> {
        let rows = |id: NodeId| {
            self.is_float(id) && self.dims(id).last().is_some_and(|dim| dim.as_const().is_some())
        };
        let x = match self.pick(n[0], rows) {
            Some(x) => x,
            None => self.input("batch, 4"),
        };
        let width = self.dims(x).last()?.clone();
        let w = self.weight(self.ty(x).dtype, vec![width.clone(), width], n[2])?;
        if n[1].is_multiple_of(3) {
            return self.add(Op::Linear, &[x, w, x]).map(|_| ());
        }
        let mapped = self.add(Op::Linear, &[x, w])?;
        let operands = if n[1].is_multiple_of(2) { [x, mapped] } else { [mapped, x] };
        self.add(Op::Binary { function: BinaryFn::Add }, &operands)?;
        self.hide(mapped);
        Some(())
    }

    /// Rows stacked along a new axis, as the elements of a window are.
    pub(super) fn stacked(&mut self, n: &[u16; 4]) -> Option<()> {
        let rows = |id: NodeId| self.is_float(id) && self.dims(id).len() == 2;
        let x = match self.pick(n[0], rows) {
            Some(x) => x,
            None => self.input("batch, 4"),
        };
        let other = self.pick(n[1], |id| self.ty(id) == self.ty(x))?;
        let dims = self.dims(x);
        let shape = Shape(vec![dims[0].clone(), 1.into(), dims[1].clone()]);
        let [first, second] = [x, other].map(|part| self.add(Op::Reshape { shape: shape.clone() }, &[part]));
        self.add(Op::Concat { axis: 1 }, &[first?, second?]).map(|_| ())
    }

    /// One position of several: the rest is work that nobody reads.
    pub(super) fn window(&mut self, n: &[u16; 4]) -> Option<()> {
        let positions = |id: NodeId| {
            let shape = &self.ty(id).shape.0;
            self.is_float(id) && shape.len() > 2 && shape[1].as_const().is_some_and(|size| size > 1)
        };
        let x = match self.pick(n[0], positions) {
            Some(x) => x,
            None => self.input("batch, 2, 4"),
        };
        let width = self.dims(x).last()?.as_const()?;
        let w = self.weight(self.ty(x).dtype, vec![4.into(), width.into()], n[2])?;
        let mapped = self.add(Op::Linear, &[x, w])?;
        let size = self.dims(mapped)[1].as_const()?;
        let start = usize::from(n[1]) % size;
        self.add(Op::Slice { axis: 1, start, len: 1, from_end: false }, &[mapped])?;
        self.hide(mapped);
        Some(())
    }

    /// Ids drawn from logits, with parameters of their own: their values must be lawful.
    pub(super) fn sample(&mut self, n: &[u16; 4]) -> Option<()> {
        let rank3 = |id: NodeId| {
            let shape = &self.ty(id).shape.0;
            self.ty(id).dtype == Dtype::F32
                && shape.len() == 3
                && shape[0].divided_by(&Dim::parse("batch").unwrap_or_default()).is_some()
                && shape[2].as_const().is_some_and(|vocab| vocab > 0)
        };
        let logits = match self.pick(n[0], rank3) {
            Some(logits) => logits,
            None => self.input("batch, 2, 4"),
        };
        let dims = self.dims(logits);
        let vocab = dims[2].as_const()?;
        let mut parameter = |ty: Type| {
            let op = Op::Input { name: self.name("p"), ty, role: Role::Invariant };
            // Not among the values: another reader would make no difference, but its type would be taken for data.
            self.graph.add(op, &[], &self.scope).ok()
        };
        let rows = Type::new(Dtype::F32, Shape(dims[..2].to_vec()));
        let operands = [
            logits,
            parameter(rows)?,
            parameter(Type::parse("f32[batch]")?)?,
            parameter(Type::parse("i64[batch]")?)?,
            parameter(Type::parse("f32[batch]")?)?,
        ];
        let candidates = 1 + usize::from(n[1]) % vocab;
        let ids = self.add(Op::Sample { candidates }, &operands)?;
        self.bounds.insert(ids, vocab);
        Some(())
    }
}
