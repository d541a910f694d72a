//! A model configuration as canonical `config.json`. Owns the canonical writing; reading it back belongs to `dialect`.

use serde_json::{Value, json};

use crate::model::config::{
    Chunker, Condition, ConverterLayout, Feedback, LevelConfig, ModelConfig, Rotation, Slot, StackConfig,
    Wiring,
};

/// The canonical `config.json` of a configuration: keys in a fixed order, levels bottom first. Reading it gives the same
/// configuration. A convolutional converter is written as `"layout": "conv_transpose"`; a linear one needs no key.
#[must_use]
pub fn config_json(config: &ModelConfig) -> Value {
    let mut json = json!({
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
    });
    // What a model of the paper has not is left out, so that its file stays as short as it was.
    if config.wiring != Wiring::default() {
        json["wiring"] = wiring_json(config.wiring);
    }
    json
}

fn wiring_json(wiring: Wiring) -> Value {
    let mut json = json!({
        "condition": match wiring.condition {
            Condition::Carried => "recon",
            Condition::Estimate => "estimate",
            Condition::State => "state",
            Condition::Predicted => "predicted",
        },
        "scaled_embedding": wiring.scaled_embedding,
        "final_norm": wiring.final_norm,
        "softcap": wiring.softcap.map(|cap| cap.get()),
        "tied_middle": wiring.tied_middle,
    });
    if wiring.tied_decoder_head {
        json["tied_decoder_head"] = json!(true);
    }
    if wiring.shifted_labels {
        json["shifted_labels"] = json!(true);
    }
    if let Some(layers) = wiring.predictor {
        json["predictor"] = json!({ "layers": layers });
    }
    json
}

fn level_json(level: &LevelConfig) -> Value {
    let mut decoder = stack_json(&level.decoder);
    decoder["dim"] = json!(level.decoder_dim);
    decoder["feedback"] = json!(match level.feedback {
        Feedback::Latent => "latent",
        Feedback::Token => "token",
        Feedback::Summary => "summary",
    });
    match level.slot {
        Slot::None => {}
        Slot::Repeat => decoder["slot"] = json!("repeat"),
        Slot::Zero => decoder["slot"] = json!("zero"),
    }
    if level.projection {
        decoder["projection"] = json!(true);
    }
    if let Some(size) = level.stream {
        decoder["stream"] = json!(size);
    }
    let mut json = json!({
        "chunk_size": level.chunk_size,
        "dim": level.dim,
        "prefix": level.prefix,
        "chunker": match level.chunker {
            Chunker::Concat => json!({"kind": "concat"}),
            Chunker::NormedEach => json!({"kind": "normed_each"}),
            Chunker::Linear { norm, bias } => json!({"kind": "linear", "norm": norm, "bias": bias}),
        },
        "encoder": stack_json(&level.encoder),
        "converter": match level.converter.layout {
            ConverterLayout::Linear => json!({"bias": level.converter.bias}),
            ConverterLayout::ConvTranspose => json!({"bias": level.converter.bias, "layout": "conv_transpose"}),
            ConverterLayout::Convolved { kernel } => {
                json!({"bias": level.converter.bias, "layout": "convolved", "kernel": kernel})
            }
            ConverterLayout::Narrowed { inner } => {
                json!({"bias": level.converter.bias, "layout": "narrowed", "inner": inner})
            }
        },
        "decoder": decoder,
    });
    if let Some(size) = level.encoder_window {
        json["encoder_window"] = json!(size);
    }
    json
}

fn stack_json(stack: &StackConfig) -> Value {
    let mut json = json!({
        "layers": stack.layers,
        "heads": stack.heads,
        "kv_heads": stack.kv_heads,
        "head_dim": stack.head_dim,
        "ffn": stack.ffn,
    });
    let options = stack.options;
    let mut add = |key: &str, value: Value| json[key] = value;
    let reals = [
        ("norm_eps", options.norm_eps),
        ("rope_theta", options.theta),
        ("softmax_scale", options.softmax_scale),
    ];
    for (key, value) in reals {
        value.into_iter().for_each(|value| add(key, json!(value.get())));
    }
    match options.rotation {
        Rotation::All => {}
        Rotation::First(count) => add("rotated", json!(count)),
        Rotation::None => add("position", json!("nope")),
    }
    options.window.into_iter().for_each(|size| add("window", json!(size)));
    if options.full_every > 0 {
        add("full_every", json!(options.full_every));
    }
    let flags = [
        ("qk_norm", options.qk_norm),
        ("sinks", options.sinks),
        ("output_gate", options.output_gate),
        ("residual_scales", options.residual_scales),
    ];
    for (key, _) in flags.into_iter().filter(|(_, flag)| *flag) {
        add(key, json!(true));
    }
    if let Some(latent) = options.latent {
        add("attention", json!("mla"));
        add(
            "latent",
            json!({
                "query_rank": latent.query_rank,
                "kv_rank": latent.kv_rank,
                "nope": latent.nope,
                "rope": latent.rope,
                "value": latent.value,
            }),
        );
    }
    if let Some(experts) = options.experts {
        add(
            "experts",
            json!({
                "enabled": true,
                "first_layer": experts.first_layer,
                "count": experts.count,
                "top_k": experts.top_k,
                "inner": experts.inner,
                "shared_inner": experts.shared,
                "scores": experts.scores.name(),
                "bias": experts.bias,
                "normalize": experts.normalize,
                "factor": experts.factor.get(),
                "groups": experts.groups,
                "kept_groups": experts.kept_groups,
            }),
        );
    }
    json
}
