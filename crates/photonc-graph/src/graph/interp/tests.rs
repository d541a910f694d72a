//! Running, stepping, and what a misuse is told.

use super::{InterpError, Interpreter, Tensors, WeightCache, WeightError, WeightSource};
use crate::graph::{Graph, NodeId, Scope};
use crate::ir::attr::{BinaryFn, Role};
use crate::ir::op::Op;
use crate::ir::shape::{Shape, Type};
use crate::ir::tensor::Tensor;
use std::cell::Cell;

fn ty(text: &str) -> Type {
    Type::parse(text).expect("parses")
}

fn floats(shape: &[usize], values: &[f64]) -> Tensor {
    Tensor::floats(shape, values.to_vec()).expect("count fits")
}

fn tensors(entries: &[(&str, Tensor)]) -> Tensors {
    entries.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone())).collect()
}

fn input(graph: &mut Graph, name: &str, text: &str) -> NodeId {
    let op = Op::Input { name: name.into(), ty: ty(text), role: Role::Argument };
    graph.add(op, &[], &Scope::new("")).expect("types")
}

fn add(graph: &mut Graph, a: NodeId, b: NodeId) -> NodeId {
    graph.add(Op::Binary { function: BinaryFn::Add }, &[a, b], &Scope::new("sum")).expect("types")
}

/// `total' = total + x`, output `before = total + total`.
fn accumulator() -> Graph {
    let mut graph = Graph::new("accumulate");
    let x = input(&mut graph, "x", "f32[batch]");
    let total = graph.add_delay("total", ty("f32[batch]"), &Scope::new(""));
    let next = add(&mut graph, total, x);
    graph.set_next(total, next).expect("types");
    let twice = add(&mut graph, total, total);
    graph.set_output("before", twice);
    graph
}

#[test]
fn steps_replace_the_state() {
    let graph = accumulator();
    let interpreter = Interpreter::new(graph.verify().expect("valid"), &()).expect("prepares");
    let mut state = tensors(&[("total", floats(&[1], &[10.0]))]);
    for (x, before, after) in [(1.0, 20.0, 11.0), (5.0, 22.0, 16.0)] {
        let outputs = interpreter.step(&mut state, &tensors(&[("x", floats(&[1], &[x]))])).expect("steps");
        assert_eq!(outputs, tensors(&[("before", floats(&[1], &[before]))]));
        assert_eq!(state, tensors(&[("total", floats(&[1], &[after]))]));
    }
}

#[test]
fn a_step_program_is_not_run_without_state() {
    let graph = accumulator();
    let interpreter = Interpreter::new(graph.verify().expect("valid"), &()).expect("prepares");
    let error = interpreter.run(&tensors(&[("x", floats(&[1], &[1.0]))])).expect_err("has a delay");
    assert_eq!(
        error.to_string(),
        "graph `accumulate` carries state `total`, expected `step` with a state instead of `run`"
    );
}

#[test]
fn misfits_name_what_was_found_and_expected() {
    let graph = accumulator();
    let interpreter = Interpreter::new(graph.verify().expect("valid"), &()).expect("prepares");
    let mut state = tensors(&[("total", floats(&[2], &[1.0, 2.0]))]);
    let mut told = |inputs: &[(&str, Tensor)]| {
        interpreter.step(&mut state, &tensors(inputs)).expect_err("does not fit").to_string()
    };
    assert_eq!(
        told(&[("x", floats(&[3], &[0.0; 3]))]),
        "state `total` is floats[2], expected f32[batch] with batch = 3"
    );
    assert_eq!(told(&[]), "input `x` of graph `accumulate` is missing, expected f32[batch]");
    assert_eq!(told(&[("y", floats(&[], &[0.0]))]), "graph `accumulate` has no input `y`, expected x");
    assert_eq!(
        told(&[("x", Tensor::ints(&[2], vec![1, 2]).expect("count fits"))]),
        "input `x` is integers[2], expected f32[batch]"
    );
    assert_eq!(state, tensors(&[("total", floats(&[2], &[1.0, 2.0]))]));
}

