//! Elementwise operations.

use super::emit::Emitter;
use photonc_graph::ir::attr::{BinaryFn, CompareFn, UnaryFn};

impl Emitter<'_> {
    pub(super) fn unary(&mut self, function: UnaryFn, x: &str) -> String {
        match function {
            UnaryFn::Neg => self.node("Neg", &[x], vec![]),
            UnaryFn::Silu => self.silu(x),
            UnaryFn::Sigmoid => self.node("Sigmoid", &[x], vec![]),
            UnaryFn::Tanh => self.node("Tanh", &[x], vec![]),
        }
    }

    pub(super) fn binary(&mut self, function: BinaryFn, args: &[&str]) -> String {
        let op = match function {
            BinaryFn::Add => "Add",
            BinaryFn::Sub => "Sub",
            BinaryFn::Mul => "Mul",
            BinaryFn::Max => "Max",
            BinaryFn::Min => "Min",
        };
        self.node(op, args, vec![])
    }

    pub(super) fn compare(&mut self, function: CompareFn, args: &[&str]) -> String {
        let op = match function {
            CompareFn::Less => "Less",
            CompareFn::Equal => "Equal",
        };
        self.node(op, args, vec![])
    }

    /// `silu(gate) * up`; `Swish` is opset 24 and no runtime's CPU has it.
    pub(super) fn swiglu(&mut self, gate: &str, up: &str) -> String {
        let silu = self.silu(gate);
        self.node("Mul", &[&silu, up], vec![])
    }

    fn silu(&mut self, x: &str) -> String {
        let sigmoid = self.node("Sigmoid", &[x], vec![]);
        self.node("Mul", &[x, &sigmoid], vec![])
    }
}
