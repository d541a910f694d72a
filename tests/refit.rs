//! New weights for a bundle: what they change, what they leave, and which are refused.

mod fixture;

use fixture::golden_path;
use photonc::bundle::{Bundle, Manifest};
use photonc::export::{ExportOptions, RefitError, RefitOptions, export, refit};
use photonc::ir::dtype::Dtype;
use photonc::model::checkpoint::Unexpected;
use photonc::model::dialect::DialectChoice;
use photonc::model::preset::preset;
use photonc::model::synth::synth;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn checkpoint(folder: &Path, seed: u64) -> PathBuf {
    let model = folder.join(format!("model{seed}"));
    synth(&preset("tiny").expect("a preset"), Dtype::F32, seed, &model, &|_, _| {}).expect("writes");
    model
}

fn exported(model: &Path, out: &Path, precision: Dtype) -> Manifest {
    let options = ExportOptions { precision, ..ExportOptions::new(model, out) };
    export(&options, &|_| {}).expect("exports").manifest
}

fn options(bundle: &Path, weights: &Path) -> RefitOptions {
    RefitOptions {
        bundle: bundle.to_owned(),
        weights: weights.to_owned(),
        dialect: DialectChoice::Recognise,
        unexpected: Unexpected::Refused,
        allow_nonfinite: false,
    }
}

/// Every file of a bundle with its contents.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).expect("lists") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("is inside").to_owned();
                found.insert(name, fs::read(&path).expect("reads"));
            }
        }
    }
    found
}

// The strongest claim there is: nothing tells the bundle from one exported from the new checkpoint.
#[test]
fn a_refitted_bundle_is_the_bundle_of_the_new_checkpoint() {
    for precision in [Dtype::F32, Dtype::F16] {
        let folder = tempfile::tempdir().expect("a folder");
        let (old, new) = (checkpoint(folder.path(), 1), checkpoint(folder.path(), 2));
        let (bundle, wanted) = (folder.path().join("bundle"), folder.path().join("wanted"));
        exported(&old, &bundle, precision);
        exported(&new, &wanted, precision);
        let report = refit(&options(&bundle, &new), &|_| {}).expect("refits");
        let (found, wanted) = (contents(&bundle), contents(&wanted));
        let differing: Vec<_> = wanted.keys().filter(|name| found.get(*name) != wanted.get(*name)).collect();
        assert!(differing.is_empty() && found.len() == wanted.len(), "{precision}: {differing:?}");
        // Weights stand where they stood, so no model had to change.
        let models: usize = report.manifest.onnx.values().map(BTreeMap::len).sum();
        assert_eq!(report.models_kept, models, "{precision}");
    }
}

#[test]
fn carried_files_of_the_bundle_stay() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new) = (checkpoint(folder.path(), 1), checkpoint(folder.path(), 2));
    fs::write(old.join("tokenizer.json"), "{\"old\": 1}").expect("writes");
    let bundle = folder.path().join("bundle");
    exported(&old, &bundle, Dtype::F32);
    refit(&options(&bundle, &new), &|_| {}).expect("refits");
    let opened = Bundle::open(&bundle).expect("opens");
    let (_, carried) = opened.carried("tokenizer.json").expect("reads").expect("is there");
    assert_eq!(carried, b"{\"old\": 1}");
}

#[test]
fn weights_of_another_model_are_refused_field_by_field() {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = folder.path().join("bundle");
    exported(&checkpoint(folder.path(), 1), &bundle, Dtype::F32);
    let before = contents(&bundle);
    let error = refit(&options(&bundle, &golden_path("paper")), &|_| {}).expect_err("is refused");
    let text = error.to_string();
    assert!(matches!(error, RefitError::OtherModel(_)), "{text}");
    assert!(text.contains("vocab_size is 101, the bundle has 256"), "{text}");
    assert!(text.contains("levels[0].dim is "), "{text}");
    assert!(contents(&bundle) == before, "the bundle is as it was");
}

#[test]
fn damaged_weights_leave_the_bundle_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new) = (checkpoint(folder.path(), 1), checkpoint(folder.path(), 2));
    let bundle = folder.path().join("bundle");
    exported(&old, &bundle, Dtype::F32);
    let before = contents(&bundle);
    let path = new.join("model.safetensors");
    let mut bytes = fs::read(&path).expect("reads");
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, &bytes).expect("writes");
    let error = refit(&options(&bundle, &new), &|_| {}).expect_err("is refused").to_string();
    assert!(error.contains("NaN"), "{error}");
    assert!(contents(&bundle) == before, "the bundle is as it was");
}
