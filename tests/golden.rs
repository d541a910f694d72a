//! Every golden result through the generator: both protocols, every prompt, run-ahead 1, 3 and all, alone and in a
//! batch, on the reference and on a device whose buffers refuse host reads.

mod fixture;

use fixture::model::{AHEAD, Model, PROTOCOLS, check, golden_batch, greedy, run, tokens};
use fixture::{GOLDENS, assert_close};
use photonc::passes::choose_protocol::Protocol;
use photonc::passes::compile::PassOptions;
use photonc::passes::opt_level::OptLevel;
use photonc::runtime::request::{Batch, Cancel, Finish, Keep, Request, RunAhead};
use photonc::runtime::sampler::Sampling;
use photonc::runtime::simulated::Simulated;
use std::num::NonZeroUsize;

#[test]
fn the_reference_reproduces_every_golden_result() {
    for (name, level) in GOLDENS.into_iter().flat_map(|name| OptLevel::ALL.map(|level| (name, level))) {
        let model = Model::at(name, level);
        let mut generator = model.generator(Box::new(model.reference()));
        for protocol in PROTOCOLS {
            for k in 0..model.expected.prompts() {
                for ahead in AHEAD {
                    let request = golden_batch(&model, protocol, &[k], ahead);
                    check(&model, protocol, k, &run(&mut generator, &request), 0);
                }
            }
        }
    }
}

// Zeros behind every head of a window change no bit of any result.
#[test]
fn padded_heads_reproduce_every_golden_result() {
    for name in GOLDENS {
        let options = PassOptions { pad_heads: NonZeroUsize::new(5), ..PassOptions::default() };
        let (model, plain) = (Model::compiled(name, options), Model::of(name));
        let padded = model.compilation.records.values().flatten().filter(|record| record.pass == "pad-heads");
        assert!(padded.map(|record| record.rewrites.count).sum::<usize>() > 0, "{name}");
        for protocol in PROTOCOLS {
            let request = golden_batch(&model, protocol, &[0], RunAhead::MetaContexts(3));
            let found = run(&mut model.generator(Box::new(model.reference())), &request);
            check(&model, protocol, 0, &found, 0);
            let plain = run(&mut plain.generator(Box::new(plain.reference())), &request);
            assert_eq!(tokens(&found), tokens(&plain));
        }
    }
}

// Poisoned allocations and closed buffers: nothing may depend on slots past a length or on reading device memory.
#[test]
fn a_device_that_refuses_host_reads_reproduces_the_goldens_in_one_batch() {
    for name in GOLDENS {
        let model = Model::of(name);
        let device = Simulated::new(model.reference());
        let meter = device.meter();
        let mut generator = model.generator(Box::new(device));
        let prompts: Vec<usize> = (0..model.expected.prompts()).collect();
        for protocol in PROTOCOLS {
            for ahead in AHEAD {
                let request = golden_batch(&model, protocol, &prompts, ahead);
                let generation = run(&mut generator, &request);
                for k in &prompts {
                    check(&model, protocol, *k, &generation, *k);
                }
            }
        }
        assert_eq!(meter.traffic().live_buffers, 0, "{name} leaks");
    }
}

// Without captures only finished tokens come back: one download per burst.
#[test]
fn only_tokens_cross_to_the_host() {
    let model = Model::of("paper");
    let device = Simulated::new(model.reference());
    let meter = device.meter();
    let mut generator = model.generator(Box::new(device));
    let batch = Batch::alike(&greedy(Protocol::Recgen, 32), &model.prompts(), RunAhead::All);
    run(&mut generator, &batch);
    let traffic = meter.traffic();
    assert_eq!(traffic.downloads, 1);
    assert_eq!(
        traffic.downloaded_bytes,
        model.expected.prompts() * 32usize.next_multiple_of(model.meta_tokens) * 8
    );
}

const ONE: RunAhead = RunAhead::MetaContexts(1);

fn sampled(model: &Model, protocol: Protocol, sampling: Sampling) -> Request {
    Request { sampling, samples: 3, ..greedy(protocol, 3 * model.meta_tokens - 1) }
}

