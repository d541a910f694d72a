//! Every graph of the golden models, both protocols: batches of 1 and 3 rows of different length, caches empty, partly
//! filled and full, and slots past a row's length poisoned.

use crate::fixture::tolerance::Chain;
use crate::fixture::{GOLDENS, Spread, golden_checkpoint};
use crate::harness::{Weights, check, leave, leave_unrun};
use photonc::export::onnx;
use photonc::export::target::Target;
use photonc::graph::Graph;
use photonc::graph::interp::Tensors;
use photonc::ir::attr::Scheme;
use photonc::ir::dim::{Bindings, Symbol};
use photonc::ir::dtype::Dtype;
use photonc::ir::op::Op;
use photonc::ir::shape::Type;
use photonc::ir::tensor::Tensor;
use photonc::model::checkpoint::Checkpoint;
use photonc::passes::choose_protocol::Protocol;
use photonc::passes::compile::{PassOptions, compile, compile_with};
use photonc::passes::quantize_weights::Choice;

/// Rows of a run and its sizes.
struct Rows {
    lengths: Vec<i64>,
    meta: usize,
    capacity: usize,
}

fn weights(checkpoint: &Checkpoint) -> Weights {
    checkpoint
        .tensors
        .iter()
        .map(|(name, entry)| {
            let values = checkpoint.read_f64(name).expect("weight reads");
            (name.clone(), Tensor::floats(&entry.shape, values).expect("counts agree"))
        })
        .collect()
}

/// Cycles through `values`, one a row.
fn per_row(rows: usize, values: &[f64]) -> Tensor {
    Tensor::floats(&[rows], (0..rows).map(|row| values[row % values.len()]).collect()).expect("counts agree")
}

fn input(name: &str, ty: &Type, rows: &Rows, vocab: usize, spread: &mut Spread) -> Tensor {
    let mut bindings = Bindings::default();
    let batch = rows.lengths.len();
    for (symbol, size) in
        [(Symbol::Batch, batch), (Symbol::Meta, rows.meta), (Symbol::Capacity, rows.capacity)]
    {
        bindings.bind(symbol, size);
    }
    let shape = ty.shape.eval(&bindings).expect("sizes");
    match name {
        "ids" => spread.ints(&shape, vocab),
        "lengths" | "position" => Tensor::ints(&shape, rows.lengths.clone()).expect("counts agree"),
        "temperature" => per_row(batch, &[0.0, 1.0, 0.7]),
        "top_k" => Tensor::ints(&shape, (0..batch).map(|row| [1, 50, 5][row % 3]).collect()).expect("counts"),
        "top_p" => per_row(batch, &[1.0, 0.9, 0.8]),
        // Two tokens of three are forced.
        "forced" => {
            let count = shape.iter().product();
            let ids = (0..count).map(|at| if at % 3 == 0 { -1 } else { spread.below(vocab) as i64 });
            Tensor::ints(&shape, ids.collect()).expect("counts agree")
        }
        "uniforms" => spread.floats(&shape, 0.0, 1.0),
        _ if shape.len() == 4 => poisoned(spread.floats(&shape, -1.0, 1.0), rows),
        _ => spread.floats(&shape, -1.0, 1.0),
    }
}

/// A cache with NaN, infinities and huge numbers past each row's length.
fn poisoned(cache: Tensor, rows: &Rows) -> Tensor {
    let [batch, heads, slots, width] = cache.shape[..] else { panic!("cache of 4 axes") };
    let units = (slots / rows.capacity) as i64;
    let poison = [f64::NAN, f64::INFINITY, 1e30, f64::NEG_INFINITY];
    let values = cache.as_floats().expect("floats").iter().enumerate().map(|(at, value)| {
        let (slot, row) = ((at / width % slots) as i64, at / (heads * slots * width));
        if slot < rows.lengths[row % batch] * units { *value } else { poison[at % 4] }
    });
    Tensor::floats(&cache.shape, values.collect()).expect("counts agree")
}

fn run(graph: &Graph, rows: &Rows, vocab: usize, spread: &mut Spread) -> Tensors {
    graph
        .inputs()
        .into_iter()
        .map(|id| match graph.op(id) {
            Op::Input { name, ty, .. } => (name.to_string(), input(name, ty, rows, vocab, spread)),
            other => panic!("{other:?} is no input"),
        })
        .collect()
}

/// One row, and three of different lengths.
fn runs(graph_name: &str, graph: &Graph, vocab: usize) -> [Tensors; 2] {
    // A row without a prompt is encoded too.
    let least = i64::from(graph_name == "score");
    // The window of `expand_step` has as many slots as it has; `capacity` is the others'.
    let capacity = if graph_name == "expand_step" { window_slots(graph) } else { 4 };
    let last = if least == 1 || graph_name == "encode" {
        3
    } else {
        capacity as i64 - i64::from(graph_name == "expand_step")
    };
    let alone = Rows { lengths: vec![least], meta: 1, capacity };
    let three = Rows { lengths: vec![least, 2, last], meta: 3, capacity };
    let mut spread = Spread(21);
    [alone, three].map(|rows| run(graph, &rows, vocab, &mut spread))
}

