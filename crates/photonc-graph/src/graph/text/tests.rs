//! Round trips of random graphs, errors of broken texts, and that no text panics.

use super::print::canonical_order;
use super::{parse, print};
use crate::graph::{Graph, NodeId, Scope};
use crate::ir::attr::{BinaryFn, Role, UnaryFn};
use crate::ir::op::Op;
use crate::ir::shape::Type;
use crate::ir::tensor::Literal;
use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};
use std::collections::HashMap;

const SAMPLE: &str = r#"graph coarse {
  %0 = input{name="top_state", ty=f32[batch, 1, 8], role=argument}
  %1 = delay{name="carry", ty=f32[batch, 1, 16]} next %level2.converter:1

@level2.converter
  %0 = weight{name="levels.1.converter.weight", ty=f32[16, 8]}
  %1 = linear %:0, %0 : f32[batch, 1, 16] #latent

@
  %2 = unary{function=neg} %1 : f32[batch, 1, 16]

  output "latent" = %level2.converter:1
  output "before" = %2
}
"#;

fn told(text: &str) -> Vec<String> {
    parse(text).expect_err("is broken").0.iter().map(ToString::to_string).collect()
}

/// Adds one node (or delay) chosen by `choice` on the values so far, all `f32[batch, 4]`.
fn grow(graph: &mut Graph, values: &mut Vec<NodeId>, index: usize, choice: (u8, usize, usize)) {
    let (kind, a, b) = choice;
    let scope = Scope::new(["", "level1", "level1.encoder.layers.0", "level2"][(a + b) % 4]);
    let ty = Type::parse("f32[batch, 4]").expect("parses");
    let (a, b) = (values[a % values.len()], values[b % values.len()]);
    let added = match kind % 6 {
        0 => {
            let op = Op::Input { name: format!("x{index}").into(), ty, role: Role::PerStep };
            graph.add(op, &[], &scope)
        }
        1 => Ok(graph.add_delay(&format!("d{index}"), ty, &scope)),
        2 => graph.add(Op::Unary { function: UnaryFn::Silu }, &[a], &scope),
        3 => {
            let value = Literal::floats(ty.dtype, &[4], &[0.1, f64::MAX, -0.0, index as f64]);
            let constant =
                graph.add(Op::Const { value: value.expect("count fits") }, &[], &scope).expect("types");
            graph.add(Op::Binary { function: BinaryFn::Mul }, &[a, constant], &scope)
        }
        _ => graph.add(Op::Binary { function: BinaryFn::Sub }, &[a, b], &scope),
    };
    let added = added.expect("types");
    if kind >= 128 {
        graph.set_label(added, &format!("label.{index}"));
    }
    values.push(added);
}

fn graphs() -> impl Strategy<Value = Graph> {
    let choices = proptest::collection::vec((any::<u8>(), any::<usize>(), any::<usize>()), 1..40);
    (choices, proptest::collection::vec(any::<proptest::sample::Index>(), 8)).prop_map(|(choices, picks)| {
        let mut graph = Graph::new("random");
        let op = Op::Input {
            name: "x".into(),
            ty: Type::parse("f32[batch, 4]").expect("parses"),
            role: Role::Argument,
        };
        let mut values = vec![graph.add(op, &[], &Scope::new("")).expect("types")];
        for (index, (kind, a, b)) in choices.into_iter().enumerate() {
            grow(&mut graph, &mut values, index, (kind, a % 1000, b % 1000));
        }
        for (delay, pick) in graph.delays().into_iter().zip(picks.iter().cycle()) {
            graph.set_next(delay, values[pick.index(values.len())]).expect("types");
        }
        for (index, pick) in picks[..2].iter().enumerate() {
            graph.set_output(&format!("y{index}"), values[pick.index(values.len())]);
        }
        graph
    })
}

/// Nodes of `graph` in the given order, their operands by place in that order.
fn structure(graph: &Graph, order: &[NodeId]) -> Vec<String> {
    let place: HashMap<NodeId, usize> = order.iter().enumerate().map(|(at, id)| (*id, at)).collect();
    let node = |id: &NodeId| {
        let operands: Vec<usize> = graph.operands(*id).iter().map(|operand| place[operand]).collect();
        let (op, ty, scope) = (graph.op(*id), graph.ty(*id), graph.scope(*id));
        format!("{op:?} {ty} {scope} {:?} {operands:?}", graph.label(*id))
    };
    let outputs = graph.outputs().iter().map(|output| format!("{} {}", output.name, place[&output.node]));
    order.iter().map(node).chain(outputs).collect()
}

