//! Random requests in a row: lengths, samplings and cancellations mixed, rows given from one to the next. Memory stays as it
//! is; what was admitted together has the same tokens, to the last one, when it is admitted again and nothing else goes on;
//! requests picked at random begin as they do alone, which prompts encoded together have to. On the emulated device a few
//! requests of a golden; on a GPU for `PHOTONC_STRESS_SECONDS` the bundle `PHOTONC_STRESS_BUNDLE` in the type
//! `PHOTONC_STRESS_DTYPE` (that of its weights), `PHOTONC_STRESS_ROWS` prompts at once.

mod agreement;
mod groups;
mod requests;

use crate::emulated::Order;
use crate::fixture::model::Model;
use crate::{backend, device};
use agreement::{Agreement, Share};
use groups::{Groups, Watched};
use photonc::bundle::Bundle;
use photonc::ir::dtype::Dtype;
use photonc::passes::choose_protocol::Protocol;
use photonc::runtime::decoder::{Decoder, DecoderSetup};
use photonc::runtime::launch::backend::LaunchBackend;
use photonc::runtime::launch::decode::RecordedDecoder;
use photonc::runtime::plan::Program;
use photonc::runtime::request::Finish;
use photonc::runtime::schedule::{Limits, Scheduler, Totals};
use requests::{Asked, alone};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Bytes that kernels of products of new sizes may take after the first half.
const LOADED_LATER_BYTES: usize = 16 << 20;

/// Two runs alone, in decoders of other shapes, show how far rounding takes texts apart in the first burst. Prompts that are
/// encoded with others are rounded differently besides: 0.91 of that agreement is left in bf16.
const LEAST_OF_ROUNDING: f64 = 0.8;

/// How long and how large.
struct Load {
    requests: usize,
    seconds: Duration,
    setup: DecoderSetup,
    /// Admissions that are run again, from half of these to all.
    groups: usize,
    /// Requests that are run again alone.
    alone: usize,
}

/// What came of it.
struct Run {
    totals: Totals,
    cancelled: usize,
    seconds: f64,
    /// Bytes free at the start, at half and at the end.
    free: [usize; 3],
    groups: Rc<RefCell<Groups>>,
    /// Tokens of the requests in `groups`.
    kept: BTreeMap<usize, Vec<i64>>,
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
            let named = std::env::var("PHOTONC_STRESS_DTYPE").ok();
            let mut names =
                named.iter().chain(bundle.manifest().weights.values().map(|weight| &weight.dtype));
            let dtype = names.find_map(|name| Dtype::from_name(name)).expect("a type");
            let mut cuda = LaunchBackend::of_bundle(bundle, device(Order::Immediate), dtype).expect("loads");
            let rows = number("PHOTONC_STRESS_ROWS", 512);
            let capacity = program.max_tokens.min(1024) / program.meta_tokens;
            let setup = DecoderSetup { protocol, rows, sequences: rows, capacity, run_ahead: 4 };
            let load = Load { requests: usize::MAX, seconds, setup, groups: 16, alone: 48 };
            stress(&mut cuda, &program, dtype, &load);
        }
        None => {
            let model = Model::of("paper");
            let mut cuda = backend(&model, Order::Mixed(17), Dtype::F32);
            let setup = DecoderSetup { protocol, rows: 3, sequences: 3, capacity: 9, run_ahead: 1 };
            let load = Load { requests: 16, seconds, setup, groups: 16, alone: 6 };
            stress(&mut cuda, &model.program(), Dtype::F32, &load);
        }
    }
}

