//! The builder's vocabulary: one short method per operation it emits. Owns weight names and symbolic sizes; refuses
//! to know any equation.

use crate::model::config::ModelConfig;
use photonc_graph::graph::{BuildError, Graph, NodeId, Scope};
use photonc_graph::ir::attr::{BinaryFn, CompareFn, Real, Role, UnaryFn};
use photonc_graph::ir::dim::{Dim, Symbol};
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::infer::InferError;
use photonc_graph::ir::op::Op;
use photonc_graph::ir::shape::{Shape, Type};
use photonc_graph::ir::tensor::Literal;

pub(super) type Built = Result<NodeId, BuildError>;

/// A graph under construction for one model.
pub(super) struct Builder<'c> {
    pub graph: Graph,
    pub config: &'c ModelConfig,
    pub dtype: Dtype,
}

/// `factor * batch`.
pub(super) fn batch(factor: usize) -> Dim {
    Dim::from(factor).times(&Symbol::Batch.into())
}

/// `factor * meta`.
pub(super) fn meta(factor: usize) -> Dim {
    Dim::from(factor).times(&Symbol::Meta.into())
}

/// `factor * batch * meta`.
pub(super) fn batch_meta(factor: usize) -> Dim {
    batch(factor).times(&Symbol::Meta.into())
}

impl<'c> Builder<'c> {
    pub fn new(name: &str, config: &'c ModelConfig, dtype: Dtype) -> Self {
        Builder { graph: Graph::new(name), config, dtype }
    }

    pub fn input(&mut self, name: &str, dtype: Dtype, dims: &[Dim], role: Role, scope: &Scope) -> Built {
        let ty = Type::new(dtype, dims.iter().cloned().collect());
        self.graph.add(Op::Input { name: name.into(), ty, role }, &[], scope)
    }

    pub fn delay(&mut self, name: &str, dtype: Dtype, dims: &[Dim], scope: &Scope) -> NodeId {
        self.graph.add_delay(name, Type::new(dtype, dims.iter().cloned().collect()), scope)
    }

    pub fn weight(&mut self, name: &str, sizes: &[usize], scope: &Scope) -> Built {
        let ty = Type::new(self.dtype, Shape::of(sizes));
        self.graph.add(Op::Weight { name: name.into(), ty }, &[], scope)
    }

    pub fn ints(&mut self, sizes: &[usize], values: &[i64], scope: &Scope) -> Built {
        let value = Literal::ints(sizes, values).ok_or_else(|| BuildError {
            scope: scope.to_string(),
            op: "const",
            source: InferError(format!("{} values for shape {sizes:?}", values.len())),
        })?;
        self.graph.add(Op::Const { value }, &[], scope)
    }

    /// Positions `start .. start + count` as i64 `[count]`.
    pub fn positions(&mut self, start: usize, count: usize, scope: &Scope) -> Built {
        let values: Vec<i64> = (start..start + count).map(|position| position as i64).collect();
        self.ints(&[count], &values, scope)
    }

    pub fn reshape(&mut self, x: NodeId, dims: &[Dim], scope: &Scope) -> Built {
        let shape: Shape = dims.iter().cloned().collect();
        if shape == self.graph.ty(x).shape {
            return Ok(x);
        }
        self.graph.add(Op::Reshape { shape }, &[x], scope)
    }

    pub fn transpose(&mut self, x: NodeId, perm: &[usize], scope: &Scope) -> Built {
        self.graph.add(Op::Transpose { perm: perm.to_vec() }, &[x], scope)
    }

    /// Side by side along `axis`; a single part is itself.
    pub fn concat(&mut self, parts: &[NodeId], axis: usize, scope: &Scope) -> Built {
        match parts {
            [one] => Ok(*one),
            _ => self.graph.add(Op::Concat { axis }, parts, scope),
        }
    }

    /// Entries `start .. start + len` of a constant axis; the whole axis is the operand itself.
    pub fn slice(&mut self, x: NodeId, axis: usize, start: usize, len: usize, scope: &Scope) -> Built {
        if start == 0 && self.graph.ty(x).shape.0[axis] == Dim::from(len) {
            return Ok(x);
        }
        self.graph.add(Op::Slice { axis, start, len, from_end: false }, &[x], scope)
    }

    pub fn linear(&mut self, x: NodeId, w: NodeId, bias: Option<NodeId>, scope: &Scope) -> Built {
        let operands: Vec<NodeId> = [x, w].into_iter().chain(bias).collect();
        self.graph.add(Op::Linear, &operands, scope)
    }

    pub fn rms_norm(&mut self, x: NodeId, weight: &str, width: usize, scope: &Scope) -> Built {
        self.rms_norm_of(x, weight, width, self.config.rms_norm_eps.into(), scope)
    }

    pub fn rms_norm_of(&mut self, x: NodeId, weight: &str, width: usize, eps: Real, scope: &Scope) -> Built {
        let w = self.weight(weight, &[width], scope)?;
        self.graph.add(Op::RmsNorm { eps }, &[x, w], scope)
    }

    /// A constant of one element, which broadcasts.
    pub fn number(&mut self, value: f64, scope: &Scope) -> Built {
        let value = Literal::floats(self.dtype, &[1], &[value]).ok_or_else(|| BuildError {
            scope: scope.to_string(),
            op: "const",
            source: InferError(format!("no number of type {}", self.dtype)),
        })?;
        self.graph.add(Op::Const { value }, &[], scope)
    }

    pub fn unary(&mut self, function: UnaryFn, x: NodeId, scope: &Scope) -> Built {
        self.graph.add(Op::Unary { function }, &[x], scope)
    }

    pub fn binary(&mut self, function: BinaryFn, a: NodeId, b: NodeId, scope: &Scope) -> Built {
        self.graph.add(Op::Binary { function }, &[a, b], scope)
    }

    pub fn less(&mut self, a: NodeId, b: NodeId, scope: &Scope) -> Built {
        self.graph.add(Op::Compare { function: CompareFn::Less }, &[a, b], scope)
    }

    pub fn select(&mut self, condition: NodeId, yes: NodeId, no: NodeId, scope: &Scope) -> Built {
        self.graph.add(Op::Where, &[condition, yes, no], scope)
    }

    pub fn gather(&mut self, table: NodeId, ids: NodeId, scope: &Scope) -> Built {
        self.graph.add(Op::Gather, &[table, ids], scope)
    }

    pub fn iota(&mut self, like: NodeId, axis: usize, scope: &Scope) -> Built {
        self.graph.add(Op::Iota { axis }, &[like], scope)
    }

    /// `lengths * units + offsets`: i64 `[batch]` of meta-contexts to `[batch, offsets]` of units.
    pub fn unit_index(&mut self, lengths: NodeId, units: usize, offsets: &[i64], scope: &Scope) -> Built {
        let column = self.reshape(lengths, &[batch(1), Dim::from(1)], scope)?;
        let scale = self.ints(&[1], &[units as i64], scope)?;
        let scaled = self.binary(BinaryFn::Mul, column, scale, scope)?;
        let offsets = self.ints(&[offsets.len()], offsets, scope)?;
        self.binary(BinaryFn::Add, scaled, offsets, scope)
    }
}
