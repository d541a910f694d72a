//! Every seed of the fuzz targets goes through its target, which a nightly toolchain runs with changes of them
//! (`scripts/fuzz.sh`): what the targets call is there, the seeds are sound, and so are those changes of them.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The name of a target, and what it does with an input.
type Target = (&'static str, fn(&[u8]));

/// Targets by the names of their files.
const TARGETS: [Target; 11] = [
    ("bundle", targets::bundle),
    ("chat_template", targets::chat_template),
    ("checkpoint", targets::checkpoint),
    ("generation_config", targets::generation_config),
    ("graph", targets::graph),
    ("manifest", targets::manifest),
    ("onnx", targets::onnx),
    ("prompts", targets::prompts),
    ("request_body", targets::request_body),
    ("tokenizer", targets::tokenizer),
    ("weight_map", targets::weight_map),
];

fn entries(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder);
    let entries = fs::read_dir(folder).expect("a folder of the repository");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

fn stem(path: &Path) -> String {
    path.file_stem().expect("has a name").to_string_lossy().into_owned()
}

#[test]
fn every_seed_goes_through_its_target() {
    let targets: BTreeMap<&str, fn(&[u8])> = TARGETS.into_iter().collect();
    for folder in entries("seeds") {
        let name = stem(&folder);
        let target = targets.get(name.as_str()).expect("every folder of seeds has a target");
        for seed in entries(&format!("seeds/{name}")) {
            target(&fs::read(seed).expect("a seed"));
        }
    }
}

/// The changes that the fuzzer makes by structure, some of them on every run: most inputs have the structure that their
/// target says, and what is changed goes through it as well.
#[test]
fn changed_seeds_go_through_their_target() {
    let changes: u32 = if std::env::var_os("PHOTONC_FULL").is_some() { 400 } else { 40 };
    for (name, target) in TARGETS {
        let (mut made, mut seeds) = (0, 0);
        for seed in entries(&format!("seeds/{name}")) {
            let input = fs::read(seed).expect("a seed");
            let changed =
                (0..changes).filter_map(|change| targets::structured::changed(name, &input, change));
            made += changed.inspect(|input| target(input)).count();
            seeds += 1;
        }
        assert!(
            made * 2 > changes as usize * seeds,
            "{name}: {made} of {seeds} times {changes} inputs were changed"
        );
    }
}

/// A target that is not listed is run by nobody.
#[test]
fn every_target_has_seeds_and_a_program() {
    let listed: Vec<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    for folder in ["seeds", "fuzz_targets"] {
        assert_eq!(entries(folder).iter().map(|path| stem(path)).collect::<Vec<_>>(), listed, "{folder}");
    }
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/Cargo.toml"));
    let manifest: toml::Table = manifest.expect("a manifest").parse().expect("a manifest");
    let programs = manifest["bin"].as_array().expect("a list").iter();
    let mut programs: Vec<&str> = programs.filter_map(|program| program.get("name")?.as_str()).collect();
    programs.sort_unstable();
    assert_eq!(programs, listed);
}
