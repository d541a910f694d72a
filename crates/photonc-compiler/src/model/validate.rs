//! Contradictions inside a model configuration. Owns every rule that relates sizes to one another; refuses to stop at
//! the first: the caller gets all of them. Types and missing keys of a `config.json` belong to `dialect`.

use std::fmt;

use crate::model::config::{
    Chunker, Condition, ConverterLayout, ExpertConfig, Feedback, LevelConfig, ModelConfig, Rotation, Slot,
    StackConfig,
};
use crate::model::parameters::parameters;

/// Largest size of one dimension or count.
const MAX_SIZE: usize = i32::MAX as usize;
/// Largest number of tensors of one model.
const MAX_TENSORS: u128 = 100_000;
/// Largest number of parameters of one model; their bytes still fit a file offset.
const MAX_PARAMETERS: u128 = 1 << 60;

/// One thing wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Key path, `levels[0].encoder.heads`.
    pub at: String,
    /// What was found and what was expected.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

/// Every contradiction of a configuration, in the order of its keys; empty when it describes a model.
///
/// Rules: PHOTON paper (Ichikawa et al., arXiv 2512.20687), section 3: concatenation widths, decoder widths, feedback.
#[must_use]
pub fn problems(config: &ModelConfig) -> Vec<Problem> {
    let mut found = Findings(Vec::new());
    check_model(config, &mut found);
    for (index, level) in config.levels.iter().enumerate() {
        check_level(config, index, level, &mut found);
    }
    if found.0.is_empty() {
        check_totals(config, &mut found);
    }
    found.0
}

struct Findings(Vec<Problem>);

impl Findings {
    fn add(&mut self, at: impl Into<String>, what: impl Into<String>) {
        self.0.push(Problem { at: at.into(), what: what.into() });
    }

    fn size(&mut self, at: String, value: usize) {
        if value == 0 {
            self.add(at, "found 0, expected at least 1");
        } else if value > MAX_SIZE {
            self.add(at, format!("found {value}, expected at most {MAX_SIZE}"));
        }
    }
}

fn check_model(config: &ModelConfig, found: &mut Findings) {
    found.size("vocab_size".into(), config.vocab_size);
    found.size("embed_dim".into(), config.embed_dim);
    for (at, value) in [("rms_norm_eps", config.rms_norm_eps), ("rope_theta", config.rope_theta)] {
        if !(value.is_finite() && value > 0.0) {
            found.add(at, format!("found {value}, expected a positive number"));
        }
    }
    let Some(first) = config.levels.first() else {
        found.add("levels", "found no level, expected at least 1");
        return;
    };
    if config.tied_head
        && known(&[config.embed_dim, first.decoder_dim])
        && config.embed_dim != first.decoder_dim
    {
        found.add(
            "tie_word_embeddings",
            format!(
                "a head tied to `embed` needs the level-1 decoder as wide as the embedding, found decoder width {} and embedding width {}",
                first.decoder_dim, config.embed_dim
            ),
        );
    }
    check_options_of_model(config, found);
    let meta_tokens =
        config.levels.iter().try_fold(1usize, |product, level| product.checked_mul(level.chunk_size));
    if meta_tokens.is_none_or(|tokens| tokens > MAX_SIZE) {
        found.add(
            "levels",
            format!("the chunk sizes multiply to more than {MAX_SIZE} tokens in a meta-context"),
        );
    }
}

