//! Engines by TensorRT-RTX itself, on a machine that has no GPU: every graph builds for several GPUs at once, failures lead
//! back to the model, and wrong libraries are refused. Nothing here runs an engine.
#![cfg(all(feature = "tensorrt-rtx", not(feature = "tensorrt")))]
#![allow(clippy::panic, clippy::print_stdout, reason = "a failed test panics; what was built is shown")]

mod fixture;

use fixture::{GOLDENS, golden_path};
use photonc::bundle::Bundle;
use photonc::engine::tensorrt::{TensorRt, find};
use photonc::engine::{EngineSet, Found, Profile, Sm};
use photonc::export::engines::{
    EngineError, EngineOptions, EngineProgress, EngineReport, Failed, build_engines,
};
use photonc::export::target::Target;
use photonc::export::{ExportOptions, export};
use photonc::ir::attr::Scheme;
use photonc::ir::dtype::Dtype;
use photonc::model::preset::preset;
use photonc::model::synth::synth;
use photonc::passes::quantize_weights::Choice;
use serde_json::Value;
use std::fs;
use std::io::Write as _;
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
    let targets = vec![Target::TensorrtRtx];
    export(&ExportOptions { targets, ..ExportOptions::new(golden_path(golden), &out) }, &|_| {})
        .expect("exports");
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

/// A model, how it is exported, and the graphs that TensorRT-RTX 1.7.1 does not build then (docs/tensorrt.md).
#[derive(Clone, Copy)]
struct Trial {
    model: &'static str,
    dtype: Dtype,
    quantized: &'static [(&'static str, Scheme)],
    unbuilt: &'static [&'static str],
}

impl Trial {
    const fn of(model: &'static str, dtype: Dtype) -> Self {
        Trial { model, dtype, quantized: &[], unbuilt: &[] }
    }

    fn name(&self) -> String {
        let coded = self.quantized.iter().map(|(stack, scheme)| format!(" {stack}={}", scheme.name()));
        format!("{} {}{}", self.model, self.dtype, coded.collect::<String>())
    }

    /// The bundle of a golden, of a preset, or of `paper-600m` with two layers in each stack.
    fn bundle(&self, folder: &Path) -> Bundle {
        let model = match GOLDENS.contains(&self.model) {
            true => golden_path(self.model),
            false => {
                let mut config = preset(self.model).expect("a preset");
                for level in &mut config.levels {
                    (level.encoder.layers, level.decoder.layers) = (2, 2);
                }
                let model = folder.join("model");
                synth(&config, self.dtype, 0, &model, &|_, _| {}).expect("writes");
                model
            }
        };
        let choice =
            |(stack, scheme): &(&'static str, Scheme)| Choice { stack: (*stack).into(), scheme: *scheme };
        let options = ExportOptions {
            precision: self.dtype,
            quantized: self.quantized.iter().map(choice).collect(),
            targets: vec![Target::TensorrtRtx],
            ..ExportOptions::new(model, folder.join("bundle"))
        };
        export(&options, &|_| {}).unwrap_or_else(|error| panic!("{}: {error}", self.name()));
        Bundle::open(&options.out).expect("opens")
    }

    /// Builds every graph for two GPUs at once, a line for each.
    fn run(&self, options: &EngineOptions) {
        let folder = tempfile::tempdir().expect("a folder");
        let bundle = self.bundle(folder.path());
        let every = bundle.manifest().graphs.keys();
        let (unbuilt, built): (Vec<String>, Vec<String>) =
            every.cloned().partition(|graph| self.unbuilt.contains(&graph.as_str()));
        let options = EngineOptions { graphs: Some(built), ..options.clone() };
        let report = build(&bundle, &options).unwrap_or_else(|error| panic!("{}: {error}", self.name()));
        let set = EngineSet::open(&report.set.folder).expect("opens");
        assert_eq!(set.record.graphs.len() + unbuilt.len(), bundle.manifest().graphs.len());
        for (graph, engine) in &set.record.graphs {
            set.intact(engine).expect("is intact");
            assert!(engine.bytes > 10_000, "{} {graph}: {} bytes are no engine", self.name(), engine.bytes);
            let (seconds, megabytes) = (engine.build_seconds, engine.bytes as f64 / 1e6);
            let peak = engine.peak_bytes.unwrap_or(0);
            println!(
                "| {} | {graph} | {seconds:.1} | {megabytes:.1} | {:.0} |",
                self.name(),
                peak as f64 / 1e6
            );
            assert!(peak <= engine.predicted_peak_bytes, "{} {graph}: {peak} bytes at the peak", self.name());
        }
        // What is known not to build is known until it does.
        for graph in unbuilt {
            let options = EngineOptions { graphs: Some(vec![graph.clone()]), ..options.clone() };
            let error = build(&bundle, &options)
                .err()
                .unwrap_or_else(|| panic!("{} {graph} builds now", self.name()));
            println!("known: {}: {error}", self.name());
        }
    }
}

#[test]
fn every_graph_of_every_golden_builds_for_two_gpus_at_once() {
    for golden in GOLDENS {
        Trial::of(golden, Dtype::F32).run(&options(&[89, 120]));
    }
}

/// The long run: chosen sizes, other types, weights in few bits, full width.
#[test]
fn other_models_and_types_build_too() {
    if std::env::var_os("PHOTONC_FULL").is_none() {
        // Past the capture of passing tests.
        let said = b"SKIPPED other_models_and_types_build_too: set PHOTONC_FULL, it takes minutes\n";
        std::io::stderr().write_all(said).expect("writes");
        return;
    }
    let chosen = EngineOptions { profiles: Vec::new(), ..options(&[89, 120]) };
    for dtype in [Dtype::F16, Dtype::Bf16] {
        Trial::of("paper", dtype).run(&options(&[89, 120]));
    }
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        Trial::of("tiny", dtype).run(&chosen);
    }
    let quantized = [
        Trial { quantized: &[("level2.encoder", Scheme::Int8)], ..Trial::of("tiny", Dtype::F32) },
        Trial { quantized: &[("level2.encoder", Scheme::Int8)], ..Trial::of("tiny", Dtype::F16) },
        Trial { quantized: &[("level2", Scheme::Int4)], ..Trial::of("tiny", Dtype::F16) },
    ];
    quantized.iter().for_each(|trial| trial.run(&options(&[89, 120])));
    Trial::of("paper-600m", Dtype::F16).run(&chosen);
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
    let op = findings[0].op.as_deref().unwrap_or_default();
    assert!(["Gemm", "MatMul"].contains(&op), "a product: {text}");
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

// From checkpoint to engine in one command; what was built is told as JSON.
#[test]
fn an_export_builds_engines_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("bundle").to_string_lossy().into_owned();
    let (model, library) = (golden_path("paper"), library_folder());
    let output = photonc(&[
        "export",
        &model.to_string_lossy(),
        "-o",
        &out,
        "--protocol",
        "recgen",
        "--target",
        "tensorrt-rtx:89",
        "--profile",
        "batch=1,meta=2,capacity=8",
        "--tensorrt-lib",
        &library.to_string_lossy(),
        "--no-reproducer",
        "--json",
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(told["engines"][0]["sms"], serde_json::json!([89]));
    let bundle = Bundle::open(Path::new(&out)).expect("opens");
    let engines = told["engines"][0]["graphs"].as_object().expect("graphs").len();
    assert_eq!(engines, bundle.manifest().graphs.len());
    assert_eq!(bundle.manifest().onnx.keys().collect::<Vec<_>>(), ["tensorrt-rtx"]);
}
