//! One matrix over every backend through the one scheduler: prompts of any length, every way to draw, everything a request
//! may ask for, requests that come late, end early or go on, side by side in few rows.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed test panics")]

#[path = "../harness/emulated/mod.rs"]
mod emulated;
#[path = "../fixture/mod.rs"]
mod fixture;

mod check;
mod mixture;
mod prefill;
mod served;

use check::{agrees, check_alone, check_ended, check_heard, check_scores, check_wishes};
use emulated::{Emulated, Options, Order, program_text};
use fixture::bundled::Golden;
use fixture::golden_checkpoint;
use fixture::model::Model;
use mixture::{Case, EndedBy, Sizes, mixture, recorded};
use photonc::graph::interp::WeightSource;
use photonc::ir::dtype::Dtype;
use photonc::runtime::generator::Generator;
use photonc::runtime::launch::backend::LaunchBackend;
use photonc::runtime::launch::device::Device;
use photonc::runtime::reference::Reference;
use photonc::runtime::request::Request;
use photonc::runtime::simulated::Simulated;
use photonc::runtime::tract::Tract;
use served::{Open, Outcome, alone, together};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};

const SEED: u64 = 16;
/// Requests of a mixture.
const COUNT: usize = 40;

fn sizes(name: &str) -> Sizes {
    let config = golden_checkpoint(name).config;
    Sizes {
        meta_tokens: config.meta_tokens(),
        chunk: config.levels[0].chunk_size,
        vocab_size: config.vocab_size,
    }
}

/// A backend, and how it is used.
struct Served<'s> {
    name: &'s str,
    open: &'s Open<'s>,
    sizes: Sizes,
    /// Rows and sequences of each replica.
    shapes: &'s [[usize; 2]],
    /// Runs graph by graph even where it has a decoder of its own.
    graphs: bool,
    /// Meta-contexts of a burst of a request alone.
    run_ahead: usize,
    /// How far its log-probabilities and logits may be from those of the request alone: products of other numbers of rows
    /// round otherwise in some backends. Tokens are the same.
    beside: f64,
}

/// What the reference gives, and how far from it log-probabilities may be.
struct Judge {
    reference: Generator,
    tolerance: f64,
    /// Whether the backend must draw what the reference draws, always.
    exact: bool,
}

/// Runs the mixture together and each request alone, and compares.
fn check(served: &Served<'_>, judge: &mut Judge, mut cases: Vec<Case>) {
    let Served { sizes, graphs, run_ahead, beside, .. } = *served;
    let mut generator = (served.open)();
    let resumed = cases.iter_mut().filter(|case| case.resumes);
    let rests: Vec<Vec<i64>> = resumed.map(|case| cut(served, &mut generator, case)).collect();
    let outcomes = together(served.open, &cases, served.shapes, graphs);
    assert_eq!(outcomes.len(), cases.len());
    let (mut rests, mut same, mut finishes) = (rests.into_iter(), 0, Vec::new());
    for (number, (case, outcome)) in cases.iter().zip(&outcomes).enumerate() {
        let compared = catch_unwind(AssertUnwindSafe(|| {
            check_heard(outcome);
            if !matches!(case.ended_by, EndedBy::Nothing | EndedBy::CancelRunning) {
                check_ended(case, outcome.completion());
                return true;
            }
            let own = alone(&mut generator, &case.request, run_ahead, graphs);
            check_alone(case, outcome.completion(), &own, beside);
            check_wishes(&case.request, &own, sizes);
            check_scores(&mut generator, &case.request, outcome.completion(), sizes);
            if case.resumes {
                assert_eq!(Some(&own.sequences[0].tokens), rests.next().as_ref(), "an undisturbed run");
            }
            let reference = alone(&mut judge.reference, &case.request, 1, false);
            let agrees = agrees(&own, &reference, judge.tolerance);
            assert!(agrees || !judge.exact, "the reference gives {reference:?}");
            agrees
        }));
        match compared {
            Ok(agrees) => same += usize::from(agrees),
            Err(panic) => {
                let found = outcome.ends.iter().map(|end| end.result.as_ref().map(|done| &done.sequences));
                let mut told = format!("{} request {number}: {case:?}\n", served.name);
                for found in found {
                    let found =
                        found.map(|all| all.iter().map(|one| (&one.tokens, one.finish)).collect::<Vec<_>>());
                    told += &format!("gave {found:?}\n");
                }
                std::io::Write::write_all(&mut std::io::stderr(), told.as_bytes()).expect("writes");
                resume_unwind(panic);
            }
        }
        finishes.extend(outcome.completion().sequences.iter().map(|sequence| sequence.finish.name()));
    }
    // Rounding turns a draw now and then, and what follows is another text.
    assert!(same * 10 >= cases.len() * 9, "{}: {same} of {} agree", served.name, cases.len());
    let finishes_by = ["length", "cancelled", "deadline", "stop", "eos"];
    // A small mixture need not have every end.
    for finish in &finishes_by[..if cases.len() == COUNT { 5 } else { 3 }] {
        assert!(finishes.contains(finish), "{}: none ends by {finish}", served.name);
    }
    check_priorities(&cases, &outcomes);
    prefill::check_equal_prompts(served);
}

