//! Sizes of the compiled graphs of the paper's 600M model: ONNX nodes by level and operator, and what a run costs.
//! Reviewed snapshots; a growing number is a regression of the passes or of the lowering.

use photonc::export::onnx::{self, WeightLocation};
use photonc::export::target::Target;
use photonc::graph::Graph;
use photonc::ir::cost::Cost;
use photonc::ir::dim::{Bindings, Symbol};
use photonc::model::config::ModelConfig;
use photonc::model::parameters::{Parameter, parameters};
use photonc::model::preset::preset;
use photonc::passes::choose_protocol::Protocol;
use photonc::passes::compile::{Compilation, PassOptions, compile_with};
use photonc::passes::opt_level::OptLevel;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

fn paper() -> ModelConfig {
    preset("paper-600m").expect("is a preset")
}

/// Most nodes that the graphs of a default export may have.
const LIMITS: [(&str, usize); 5] =
    [("coarse", 500), ("expand", 560), ("score", 750), ("encode", 650), ("reencode", 250)];

fn compiled(level: OptLevel) -> Compilation {
    let protocols = [Protocol::Recgen, Protocol::Hiergen];
    compile_with(&paper(), &protocols, PassOptions::at(level)).expect("compiles")
}

/// Nodes by operator, how many of them depend on weights alone, and whether all are named by scope.
struct Counts {
    operators: BTreeMap<String, usize>,
    of_weights: usize,
}

impl Counts {
    fn total(&self) -> usize {
        self.operators.values().sum()
    }
}

/// Weights one after the other in canonical order, as the store of a bundle has those that graphs read together.
fn stored() -> BTreeMap<String, WeightLocation> {
    let mut end = 0;
    let place = |parameter: &Parameter| {
        let (offset_bytes, length_bytes) = (end, 4 * parameter.elements() as u64);
        end += length_bytes;
        let file = "weights.safetensors".to_owned();
        (parameter.name.clone(), WeightLocation { file, offset_bytes, length_bytes })
    };
    parameters(&paper()).iter().map(place).collect()
}

fn counts(graph: &Graph, stored: &BTreeMap<String, WeightLocation>) -> Counts {
    let locate = |name: &str| stored.get(name).cloned();
    let verified = graph.verify().expect("verifies");
    let model = onnx::export(verified, Target::Portable, "", &locate).expect("exports");
    let model = model.graph.expect("has a graph");
    let mut fixed: HashSet<&str> = model.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let mut counts = Counts { operators: BTreeMap::new(), of_weights: 0 };
    for node in &model.node {
        assert!(node.name.contains('/'), "`{}` is named by no scope", node.name);
        let refused = ["If", "Loop", "Scan"];
        assert!(node.domain.is_empty() && !refused.contains(&node.op_type.as_str()), "{}", node.op_type);
        *counts.operators.entry(node.op_type.clone()).or_default() += 1;
        if node.input.iter().all(|input| fixed.contains(input.as_str())) {
            counts.of_weights += 1;
            fixed.extend(node.output.iter().map(String::as_str));
        }
    }
    counts
}

#[test]
fn graphs_have_the_reviewed_number_of_nodes() {
    let stored = stored();
    let by_level = OptLevel::ALL.map(compiled);
    let mut text = String::from("graph: O0, O1, O2 (of which computed from weights alone), O3 (the same)\n");
    let mut operators = String::new();
    for name in by_level[2].graphs.keys() {
        let [o0, o1, o2, o3] = by_level.each_ref().map(|level| counts(&level.graphs[name], &stored));
        assert!(
            o2.total() <= o1.total() && o1.total() <= o0.total() && o3.total() <= o2.total(),
            "{name} grows"
        );
        if let Some((_, limit)) = LIMITS.iter().find(|(graph, _)| graph == name) {
            assert!(o2.total() <= *limit, "{name}: {} nodes, expected at most {limit}", o2.total());
        }
        let [before, after] = [&o2, &o3].map(|counts| format!("{} ({})", counts.total(), counts.of_weights));
        writeln!(text, "{name}: {}, {}, {before}, {after}", o0.total(), o1.total()).expect("writes");
        let items: Vec<String> = o2.operators.iter().map(|(op, count)| format!("{op} {count}")).collect();
        writeln!(operators, "{name}: {}", items.join(", ")).expect("writes");
    }
    insta::assert_snapshot!("node_counts", format!("{text}\nO2 by operator\n{operators}"));
}

#[test]
fn optimised_graphs_do_less_work() {
    let mut bindings = Bindings::default();
    for (symbol, size) in [(Symbol::Batch, 1), (Symbol::Meta, 1), (Symbol::Capacity, 128)] {
        bindings.bind(symbol, size);
    }
    let mut text =
        String::from("graph: MFLOP and kB of a run at O0, at O2 (batch 1, 1 meta-context, 128 slots)\n");
    let [plain, fused] = [OptLevel::O0, OptLevel::O2].map(compiled);
    for (name, graph) in &fused.graphs {
        let [Cost { flops, bytes }, after] =
            [&plain.graphs[name], graph].map(|graph| graph.cost(&bindings).expect("all symbols are bound"));
        assert!(after.flops <= flops && after.bytes <= bytes, "{name}: {after:?}");
        if name == "expand" {
            assert!(after.flops < flops && after.bytes < bytes, "{name}");
        }
        let mega = |flops: u64| flops as f64 / 1e6;
        writeln!(
            text,
            "{name}: {:.2} and {}, {:.2} and {}",
            mega(flops),
            bytes / 1000,
            mega(after.flops),
            after.bytes / 1000
        )
        .expect("writes");
    }
    insta::assert_snapshot!("costs", text);
}
