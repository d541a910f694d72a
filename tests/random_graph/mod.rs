//! Random well-typed graphs over the whole operation table: symbols, delays, caches, windows, attention, sampling.
//!
//! A graph is grown from a list of choices, each a kind and four numbers, so that shrinking the list shrinks the graph. A
//! choice that fits nothing grown so far adds nothing.

mod compound;

use photonc::graph::{Graph, NodeId, Scope};
use photonc::ir::attr::{BinaryFn, CompareFn, Real, Role, Scheme, UnaryFn};
use photonc::ir::dim::{Bindings, Dim, Symbol};
use photonc::ir::dtype::Dtype;
use photonc::ir::op::Op;
use photonc::ir::shape::{Shape, Type};
use photonc::ir::tensor::Literal;
use proptest::prelude::{Strategy, any};
use std::collections::HashMap;

/// A kind of growth and what it picks.
pub type Choice = (u8, [u16; 4]);

/// What a graph is grown from.
#[derive(Clone, Debug)]
pub struct Recipe {
    pub choices: Vec<Choice>,
    /// Places of the outputs among the values, from the newest.
    pub outputs: Vec<u16>,
    /// Places of the next states of delays.
    pub next: Vec<u16>,
}

pub fn recipes() -> impl Strategy<Value = Recipe> {
    let choices = proptest::collection::vec(any::<Choice>(), 1..40);
    let picks = || proptest::collection::vec(any::<u16>(), 1..5);
    (choices, picks(), picks()).prop_map(|(choices, outputs, next)| Recipe { choices, outputs, next })
}

/// Types of fresh floats.
const TYPES: [&str; 12] = [
    "batch, 4",
    "batch, 2, 4",
    "batch*meta, 4",
    "batch, meta, 4",
    "2, 3",
    "batch, 1, 4",
    "4",
    "batch, 3, 2, 2",
    "batch, 2, 3, 2",
    "2*batch, 4",
    "",
    "batch, 4, 1, 2",
];

const SCOPES: [&str; 4] = ["", "level1", "level1.encoder.layer0", "level2.decoder"];

/// Sizes of the symbols where graphs are run; what gathers may read follows from them.
pub fn sizes() -> Bindings {
    let mut bindings = Bindings::default();
    for (symbol, size) in Symbol::ALL.into_iter().zip([2, 3, 2]) {
        bindings.bind(symbol, size);
    }
    bindings
}

/// A graph that grows.
pub struct Grower {
    graph: Graph,
    values: Vec<NodeId>,
    /// Integers known to be in `0..bound`.
    bounds: HashMap<NodeId, usize>,
    scope: Scope,
    names: usize,
}

impl Recipe {
    pub fn graph(&self) -> Graph {
        let mut grower = Grower {
            graph: Graph::new("random"),
            values: Vec::new(),
            bounds: HashMap::new(),
            scope: Scope::new(""),
            names: 0,
        };
        grower.input("batch, 4");
        for choice in &self.choices {
            grower.grow(choice);
        }
        grower.finish(self)
    }
}

impl Grower {
    fn finish(mut self, recipe: &Recipe) -> Graph {
        for (at, delay) in self.graph.delays().into_iter().enumerate() {
            if self.graph.operands(delay).is_empty() {
                let fitting: Vec<NodeId> =
                    self.values.iter().copied().filter(|id| self.ty(*id) == self.ty(delay)).collect();
                let pick = usize::from(recipe.next[at % recipe.next.len()]);
                self.graph.set_next(delay, fitting[pick % fitting.len()]).expect("types agree");
            }
        }
        for (index, pick) in recipe.outputs.iter().enumerate() {
            let place = self.values.len() - 1 - usize::from(*pick) % self.values.len();
            self.graph.set_output(&format!("y{index}"), self.values[place]);
        }
        self.graph
    }

    fn ty(&self, id: NodeId) -> &Type {
        self.graph.ty(id)
    }

    fn dims(&self, id: NodeId) -> Vec<Dim> {
        self.ty(id).shape.0.clone()
    }

