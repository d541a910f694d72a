//! A bundle is compared with the reference value by value: what f32 explains is let pass, one wrong weight is found in the
//! scope that reads it.
#![allow(clippy::panic, reason = "a test fails by panicking")]

mod fixture;

use fixture::bundled::Golden;
use fixture::{golden_path, random_weights};
use photonc::export::{ExportOptions, export};
use photonc::graph::Graph;
use photonc::graph::interp::{Tensors, WeightCache, WeightSource};
use photonc::ir::op::Op;
use photonc::ir::tensor::Tensor;
use photonc::model::preset::preset;
use photonc::passes::choose_protocol::Protocol;
use photonc::passes::compile::compile;
use photonc::runtime::reference::{BundleWeights, Reference};
use photonc::runtime::tract::Tract;
use photonc::runtime::verify::{compare, random_inputs, with_taps};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

type Weights = BTreeMap<String, Tensor>;

fn graphs() -> BTreeMap<String, Graph> {
    let compiled = compile(&preset("tiny").expect("a preset"), &[Protocol::Recgen, Protocol::Hiergen]);
    compiled.expect("compiles").graphs.into_iter().collect()
}

/// Maps that shrink a little, as trained ones do: what grows rounding from layer to layer hides everything else.
fn weights() -> Weights {
    let mut weights = random_weights(&preset("tiny").expect("a preset"), 7);
    for (name, tensor) in &mut weights {
        if !name.contains("norm") {
            let values = tensor.as_floats().expect("floats").iter().map(|value| value / 8.0).collect();
            *tensor = Tensor::floats(&tensor.shape.clone(), values).expect("counts agree");
        }
    }
    weights
}

/// The first scope that diverges when the candidate has `wrong` weights.
fn first_divergent(graph: &Graph, right: &Weights, wrong: &Weights) -> Option<String> {
    let tapped = with_taps(graph, "tapped");
    let verified = tapped.verify().expect("valid");
    let source: Arc<dyn WeightSource> = Arc::new(wrong.clone());
    let mut candidate = Reference::of_graphs([("tapped".to_owned(), tapped.clone())].into(), source);
    let comparison = compare(verified, right, &mut candidate, 3).expect("compares");
    comparison.first_divergent().map(|value| value.scope.clone())
}

/// Scopes with a tap that a weight reaches without passing another tap.
fn readers(graph: &Graph, weight: &str) -> BTreeSet<String> {
    let named = |op: &Op| matches!(op, Op::Weight { name, .. } if &**name == weight);
    let nodes = graph.select(named).into_iter().flat_map(|id| graph.users(id));
    nodes.map(|(user, _)| graph.scope(user).to_string()).collect()
}

// A tensor with the wrong sign, in every third place of the graph: the first scope that reads it is named.
#[test]
fn one_wrong_weight_is_found_in_its_scope() {
    let (graphs, right) = (graphs(), weights());
    let mut found = BTreeSet::new();
    for (name, graph) in &graphs {
        assert_eq!(first_divergent(graph, &right, &right), None, "{name}: nothing is wrong");
    }
    for graph in [&graphs["coarse"], &graphs["score"]] {
        for id in graph.select(|op| matches!(op, Op::Weight { .. })).into_iter().step_by(3) {
            let Op::Weight { name, .. } = graph.op(id) else { continue };
            if name.contains("embed") {
                continue;
            }
            let mut wrong = right.clone();
            let tensor = wrong.get_mut(&**name).expect("a weight");
            let values = tensor.as_floats().expect("floats").iter().map(|value| -value).collect();
            *tensor = Tensor::floats(&tensor.shape.clone(), values).expect("counts agree");
            let first = first_divergent(graph, &right, &wrong).unwrap_or_else(|| panic!("{name}: unnoticed"));
            let readers = readers(graph, name);
            assert!(readers.contains(&first), "{name}: {first} is named, {readers:?} read it");
            found.insert(first);
        }
    }
    assert!(found.len() > 8, "{found:?}");
}

// The tolerance is no licence: ten units in the last place of every value of one layer are let pass, a thousand are not.
#[test]
fn rounding_passes_and_more_does_not() {
    let (graphs, right) = (graphs(), weights());
    let scaled = |by: f64| {
        let mut wrong = right.clone();
        for (name, tensor) in &mut wrong {
            if name.contains("lm_head") {
                let values =
                    tensor.as_floats().expect("floats").iter().map(|value| value * (1.0 + by)).collect();
                *tensor = Tensor::floats(&tensor.shape.clone(), values).expect("counts agree");
            }
        }
        wrong
    };
    let ulp = 2f64.powi(-24);
    assert_eq!(first_divergent(&graphs["score"], &right, &scaled(4.0 * ulp)), None);
    assert!(first_divergent(&graphs["score"], &right, &scaled(10_000.0 * ulp)).is_some());
}

