//! Prompts of any length: against independent results under alignment by force, and generations that were cut off and
//! go on.

mod fixture;

use fixture::bundled::Golden;
use fixture::model::{AHEAD, Model, PROTOCOLS, run};
use fixture::ragged::{RAGGED, Ragged};
use photonc::runtime::penalties::Penalties;
use photonc::runtime::request::{Batch, Request, RunAhead};
use photonc::runtime::sampler::Sampling;
use photonc::runtime::simulated::Simulated;
use photonc::runtime::tract::Tract;

#[test]
fn the_reference_takes_any_prompt() {
    for name in RAGGED {
        let model = Model::of(name);
        let mut generator = model.generator(Box::new(model.reference()));
        Ragged::of(name).check("reference", &mut generator, &AHEAD);
        Ragged::of(name).check_scores("reference", &mut generator);
    }
}

#[test]
fn a_device_that_refuses_host_reads_takes_any_prompt() {
    for name in RAGGED {
        let model = Model::of(name);
        let device = Simulated::new(model.reference());
        let meter = device.meter();
        let mut generator = model.generator(Box::new(device));
        Ragged::of(name).check("simulated", &mut generator, &AHEAD[..2]);
        assert_eq!(meter.traffic().live_buffers, 0, "{name} leaks");
    }
}

#[test]
fn tract_takes_any_prompt() {
    for name in RAGGED {
        let golden = Golden::of(name);
        let mut generator = golden.generator(Box::new(Tract::of_bundle(golden.bundle.clone())));
        Ragged::single(name).check("tract", &mut generator, &AHEAD[..2]);
        Ragged::single(name).check_scores("tract", &mut generator);
    }
}

/// A generation that is cut off after any token and goes on gives the text of an undisturbed one: draws are keyed by their
/// place, and what was generated is not taken for prompt.
#[test]
fn a_generation_goes_on_from_every_position() {
    let drawn = Sampling { temperature: 1.1, top_k: 12, top_p: 0.95, min_p: 0.0, seed: 17 };
    let on_host = Sampling { min_p: 0.01, ..drawn };
    let penalties = Penalties { repetition: 1.2, presence: 0.3, frequency: 0.1 };
    for name in RAGGED {
        let ragged = Ragged::of(name);
        let model = Model::of(name);
        let length = 2 * model.meta_tokens + 5;
        let mut generator = model.generator(Box::new(model.reference()));
        for protocol in PROTOCOLS {
            for (sampling, penalties) in
                [(drawn, Penalties::default()), (on_host, Penalties::default()), (drawn, penalties)]
            {
                for prompt in [&ragged.prompts()[0], &ragged.prompts()[2], &ragged.prompts()[6]] {
                    let whole =
                        Request { sampling, penalties, ..Request::greedy(protocol, prompt.clone(), length) };
                    let text =
                        run(&mut generator, &Batch::new(vec![whole.clone()])).sequences.remove(0).tokens;
                    let cut = |at: usize| Request {
                        prompt: [&prompt[..], &text[..at]].concat(),
                        prompt_length: Some(prompt.len()),
                        max_new_tokens: length - at,
                        ..whole.clone()
                    };
                    let requests: Vec<Request> = (0..length).map(cut).collect();
                    let batch = Batch { run_ahead: RunAhead::MetaContexts(2), ..Batch::new(requests) };
                    let found = run(&mut generator, &batch);
                    for (at, sequence) in found.sequences.iter().enumerate() {
                        assert_eq!(sequence.tokens, text[at..], "{name} {protocol} cut at {at}");
                    }
                }
            }
        }
    }
}
