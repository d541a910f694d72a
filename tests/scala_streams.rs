//! Decoders that are one stream over all chunks: three levels, some of them streams, random weights. Every protocol against
//! what defines it: the re-encoding one gives the teacher-forced forward, and a program that is split into several loops gives
//! what the whole program gives.

mod fixture;

use fixture::model::run;
use fixture::{Spread, assert_close, golden_checkpoint, random_weights};
use photonc::graph::interp::WeightSource;
use photonc::ir::tensor::Tensor;
use photonc::model::config::ModelConfig;
use photonc::passes::compile::{Compilation, PassOptions, compile_with, specialise};
use photonc::passes::distribute::distribute;
use photonc::program::{Plan, Protocol};
use photonc::runtime::generator::Generator;
use photonc::runtime::plan::Program;
use photonc::runtime::reference::Reference;
use photonc::runtime::request::{Batch, Keep, Request, RunAhead};
use photonc::runtime::sampler::Sampling;
use photonc::runtime::simulated::Simulated;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Windows of the streams of levels 1 to 3: shorter and longer than a chunk's places, and than a meta-context's.
const STREAMS: [[Option<usize>; 3]; 5] = [
    [Some(7), None, None],
    [None, Some(4), None],
    [Some(40), Some(9), None],
    [None, None, Some(11)],
    [Some(3), Some(6), Some(5)],
];

struct Model {
    config: ModelConfig,
    weights: Arc<BTreeMap<String, Tensor>>,
}

impl Model {
    fn of(streams: [Option<usize>; 3], seed: u64) -> Self {
        let mut config = golden_checkpoint("scala_L3_block").config;
        for (level, stream) in config.levels.iter_mut().zip(streams) {
            level.stream = stream;
        }
        let weights = Arc::new(random_weights(&config, seed));
        Model { config, weights }
    }

    fn compiled(&self, protocols: &[Protocol]) -> Compilation {
        compile_with(&self.config, protocols, PassOptions::default()).expect("compiles")
    }

    fn generator(&self, compilation: Compilation) -> Generator {
        let program =
            Program::from_compilation(&compilation, self.config.vocab_size, self.config.meta_tokens(), 1024);
        let weights: Arc<dyn WeightSource> = Arc::clone(&self.weights) as Arc<dyn WeightSource>;
        let backend = Simulated::new(Reference::of_graphs(compilation.graphs, weights));
        Generator::new(program, Box::new(backend))
    }

    /// Prompts around whole meta-contexts.
    fn prompts(&self, spread: &mut Spread) -> Vec<Vec<i64>> {
        let meta = self.config.meta_tokens();
        let lengths = [1, meta - 1, meta, meta + 5, 2 * meta];
        let id = |spread: &mut Spread| spread.below(self.config.vocab_size) as i64;
        lengths.map(|length| (0..length).map(|_| id(spread)).collect()).to_vec()
    }
}

fn requests(model: &Model, protocol: Protocol, prompts: &[Vec<i64>], sampling: Sampling) -> Vec<Request> {
    let keep = Keep { logits: true, ..Keep::default() };
    let length = 2 * model.config.meta_tokens() + 3;
    let request = |prompt: &Vec<i64>| Request {
        keep,
        sampling,
        samples: 2,
        ..Request::greedy(protocol, prompt.clone(), length)
    };
    prompts.iter().map(request).collect()
}

const DRAWN: Sampling = Sampling { temperature: 1.3, top_k: 6, top_p: 0.9, min_p: 0.0, seed: 8 };

// Drawn, forced or given: what re-encoding conditions a token on is what the forward does.
#[test]
fn hiergen_is_the_teacher_forced_forward() {
    for (seed, streams) in STREAMS.into_iter().enumerate() {
        let model = Model::of(streams, seed as u64);
        let mut generator = model.generator(model.compiled(&[Protocol::Hiergen]));
        let prompts = model.prompts(&mut Spread(seed as u64));
        let batch = Batch::new(requests(&model, Protocol::Hiergen, &prompts, DRAWN));
        let generation = run(&mut generator, &batch);
        for sequence in &generation.sequences {
            let prompt = &prompts[sequence.prompt];
            let whole = [&prompt[..], &sequence.tokens].concat();
            let start = prompt.len() / model.config.meta_tokens() * model.config.meta_tokens();
            let (scored, _) = generator.score(std::slice::from_ref(&whole)).expect("scores");
            let expected = &scored[0].logits[start * model.config.vocab_size..];
            let what = format!("{streams:?} prompt of {}", prompt.len());
            assert_close(&what, &sequence.logits[..expected.len()], expected, 1e-9);
        }
    }
}

