//! ONNX Runtime on every golden bundle, through the generator and graph by graph; and what is said where its library is
//! missing, foreign or too old. Where there is none the tests that need one say so and are skipped.
#![cfg(feature = "ort")]
#![allow(clippy::print_stderr, reason = "a skipped test must be heard of")]

mod fixture;

use assert_cmd::Command;
use fixture::bundled::Golden;
use fixture::model::PROTOCOLS;
use fixture::{GOLDENS, assert_close};
use photonc::graph::interp::WeightCache;
use photonc::graph::text;
use photonc::ir::dtype::Dtype;
use photonc::ir::tensor::Tensor;
use photonc::runtime::backend::Backend as _;
use photonc::runtime::ort::{Ort, OrtOptions, library};
use photonc::runtime::reference::{BundleWeights, Reference};
use photonc::runtime::request::{Cancel, Request, RunAhead};
use photonc::runtime::sampler::Sampling;
use photonc::runtime::simulated::Simulated;
use photonc::runtime::verify::compare;
use std::path::Path;
use std::sync::Arc;

const AHEAD: [RunAhead; 3] =
    [RunAhead::MetaContexts(1), RunAhead::MetaContexts(3), RunAhead::MetaContexts(8)];

/// Whether there is a library; says so on stderr, past the test harness, if not.
fn found(test: &str) -> bool {
    match library::find(None) {
        Ok(_) => true,
        Err(missing) => {
            use std::io::Write as _;
            let _unheard = writeln!(std::io::stderr(), "SKIPPED {test}: {missing}");
            false
        }
    }
}

fn ort(golden: &Golden) -> Ort {
    Ort::of_bundle(golden.bundle.clone(), &OrtOptions::default()).expect("the library loads")
}

#[test]
fn every_golden_result_is_reproduced() {
    if !found("every_golden_result_is_reproduced") {
        return;
    }
    for name in GOLDENS {
        let golden = Golden::of(name);
        let mut generator = golden.generator(Box::new(ort(&golden)));
        golden.check(name, &mut generator, &AHEAD);
    }
}

// Both samplers draw what the reference draws, and poisoned buffers change nothing.
#[test]
fn the_tokens_of_the_reference_are_drawn() {
    if !found("the_tokens_of_the_reference_are_drawn") {
        return;
    }
    let golden = Golden::of("lopsided");
    let reference = golden.generator(Box::new(Reference::of_bundle(golden.bundle.clone())));
    let device = golden.generator(Box::new(Simulated::new(ort(&golden))));
    let mut generators = [reference, device];
    for protocol in PROTOCOLS {
        for min_p in [0.0, 1e-3] {
            let sampling = Sampling { temperature: 0.9, top_k: 10, top_p: 0.95, min_p, seed: 42 };
            let request = Request { sampling, samples: 2, ..Request::greedy(protocol, golden.prompts(), 40) };
            let [expected, found] = generators.each_mut().map(|generator| {
                let generation = generator.generate(&request, &mut |_| {}, &Cancel::default());
                generation.expect("generates").sequences
            });
            assert_eq!(found, expected, "{protocol} min-p {min_p}");
        }
    }
}

#[test]
fn scores_match_the_teacher_forced_forward() {
    if !found("scores_match_the_teacher_forced_forward") {
        return;
    }
    for name in GOLDENS {
        let golden = Golden::of(name);
        let mut generator = golden.generator(Box::new(ort(&golden)));
        let (scored, _) = generator.score(&golden.prompts()).expect("scores");
        for (k, scored) in scored.iter().enumerate() {
            let logits = golden.expected.floats(k, "fwd_logits");
            assert_close(&format!("{name} prompt {k}"), &scored.logits, logits, golden.tolerance);
        }
    }
}

