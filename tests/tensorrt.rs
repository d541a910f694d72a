//! Engines by TensorRT-RTX itself, on a machine that has no GPU: every graph builds for several GPUs at once, failures lead
//! back to the model, and wrong libraries are refused. Nothing here runs an engine.
#![cfg(all(feature = "tensorrt-rtx", not(feature = "tensorrt")))]
#![allow(clippy::panic, reason = "a failed test panics")]

mod fixture;

use fixture::{GOLDENS, golden_path};
use photonc::bundle::Bundle;
use photonc::engine::tensorrt::{TensorRt, find};
use photonc::engine::{EngineSet, Found, Profile, Sm};
use photonc::export::engines::{
    EngineError, EngineOptions, EngineProgress, EngineReport, Failed, build_engines,
};
use photonc::export::{ExportOptions, export};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

/// The libraries of `scripts/setup-test-deps.sh --tensorrt`, or where `PHOTONC_TENSORRT_LIB` says.
fn library_folder() -> PathBuf {
    if let Some(named) = std::env::var_os("PHOTONC_TENSORRT_LIB") {
        return named.into();
    }
    let deps = Path::new(env!("CARGO_MANIFEST_DIR")).join(".deps/py/lib");
    let pythons = fs::read_dir(deps).into_iter().flatten().flatten();
    let mut folders = pythons.map(|python| python.path().join("site-packages/tensorrt_rtx_libs"));
    let found = folders.find(|folder| folder.is_dir());
    found.unwrap_or_else(|| {
        panic!("no TensorRT-RTX for tests; scripts/setup-test-deps.sh --tensorrt installs it")
    })
}

fn found() -> Found {
    find(Some(&library_folder())).unwrap_or_else(|error| panic!("{error}"))
}

fn bundle(golden: &str, folder: &Path) -> Bundle {
    let out = folder.join("bundle");
    export(&ExportOptions::new(golden_path(golden), &out), &|_| {}).expect("exports");
    Bundle::open(&out).expect("opens")
}

/// One profile for every graph: each more costs its time again.
fn options(sms: &[u16]) -> EngineOptions {
    let profile = Profile::parse("batch=1:2:4,meta=1:2:4,capacity=1:4:128").expect("a profile");
    EngineOptions { profiles: vec![profile], ..EngineOptions::new(sms.iter().map(|sm| Sm(*sm)).collect()) }
}

/// One build at a time: the libraries are one pair for the whole process.
static TURN: Mutex<()> = Mutex::new(());

fn build(bundle: &Bundle, options: &EngineOptions) -> Result<EngineReport, EngineError> {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut vendor = TensorRt::open(&found()).unwrap_or_else(|error| panic!("{error}"));
    let steps = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&steps);
    let progress: Arc<dyn Fn(EngineProgress) + Send + Sync> = Arc::new(move |progress| {
        *counted.lock().expect("unpoisoned") += usize::from(progress.step.is_some());
    });
    let report = build_engines(bundle, &mut vendor, options, &progress)?;
    assert!(*steps.lock().expect("unpoisoned") > 0, "a build tells how far it is");
    Ok(report)
}

#[test]
fn every_graph_of_every_golden_builds_for_two_gpus_at_once() {
    for golden in GOLDENS {
        let folder = tempfile::tempdir().expect("a folder");
        let bundle = bundle(golden, folder.path());
        let report = build(&bundle, &options(&[89, 120])).unwrap_or_else(|error| panic!("{golden}: {error}"));
        let set = EngineSet::open(&report.set.folder).expect("opens");
        for name in bundle.manifest().graphs.keys() {
            let engine = set.graph(name).expect("is recorded");
            set.intact(engine).expect("is intact");
            assert!(engine.bytes > 10_000, "{golden} {name}: {} bytes are no engine", engine.bytes);
            println!("{golden:<18} {name:<16} {:>6.1} s {:>10} bytes", engine.build_seconds, engine.bytes);
            if let Some(peak) = engine.peak_bytes {
                assert!(peak <= engine.predicted_peak_bytes, "{golden} {name}: {peak} bytes at the peak");
            }
        }
    }
}

// TensorRT-RTX has no f32 products for Turing: a true refusal of its compiler, deep inside a graph.
#[test]
fn what_cannot_be_built_is_placed_and_reduced() {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = bundle("paper", folder.path());
    let reproducer = folder.path().join("part");
    let options = EngineOptions {
        graphs: Some(vec!["coarse".to_owned()]),
        reproducer: Some(reproducer.clone()),
        ..options(&[75])
    };
    let error = build(&bundle, &options).expect_err("is refused");
    let text = error.to_string();
    let EngineError::Failed(failed) = error else { panic!("{text}") };
    let Failed { findings, reproducer: Some(part), .. } = *failed else { panic!("{text}") };
    let scope = findings[0].scope.as_deref().unwrap_or_default();
    assert!(scope.starts_with("level2."), "{text}");
    assert_eq!(findings[0].op.as_deref(), Some("MatMul"), "{text}");
    assert!(text.contains("FP32 GEMM is not supported"), "{text}");
    assert!(part.operations.values().sum::<usize>() <= 4, "one product and its operands: {part:?}");
    assert!(part.onnx.is_file(), "{part:?}");
}

fn photonc(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_photonc")).args(arguments).output().expect("runs")
}

/// What `photonc` says of an input it refuses.
fn refusal(arguments: &[&str]) -> String {
    let output = photonc(arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
    text
}

#[test]
fn a_missing_library_is_a_plain_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = bundle("paper", folder.path());
    let bundle = bundle.root().to_string_lossy().into_owned();
    let text = refusal(&["build", &bundle, "--engine", "tensorrt-rtx:89", "--tensorrt-lib", "/nowhere"]);
    assert!(text.contains("/nowhere") && text.contains("pip install tensorrt-rtx"), "{text}");
    assert!(!Path::new(&bundle).join("engines").exists(), "nothing was begun");
}

/// A library in `folder` that tells the version 1.`minor`.0 and does nothing else.
fn impostor(folder: &Path, minor: u32) {
    let source = folder.join("impostor.c");
    let code = format!(
        "int getInferLibMajorVersion(void) {{ return 1; }}\nint getInferLibMinorVersion(void) {{ return {minor}; }}\n\
         int getInferLibPatchVersion(void) {{ return 0; }}\n"
    );
    fs::write(&source, code).expect("writes");
    for name in ["libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1"] {
        let status =
            Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(folder.join(name)).arg(&source).status();
        assert!(status.expect("a C compiler").success());
    }
}

// Calling into another version is undefined behaviour, so it must be seen before anything of it runs.
#[test]
fn another_version_is_refused_before_it_is_called() {
    let folder = tempfile::tempdir().expect("a folder");
    impostor(folder.path(), 3);
    let error = find(Some(folder.path())).expect_err("is refused").to_string();
    assert!(error.contains("its version is 1.3.0, this photonc speaks to 1.7"), "{error}");
}

#[test]
fn a_library_without_its_parser_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    impostor(folder.path(), 7);
    fs::remove_file(folder.path().join("libtensorrt_onnxparser_rtx.so.1")).expect("removes");
    let error = find(Some(folder.path())).expect_err("is refused").to_string();
    assert!(error.contains("it has no ONNX parser beside it"), "{error}");
}

#[test]
fn something_else_by_that_name_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("libtensorrt_rtx.so.1");
    fs::write(&path, "not a library").expect("writes");
    let error = find(Some(&path)).expect_err("is refused").to_string();
    assert!(error.contains("libtensorrt_rtx.so.1"), "{error}");
}