// Batching, run-ahead and sharing of the trajectory change no token, whichever sampler draws.
#[test]
fn samples_depend_on_seed_sample_and_place_only() {
    for name in GOLDENS {
        let model = Model::of(name);
        let prompts = model.prompts();
        let mut generator = model.generator(Box::new(Simulated::new(model.reference())));
        for protocol in PROTOCOLS {
            for (top_k, min_p) in [(8, 0.0), (0, 0.0), (0, 0.05)] {
                let sampling = Sampling { temperature: 1.5, top_k, top_p: 0.95, min_p, seed: 11 };
                let request = sampled(&model, protocol, sampling);
                let together = run(&mut generator, &Batch::alike(&request, &prompts, ONE));
                assert_eq!(together.host_sampled, top_k == 0);
                assert_eq!(together.sequences.len(), 3 * prompts.len());
                let ahead = Batch::alike(&request, &prompts, RunAhead::All);
                assert_eq!(tokens(&run(&mut generator, &ahead)), tokens(&together), "{name} {protocol}");
                let alone: Vec<Vec<i64>> = prompts
                    .iter()
                    .flat_map(|prompt| {
                        tokens(&run(
                            &mut generator,
                            &Batch::alike(&request, std::slice::from_ref(prompt), ONE),
                        ))
                    })
                    .collect();
                assert_eq!(alone, tokens(&together), "{name} {protocol} {sampling:?}");
                let other = Request { sampling: Sampling { seed: 12, ..sampling }, ..request };
                let other = run(&mut generator, &Batch::alike(&other, &prompts, ONE));
                assert_ne!(tokens(&other), tokens(&together));
            }
        }
    }
}

// The host sampler follows the graphs' sampler where both can draw: min-p far below any candidate changes nothing.
#[test]
fn both_samplers_draw_the_same_tokens() {
    for name in GOLDENS {
        let model = Model::of(name);
        let mut generator = model.generator(Box::new(model.reference()));
        for protocol in PROTOCOLS {
            let sampling = Sampling { temperature: 0.8, top_k: 6, top_p: 0.9, min_p: 0.0, seed: 5 };
            let mut draw = |sampling| {
                let request = sampled(&model, protocol, sampling);
                run(&mut generator, &Batch::alike(&request, &model.prompts(), ONE))
            };
            let inside = draw(sampling);
            let outside = draw(Sampling { min_p: 1e-300, ..sampling });
            assert!(outside.host_sampled && !inside.host_sampled);
            assert_eq!(tokens(&outside), tokens(&inside), "{name} {protocol}");
        }
    }
}

// Rows that stop early leave the batch; the others go on as if alone.
#[test]
fn stopped_rows_leave_and_change_nothing_for_the_rest() {
    let model = Model::of("lopsided");
    let mut generator = model.generator(Box::new(Simulated::new(model.reference())));
    for protocol in PROTOCOLS {
        let sampling = Sampling { temperature: 1.0, top_k: 8, top_p: 1.0, min_p: 0.0, seed: 3 };
        let request = Request { sampling, samples: 2, ..greedy(protocol, 40) };
        let whole = tokens(&run(&mut generator, &Batch::alike(&request, &model.prompts(), ONE)));
        let stop = whole[0][5];
        let stopping = Request { stop: vec![stop], ..request };
        let stopped = run(&mut generator, &Batch::alike(&stopping, &model.prompts(), ONE));
        let mut ended = 0;
        for (sequence, whole) in stopped.sequences.iter().zip(&whole) {
            let end = whole.iter().position(|token| *token == stop).unwrap_or(whole.len());
            assert_eq!(sequence.tokens, whole[..end]);
            ended += usize::from(sequence.finish == Finish::Stop);
        }
        assert!(ended > 0);
    }
}

