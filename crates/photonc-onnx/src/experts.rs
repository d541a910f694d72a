//! Routers and experts from standard operators. No operator multiplies each row by maps of its own choice: every expert
//! computes every row, `E / top_k` times the arithmetic, and what was not chosen is blanked.

use super::ExportError;
use super::emit::Emitter;
use super::proto;
use photonc_graph::graph::NodeId;
use photonc_graph::ir::attr::Scores;
use photonc_graph::ir::dim::Dim;
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::op::Op;
use photonc_graph::ir::shape::Shape;

impl Emitter<'_> {
    /// `[.., E], ([E]) -> [.., E]`, in f32.
    pub(super) fn route(&mut self, id: NodeId, args: &[&str]) -> Result<String, ExportError> {
        let Op::Route { scores, top_k, groups, kept_groups, normalize, factor } = self.graph.op(id).clone()
        else {
            return Err(ExportError::NotLowered { scope: self.scope.clone(), op: "route" });
        };
        let dtype = self.graph.ty(id).dtype;
        let rank = self.graph.ty(id).shape.rank();
        let count = self.graph.ty(id).shape.0.last().and_then(Dim::as_const).unwrap_or(1);
        let wide: Vec<String> =
            args.iter().map(|arg| self.cast_once(arg, dtype, Dtype::F32)).collect::<Result<_, _>>()?;
        let scores = match scores {
            Scores::Sigmoid => self.node("Sigmoid", &[&wide[0]], vec![]),
            Scores::Softmax => self.node("Softmax", &[&wide[0]], vec![proto::int("axis", -1)]),
        };
        let biased = match wide.get(1) {
            Some(bias) => self.node("Add", &[&scores, bias], vec![]),
            None => scores.clone(),
        };
        let candidates = match groups {
            0 | 1 => biased,
            _ => self.in_best_groups(&biased, rank, [count, groups, kept_groups]),
        };
        let chosen = self.among_largest(&candidates, [top_k, count]);
        let mut gates = self.node("Mul", &[&scores, &chosen], vec![]);
        if normalize {
            let sum = self.sum_of(&gates, -1, 1);
            gates = self.node("Div", &[&gates, &sum], vec![]);
        }
        let factor = self.float(factor.get());
        let gates = self.node("Mul", &[&gates, &factor], vec![]);
        Ok(self.cast(&gates, Dtype::F32, dtype))
    }

    /// `[.., n]` to `f32 [.., n]`: 1 where an entry is among the `count` largest, the first of equal ones, else 0.
    fn among_largest(&mut self, x: &str, [count, len]: [usize; 2]) -> String {
        let [_, ids] = self.largest(x, count);
        let ids = self.unsqueeze(&ids, &[-1]);
        let all: Vec<i64> = (0..proto::to_i64(len)).collect();
        let all = self.ints(&all);
        let hits = self.node("Equal", &[&ids, &all], vec![]);
        let float = i64::from(proto::data_type(Dtype::F32));
        let hits = self.node("Cast", &[&hits], vec![proto::int("to", float)]);
        self.sum_of(&hits, -2, 0)
    }

    /// Biased scores, minus infinity outside the best groups.
    fn in_best_groups(&mut self, biased: &str, rank: usize, [count, groups, kept]: [usize; 3]) -> String {
        let leading = vec![0; rank - 1];
        let sizes: Vec<i64> =
            leading.iter().copied().chain([proto::to_i64(groups), proto::to_i64(count / groups)]).collect();
        let sizes = self.ints(&sizes);
        let grouped = self.node("Reshape", &[biased, &sizes], vec![]);
        let [best, _] = self.largest(&grouped, 2);
        let of_group = self.sum_of(&best, -1, 0);
        let stays = self.among_largest(&of_group, [kept, groups]);
        let zero = self.float(0.0);
        let stays = self.node("Greater", &[&stays, &zero], vec![]);
        let stays = self.unsqueeze(&stays, &[-1]);
        let never = self.float(f64::NEG_INFINITY);
        let candidates = self.node("Where", &[&stays, &grouped, &never], vec![]);
        let sizes: Vec<i64> = leading.into_iter().chain([proto::to_i64(count)]).collect();
        let sizes = self.ints(&sizes);
        self.node("Reshape", &[&candidates, &sizes], vec![])
    }

    fn largest(&mut self, x: &str, count: usize) -> [String; 2] {
        let count = self.ints(&[proto::to_i64(count)]);
        let attributes = vec![proto::int("axis", -1), proto::int("largest", 1), proto::int("sorted", 1)];
        self.node_with("TopK", &[x, &count], attributes)
    }

    fn sum_of(&mut self, x: &str, axis: i64, keep: i64) -> String {
        let axes = self.ints(&[axis]);
        self.node("ReduceSum", &[x, &axes], vec![proto::int("keepdims", keep)])
    }

    /// `[.., W], [.., E], [E, W, 2I], [E, I, W] -> [.., W]`.
    pub(super) fn experts(&mut self, id: NodeId, args: &[&str]) -> Result<String, ExportError> {
        let graph = self.graph;
        let operands = graph.operands(id);
        let ty = graph.ty(id).clone();
        let down = graph.ty(operands[3]).shape.clone();
        let size = |axis: usize| down.0[axis].as_const().unwrap_or(1);
        let (count, inner, width) = (size(0), size(1), size(2));
        let rows =
            ty.shape.0.iter().take(ty.shape.rank() - 1).fold(Dim::from(1), |rows, dim| rows.times(dim));
        let flat = |last: usize| Shape(vec![rows.clone(), Dim::from(last)]);
        let x = self.reshape(args[0], &ty.shape, &flat(width))?;
        let x = self.unsqueeze(&x, &[0]);
        let wide = self.node("MatMul", &[&x, args[2]], vec![]);
        let gate = self.slice(&wide, 2, 0, inner, false);
        let up = self.slice(&wide, 2, inner, inner, false);
        let hidden = self.swiglu(&gate, &up);
        let parts = self.node("MatMul", &[&hidden, args[3]], vec![]);
        let gates = self.reshape(args[1], &graph.ty(operands[1]).shape, &flat(count))?;
        let gates = self.transpose(&gates, &[1, 0]);
        let gates = self.unsqueeze(&gates, &[2]);
        let weighted = self.node("Mul", &[&parts, &gates], vec![]);
        // What an expert nobody chose yields may be infinite.
        let zero = self.float_of(ty.dtype, 0.0);
        let unread = self.node("Equal", &[&gates, &zero], vec![]);
        let weighted = self.node("Where", &[&unread, &zero, &weighted], vec![]);
        let sum = self.sum_of(&weighted, 0, 0);
        self.reshape(&sum, &flat(width), &ty.shape)
    }
}
