//! ONNX Runtime on every golden bundle, through the generator and graph by graph; and what is said where its library is
//! missing, foreign or too old.
#![cfg(feature = "ort")]
#![allow(clippy::panic, reason = "a test fails by panicking")]

mod fixture;

use assert_cmd::Command;
use fixture::bundled::Golden;
use fixture::deferred::Deferred;
use fixture::model::{PROTOCOLS, greedy, run};
use fixture::onnx_runtime::{library, options};
use fixture::ragged::{RAGGED, Ragged};
use fixture::{GOLDENS, assert_close};
use photonc::graph::interp::WeightCache;
use photonc::graph::text;
use photonc::ir::dtype::Dtype;
use photonc::ir::tensor::Tensor;
use photonc::runtime::backend::Backend;
use photonc::runtime::ort::{Ort, OrtOptions, Provider, library};
use photonc::runtime::reference::{BundleWeights, Reference};
use photonc::runtime::request::{Batch, Request, RunAhead};
use photonc::runtime::sampler::Sampling;
use photonc::runtime::simulated::Simulated;
use photonc::runtime::verify::{compare, random_inputs};
use serde_json::Value;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PROMPT: &str = "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16";

const AHEAD: [RunAhead; 3] =
    [RunAhead::MetaContexts(1), RunAhead::MetaContexts(3), RunAhead::MetaContexts(8)];

/// The CPU, wherever the other tests compute: what copies here reads host memory.
fn host() -> OrtOptions {
    OrtOptions { provider: Provider::Cpu, ..options() }
}

fn ort(golden: &Golden) -> Ort {
    Ort::of_bundle(golden.bundle.clone(), &options()).expect("the library loads")
}

#[test]
fn every_golden_result_is_reproduced() {
    for name in GOLDENS {
        let golden = Golden::of(name);
        let mut generator = golden.generator(Box::new(ort(&golden)));
        golden.check(name, &mut generator, &AHEAD);
    }
}

// A GPU has done nothing yet when a copy returns. Here nothing is done before it is waited for.
#[test]
fn what_is_queued_is_done_before_it_is_read() {
    let golden = Golden::of("paper");
    let backend = Ort::copied_by(golden.bundle.clone(), &host(), Box::new(Deferred::default()));
    let mut generator = golden.generator(Box::new(backend.expect("the library loads")));
    golden.check("paper", &mut generator, &AHEAD);
}

// One buffer under every kind of copy, beside the reference.
#[test]
fn copies_between_buffers_are_those_of_the_reference() {
    let golden = Golden::of("paper");
    let reference: Box<dyn Backend> = Box::new(Reference::of_bundle(golden.bundle.clone()));
    let deferred = Ort::copied_by(golden.bundle.clone(), &host(), Box::new(Deferred::default()));
    let backends: [Box<dyn Backend>; 3] =
        [reference, Box::new(deferred.expect("the library loads")), Box::new(ort(&golden))];
    let [expected, deferred, found] = backends.map(|mut backend| {
        [Dtype::F32, Dtype::F16, Dtype::I64].map(|dtype| {
            let numbers = |shape: &[usize], from: usize| {
                let count = from..from + shape.iter().product::<usize>();
                let tensor = match dtype {
                    Dtype::I64 => Tensor::ints(shape, count.map(|k| k as i64).collect()),
                    _ => Tensor::floats(shape, count.map(|k| k as f64).collect()),
                };
                tensor.expect("counts agree")
            };
            let source = backend.upload(&numbers(&[2, 3, 2, 4], 100), dtype).expect("uploads");
            let mut cache = backend.upload(&numbers(&[2, 3, 5, 4], 300), dtype).expect("uploads");
            backend.write(&mut cache, &source, 2, &[3, 1]).expect("writes");
            drop(source);
            let rows = backend.gather(&cache, &[1, 0, 1]).expect("gathers");
            drop(cache);
            let part = backend.slice(&rows, 2, 1, 3).expect("slices");
            let none = backend.slice(&rows, 2, 1, 0).expect("slices");
            [rows, part, none].map(|buffer| backend.download(&buffer).expect("downloads"))
        })
    });
    assert_eq!(found, expected);
    assert_eq!(deferred, expected);
}

