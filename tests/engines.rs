//! Engines of a bundle's graphs, with a vendor that only pretends: what is built and kept, and what happens when it fails.
#![allow(clippy::panic, reason = "a failed test panics")]

mod fixture;

use fixture::golden_path;
use fixture::pretender::{Pretender, VERSION};
use photonc::bundle::Bundle;
use photonc::engine::{EngineSet, Gpu, Here, Profile, Sm, Vendor, Version, pick, sets, stale};
use photonc::export::engines::{
    EngineError, EngineOptions, EngineProgress, EngineReport, Failed, build_engines,
};
use photonc::export::target::Target;
use photonc::export::{ExportOptions, export};
use photonc::onnx::pb::ModelProto;
use prost::Message as _;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// A bundle of the golden `paper` in `folder`.
fn bundle(folder: &Path) -> Bundle {
    let out = folder.join("bundle");
    let targets = vec![Target::TensorrtRtx];
    export(
        &ExportOptions { targets: Some(targets), ..ExportOptions::new(golden_path("paper"), &out) },
        &|_| {},
    )
    .expect("exports");
    Bundle::open(&out).expect("opens")
}

fn options() -> EngineOptions {
    EngineOptions::new(vec![Sm(89), Sm(120)])
}

fn build(
    bundle: &Bundle,
    vendor: &mut Pretender,
    options: &EngineOptions,
) -> Result<EngineReport, EngineError> {
    let progress: Arc<dyn Fn(EngineProgress) + Send + Sync> = Arc::new(|_| {});
    build_engines(bundle, vendor, options, &progress)
}

#[test]
fn every_graph_gets_an_engine_and_a_record() {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = bundle(folder.path());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let watched = Arc::clone(&seen);
    let progress: Arc<dyn Fn(EngineProgress) + Send + Sync> =
        Arc::new(move |progress| watched.lock().expect("unpoisoned").push(progress.graph));
    build_engines(&bundle, &mut Pretender::new(), &options(), &progress).expect("builds");
    let found = sets(&bundle).readable;
    let [set] = found.as_slice() else { panic!("one set: {found:?}") };
    assert!(set.folder.ends_with("engines/tensorrt-rtx/sm_89+sm_120"), "{}", set.folder.display());
    let graphs: Vec<&String> = bundle.manifest().graphs.keys().collect();
    assert_eq!(
        *seen.lock().expect("unpoisoned"),
        graphs.iter().map(|name| (*name).clone()).collect::<Vec<_>>()
    );
    for name in graphs {
        let engine = set.graph(name).expect("is recorded");
        set.intact(engine).expect("is intact");
        assert!(!engine.profiles.is_empty(), "{name}");
    }
    // Engines are no part of what the manifest counts.
    Bundle::open(bundle.root()).expect("opens still");
}

#[test]
fn what_still_fits_is_kept_and_what_does_not_is_built() {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = bundle(folder.path());
    let all = bundle.manifest().graphs.len();
    let mut vendor = Pretender::new();
    build(&bundle, &mut vendor, &options()).expect("builds");
    let report = build(&bundle, &mut vendor, &options()).expect("builds");
    assert_eq!((report.kept.len(), vendor.built.len()), (all, all), "nothing is built twice");

    fs::write(report.set.folder.join("coarse.engine"), "other bytes").expect("writes");
    build(&bundle, &mut vendor, &options()).expect("builds");
    assert_eq!(vendor.built[all..], ["coarse.tensorrt-rtx"], "a damaged engine is built again");

    let narrower = EngineOptions {
        graphs: Some(vec!["expand".to_owned()]),
        profiles: vec![Profile::parse("batch=1,meta=4").expect("a profile")],
        ..options()
    };
    let report = build(&bundle, &mut vendor, &narrower).expect("builds");
    assert_eq!(vendor.built[all + 1..], ["expand.tensorrt-rtx"], "other sizes are another engine");
    assert_eq!(report.set.record.graphs.len(), all, "engines of other graphs stay");

    let mut newer = Pretender { version: Version { minor: 8, ..VERSION }, ..Pretender::new() };
    build(&bundle, &mut newer, &options()).expect("builds");
    assert_eq!(newer.built.len(), all, "another version reads only its own engines");
}