/// What only some wirings have.
fn check_options_of_model(config: &ModelConfig, found: &mut Findings) {
    let wiring = config.wiring;
    let predicts = wiring.condition == Condition::Predicted;
    match wiring.predictor {
        Some(layers) if predicts => found.size("wiring.predictor.layers".into(), layers),
        Some(_) => {
            found.add("wiring.predictor", "expected none: only condition `predicted` has a predictor");
        }
        None if predicts => found.add("wiring.predictor", "missing: condition `predicted` needs one"),
        None => {}
    }
    let reads_own_table = config.levels.first().is_some_and(|level| level.feedback == Feedback::Token);
    if wiring.tied_decoder_head && (config.tied_head || !reads_own_table) {
        let what =
            "found true, expected false: the level-1 decoder has no table of its own to tie the head to";
        let twice = "found true, expected false: the head is tied to `embed`";
        found.add("wiring.tied_decoder_head", if config.tied_head { twice } else { what });
    }
    if wiring.shifted_labels && !(predicts && reads_own_table) {
        let what = "found true, expected false without condition `predicted` and tokens read back";
        found.add("wiring.shifted_labels", what);
    }
}

fn check_level(config: &ModelConfig, index: usize, level: &LevelConfig, found: &mut Findings) {
    let at = |field: &str| format!("levels[{index}].{field}");
    found.size(at("chunk_size"), level.chunk_size);
    found.size(at("dim"), level.dim);
    found.size(at("prefix"), level.prefix);
    let below = config.dim(index);
    if level.chunker == Chunker::Concat && known(&[level.chunk_size, level.dim, below]) {
        let expected = level.chunk_size.saturating_mul(below);
        if level.dim != expected {
            found.add(
                at("dim"),
                format!("found {}, expected {expected} for a concat chunker (chunk_size {} x width below {below})", level.dim, level.chunk_size),
            );
        }
    }
    check_stack(&at("encoder"), &level.encoder, found);
    check_stack(&at("decoder"), &level.decoder, found);
    found.size(at("decoder.dim"), level.decoder_dim);
    if index > 0 && known(&[level.decoder_dim, below]) && level.decoder_dim != below {
        found.add(
            at("decoder.dim"),
            format!("found {}, expected {below}: above level 1 a decoder is as wide as the states of the level below", level.decoder_dim),
        );
    }
    check_wiring(config, index, level, found);
    if index > 0 && level.feedback == Feedback::Token {
        found.add(
            at("decoder.feedback"),
            "found token, expected latent: only the level-1 decoder produces tokens",
        );
    }
}

/// What can be built of conditions, feedback and the decoder's form.
fn check_wiring(config: &ModelConfig, index: usize, level: &LevelConfig, found: &mut Findings) {
    let at = |field: &str| format!("levels[{index}].{field}");
    let condition = config.wiring.condition;
    let estimate = condition == Condition::Estimate;
    let (name, expected, fits) = match (condition, index) {
        (Condition::Carried, _) => {
            ("recon", "latent or, at level 1, token", level.feedback != Feedback::Summary)
        }
        (Condition::Estimate, _) => ("estimate", "summary", level.feedback == Feedback::Summary),
        (Condition::State, _) => ("state", "summary", level.feedback == Feedback::Summary),
        (Condition::Predicted, 0) => ("predicted", "token at level 1", level.feedback == Feedback::Token),
        (Condition::Predicted, _) => {
            ("predicted", "latent above level 1", level.feedback == Feedback::Latent)
        }
    };
    if !fits {
        found.add(
            at("decoder.feedback"),
            format!("expected {expected} with condition `{name}`: no other is built"),
        );
    }
    let slot_fits = match level.slot {
        Slot::None => true,
        Slot::Repeat => condition == Condition::State,
        Slot::Zero => condition == Condition::Predicted && index > 0,
    };
    if !slot_fits {
        found.add(at("decoder.slot"), format!("expected none with condition `{name}` at this level"));
    }
    if level.projection && level.slot != Slot::Zero {
        found.add(at("decoder.projection"), "found true, expected false without a slot of zero");
    }
    if index == 0
        && level.feedback == Feedback::Summary
        && known(&[level.decoder_dim, config.embed_dim])
        && level.decoder_dim != config.embed_dim
    {
        let what = format!(
            "found {}, expected {}: the decoder reads embeddings back",
            level.decoder_dim, config.embed_dim
        );
        found.add(at("decoder.dim"), what);
    }
    if let ConverterLayout::Convolved { kernel } = level.converter.layout {
        found.size(at("converter.kernel"), kernel);
        if level.converter.bias {
            found.add(at("converter.bias"), "found true, expected false: a convolved converter has none");
        }
    }
    if let ConverterLayout::Narrowed { inner } = level.converter.layout {
        found.size(at("converter.inner"), inner);
    }
    if let Some(size) = level.stream {
        found.size(at("decoder.stream"), size);
        if !estimate {
            let what = format!("expected none with condition `{name}`: no such decoder is built");
            found.add(at("decoder.stream"), what);
        }
    }
    if let Some(size) = level.encoder_window {
        found.size(at("encoder_window"), size);
    }
}