#[test]
fn any_prompt_will_do() {
    for name in RAGGED {
        let golden = Golden::of(name);
        let mut generator = golden.generator(Box::new(ort(&golden)));
        Ragged::single(name).check("ort", &mut generator, &AHEAD[..2]);
        Ragged::single(name).check_scores("ort", &mut generator);
    }
}

// Both samplers draw what the reference draws, and poisoned buffers change nothing.
#[test]
fn the_tokens_of_the_reference_are_drawn() {
    let golden = Golden::of("lopsided");
    let reference = golden.generator(Box::new(Reference::of_bundle(golden.bundle.clone())));
    let device = golden.generator(Box::new(Simulated::new(ort(&golden))));
    let mut generators = [reference, device];
    for protocol in PROTOCOLS {
        for min_p in [0.0, 1e-3] {
            let sampling = Sampling { temperature: 0.9, top_k: 10, top_p: 0.95, min_p, seed: 42 };
            let request = Request { sampling, samples: 2, ..greedy(protocol, 40) };
            let batch = Batch::alike(&request, &golden.prompts(), AHEAD[0]);
            let [expected, found] = generators.each_mut().map(|generator| run(generator, &batch).sequences);
            assert_eq!(found, expected, "{protocol} min-p {min_p}");
        }
    }
}

#[test]
fn scores_match_the_teacher_forced_forward() {
    for name in GOLDENS {
        let golden = Golden::of(name);
        let mut generator = golden.generator(Box::new(ort(&golden)));
        let (scored, _) = generator.score(&golden.aligned()).expect("scores");
        for (k, scored) in scored.iter().enumerate() {
            let logits = golden.expected.floats(k, "fwd_logits");
            assert_close(
                &format!("{name} prompt {k}"),
                &scored.logits,
                logits,
                golden.logit_tolerance(logits),
            );
        }
    }
}

#[test]
fn every_graph_holds_against_the_reference() {
    for name in GOLDENS {
        let golden = Golden::of(name);
        let weights = WeightCache::new(BundleWeights(Arc::new(golden.bundle.clone())));
        let mut backend = ort(&golden);
        for graph_name in golden.bundle.manifest().graphs.keys() {
            let text = golden.bundle.graph_text(graph_name).expect("reads");
            let graph = text::parse(&text).expect("parses");
            let verified = graph.verify().expect("valid");
            let comparison = compare(verified, &weights, &mut backend, 0).expect("compares");
            assert!(!comparison.values.is_empty(), "{name} {graph_name}: nothing compared");
            let worst = comparison.first_divergent();
            assert!(worst.is_none(), "{name} {graph_name}: {worst:?}");
        }
    }
}

// Left alone, ONNX Runtime rounds the other factor to int8 too: this product is then off by 1e-2.
#[test]
fn products_with_int8_weights_compute_in_f32() {
    let golden = Golden::of("paper");
    let mut backend = ort(&golden);
    let (graph, x, y) = fixture::int8::product();
    backend.insert(graph).expect("loads");
    let x = backend.upload(&x, Dtype::F32).expect("uploads");
    let outputs = backend.run("product", &[("x", &x)]).expect("runs");
    let found = backend.download(&outputs[0].1).expect("downloads");
    assert_close("product", found.as_floats().expect("floats"), &y, 1e-5);
}

// The whole program; then two weights of one model change places.
#[test]
fn verify_finds_a_fault_in_its_scope() {
    let golden = Golden::of("paper");
    let layers = ["--backend", "ort", "--threads", "1", "--per-layer", "--json"];
    let holds = photonc("verify", &golden, &layers).success();
    let document: Value = serde_json::from_slice(&holds.get_output().stdout).expect("JSON");
    assert!(document["graphs"].as_array().expect("graphs").len() > 3, "{document}");
    let names = [0, 1].map(|layer| format!("levels.1.decoder.layers.{layer}.mlp.down_proj.weight"));
    let (graph, model) = golden.with_exchanged_weights("coarse", names.each_ref().map(String::as_str));
    let weights = WeightCache::new(BundleWeights(Arc::new(golden.bundle.clone())));
    let mut backend = ort(&golden);
    backend.insert(model).expect("loads");
    let comparison = compare(graph.verify().expect("valid"), &weights, &mut backend, 0).expect("compares");
    let first = comparison.first_divergent().expect("one diverges");
    assert_eq!(first.scope, "level2.decoder.layer0.mlp");
}

