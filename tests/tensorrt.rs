//! Engines by TensorRT-RTX itself, on a machine that has no GPU: every graph builds for several GPUs at once, failures lead
//! back to the model, and wrong libraries are refused. Nothing here runs an engine.
#![cfg(all(feature = "tensorrt-rtx", not(feature = "tensorrt")))]
#![allow(clippy::panic, clippy::print_stdout, reason = "a failed test panics; what was built is shown")]

mod fixture;

use fixture::{GOLDENS, golden_path};
use photonc::bundle::Bundle;
use photonc::engine::tensorrt::{TensorRt, find, find_gpu};
use photonc::engine::tensorrt_runner::TensorRtRunner;
use photonc::engine::{
    Bindings, EngineRunner as _, EngineSet, Found, Gpu, Here, Kept, Level, Message, Profile, Sm, Version,
    pick, stale,
};
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
use std::collections::BTreeSet;
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

/// Why TensorRT-RTX 1.7.1 fails with an internal error (docs/targets.md, `UNBUILT` of `tests/python/onnx_check.py`).
const SHARED_INPUT: &str = "codes of several maps of one vector in a graph of f32";
const UNROLLED: &[(&str, &str)] = &[("coarse", SHARED_INPUT), ("score", SHARED_INPUT)];

/// Every linear map in one scheme, of which the graphs are tried that are known not to build.
const fn in_few_bits(quantized: &'static [(&'static str, Scheme)]) -> Trial {
    Trial {
        quantized,
        graphs: Some(&["coarse", "score"]),
        unbuilt: UNROLLED,
        ..Trial::of("paper", Dtype::F32)
    }
}

/// What the long run builds besides the goldens in f32 and f16: bf16, heads of odd widths, chosen profiles, each scheme
/// where it builds and where it does not, and the width of `paper-600m`. Models of more layers repeat the same kernels.
const OTHERS: &[Trial] = &[
    Trial::of("paper", Dtype::Bf16),
    Trial { sizes: CHOSEN, ..Trial::of("tiny", Dtype::F32) },
    Trial { sizes: CHOSEN, ..Trial::of("tiny", Dtype::F16) },
    Trial { sizes: CHOSEN, ..Trial::of("tiny", Dtype::Bf16) },
    Trial { quantized: &[("level2.encoder", Scheme::Int8)], ..Trial::of("tiny", Dtype::F32) },
    Trial { quantized: &[("level2.encoder", Scheme::Int8)], ..Trial::of("tiny", Dtype::F16) },
    Trial { quantized: &[("level2", Scheme::Int4)], ..Trial::of("tiny", Dtype::F16) },
    in_few_bits(&[("level1", Scheme::Int8), ("level2", Scheme::Int8), ("lm_head", Scheme::Int8)]),
    in_few_bits(&[("level1", Scheme::Int4), ("level2", Scheme::Int4), ("lm_head", Scheme::Int4)]),
    in_few_bits(&[("level1", Scheme::Fp8), ("level2", Scheme::Fp8), ("lm_head", Scheme::Fp8)]),
    Trial { sizes: CHOSEN, ..Trial::of("paper-600m", Dtype::F16) },
];

fn bundle(golden: &str, folder: &Path) -> Bundle {
    let out = folder.join("bundle");
    let targets = vec![Target::TensorrtRtx];
    export(
        &ExportOptions { targets: Some(targets), ..ExportOptions::new(golden_path(golden), &out) },
        &|_| {},
    )
    .expect("exports");
    Bundle::open(&out).expect("opens")
}

/// One profile for every graph: each more costs its time again.
const ONE_PROFILE: &[&str] = &["--profile", SIZES];
/// The profiles that are chosen for each graph.
const CHOSEN: &[&str] = &[];
const SIZES: &str = "batch=1:2:4,meta=1:2:4,capacity=1:4:128";

fn options(sms: &[u16]) -> EngineOptions {
    let profile = Profile::parse(SIZES).expect("a profile");
    EngineOptions { profiles: vec![profile], ..EngineOptions::new(sms.iter().map(|sm| Sm(*sm)).collect()) }
}

