//! Sampling inside the graph: greedy, top-k and top-p by one uniform number per token.

use super::ExportError;
use super::emit::{Emitter, Shared};
use super::proto;
use photonc_graph::graph::NodeId;
use photonc_graph::ir::dim::Dim;
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::shape::Shape;

/// Candidates of `B` requests, `Q` tokens each, best first.
struct Candidates {
    /// `f32 [B, Q, c]`.
    logits: String,
    /// `i64 [B, Q, c]`.
    ids: String,
    /// `c`.
    count: usize,
}

impl Emitter<'_> {
    /// `[R, n, V], [R, n], [B], i64 [B], [B] -> i64 [R, n]`. Rows of a request are folded into one axis, so that its
    /// parameters broadcast and are never repeated.
    pub(super) fn sample(
        &mut self,
        id: NodeId,
        operands: &[NodeId],
        count: usize,
    ) -> Result<String, ExportError> {
        let graph = self.graph;
        let widen = self.rewrites("widen-sampling", id);
        let mut names = Vec::with_capacity(operands.len());
        for operand in operands {
            let (name, dtype) = (self.values[operand].clone(), graph.ty(*operand).dtype);
            let is_cast = widen && dtype.is_float();
            names.push(if is_cast { self.cast_once(&name, dtype, Dtype::F32)? } else { name });
        }
        let (logits, uniforms) = (&graph.ty(operands[0]).shape, &graph.ty(operands[1]).shape);
        let requests = graph.ty(operands[2]).shape.0[0].clone();
        let per_request = uniforms.elements().divided_by(&requests).unwrap_or_default();
        let folded = |last: usize| Shape(vec![requests.clone(), per_request.clone(), Dim::from(last)]);

        let k = self.ints(&[proto::to_i64(count)]);
        let attributes = vec![proto::int("axis", -1), proto::int("largest", 1), proto::int("sorted", 1)];
        let [best, ids] = self.node_with("TopK", &[&names[0], &k], attributes);
        let mut found = logits.clone();
        if let Some(last) = found.0.last_mut() {
            *last = Dim::from(count);
        }
        let candidates = Candidates {
            logits: self.reshape(&best, &found, &folded(count))?,
            ids: self.reshape(&ids, &found, &folded(count))?,
            count,
        };
        let uniforms_folded = self.reshape(&names[1], uniforms, &folded(1))?;
        let chosen = self.choose(&candidates, &uniforms_folded, [&names[2], &names[3], &names[4]])?;
        let token = self.node("GatherElements", &[&candidates.ids, &chosen], vec![proto::int("axis", 2)]);
        let token = self.reshape(&token, &folded(1), uniforms)?;
        let (is_distribution, none) = (self.is_distribution(&names[0], &best), self.int(-1));
        Ok(self.node("Where", &[&is_distribution, &token, &none], vec![]))
    }

    /// `bool [R, n]`: no logit is NaN, and the largest is finite. Runtimes differ in where they sort a NaN, but what is summed
    /// here is at most 0 in a distribution, and otherwise NaN.
    fn is_distribution(&mut self, logits: &str, best: &str) -> String {
        let largest = self.slice(best, 2, 0, 1, false);
        let below = self.node("Sub", &[logits, &largest], vec![]);
        let axes = self.ints(&[2]);
        let sum = self.node("ReduceSum", &[&below, &axes], vec![proto::int("keepdims", 0)]);
        let zero = self.float(0.0);
        self.node("LessOrEqual", &[&sum, &zero], vec![])
    }

    /// `i64 [B, Q, 1]`: the place of the chosen candidate.
    fn choose(
        &mut self,
        candidates: &Candidates,
        uniforms: &str,
        parameters: [&str; 3],
    ) -> Result<String, ExportError> {
        let [temperature, top_k, top_p] = parameters;
        let top_p = self.request_parameter(top_p)?;
        let zero = self.float(0.0);
        let is_sampled = self.is_sampled(temperature)?;
        let in_k = self.in_top_k(candidates.count, top_k)?;
        let mass = self.mass(candidates, temperature, &in_k)?;

        let axis = self.int(2);
        let reached = self.node("CumSum", &[&mass, &axis], vec![]);
        let before = self.node("Sub", &[&reached, &mass], vec![]);
        let is_first = self.first_candidate(candidates.count);
        let in_p = self.node("Less", &[&before, &top_p], vec![]);
        let in_p = self.node("Or", &[&in_p, &is_first], vec![]);
        let kept = self.node("And", &[&in_p, &in_k], vec![]);

        let kept_mass = self.node("Where", &[&kept, &mass, &zero], vec![]);
        let total = self.sum_last(&kept_mass);
        let threshold = self.node("Mul", &[uniforms, &total], vec![]);
        let passed = self.node("LessOrEqual", &[&reached, &threshold], vec![]);
        let passed = self.node("And", &[&passed, &kept], vec![]);
        let (place, kept) = (self.count_last(&passed), self.count_last(&kept));
        let one = self.int(1);
        let last = self.node("Sub", &[&kept, &one], vec![]);
        let place = self.node("Min", &[&place, &last], vec![]);
        let first = self.int(0);
        Ok(self.node("Where", &[&is_sampled, &place, &first], vec![]))
    }

    /// `[B]` as `[B, 1, 1]`, once for all tokens.
    fn request_parameter(&mut self, name: &str) -> Result<String, ExportError> {
        let key = Shared::Parameter("column", name.to_owned());
        self.shared(key, |emitter| Ok(emitter.unsqueeze(name, &[1, 2])))
    }

    /// `bool [B, 1, 1]`: temperature above 0.
    fn is_sampled(&mut self, temperature: &str) -> Result<String, ExportError> {
        self.shared(Shared::Parameter("is sampled", temperature.to_owned()), |emitter| {
            let (temperature, zero) = (emitter.request_parameter(temperature)?, emitter.float(0.0));
            Ok(emitter.node("Greater", &[&temperature, &zero], vec![]))
        })
    }

    /// `[B, 1, 1]`: the temperature, 1 where it is 0.
    fn divisor(&mut self, temperature: &str) -> Result<String, ExportError> {
        self.shared(Shared::Parameter("divisor", temperature.to_owned()), |emitter| {
            let is_sampled = emitter.is_sampled(temperature)?;
            let (temperature, one) = (emitter.request_parameter(temperature)?, emitter.float(1.0));
            Ok(emitter.node("Where", &[&is_sampled, &temperature, &one], vec![]))
        })
    }

    /// Probabilities of the first `top_k` candidates, 0 for the others.
    fn mass(
        &mut self,
        candidates: &Candidates,
        temperature: &str,
        in_k: &str,
    ) -> Result<String, ExportError> {
        let divisor = self.divisor(temperature)?;
        // Subtracting before dividing keeps a tiny temperature from overflowing.
        let best = self.slice(&candidates.logits, 2, 0, 1, false);
        let below = self.node("Sub", &[&candidates.logits, &best], vec![]);
        let scaled = self.node("Div", &[&below, &divisor], vec![]);
        let never = self.float(f64::NEG_INFINITY);
        let kept = self.node("Where", &[in_k, &scaled, &never], vec![]);
        Ok(self.node("Softmax", &[&kept], vec![proto::int("axis", -1)]))
    }

    /// `bool [B, 1, c]`: candidate `i < top_k`.
    fn in_top_k(&mut self, count: usize, top_k: &str) -> Result<String, ExportError> {
        self.shared(Shared::Parameter("in top k", format!("{top_k} {count}")), |emitter| {
            let places: Vec<i64> = (0..proto::to_i64(count)).collect();
            let (places, top_k) = (emitter.ints(&places), emitter.request_parameter(top_k)?);
            Ok(emitter.node("Less", &[&places, &top_k], vec![]))
        })
    }

    /// `bool [c]`: the first candidate, which every top-p keeps.
    fn first_candidate(&mut self, count: usize) -> String {
        let flags: Vec<bool> = (0..count).map(|place| place == 0).collect();
        self.bool_tensor(&[count], &flags)
    }

    fn sum_last(&mut self, x: &str) -> String {
        let axes = self.ints(&[2]);
        self.node("ReduceSum", &[x, &axes], vec![proto::int("keepdims", 1)])
    }

    /// How many are true along the last axis.
    fn count_last(&mut self, flags: &str) -> String {
        let int = i64::from(proto::data_type(Dtype::I64));
        let flags = self.node("Cast", &[flags], vec![proto::int("to", int)]);
        self.sum_last(&flags)
    }
}
