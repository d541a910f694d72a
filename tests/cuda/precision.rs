//! f16 and bf16: every graph of the goldens within what rounding to those types explains, and generation on the device
//! equal to generation graph by graph in the same type.

use crate::backend;
use crate::emulated::Order;
use crate::fixture::GOLDENS;
use crate::fixture::model::{Model, PROTOCOLS, golden_request, run, tokens};
use photonc::ir::dtype::Dtype;
use photonc::ir::tensor::Tensor;
use photonc::runtime::request::{Keep, Request, RunAhead};
use photonc::runtime::verify::{Compared, compare_as};
use std::sync::Arc;

const SHORT_TYPES: [Dtype; 2] = [Dtype::F16, Dtype::Bf16];

/// The model with the maps of trained ones, which shrink what they are given a little: in short types the rounding of maps
/// that stretch grows from layer to layer until it hides everything else.
fn shrinking(model: Model) -> Model {
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
fn compared(model: &Model, dtype: Dtype) -> (usize, usize) {
    let mut candidate = backend(model, Order::Immediate, dtype);
    let (mut useful, mut all) = (0, 0);
    for (graph_name, graph) in &model.compilation.graphs {
        let what = format!("{} {graph_name} {dtype}", model.name);
        let verified = graph.verify().expect("valid");
        let comparison = compare_as(verified, &*model.weights, &mut candidate, 5, Some(dtype));
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

// The tolerance is derived for each output (`runtime::verify`): every value moved at random by one rounding for each
// operation. Outputs that rounding alone decides, tokens that are nearly tied, say nothing and are counted.
#[test]
fn every_graph_is_within_what_rounding_explains() {
    for name in GOLDENS {
        let (useful, all) = compared(&Model::of(name), Dtype::F16);
        assert!(2 * useful > all, "{name} f16: only {useful} of {all} outputs say anything");
    }
}

#[test]
fn every_graph_with_shrinking_maps_is_within_what_rounding_explains() {
    for name in GOLDENS {
        for dtype in SHORT_TYPES {
            let (useful, all) = compared(&shrinking(Model::of(name)), dtype);
            assert!(2 * useful > all, "{name} {dtype}: only {useful} of {all} outputs say anything");
        }
    }
}

// What the decoder adds, state on the device, streams, recordings, changes nothing, whatever the type. The first tokens are
// those of the goldens unless these are nearly tied.
#[test]
fn the_decoder_draws_what_its_graphs_draw() {
    let mut same = 0;
    let mut all = 0;
    for name in GOLDENS {
        let model = Model::of(name);
        for (dtype, protocol) in
            SHORT_TYPES.into_iter().flat_map(|dtype| PROTOCOLS.map(|protocol| (dtype, protocol)))
        {
            let mut generator = model.generator(Box::new(backend(&model, Order::Mixed(4), dtype)));
            let prompts: Vec<usize> = (0..model.expected.prompts()).collect();
            let by_graph = golden_request(&model, protocol, &prompts, RunAhead::MetaContexts(2));
            let on_device = Request { keep: Keep::default(), ..by_graph.clone() };
            let (expected, found) =
                (tokens(&run(&mut generator, &by_graph)), tokens(&run(&mut generator, &on_device)));
            assert_eq!(found, expected, "{name} {protocol} {dtype}");
            for k in prompts {
                let golden = model.expected.ints(k, &format!("{protocol}_tokens"));
                same += usize::from(golden[0] == found[k][0]);
                all += 1;
            }
        }
    }
    // f16 and bf16 are no other models: a wrong kernel would agree by chance alone.
    assert!(10 * same >= 7 * all, "{same} of {all} first tokens are those of the goldens");
}
