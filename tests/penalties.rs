//! Tokens that are forced in place of drawn ones, and penalties on tokens that have occurred: their logits and their reach,
//! on the golden models.

mod fixture;

use fixture::model::{AHEAD, Model, PROTOCOLS, golden_batch, greedy, run, tokens};
use fixture::{GOLDENS, assert_close, golden_checkpoint};
use photonc::model::config::Feedback;
use photonc::runtime::penalties::Penalties;
use photonc::runtime::request::{Batch, Keep, Request, RunAhead};
use photonc::runtime::sampler::Sampling;
use photonc::runtime::simulated::Simulated;
use std::collections::BTreeSet;

const NONE: Penalties = Penalties { repetition: 1.0, presence: 0.0, frequency: 0.0 };

/// The same requests, each with its tokens forced.
fn forcing(batch: Batch, forced: &[Vec<i64>]) -> Batch {
    let with = |(request, forced): (Request, &Vec<i64>)| Request { forced: forced.clone(), ..request };
    Batch { requests: batch.requests.into_iter().zip(forced).map(with).collect(), ..batch }
}

/// Going on with the golden's own tokens gives the golden's own logits: outside the graphs as inside.
#[test]
fn forced_tokens_have_the_logits_of_drawn_ones() {
    for name in GOLDENS {
        let model = Model::of(name);
        let mut generator = model.generator(Box::new(Simulated::new(model.reference())));
        let prompts: Vec<usize> = (0..model.expected.prompts()).collect();
        for protocol in PROTOCOLS {
            let drawn: Vec<Vec<i64>> = prompts
                .iter()
                .map(|k| model.expected.ints(*k, &format!("{protocol}_tokens")).to_vec())
                .collect();
            let free = golden_batch(&model, protocol, &prompts, RunAhead::MetaContexts(3));
            let generation = run(&mut generator, &forcing(free, &drawn));
            assert_eq!(tokens(&generation), drawn);
            for (k, sequence) in generation.sequences.iter().enumerate() {
                let expected = model.expected.floats(k, &format!("{protocol}_logits"));
                assert_close(
                    &format!("{name} {protocol} {k}"),
                    &sequence.logits,
                    expected,
                    model.tolerance(),
                );
            }
        }
    }
}

/// HierGen over forced tokens is the teacher-forced forward: the logits of `score` on prompt and continuation.
#[test]
fn hiergen_over_forced_tokens_is_the_forward() {
    for name in GOLDENS {
        let model = Model::of(name);
        let mut generator = model.generator(Box::new(model.reference()));
        let (meta, vocab) = (model.meta_tokens, model.vocab_size);
        let prompt = model.expected.ints(0, "prompt_aligned").to_vec();
        // Tokens that the model would not draw.
        let new: Vec<i64> = (0..3 * meta).map(|at| ((at * 37 + 11) % vocab) as i64).collect();
        let (scored, _) = generator.score(&[[&prompt[..], &new].concat()]).expect("scores");
        for ahead in AHEAD {
            let request = Request {
                forced: new.clone(),
                keep: Keep { logits: true, ..Keep::default() },
                ..Request::greedy(PROTOCOLS[1], prompt.clone(), new.len())
            };
            let batch = Batch { run_ahead: ahead, ..Batch::new(vec![request]) };
            let logits = &run(&mut generator, &batch).sequences[0].logits;
            assert_close(name, logits, &scored[0].logits[prompt.len() * vocab..], 1e-9);
        }
    }
}

#[test]
fn forced_tokens_must_fit() {
    let model = Model::of("paper");
    let mut generator = model.generator(Box::new(model.reference()));
    let mut message = |forced: Vec<i64>| {
        let batch = forcing(golden_batch(&model, PROTOCOLS[0], &[0], RunAhead::All), &[forced]);
        generator.generate(&batch, &mut |_| {}, &Default::default()).expect_err("refused").to_string()
    };
    let length = model.expected.ints(0, "recgen_tokens").len();
    assert!(message(vec![1; length + 1]).contains("tokens are forced, expected at most"));
    assert!(message(vec![9999; length]).contains("token 0 is 9999"));
}

/// Logit of a token that occurs in `prompt` or `new`, as the documentation says.
fn penalised(logit: f64, token: i64, prompt: &[i64], new: &[i64], penalties: Penalties) -> f64 {
    let count = new.iter().filter(|other| **other == token).count();
    if count == 0 && !prompt.contains(&token) {
        return logit;
    }
    let logit = if logit > 0.0 { logit / penalties.repetition } else { logit * penalties.repetition };
    logit - if count > 0 { penalties.presence } else { 0.0 } - penalties.frequency * count as f64
}