#[test]
fn products_of_symbols_are_bound_from_other_inputs() {
    let mut graph = Graph::new("fold");
    let x = input(&mut graph, "x", "f32[2*batch*meta]");
    input(&mut graph, "rows", "i64[batch]");
    let shape = Shape::parse("batch, 2*meta").expect("parses");
    let folded = graph.add(Op::Reshape { shape }, &[x], &Scope::new("")).expect("types");
    graph.set_output("folded", folded);
    let interpreter = Interpreter::new(graph.verify().expect("valid"), &()).expect("prepares");
    let rows = Tensor::ints(&[3], vec![0; 3]).expect("count fits");
    let outputs =
        interpreter.run(&tensors(&[("x", floats(&[12], &[0.0; 12])), ("rows", rows)])).expect("runs");
    assert_eq!(outputs["folded"].shape, [3, 4]);
}

#[test]
fn errors_of_operations_carry_their_place() {
    let mut graph = Graph::new("lookup");
    let weight = Op::Weight { name: "embed.weight".into(), ty: ty("f32[2, 1]") };
    let table = graph.add(weight, &[], &Scope::new("level1")).expect("types");
    let ids = input(&mut graph, "ids", "i64[batch]");
    let row = graph.add(Op::Gather, &[table, ids], &Scope::new("level1.embed")).expect("types");
    graph.set_output("rows", row);
    let verified = graph.verify().expect("valid");
    let error = Interpreter::new(verified, &()).expect_err("no weights").to_string();
    assert_eq!(error, "level1: weight `embed.weight`: not found");
    let error = Interpreter::new(verified, &tensors(&[("embed.weight", floats(&[1, 1], &[0.0]))]));
    assert_eq!(
        error.expect_err("misfits").to_string(),
        "weight `embed.weight` is floats[1, 1], expected f32[2, 1]"
    );
    let weights = tensors(&[("embed.weight", floats(&[2, 1], &[3.0, 4.0]))]);
    let interpreter = Interpreter::new(verified, &weights).expect("prepares");
    let ids = |id| tensors(&[("ids", Tensor::ints(&[1], vec![id]).expect("count fits"))]);
    assert_eq!(interpreter.run(&ids(1)).expect("runs")["rows"], floats(&[1, 1], &[4.0]));
    let error = interpreter.run(&ids(2)).expect_err("no such row").to_string();
    assert_eq!(error, "level1.embed: `gather`: row id 2 at [0], expected at least 0 and less than 2");
}

#[test]
fn an_open_protocol_is_refused() {
    let mut graph = Graph::new("step");
    let x = input(&mut graph, "x", "f32[batch]");
    let switch = graph.add(Op::ProtocolSwitch, &[x, x], &Scope::new("level2.chunker")).expect("types");
    graph.set_output("y", switch);
    let error = Interpreter::new(graph.verify().expect("valid"), &()).expect_err("unresolved");
    assert_eq!(error, InterpError::Unresolved { scope: "level2.chunker".to_owned() });
}

// A value read twice, or read and also an output, must live until its last use.
#[test]
fn the_observer_sees_every_value_in_order() {
    let mut graph = Graph::new("chain");
    let x = input(&mut graph, "x", "f32[]");
    let twice = add(&mut graph, x, x);
    let thrice = add(&mut graph, twice, x);
    graph.set_output("twice", twice);
    graph.set_output("thrice", thrice);
    let interpreter = Interpreter::new(graph.verify().expect("valid"), &()).expect("prepares");
    let mut seen = Vec::new();
    let outputs = interpreter
        .run_observed(&tensors(&[("x", floats(&[], &[1.0]))]), &mut |id, value| {
            seen.push((id, value.clone()))
        })
        .expect("runs");
    assert_eq!(seen, [(x, floats(&[], &[1.0])), (twice, floats(&[], &[2.0])), (thrice, floats(&[], &[3.0]))]);
    assert_eq!(outputs, tensors(&[("twice", floats(&[], &[2.0])), ("thrice", floats(&[], &[3.0]))]));
}

#[test]
fn a_cache_reads_each_weight_once() {
    struct Counting<'c>(&'c Cell<usize>);
    impl WeightSource for Counting<'_> {
        fn weight(&self, name: &str) -> Result<Tensor, WeightError> {
            self.0.set(self.0.get() + 1);
            if name == "w" { Ok(floats(&[], &[1.0])) } else { Err(WeightError::Missing) }
        }
    }
    let reads = Cell::new(0);
    let cache = WeightCache::new(Counting(&reads));
    assert_eq!(cache.weight("w"), cache.weight("w"));
    assert_eq!(cache.weight("v"), Err(WeightError::Missing));
    assert_eq!(reads.get(), 2);
}
