//! That what remains fails, that no move makes it smaller, and that the rewrite found is the one.

use super::{bisect, candidates, reduce};
use crate::model::preset::preset;
use crate::passes::Pass;
use crate::passes::choose_protocol::Protocol;
use crate::passes::compile::{PassOptions, compile_with, specialise};
use crate::passes::opt_level::OptLevel;
use crate::passes::simplify_unit_transposes::SimplifyUnitTransposes;
use photonc_graph::graph::{Graph, text};
use photonc_graph::ir::op::{Op, OpKind};
use std::convert::Infallible;

fn has(graph: &Graph, kinds: &[OpKind]) -> bool {
    kinds.iter().all(|kind| !graph.select(|op| op.kind() == *kind).is_empty())
}

fn expand(level: OptLevel) -> Graph {
    let config = preset("tiny").expect("a preset");
    let options = PassOptions::at(level);
    let mut compiled = compile_with(&config, &[Protocol::Recgen], options).expect("compiles");
    compiled.graphs.swap_remove("expand").expect("a graph")
}

fn minimal(graph: &Graph, fails: impl Fn(&Graph) -> bool) -> Graph {
    let mut asked = |graph: &Graph| -> Result<bool, Infallible> {
        assert!(graph.verify().is_ok(), "every candidate is valid");
        Ok(fails(graph))
    };
    let Ok(reduction) = reduce(graph, &mut asked);
    assert!(fails(&reduction.graph));
    assert!(!candidates(&reduction.graph).any(|smaller| fails(&smaller)), "no single move is left");
    assert!(reduction.tried < 2000, "{} tries", reduction.tried);
    reduction.graph
}

#[test]
fn a_compiled_graph_shrinks_to_what_fails() {
    let attention = minimal(&expand(OptLevel::O0), |graph| has(graph, &[OpKind::Attention]));
    insta::assert_snapshot!("attention", text::print(&attention));
    // Two operations, one upstream of the other, keep the way between them.
    let fed = |graph: &Graph| {
        let norms = graph.descendants(graph.select(|op| matches!(op, Op::RmsNorm { .. })));
        graph.select(|op| matches!(op, Op::SwiGlu)).iter().any(|id| norms.contains(id))
    };
    insta::assert_snapshot!("norm_to_swiglu", text::print(&minimal(&expand(OptLevel::O0), fed)));
}

// State stays state where it is what fails.
#[test]
fn a_step_program_shrinks_with_its_delays() {
    let step = specialise(&preset("tiny").expect("a preset"), Protocol::Hiergen).expect("specialises");
    let fed_back = |graph: &Graph| {
        let samples = graph.descendants(graph.select(|op| matches!(op, Op::Sample { .. })));
        graph.delays().iter().any(|id| samples.contains(id))
    };
    insta::assert_snapshot!("fed_back", text::print(&minimal(&step, fed_back)));
}

#[test]
fn bisection_names_the_rewrite() {
    let graph = expand(OptLevel::O0);
    let stages = OptLevel::O2.stages();
    let transposes = |graph: &Graph| graph.select(|op| matches!(op, Op::Transpose { .. })).len();
    let before = transposes(&graph);
    let mut fails = |graph: &Graph| -> Result<bool, Infallible> { Ok(transposes(graph) < before / 2) };
    let Ok(found) = bisect(&graph, &stages, &mut fails);
    let culprit = found.expect("transposes go");
    let after = culprit.after.expect("no pass breaks");
    assert!(transposes(&culprit.before) >= before / 2 && transposes(&after) < before / 2);
    let mut never = |_: &Graph| -> Result<bool, Infallible> { Ok(false) };
    let Ok(nothing) = bisect(&graph, &stages, &mut never);
    assert!(nothing.is_none());
    // One rewrite lies between the two.
    let passes: Vec<Box<dyn Pass>> = vec![Box::new(SimplifyUnitTransposes)];
    let mut one = culprit.before.clone();
    if culprit.pass == SimplifyUnitTransposes.name() {
        let mut runner = crate::passes::pipeline::Runner::new(None, Some(1));
        runner.run_to_fixpoint(&mut one, &passes).expect("runs");
        assert_eq!(text::print(&one), text::print(&after));
    }
}