    fn is_float(&self, id: NodeId) -> bool {
        self.ty(id).dtype.is_float()
    }

    /// A value that satisfies `test`.
    fn pick(&self, n: u16, test: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let fitting: Vec<NodeId> = self.values.iter().copied().filter(|id| test(*id)).collect();
        (!fitting.is_empty()).then(|| fitting[usize::from(n) % fitting.len()])
    }

    fn name(&mut self, kind: &str) -> std::sync::Arc<str> {
        self.names += 1;
        format!("{kind}{}", self.names).into()
    }

    /// Adds an operation, if it types.
    fn add(&mut self, op: Op, operands: &[NodeId]) -> Option<NodeId> {
        let id = self.graph.add(op, operands, &self.scope).ok()?;
        self.values.push(id);
        Some(id)
    }

    /// Keeps what is grown later from reading a value: many rules fire only where it has one reader.
    fn hide(&mut self, id: NodeId) {
        self.values.retain(|value| *value != id);
    }

    /// Integers of `of` in other places.
    fn rearrange(&mut self, op: Op, of: NodeId) -> Option<NodeId> {
        let id = self.add(op, &[of])?;
        if let Some(bound) = self.bounds.get(&of) {
            self.bounds.insert(id, *bound);
        }
        Some(id)
    }

    fn input(&mut self, shape: &str) -> NodeId {
        self.input_of(Type::new(Dtype::F32, Shape::parse(shape).expect("parses")))
    }

    fn input_of(&mut self, ty: Type) -> NodeId {
        let ints = ty.dtype == Dtype::I64;
        let op = Op::Input { name: self.name("x"), ty, role: Role::PerStep };
        let id = self.add(op, &[]).expect("leaves type");
        if ints {
            self.bounds.insert(id, 2);
        }
        id
    }

    /// One of two weights of this shape.
    fn weight(&mut self, dtype: Dtype, shape: Vec<Dim>, n: u16) -> Option<NodeId> {
        let shape = Shape(shape);
        shape.as_const()?;
        let name = format!("w{}.{}", n % 2, shape.to_string().replace([' ', '[', ']'], "").replace(',', "x"));
        let name = format!("{name}.{dtype}");
        let op = Op::Weight { name: name.into(), ty: Type::new(dtype, shape) };
        self.add(op, &[])
    }

    /// A matrix once more, in few bits.
    fn coded(&mut self, weight: NodeId) -> Option<NodeId> {
        let Op::Weight { name, ty } = self.graph.op(weight).clone() else { return None };
        let op = Op::QuantizedWeight { name, ty, scheme: Scheme::Int8 };
        self.add(op, &[])
    }

    fn grow(&mut self, (kind, n): &Choice) {
        self.scope = Scope::new(SCOPES[usize::from(n[3]) % SCOPES.len()]);
        let before = self.values.len();
        let grown = match kind % 34 {
            0 => {
                self.input(TYPES[usize::from(n[0]) % TYPES.len()]);
                Some(())
            }
            1 => self.leaf(n),
            2 => self.delay(n),
            3 => self.unary(n),
            4 | 5 => self.binary(n),
            6 => self.choose_elementwise(n),
            7..=10 => self.reshape(n),
            11..=13 => self.transpose(n),
            14 => self.concat(n),
            15..=17 => self.slice(n),
            18 => self.indices(n),
            19 => self.gather(n),
            20 => self.linear(n),
            21 => self.norm(n),
            22 => self.rope(n),
            23 => self.attention(n),
            24 => self.cached_attention(n),
            25 => self.projections(n),
            26 => self.swiglu(n),
            27 => self.shift(n),
            28 => self.sample(n),
            29 => self.switch(n),
            30 => self.window(n),
            31 => self.residual(n),
            32 => self.routed(n),
            _ => self.stacked(n),
        };
        if grown.is_some() && n[3].is_multiple_of(7) && self.values.len() > before {
            let (id, label) = (self.values[self.values.len() - 1], self.name("label."));
            self.graph.set_label(id, &label);
        }
    }