#[test]
fn every_graph_holds_against_the_reference() {
    if !found("every_graph_holds_against_the_reference") {
        return;
    }
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

// The whole program: `verify --per-layer` gives ONNX Runtime models that the bundle does not have.
#[test]
fn the_command_line_verifies_layer_by_layer() {
    if !found("the_command_line_verifies_layer_by_layer") {
        return;
    }
    let golden = Golden::of("paper");
    let arguments = ["--backend", "ort", "--threads", "1", "--per-layer", "--graph", "coarse"];
    photonc("verify", &golden, &arguments).success();
}

#[test]
fn a_token_outside_the_vocabulary_is_refused() {
    if !found("a_token_outside_the_vocabulary_is_refused") {
        return;
    }
    let golden = Golden::of("paper");
    let mut backend = ort(&golden);
    let graph = golden.bundle.graph("score").expect("a graph");
    let [ids] = &graph.inputs[..] else { panic!("score reads {:?}", graph.inputs) };
    let tokens = vec![i64::from(i32::MAX); golden.bundle.manifest().model.meta_tokens * 2];
    let tensor = Tensor::ints(&[1, tokens.len()], tokens).expect("counts agree");
    let buffer = backend.upload(&tensor, Dtype::I64).expect("uploads");
    let error = backend.run("score", &[(&ids.name, &buffer)]).expect_err("no such token").to_string();
    assert!(error.contains("`score` failed in backend `ort`") && error.contains("bounds"), "{error}");
}

#[test]
fn weights_cut_short_are_refused() {
    if !found("weights_cut_short_are_refused") {
        return;
    }
    let golden = Golden::of("paper");
    let mut backend = ort(&golden);
    let (path, _) = golden.bundle.manifest().weight_files.first_key_value().expect("weights");
    let file = std::fs::OpenOptions::new().write(true).open(golden.bundle.root().join(path)).expect("opens");
    file.set_len(file.metadata().expect("size").len() / 2).expect("shrinks");
    let error = backend.prepare("coarse").expect_err("half a file").to_string();
    assert!(error.starts_with("graph `coarse`: ort cannot load"), "{error}");
}

#[test]
fn a_second_number_of_threads_is_refused() {
    if !found("a_second_number_of_threads_is_refused") {
        return;
    }
    let golden = Golden::of("paper");
    let _first = ort(&golden);
    let options = OrtOptions { threads: std::num::NonZero::new(99), ..OrtOptions::default() };
    let error = Ort::of_bundle(golden.bundle.clone(), &options).err().expect("refused").to_string();
    assert!(error.contains("threads already"), "{error}");
}

fn photonc(command: &str, golden: &Golden, arguments: &[&str]) -> assert_cmd::assert::Assert {
    let mut photonc = Command::cargo_bin("photonc").expect("is built");
    photonc.arg(command).arg(golden.bundle.root()).args(arguments).assert()
}

/// What `generate` says when `library` is named.
fn refusal(golden: &Golden, library: &Path) -> String {
    let library = library.to_str().expect("UTF-8");
    let arguments =
        ["--backend", "ort", "--ort-lib", library, "--prompt-ids", "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16"];
    let failed = photonc("generate", golden, &arguments).code(1);
    let said = String::from_utf8(failed.get_output().stderr.clone()).expect("UTF-8");
    assert!(said.contains("the library of ONNX Runtime, libonnxruntime.so, cannot be used"), "{said}");
    assert!(said.contains("pip install onnxruntime") && said.contains("--ort-lib"), "{said}");
    said
}

/// A library made of Rust source.
fn built(folder: &Path, name: &str, source: &str) -> std::path::PathBuf {
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
    let failed = photonc("generate", &golden, &["--threads", "2", "--prompt-ids", "1,2,3,4"]).code(2);
    let said = String::from_utf8(failed.get_output().stderr.clone()).expect("UTF-8");
    assert!(said.contains("--threads is for `--backend ort`, found `--backend tract`"), "{said}");
}

// The wheel for CPUs has no CUDA: that is said, and no CPU stands in.
#[test]
fn a_missing_cuda_provider_is_an_error() {
    if !found("a_missing_cuda_provider_is_an_error") {
        return;
    }
    let golden = Golden::of("paper");
    let arguments =
        ["--backend", "ort", "--provider", "cuda", "--prompt-ids", "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16"];
    let run = photonc("generate", &golden, &arguments);
    let output = run.get_output();
    let said = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    if output.status.success() {
        eprintln!("SKIPPED a_missing_cuda_provider_is_an_error: this machine has the provider and a GPU");
    } else {
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("CUDA execution provider") || said.contains("CUDA"), "{said}");
        assert!(output.stdout.is_empty(), "no tokens");
    }
}