// ONNX Runtime reads weights by path: were it another bundle that stands there by now, its weights would be taken.
#[test]
fn a_bundle_that_was_replaced_is_not_read_by_path() {
    let (golden, other) = (Golden::of("paper"), Golden::of("lopsided"));
    let mut backend = ort(&golden);
    let root = golden.bundle.root();
    std::fs::rename(root, root.with_extension("old")).expect("renames");
    std::fs::rename(other.bundle.root(), root).expect("renames");
    let error = backend.prepare("coarse").expect_err("is another bundle").to_string();
    assert!(error.contains("was replaced or changed while in use"), "{error}");
}

/// The inputs of `score`, some of them replaced, in ONNX Runtime.
fn score_with(golden: &Golden, replaced: &[(&str, Tensor)]) -> String {
    let graph = text::parse(&golden.bundle.graph_text("score").expect("reads")).expect("parses");
    let mut inputs = random_inputs(&graph, 0);
    for (name, tensor) in replaced {
        assert!(inputs.insert((*name).to_owned(), tensor.clone()).is_some(), "score has no input {name}");
    }
    let mut backend = ort(golden);
    let mut upload = |tensor: &Tensor| {
        let dtype = if tensor.as_ints().is_some() { Dtype::I64 } else { Dtype::F32 };
        backend.upload(tensor, dtype).expect("uploads")
    };
    let buffers: Vec<_> = inputs.iter().map(|(name, tensor)| (name.clone(), upload(tensor))).collect();
    let given: Vec<_> = buffers.iter().map(|(name, buffer)| (name.as_str(), buffer)).collect();
    backend.run("score", &given).expect_err("refused").to_string()
}

#[test]
fn a_token_outside_the_vocabulary_is_refused() {
    let golden = Golden::of("paper");
    let tokens = golden.bundle.manifest().model.meta_tokens * 3;
    let ids = Tensor::ints(&[2, tokens], vec![i64::from(i32::MAX); 2 * tokens]).expect("counts agree");
    let error = score_with(&golden, &[("ids", ids)]);
    assert!(error.contains("`score` failed in backend `ort`") && error.contains("bounds"), "{error}");
}

// Rows of one batch come together: a model that reads two of one input and three of another has no meaning.
#[test]
fn a_batch_that_differs_between_inputs_is_refused() {
    let golden = Golden::of("paper");
    let lengths = Tensor::ints(&[3], vec![1; 3]).expect("counts agree");
    let error = score_with(&golden, &[("lengths", lengths)]);
    assert!(error.contains("`score` failed in backend `ort`"), "{error}");
}

#[test]
fn weights_cut_short_are_refused() {
    let golden = Golden::of("paper");
    let mut backend = ort(&golden);
    let (path, _) = golden.bundle.manifest().weight_files.first_key_value().expect("weights");
    let file = std::fs::OpenOptions::new().write(true).open(golden.bundle.root().join(path)).expect("opens");
    file.set_len(file.metadata().expect("size").len() / 2).expect("shrinks");
    let error = backend.prepare("coarse").expect_err("half a file").to_string();
    assert!(error.contains("was replaced or changed while in use"), "{error}");
}

#[test]
fn a_second_number_of_threads_is_refused() {
    let golden = Golden::of("paper");
    let _first = ort(&golden);
    let options = OrtOptions { threads: NonZero::new(99), ..options() };
    let error = Ort::of_bundle(golden.bundle.clone(), &options).err().expect("refused").to_string();
    assert!(error.contains("threads already"), "{error}");
}

fn photonc(command: &str, golden: &Golden, arguments: &[&str]) -> assert_cmd::assert::Assert {
    let mut photonc = Command::cargo_bin("photonc").expect("is built");
    photonc.env("PHOTONC_ORT_LIB", library()).arg(command).arg(golden.bundle.root()).args(arguments).assert()
}

/// What `generate` says when `library` is named.
fn refusal(golden: &Golden, library: &Path) -> String {
    let library = library.to_str().expect("UTF-8");
    let arguments = ["--backend", "ort", "--ort-lib", library, "--prompt-ids", PROMPT];
    let failed = photonc("generate", golden, &arguments).code(1);
    let said = String::from_utf8(failed.get_output().stderr.clone()).expect("UTF-8");
    assert!(said.contains("the library of ONNX Runtime, libonnxruntime.so, cannot be used"), "{said}");
    assert!(said.contains("pip install onnxruntime") && said.contains("--ort-lib"), "{said}");
    said
}

