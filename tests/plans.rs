//! Launch plans of the CUDA runtime, made without a GPU: every graph lowers at every size, and the plans of the paper's
//! 600M model are reviewed snapshots.

use photonc::ir::dim::{Bindings, Symbol};
use photonc::ir::dtype::Dtype;
use photonc::model::checkpoint::Checkpoint;
use photonc::model::dialect::DialectChoice;
use photonc::model::preset::preset;
use photonc::passes::choose_protocol::Protocol;
use photonc::passes::compile::{Compilation, compile};
use photonc::runtime::cuda::chain::{Chain, chains};
use photonc::runtime::cuda::device::Properties;
use photonc::runtime::cuda::plan::weights::WeightLayout;
use photonc::runtime::cuda::plan::{Call, Plan, PlanOptions, Tuning, lower};
use std::path::Path;

fn paper() -> Compilation {
    let config = preset("paper-600m").expect("is a preset");
    compile(&config, &[Protocol::Recgen, Protocol::Hiergen]).expect("compiles")
}

fn layout(compilation: &Compilation) -> WeightLayout {
    WeightLayout::of(&compilation.graphs.values().collect::<Vec<_>>())
}

fn plan(compilation: &Compilation, graph: &str, sizes: [usize; 2], in_place: bool) -> Plan {
    plan_of(compilation, graph, sizes, Dtype::Bf16, &PlanOptions { in_place, ..PlanOptions::default() })
}

fn plan_of(
    compilation: &Compilation,
    graph: &str,
    [batch, meta]: [usize; 2],
    dtype: Dtype,
    options: &PlanOptions,
) -> Plan {
    let mut bindings = Bindings::default();
    bindings.bind(Symbol::Batch, batch);
    bindings.bind(Symbol::Meta, meta);
    bindings.bind(Symbol::Capacity, 136);
    let verified = compilation.graphs[graph].verify().expect("verifies");
    lower(verified, &bindings, dtype, &layout(compilation), options).expect("lowers")
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

fn h100() -> Properties {
    Properties {
        name: "H100".to_owned(),
        sm: 90,
        multiprocessors: 132,
        memory_bytes: 80 << 30,
        shared_bytes: 232_448,
        allocation_bytes: 256,
    }
}

/// Launches and products of a plan whose chains are one launch each.
fn launches(plan: &Plan, chains: &[Chain]) -> usize {
    plan.steps.len() - chains.iter().map(|chain| chain.steps.len() - 1).sum::<usize>()
}

#[test]
fn a_coarse_step_of_few_rows_is_one_launch() {
    let compilation = paper();
    for (batch, expected) in [(1, (1, 1)), (4, (1, 1)), (8, (1, 24))] {
        let plan = plan(&compilation, "coarse", [batch, 1], true);
        let found = chains(&plan, &h100());
        assert_eq!((found.len(), launches(&plan, &found)), expected, "batch {batch}: {found:?}");
        assert_eq!(found[0].planned.shape.name, "chain_m8");
        assert_eq!(found[0].planned.shape.grid, [132, 1, 1]);
    }
}

// What draws a token is a launch of its own.
#[test]
fn chains_end_at_samplers_and_begin_again_after_them() {
    let compilation = paper();
    let plan = plan(&compilation, "expand", [1, 1], true);
    let found = chains(&plan, &h100());
    let draws = plan.steps.iter().filter(|step| matches!(step.call, Call::Sample(_))).count();
    assert_eq!((found.len(), draws), (4, 4));
    for (at, step) in plan.steps.iter().enumerate() {
        let chained = found.iter().any(|chain| chain.steps.contains(&at));
        let possible = matches!(step.call, Call::Linear(_) | Call::Norm(_) | Call::AttendWindow(..));
        assert_eq!(chained, possible, "{}: {:?}", step.scope, step.call);
    }
}

#[test]
fn many_rows_long_types_and_small_devices_have_no_chains() {
    let compilation = paper();
    let many = plan(&compilation, "coarse", [9, 1], true);
    assert!(chains(&many, &h100()).iter().all(|chain| chain.steps.len() < many.steps.len()));
    let wide = plan(&compilation, "coarse", [64, 1], true);
    assert_eq!(chains(&wide, &h100()), []);
    let exact = plan_of(&compilation, "coarse", [1, 1], Dtype::F32, &PlanOptions::default());
    assert_eq!(chains(&exact, &h100()), []);
    let few = plan(&compilation, "coarse", [1, 1], true);
    assert_eq!(chains(&few, &Properties { shared_bytes: 101_376, ..h100() }), []);
    let tuning = Tuning { chained_rows: 0, ..Tuning::default() };
    let options = PlanOptions { tuning, ..PlanOptions::default() };
    assert_eq!(chains(&plan_of(&compilation, "coarse", [1, 1], Dtype::Bf16, &options), &h100()), []);
}