fn stress(cuda: &mut LaunchBackend, program: &Program, dtype: Dtype, load: &Load) {
    let emulated = cuda.loaded().device.properties().name == "emulated";
    let run = run(cuda, program, load);
    let mut faults = faults_of_memory(&run, load, emulated);
    let mut decoder = RecordedDecoder::new(cuda.loaded(), program, load.setup).expect("a decoder");
    let (together, mut wrong) = admitted_again(&run, &mut decoder, program);
    faults.append(&mut wrong);

    // A draw from 32 000 nearly equal chances differs with every rounding, and kernels differ with the number of rows; on a
    // GPU draws are compared above, by the same kernels.
    let burst = load.setup.run_ahead * program.meta_tokens;
    let comparable = |number: usize, tokens: &[i64]| {
        tokens.len() >= burst && (emulated || Asked::of(number, program, load.setup).is_greedy())
    };
    let kept = run.kept.iter().map(|(number, tokens)| (*number, tokens.as_slice()));
    let all: Vec<usize> =
        kept.filter(|(number, tokens)| comparable(*number, tokens)).map(|(number, _)| number).collect();
    let numbers: Vec<usize> = all.iter().copied().step_by(all.len().div_ceil(load.alone).max(1)).collect();
    if numbers.is_empty() {
        faults.push("no request was kept that can be compared".to_owned());
    }
    let same_shape = alone(&mut decoder, program, load.setup, &numbers);
    drop(decoder);
    let one_row = DecoderSetup { rows: 1, sequences: 1, ..load.setup };
    let mut decoder = RecordedDecoder::new(cuda.loaded(), program, one_row).expect("a decoder");
    let one_row = alone(&mut decoder, program, one_row, &numbers);
    let mut pooled = [Agreement::default(), Agreement::default(), Agreement::default()];
    for number in &numbers {
        let (found, same, one) = (&run.kept[number], &same_shape[number], &one_row[number]);
        let pairs = [(found, same), (found, one), (same, one)]
            .map(|(a, b)| Agreement::of(&a[..found.len()], b, load.setup, program.meta_tokens));
        pooled.iter_mut().zip(&pairs).for_each(|(into, from)| *into += from);
        println!("{}", told_of(&pairs, json!({"request": number, "tokens": found.len()})));
        for (pair, what) in pairs.iter().zip(["alone in this decoder", "at batch 1"]) {
            if !is_as_alone(pair, dtype, emulated) {
                faults.push(format!("request {number}, {what}: {}", pair.told()));
            }
        }
    }
    for pair in &pooled[..2] {
        if pair.first_burst.percent() < LEAST_OF_ROUNDING * pooled[2].first_burst.percent() {
            faults.push(format!("{} where rounding leaves {}", pair.told(), pooled[2].told()));
        }
    }
    let told = json!({
        "dtype": dtype.name(),
        "requests": run.totals.admitted,
        "cancelled": run.cancelled,
        "tokens": run.totals.tokens,
        "wasted_tokens": run.totals.wasted_tokens,
        "tokens_per_second": run.totals.tokens as f64 / run.seconds,
        "free_mib": run.free.map(|bytes| bytes >> 20),
        "admitted_again": together,
        "rows_checked_alone": numbers.len(),
        "alone": told_of(&pooled, json!({})),
        "faults": &faults,
    });
    println!("{told}");
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Whether a greedy request among others agrees with itself alone as far as rounding lets it. Where other kernels serve
/// other numbers of rows and prompts, the coarse recurrence multiplies what they round differently, and tokens do not lead
/// it back: every text ends as another one, later in f32 than in short types. So beginnings are compared. A wrong row would
/// agree in hardly any token of 32 000.
fn is_as_alone(pair: &Agreement, dtype: Dtype, emulated: bool) -> bool {
    let Share { equal, compared } = pair.first_burst;
    if emulated {
        pair.whole.differ() == 0
    } else if dtype == Dtype::F32 {
        // One near tie takes the rest of its chunk along.
        16 * (compared - equal) <= compared
    } else {
        // Between two runs that nothing disturbed, in bf16: 45 % where it is worst, 76 % on average.
        4 * equal >= compared
    }
}

fn told_of(pairs: &[Agreement; 3], mut told: Value) -> Value {
    for (pair, name) in pairs.iter().zip(["with_same_shape", "with_one_row", "same_shape_with_one_row"]) {
        told[name] = pair.told();
    }
    told
}

/// Submits requests as long as it is time, keeps the tokens of some.
fn run(cuda: &mut LaunchBackend, program: &Program, load: &Load) -> Run {
    let device = std::sync::Arc::clone(&cuda.loaded().device);
    let mut decoder = RecordedDecoder::new(cuda.loaded(), program, load.setup).expect("a decoder");
    let after_start = device.free_bytes().expect("is known");
    let groups = Groups::new(load.groups);
    let mut watched = Watched { decoder: &mut decoder, groups: Rc::clone(&groups) };
    let mut scheduler = Scheduler::new(&mut watched, Limits::of(program));
    let began = Instant::now();
    let (mut submitted, mut cancelled, mut at_half) = (0, 0, None);
    let mut kept: BTreeMap<usize, Vec<i64>> = BTreeMap::new();
    loop {
        while scheduler.waiting() <= scheduler.free_rows()
            && submitted < load.requests
            && began.elapsed() < load.seconds
        {
            let asked = Asked::of(submitted, program, load.setup);
            let (request, sink) = asked.request(load.setup.protocol);
            scheduler.submit(submitted, request, sink).expect("fits");
            submitted += 1;
        }
        let more = scheduler.turn().expect("goes on");
        for finished in scheduler.take_finished() {
            let sequence = finished.result.expect("ends").sequences.remove(0);
            let asked = Asked::of(finished.number, program, load.setup);
            match sequence.finish {
                Finish::Length => assert_eq!(sequence.tokens.len(), asked.new_tokens, "{}", finished.number),
                Finish::Cancelled if asked.cancel_after.is_some() => cancelled += 1,
                other => panic!("request {} ended by {other:?}", finished.number),
            }
            if groups.borrow().keep(finished.number) {
                kept.insert(finished.number, sequence.tokens);
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
    kept.retain(|number, _| groups.borrow().keep(*number));
    let free = [after_start, at_half.expect("half was reached"), at_end];
    Run { totals, cancelled, seconds: began.elapsed().as_secs_f64(), free, groups, kept }
}

fn faults_of_memory(run: &Run, load: &Load, emulated: bool) -> Vec<String> {
    let [start, half, end] = run.free;
    let later = half.saturating_sub(end);
    let mut faults = Vec::new();
    if later > if emulated { 0 } else { LOADED_LATER_BYTES } {
        faults.push(format!("{later} bytes went in the second half"));
    }
    if emulated && start != end {
        faults.push(format!("{start} bytes were free, now {end}"));
    }
    if run.cancelled == 0 || run.totals.admitted <= load.setup.rows {
        faults.push(format!("too few requests: {:?}, {} cancelled", run.totals, run.cancelled));
    }
    faults
}

/// Admits what was admitted together once more, alone: what is told, and the requests that differ.
fn admitted_again(run: &Run, decoder: &mut RecordedDecoder<'_>, program: &Program) -> (Value, Vec<String>) {
    let (mut faults, mut requests, mut tokens) = (Vec::new(), 0, Share::default());
    let groups = run.groups.borrow();
    for (first, group) in groups.kept() {
        for (number, again) in group.again(first, decoder, program) {
            let found = &run.kept[&number];
            let share = Share::of(found, &again);
            requests += 1;
            tokens += share;
            if share.differ() > 0 {
                let told = Agreement::of(found, &again, decoder.setup(), program.meta_tokens).told();
                faults.push(format!("request {number}, admitted again with the same others: {told}"));
            }
        }
    }
    let told = json!({
        "admissions": groups.kept().count(),
        "requests": requests,
        "tokens": tokens.compared,
        "equal": tokens.equal,
    });
    (told, faults)
}