#[test]
fn a_failure_names_its_place_and_leaves_the_smallest_part() {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = bundle(folder.path());
    let mut vendor = Pretender { refuses: Some("Softmax"), ..Pretender::new() };
    let part = folder.path().join("part");
    let options = EngineOptions {
        graphs: Some(vec!["coarse".to_owned()]),
        reproducer: Some(part.clone()),
        ..options()
    };
    let error = build(&bundle, &mut vendor, &options).expect_err("fails");
    let text = error.to_string();
    let EngineError::Failed(failed) = error else { panic!("{text}") };
    let Failed { findings, reproducer: Some(reproducer), .. } = *failed else { panic!("{text}") };
    assert_eq!(findings[0].op.as_deref(), Some("Softmax"), "{text}");
    assert_eq!(findings[0].scope.as_deref(), Some("level2.decoder.layer0.attn"), "{text}");
    assert!(reproducer.minimal && reproducer.nodes_before > 100, "{reproducer:?}");
    let attention = reproducer.operations.get("attention").copied();
    assert_eq!(attention, Some(1), "only an attention is lowered to Softmax: {reproducer:?}");
    assert!(
        reproducer.operations.values().sum::<usize>() <= 5,
        "an attention and its operands: {reproducer:?}"
    );
    let bytes = fs::read(&reproducer.onnx).expect("is written");
    let model = ModelProto::decode(bytes.as_slice()).expect("is ONNX").graph.expect("has a graph");
    assert!(model.node.iter().any(|node| node.op_type == "Softmax"));
    assert!(sets(&bundle).readable.is_empty(), "nothing half-written is left");
    let engines = bundle.root().join("engines/tensorrt-rtx");
    let left = fs::read_dir(engines).map_or(0, Iterator::count);
    assert_eq!(left, 0, "nor a temporary folder");
}

#[test]
fn a_failure_leaves_earlier_engines_as_they_were() {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = bundle(folder.path());
    let before = build(&bundle, &mut Pretender::new(), &options()).expect("builds").set;
    let mut vendor = Pretender { drops: Some("lengths"), ..Pretender::new() };
    let error = build(&bundle, &mut vendor, &EngineOptions { force: true, ..options() }).expect_err("fails");
    assert!(error.to_string().contains("drops its inputs lengths"), "{error}");
    let after = EngineSet::open(&before.folder).expect("opens");
    assert_eq!(after, before);
    for engine in after.record.graphs.values() {
        after.intact(engine).expect("is intact");
    }
}

fn here(sm: u16) -> Here {
    let gpu = Some(Gpu { name: "Some GPU".to_owned(), sm: Sm(sm) });
    Here { vendor: Vendor::TensorrtRtx, version: VERSION, gpu }
}

#[test]
fn the_engine_for_this_gpu_is_picked() {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = bundle(folder.path());
    let error = pick(&bundle, "coarse", &here(89)).expect_err("there is none yet");
    assert!(error.mended_by_building() && error.to_string().contains("--engine tensorrt-rtx:89"), "{error}");
    build(&bundle, &mut Pretender::new(), &EngineOptions::new(vec![Sm(86)])).expect("builds");
    build(&bundle, &mut Pretender::new(), &options()).expect("builds");
    let picked = pick(&bundle, "coarse", &here(120)).expect("fits");
    assert!(picked.path.ends_with("sm_89+sm_120/coarse.engine"), "{}", picked.path.display());
}

// Each way in which an engine may not fit is a sentence of its own, with what to do.
#[test]
fn engines_that_do_not_fit_are_explained() {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = bundle(folder.path());
    let set = build(&bundle, &mut Pretender::new(), &options()).expect("builds").set;
    let refusal = |here: &Here| pick(&bundle, "coarse", here).expect_err("does not fit").to_string();

    let hopper = refusal(&here(90));
    assert!(hopper.contains("sm_90, which TensorRT-RTX does not support: use the cuda backend"), "{hopper}");
    let other = refusal(&here(86));
    assert!(other.contains("built for sm_89 and sm_120; this GPU (Some GPU) is sm_86"), "{other}");
    let newer = refusal(&Here { version: Version { minor: 8, ..VERSION }, ..here(89) });
    assert!(newer.contains("built by TensorRT-RTX 1.7.1, the library here is 1.8.1"), "{newer}");
    let none = refusal(&Here { gpu: None, ..here(89) });
    assert!(none.contains("this machine has no GPU"), "{none}");

    // An engine of another graph under this one's name, record and all.
    let mut record = set.record.clone();
    let stranger = record.graphs["expand"].clone();
    record.graphs.insert("coarse".to_owned(), stranger);
    let path = set.folder.join("record.json");
    let original = fs::read(&path).expect("reads");
    fs::write(&path, serde_json::to_vec(&record).expect("JSON")).expect("writes");
    let stranger = refusal(&here(89));
    assert!(stranger.contains("built from another model than the bundle's `coarse`"), "{stranger}");
    fs::write(&path, original).expect("writes");

    fs::write(set.folder.join("coarse.engine"), "damaged").expect("writes");
    let damaged = refusal(&here(89));
    assert!(damaged.contains("the engine is damaged") && damaged.contains("photonc build"), "{damaged}");
}

