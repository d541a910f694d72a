//! Every golden, both protocols, every run-ahead: graph by graph and on the device from prompt to tokens.

use crate::emulated::Order;
use crate::fixture::model::{AHEAD, Model, PROTOCOLS, check_within, golden_batch, greedy, run, tokens};
use crate::fixture::{GOLDENS, assert_close};
use crate::{TOLERANCE_F32, backend};
use photonc::ir::dtype::Dtype;
use photonc::runtime::request::{Batch, Keep, Request, RunAhead};
use photonc::runtime::sampler::Sampling;

/// The batch without what only graphs run one by one can keep.
pub fn tokens_alone(mut batch: Batch) -> Batch {
    batch.requests.iter_mut().for_each(|request| request.keep = Keep::default());
    batch
}

// Graph by graph, through the generator's own loop: logits and states of every step.
#[test]
fn every_golden_is_reproduced_graph_by_graph() {
    for name in GOLDENS {
        let model = Model::of(name);
        let mut generator = model.generator(Box::new(backend(&model, Order::Immediate, Dtype::F32)));
        let prompts: Vec<usize> = (0..model.expected.prompts()).collect();
        for protocol in PROTOCOLS {
            for ahead in AHEAD {
                let batch = golden_batch(&model, protocol, &prompts, ahead);
                let generation = run(&mut generator, &batch);
                for k in &prompts {
                    check_within(&model, protocol, *k, &generation, *k, TOLERANCE_F32);
                }
            }
        }
    }
}

// On the device from prompt to tokens, work as late and as mixed as streams and events allow.
#[test]
fn every_golden_is_reproduced_by_the_decoder() {
    for name in GOLDENS {
        let model = Model::of(name);
        let mut generator = model.generator(Box::new(backend(&model, Order::Mixed(7), Dtype::F32)));
        let prompts: Vec<usize> = (0..model.expected.prompts()).collect();
        for protocol in PROTOCOLS {
            for ahead in AHEAD {
                let batch = tokens_alone(golden_batch(&model, protocol, &prompts, ahead));
                let generation = run(&mut generator, &batch);
                for k in &prompts {
                    let expected = model.expected.ints(*k, &format!("{protocol}_tokens"));
                    assert_eq!(
                        generation.sequences[*k].tokens, expected,
                        "{name} {protocol} prompt {k} {ahead:?}"
                    );
                }
            }
        }
    }
}

// Sampled tokens are those of the reference, whatever draws them: graphs' sampler, whole vocabulary, min-p.
#[test]
fn the_decoder_draws_what_the_reference_draws() {
    for name in GOLDENS {
        let model = Model::of(name);
        let mut reference = model.generator(Box::new(model.reference()));
        let mut generator = model.generator(Box::new(backend(&model, Order::Mixed(11), Dtype::F32)));
        for protocol in PROTOCOLS {
            for (top_k, min_p) in [(8, 0.0), (0, 0.0), (0, 0.05)] {
                let sampling = Sampling { temperature: 1.5, top_k, top_p: 0.95, min_p, seed: 11 };
                let request = Request { sampling, samples: 3, ..greedy(protocol, 4 * model.meta_tokens + 1) };
                let batch = Batch::alike(&request, &model.prompts(), RunAhead::MetaContexts(2));
                let (expected, found) =
                    (tokens(&run(&mut reference, &batch)), tokens(&run(&mut generator, &batch)));
                // A uniform number at the very boundary between two tokens may fall either way in f32.
                let other = found.iter().zip(&expected).filter(|(found, expected)| found != expected).count();
                assert!(
                    other <= 1,
                    "{name} {protocol} {top_k} {min_p}: {other} of {} sequences differ",
                    found.len()
                );
            }
        }
    }
}

#[test]
fn scores_match_the_teacher_forced_forward() {
    for name in GOLDENS {
        let model = Model::of(name);
        let mut generator = model.generator(Box::new(backend(&model, Order::Immediate, Dtype::F32)));
        let aligned = |k| model.expected.ints(k, "prompt_aligned").to_vec();
        let texts: Vec<Vec<i64>> = (0..model.expected.prompts()).map(aligned).collect();
        let (scored, _) = generator.score(&texts).expect("scores");
        for (k, scored) in scored.iter().enumerate() {
            let expected = model.expected.floats(k, "fwd_logits");
            assert_close(&format!("{name} prompt {k}"), &scored.logits, expected, TOLERANCE_F32);
        }
    }
}

// 64 rows of unlike lengths: products of more rows than our kernels take go to cuBLASLt, and padding reaches nobody.
#[test]
fn sixty_four_prompts_of_different_lengths_are_as_right_as_one() {
    let model = Model::of("paper");
    let mut generator = model.generator(Box::new(backend(&model, Order::Immediate, Dtype::F32)));
    let prompts: Vec<Vec<i64>> = (0..64)
        .map(|row| {
            let tokens = model.meta_tokens * (1 + row % 5) + row % 3;
            (0..tokens).map(|at| ((at * 11 + row * 7) % model.vocab_size) as i64).collect()
        })
        .collect();
    for protocol in PROTOCOLS {
        let request = greedy(protocol, 2 * model.meta_tokens);
        let batch = |prompts: &[Vec<i64>]| Batch::alike(&request, prompts, RunAhead::MetaContexts(2));
        let together = tokens(&run(&mut generator, &batch(&prompts)));
        for row in [0, 13, 37, 63] {
            let alone = tokens(&run(&mut generator, &batch(&prompts[row..=row])));
            assert_eq!(together[row], alone[0], "{protocol} row {row}");
        }
    }
}

// Small enough for a tool that slows everything down a hundred times, with both streams at work.
#[test]
fn a_golden_for_the_sanitizer() {
    let model = Model::of("paper");
    let mut generator = model.generator(Box::new(backend(&model, Order::Immediate, Dtype::F32)));
    for protocol in PROTOCOLS {
        let batch = tokens_alone(golden_batch(&model, protocol, &[0], RunAhead::MetaContexts(2)));
        let expected = model.expected.ints(0, &format!("{protocol}_tokens"));
        assert_eq!(run(&mut generator, &batch).sequences[0].tokens, expected, "{protocol}");
    }
}