/// A library made of Rust source.
fn built(folder: &Path, name: &str, source: &str) -> PathBuf {
    let (from, to) = (folder.join(format!("{name}.rs")), folder.join(format!("lib{name}.so")));
    std::fs::write(&from, source).expect("writes");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut rustc = Command::new(rustc);
    rustc.args(["--crate-type", "cdylib", "--edition", "2021", "-o"]).arg(&to).arg(&from).assert().success();
    to
}

#[test]
fn a_missing_foreign_or_old_library_is_named() {
    let golden = Golden::of("paper");
    let folder = tempfile::tempdir().expect("directory");
    let nowhere = folder.path().join("libonnxruntime.so.1");
    assert!(refusal(&golden, &nowhere).contains(nowhere.to_str().expect("UTF-8")));
    assert!(refusal(&golden, folder.path()).contains("the folder has no libonnxruntime.so*"));
    std::fs::write(&nowhere, "no library").expect("writes");
    assert!(refusal(&golden, &nowhere).contains(nowhere.to_str().expect("UTF-8")));
    let foreign = built(folder.path(), "foreign", "#[no_mangle] pub extern \"C\" fn other() {}");
    assert!(refusal(&golden, &foreign).contains("it is not ONNX Runtime"));
    let old = built(
        folder.path(),
        "old",
        r#"
            #[repr(C)] pub struct Base(extern "C" fn(u32) -> usize, extern "C" fn() -> *const u8);
            extern "C" fn api(_version: u32) -> usize { 0 }
            extern "C" fn version() -> *const u8 { b"1.16.3\0".as_ptr() }
            static BASE: Base = Base(api, version);
            #[no_mangle] pub extern "C" fn OrtGetApiBase() -> &'static Base { &BASE }
        "#,
    );
    let said = refusal(&golden, &old);
    assert!(said.contains("its version is 1.16.3, expected 1."), "{said}");
}

// Options that nothing would heed are not let pass in silence.
#[test]
fn options_of_another_backend_are_refused() {
    let golden = Golden::of("paper");
    let asked = ["--backend", "tract", "--threads", "2", "--prompt-ids", "1,2,3,4"];
    let failed = photonc("generate", &golden, &asked).code(2);
    let said = String::from_utf8(failed.get_output().stderr.clone()).expect("UTF-8");
    assert!(
        said.contains("--threads is for `--backend cpu` and `--backend ort`, found `--backend tract`"),
        "{said}"
    );
}

// The wheel for CPUs has no CUDA: that is said, and no CPU stands in.
#[test]
fn a_missing_cuda_provider_is_an_error() {
    let golden = Golden::of("paper");
    let providers = library::find(Some(&library())).expect("a library").providers;
    let run =
        photonc("generate", &golden, &["--backend", "ort", "--provider", "cuda", "--prompt-ids", PROMPT]);
    let output = run.get_output();
    let said = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    // A library with the provider needs a GPU and CUDA's libraries; where both are, this is a test that it runs.
    let with_cuda = providers.iter().any(|name| name == "CUDAExecutionProvider");
    if !with_cuda {
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("was built without the CUDA execution provider"), "{said}");
        assert!(said.contains("pip install onnxruntime-gpu"), "{said}");
    }
    assert_eq!(output.stdout.is_empty(), !output.status.success(), "{said}");
}

// Products are summed in another order; the tokens of a golden prompt do not hang on it. And ONNX Runtime is not heard.
#[test]
fn the_number_of_threads_changes_no_token() {
    let golden = Golden::of("paper");
    let tokens = |threads: &str| {
        let arguments = [
            "--backend",
            "ort",
            "--threads",
            threads,
            "-n",
            "32",
            "--greedy",
            "--json",
            "--quiet",
            "--prompt-ids",
            PROMPT,
        ];
        let run = photonc("generate", &golden, &arguments).success();
        let output = run.get_output();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        document["tokens"].clone()
    };
    assert_eq!(tokens("1"), tokens("2"));
}