// Weights are no part of an ONNX file, so the same model with others has the same hash of it.
#[test]
fn engines_of_other_weights_are_not_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = bundle(folder.path());
    let set = build(&first, &mut Pretender::new(), &options()).expect("builds").set;
    let model = folder.path().join("model");
    fs::create_dir(&model).expect("makes");
    fs::copy(golden_path("paper").join("config.json"), model.join("config.json")).expect("copies");
    let mut bytes = fs::read(golden_path("paper").join("model.safetensors")).expect("reads");
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    fs::write(model.join("model.safetensors"), bytes).expect("writes");
    let out = folder.path().join("other");
    let targets = vec![Target::TensorrtRtx];
    export(&ExportOptions { targets: Some(targets), ..ExportOptions::new(&model, &out) }, &|_| {})
        .expect("exports");
    let other = Bundle::open(&out).expect("opens");
    let into = out.join("engines/tensorrt-rtx/sm_89+sm_120");
    fs::create_dir_all(&into).expect("makes");
    for name in ["coarse.engine", "record.json"] {
        fs::copy(set.folder.join(name), into.join(name)).expect("copies");
    }
    let error = pick(&other, "coarse", &here(89)).expect_err("does not fit");
    assert!(error.to_string().contains("built from other weights"), "{error}");
}

#[test]
fn a_bundle_for_others_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("bundle");
    export(&ExportOptions::new(golden_path("paper"), &out), &|_| {}).expect("exports");
    let bundle = Bundle::open(&out).expect("opens");
    let error = build(&bundle, &mut Pretender::new(), &options()).expect_err("is refused").to_string();
    assert!(
        error.contains("has no ONNX models for TensorRT-RTX") && error.contains("--target tensorrt-rtx"),
        "{error}"
    );
    assert!(!out.join("engines").exists(), "nothing was begun");
}

/// Builds again what `here` calls for, and tells the graphs that were built.
fn renew(bundle: &Bundle, here: &Here) -> Vec<String> {
    let found = stale(bundle, here).expect("something no longer fits");
    let mut vendor = Pretender { version: here.version, ..Pretender::new() };
    build(bundle, &mut vendor, &EngineOptions::again(&found)).expect("builds");
    assert_eq!(stale(bundle, here), None, "everything fits now");
    for graph in bundle.manifest().graphs.keys() {
        pick(bundle, graph, here).expect("fits");
    }
    vendor.built
}

// A bundle that was built elsewhere or for an older library must run after one build, with the sizes that its owner chose.
#[test]
fn what_no_longer_fits_is_built_again_and_the_rest_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = bundle(folder.path());
    let chosen = vec![Profile::parse("batch=1,meta=1:2:4,capacity=8").expect("a profile")];
    let before = build(&bundle, &mut Pretender::new(), &EngineOptions { profiles: chosen, ..options() });
    let before = before.expect("builds").set;
    let all = bundle.manifest().graphs.len();
    assert_eq!(stale(&bundle, &here(89)), None);

    // Of one graph other weights are recorded, of another another model.
    let mut record = before.record.clone();
    let stranger = record.graphs["expand"].source.onnx.clone();
    for (name, engine) in &mut record.graphs {
        match name.as_str() {
            "coarse" => engine.source.weights = stranger.clone(),
            "encode" => engine.source.onnx = stranger.clone(),
            _ => {}
        }
    }
    fs::write(before.folder.join("record.json"), serde_json::to_vec(&record).expect("JSON")).expect("writes");
    let told = stale(&bundle, &here(89)).expect("two do not fit").to_string();
    assert!(
        told.contains("no engine of `coarse`, `encode` fits") && told.contains("other weights"),
        "{told}"
    );
    assert_eq!(renew(&bundle, &here(89)), ["coarse.tensorrt-rtx", "encode.tensorrt-rtx"]);
    let after = EngineSet::open(&before.folder).expect("opens").record;
    for (name, engine) in &after.graphs {
        assert_eq!(engine.profiles, before.record.graphs[name].profiles, "{name}");
    }

    // Another version reads none of them; the set for this GPU is replaced.
    let newer = Here { version: Version { minor: 8, ..VERSION }, ..here(120) };
    assert_eq!(renew(&bundle, &newer).len(), all);
    assert_eq!(sets(&bundle).readable.len(), 1);

    // Another GPU gets a set of its own, and those for the first stay.
    let other = Here { version: newer.version, ..here(86) };
    assert_eq!(renew(&bundle, &other).len(), all);
    assert_eq!(sets(&bundle).readable.len(), 2);
    assert_eq!(stale(&bundle, &newer), None);
}

