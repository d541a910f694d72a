//! f16 and bf16: every graph of the goldens within what rounding to those types explains.

use crate::backend;
use crate::emulated::Order;
use crate::fixture::GOLDENS;
use crate::fixture::model::{Model, PROTOCOLS, golden_batch, run};
use crate::goldens::tokens_alone;
use photonc::ir::dtype::Dtype;
use photonc::ir::tensor::Tensor;
use photonc::runtime::launch::backend::LaunchBackend;
use photonc::runtime::request::RunAhead;
use photonc::runtime::verify::{Compared, compare_as};
use std::process::Command;
use std::sync::Arc;

/// The model with the maps of trained ones, which shrink what they are given a little: in short types the rounding of maps
/// that stretch grows from layer to layer until it hides everything else.
pub fn shrinking(model: Model) -> Model {
    let mut weights = (*model.weights).clone();
    for (name, tensor) in &mut weights {
        if !name.contains("norm") {
            let values = tensor.as_floats().expect("floats").iter().map(|value| value / 8.0).collect();
            *tensor = Tensor::floats(&tensor.shape.clone(), values).expect("counts agree");
        }
    }
    Model { weights: Arc::new(weights), ..model }
}

/// Compares every graph with the reference; how many outputs there are, and how many of them could show a mistake.
pub fn compared(model: &Model, candidate: &mut LaunchBackend, dtype: Dtype) -> (usize, usize) {
    let (mut useful, mut all) = (0, 0);
    for (graph_name, graph) in &model.compilation.graphs {
        let what = format!("{} {graph_name} {dtype}", model.name);
        let verified = graph.verify().expect("valid");
        let comparison = compare_as(verified, &*model.weights, candidate, 5, Some(dtype));
        let comparison = comparison.unwrap_or_else(|error| panic!("{what}: {error}"));
        if let Some(value) = comparison.first_divergent() {
            panic!("{what}: {value:?}");
        }
        // A tolerance as large as the value itself lets anything pass.
        let says =
            |value: &&Compared| value.decided && value.tolerance < value.largest.max(f64::MIN_POSITIVE);
        useful += comparison.values.iter().filter(says).count();
        all += comparison.values.len();
    }
    (useful, all)
}

/// Runs a test of this program in a process of its own, unless this is it. Every emulated unit keeps the stacks of its
/// threads, and one process has room for those of one type. On a GPU there are none.
pub fn elsewhere(test: &str) -> bool {
    const HERE: &str = "PHOTONC_TEST_HERE";
    if std::env::var_os("PHOTONC_GPU").is_some() || std::env::var_os(HERE).is_some() {
        return false;
    }
    let program = std::env::current_exe().expect("a program");
    let output = Command::new(program).args(["--exact", test]).env(HERE, "1").output().expect("runs");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    true
}

// The tolerance is derived for each output (`runtime::verify`): every value moved at random by one rounding for each
// operation. Outputs that rounding alone decides, tokens that are nearly tied, say nothing and are counted.
#[test]
fn every_graph_is_within_what_rounding_to_f16_explains() {
    if elsewhere("precision::every_graph_is_within_what_rounding_to_f16_explains") {
        return;
    }
    for name in GOLDENS {
        let model = Model::of(name);
        let mut candidate = backend(&model, Order::Immediate, Dtype::F16);
        let (useful, all) = compared(&model, &mut candidate, Dtype::F16);
        assert!(2 * useful > all, "{name}: only {useful} of {all} outputs say anything");
    }
}

// Eight bits of precision are too few for the goldens' own maps.
#[test]
fn every_graph_with_shrinking_maps_is_within_what_rounding_to_bf16_explains() {
    if elsewhere("precision::every_graph_with_shrinking_maps_is_within_what_rounding_to_bf16_explains") {
        return;
    }
    let model = shrinking(Model::of("paper"));
    let mut candidate = backend(&model, Order::Immediate, Dtype::Bf16);
    let (useful, all) = compared(&model, &mut candidate, Dtype::Bf16);
    assert!(2 * useful > all, "only {useful} of {all} outputs say anything");
}

// Small enough for a tool that slows everything down a hundred times: the kernels that f32 does not use.
#[test]
fn a_golden_in_f16_for_the_sanitizer() {
    if elsewhere("precision::a_golden_in_f16_for_the_sanitizer") {
        return;
    }
    let model = Model::of("paper");
    let mut generator = model.generator(Box::new(backend(&model, Order::Immediate, Dtype::F16)));
    for protocol in PROTOCOLS {
        let batch = tokens_alone(golden_batch(&model, protocol, &[0], RunAhead::MetaContexts(2)));
        let expected = model.expected.ints(0, &format!("{protocol}_tokens"));
        let found = run(&mut generator, &batch).sequences.remove(0).tokens;
        // Near ties may fall either way.
        let same = found.iter().zip(expected).filter(|(a, b)| a == b).count();
        assert!(found.len() == expected.len() && 4 * same >= 3 * found.len(), "{protocol}: {found:?}");
    }
}
