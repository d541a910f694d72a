//! The tensors a model has: names, shapes and what each axis is. Owns the canonical names; reads no file. How another
//! layout names the same tensors belongs to `dialect`.

use crate::model::config::{
    Chunker, ConverterLayout, ExpertConfig, Feedback, LatentAttention, LevelConfig, ModelConfig, StackConfig,
};

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
    match name {
        "lm_head.weight" if config.tied_head => "embed.weight",
        "lm_head.weight" if config.wiring.tied_decoder_head => "decoder_embed.weight",
        name => name,
    }
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
        if config.tensors_of(index + 1) == index {
            level_parameters(config, index, level, &mut list);
        }
    }
    if let (Some(stack), Some(top)) = (config.predictor(), config.levels.last()) {
        let dim = Axis::named("dim", top.dim);
        stack_parameters("predictor", "predictor", &stack, &dim, &mut list);
        list.add("predictor", "predictor.proj.weight".into(), &[dim.clone(), dim]);
    }
    if let Some(level) = first.filter(|_| config.wiring.final_norm) {
        list.add("final_norm", "final_norm.weight".into(), &[decoder_width(level)]);
    }
    if let Some(level) = first.filter(|_| !config.tied_head && !config.wiring.tied_decoder_head) {
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

fn level_parameters(config: &ModelConfig, index: usize, level: &LevelConfig, list: &mut List) {
    let below = config.dim(index);
    let module = |part: &str| format!("level{}.{part}", index + 1);
    let name = |rest: &str| format!("levels.{index}.{rest}");
    let dim = Axis::named("dim", level.dim);
    let chunk = Axis::product(("chunk_size", level.chunk_size), ("width below", below));
    if level.chunker == Chunker::NormedEach {
        let module = module("chunker");
        list.add(&module, name("chunker.norm.weight"), &[Axis::named("width below", below)]);
        list.add(&module, name("chunker.proj.weight"), &[dim.clone(), chunk.clone()]);
        list.add(&module, name("chunker.out_norm.weight"), std::slice::from_ref(&dim));
    }
    if let Chunker::Linear { norm, bias } = level.chunker {
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
    if level.projection {
        let width = decoder_width(level);
        list.add(&module("decoder"), name("decoder.proj.weight"), &[width.clone(), width]);
    }
    if config.has_start(index + 1) {
        list.add(&module("start"), name("start"), &[dim]);
    }
}

fn converter_parameters(module: &str, name: &str, level: &LevelConfig, list: &mut List) {
    let dim = Axis::named("dim", level.dim);
    let (weight, bias) = match level.converter.layout {
        ConverterLayout::Linear => {
            let rows = Axis::product(("prefix", level.prefix), ("decoder width", level.decoder_dim));
            (vec![rows.clone(), dim], rows)
        }
        ConverterLayout::Convolved { kernel } => {
            let width = decoder_width(level);
            let rows = Axis::product(("prefix", level.prefix), ("decoder width", level.decoder_dim));
            let kernel = Axis::named("kernel", kernel.min(level.prefix));
            list.add(module, format!("{name}.norm.weight"), std::slice::from_ref(&dim));
            list.add(module, format!("{name}.fanout.weight"), &[rows, dim]);
            list.add(
                module,
                format!("{name}.conv.weight"),
                &[width.clone(), Axis::named("channel", 1), kernel],
            );
            list.add(module, format!("{name}.out_norm.weight"), &[width]);
            return;
        }
        ConverterLayout::Narrowed { inner } => {
            let rows = Axis::product(("prefix", level.prefix), ("inner", inner));
            let inner = Axis::named("inner", inner);
            list.add(module, format!("{name}.proj_in.weight"), &[inner.clone(), dim]);
            list.add(module, format!("{name}.norm.weight"), std::slice::from_ref(&inner));
            let kernel = Axis::named("kernel", 1);
            list.add(module, format!("{name}.rows.weight"), &[rows.clone(), inner.clone(), kernel]);
            list.add(module, format!("{name}.rows.bias"), &[rows]);
            list.add(module, format!("{name}.proj_out.weight"), &[decoder_width(level), inner]);
            return;
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
    let hidden = Axis::named("ffn", stack.ffn);
    for layer in 0..stack.layers {
        let mut add =
            |part: &str, axes: &[Axis]| list.add(module, format!("{name}.layers.{layer}.{part}"), axes);
        add("input_layernorm.weight", std::slice::from_ref(width));
        attention_parameters(stack, width, &mut add);
        add("post_attention_layernorm.weight", std::slice::from_ref(width));
        match stack.experts_of(layer) {
            Some(experts) => expert_parameters(&experts, width, &mut add),
            None => {
                add("mlp.gate_proj.weight", &[hidden.clone(), width.clone()]);
                add("mlp.up_proj.weight", &[hidden.clone(), width.clone()]);
                add("mlp.down_proj.weight", &[width.clone(), hidden.clone()]);
            }
        }
        if stack.options.residual_scales {
            for part in ["attn_keep", "attn_add", "mlp_keep", "mlp_add"] {
                add(&format!("residual.{part}"), std::slice::from_ref(width));
            }
        }
    }
    list.add(module, format!("{name}.norm.weight"), std::slice::from_ref(width));
}

fn attention_parameters(stack: &StackConfig, width: &Axis, add: &mut impl FnMut(&str, &[Axis])) {
    let queries = Axis::product(("heads", stack.heads), ("head_dim", stack.head_dim));
    let keys = Axis::product(("kv_heads", stack.kv_heads), ("head_dim", stack.head_dim));
    let values = Axis::product(("heads", stack.heads), ("value width", stack.value_dim()));
    match stack.options.latent {
        Some(latent) => latent_parameters(stack, latent, [width, &queries], add),
        None => {
            add("self_attn.q_proj.weight", &[queries, width.clone()]);
            add("self_attn.k_proj.weight", &[keys.clone(), width.clone()]);
            add("self_attn.v_proj.weight", &[keys, width.clone()]);
        }
    }
    let options = &stack.options;
    if options.qk_norm {
        for part in ["q_norm", "k_norm"] {
            add(&format!("self_attn.{part}.weight"), &[Axis::named("head_dim", stack.head_dim)]);
        }
    }
    let heads = Axis::named("heads", stack.heads);
    if options.sinks {
        add("self_attn.sinks", std::slice::from_ref(&heads));
    }
    if options.output_gate {
        add("self_attn.gate.weight", &[heads, width.clone()]);
    }
    add("self_attn.o_proj.weight", &[width.clone(), values]);
}

fn latent_parameters(
    stack: &StackConfig,
    latent: LatentAttention,
    [width, queries]: [&Axis; 2],
    add: &mut impl FnMut(&str, &[Axis]),
) {
    match latent.query_rank {
        Some(rank) => {
            let rank = Axis::named("query rank", rank);
            add("self_attn.q_a_proj.weight", &[rank.clone(), width.clone()]);
            add("self_attn.q_a_norm.weight", std::slice::from_ref(&rank));
            add("self_attn.q_b_proj.weight", &[queries.clone(), rank]);
        }
        None => add("self_attn.q_proj.weight", &[queries.clone(), width.clone()]),
    }
    let rank = Axis::named("kv rank", latent.kv_rank);
    let joined = latent.kv_rank.saturating_add(latent.rope);
    add("self_attn.kv_a_proj.weight", &[Axis::named("kv rank + rotated", joined), width.clone()]);
    add("self_attn.kv_a_norm.weight", std::slice::from_ref(&rank));
    let each = latent.nope.saturating_add(latent.value);
    let made = Axis::product(("heads", stack.heads), ("key and value width", each));
    add("self_attn.kv_b_proj.weight", &[made, rank]);
}

fn expert_parameters(experts: &ExpertConfig, width: &Axis, add: &mut impl FnMut(&str, &[Axis])) {
    let (count, inner) = (Axis::named("experts", experts.count), Axis::named("inner", experts.inner));
    add("mlp.router.weight", &[count.clone(), width.clone()]);
    if experts.bias {
        add("mlp.router.bias", std::slice::from_ref(&count));
    }
    let both = Axis::product(("gate and up", 2), ("inner", experts.inner));
    add("mlp.experts.gate_up", &[count.clone(), width.clone(), both]);
    add("mlp.experts.down", &[count, inner, width.clone()]);
    if experts.shared > 0 {
        let shared = Axis::named("shared inner", experts.shared);
        add("mlp.shared.gate_proj.weight", &[shared.clone(), width.clone()]);
        add("mlp.shared.up_proj.weight", &[shared.clone(), width.clone()]);
        add("mlp.shared.down_proj.weight", &[width.clone(), shared]);
    }
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