/// Each greedy token is the largest logit after penalties on exactly the tokens in reach: the prompt, the meta-contexts
/// before, the own chunk; every token before where no token feeds a chunk.
#[test]
fn penalties_reach_as_far_as_documented() {
    let strong = Penalties { repetition: 1.3, presence: 0.7, frequency: 0.4 };
    for name in GOLDENS {
        let model = Model::of(name);
        let config = golden_checkpoint(name).config;
        let chunk = config.levels[0].chunk_size;
        let fed = config.levels[0].feedback == Feedback::Token;
        let mut generator = model.generator(Box::new(Simulated::new(model.reference())));
        for protocol in PROTOCOLS {
            let free = greedy(protocol, 4 * model.meta_tokens);
            let batch =
                |request: Request| Batch::alike(&request, &model.prompts(), RunAhead::MetaContexts(2));
            let drawn = tokens(&run(&mut generator, &batch(Request { penalties: strong, ..free.clone() })));
            let unpenalised = tokens(&run(&mut generator, &batch(free.clone())));
            assert_ne!(drawn, unpenalised, "{name} {protocol}: nothing was penalised");
            let keep = Keep { logits: true, ..Keep::default() };
            let again = run(&mut generator, &forcing(batch(Request { keep, ..free }), &drawn));
            for (k, (sequence, drawn)) in again.sequences.iter().zip(&drawn).enumerate() {
                let prompt = model.expected.ints(k, "prompt_aligned");
                for (at, logits) in sequence.logits.chunks_exact(model.vocab_size).enumerate() {
                    let near = if fed { at / chunk * chunk..at } else { 0..at };
                    let before = if fed { at / model.meta_tokens * model.meta_tokens } else { 0 };
                    let seen = [&drawn[..before], &drawn[near]].concat();
                    let all = logits.iter().enumerate();
                    let all = all.map(|(id, logit)| penalised(*logit, id as i64, prompt, &seen, strong));
                    let all: Vec<f64> = all.collect();
                    let best = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    assert_eq!(all[drawn[at] as usize], best, "{name} {protocol} prompt {k} token {at}");
                }
            }
        }
    }
}

/// Batch, run-ahead and sharing of a trajectory change no penalised token.
#[test]
fn penalised_tokens_do_not_depend_on_the_order_of_work() {
    let penalties = Penalties { repetition: 1.2, presence: 0.3, ..NONE };
    for name in GOLDENS {
        let model = Model::of(name);
        let mut generator = model.generator(Box::new(Simulated::new(model.reference())));
        let sampling = Sampling { temperature: 1.2, top_k: 12, top_p: 0.95, min_p: 0.0, seed: 4 };
        for protocol in PROTOCOLS {
            let length = 4 * model.meta_tokens - 1;
            let request = Request { penalties, sampling, samples: 2, ..greedy(protocol, length) };
            let mut draw = |prompts: &[Vec<i64>], run_ahead| {
                tokens(&run(&mut generator, &Batch::alike(&request, prompts, run_ahead)))
            };
            let together = draw(&model.prompts(), AHEAD[0]);
            for run_ahead in AHEAD {
                assert_eq!(draw(&model.prompts(), run_ahead), together);
            }
            let prompts = model.prompts();
            let alone = prompts.iter().flat_map(|prompt| draw(std::slice::from_ref(prompt), AHEAD[0]));
            assert_eq!(alone.collect::<Vec<_>>(), together, "{name} {protocol}");
        }
    }
}

/// The largest penalty lets no token come twice within its reach.
#[test]
fn an_endless_penalty_forbids_repetition() {
    let model = Model::of("paper");
    let mut generator = model.generator(Box::new(model.reference()));
    let penalties = Penalties { presence: 1e6, ..NONE };
    let request = Request { penalties, ..greedy(PROTOCOLS[0], 2 * model.meta_tokens) };
    let batch = Batch::alike(&request, &model.prompts(), AHEAD[0]);
    for drawn in tokens(&run(&mut generator, &batch)) {
        let (first, second) = drawn.split_at(model.meta_tokens);
        let first: BTreeSet<_> = first.iter().collect();
        assert!(second.iter().all(|token| !first.contains(token)));
        for chunk in drawn.chunks(golden_checkpoint("paper").config.levels[0].chunk_size) {
            assert_eq!(chunk.iter().collect::<BTreeSet<_>>().len(), chunk.len());
        }
    }
}