fn check_stack(at: &str, stack: &StackConfig, found: &mut Findings) {
    check_options(at, stack, found);
    found.size(format!("{at}.layers"), stack.layers);
    found.size(format!("{at}.heads"), stack.heads);
    found.size(format!("{at}.kv_heads"), stack.kv_heads);
    found.size(format!("{at}.head_dim"), stack.head_dim);
    found.size(format!("{at}.ffn"), stack.ffn);
    if known(&[stack.heads, stack.kv_heads]) && !stack.heads.is_multiple_of(stack.kv_heads) {
        found.add(
            format!("{at}.kv_heads"),
            format!("found {}, expected a divisor of heads {}", stack.kv_heads, stack.heads),
        );
    }
    if stack.options.rotation == Rotation::All
        && stack.options.latent.is_none()
        && !stack.head_dim.is_multiple_of(2)
    {
        found.add(
            format!("{at}.head_dim"),
            format!("found {}, expected an even width: RoPE rotates its halves", stack.head_dim),
        );
    }
}

fn check_options(at: &str, stack: &StackConfig, found: &mut Findings) {
    let options = &stack.options;
    let reals = [
        ("norm_eps", options.norm_eps),
        ("rope_theta", options.theta),
        ("softmax_scale", options.softmax_scale),
    ];
    for (field, value) in reals {
        if let Some(value) =
            value.map(|value| value.get()).filter(|value| !(value.is_finite() && *value > 0.0))
        {
            found.add(format!("{at}.{field}"), format!("found {value}, expected a positive number"));
        }
    }
    if let Some(size) = options.window {
        found.size(format!("{at}.window"), size);
    }
    if let Rotation::First(count) = options.rotation
        && (count > stack.head_dim || !count.is_multiple_of(2))
    {
        let what =
            format!("found {count}, expected an even number of the head's {} channels", stack.head_dim);
        found.add(format!("{at}.rotated"), what);
    }
    if let Some(latent) = options.latent {
        let sizes = [
            ("kv_rank", latent.kv_rank),
            ("nope", latent.nope),
            ("rope", latent.rope),
            ("value", latent.value),
            ("query_rank", latent.query_rank.unwrap_or(1)),
        ];
        for (field, size) in sizes {
            found.size(format!("{at}.latent.{field}"), size);
        }
        if !latent.rope.is_multiple_of(2) {
            let what = format!("found {}, expected an even width: RoPE rotates its halves", latent.rope);
            found.add(format!("{at}.latent.rope"), what);
        }
    }
    if let Some(experts) = &options.experts {
        check_experts(&format!("{at}.experts"), experts, found);
    }
}