    fn leaf(&mut self, n: &[u16; 4]) -> Option<()> {
        match n[0] % 5 {
            0 => {
                let shape = ["batch", "batch, 2", "3", "2, 2"][usize::from(n[1]) % 4];
                self.input_of(Type::new(Dtype::I64, Shape::parse(shape)?));
            }
            1 => {
                let values: Vec<i64> = (0..3).map(|at| i64::from(n[1] >> (4 * at) & 3)).collect();
                let id = self.add(Op::Const { value: Literal::ints(&[3], &values)? }, &[])?;
                self.bounds.insert(id, 4);
            }
            2 => {
                let values: Vec<f64> =
                    (0..4).map(|at| f64::from(n[1] >> (4 * at) & 15) / 4.0 - 1.0).collect();
                self.add(Op::Const { value: Literal::floats(Dtype::F32, &[4], &values)? }, &[])?;
            }
            3 => {
                let op = Op::Const {
                    value: Literal::bools(
                        &[4],
                        &[true, n[1].is_multiple_of(2), n[1].is_multiple_of(3), false],
                    )?,
                };
                self.add(op, &[])?;
            }
            _ => {
                let shape = [vec![Dim::from(4)], vec![2.into(), 4.into()]][usize::from(n[1]) % 2].clone();
                let weight = self.weight(Dtype::F32, shape, n[2])?;
                if n[1].is_multiple_of(3) {
                    self.coded(weight)?;
                }
            }
        }
        Some(())
    }

    /// State of any type there is, or a count of steps.
    fn delay(&mut self, n: &[u16; 4]) -> Option<()> {
        let name = self.name("s");
        if n[0].is_multiple_of(3) {
            let ty = Type::parse("i64[batch]")?;
            let counter = self.graph.add_delay(&name, ty, &self.scope.clone());
            self.values.push(counter);
            let one = self.add(Op::Const { value: Literal::ints(&[1], &[1])? }, &[])?;
            let next = self.add(Op::Binary { function: BinaryFn::Add }, &[counter, one])?;
            self.graph.set_next(counter, next).ok()?;
            return Some(());
        }
        let like = self.pick(n[1], |_| true)?;
        let (ty, scope) = (self.ty(like).clone(), self.scope.clone());
        let delay = self.graph.add_delay(&name, ty, &scope);
        self.values.push(delay);
        Some(())
    }

    fn unary(&mut self, n: &[u16; 4]) -> Option<()> {
        let x = self.pick(n[0], |id| self.is_float(id))?;
        if n[1].is_multiple_of(4) {
            let dtype = [Dtype::F16, Dtype::Bf16, Dtype::F32][usize::from(n[2]) % 3];
            return self.add(Op::Cast { dtype }, &[x]).map(|_| ());
        }
        let function = UnaryFn::ALL[usize::from(n[1]) % UnaryFn::ALL.len()];
        self.add(Op::Unary { function }, &[x]).map(|_| ())
    }

    fn pair(&self, n: &[u16; 4]) -> Option<(NodeId, NodeId)> {
        let x = self.pick(n[0], |id| self.ty(id).dtype != Dtype::Bool)?;
        let fits = |id: NodeId| {
            self.ty(id).dtype == self.ty(x).dtype && self.ty(id).shape.broadcast(&self.ty(x).shape).is_some()
        };
        Some((x, self.pick(n[1], fits)?))
    }

    fn binary(&mut self, n: &[u16; 4]) -> Option<()> {
        let (x, y) = self.pair(n)?;
        let function = BinaryFn::ALL[usize::from(n[2]) % BinaryFn::ALL.len()];
        let id = self.add(Op::Binary { function }, &[x, y])?;
        let (a, b) = (*self.bounds.get(&x)?, *self.bounds.get(&y)?);
        let bound = match function {
            BinaryFn::Add => a + b,
            BinaryFn::Mul => a.saturating_mul(b),
            BinaryFn::Max => a.max(b),
            BinaryFn::Min => a.min(b),
            BinaryFn::Sub => return Some(()),
        };
        self.bounds.insert(id, bound);
        Some(())
    }