#[test]
fn inputs_are_lawful_and_differ_by_seed() {
    for (name, graph) in graphs() {
        let inputs: Tensors = random_inputs(&graph, 1);
        assert_eq!(inputs.len(), graph.inputs().len(), "{name}");
        assert_ne!(inputs, random_inputs(&graph, 2), "{name}");
    }
}

// A mistake in an exported model has a place.
#[test]
fn a_fault_of_the_exported_model_is_found_in_its_scope() {
    let golden = Golden::of("paper");
    let names = [0, 1].map(|layer| format!("levels.1.encoder.layers.{layer}.mlp.gate_proj.weight"));
    let (graph, model) = golden.with_exchanged_weights("coarse", names.each_ref().map(String::as_str));
    let weights = WeightCache::new(BundleWeights(Arc::new(golden.bundle.clone())));
    let mut tract = Tract::of_bundle(golden.bundle.clone());
    tract.insert(model).expect("loads");
    let comparison = compare(graph.verify().expect("valid"), &weights, &mut tract, 0).expect("compares");
    let first = comparison.first_divergent().expect("one diverges");
    assert_eq!(first.scope, "level2.encoder.layer0.mlp");
}

// A model that is not what its graph exports never runs, though every hash is right.
#[test]
fn a_model_of_another_graph_is_refused() {
    let golden = Golden::of("paper");
    let (root, manifest) = (golden.bundle.root(), golden.bundle.manifest());
    let mut manifest = manifest.clone();
    let models = manifest.onnx.get_mut("portable").expect("models");
    let other = models["expand"].clone();
    models.insert("coarse".to_owned(), other);
    std::fs::write(root.join("photon.json"), photonc::bundle::sealed(&manifest).expect("JSON"))
        .expect("writes");
    let (code, text) = photonc(root, &["verify", ".", "--graph", "coarse"]);
    assert!(code == 1 && text.contains("is not the ONNX model of graph `coarse`"), "{text}");
}

/// A manifest is true only with every graph that stands beside it: without its second half a protocol would be another one.
#[test]
fn a_manifest_that_leaves_out_a_graph_is_refused() {
    use photonc::bundle::{Bundle, sealed};
    use photonc::program::Plan;
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = folder.path().join("bundle");
    export(&ExportOptions::new(golden_path("paper"), &bundle), &|_| {}).expect("exports");
    let sound = Bundle::open(&bundle).expect("opens").manifest().clone();
    let refusal = |change: &dyn Fn(&mut photonc::bundle::Manifest)| {
        let mut manifest = sound.clone();
        change(&mut manifest);
        std::fs::write(bundle.join("photon.json"), sealed(&manifest).expect("JSON")).expect("writes");
        photonc(folder.path(), &["verify", "bundle"])
    };
    let (code, text) = refusal(&|manifest| {
        let plan = manifest.protocols.get_mut(&Protocol::Hiergen).expect("a protocol");
        let Plan::Undistributed { reencode, .. } = plan else {
            unreachable!("invariant: HierGen is one loop")
        };
        *reencode = None;
    });
    assert!(code == 1 && text.contains("graph `reencode` is used by none of its protocols"), "{text}");
    let (code, text) = refusal(&|manifest| drop(manifest.protocols.shift_remove(&Protocol::Hiergen)));
    assert!(code == 1 && text.contains("graph `decode` is used by none of its protocols"), "{text}");
    let (code, text) = refusal(&|manifest| {
        manifest.graphs.clear();
        manifest.protocols.clear();
        manifest.onnx.clear();
    });
    assert!(code == 1 && text.contains("nothing to compare"), "{text}");
}

fn photonc(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = assert_cmd::Command::cargo_bin("photonc").expect("built");
    let output = command.current_dir(folder).args(arguments).env("NO_COLOR", "1").output().expect("runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

// tract runs what was exported; every layer of every graph is as near as f32 allows. Then its weights are damaged.
#[test]
fn verify_answers_with_its_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = folder.path().join("bundle");
    export(&ExportOptions::new(golden_path("paper"), &bundle), &|_| {}).expect("exports");
    let (code, text) = photonc(folder.path(), &["verify", "bundle"]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = photonc(folder.path(), &["verify", "bundle", "--per-layer", "--json"]);
    assert_eq!(code, 0, "{text}");
    let document: Value = serde_json::from_str(&text).expect("JSON");
    let coarse =
        document["graphs"].as_array().expect("graphs").iter().find(|graph| graph["graph"] == "coarse");
    let values = coarse.expect("a coarse graph")["values"].as_array().expect("values");
    assert!(values.iter().any(|value| value["scope"] == "level2.decoder.layer0.mlp"), "{values:?}");

    let (code, text) = photonc(folder.path(), &["verify", "bundle", "--graph", "nothing"]);
    assert_eq!(code, 1, "{text}");
    let store = bundle.join("onnx/weights/model.safetensors");
    let mut bytes = std::fs::read(&store).expect("a store");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&store, bytes).expect("writes");
    let (code, text) = photonc(folder.path(), &["verify", "bundle"]);
    assert!(code == 1 && text.contains("model.safetensors"), "{text}");
}
