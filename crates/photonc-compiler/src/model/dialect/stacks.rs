//! What a stack has beside the parts of a LLaMA block, read by the rules of a dialect. Owns the names of those fields; a
//! dialect that has no rule for one describes models without it.

use super::fields::{Reader, Scope};
use crate::model::config::{ExpertConfig, LatentAttention, Rotation, StackConfig, StackOptions};
use photonc_graph::ir::attr::{Real, Scores};

/// Fields of each stack, after its part's name; all may be left out.
pub(super) const STACK_FIELDS: [&str; 31] = [
    "norm_eps",
    "rope_theta",
    "rope_partial",
    "rotated",
    "position",
    "attention",
    "qk_norm",
    "window",
    "full_every",
    "sinks",
    "output_gate",
    "softmax_scale",
    "residual_scales",
    "latent.query_rank",
    "latent.kv_rank",
    "latent.nope",
    "latent.rope",
    "latent.value",
    "experts.enabled",
    "experts.first_layer",
    "experts.count",
    "experts.top_k",
    "experts.inner",
    "experts.shared_count",
    "experts.shared_inner",
    "experts.scores",
    "experts.bias",
    "experts.normalize",
    "experts.factor",
    "experts.groups",
    "experts.kept_groups",
];

impl Reader<'_> {
    /// Whether a part's keys and values are made of a latent: its heads then follow from the latent's sizes.
    pub(super) fn has_latent(&mut self, scope: &Scope<'_>, part: &str) -> bool {
        self.optional_choice(scope, &format!("{part}.attention"), &["gqa", "mla"]) == 1
    }

    /// A stack whose sizes are read, with its options; heads of a latent are as wide as the latent says.
    pub(super) fn with_options(
        &mut self,
        scope: &Scope<'_>,
        part: &str,
        mut stack: StackConfig,
        has_latent: bool,
    ) -> StackConfig {
        let at = |field: &str| format!("{part}.{field}");
        let latent = has_latent.then(|| self.latent(scope, part));
        if let Some(latent) = latent {
            stack.head_dim = latent.nope.saturating_add(latent.rope);
            stack.kv_heads = stack.heads;
        }
        let number =
            |reader: &mut Self, field: &str| reader.optional_number(scope, &at(field)).map(Real::from);
        stack.options = StackOptions {
            norm_eps: number(self, "norm_eps"),
            theta: number(self, "rope_theta"),
            rotation: self.rotation(scope, part, stack.head_dim),
            qk_norm: self.optional_flag(scope, &at("qk_norm")),
            window: self.optional_size(scope, &at("window")),
            full_every: self.optional_size(scope, &at("full_every")).unwrap_or(0),
            sinks: self.optional_flag(scope, &at("sinks")),
            output_gate: self.optional_flag(scope, &at("output_gate")),
            softmax_scale: number(self, "softmax_scale"),
            residual_scales: self.optional_flag(scope, &at("residual_scales")),
            latent,
            experts: self.experts(scope, part, stack.layers),
        };
        stack
    }

    fn rotation(&mut self, scope: &Scope<'_>, part: &str, head_dim: usize) -> Rotation {
        if self.optional_choice(scope, &format!("{part}.position"), &["rope", "nope"]) == 1 {
            return Rotation::None;
        }
        if let Some(count) = self.optional_size(scope, &format!("{part}.rotated")) {
            return if count == head_dim { Rotation::All } else { Rotation::First(count) };
        }
        let at = format!("{part}.rope_partial");
        let share = self.optional_number(scope, &at).unwrap_or(1.0);
        if !(0.0..=1.0).contains(&share) {
            self.problem(format!("{}{at}", scope.prefix), format!("found {share}, expected a part of 1"));
            return Rotation::All;
        }
        match rotated(head_dim, share) {
            all if all == head_dim => Rotation::All,
            0 => Rotation::None,
            some => Rotation::First(some),
        }
    }

    fn latent(&mut self, scope: &Scope<'_>, part: &str) -> LatentAttention {
        let size = |reader: &mut Self, field: &str| reader.size(scope, &format!("{part}.latent.{field}"));
        LatentAttention {
            query_rank: self.optional_size(scope, &format!("{part}.latent.query_rank")),
            kv_rank: size(self, "kv_rank"),
            nope: size(self, "nope"),
            rope: size(self, "rope"),
            value: size(self, "value"),
        }
    }

    fn experts(&mut self, scope: &Scope<'_>, part: &str, layers: usize) -> Option<ExpertConfig> {
        let at = |field: &str| format!("{part}.experts.{field}");
        if !self.optional_flag(scope, &at("enabled")) {
            return None;
        }
        let first_layer = self.size(scope, &at("first_layer"));
        if first_layer >= layers {
            return None;
        }
        let size = |reader: &mut Self, field: &str| reader.size(scope, &at(field));
        let inner = size(self, "inner");
        let shared_inner = self.optional_size(scope, &at("shared_inner")).unwrap_or(inner);
        let shared_count = self.optional_size(scope, &at("shared_count")).unwrap_or(1);
        let scores = match self.optional_choice(scope, &at("scores"), &["sigmoid", "softmax"]) {
            1 => Scores::Softmax,
            _ => Scores::Sigmoid,
        };
        Some(ExpertConfig {
            first_layer,
            count: size(self, "count"),
            top_k: size(self, "top_k"),
            inner,
            shared: shared_count.saturating_mul(shared_inner),
            scores,
            bias: self.optional_flag(scope, &at("bias")),
            normalize: self.optional_flag(scope, &at("normalize")),
            factor: self.number(scope, &at("factor")).into(),
            groups: size(self, "groups"),
            kept_groups: size(self, "kept_groups"),
        })
    }
}

/// Channels that a part of a head is, an even number.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a size")]
fn rotated(head_dim: usize, share: f64) -> usize {
    ((head_dim as f64 * share).floor() as usize) / 2 * 2
}
