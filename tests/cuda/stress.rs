//! Random requests in a row: lengths, samplings and cancellations mixed, rows given from one to the next. Memory stays as it
//! is, and requests picked at random have the tokens of running alone. On the emulated device a few requests of a golden; on a
//! GPU for `PHOTONC_STRESS_SECONDS` the bundle `PHOTONC_STRESS_BUNDLE`, `PHOTONC_STRESS_ROWS` prompts at once.

use crate::emulated::Order;
use crate::fixture::Spread;
use crate::fixture::model::Model;
use crate::{backend, device};
use photonc::bundle::Bundle;
use photonc::ir::dtype::Dtype;
use photonc::passes::choose_protocol::Protocol;
use photonc::runtime::cuda::backend::Cuda;
use photonc::runtime::cuda::decode::CudaDecoder;
use photonc::runtime::decoder::DecoderSetup;
use photonc::runtime::plan::Program;
use photonc::runtime::request::{Cancel, Finish};
use photonc::runtime::sampler::Sampling;
use photonc::runtime::schedule::{Job, Limits, Scheduler};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes that kernels of products of new sizes may take after the first half.
const LOADED_LATER_BYTES: usize = 16 << 20;

/// A request, made from its number alone.
struct Asked {
    prompt: Vec<i64>,
    new_tokens: usize,
    sampling: Sampling,
    /// Bursts until it cancels itself.
    cancel_after: Option<usize>,
}

/// How long and how large.
struct Load {
    requests: usize,
    seconds: Duration,
    setup: DecoderSetup,
    /// Requests that are run again alone.
    checked: usize,
}

fn asked(number: usize, program: &Program, setup: DecoderSetup) -> Asked {
    let mut spread = Spread(0xa5 ^ (number as u64) << 8);
    let meta = program.meta_tokens;
    let most = setup.capacity - setup.run_ahead;
    let prompt_meta = 1 + spread.below(most - 1);
    let room = (setup.capacity - prompt_meta) / setup.run_ahead * setup.run_ahead;
    let new_tokens = 1 + spread.below(room * meta);
    let extra = spread.below(meta);
    let prompt = (0..prompt_meta * meta + extra).map(|_| spread.below(program.vocab_size) as i64).collect();
    let sampling = match spread.below(3) {
        0 => Sampling::greedy(),
        1 => Sampling { temperature: 0.8, top_k: 40, top_p: 0.9, min_p: 0.0, seed: number as u64 },
        _ => Sampling { temperature: 1.2, top_k: 0, top_p: 1.0, min_p: 0.02, seed: number as u64 },
    };
    let cancel_after = (spread.below(4) == 0).then(|| spread.below(2));
    Asked { prompt, new_tokens, sampling, cancel_after }
}

fn job(asked: &Asked) -> Job<'static> {
    let cancel = Cancel::default();
    let own = cancel.clone();
    let mut bursts = 0;
    let after = asked.cancel_after;
    Job {
        sampling: asked.sampling,
        cancel,
        on_burst: Box::new(move |_| {
            bursts += 1;
            if after.is_some_and(|after| bursts > after) {
                own.cancel();
            }
        }),
        ..Job::greedy(asked.prompt.clone(), asked.new_tokens)
    }
}

/// Tokens of requests in a decoder of this shape, one request after the other.
fn alone(
    cuda: &mut Cuda,
    program: &Program,
    setup: DecoderSetup,
    numbers: &[usize],
) -> BTreeMap<usize, Vec<i64>> {
    let mut decoder = CudaDecoder::new(cuda.machine(), program, setup).expect("a decoder");
    let mut scheduler = Scheduler::new(&mut decoder, Limits::of(program));
    let mut found = BTreeMap::new();
    for number in numbers {
        let asked = Asked { cancel_after: None, ..asked(*number, program, setup) };
        scheduler.submit(*number, job(&asked)).expect("fits");
        for finished in scheduler.run().expect("runs") {
            found.insert(finished.number, finished.result.expect("ends").remove(0).tokens);
        }
    }
    found
}

#[test]
fn random_requests_leave_memory_flat_and_rows_right() {
    let number = |name: &str, otherwise: usize| {
        std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
    };
    let seconds = Duration::from_secs(number("PHOTONC_STRESS_SECONDS", 3600) as u64);
    let protocol = Protocol::Recgen;
    match std::env::var_os("PHOTONC_STRESS_BUNDLE") {
        Some(path) => {
            let bundle = Bundle::open(Path::new(&path)).expect("opens");
            let program = Program::from_bundle(&bundle).expect("a program");
            let stored =
                bundle.manifest().weights.values().find_map(|weight| Dtype::from_name(&weight.dtype));
            let dtype = stored.expect("a type");
            let mut cuda = Cuda::of_bundle(bundle, device(Order::Immediate), dtype).expect("loads");
            let rows = number("PHOTONC_STRESS_ROWS", 512);
            let capacity = program.max_tokens.min(1024) / program.meta_tokens;
            let setup = DecoderSetup { protocol, rows, samples: 1, capacity, run_ahead: 4 };
            stress(&mut cuda, &program, dtype, &Load { requests: usize::MAX, seconds, setup, checked: 32 });
        }
        None => {
            let model = Model::of("paper");
            let mut cuda = backend(&model, Order::Mixed(17), Dtype::F32);
            let setup = DecoderSetup { protocol, rows: 3, samples: 1, capacity: 9, run_ahead: 1 };
            let load = Load { requests: 16, seconds, setup, checked: 6 };
            stress(&mut cuda, &model.program(), Dtype::F32, &load);
        }
    }
}

