//! A model configuration as canonical `config.json`. Owns the canonical writing; reading it back belongs to `dialect`.

use serde_json::{Value, json};

use crate::model::config::{Chunker, ConverterLayout, Feedback, LevelConfig, ModelConfig, StackConfig};

/// The canonical `config.json` of a configuration: keys in a fixed order, levels bottom first. Reading it gives the same
/// configuration. A convolutional converter is written as `"layout": "conv_transpose"`; a linear one needs no key.
#[must_use]
pub fn config_json(config: &ModelConfig) -> Value {
    json!({
        "model_type": "photon",
        "dialect": "paper",
        "vocab_size": config.vocab_size,
        "embed_dim": config.embed_dim,
        "decoder_embed_dim": config.levels.first().map(|level| level.decoder_dim),
        "tie_word_embeddings": config.tied_head,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "max_position_embeddings": config.max_position_embeddings,
        "levels": config.levels.iter().map(level_json).collect::<Vec<_>>(),
    })
}

fn level_json(level: &LevelConfig) -> Value {
    let mut decoder = stack_json(&level.decoder);
    decoder["dim"] = json!(level.decoder_dim);
    decoder["feedback"] = json!(match level.feedback {
        Feedback::Latent => "latent",
        Feedback::Token => "token",
    });
    json!({
        "chunk_size": level.chunk_size,
        "dim": level.dim,
        "prefix": level.prefix,
        "chunker": match level.chunker {
            Chunker::Concat => json!({"kind": "concat"}),
            Chunker::Linear { norm, bias } => json!({"kind": "linear", "norm": norm, "bias": bias}),
        },
        "encoder": stack_json(&level.encoder),
        "converter": match level.converter.layout {
            ConverterLayout::Linear => json!({"bias": level.converter.bias}),
            ConverterLayout::ConvTranspose => json!({"bias": level.converter.bias, "layout": "conv_transpose"}),
        },
        "decoder": decoder,
    })
}

fn stack_json(stack: &StackConfig) -> Value {
    json!({
        "layers": stack.layers,
        "heads": stack.heads,
        "kv_heads": stack.kv_heads,
        "head_dim": stack.head_dim,
        "ffn": stack.ffn,
    })
}
