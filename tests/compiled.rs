//! What the compiler makes of a small two-level model, as people read it: the step program, every derived graph, the
//! certificate and the refusal, and the ONNX form. Reviewed snapshots; a change here is a change of the product.
#![allow(clippy::panic, reason = "a test fails by panicking")]

use photonc::export::onnx::{self, WeightLocation};
use photonc::export::target::Target;
use photonc::graph::{Graph, text};
use photonc::model::build;
use photonc::model::config::{
    Chunker, Converter, ConverterLayout, Feedback, LevelConfig, ModelConfig, Slot, StackConfig, StackOptions,
    Wiring,
};
use photonc::model::parameters::parameters;
use photonc::passes::choose_protocol::Protocol;
use photonc::passes::compile::{Compilation, Plan, compile, specialise};
use std::collections::BTreeMap;

/// The `paper` dialect at the smallest size that shows everything: two levels of chunks of two, one layer a stack.
fn small() -> ModelConfig {
    let stack = StackConfig {
        layers: 1,
        heads: 2,
        kv_heads: 1,
        head_dim: 4,
        ffn: 12,
        options: StackOptions::default(),
    };
    let level = |chunker, feedback| LevelConfig {
        chunk_size: 2,
        dim: 8,
        prefix: 2,
        chunker,
        encoder: stack,
        converter: Converter { layout: ConverterLayout::Linear, bias: true },
        decoder: stack,
        decoder_dim: 8,
        slot: Slot::None,
        projection: false,
        feedback,
        stream: None,
        encoder_window: None,
    };
    ModelConfig {
        vocab_size: 11,
        embed_dim: 4,
        tied_head: false,
        rms_norm_eps: 1e-5,
        rope_theta: 10000.0,
        max_position_embeddings: 64,
        levels: vec![
            level(Chunker::Concat, Feedback::Token),
            level(Chunker::Linear { norm: true, bias: true }, Feedback::Latent),
        ],
        wiring: Wiring::default(),
    }
}

fn compiled() -> Compilation {
    compile(&small(), &[Protocol::Recgen, Protocol::Hiergen]).expect("compiles")
}

fn print(graph: &Graph) -> String {
    text::print(graph)
}

#[test]
fn the_step_program_wires_both_protocols() {
    insta::assert_snapshot!("step", print(&build::step_program(&small()).expect("builds")));
}

#[test]
fn recgen_leaves_no_lower_encoder_in_the_step() {
    let step = specialise(&small(), Protocol::Recgen).expect("specialises");
    let text = print(&step);
    assert!(!text.contains("level1.encoder") && !text.contains("\"embed.weight\""), "{text}");
    insta::assert_snapshot!("step_recgen", text);
}

#[test]
fn every_derived_graph_reads_as_reviewed() {
    for (name, graph) in &compiled().graphs {
        insta::assert_snapshot!(format!("graph_{name}"), print(graph));
    }
}

#[test]
fn the_certificate_says_what_was_proved() {
    let compiled = compiled();
    let Plan::Distributed { certificate, .. } = &compiled.plans[&Protocol::Recgen] else {
        panic!("RecGen was not distributed")
    };
    insta::assert_snapshot!("certificate", serde_json::to_string_pretty(certificate).expect("serialises"));
    let Plan::Undistributed { declined, .. } = &compiled.plans[&Protocol::Hiergen] else {
        panic!("HierGen was distributed")
    };
    insta::assert_snapshot!("declined", declined.to_string());
}

#[test]
fn onnx_models_read_as_reviewed() {
    let mut end = 0;
    let stored: BTreeMap<String, WeightLocation> = parameters(&small())
        .into_iter()
        .map(|parameter| {
            let (offset_bytes, length_bytes) = (end, 4 * parameter.elements() as u64);
            end += length_bytes;
            let file = "weights/model.safetensors".to_owned();
            (parameter.name.clone(), WeightLocation { file, offset_bytes, length_bytes })
        })
        .collect();
    let compiled = compiled();
    for name in ["coarse", "expand", "reencode"] {
        let verified = compiled.graphs[name].verify().expect("verifies");
        let model = onnx::export(verified, Target::Portable, name, &|weight| stored.get(weight).cloned())
            .expect("exports");
        insta::assert_snapshot!(format!("onnx_{name}"), onnx::text::render(&model));
    }
}