fn stress(cuda: &mut Cuda, program: &Program, dtype: Dtype, load: &Load) {
    let device = std::sync::Arc::clone(&cuda.machine().device);
    let mut decoder = CudaDecoder::new(cuda.machine(), program, load.setup).expect("a decoder");
    let after_start = device.free_bytes().expect("is known");
    let mut scheduler = Scheduler::new(&mut decoder, Limits::of(program));
    let began = Instant::now();
    let (mut submitted, mut cancelled, mut at_half) = (0, 0, None);
    let mut kept: BTreeMap<usize, Vec<i64>> = BTreeMap::new();
    loop {
        while scheduler.waiting() <= scheduler.free_rows()
            && submitted < load.requests
            && began.elapsed() < load.seconds
        {
            scheduler.submit(submitted, job(&asked(submitted, program, load.setup))).expect("fits");
            submitted += 1;
        }
        let more = scheduler.turn().expect("goes on");
        for finished in scheduler.take_finished() {
            let sequence = finished.result.expect("ends").remove(0);
            let asked = asked(finished.number, program, load.setup);
            match sequence.finish {
                Finish::Length => assert_eq!(sequence.tokens.len(), asked.new_tokens, "{}", finished.number),
                Finish::Cancelled if asked.cancel_after.is_some() => cancelled += 1,
                other => panic!("request {} ended by {other:?}", finished.number),
            }
            // Every length of interval is as likely to be looked into: keep a spread of the whole run.
            kept.insert(finished.number, sequence.tokens);
            if kept.len() > 4 * load.checked.max(1) {
                let thinned: Vec<usize> = kept.keys().copied().skip(1).step_by(2).collect();
                thinned.iter().for_each(|number| drop(kept.remove(number)));
            }
        }
        let half = began.elapsed() * 2 > load.seconds || 2 * submitted > load.requests;
        if half && at_half.is_none() {
            at_half = Some(device.free_bytes().expect("is known"));
        }
        if !more {
            break;
        }
    }
    let totals = scheduler.totals();
    let at_end = device.free_bytes().expect("is known");
    drop(scheduler);
    drop(decoder);
    let seconds = began.elapsed().as_secs_f64();
    let emulated = device.properties().name == "emulated";
    let later = at_half.expect("half was reached").saturating_sub(at_end);
    assert!(later <= if emulated { 0 } else { LOADED_LATER_BYTES }, "{later} bytes went in the second half");
    assert!(!emulated || after_start == at_end, "{after_start} bytes were free, now {at_end}");
    assert!(cancelled > 0 && totals.admitted > load.setup.rows, "{totals:?}, {cancelled} cancelled");

    let greedy = |number: &usize| asked(*number, program, load.setup).sampling == Sampling::greedy();
    let comparable =
        kept.iter().filter(|(number, tokens)| dtype == Dtype::F32 || (greedy(number) && !tokens.is_empty()));
    let numbers: Vec<usize> = comparable.map(|(number, _)| *number).take(load.checked).collect();
    let same_shape = alone(cuda, program, load.setup, &numbers);
    let one_row = alone(cuda, program, DecoderSetup { rows: 1, ..load.setup }, &numbers);
    let (mut equal, mut compared, mut wrong) = (0, 0, Vec::new());
    for number in &numbers {
        let found = &kept[number];
        for (alone, what) in
            [(&same_shape[number], "alone in this decoder"), (&one_row[number], "at batch 1")]
        {
            if dtype == Dtype::F32 {
                assert_eq!(found[..], alone[..found.len()], "request {number}, {what}");
            }
            // Other kernels serve other numbers of rows and prompts: in short types near ties fall either way, and a draw from
            // 32 000 nearly equal chances always does. A wrong row would agree in hardly any token.
            let same = found.iter().zip(alone).filter(|(a, b)| a == b).count();
            let first = found.iter().zip(alone).take_while(|(a, b)| a == b).count();
            (equal, compared) = (equal + same, compared + found.len());
            if 2 * same <= found.len() {
                let all = found.len();
                wrong.push(format!(
                    "request {number}, {what}: {same} of {all} tokens, the first {first} in a row"
                ));
            }
        }
    }
    let told = json!({
        "requests": totals.admitted,
        "cancelled": cancelled,
        "tokens": totals.tokens,
        "wasted_tokens": totals.wasted_tokens,
        "tokens_per_second": totals.tokens as f64 / seconds,
        "rows_checked_alone": numbers.len(),
        "greedy_tokens_equal_alone": format!("{equal} of {compared}"),
        "wrong": &wrong,
        "free_mib": {"start": after_start >> 20, "half": at_half.map(|bytes| bytes >> 20), "end": at_end >> 20},
    });
    println!("{told}");
    assert!(!numbers.is_empty(), "no request was kept that can be compared");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
