//! Named model sizes. Owns the numbers of the paper's three models, of one of their form that a laptop runs (29 million
//! parameters), and of a tiny one for tests; no weights.

use crate::model::config::{
    Chunker, Converter, ConverterLayout, Feedback, LevelConfig, ModelConfig, Slot, StackConfig, StackOptions,
    Wiring,
};

/// Names that [`preset`] knows.
pub const PRESETS: [&str; 5] = ["paper-600m", "paper-900m", "paper-1.2b", "paper-30m", "tiny"];

/// Configuration of a named size; `None` for a name not in [`PRESETS`].
///
/// Source: PHOTON paper (Ichikawa et al., arXiv 2512.20687), tables 10-12; a converter prefix of 2 and a normalised
/// second chunker are the forms whose parameter counts equal those tables.
#[must_use]
pub fn preset(name: &str) -> Option<ModelConfig> {
    let (vocab_size, width, stack) = match name {
        "paper-600m" => (32_000, 1664, uniform_stack(4, 32, 52, 4096)),
        "paper-900m" => (32_000, 1792, uniform_stack(5, 32, 56, 4608)),
        "paper-1.2b" => (32_000, 1920, uniform_stack(6, 32, 60, 5120)),
        "paper-30m" => (8_000, 384, uniform_stack(3, 8, 48, 1024)),
        "tiny" => (256, 64, uniform_stack(2, 4, 16, 128)),
        _ => return None,
    };
    Some(paper_model(vocab_size, width, stack))
}

fn uniform_stack(layers: usize, heads: usize, head_dim: usize, ffn: usize) -> StackConfig {
    StackConfig { layers, heads, kv_heads: heads, head_dim, ffn, options: StackOptions::default() }
}

fn paper_model(vocab_size: usize, width: usize, stack: StackConfig) -> ModelConfig {
    let level = |chunker, feedback| LevelConfig {
        chunk_size: 4,
        dim: width,
        prefix: 2,
        chunker,
        encoder: stack,
        converter: Converter { layout: ConverterLayout::Linear, bias: true },
        decoder: stack,
        decoder_dim: width,
        slot: Slot::None,
        projection: false,
        feedback,
        stream: None,
        encoder_window: None,
    };
    ModelConfig {
        vocab_size,
        embed_dim: width / 4,
        tied_head: false,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        max_position_embeddings: 2048,
        levels: vec![
            level(Chunker::Concat, Feedback::Token),
            level(Chunker::Linear { norm: true, bias: true }, Feedback::Latent),
        ],
        wiring: Wiring::default(),
    }
}
