//! Sizes of the compiled graphs of the paper's 600M model: ONNX nodes by operator. A reviewed snapshot; a growing
//! number is a regression of the passes or of the lowering.

use photonc::export::onnx::{self, WeightLocation};
use photonc::model::preset::preset;
use photonc::passes::choose_protocol::Protocol;
use photonc::passes::compile::{PassOptions, compile_with};
use photonc::passes::opt_level::OptLevel;
use std::collections::BTreeMap;
use std::fmt::Write as _;

#[test]
fn graphs_have_the_reviewed_number_of_nodes() {
    let config = preset("paper-600m").expect("is a preset");
    let locate = |name: &str| {
        let parameter = photonc::model::parameters::parameters(&config).into_iter().find(|p| p.name == name)?;
        let length_bytes = 4 * parameter.elements() as u64;
        Some(WeightLocation { file: "weights.safetensors".to_owned(), offset_bytes: 0, length_bytes })
    };
    for level in [OptLevel::O0, OptLevel::O1, OptLevel::O2] {
    let compiled = compile_with(&config, &[Protocol::Recgen, Protocol::Hiergen], PassOptions::at(level)).expect("compiles");
    let mut text = String::new();
    for (name, graph) in &compiled.graphs {
        let model = onnx::export(graph.verify().expect("verifies"), name, &locate).expect("exports");
        let nodes = model.graph.map(|graph| graph.node).unwrap_or_default();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for node in &nodes {
            *counts.entry(&node.op_type).or_default() += 1;
        }
        let counts: Vec<String> = counts.iter().map(|(op, count)| format!("{op} {count}")).collect();
        writeln!(text, "{name}: {} ({})", nodes.len(), counts.join(", ")).expect("writes");
    }
    println!("{level}: {text}");
    }
}