proptest! {
    #[test]
    fn graphs_survive_the_round_trip(graph in graphs()) {
        let text = print(&graph);
        let again = parse(&text).expect("parses");
        prop_assert_eq!(structure(&graph, &canonical_order(&graph)), structure(&again, &again.nodes()));
        prop_assert_eq!(again.order(), again.nodes());
        prop_assert_eq!(print(&again), text);
    }

    #[test]
    fn no_text_panics(text in "(graph x \\{\n)?([%@{}=:,#\"\\[\\]()./ \n0-9a-z_é]|input|linear|const|f32)*") {
        let _ = parse(&text);
    }

    #[test]
    fn no_mutation_panics(
        graph in graphs(),
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<char>(), 0..4u8), 1..6),
    ) {
        let mut text: Vec<char> = print(&graph).chars().collect();
        for (at, c, edit) in edits {
            let at = at.index(text.len());
            match edit {
                0 => text[at] = c,
                1 => text.insert(at, c),
                2 => { text.remove(at); }
                _ => text[at] = ['%', '9', '[', '"', '\n', '}'][c as usize % 6],
            }
        }
        let text: String = text.into_iter().collect();
        if let Ok(graph) = parse(&text) {
            prop_assert_eq!(print(&parse(&print(&graph)).expect("parses")), print(&graph));
        }
    }
}

#[test]
fn text_reads_as_documented() {
    let graph = parse(SAMPLE).expect("parses");
    graph.verify().expect("valid");
    assert_eq!(print(&graph), SAMPLE);
    assert_eq!(graph.name(), "coarse");
}

// History must not show: a value made later, but read by the same user in the same slot, prints the same.
#[test]
fn text_does_not_depend_on_creation_order() {
    let build = |weight_first: bool| {
        let mut graph = Graph::new("g");
        let scope = Scope::new("s");
        let ty = |text| Type::parse(text).expect("parses");
        let weight = Op::Weight { name: "w".into(), ty: ty("f32[2, 2]") };
        let input = Op::Input { name: "x".into(), ty: ty("f32[2]"), role: Role::Argument };
        let early = weight_first.then(|| graph.add(weight.clone(), &[], &scope).expect("types"));
        let x = graph.add(input, &[], &scope).expect("types");
        let w = early.unwrap_or_else(|| graph.add(weight, &[], &scope).expect("types"));
        let y = graph.add(Op::Linear, &[x, w], &scope).expect("types");
        graph.set_output("y", y);
        print(&graph)
    };
    assert_eq!(build(true), build(false));
}

#[test]
fn errors_say_where_and_what() {
    let broken = |from: &str, to: &str| told(&SAMPLE.replacen(from, to, 1));
    assert_eq!(broken("graph coarse", "coarse"), ["1:1: found `coarse`, expected `graph`"]);
    assert_eq!(
        broken("= linear", "= liner"),
        ["7:8: found `liner`, expected the name of an operation, perhaps `linear`"]
    );
    assert_eq!(
        broken("1, 16] #", "1, 17] #"),
        ["7:25: found type f32[batch, 1, 17], expected f32[batch, 1, 16], which the operands give"]
    );
    assert_eq!(broken("%:0, %0", "%:0, %7"), ["7:20: value `%level2.converter:7` is not defined above"]);
    assert_eq!(broken("neg", "not"), ["10:23: found `not`, expected a value of `function`"]);
    assert_eq!(broken("{function=neg}", ""), ["10:8: `unary` lacks its attribute `function`"]);
    assert_eq!(broken("{function=", "{fn="), ["10:14: `unary` has no attribute `fn`, expected function"]);
    assert_eq!(
        broken("[16, 8]", "[16, 9]"),
        ["7:8: `linear`: linear of f32[batch, 1, 8] by weight f32[16, 9]"]
    );
    assert_eq!(
        broken("f32[batch, 1, 16]} next", "f32[batch, 1, 15]} next"),
        [
            "3:55: `delay`: next state of `carry`: f32[batch, 1, 16], expected f32[batch, 1, 15]",
            "10:33: found type f32[batch, 1, 16], expected f32[batch, 1, 15], which the operands give",
        ]
    );
    assert_eq!(broken("\"before\"", "\"latent\""), ["13:10: two outputs are called `latent`"]);
    assert_eq!(broken("\n}\n", "\n"), ["13:1: found the end of the text, expected `}`"]);
    assert_eq!(broken("next %level2.converter:1", "next %9"), ["3:55: value `%:9` is not defined"]);
    assert_eq!(told(""), ["1:1: found the end of the text, expected `graph name {`"]);
}

#[test]
fn every_broken_line_is_reported_once() {
    let text = SAMPLE.replacen("linear %:0", "linear %5", 1).replacen("neg", "not", 1);
    assert_eq!(told(&text).len(), 2);
}

#[test]
fn counts_that_overflow_are_errors() {
    let text = "graph g {\n  %0 = const{value=f32[4294967296, 4294967296, 4]()}\n}\n";
    assert_eq!(told(text).len(), 1);
}
