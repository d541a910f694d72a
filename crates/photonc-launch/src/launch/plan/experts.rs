//! Routing and expert feed-forward: which kernels do it and what lies between them.

use super::emit::Emitter;
use super::view::{Element, View};
use super::{Call, PlanError};
use crate::launch::arguments::{ExpertsArguments, RouteArguments, Rows};
use photonc_graph::graph::NodeId;
use photonc_graph::ir::attr::Scores;
use photonc_graph::ir::op::Op;

impl Emitter<'_> {
    pub(super) fn route(&mut self, id: NodeId, operands: &[NodeId]) -> Result<(), PlanError> {
        let Op::Route { scores, top_k, groups, kept_groups, normalize, factor } = self.graph().op(id).clone()
        else {
            return Err(self.demand.error(id, "not a router"));
        };
        let logits = self.value(operands[0])?;
        let out = self.target(id);
        let (rows, experts) = (self.demand.rows(id), self.width_of(id));
        if rows > 0 {
            let arguments = RouteArguments {
                logits: self.rows(id, &logits)?,
                out: self.own_rows(id, &out)?,
                bias: match operands.get(1) {
                    Some(bias) => self.weight(id, *bias)?,
                    None => 0,
                },
                factor: factor.get(),
                rows: self.count(id, rows)?,
                experts: self.count(id, experts)?,
                top_k: self.count(id, top_k)?,
                groups: self.count(id, groups.max(1))?,
                kept_groups: self.count(id, kept_groups)?,
                normalize: i32::from(normalize),
                softmax: i32::from(scores == Scores::Softmax),
                unused: 0,
            };
            self.step(id, Call::Route(arguments));
        }
        self.values.insert(id, out);
        Ok(())
    }

    /// The chosen experts' hidden values in f32, then the sum of what they make of them.
    pub(super) fn experts(&mut self, id: NodeId, operands: &[NodeId], top_k: usize) -> Result<(), PlanError> {
        let (x, gates) = (self.value(operands[0])?, self.value(operands[1])?);
        let [experts, inner, width] = match self.demand.dims(operands[3]) {
            [experts, inner, width] => [*experts, *inner, *width],
            _ => return Err(self.demand.error(id, "the maps of experts have other than three axes")),
        };
        let (out, rows) = (self.target(id), self.demand.rows(id));
        if rows > 0 {
            let hidden = self.fresh(Element::Float, &[rows, top_k, inner]);
            let (of_up, of_down) = (self.whole(id, operands[2])?, self.whole(id, operands[3])?);
            let up = ExpertsArguments {
                x: self.rows(id, &x)?,
                gates: self.rows(id, &gates)?,
                out: self.own_rows(id, &hidden)?,
                weight: of_up.address,
                rows: self.count(id, rows)?,
                experts: self.count(id, experts)?,
                top_k: self.count(id, top_k)?,
                inner: self.count(id, inner)?,
                width: self.count(id, width)?,
                unused: 0,
            };
            let down =
                ExpertsArguments { x: up.out, out: self.own_rows(id, &out)?, weight: of_down.address, ..up };
            self.step_with(id, Call::ExpertsUp(up), of_up.dtype);
            self.step_with(id, Call::ExpertsDown(down), of_down.dtype);
        }
        self.values.insert(id, out);
        Ok(())
    }

    fn width_of(&self, id: NodeId) -> usize {
        self.demand.dims(id).last().copied().unwrap_or(1)
    }

    /// Rows of a result, which cannot be copied elsewhere.
    fn own_rows(&self, id: NodeId, view: &View) -> Result<Rows, PlanError> {
        view.rows(self.dtype).ok_or_else(|| self.demand.error(id, "the result's rows are scattered"))
    }
}
