//! Many requests on several devices, and speed: what `photonc generate` and `photonc bench` do with GPUs.

use crate::emulated::Order;
use crate::fixture::GOLDENS;
use crate::fixture::model::{Model, PROTOCOLS, greedy, run, tokens};
use crate::{backend, cuda_on, device, on_a_gpu};
use photonc::ir::dtype::Dtype;
use photonc::passes::choose_protocol::Protocol;
use photonc::runtime::backend::Backend as _;
use photonc::runtime::decoder::DecoderSetup;
use photonc::runtime::launch::bench::BenchSetting;
use photonc::runtime::launch::device::Device;
use photonc::runtime::launch::replicas::{RowCount, serve_on};
use photonc::runtime::launch::roofline::{Roofline, RooflineSizes};
use photonc::runtime::measure::Regime;
use photonc::runtime::request::{Batch, Finish, Request, RunAhead};
use photonc::runtime::sampler::Sampling;
use photonc::runtime::schedule::{Finished, Limits, Scheduler};
use std::sync::{Arc, Mutex};

/// Request `number` of a mix: prompt, new tokens and sampling all differ from the neighbours'.
fn mixed(model: &Model, protocol: Protocol, number: usize) -> Request {
    let prompts = model.prompts();
    let prompt = prompts[number % prompts.len()].clone();
    let shorter = (number / prompts.len() * model.meta_tokens).min(prompt.len() - model.meta_tokens);
    let sampling = match number % 3 {
        0 => Sampling::greedy(),
        _ => Sampling { temperature: 1.3, top_k: 8, top_p: 0.95, min_p: 0.0, seed: number as u64 },
    };
    let new_tokens = 1 + number * 7 % (5 * model.meta_tokens);
    Request { prompt: prompt[shorter..].to_vec(), sampling, ..greedy(protocol, new_tokens) }
}

/// A request by itself, with the run-ahead of the decoders here.
fn alone(request: Request) -> Batch {
    Batch { run_ahead: RunAhead::MetaContexts(2), ..Batch::new(vec![request]) }
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
            let setup = DecoderSetup { protocol, rows: 3, sequences: 3, capacity: longest + 6, run_ahead: 2 };
            let mut shared = backend(&model, Order::Mixed(5), Dtype::F32);
            let mut decoder = shared.decoder(&program, setup).expect("has one").expect("fits");
            let mut scheduler = Scheduler::new(&mut *decoder, Limits::of(&program));
            for number in 0..9 {
                let request = mixed(&model, protocol, number);
                scheduler.submit(number, request, Box::new(|_| {})).expect("fits");
            }
            let mut finished = scheduler.run().expect("runs");
            assert_eq!(scheduler.totals().admitted, 9);
            finished.sort_by_key(|finished| finished.number);
            assert_eq!(finished.len(), 9);
            for (number, finished) in finished.iter().enumerate() {
                let expected = tokens(&run(&mut generator, &alone(mixed(&model, protocol, number))));
                let found = &finished.result.as_ref().expect("ends").sequences[0];
                assert_eq!(
                    (&found.tokens, found.finish),
                    (&expected[0], Finish::Length),
                    "{name} {protocol} {number}"
                );
            }
        }
    }
}

// Two devices take requests from one queue; each request gets the tokens of running alone.
#[test]
fn replicas_share_a_queue() {
    let model = Model::of("paper");
    let program = model.program();
    let setup = DecoderSetup { protocol: Protocol::Recgen, rows: 1, sequences: 1, capacity: 8, run_ahead: 2 };
    let devices = [device(Order::Mixed(1)), device(Order::Mixed(2))];
    let request = |number: usize| {
        let prompt =
            (0..model.meta_tokens * (1 + number % 3)).map(|at| ((at * 5 + number) % model.vocab_size) as i64);
        Request::greedy(Protocol::Recgen, prompt.collect(), 1 + number * 11 % (3 * model.meta_tokens))
    };
    let load = |device: Arc<dyn Device>| Ok(cuda_on(&model, device, Dtype::F32));
    let rows = RowCount::Fitting { reserve_bytes: 1 << 20, at_most: 2 };
    let finished: Mutex<Vec<Finished>> = Mutex::default();
    let told = |one: Finished| finished.lock().expect("nobody panicked").push(one);
    let requests = (0..7).map(request).collect();
    let replicas =
        serve_on(&devices, &load, &program, setup, rows, requests, (&|_| {}, &told)).expect("serves");
    assert_eq!(replicas.rows, [2, 2]);
    let admitted: usize = replicas.totals.iter().map(|totals| totals.admitted).sum();
    assert_eq!(admitted, 7);
    let mut generator = model.generator(Box::new(backend(&model, Order::Immediate, Dtype::F32)));
    let mut finished = finished.into_inner().expect("nobody panicked");
    finished.sort_by_key(|finished| finished.number);
    assert_eq!(finished.len(), 7);
    for (number, finished) in finished.into_iter().enumerate() {
        assert_eq!(finished.number, number);
        let expected = tokens(&run(&mut generator, &alone(request(number))));
        let found = &finished.result.expect("ends").sequences[0];
        assert_eq!(found.tokens, expected[0], "request {number}");
    }
}