/// Makes a request of one that goes on from the middle of what it gives alone; the rest of that.
fn cut(served: &Served<'_>, generator: &mut Generator, case: &mut Case) -> Vec<i64> {
    let Request { prompt, forced, max_new_tokens, .. } = case.request.clone();
    let mut whole = alone(generator, &case.request, served.run_ahead, served.graphs);
    let mut text = whole.sequences.remove(0).tokens;
    // Past the meta-context that the prompt begins, where the text is long enough.
    let at = text.len() * 2 / 3;
    let rest = text.split_off(at);
    case.request = Request {
        prompt_length: Some(prompt.len()),
        prompt: [prompt, text].concat(),
        forced: forced.get(at..).unwrap_or(&[]).to_vec(),
        max_new_tokens: max_new_tokens - at,
        ..case.request.clone()
    };
    rest
}

/// Of what was there from the start, all of the highest priority is heard before the last of the others is.
fn check_priorities(cases: &[Case], outcomes: &[Outcome]) {
    let first_half = cases.iter().zip(outcomes).take(cases.len() / 2);
    let runs = first_half.filter(|(case, outcome)| {
        case.ended_by == EndedBy::Nothing && !case.resumes && outcome.first_heard.is_some()
    });
    let heard = |high: bool| {
        let of = runs.clone().filter(move |(case, _)| (case.request.priority > 0) == high);
        of.filter_map(|(_, outcome)| outcome.first_heard)
    };
    let (last_high, last_low) = (heard(true).max(), heard(false).max());
    assert!(last_high < last_low, "{last_high:?} before {last_low:?}");
}

#[test]
fn the_reference_serves_a_mixture() {
    for name in ["paper", "lopsided"] {
        let model = Model::of(name);
        let open = || model.generator(Box::new(model.reference()));
        let sizes = sizes(name);
        let served = Served {
            name,
            open: &open,
            sizes,
            shapes: &[[3, 5], [2, 2]],
            graphs: true,
            run_ahead: 1,
            beside: 0.0,
        };
        let mut judge = Judge { reference: open(), tolerance: 0.0, exact: true };
        check(&served, &mut judge, mixture(sizes, SEED, COUNT));
    }
}

#[test]
fn a_device_that_refuses_host_reads_serves_a_mixture() {
    let name = "paper";
    let model = Model::of(name);
    let meters = Mutex::new(Vec::new());
    let open = || {
        let device = Simulated::new(model.reference());
        meters.lock().unwrap().push(device.meter());
        model.generator(Box::new(device))
    };
    let sizes = sizes(name);
    let served =
        Served { name, open: &open, sizes, shapes: &[[4, 6]], graphs: true, run_ahead: 3, beside: 0.0 };
    let reference = model.generator(Box::new(model.reference()));
    let mut judge = Judge { reference, tolerance: 0.0, exact: true };
    check(&served, &mut judge, mixture(sizes, SEED, COUNT));
    for meter in meters.lock().unwrap().iter() {
        assert_eq!(meter.traffic().live_buffers, 0, "leaks");
    }
}

/// A backend of bundles beside the reference.
fn check_bundled(name: &str, golden: &Golden, open: &Open<'_>) {
    let sizes = sizes(&golden.name);
    let tolerance = golden.logit_tolerance(golden.expected.floats(0, "recgen_logits"));
    let served =
        Served { name, open, sizes, shapes: &[[3, 5]], graphs: true, run_ahead: 1, beside: tolerance };
    // A log-probability is a difference of two values of which each may be off.
    let reference = golden.generator(Box::new(Reference::of_bundle(golden.bundle.clone())));
    let mut judge = Judge { reference, tolerance: 2.0 * tolerance, exact: false };
    check(&served, &mut judge, mixture(sizes, SEED, COUNT));
}

#[test]
fn tract_serves_a_mixture() {
    let golden = Golden::of("paper");
    let open = || golden.generator(Box::new(Tract::of_bundle(golden.bundle.clone())));
    check_bundled("tract", &golden, &open);
}

#[cfg(feature = "ort")]
#[test]
fn onnx_runtime_serves_a_mixture() {
    use fixture::onnx_runtime::options;
    use photonc::runtime::ort::Ort;
    let golden = Golden::of("paper");
    let open = || {
        let ort = Ort::of_bundle(golden.bundle.clone(), &options()).expect("the library loads");
        golden.generator(Box::new(ort))
    };
    check_bundled("ort", &golden, &open);
}

/// Some requests on the emulated device: recorded, or graph by graph.
fn check_emulated(order: u64, graphs: bool, cases: impl Fn(Vec<Case>) -> Vec<Case>) {
    let name = "paper";
    let model = Model::of(name);
    let device: Arc<dyn Device> =
        Arc::new(Emulated::new(Options::new(Order::Mixed(order)), Box::new(program_text)));
    let open = || {
        let weights: Arc<dyn WeightSource> = Arc::clone(&model.weights) as Arc<dyn WeightSource>;
        let graphs = model.compilation.graphs.clone();
        model.generator(Box::new(
            LaunchBackend::of_graphs(graphs, weights, Arc::clone(&device), Dtype::F32).unwrap(),
        ))
    };
    let sizes = sizes(name);
    let served = Served {
        name: "emulated",
        open: &open,
        sizes,
        shapes: &[[2, 4]],
        graphs,
        run_ahead: 2,
        beside: 2e-3,
    };
    let reference = model.generator(Box::new(model.reference()));
    let mut judge = Judge { reference, tolerance: 2e-3, exact: false };
    check(&served, &mut judge, cases(mixture(sizes, SEED, 10)));
}

#[test]
fn the_emulated_device_serves_a_mixture() {
    check_emulated(4, false, recorded);
}

#[test]
fn the_emulated_device_serves_a_mixture_graph_by_graph() {
    check_emulated(5, true, |cases| cases);
}
