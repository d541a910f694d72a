//! Every golden result from an exported bundle: checkpoint to disk, opened again, on tract and on the reference.

mod fixture;

use fixture::bundled::Golden;
use fixture::model::{AHEAD, PROTOCOLS};
use fixture::{GOLDENS, assert_close};
use photonc::runtime::reference::Reference;
use photonc::runtime::request::{Cancel, Request};
use photonc::runtime::sampler::Sampling;
use photonc::runtime::simulated::Simulated;
use photonc::runtime::tract::Tract;

#[test]
fn tract_reproduces_every_golden_result() {
    for name in GOLDENS {
        let golden = Golden::of(name);
        let mut generator = golden.generator(Box::new(Tract::of_bundle(golden.bundle.clone())));
        golden.check(name, &mut generator, &AHEAD);
    }
}

#[test]
fn the_reference_reads_the_same_bundle() {
    let golden = Golden::of("lopsided");
    let mut generator = golden.generator(Box::new(Reference::of_bundle(golden.bundle.clone())));
    golden.check("lopsided", &mut generator, &AHEAD);
}

// Both samplers of tract draw what the reference draws, and poisoned buffers change nothing.
#[test]
fn tract_draws_the_tokens_of_the_reference() {
    for name in GOLDENS {
        let golden = Golden::of(name);
        let reference = golden.generator(Box::new(Reference::of_bundle(golden.bundle.clone())));
        let device = Simulated::new(Tract::of_bundle(golden.bundle.clone()));
        let tract = golden.generator(Box::new(device));
        let mut generators = [reference, tract];
        for protocol in PROTOCOLS {
            for min_p in [0.0, 1e-3] {
                let sampling = Sampling { temperature: 0.9, top_k: 10, top_p: 0.95, min_p, seed: 42 };
                let request =
                    Request { sampling, samples: 2, ..Request::greedy(protocol, golden.prompts(), 40) };
                let [expected, found] = generators.each_mut().map(|generator| {
                    generator
                        .generate(&request, &mut |_| {}, &Cancel::default())
                        .expect("generates")
                        .sequences
                });
                assert_eq!(found, expected, "{name} {protocol} min-p {min_p}");
            }
        }
    }
}

#[test]
fn tract_scores_as_the_teacher_forced_forward() {
    for name in GOLDENS {
        let golden = Golden::of(name);
        let mut generator = golden.generator(Box::new(Tract::of_bundle(golden.bundle.clone())));
        let (scored, _) = generator.score(&golden.prompts()).expect("scores");
        for (k, scored) in scored.iter().enumerate() {
            let logits = golden.expected.floats(k, "fwd_logits");
            assert_close(&format!("{name} prompt {k}"), &scored.logits, logits, golden.tolerance);
        }
    }
}