type Progress = Arc<dyn Fn(EngineProgress) + Send + Sync>;

/// One build at a time: the libraries are one pair for the whole process.
static TURN: Mutex<()> = Mutex::new(());

fn build(bundle: &Bundle, options: &EngineOptions, progress: &Progress) -> Result<EngineReport, EngineError> {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut vendor = TensorRt::open(&found()).unwrap_or_else(|error| panic!("{error}"));
    build_engines(bundle, &mut vendor, options, progress)
}

/// `photonc build` of some graphs for two GPUs at once, in a process of its own: its peak of memory is that of these builds,
/// whatever other tests hold meanwhile.
fn photonc_build(bundle: &Bundle, graphs: &[&String], sizes: &[&str]) -> Output {
    let (root, library) = (bundle.root().to_string_lossy(), library_folder());
    let mut arguments = vec!["build", &root, "--engine", "tensorrt-rtx:89,120", "--no-reproducer", "--json"];
    let library = library.to_string_lossy();
    arguments.extend(["--tensorrt-lib", &library]);
    arguments.extend(sizes);
    arguments.extend(graphs.iter().flat_map(|graph| ["--graph", graph.as_str()]));
    photonc(&arguments)
}

/// A model, how it is exported, and the graphs that TensorRT-RTX 1.7.1 does not build then, each with the reason
/// (docs/targets.md).
#[derive(Clone, Copy, Debug)]
struct Trial {
    model: &'static str,
    dtype: Dtype,
    quantized: &'static [(&'static str, Scheme)],
    sizes: &'static [&'static str],
    /// Graphs that are tried, built or not; by default all.
    graphs: Option<&'static [&'static str]>,
    unbuilt: &'static [(&'static str, &'static str)],
}

impl Trial {
    const fn of(model: &'static str, dtype: Dtype) -> Self {
        Trial { model, dtype, quantized: &[], sizes: ONE_PROFILE, graphs: None, unbuilt: &[] }
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
            targets: Some(vec![Target::TensorrtRtx]),
            ..ExportOptions::new(model, folder.join("bundle"))
        };
        export(&options, &|_| {}).unwrap_or_else(|error| panic!("{}: {error}", self.name()));
        Bundle::open(&options.out).expect("opens")
    }

    /// Builds every graph for two GPUs at once, a line for each.
    fn run(&self) {
        let folder = tempfile::tempdir().expect("a folder");
        let bundle = self.bundle(folder.path());
        let every: Vec<&String> = bundle.manifest().graphs.keys().collect();
        let is_there = |graph: &&str| every.iter().any(|name| name.as_str() == *graph);
        let known: Vec<&str> = self.unbuilt.iter().map(|(graph, _)| *graph).collect();
        assert!(known.iter().chain(self.graphs.unwrap_or_default()).all(is_there), "{self:?}: {every:?}");
        let is_tried = |name: &&String| self.graphs.is_none_or(|graphs| graphs.contains(&name.as_str()));
        let tried: Vec<&String> = every.into_iter().filter(is_tried).collect();
        let (unbuilt, built): (Vec<&String>, Vec<&String>) =
            tried.into_iter().partition(|graph| known.contains(&graph.as_str()));
        self.builds(&bundle, &built);
        // What is known not to build is known until it does.
        for graph in unbuilt {
            let output = photonc_build(&bundle, &[graph], self.sizes);
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success(), "{} {graph} builds now: take it from `unbuilt`", self.name());
            assert_eq!(output.status.code(), Some(1), "{} {graph}: {text}", self.name());
            assert!(text.contains("TensorRT-RTX cannot build it"), "{} {graph}: {text}", self.name());
            let reasons = self.unbuilt.iter().filter(|(name, _)| name == graph).map(|(_, reason)| *reason);
            println!("known: {} {graph} is not built: {}", self.name(), reasons.collect::<String>());
        }
    }

    fn builds(&self, bundle: &Bundle, graphs: &[&String]) {
        if graphs.is_empty() {
            return;
        }
        let output = photonc_build(bundle, graphs, self.sizes);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {text}", self.name());
        let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let set = EngineSet::open(Path::new(told["path"].as_str().expect("a path"))).expect("opens");
        assert_eq!(set.record.graphs.keys().collect::<BTreeSet<_>>(), graphs.iter().copied().collect());
        let (mut highest, mut largest) = (0, 0);
        for (graph, engine) in &set.record.graphs {
            set.intact(engine).expect("is intact");
            assert!(engine.bytes > 10_000, "{} {graph}: {} bytes are no engine", self.name(), engine.bytes);
            let (seconds, megabytes) = (engine.build_seconds, engine.bytes as f64 / 1e6);
            let (peak, bound) = (engine.peak_bytes.expect("is measured"), engine.predicted_peak_bytes);
            println!(
                "| {} | {graph} | {seconds:.1} | {megabytes:.1} | {:.0} | {:.0} |",
                self.name(),
                peak as f64 / 1e6,
                bound as f64 / 1e6
            );
            (highest, largest) = (peak.max(highest), bound.max(largest));
        }
        // Of the whole build: what a process holds is that of its largest graph.
        assert!(highest <= largest, "{}: {highest} bytes at the peak, expected {largest}", self.name());
    }
}

