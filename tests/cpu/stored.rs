//! Weights as a checkpoint stores them: bundles of bf16 and f16 checkpoints keep their types, take half the bytes, and give
//! to the bit what the same numbers in f32 give.

use crate::device;
use crate::emulated::Order;
use crate::fixture::golden_path;
use half::{bf16, f16};
use photonc::bundle::Bundle;
use photonc::export::target::Target;
use photonc::export::{ExportOptions, export};
use photonc::ir::dtype::Dtype;
use photonc::runtime::backend::Backend;
use photonc::runtime::generator::Generator;
use photonc::runtime::launch::backend::LaunchBackend;
use photonc::runtime::reference::Reference;
use photonc::runtime::request::{Batch, Keep, Request, RunAhead};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype as Stored, TensorView};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A tensor's type, shape and bytes.
type Written = (Stored, Vec<usize>, Vec<u8>);

/// A golden checkpoint twice: its matrices rounded to a type, and the same numbers in f32. Vectors stay as they are, so that
/// types are mixed.
fn write(golden: &str, dtype: Dtype, narrow: &Path, wide: &Path) {
    let from = golden_path(golden);
    for to in [narrow, wide] {
        fs::create_dir(to).expect("creates");
        for name in ["config.json", "model_config.json"] {
            if from.join(name).is_file() {
                fs::copy(from.join(name), to.join(name)).expect("copies");
            }
        }
    }
    let bytes = fs::read(from.join("model.safetensors")).expect("reads");
    let (mut short, mut long): (BTreeMap<String, Written>, BTreeMap<String, Written>) = Default::default();
    for (name, view) in SafeTensors::deserialize(&bytes).expect("parses").tensors() {
        let shape = view.shape().to_vec();
        let values: Vec<f32> =
            view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let (stored, kept, rounded): (Stored, Vec<u8>, Vec<f32>) = match dtype {
            _ if shape.len() < 2 => (Stored::F32, view.data().to_vec(), values),
            Dtype::F16 => {
                let short: Vec<f16> = values.into_iter().map(f16::from_f32).collect();
                let bytes = short.iter().flat_map(|value| value.to_le_bytes()).collect();
                (Stored::F16, bytes, short.into_iter().map(f16::to_f32).collect())
            }
            _ => {
                let short: Vec<bf16> = values.into_iter().map(bf16::from_f32).collect();
                let bytes = short.iter().flat_map(|value| value.to_le_bytes()).collect();
                (Stored::BF16, bytes, short.into_iter().map(bf16::to_f32).collect())
            }
        };
        let bytes = rounded.iter().flat_map(|value| value.to_le_bytes()).collect();
        short.insert(name.clone(), (stored, shape.clone(), kept));
        long.insert(name, (Stored::F32, shape, bytes));
    }
    for (to, tensors) in [(narrow, &short), (wide, &long)] {
        let view = |(dtype, shape, bytes): &'_ Written| (*dtype, shape.clone(), bytes.clone());
        let owned: Vec<(String, Written)> =
            tensors.iter().map(|(name, of)| (name.clone(), view(of))).collect();
        let views = owned.iter().map(|(name, (dtype, shape, bytes))| {
            (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).expect("fits"))
        });
        safetensors::serialize_to_file(views, None, &to.join("model.safetensors")).expect("writes");
    }
}

/// An exported checkpoint, opened.
fn exported(checkpoint: &Path, targets: Option<Vec<Target>>) -> Bundle {
    let out = checkpoint.with_extension(if targets.is_some() { "models" } else { "bundle" });
    let options = ExportOptions { targets, ..ExportOptions::new(checkpoint, &out) };
    export(&options, &|_| {}).expect("exports");
    Bundle::open(&out).expect("opens")
}

/// Tokens and logits of three prompts, together and alone.
fn generated(bundle: &Bundle, backend: &dyn Fn() -> Box<dyn Backend>) -> Vec<(Vec<i64>, Vec<f64>)> {
    let vocabulary = i64::try_from(bundle.manifest().model.vocab_size).expect("small");
    let prompt = |length: i64| -> Vec<i64> { (0..length).map(|at| (7 * at + length) % vocabulary).collect() };
    let keep = Keep { logits: true, states: false, trajectory: false };
    let mut found = Vec::new();
    for protocol in bundle.manifest().protocols.keys() {
        let requests: Vec<Request> = [0, 5, 33]
            .map(|length| Request { keep, ..Request::greedy(*protocol, prompt(length), 24) })
            .to_vec();
        for requests in [requests.clone(), requests[1..2].to_vec()] {
            let mut generator = Generator::of_bundle(bundle, backend()).expect("signatures parse");
            let batch = Batch { run_ahead: RunAhead::MetaContexts(2), ..Batch::new(requests) };
            let generation = crate::fixture::model::run(&mut generator, &batch);
            found.extend(generation.sequences.into_iter().map(|sequence| (sequence.tokens, sequence.logits)));
        }
    }
    found
}

