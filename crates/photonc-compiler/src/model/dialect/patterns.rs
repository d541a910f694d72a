//! Canonical patterns of tensor names: those of models that between them have every option. Owns these models; what a dialect
//! makes of a pattern belongs to `rules`.

use super::pattern_of;
use crate::model::config::{
    Chunker, Condition, ConverterLayout, ExpertConfig, Feedback, LatentAttention, ModelConfig, Slot,
    StackConfig,
};
use crate::model::parameters::parameters;
use crate::model::preset::preset;
use photonc_graph::ir::attr::Scores;

/// Every canonical pattern: of the paper's model, and of one that has every option.
pub(super) fn canonical_patterns() -> Vec<String> {
    let models = preset("tiny").into_iter().flat_map(|model| [everything(&model), predicted(&model), model]);
    let mut patterns: Vec<String> =
        models.flat_map(|model| parameters(&model)).map(|parameter| pattern_of(&parameter.name).0).collect();
    patterns.sort_unstable();
    patterns.dedup();
    patterns
}

/// A model with every tensor of predicted states.
fn predicted(model: &ModelConfig) -> ModelConfig {
    let mut model = model.clone();
    model.wiring.condition = Condition::Predicted;
    model.wiring.predictor = Some(1);
    for level in &mut model.levels {
        level.converter.layout = ConverterLayout::Narrowed { inner: 2 };
        (level.slot, level.projection) = (Slot::Zero, true);
    }
    model.levels[0].feedback = Feedback::Token;
    model
}

/// A model with every tensor that options add. Stacks of the first level have latents for queries, those of the second
/// heads of their own.
fn everything(model: &ModelConfig) -> ModelConfig {
    let mut model = model.clone();
    model.wiring.final_norm = true;
    let experts = ExpertConfig {
        first_layer: 1,
        count: 2,
        top_k: 1,
        inner: 2,
        shared: 2,
        scores: Scores::Sigmoid,
        bias: true,
        normalize: true,
        factor: 1.0.into(),
        groups: 1,
        kept_groups: 1,
    };
    let latent = LatentAttention { query_rank: Some(4), kv_rank: 4, nope: 4, rope: 4, value: 4 };
    for (index, level) in model.levels.iter_mut().enumerate() {
        level.chunker = Chunker::NormedEach;
        level.converter.layout = ConverterLayout::Convolved { kernel: 3 };
        let with_options = |stack: &mut StackConfig| {
            let options = &mut stack.options;
            (options.qk_norm, options.sinks) = (true, true);
            (options.output_gate, options.residual_scales) = (true, true);
            (options.latent, options.experts) = ((index == 0).then_some(latent), Some(experts));
        };
        with_options(&mut level.encoder);
        with_options(&mut level.decoder);
    }
    model
}
