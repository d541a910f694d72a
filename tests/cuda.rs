//! The CUDA runtime on every golden: on the emulated device, or, where `PHOTONC_GPU` is set and the feature `cuda` is
//! built, on the GPU of that number. The binary travels: it needs only `tests/golden` below `CARGO_MANIFEST_DIR`.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed test panics")]
#![allow(dead_code, reason = "the emulated device's own tests use all of it")]

#[path = "harness/emulated/mod.rs"]
mod emulated;
mod fixture;

use emulated::build::Text;
use emulated::{Emulated, Options, Order};
use fixture::model::{AHEAD, Model, PROTOCOLS, check_within, golden_request, run, tokens};
use fixture::{GOLDENS, assert_close};
use photonc::graph::interp::WeightSource;
use photonc::ir::attr::Scheme;
use photonc::ir::dtype::Dtype;
use photonc::passes::choose_protocol::Protocol;
use photonc::passes::compile::PassOptions;
use photonc::passes::quantize_weights::Choice;
use photonc::runtime::backend::Backend as _;
use photonc::runtime::cuda::backend::Cuda;
use photonc::runtime::cuda::decode::CudaDecoder;
use photonc::runtime::cuda::device::{Device, Unit};
use photonc::runtime::cuda::kernels::HEADERS;
use photonc::runtime::decoder::{Admission, Decoder as _, DecoderSetup};
use photonc::runtime::request::{Finish, Keep, Request, RunAhead};
use photonc::runtime::sampler::Sampling;
use photonc::runtime::schedule::{Job, Limits, Scheduler};
use std::sync::Arc;

/// The bound for logits and states in f32 on a GPU.
const TOLERANCE_F32: f64 = 2e-3;

fn text(unit: Unit) -> Text {
    Text {
        name: unit.source.name().to_owned(),
        source: unit.source.text().to_owned(),
        headers: HEADERS.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect(),
        macros: unit.macros().expect("a type that kernels have"),
    }
}

fn device(order: Order) -> Arc<dyn Device> {
    #[cfg(feature = "cuda")]
    if let Ok(ordinal) = std::env::var("PHOTONC_GPU") {
        use photonc::runtime::cuda::driver::{Driver, DriverOptions};
        let ordinal = ordinal.parse().expect("a device number");
        return Arc::new(Driver::open(DriverOptions { ordinal, ..DriverOptions::default() }).expect("a GPU"));
    }
    Arc::new(Emulated::new(Options::new(order), Box::new(text)))
}

fn backend(model: &Model, order: Order, dtype: Dtype) -> Cuda {
    let weights: Arc<dyn WeightSource> = Arc::clone(&model.weights) as Arc<dyn WeightSource>;
    Cuda::of_graphs(model.compilation.graphs.clone(), weights, device(order), dtype).expect("loads")
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
                let request = golden_request(&model, protocol, &prompts, ahead);
                let generation = run(&mut generator, &request);
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
                let request =
                    Request { keep: Keep::default(), ..golden_request(&model, protocol, &prompts, ahead) };
                let generation = run(&mut generator, &request);
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
                let request = Request {
                    sampling,
                    samples: 3,
                    run_ahead: RunAhead::MetaContexts(2),
                    ..Request::greedy(protocol, model.prompts(), 4 * model.meta_tokens + 1)
                };
                let (expected, found) =
                    (tokens(&run(&mut reference, &request)), tokens(&run(&mut generator, &request)));
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
        let (scored, _) = generator.score(&model.prompts()).expect("scores");
        for (k, scored) in scored.iter().enumerate() {
            let expected = model.expected.floats(k, "fwd_logits");
            assert_close(&format!("{name} prompt {k}"), &scored.logits, expected, TOLERANCE_F32);
        }
    }
}

#[test]
fn weights_in_few_bits_are_refused_with_their_place() {
    let quantized = vec![Choice { stack: "lm_head".into(), scheme: Scheme::Int8 }];
    let model = Model::compiled("paper", PassOptions { quantized, ..PassOptions::default() });
    let weights: Arc<dyn WeightSource> = Arc::clone(&model.weights) as Arc<dyn WeightSource>;
    let error = Cuda::of_graphs(model.compilation.graphs, weights, device(Order::Immediate), Dtype::F32)
        .err()
        .expect("refused")
        .to_string();
    assert!(error.contains("lm_head: weight `") && error.contains("export without --quant"), "{error}");
}