// The whole program of a step is what it is split of: run as one graph, with nothing running ahead, it draws the same.
#[test]
fn loops_in_order_draw_what_the_whole_program_draws() {
    for (seed, streams) in STREAMS.into_iter().enumerate() {
        let model = Model::of(streams, 100 + seed as u64);
        let split = model.compiled(&[Protocol::Recgen]);
        let Plan::Distributed { certificate, lead, prepare, .. } = &split.plans[&Protocol::Recgen] else {
            panic!("{streams:?} was not distributed")
        };
        assert_eq!(certificate.loops.is_empty(), streams[0].is_none(), "{streams:?}");
        assert_eq!(prepare.is_some(), streams[0].is_none(), "{streams:?}");
        assert_eq!(lead.is_some(), streams[0].is_some(), "{streams:?}");
        assert_eq!(certificate.tainted_coarse_nodes, 0);
        let prompts = model.prompts(&mut Spread(seed as u64));
        let requests = requests(&model, Protocol::Recgen, &prompts, DRAWN);
        let whole = run(&mut model.generator(undistributed(&model)), &Batch::new(requests.clone()));
        let mut generator = model.generator(split);
        for ahead in [RunAhead::MetaContexts(1), RunAhead::MetaContexts(2), RunAhead::All] {
            let found = run(&mut generator, &Batch { run_ahead: ahead, ..Batch::new(requests.clone()) });
            for (found, whole) in found.sequences.iter().zip(&whole.sequences) {
                assert_eq!(found.tokens, whole.tokens, "{streams:?} {ahead:?}");
                assert_eq!(found.logits, whole.logits, "{streams:?} {ahead:?}");
            }
        }
    }
}

/// RecGen as one graph a step: what the compiler makes of a program that it cannot split.
fn undistributed(model: &Model) -> Compilation {
    photonc::passes::compile::compile_whole(&model.config, &[Protocol::Recgen], PassOptions::default())
        .expect("compiles")
}

// What the others summarise by is theirs alone; alone and in a batch they draw the same.
#[test]
fn every_protocol_draws_alone_what_it_draws_in_a_batch() {
    for (seed, streams) in STREAMS.into_iter().enumerate() {
        let model = Model::of(streams, 200 + seed as u64);
        let mut generator = model.generator(model.compiled(&Protocol::ALL));
        let prompts = model.prompts(&mut Spread(seed as u64));
        for protocol in Protocol::ALL {
            let requests = requests(&model, protocol, &prompts, DRAWN);
            let together = run(&mut generator, &Batch::new(requests.clone()));
            for (request, sequences) in requests.into_iter().zip(together.sequences.chunks_exact(2)) {
                let alone = run(&mut generator, &Batch::new(vec![request]));
                for (alone, together) in alone.sequences.iter().zip(sequences) {
                    assert_eq!(alone.tokens, together.tokens, "{streams:?} {protocol}");
                }
            }
        }
    }
}

// No level is named anywhere: the loops are those of the data flow.
#[test]
fn the_certificate_lists_each_loop() {
    let model = Model::of([Some(7), Some(6), None], 3);
    let step = specialise(&model.config, Protocol::Recgen).expect("specialises");
    let parts = distribute(&step, "top_state").expect("distributes");
    let of = |loops: &[photonc::program::Recurrence], level: &str| {
        loops.iter().any(|one| one.delays.iter().any(|delay| delay.starts_with(level)))
    };
    let certificate = &parts.certificate;
    assert!(of(&certificate.recurrences, "level2.decoder") && of(&certificate.recurrences, "top_state"));
    assert!(of(&certificate.loops, "level1.decoder"));
    assert!(!of(&certificate.recurrences, "level1.decoder") && !of(&certificate.loops, "level2"));
}