fn cpu(bundle: &Bundle) -> LaunchBackend {
    LaunchBackend::of_bundle(bundle.clone(), device(Order::Immediate), Dtype::F32).expect("loads")
}

#[test]
fn narrow_weights_give_what_the_same_numbers_in_f32_give() {
    for (golden, dtype) in [("paper", Dtype::Bf16), ("lopsided", Dtype::F16), ("scala_moe", Dtype::Bf16)] {
        let directory = tempfile::tempdir().expect("directory");
        let [narrow, wide] = ["narrow", "wide"].map(|name| directory.path().join(name));
        write(golden, dtype, &narrow, &wide);
        let [narrow, wide] = [narrow, wide].map(|path| exported(&path, None));
        let text = |bundle: &Bundle, name: &String| bundle.parsed(name).expect("parses").clone();
        for name in wide.manifest().graphs.keys() {
            let [a, b] = [&narrow, &wide].map(|bundle| photonc::graph::text::print(&text(bundle, name)));
            assert_eq!(a, b, "{golden}: graph {name}");
        }
        let on_reference = |bundle: &Bundle| {
            generated(bundle, &|| Box::new(Reference::of_bundle(bundle.clone())) as Box<dyn Backend>)
        };
        if golden == "paper" {
            assert!(on_reference(&narrow) == on_reference(&wide), "{golden} on the reference");
        }
        let on_cpu = |bundle: &Bundle| generated(bundle, &|| Box::new(cpu(bundle)) as Box<dyn Backend>);
        assert!(on_cpu(&narrow) == on_cpu(&wide), "{golden} on the processor");
    }
}

// Half the bytes in the file and in memory; no second copy unless ONNX models are asked for, and that is the f32 export's.
#[test]
fn narrow_weights_are_kept_once() {
    let directory = tempfile::tempdir().expect("directory");
    let [narrow, wide] = ["narrow", "wide"].map(|name| directory.path().join(name));
    write("paper", Dtype::Bf16, &narrow, &wide);
    let models = exported(&narrow, Some(vec![Target::Portable]));
    let file = fs::metadata(narrow.join("model.safetensors")).expect("is there").len();
    let [narrow, wide] = [narrow, wide].map(|path| exported(&path, None));
    assert!(narrow.manifest().onnx.is_empty() && narrow.manifest().widened.is_empty());
    assert_eq!(narrow.manifest().weight_files.len(), 1);
    // The order of tensors, and so the header, may be another.
    assert!(narrow.manifest().weight_bytes() < file + 1000);
    assert!(10 * narrow.manifest().weight_bytes() < 6 * wide.manifest().weight_bytes());

    let mut loaded = [cpu(&narrow), cpu(&wide)];
    let [short, long] = loaded.each_mut().map(|backend| {
        backend.prepare("encode").expect("loads");
        let graph = backend.loaded().graph("encode").expect("is there").clone();
        let layout = backend.loaded().layout().clone();
        let packs = graph.order().into_iter().filter_map(|id| layout.place_of(&graph, id)).map(|at| at.pack);
        let packs: std::collections::BTreeSet<usize> = packs.collect();
        packs.into_iter().map(|pack| layout.packs()[pack].bytes(Dtype::F32)).sum::<usize>()
    });
    assert!(10 * short < 6 * long, "{short} bytes of {long}");

    assert_eq!(models.manifest().weights, narrow.manifest().weights);
    assert_eq!(models.manifest().weight_bytes(), narrow.manifest().weight_bytes());
    assert_eq!(models.manifest().onnx.keys().collect::<Vec<_>>(), ["portable"]);
    for (name, copy) in &models.manifest().widened {
        let own = &wide.manifest().weights[name];
        let bytes = |bundle: &Bundle, at: &photonc::bundle::WeightRecord| {
            let file = fs::read(bundle.root().join(&at.file)).expect("reads");
            let start = usize::try_from(at.offset_bytes).expect("small");
            file[start..start + usize::try_from(at.length_bytes).expect("small")].to_vec()
        };
        assert!(bytes(&models, copy) == bytes(&wide, own), "{name}");
    }
    assert_eq!(models.manifest().widened.len(), models.manifest().weights.len());
}
