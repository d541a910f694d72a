//! Graphs and stores that must not become a file, and the text of models.

use photonc::export::onnx::{self, WeightLocation};
use photonc::export::target::Target;
use photonc::graph::{Graph, NodeId, Scope};
use photonc::ir::attr::Role;
use photonc::ir::dtype::Dtype;
use photonc::ir::op::Op;
use photonc::ir::shape::Type;

fn input(graph: &mut Graph, name: &str, ty: &str) -> NodeId {
    let ty = Type::parse(ty).expect("type");
    let op = Op::Input { name: name.into(), ty, role: Role::Argument };
    graph.add(op, &[], &Scope::new("level1.test")).expect("types")
}

fn refusal(graph: &Graph, at: Option<WeightLocation>) -> String {
    let verified = graph.verify().expect("verifies");
    onnx::export(verified, Target::Portable, "", &|_| at.clone()).expect_err("refused").to_string()
}

fn weight_at(file: &str, length_bytes: u64) -> Option<WeightLocation> {
    Some(WeightLocation { file: file.to_owned(), offset_bytes: 8, length_bytes })
}

fn with_weight() -> Graph {
    let mut graph = Graph::new("weighted");
    let x = input(&mut graph, "x", "f32[batch, 4]");
    let ty = Type::parse("f32[2, 4]").expect("type");
    let scope = Scope::new("level1.proj");
    let w = graph.add(Op::Weight { name: "proj.weight".into(), ty }, &[], &scope).expect("types");
    let y = graph.add(Op::Linear, &[x, w], &scope).expect("types");
    graph.set_output("y", y);
    graph
}

#[test]
fn what_is_not_lowered_is_named_with_its_scope() {
    let mut graph = Graph::new("step");
    let cache = input(&mut graph, "cache", "f32[batch, 1, capacity, 4]");
    let new = input(&mut graph, "new", "f32[batch, 1, 1, 4]");
    let lengths = input(&mut graph, "lengths", "i64[batch]");
    let scope = Scope::new("level2.encoder.layer0");
    let next = graph.add(Op::CacheAppend, &[cache, new, lengths], &scope).expect("types");
    graph.set_output("next", next);
    insta::assert_snapshot!("not_lowered", refusal(&graph, None));
}

#[test]
fn narrow_floats_are_no_part_of_the_portable_target() {
    let mut graph = Graph::new("narrow");
    let x = input(&mut graph, "x", "f32[batch]");
    let y = graph.add(Op::Cast { dtype: Dtype::Bf16 }, &[x], &Scope::new("level1.norm")).expect("types");
    graph.set_output("y", y);
    insta::assert_snapshot!("narrow_float", refusal(&graph, None));
}

#[test]
fn an_input_that_nothing_reads_is_refused() {
    let mut graph = with_weight();
    input(&mut graph, "lengths", "i64[batch]");
    insta::assert_snapshot!("unread_input", refusal(&graph, weight_at("weights/model.safetensors", 32)));
}

#[test]
fn weights_must_be_stored_whole_inside_the_folder() {
    let graph = with_weight();
    insta::assert_snapshot!("weight_unknown", refusal(&graph, None));
    insta::assert_snapshot!("weight_short", refusal(&graph, weight_at("weights/model.safetensors", 16)));
    insta::assert_snapshot!("weight_outside", refusal(&graph, weight_at("../weights/model.safetensors", 32)));
    for file in ["/w", "a//b", "", "C:/w", "a/./b"] {
        assert!(refusal(&graph, weight_at(file, 32)).contains("inside the folder"), "{file}");
    }
}

// Runtimes differ in what they do with an output that is an input; a copy is an output everywhere.
#[test]
fn an_output_that_is_an_input_is_copied() {
    let mut graph = Graph::new("copies");
    let x = input(&mut graph, "x", "f32[batch]");
    graph.set_output("same", x);
    graph.set_output("again", x);
    let model =
        onnx::export(graph.verify().expect("verifies"), Target::Portable, "", &|_| None).expect("exports");
    insta::assert_snapshot!("copied_output", onnx::text::render(&model));
}