// Where the library has no kernels for the GPU, or there is none, minutes of building would end in the same refusal.
#[test]
fn nothing_is_built_again_in_vain() {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = bundle(folder.path());
    assert_eq!(stale(&bundle, &here(89)), None, "what was never built is not built unasked");
    build(&bundle, &mut Pretender::new(), &EngineOptions::new(vec![Sm(86)])).expect("builds");
    assert_eq!(stale(&bundle, &here(90)), None);
    assert_eq!(stale(&bundle, &Here { gpu: None, ..here(89) }), None);
    assert!(stale(&bundle, &here(89)).is_some());
}

#[test]
fn an_option_for_engines_alone_is_refused_elsewhere() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_photonc"))
        .args(["generate", "bundle", "--prompt-ids", "1", "--no-rebuild"])
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("--no-rebuild is for `--backend tensorrt`, found `--backend cpu`"), "{text}");
}

// A record that a newer photonc or a full disk has left takes its own engines out of use and no others.
#[test]
fn a_set_that_cannot_be_read_hides_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = bundle(folder.path());
    let bad = build(&bundle, &mut Pretender::new(), &EngineOptions::new(vec![Sm(86)])).expect("builds").set;
    let good = build(&bundle, &mut Pretender::new(), &options()).expect("builds").set;
    fs::write(bad.folder.join("record.json"), r#"{"format": 9}"#).expect("writes");

    let found = sets(&bundle);
    assert_eq!(found.readable, [good]);
    let [error] = found.unreadable.as_slice() else { panic!("one: {found:?}") };
    let reason = "sm_86/record.json: engine format Some(9), this photonc reads 1";
    assert!(error.to_string().contains(reason), "{error}");
    pick(&bundle, "coarse", &here(89)).expect("fits");
    assert_eq!(stale(&bundle, &here(89)), None);
    let refusal = pick(&bundle, "coarse", &here(86)).expect_err("does not fit");
    let text = refusal.to_string();
    assert!(text.contains("this GPU (Some GPU) is sm_86") && text.contains(reason), "{text}");
    assert!(refusal.mended_by_building());

    let root = bundle.root().to_string_lossy();
    let page = photonc(&["inspect", &root]);
    assert!(page.contains("engines of TensorRT-RTX 1.7.1 for sm_89 and sm_120"), "{page}");
    assert!(page.contains("engines that cannot be read: ") && page.contains(reason), "{page}");
    let json: serde_json::Value =
        serde_json::from_str(&photonc(&["inspect", &root, "--json"])).expect("JSON");
    let listed = (json["engines"].as_array(), json["unreadable_engines"].as_array());
    assert_eq!((listed.0.map(Vec::len), listed.1.map(Vec::len)), (Some(1), Some(1)), "{json}");
}

// The same of one damaged engine where another set has the graph too.
#[test]
fn a_damaged_engine_hides_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = bundle(folder.path());
    let first = build(&bundle, &mut Pretender::new(), &EngineOptions::new(vec![Sm(89)])).expect("builds").set;
    let second = build(&bundle, &mut Pretender::new(), &options()).expect("builds").set;
    for (set, other) in [(&first, &second), (&second, &first)] {
        let path = set.folder.join("coarse.engine");
        let whole = fs::read(&path).expect("reads");
        fs::write(&path, "damaged").expect("writes");
        let picked = pick(&bundle, "coarse", &here(89)).expect("fits");
        assert_eq!(picked.path, other.folder.join("coarse.engine"));
        fs::write(&path, whole).expect("writes");
    }
}

// Said before anything is written: an export or new weights would otherwise be half of what was asked for.
#[test]
fn timings_are_for_the_library_that_has_any() {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = bundle(folder.path());
    let set = build(&bundle, &mut Pretender::new(), &options()).expect("builds").set;
    let root = bundle.root().to_string_lossy();
    let (model, out) = (golden_path("paper"), folder.path().join("other"));
    let (model, other) = (model.to_string_lossy(), out.to_string_lossy());
    let commands: [&[&str]; 3] = [
        &["build", &root, "--engine", "tensorrt-rtx:89"],
        &["export", &model, "-o", &other, "--target", "tensorrt-rtx:89"],
        &["refit", &root, "--weights", &model],
    ];
    for command in commands {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_photonc"))
            .args(command)
            .args(["--timing-cache", "timings"])
            .output()
            .expect("runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {text}");
        assert!(text.contains("--timing-cache is for `tensorrt:current`, found `tensorrt-rtx`"), "{text}");
    }
    assert!(!out.exists(), "nothing was exported");
    assert_eq!(sets(&bundle).readable, [set], "engines of the old weights stay");
}

/// What `photonc` prints.
fn photonc(arguments: &[&str]) -> String {
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_photonc")).args(arguments).output().expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}
