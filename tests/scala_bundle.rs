//! The published family from its checkpoints to tokens: exported, opened again, and every golden prompt of any length
//! generated under every protocol on every backend.

mod fixture;

use fixture::model::AHEAD;
use fixture::scala::{GOLDENS, Golden, PACKED};
use fixture::{Expected, assert_close, golden_checkpoint, golden_path};
use photonc::bundle::Bundle;
use photonc::export::{ExportOptions, export};
use photonc::ir::dtype::Dtype;
use photonc::program::{Plan, Protocol};
use photonc::runtime::reference::Reference;
use photonc::runtime::tract::Tract;

#[test]
fn the_reference_generates_every_golden_token() {
    for name in GOLDENS.into_iter().chain(PACKED) {
        let golden = Golden::of(name);
        let mut generator = golden.generator(Box::new(Reference::of_bundle(golden.bundle.clone())));
        golden.check(&mut generator, &AHEAD[1..]);
        golden.check_scores(&mut generator);
    }
}

// Under RecGen nothing above the tokens reads a token, so that it runs ahead; the others wait for theirs.
#[test]
fn only_recgen_is_distributed() {
    for name in GOLDENS {
        let golden = Golden::of(name);
        for (protocol, plan) in &golden.bundle.manifest().protocols {
            let is_split = matches!(plan, Plan::Distributed { .. });
            assert_eq!(is_split, *protocol == Protocol::Recgen, "{name} {protocol}");
        }
        assert_eq!(golden.bundle.manifest().protocols.len(), 4);
    }
}

#[test]
fn tract_generates_every_golden_token() {
    for name in GOLDENS.into_iter().chain(PACKED) {
        let golden = Golden::of(name);
        let mut generator = golden.generator(Box::new(Tract::of_bundle(golden.bundle.clone())));
        golden.check_batch(&mut generator, AHEAD[1]);
        golden.check_scores(&mut generator);
    }
}

#[cfg(feature = "ort")]
#[test]
fn onnx_runtime_generates_every_golden_token() {
    use photonc::runtime::ort::Ort;
    for name in GOLDENS.into_iter().chain(PACKED) {
        let golden = Golden::of(name);
        let backend = Ort::of_bundle(golden.bundle.clone(), &fixture::onnx_runtime::options());
        let mut generator = golden.generator(Box::new(backend.expect("the library loads")));
        golden.check_batch(&mut generator, AHEAD[1]);
        golden.check_scores(&mut generator);
    }
}

// What is packed is decoded, whatever its format, and a second time to another type.
#[test]
fn packed_weights_are_decoded_with_a_note() {
    for (name, formats) in [("scala_moe_fp8", "fp8"), ("scala_moe_nvfp4", "fp8 and nvfp4")] {
        let directory = tempfile::tempdir().expect("directory");
        let out = directory.path().join("bundle");
        let options = ExportOptions {
            precision: Dtype::Bf16,
            targets: Some(Vec::new()),
            ..ExportOptions::new(golden_path(name), &out)
        };
        let report = export(&options, &|_| {}).expect("exports");
        let note = report.notes.iter().find(|note| note.contains("packed")).expect("a note");
        assert!(note.contains(&format!("packed as {formats} are written as the numbers")), "{note}");
        let bundle = Bundle::open(&out).expect("opens");
        let expected = Expected::at(&golden_path(name).join("dequant.safetensors"));
        let checkpoint = golden_checkpoint(name);
        let mut compared = 0;
        for (canonical, entry) in checkpoint.tensors.iter().filter(|(_, entry)| entry.packing.is_some()) {
            let Some(wanted) = expected.find(&entry.native) else { continue };
            let wanted: Vec<f64> =
                wanted.as_floats().expect("floats").iter().map(|value| Dtype::Bf16.round(*value)).collect();
            let found = bundle.weight(canonical).expect("reads");
            assert_close(&entry.native, found.as_floats().expect("floats"), &wanted, 0.0);
            compared += 1;
        }
        assert!(compared > 3, "{name}: {compared} packed tensors compared");
    }
}