/// Request `number` of a mix: prompt, new tokens and sampling all differ from the neighbours'.
fn mixed(model: &Model, number: usize) -> (Vec<i64>, usize, Sampling) {
    let prompts = model.prompts();
    let prompt = prompts[number % prompts.len()].clone();
    let shorter = (number / prompts.len() * model.meta_tokens).min(prompt.len() - model.meta_tokens);
    let sampling = match number % 3 {
        0 => Sampling::greedy(),
        _ => Sampling { temperature: 1.3, top_k: 8, top_p: 0.95, min_p: 0.0, seed: number as u64 },
    };
    (prompt[shorter..].to_vec(), 1 + number * 7 % (5 * model.meta_tokens), sampling)
}

// Three rows serve nine requests; each gets the tokens that the generator gives it alone, work as late and mixed as may be.
#[test]
fn requests_that_share_rows_get_the_tokens_of_running_alone() {
    for name in GOLDENS {
        let model = Model::of(name);
        let mut generator = model.generator(Box::new(backend(&model, Order::Immediate, Dtype::F32)));
        let program = generator.program().clone();
        let longest = model.prompts().iter().map(Vec::len).max().unwrap_or(0) / model.meta_tokens;
        for protocol in PROTOCOLS {
            let setup = DecoderSetup { protocol, rows: 3, samples: 1, capacity: longest + 6, run_ahead: 2 };
            let mut shared = backend(&model, Order::Mixed(5), Dtype::F32);
            let mut decoder = shared.decoder(&program, setup).expect("has one").expect("fits");
            let mut scheduler = Scheduler::new(&mut *decoder, Limits::of(&program));
            for number in 0..9 {
                let (prompt, new_tokens, sampling) = mixed(&model, number);
                scheduler.submit(number, Job { sampling, ..Job::greedy(prompt, new_tokens) }).expect("fits");
            }
            let mut finished = scheduler.run().expect("runs");
            assert_eq!(scheduler.totals().admitted, 9);
            finished.sort_by_key(|finished| finished.number);
            assert_eq!(finished.len(), 9);
            for (number, finished) in finished.iter().enumerate() {
                let (prompt, new_tokens, sampling) = mixed(&model, number);
                let request = Request {
                    sampling,
                    run_ahead: RunAhead::MetaContexts(2),
                    ..Request::greedy(protocol, vec![prompt], new_tokens)
                };
                let expected = tokens(&run(&mut generator, &request));
                let found = &finished.result.as_ref().expect("ends")[0];
                assert_eq!(
                    (&found.tokens, found.finish),
                    (&expected[0], Finish::Length),
                    "{name} {protocol} {number}"
                );
            }
        }
    }
}

// From prefill to the last token, only the tokens themselves go to the host, and nothing comes from it.
#[test]
fn only_tokens_cross_to_the_host() {
    let model = Model::of("paper");
    let device = Arc::new(Emulated::new(Options::new(Order::Immediate), Box::new(text)));
    let weights: Arc<dyn WeightSource> = Arc::clone(&model.weights) as Arc<dyn WeightSource>;
    let shared: Arc<dyn Device> = Arc::clone(&device) as Arc<dyn Device>;
    let mut cuda =
        Cuda::of_graphs(model.compilation.graphs.clone(), weights, shared, Dtype::F32).expect("loads");
    let setup = DecoderSetup { protocol: Protocol::Recgen, rows: 2, samples: 2, capacity: 40, run_ahead: 3 };
    let mut decoder = CudaDecoder::new(cuda.machine(), &model.program(), setup).expect("a decoder");
    let prompt = model.expected.ints(0, "prompt_aligned");
    let sampling = Sampling::greedy();
    let admission = |row: usize| Admission { row, tokens: prompt, sampling: &sampling, first_sample: 0 };
    decoder.admit(&[admission(0), admission(1)]).expect("admits");
    // The first burst uploads the rows' parameters.
    decoder.start().expect("starts");
    decoder.collect().expect("collects");
    device.take_traffic();
    let bursts = 3;
    for _ in 0..bursts {
        decoder.start().expect("starts");
        decoder.collect().expect("collects");
    }
    let traffic = device.take_traffic();
    assert_eq!(traffic.written_bytes, 0);
    assert_eq!(traffic.read_bytes, bursts * 4 * 3 * model.meta_tokens * size_of::<i64>());
}