    fn choose_elementwise(&mut self, n: &[u16; 4]) -> Option<()> {
        let (x, y) = self.pair(n)?;
        let function = CompareFn::ALL[usize::from(n[2]) % CompareFn::ALL.len()];
        let fresh = self.add(Op::Compare { function }, &[x, y])?;
        let condition = self.pick(n[2], |id| self.ty(id).dtype == Dtype::Bool).unwrap_or(fresh);
        let id = self.add(Op::Where, &[condition, x, y])?;
        let bound = self.bounds.get(&x).zip(self.bounds.get(&y)).map(|(a, b)| *a.max(b));
        self.bounds.extend(bound.map(|bound| (id, bound)));
        Some(())
    }

    /// Two axes joined, one divided, one of size one more or less, or back to a shape with as many elements.
    fn reshape(&mut self, n: &[u16; 4]) -> Option<()> {
        let x = self.pick(n[0], |_| true)?;
        let mut dims = self.dims(x);
        let axis = usize::from(n[2]) % dims.len().max(1);
        match n[1] % 5 {
            0 if axis + 1 < dims.len() => {
                let joined = dims[axis].times(&dims[axis + 1]);
                dims.splice(axis..axis + 2, [joined]);
            }
            1 if axis < dims.len() => {
                let half = dims[axis].divided_by(&Dim::from(2))?;
                dims.splice(axis..=axis, [half, Dim::from(2)]);
            }
            2 => dims.insert(usize::from(n[2]) % (dims.len() + 1), Dim::from(1)),
            3 => {
                let unit = dims.iter().position(|dim| dim.as_const() == Some(1))?;
                dims.remove(unit);
            }
            _ => {
                let elements = self.ty(x).shape.elements();
                dims = self.dims(self.pick(n[2], |id| self.ty(id).shape.elements() == elements)?);
            }
        }
        self.rearrange(Op::Reshape { shape: Shape(dims) }, x).map(|_| ())
    }

    fn transpose(&mut self, n: &[u16; 4]) -> Option<()> {
        let x = self.pick(n[0], |id| self.ty(id).shape.rank() > 1)?;
        let rank = self.ty(x).shape.rank();
        let mut perm: Vec<usize> = (0..rank).collect();
        perm.swap(usize::from(n[1]) % rank, usize::from(n[2]) % rank);
        self.rearrange(Op::Transpose { perm }, x).map(|_| ())
    }

    fn concat(&mut self, n: &[u16; 4]) -> Option<()> {
        let x = self.pick(n[0], |id| self.ty(id).shape.rank() > 0)?;
        let axis = usize::from(n[1]) % self.ty(x).shape.rank();
        let rest = |id: NodeId| {
            let mut dims = self.dims(id);
            (axis < dims.len()).then(|| {
                dims.remove(axis);
                (self.ty(id).dtype, dims)
            })
        };
        let wanted = rest(x);
        let parts: Vec<NodeId> = (0..1 + n[2] % 3)
            .filter_map(|k| self.pick(n[2].rotate_left(u32::from(k)), |id| rest(id) == wanted))
            .collect();
        let id = self.add(Op::Concat { axis }, &parts)?;
        let bounds: Option<Vec<usize>> = parts.iter().map(|part| self.bounds.get(part).copied()).collect();
        self.bounds.extend(bounds.and_then(|bounds| bounds.into_iter().max()).map(|bound| (id, bound)));
        Some(())
    }

    fn slice(&mut self, n: &[u16; 4]) -> Option<()> {
        let x = self.pick(n[0], |id| self.ty(id).shape.rank() > 0)?;
        let axis = usize::from(n[1]) % self.ty(x).shape.rank();
        let from_end = n[2].is_multiple_of(4);
        let (start, len) = match self.ty(x).shape.0[axis].as_const() {
            Some(0) => return None,
            Some(size) => {
                let len = 1 + usize::from(n[2] >> 4) % size;
                let before = usize::from(n[2] >> 8) % (size - len + 1);
                (if from_end { size - before } else { before }, len)
            }
            None => (usize::from(from_end), 1),
        };
        self.rearrange(Op::Slice { axis, start, len, from_end }, x).map(|_| ())
    }