#[test]
fn every_graph_of_every_golden_builds_for_two_gpus_at_once() {
    for dtype in [Dtype::F32, Dtype::F16] {
        GOLDENS.iter().for_each(|golden| Trial::of(golden, dtype).run());
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
    OTHERS.iter().for_each(Trial::run);
}

#[test]
fn a_build_tells_how_far_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = bundle("paper", folder.path());
    let steps = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&steps);
    let progress: Progress = Arc::new(move |progress| {
        told.lock().expect("unpoisoned").extend(progress.step);
    });
    let options = EngineOptions { graphs: Some(vec!["expand_step".to_owned()]), ..options(&[89]) };
    let report = build(&bundle, &options, &progress).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(report.set.record.graphs.len(), 1);
    let steps = steps.lock().expect("unpoisoned");
    assert!(!steps.is_empty() && steps.iter().all(|step| 0 < step.done && step.done <= step.of), "{steps:?}");
}

// A record of an older library, on a GPU that the machine only pretends to have: the vendor's own builder mends it.
#[test]
fn engines_of_another_version_are_built_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = bundle("paper", folder.path());
    let graphs = Some(vec!["expand_step".to_owned(), "expand_prepare".to_owned()]);
    let progress: Progress = Arc::new(|_| {});
    let report = build(&bundle, &EngineOptions { graphs, ..options(&[89, 120]) }, &progress);
    let set = report.unwrap_or_else(|error| panic!("{error}")).set;
    let mut record = set.record.clone();
    record.version.minor -= 1;
    fs::write(set.folder.join("record.json"), serde_json::to_vec(&record).expect("JSON")).expect("writes");

    let gpu = Some(Gpu { name: "Some GPU".to_owned(), sm: Sm(89) });
    let here = Here { vendor: set.record.vendor, version: set.record.version, gpu };
    let refusal = pick(&bundle, "expand_step", &here).expect_err("does not fit").to_string();
    assert!(refusal.contains("which reads only its own engines"), "{refusal}");
    let found = stale(&bundle, &here).expect("both do not fit");
    let report = build(&bundle, &EngineOptions::again(&found), &progress);
    let report = report.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((report.kept.len(), report.set.record.graphs.len()), (0, 2));
    assert_eq!(report.set.folder, set.folder);
    for graph in ["expand_step", "expand_prepare"] {
        let picked = pick(&bundle, graph, &here).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(picked.engine.profiles, set.record.graphs[graph].profiles);
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
    let progress: Progress = Arc::new(|_| {});
    let error = build(&bundle, &options, &progress).expect_err("is refused");
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

/// A driver in `folder` that tells of one GPU of compute capability 8.9 and can do nothing else.
fn pretended_gpu(folder: &Path) {
    let source = folder.join("driver.c");
    let code = "#include <string.h>\n\
        int cuDriverGetVersion(int *version) { *version = 1000; return 0; }\n\
        int cuInit(unsigned flags) { return 0; }\n\
        int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal == 0 ? 0 : 101; }\n\
        int cuDeviceGetName(char *name, int length, int device) { strncpy(name, \"Pretended GPU\", length); return 0; }\n\
        int cuDeviceGetAttribute(int *value, int attribute, int device) {\n\
            *value = attribute == 75 ? 8 : attribute == 76 ? 9 : 0;\n\
            return 0;\n\
        }\n";
    fs::write(&source, code).expect("writes");
    let library = folder.join("libcuda.so.1");
    let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(library).arg(&source).status();
    assert!(status.expect("a C compiler").success());
}

// From the command line, on a machine whose driver claims a GPU that the engines no longer fit: the vendor's own builder makes
// them again, and `--no-rebuild` does not. Running them then fails, for there is no GPU.
#[test]
fn a_command_builds_engines_again_that_no_longer_fit() {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = bundle("paper", folder.path());
    let graphs = ["encode".to_owned(), "expand_step".to_owned()];
    let progress: Progress = Arc::new(|_| {});
    let chosen = EngineOptions { graphs: Some(graphs.to_vec()), ..options(&[89, 120]) };
    let set = build(&bundle, &chosen, &progress).unwrap_or_else(|error| panic!("{error}")).set;
    let mut older = set.record.clone();
    older.version.minor -= 1;
    let record = set.folder.join("record.json");
    fs::write(&record, serde_json::to_vec(&older).expect("JSON")).expect("writes");

    pretended_gpu(folder.path());
    let generate = |more: &[&str]| {
        let root = bundle.root().to_string_lossy();
        let output = Command::new(env!("CARGO_BIN_EXE_photonc"))
            .args(["generate", &root, "--backend", "tensorrt", "--prompt-ids", "1,2,3,4", "--trust"])
            .args(more)
            .env("PHOTONC_TENSORRT_LIB", library_folder())
            .env("LD_LIBRARY_PATH", folder.path())
            .output()
            .expect("runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "no GPU runs them: {text}");
        (text, EngineSet::open(&set.folder).expect("opens"))
    };
    let differs = "built by TensorRT-RTX 1.6.1, the library here is 1.7.1";
    let (text, kept) = generate(&["--no-rebuild"]);
    assert!(text.contains(differs) && !text.contains("building them again"), "{text}");
    assert_eq!(kept.record, older);

    let (text, built) = generate(&[]);
    assert!(text.contains("no engine of `encode`, `expand_step` fits what is here"), "{text}");
    assert!(text.contains(differs) && text.contains("building them again"), "{text}");
    assert_eq!((built.record.version, &built.record.sms), (set.record.version, &set.record.sms));
    for graph in &graphs {
        let (old, new) = (&older.graphs[graph], &built.record.graphs[graph]);
        assert_eq!(old.profiles, new.profiles);
        assert_ne!(old.blake3, new.blake3, "two builds differ in a byte");
        built.intact(new).expect("is intact");
    }
    let (text, kept) = generate(&[]);
    assert!(!text.contains("no engine of"), "everything fits now: {text}");
    assert_eq!(kept.record, built.record, "nothing is built twice");
}

// TensorRT-RTX times nothing, and without a GPU does not read what it wrote itself; that it takes every call shows that they
// reach the functions that its headers name.
#[test]
fn timings_are_left_to_the_next_build() {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = bundle("paper", folder.path());
    let file = folder.path().join("timings");
    let gpu = Gpu { name: "Some GPU".to_owned(), sm: Sm(89) };
    let found = found();
    let kept = |version| Kept::timings(Some(&file), found.vendor, version, &gpu);
    let build_meanwhile = |kept: Kept, meanwhile: Progress| {
        let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let opened = TensorRt::open(&found).unwrap_or_else(|error| panic!("{error}"));
        let graphs = Some(vec!["expand_step".to_owned()]);
        let options = EngineOptions { graphs, force: true, ..options(&[89]) };
        let report = build_engines(&bundle, &mut opened.with_timings(kept), &options, &meanwhile);
        let report = report.unwrap_or_else(|error| panic!("{error}"));
        report.messages["expand_step"].clone()
    };
    let build = |kept: Kept| build_meanwhile(kept, Arc::new(|_| {}));
    let said = |messages: &[Message], text: &str| messages.iter().any(|message| message.text.contains(text));

    let first = build(kept(found.version));
    assert!(said(&first, "Global timing cache in use"), "{first:?}");
    assert!(!said(&first, "are not used") && !said(&first, "are not kept"), "{first:?}");
    let written = kept(found.version).load().expect("loads").expect("was kept");
    assert!(written.len() > 16, "the library's own header: {written:?}");

    let second = build(kept(found.version));
    if find_gpu(0).is_none() {
        assert!(said(&second, "Failed to deserialize timing cache"), "{second:?}");
    }
    assert!(
        second.iter().all(|message| message.level != Level::Error),
        "old timings fail nothing: {second:?}"
    );
    assert!(kept(found.version).load().expect("loads").is_some());

    let other = Version { minor: found.version.minor + 1, ..found.version };
    let third = build(kept(other));
    for text in ["timings of earlier builds are not used: ", "timings of this build are not kept: "] {
        assert!(said(&third, text) && said(&third, "on Some GPU (sm_89), here is TensorRT-RTX"), "{third:?}");
    }
    assert!(kept(found.version).load().is_ok(), "the user's file stays as it is");

    // Another process leaves its timings while this one builds: they are joined, not lost.
    fs::remove_file(&file).expect("removes");
    let others = kept(found.version);
    let leave: Progress = Arc::new(move |_| others.keep(|_| Some(written.clone())).expect("keeps"));
    let joined = build_meanwhile(kept(found.version), leave);
    assert!(!said(&joined, "are not kept"), "{joined:?}");
    if find_gpu(0).is_none() {
        assert!(said(&joined, "Failed to deserialize timing cache"), "the library is given them: {joined:?}");
    }
    assert!(kept(found.version).load().expect("loads").is_some());
}

// How far running goes without a driver: the library answers with a reason, and nothing breaks.
#[test]
fn an_engine_is_refused_by_the_library_where_there_is_no_driver() {
    if find_gpu(0).is_some() {
        let said = b"SKIPPED an_engine_is_refused_by_the_library_where_there_is_no_driver: there is one\n";
        std::io::stderr().write_all(said).expect("writes");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = bundle("paper", folder.path());
    let progress: Progress = Arc::new(|_| {});
    let options = EngineOptions { graphs: Some(vec!["expand_step".to_owned()]), ..options(&[89]) };
    let set = build(&bundle, &options, &progress).unwrap_or_else(|error| panic!("{error}")).set;
    let engine = set.graph("expand_step").expect("is recorded");
    let bytes = fs::read(set.intact(engine).expect("is intact")).expect("reads");
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let found = found();
    let gpu = Some(Gpu { name: "Some GPU".to_owned(), sm: Sm(89) });
    let here = Here { vendor: found.vendor, version: found.version, gpu };
    let vendor = TensorRt::open(&found).unwrap_or_else(|error| panic!("{error}"));
    let mut runner = TensorRtRunner::new(vendor, here).unwrap_or_else(|error| panic!("{error}"));
    let error = runner.load("expand_step", &engine.blake3, &bytes).expect_err("is refused");
    assert!(error.contains("deserializeCudaEngine") && error.contains("driver"), "{error}");
    let bindings = Bindings { profile: 0, inputs: &[], outputs: &[], stream: 0 };
    let error = runner.run("expand_step", &bindings).expect_err("is refused");
    assert_eq!(error, "`expand_step` is not loaded");
}
