//! The tensors a model has: names, shapes and what each axis is. Owns the canonical names; reads no file. How another
//! layout names the same tensors belongs to `dialect`.

use crate::model::config::{Chunker, ConverterLayout, Feedback, LevelConfig, ModelConfig, StackConfig};

/// One tensor of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Canonical name, `levels.0.encoder.layers.3.self_attn.q_proj.weight`.
    pub name: String,
    /// Sizes of the axes; a linear map is `[out, in]`.
    pub shape: Vec<usize>,
    /// What each axis is, as `heads 32 x head_dim 52`; one entry per axis.
    pub axes: Vec<String>,
    /// Scope of the module it belongs to, `level1.encoder`.
    pub module: String,
    /// Whether the paper's totals include it: start latents they do not.
    pub counted: bool,
}

impl Parameter {
    /// Number of elements.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Name of the tensor that holds the weight of `name`: a tied head is the embedding table.
#[must_use]
pub fn resolve<'a>(config: &ModelConfig, name: &'a str) -> &'a str {
    if config.tied_head && name == "lm_head.weight" { "embed.weight" } else { name }
}

/// Every tensor of a model in canonical order: embeddings, then the levels bottom first, then the head. A tied head has
/// no tensor; `decoder_embed.weight` exists where level 1 reads tokens back.
///
/// Source: PHOTON paper (Ichikawa et al., arXiv 2512.20687), section 3; counts as in its tables 10-12.
#[must_use]
pub fn parameters(config: &ModelConfig) -> Vec<Parameter> {
    let mut list = List(Vec::new());
    let vocab = Axis::named("vocab_size", config.vocab_size);
    list.add("embed", "embed.weight".into(), &[vocab.clone(), Axis::named("embed_dim", config.embed_dim)]);
    let first = config.levels.first();
    if let Some(level) = first.filter(|level| level.feedback == Feedback::Token) {
        list.add("decoder_embed", "decoder_embed.weight".into(), &[vocab.clone(), decoder_width(level)]);
    }
    for (index, level) in config.levels.iter().enumerate() {
        level_parameters(config.dim(index), index, level, &mut list);
    }
    if let Some(level) = first.filter(|_| !config.tied_head) {
        list.add("lm_head", "lm_head.weight".into(), &[vocab, decoder_width(level)]);
    }
    list.0
}

/// An axis: its size and what the size is.
#[derive(Clone)]
struct Axis(usize, String);

impl Axis {
    fn named(name: &str, size: usize) -> Self {
        Axis(size, format!("{name} {size}"))
    }

    /// Validated sizes stay below 2^31, so the product of two cannot overflow.
    fn product(outer: (&str, usize), inner: (&str, usize)) -> Self {
        Axis(outer.1.saturating_mul(inner.1), format!("{} {} x {} {}", outer.0, outer.1, inner.0, inner.1))
    }
}

struct List(Vec<Parameter>);

impl List {
    fn add(&mut self, module: &str, name: String, axes: &[Axis]) {
        self.0.push(Parameter {
            name,
            shape: axes.iter().map(|axis| axis.0).collect(),
            axes: axes.iter().map(|axis| axis.1.clone()).collect(),
            module: module.to_owned(),
            counted: !module.ends_with(".start"),
        });
    }
}

fn decoder_width(level: &LevelConfig) -> Axis {
    Axis::named("decoder width", level.decoder_dim)
}

fn level_parameters(below: usize, index: usize, level: &LevelConfig, list: &mut List) {
    let module = |part: &str| format!("level{}.{part}", index + 1);
    let name = |rest: &str| format!("levels.{index}.{rest}");
    let dim = Axis::named("dim", level.dim);
    if let Chunker::Linear { norm, bias } = level.chunker {
        let chunk = Axis::product(("chunk_size", level.chunk_size), ("width below", below));
        let module = module("chunker");
        if norm {
            list.add(&module, name("chunker.norm.weight"), std::slice::from_ref(&chunk));
        }
        list.add(&module, name("chunker.proj.weight"), &[dim.clone(), chunk]);
        if bias {
            list.add(&module, name("chunker.proj.bias"), std::slice::from_ref(&dim));
        }
    }
    stack_parameters(&module("encoder"), &name("encoder"), &level.encoder, &dim, list);
    converter_parameters(&module("converter"), &name("converter"), level, list);
    stack_parameters(&module("decoder"), &name("decoder"), &level.decoder, &decoder_width(level), list);
    list.add(&module("start"), name("start"), &[dim]);
}

fn converter_parameters(module: &str, name: &str, level: &LevelConfig, list: &mut List) {
    let dim = Axis::named("dim", level.dim);
    let (weight, bias) = match level.converter.layout {
        ConverterLayout::Linear => {
            let rows = Axis::product(("prefix", level.prefix), ("decoder width", level.decoder_dim));
            (vec![rows.clone(), dim], rows)
        }
        ConverterLayout::ConvTranspose => {
            (vec![dim, decoder_width(level), Axis::named("prefix", level.prefix)], decoder_width(level))
        }
    };
    list.add(module, format!("{name}.weight"), &weight);
    if level.converter.bias {
        list.add(module, format!("{name}.bias"), &[bias]);
    }
}

fn stack_parameters(module: &str, name: &str, stack: &StackConfig, width: &Axis, list: &mut List) {
    let queries = Axis::product(("heads", stack.heads), ("head_dim", stack.head_dim));
    let keys = Axis::product(("kv_heads", stack.kv_heads), ("head_dim", stack.head_dim));
    let hidden = Axis::named("ffn", stack.ffn);
    for layer in 0..stack.layers {
        let mut add = |part: &str, axes: &[Axis]| {
            list.add(module, format!("{name}.layers.{layer}.{part}.weight"), axes)
        };
        add("input_layernorm", std::slice::from_ref(width));
        add("self_attn.q_proj", &[queries.clone(), width.clone()]);
        add("self_attn.k_proj", &[keys.clone(), width.clone()]);
        add("self_attn.v_proj", &[keys.clone(), width.clone()]);
        add("self_attn.o_proj", &[width.clone(), queries.clone()]);
        add("post_attention_layernorm", std::slice::from_ref(width));
        add("mlp.gate_proj", &[hidden.clone(), width.clone()]);
        add("mlp.up_proj", &[hidden.clone(), width.clone()]);
        add("mlp.down_proj", &[width.clone(), hidden.clone()]);
    }
    list.add(module, format!("{name}.norm.weight"), std::slice::from_ref(width));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::preset::preset;

    #[test]
    fn names_are_unique_and_axes_match_shapes() {
        let list = parameters(&preset("paper-600m").expect("`paper-600m` is a preset"));
        let mut names: Vec<&str> = list.iter().map(|parameter| parameter.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), list.len());
        assert!(list.iter().all(|parameter| parameter.shape.len() == parameter.axes.len()));
    }

    /// With latent feedback nothing reads tokens on the decoder side; a tied head has no tensor of its own.
    #[test]
    fn embeddings_follow_feedback_and_tying() {
        let mut config = preset("tiny").expect("`tiny` is a preset");
        let has = |config: &ModelConfig, name: &str| {
            parameters(config).iter().any(|parameter| parameter.name == name)
        };
        assert!(has(&config, "decoder_embed.weight") && has(&config, "lm_head.weight"));
        config.levels[0].feedback = Feedback::Latent;
        config.tied_head = true;
        assert!(!has(&config, "decoder_embed.weight") && !has(&config, "lm_head.weight"));
        assert_eq!(resolve(&config, "lm_head.weight"), "embed.weight");
    }
}