#[test]
fn every_graph_of_every_golden_agrees() {
    for name in GOLDENS {
        let checkpoint = golden_checkpoint(name);
        let weights = weights(&checkpoint);
        let compiled = compile(&checkpoint.config, &[Protocol::Recgen, Protocol::Hiergen]).expect("compiles");
        for (graph_name, graph) in &compiled.graphs {
            let runs = runs(graph_name, graph, checkpoint.config.vocab_size);
            let tolerance = Chain::of(graph).tolerance(Dtype::F32, Dtype::F32);
            let model = check(&format!("{name}.{graph_name}"), graph, &weights, &runs, tolerance);
            if name == "lopsided" && ["coarse", "expand_step"].contains(&graph_name.as_str()) {
                insta::assert_snapshot!(format!("{name}_{graph_name}"), onnx::text::render(&model));
            }
        }
    }
}

fn window_slots(graph: &Graph) -> usize {
    let sizes = graph.inputs().into_iter().filter_map(|id| match &graph.ty(id).shape.0[..] {
        [_, _, slots, _] => slots.as_const(),
        _ => None,
    });
    sizes.max().expect("a window")
}

#[test]
fn every_f16_graph_of_every_golden_agrees() {
    let mut padded = 0;
    for name in GOLDENS {
        let checkpoint = golden_checkpoint(name);
        let weights = weights(&checkpoint);
        let protocols = [Protocol::Recgen, Protocol::Hiergen];
        let options = PassOptions { precision: Dtype::F16, ..PassOptions::default() };
        let compiled = compile_with(&checkpoint.config, &protocols, options).expect("compiles");
        for (graph_name, graph) in &compiled.graphs {
            let runs = runs(graph_name, graph, checkpoint.config.vocab_size);
            let tolerance = Chain::of(graph).tolerance(Dtype::F16, Dtype::F32);
            let model = leave(
                &format!("f16.{name}.{graph_name}"),
                graph,
                &weights,
                Target::Portable,
                &runs,
                tolerance,
            );
            if name == "lopsided" && graph_name == "coarse" {
                insta::assert_snapshot!(format!("f16_{name}_{graph_name}"), onnx::text::render(&model));
            }
            // Its heads of odd widths are padded for TensorRT.
            if name == "lopsided" {
                let (name, target) = (format!("f16.padded.{graph_name}"), Target::TensorrtRtx);
                let model = leave(&name, graph, &weights, target, &runs, tolerance);
                padded +=
                    model.graph.expect("graph").node.iter().filter(|node| node.op_type == "Pad").count();
            }
        }
    }
    assert!(padded > 0, "no heads are padded");
}

/// A golden with every linear map in a scheme, and what its graphs are given.
fn quantized(scheme: Scheme, check: impl Fn(&str, &Graph, &Weights, &[Tensors], f64)) {
    let checkpoint = golden_checkpoint("paper");
    let weights = weights(&checkpoint);
    let quantized = ["level1", "level2", "lm_head"].map(|stack| Choice { stack: stack.into(), scheme });
    let options = PassOptions { quantized: quantized.to_vec(), ..PassOptions::default() };
    let compiled = compile_with(&checkpoint.config, &[Protocol::Recgen], options).expect("compiles");
    for graph_name in ["coarse", "score"] {
        let graph = &compiled.graphs[graph_name];
        let coded = graph.select(|op| matches!(op, Op::QuantizedWeight { .. })).len();
        assert!(coded > 0, "{graph_name} reads no codes of {}", scheme.name());
        let runs = runs(graph_name, graph, checkpoint.config.vocab_size);
        let tolerance = Chain::of(graph).tolerance(Dtype::F32, Dtype::F32);
        check(&format!("{}.paper.{graph_name}", scheme.name()), graph, &weights, &runs, tolerance);
    }
}

#[test]
fn int8_graphs_agree_in_tract() {
    quantized(Scheme::Int8, |name, graph, weights, runs, tolerance| {
        let model = check(name, graph, weights, runs, tolerance);
        let nodes = &model.graph.as_ref().expect("graph").node;
        assert!(nodes.iter().any(|node| node.op_type == "DequantizeLinear"));
    });
}

// tract refuses them; ONNX Runtime computes them, TensorRT builds them.
#[test]
fn int4_and_fp8_graphs_are_left_for_others() {
    for scheme in [Scheme::Int4, Scheme::Fp8] {
        quantized(scheme, |name, graph, weights, runs, tolerance| {
            leave(name, graph, weights, Target::TensorrtRtx, runs, tolerance);
        });
    }
}

// TensorRT alone computes in bf16; its builder says whether it takes the graphs.
#[test]
fn every_bf16_graph_of_a_golden_has_a_model_for_tensorrt() {
    let checkpoint = golden_checkpoint("lopsided");
    let weights = weights(&checkpoint);
    let protocols = [Protocol::Recgen, Protocol::Hiergen];
    let options = PassOptions { precision: Dtype::Bf16, ..PassOptions::default() };
    let compiled = compile_with(&checkpoint.config, &protocols, options).expect("compiles");
    for (graph_name, graph) in &compiled.graphs {
        leave_unrun(&format!("bf16.lopsided.{graph_name}"), graph, &weights, Target::TensorrtRtx);
    }
}
