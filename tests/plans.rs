//! Launch plans of the CUDA runtime, made without a GPU: every graph lowers at every size, and the plans of the paper's
//! 600M model are reviewed snapshots.

use photonc::ir::attr::Scheme;
use photonc::ir::dim::{Bindings, Symbol};
use photonc::ir::dtype::Dtype;
use photonc::model::checkpoint::Checkpoint;
use photonc::model::dialect::DialectChoice;
use photonc::model::preset::preset;
use photonc::passes::choose_protocol::Protocol;
use photonc::passes::compile::{Compilation, PassOptions, compile, compile_with};
use photonc::passes::quantize_weights::Choice;
use photonc::runtime::launch::plan::weights::WeightLayout;
use photonc::runtime::launch::plan::{Call, Plan, PlanOptions, lower};
use std::collections::BTreeMap;
use std::path::Path;

fn paper() -> Compilation {
    let config = preset("paper-600m").expect("is a preset");
    compile(&config, &[Protocol::Recgen, Protocol::Hiergen]).expect("compiles")
}

fn layout(compilation: &Compilation) -> WeightLayout {
    WeightLayout::of(&compilation.graphs.values().collect::<Vec<_>>())
}

fn plan(compilation: &Compilation, graph: &str, [batch, meta]: [usize; 2], in_place: bool) -> Plan {
    let mut bindings = Bindings::default();
    bindings.bind(Symbol::Batch, batch);
    bindings.bind(Symbol::Meta, meta);
    bindings.bind(Symbol::Capacity, 136);
    let options = PlanOptions { in_place, ..PlanOptions::default() };
    let verified = compilation.graphs[graph].verify().expect("verifies");
    lower(verified, &bindings, Dtype::Bf16, &layout(compilation), &options).expect("lowers")
}

#[test]
fn the_plans_of_the_paper_600m_are_as_reviewed() {
    let compilation = paper();
    for (graph, sizes) in
        [("coarse", [1, 1]), ("coarse", [64, 1]), ("expand", [1, 8]), ("expand", [64, 4]), ("encode", [2, 8])]
    {
        let name = format!("{graph}_{}x{}", sizes[0], sizes[1]);
        insta::assert_snapshot!(name, plan(&compilation, graph, sizes, true).to_string());
    }
}

// Few rows read codes, many make the weight first: one at a time, in the memory of the plan.
#[test]
fn the_plans_of_weights_in_few_bits_are_as_reviewed() {
    let config = preset("paper-600m").expect("is a preset");
    let choice = |stack: &'static str, scheme| Choice { stack: stack.into(), scheme };
    let quantized =
        vec![choice("level2.encoder", Scheme::Int4), choice("level2.decoder.layer0", Scheme::Int8)];
    let options = PassOptions { quantized, ..PassOptions::default() };
    let compilation = compile_with(&config, &[Protocol::Recgen], options).expect("compiles");
    for rows in [1, 64] {
        let (plan, whole) =
            (plan(&compilation, "coarse", [rows, 1], true), plan(&paper(), "coarse", [rows, 1], true));
        // Gate and up of the encoder, the largest of the weights that are made, and the largest there is.
        let room = if rows == 1 { 0 } else { 8192 * 1664 * 2 };
        assert!(plan.arena_bytes <= whole.arena_bytes + room, "{} bytes", plan.arena_bytes);
        insta::assert_snapshot!(format!("coarse_codes_{rows}x1"), of_codes(&plan));
    }
}

/// The steps that read codes, each with how often there is one.
fn of_codes(plan: &Plan) -> String {
    let mut counts = BTreeMap::new();
    for step in &plan.steps {
        if matches!(step.call, Call::Codes(_) | Call::Dequantize(_)) {
            *counts.entry(step.call.title()).or_insert(0) += 1;
        }
    }
    counts.iter().map(|(title, count)| format!("{count:3} {title}\n")).collect()
}

// The trained example has windows of 33 keys, more than the kernels of windows hold.
#[test]
fn every_graph_lowers() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/english");
    let example = Checkpoint::open(&example, &DialectChoice::Recognise).expect("opens").config;
    let example = compile(&example, &[Protocol::Recgen, Protocol::Hiergen]).expect("compiles");
    for compilation in [paper(), example] {
        for graph in compilation.graphs.keys() {
            for sizes in [[1, 1], [3, 2], [70, 3]] {
                let plan = plan(&compilation, graph, sizes, false);
                assert!(!plan.steps.is_empty(), "{graph} does nothing");
            }
        }
    }
}
