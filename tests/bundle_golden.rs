//! Every golden result from an exported bundle: checkpoint to disk, opened again, on tract and on the reference.

mod fixture;

use fixture::bundled::Golden;
use fixture::model::{AHEAD, PROTOCOLS};
use fixture::{GOLDENS, assert_close};
use photonc::passes::opt_level::OptLevel;
use photonc::runtime::reference::Reference;
use photonc::runtime::request::{Cancel, Request};
use photonc::runtime::sampler::Sampling;
use photonc::runtime::simulated::Simulated;
use photonc::runtime::tract::Tract;
use prost::Message as _;
use std::collections::HashSet;
use tract_onnx::pb::ModelProto;

#[test]
fn tract_reproduces_every_golden_result() {
    for name in GOLDENS {
        let golden = Golden::of(name);
        let mut generator = golden.generator(Box::new(Tract::of_bundle(golden.bundle.clone())));
        golden.check(name, &mut generator, &AHEAD);
    }
}

#[test]
fn tract_draws_the_golden_tokens_at_lower_levels() {
    for (name, level) in
        GOLDENS.into_iter().flat_map(|name| [OptLevel::O0, OptLevel::O1].map(|level| (name, level)))
    {
        let golden = Golden::at(name, level);
        let mut generator = golden.generator(Box::new(Tract::of_bundle(golden.bundle.clone())));
        for protocol in PROTOCOLS {
            let length = golden.expected.ints(0, &format!("{protocol}_tokens")).len();
            let request = Request::greedy(protocol, golden.prompts(), length);
            let generation =
                generator.generate(&request, &mut |_| {}, &Cancel::default()).expect("generates");
            for (k, sequence) in generation.sequences.iter().enumerate() {
                let tokens = golden.expected.ints(k, &format!("{protocol}_tokens"));
                assert_eq!(sequence.tokens, tokens, "{name} {protocol} {level} prompt {k}");
            }
        }
    }
}

// The checkpoint has keys before queries and the output projection between them; a bundle that stored merged weights
// beside them would be larger, and a graph that merged them itself would do so in every run.
#[test]
fn merged_projections_are_stored_once() {
    for name in GOLDENS {
        let (plain, merged) = (Golden::at(name, OptLevel::O0), Golden::of(name));
        let sizes = [&plain, &merged].map(|golden| {
            let files = golden.bundle.manifest().weight_files.values();
            files.map(|file| file.bytes).sum::<u64>()
        });
        assert!(sizes[1] <= sizes[0], "{name}: {sizes:?}");
        let weights = merged.bundle.manifest().weights.keys().map(|weight| {
            let [stored, expected] =
                [&merged, &plain].map(|golden| golden.bundle.weight(weight).expect("reads"));
            assert_eq!(stored, expected, "{name} {weight}");
        });
        assert_eq!(weights.count(), plain.bundle.manifest().weights.len());
        for graph in merged.bundle.manifest().graphs.keys() {
            let path = merged.bundle.onnx("portable", graph).expect("is there");
            let model = ModelProto::decode(&std::fs::read(path).expect("reads")[..]).expect("decodes");
            let model = model.graph.expect("has a graph");
            let stored: HashSet<&str> = model
                .initializer
                .iter()
                .filter(|tensor| !tensor.external_data.is_empty())
                .map(|tensor| tensor.name.as_str())
                .collect();
            for node in model.node.iter().filter(|node| node.op_type == "Concat") {
                let joins = node.input.iter().any(|input| stored.contains(input.as_str()));
                assert!(!joins, "{name} {graph}: {} joins stored weights", node.name);
            }
        }
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
