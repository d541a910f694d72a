//! The trained example: what its own training code computes, photonc computes too, on every backend of this machine
//! (`tests/cuda/english.rs` has that of a GPU).

mod fixture;

use fixture::model::{PROTOCOLS, run, tokens};
use fixture::trained::{self, Written};
use photonc::bundle::Bundle;
use photonc::export::target::Target;
use photonc::export::{ExportOptions, export};
use photonc::runtime::backend::Backend;
use photonc::runtime::generator::Generator;
use photonc::runtime::reference::Reference;
use photonc::runtime::request::{Batch, Request};
use photonc::runtime::sampler::Sampling;
use photonc::runtime::tract::Tract;

fn exported() -> (tempfile::TempDir, Bundle) {
    let directory = tempfile::tempdir().expect("directory");
    let out = directory.path().join("bundle");
    let targets = Some(vec![Target::Portable]);
    let options = ExportOptions { targets, ..ExportOptions::new(trained::folder(), &out) };
    export(&options, &|_| {}).expect("exports");
    let bundle = Bundle::open(&out).expect("opens");
    (directory, bundle)
}

fn agrees(bundle: &Bundle, backend: Box<dyn Backend>) -> Generator {
    let mut generator = Generator::of_bundle(bundle, backend).expect("signatures parse");
    Written::read().check(&mut generator, trained::ALL);
    generator
}

#[test]
fn the_reference_writes_what_the_training_code_writes() {
    let (_directory, bundle) = exported();
    agrees(&bundle, Box::new(Reference::of_bundle(bundle.clone())));
}

#[cfg(feature = "ort")]
#[test]
fn onnx_runtime_writes_what_the_training_code_writes() {
    use photonc::runtime::ort::Ort;
    let (_directory, bundle) = exported();
    let ort = Ort::of_bundle(bundle.clone(), &fixture::onnx_runtime::options()).expect("the library loads");
    agrees(&bundle, Box::new(ort));
}

// A meta-context of one window: the host's sampler has to find the windows among the meta-contexts. On one generator,
// because tract takes its time to load windows of 32 tokens.
#[test]
fn tract_writes_what_the_training_code_writes_and_both_samplers_draw_the_same() {
    let (_directory, bundle) = exported();
    let mut generator = agrees(&bundle, Box::new(Tract::of_bundle(bundle.clone())));
    let prompt = Written::read().prompt[..64].to_vec();
    for protocol in PROTOCOLS {
        let sampling = Sampling { temperature: 0.8, top_k: 6, top_p: 0.9, min_p: 0.0, seed: 5 };
        let mut drawn = |sampling| {
            let request = Request { sampling, ..Request::greedy(protocol, prompt.clone(), 64) };
            run(&mut generator, &Batch::new(vec![request]))
        };
        let inside = drawn(sampling);
        let outside = drawn(Sampling { min_p: 1e-300, ..sampling });
        assert!(outside.host_sampled && !inside.host_sampled);
        assert_eq!(tokens(&outside), tokens(&inside), "{protocol}");
    }
}