    fn indices(&mut self, n: &[u16; 4]) -> Option<()> {
        let x = self.pick(n[0], |id| self.ty(id).shape.rank() > 0)?;
        let axis = usize::from(n[1]) % self.ty(x).shape.rank();
        let bound = self.ty(x).shape.0[axis].eval(&sizes())?;
        let id = self.add(Op::Iota { axis }, &[x])?;
        self.bounds.insert(id, bound);
        Some(())
    }

    fn gather(&mut self, n: &[u16; 4]) -> Option<()> {
        let below = |limit: usize| move |bound: Option<&usize>| bound.is_some_and(|bound| *bound <= limit);
        if n[1].is_multiple_of(2) {
            let rows = 3 + usize::from(n[1]) % 4;
            let ids = self.pick(n[0], |id| below(rows)(self.bounds.get(&id)))?;
            let table = self.weight(Dtype::F32, vec![rows.into(), 4.into()], n[2])?;
            return self.add(Op::Gather, &[table, ids]).map(|_| ());
        }
        let x = self.pick(n[0], |id| self.ty(id).shape.rank() == 3)?;
        let dims = self.dims(x);
        let rows = dims[1].eval(&sizes())?;
        let fits = |id: NodeId| {
            let shape = &self.ty(id).shape.0;
            shape.len() == 2 && shape[0] == dims[0] && below(rows)(self.bounds.get(&id))
        };
        let index = self.pick(n[2], fits)?;
        self.add(Op::GatherRows, &[x, index]).map(|_| ())
    }

    /// A float whose last axis has a known size.
    fn vector(&self, n: u16) -> Option<(NodeId, usize)> {
        let last = |id: NodeId| self.ty(id).shape.0.last().and_then(Dim::as_const);
        let x = self.pick(n, |id| self.is_float(id) && last(id).is_some())?;
        Some((x, last(x)?))
    }

    fn linear(&mut self, n: &[u16; 4]) -> Option<()> {
        let (x, width) = self.vector(n[0])?;
        let dtype = self.ty(x).dtype;
        let out = [1usize, 2, 4, 8][usize::from(n[1]) % 4];
        let w = self.weight(dtype, vec![out.into(), width.into()], n[2])?;
        let mut operands = vec![x, w];
        if n[1].is_multiple_of(3) {
            operands.push(self.weight(dtype, vec![out.into()], n[2])?);
        }
        self.add(Op::Linear, &operands).map(|_| ())
    }

    fn norm(&mut self, n: &[u16; 4]) -> Option<()> {
        let (x, width) = self.vector(n[0])?;
        let w = self.weight(self.ty(x).dtype, vec![width.into()], n[2])?;
        self.add(Op::RmsNorm { eps: Real::from(1e-5) }, &[x, w]).map(|_| ())
    }

    /// A value by one protocol or another.
    fn switch(&mut self, n: &[u16; 4]) -> Option<()> {
        let x = self.pick(n[0], |_| true)?;
        let y = self.pick(n[1], |id| self.ty(id) == self.ty(x))?;
        self.add(Op::ProtocolSwitch, &[x, y]).map(|_| ())
    }

    fn swiglu(&mut self, n: &[u16; 4]) -> Option<()> {
        if n[1].is_multiple_of(2) {
            return self.gated(n);
        }
        let x = self.pick(n[0], |id| self.is_float(id))?;
        let y = self.pick(n[1], |id| self.ty(id) == self.ty(x))?;
        self.add(Op::SwiGlu, &[x, y]).map(|_| ())
    }

    fn shift(&mut self, n: &[u16; 4]) -> Option<()> {
        let x = self.pick(n[0], |id| self.is_float(id) && self.ty(id).shape.rank() > 1)?;
        let mut ty = self.ty(x).clone();
        ty.shape.0[1] = Dim::from(1);
        let init = match self.pick(n[1], |id| *self.ty(id) == ty) {
            Some(init) => init,
            None => self.input_of(ty),
        };
        self.add(Op::Shift, &[x, init]).map(|_| ())
    }
}