fn check_experts(at: &str, experts: &ExpertConfig, found: &mut Findings) {
    let ExpertConfig { count, top_k, inner, groups, kept_groups, .. } = *experts;
    let sizes = [
        ("count", count),
        ("top_k", top_k),
        ("inner", inner),
        ("groups", groups),
        ("kept_groups", kept_groups),
    ];
    for (field, size) in sizes {
        found.size(format!("{at}.{field}"), size);
    }
    if !known(&[count, top_k, groups, kept_groups]) {
        return;
    }
    let size = count / groups;
    if !count.is_multiple_of(groups) || (groups > 1 && size < 2) {
        let what = format!(
            "found {groups}, expected a divisor of {count} experts that leaves two or more in a group"
        );
        found.add(format!("{at}.groups"), what);
    } else if kept_groups > groups {
        found.add(
            format!("{at}.kept_groups"),
            format!("found {kept_groups}, expected at most {groups} groups"),
        );
    } else if top_k > size * kept_groups {
        let what =
            format!("found {top_k}, expected at most the {} experts of the kept groups", size * kept_groups);
        found.add(format!("{at}.top_k"), what);
    }
    let factor = experts.factor.get();
    if !factor.is_finite() {
        found.add(format!("{at}.factor"), format!("found {factor}, expected a number"));
    }
}

/// Sizes that are each fine alone can still multiply to more than any file holds.
fn check_totals(config: &ModelConfig, found: &mut Findings) {
    let tensors: u128 = config
        .levels
        .iter()
        .map(|level| 8 + 18 * (level.encoder.layers as u128 + level.decoder.layers as u128))
        .sum();
    if tensors > MAX_TENSORS {
        found.add(
            "levels",
            format!("the model would have about {tensors} tensors, at most {MAX_TENSORS} are supported"),
        );
        return;
    }
    let mut total = 0u128;
    for parameter in parameters(config) {
        let elements =
            parameter.shape.iter().fold(1u128, |product, &dim| product.saturating_mul(dim as u128));
        total = total.saturating_add(elements);
    }
    if total > MAX_PARAMETERS {
        found.add(
            "levels",
            format!("the model would have {total} parameters, at most {MAX_PARAMETERS} are supported"),
        );
    }
}

/// A relation is checked only between sizes that are sound themselves: one cause, one finding.
fn known(sizes: &[usize]) -> bool {
    sizes.iter().all(|&size| size != 0 && size <= MAX_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::preset::preset;

    fn tiny() -> ModelConfig {
        preset("tiny").expect("`tiny` is a preset")
    }

    fn lines(config: &ModelConfig) -> Vec<String> {
        problems(config).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn presets_have_no_problems() {
        assert_eq!(lines(&tiny()), Vec::<String>::new());
    }

    #[test]
    fn every_contradiction_is_listed_at_once() {
        let mut config = tiny();
        config.vocab_size = 0;
        config.tied_head = true;
        config.levels[0].dim = 65;
        config.levels[0].encoder.kv_heads = 3;
        config.levels[1].prefix = 0;
        config.levels[1].decoder.head_dim = 15;
        config.levels[1].decoder_dim = 60;
        config.levels[1].feedback = Feedback::Token;
        let lines = lines(&config);
        let places: Vec<&str> = lines.iter().filter_map(|line| line.split(": ").next()).collect();
        assert_eq!(
            places,
            [
                "vocab_size",
                "tie_word_embeddings",
                "levels[0].dim",
                "levels[0].encoder.kv_heads",
                "levels[1].prefix",
                "levels[1].decoder.head_dim",
                "levels[1].decoder.dim",
                "levels[1].decoder.feedback"
            ]
        );
    }

    #[test]
    fn absurd_sizes_are_findings_not_overflows() {
        let mut config = tiny();
        config.levels[0].chunk_size = usize::MAX;
        config.levels[1].encoder.heads = usize::MAX;
        assert!(problems(&config).len() >= 3, "{:?}", lines(&config));
        let mut deep = tiny();
        deep.levels[1].encoder.layers = MAX_SIZE;
        assert_eq!(lines(&deep).len(), 1);
        let mut wide = tiny();
        wide.levels[1].encoder.ffn = MAX_SIZE;
        wide.levels[1].dim = MAX_SIZE;
        assert_eq!(lines(&wide).len(), 1, "{:?}", lines(&wide));
    }
}