// Device time is that of the emulated device, which the same work always takes; the host's time is only positive.
#[test]
fn a_benchmark_counts_tokens_times_and_memory() {
    let model = Model::of("paper");
    let program = model.program();
    let meta = model.meta_tokens;
    for (protocol, graphs) in [
        (Protocol::Recgen, &["coarse", "encode", "expand"][..]),
        (Protocol::Hiergen, &["decode + reencode", "encode"]),
    ] {
        let bench = || {
            let mut cuda = backend(&model, Order::Immediate, Dtype::F32);
            // 5 meta-contexts in bursts of 2: three bursts, the last of which draws one that nobody asked for.
            let regime = Regime { prompt_tokens: 3 * meta + 1, new_tokens: 5 * meta };
            let rows = RowCount::Fixed(3);
            let setting = BenchSetting { protocol, regime, run_ahead: 2, rows, repetitions: 2 };
            cuda.bench(&program, setting).expect("measures")
        };
        let point = bench();
        assert_eq!((point.setup.rows, point.prompt_meta_contexts, point.new_meta_contexts), (3, 3, 6));
        assert_eq!(point.speeds.len(), 2);
        let speed = point.median().expect("two runs");
        assert_eq!(speed.tokens, 3 * 5 * meta);
        assert!(speed.first_token <= speed.total && speed.steady_tokens_per_s.is_some_and(|rate| rate > 0.0));
        assert_eq!(speed.graphs.keys().collect::<Vec<_>>(), graphs);
        let runs: Vec<u64> = speed.graphs.values().map(|time| time.calls).collect();
        assert_eq!(runs, if protocol == Protocol::Recgen { vec![6, 1, 3] } else { vec![6, 1] });
        if !on_a_gpu() {
            let again = bench().median().map(|again| again.graphs.clone());
            assert_eq!(again, Some(speed.graphs.clone()), "{protocol}");
        }
        assert!(speed.graphs.values().all(|time| !time.total.is_zero()));
    }
}

// By hand: 2 (keys and values) x layers x kv heads x head width x 4 bytes for every entry.
#[test]
fn keys_and_values_are_counted_by_both_definitions() {
    let model = Model::of("paper");
    let checkpoint = crate::fixture::golden_checkpoint("paper");
    let config = &checkpoint.config;
    let entry =
        |stack: &photonc::model::config::StackConfig| 2 * stack.layers * stack.kv_heads * stack.head_dim * 4;
    let (prompt, new) = (3, 4);
    for protocol in [Protocol::Recgen, Protocol::Hiergen] {
        let mut cuda = backend(&model, Order::Immediate, Dtype::F32);
        let setup = DecoderSetup { protocol, rows: 2, sequences: 2, capacity: prompt + new, run_ahead: 2 };
        let machine = cuda.loaded();
        let layout = photonc::runtime::launch::decode::Layout::new(machine, &model.program(), setup)
            .expect("a layout");
        let kv = layout.kv_bytes(machine, &model.program(), [prompt, new]).expect("counts");
        let [low, top] = [&config.levels[0], &config.levels[1]];
        let top_entry = entry(&top.encoder);
        assert_eq!(kv.top, top_entry * (prompt + new), "{protocol}");
        let low_entry = entry(&low.encoder);
        let units = top.chunk_size;
        let persistent = match protocol {
            Protocol::Recgen => kv.top,
            Protocol::Hiergen | Protocol::Windowed | Protocol::Chunkgen => {
                kv.top + low_entry * units * (prompt + new)
            }
        };
        assert_eq!(kv.persistent, persistent, "{protocol}");
        assert!(kv.all() > kv.persistent && kv.windows > 0, "{kv:?}");
        if protocol == Protocol::Recgen {
            assert!(kv.prompt >= low_entry * units * prompt, "{kv:?}");
        }
    }
}

#[test]
fn ceilings_are_measured_by_the_devices_own_clock() {
    let measure = || {
        let device = device(Order::Immediate);
        let sizes = RooflineSizes { bytes: 1 << 16, edge: 64 };
        Roofline::measure(&*device, Dtype::Bf16, sizes).expect("measures")
    };
    let ceilings = measure();
    for rate in [ceilings.copy_bytes_per_s, ceilings.read_bytes_per_s, ceilings.product_flops] {
        assert!(rate > 1e6 && rate.is_finite(), "{ceilings:?}");
    }
    if !on_a_gpu() {
        assert_eq!(ceilings, measure());
        // What the emulated device says of a copy: 1000 ns and one for every 1000 bytes.
        assert!((ceilings.copy_bytes_per_s - 2.0 * 65_536.0 / 1_065e-9).abs() < 1e8, "{ceilings:?}");
    }
}