#[test]
fn any_meta_context_is_expanded_again_alone() {
    for name in GOLDENS {
        let model = Model::of(name);
        let mut generator = model.generator(Box::new(Simulated::new(model.reference())));
        let sampling = Sampling { temperature: 1.0, top_k: 8, top_p: 0.9, min_p: 0.0, seed: 21 };
        let meta = model.meta_tokens;
        let request = Request {
            sampling,
            samples: 2,
            keep: Keep { trajectory: true, ..Keep::default() },
            ..greedy(Protocol::Recgen, 5 * meta)
        };
        let ahead = RunAhead::MetaContexts(3);
        let generation = run(&mut generator, &Batch::alike(&request, &model.prompts(), ahead));
        for (prompt, sample, at) in [(0, 0, 4), (1, 1, 0), (0, 1, 2)] {
            let trajectory = generation.trajectories[prompt].as_ref().expect("was kept");
            assert_eq!(trajectory.meta_contexts(), 5);
            let again = generator.expand_again(trajectory, at, sample as u64, &sampling).expect("expands");
            let first = &generation.sequences[prompt * 2 + sample].tokens[at * meta..(at + 1) * meta];
            assert_eq!(again, first, "{name} prompt {prompt} sample {sample} meta-context {at}");
            assert!(generator.expand_again(trajectory, 5, 0, &sampling).is_err());
        }
    }
}

#[test]
fn scores_match_the_teacher_forced_forward() {
    for name in GOLDENS {
        let model = Model::of(name);
        let mut generator = model.generator(Box::new(Simulated::new(model.reference())));
        let texts = (0..model.expected.prompts()).map(|k| model.expected.ints(k, "prompt_aligned").to_vec());
        let texts: Vec<_> = texts.collect();
        let (scored, _) = generator.score(&texts).expect("scores");
        for (k, scored) in scored.iter().enumerate() {
            assert_eq!(scored.tokens, texts[k]);
            let logits = model.expected.floats(k, "fwd_logits");
            assert_close(&format!("{name} prompt {k}"), &scored.logits, logits, model.tolerance());
            assert!(scored.perplexity().is_finite() && scored.perplexity() > 1.0);
        }
    }
}

#[test]
fn requests_that_cannot_be_met_are_refused_with_their_reason() {
    let model = Model::of("paper");
    let mut generator = model.generator(Box::new(model.reference()));
    let mut message = |request: Request| {
        let batch = Batch::new(vec![request]);
        generator.generate(&batch, &mut |_| {}, &Cancel::default()).expect_err("refused").to_string()
    };
    let base = Request { prompt: model.prompts()[0].clone(), ..greedy(Protocol::Recgen, 16) };
    assert!(message(Request { prompt: vec![1], ..base.clone() }).contains("has 1 tokens"));
    assert!(message(Request { prompt: vec![1_000_000; 64], ..base.clone() }).contains("token 0 is 1000000"));
    assert!(message(Request { max_new_tokens: 5000, ..base.clone() }).contains("exceed the bundle's 4096"));
    let sampling = Sampling { temperature: f64::NAN, ..Sampling::greedy() };
    assert!(message(Request { sampling, ..base }).contains("temperature is NaN"));
    let none = generator.generate(&Batch::new(Vec::new()), &mut |_| {}, &Cancel::default());
    assert!(none.expect_err("refused").to_string().contains("number of prompts is 0"));
}

#[test]
fn a_cancelled_generation_keeps_what_it_has() {
    let model = Model::of("paper");
    let mut generator = model.generator(Box::new(model.reference()));
    let prompt = model.prompts()[0].clone();
    let batch = Batch::new(vec![Request { prompt, ..greedy(Protocol::Recgen, 64) }]);
    let cancel = Cancel::default();
    let mut seen = Vec::new();
    let generation = generator
        .generate(
            &batch,
            &mut |burst| {
                seen.extend_from_slice(burst.tokens);
                cancel.cancel();
            },
            &cancel,
        )
        .expect("generates");
    assert_eq!(generation.sequences[0].finish, Finish::Cancelled);
    assert_eq!(generation.sequences[0].tokens, seen);
    assert_eq!(seen.len(), model.meta_tokens);
}
