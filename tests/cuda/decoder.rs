//! The decoder on the emulated device alone, which counts: memory that is computed before it is taken, nothing that waits or
//! crosses to the host without need.

use crate::codes::{MIXED, coded};
use crate::emulated::{Emulated, Options, Order, program_text};
use crate::fixture::model::{Model, PROTOCOLS};
use crate::{backend, cuda_on};
use photonc::ir::dtype::Dtype;
use photonc::passes::choose_protocol::Protocol;
use photonc::runtime::backend::BackendError;
use photonc::runtime::decoder::{Admission, Decoder as _, DecoderSetup};
use photonc::runtime::draws::Draws;
use photonc::runtime::launch::decode::{Layout, RecordedDecoder};
use photonc::runtime::launch::device::Device;
use photonc::runtime::launch::replicas::{RowCount, serve_on};
use photonc::runtime::request::{Keep, Request};
use std::sync::Arc;

// From prefill to the last token, only the tokens themselves go to the host, and nothing comes from it.
#[test]
fn only_tokens_cross_to_the_host() {
    let model = Model::of("paper");
    let device = emulated(Order::Immediate, 1 << 30);
    let mut cuda = cuda_on(&model, Arc::clone(&device) as Arc<dyn Device>, Dtype::F32);
    let setup =
        DecoderSetup { protocol: Protocol::Recgen, rows: 2, sequences: 4, capacity: 40, run_ahead: 3 };
    let mut decoder = RecordedDecoder::new(cuda.loaded(), &model.program(), setup).expect("a decoder");
    let prompt = model.expected.ints(0, "prompt_aligned");
    let draws = Arc::new(Draws::greedy());
    let together = [admission(0, &[0, 1], prompt, &draws), admission(1, &[2, 3], prompt, &draws)];
    decoder.admit(&together).expect("admits");
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

/// A prompt into a row, for as long as its decoder has room.
fn admission<'a>(
    row: usize,
    sequences: &'a [usize],
    prompt: &'a [i64],
    draws: &'a Arc<Draws>,
) -> Admission<'a> {
    Admission {
        row,
        sequences,
        prompt,
        forced: &[],
        only_first: false,
        meta_contexts: usize::MAX,
        draws,
        first_sample: 0,
        keep: Keep::default(),
    }
}

fn emulated(order: Order, memory_bytes: usize) -> Arc<Emulated> {
    let mut options = Options::new(order);
    options.properties.memory_bytes = memory_bytes;
    Arc::new(Emulated::new(options, Box::new(program_text)))
}

/// Shapes that differ in everything that memory depends on; the last two have products that cuBLASLt does.
const SHAPES: [(usize, usize, usize); 4] = [(1, 1, 1), (2, 3, 2), (66, 1, 1), (9, 8, 1)];

/// A prompt of whole meta-contexts.
fn prompt(model: &Model, meta_contexts: usize) -> Vec<i64> {
    (0..meta_contexts * model.meta_tokens).map(|at| (at * 7 % model.vocab_size) as i64).collect()
}

// Admission is computed: the bytes a decoder takes are known to the last one before anything is allocated, and nothing is
// allocated afterwards, whatever prompts come.
#[test]
fn the_memory_computed_is_the_memory_taken() {
    for (name, model) in [
        ("paper", Model::of("paper")),
        ("lopsided", Model::of("lopsided")),
        ("paper in few bits", coded(&MIXED)),
    ] {
        let program = model.program();
        let draws = Arc::new(Draws::greedy());
        for protocol in PROTOCOLS {
            let device = emulated(Order::Mixed(3), 1 << 30);
            let mut cuda = cuda_on(&model, Arc::clone(&device) as Arc<dyn Device>, Dtype::F32);
            for (rows, samples, run_ahead) in SHAPES {
                let what = format!("{name} {protocol} {rows} x {samples}, run-ahead {run_ahead}");
                let capacity = 3 + run_ahead;
                let sequences = rows * samples;
                let setup = DecoderSetup { protocol, rows, sequences, capacity, run_ahead };
                let machine = cuda.loaded();
                let computed =
                    Layout::new(machine, &program, setup).expect("a layout").missing_bytes(machine);
                let (_, before) = device.allocated();
                let mut decoder = RecordedDecoder::new(machine, &program, setup).expect("a decoder");
                let taken = device.allocated();
                assert_eq!(taken.1 - before, computed, "{what}");
                for meta_contexts in [3, 2] {
                    let tokens = &prompt(&model, meta_contexts);
                    let places: Vec<usize> = (0..sequences).collect();
                    let places = places.chunks_exact(samples).enumerate();
                    let together = places.map(|(row, places)| admission(row, places, tokens, &draws));
                    decoder.admit(&together.collect::<Vec<_>>()).expect("admits");
                    decoder.start().expect("starts");
                    decoder.collect().expect("collects");
                    (0..rows).for_each(|row| decoder.retire(row));
                }
                assert_eq!(device.allocated(), taken, "{what}: something was allocated on the way");
            }
        }
    }
}

#[test]
fn the_most_rows_fit_and_one_more_does_not() {
    let model = Model::of("paper");
    let program = model.program();
    for (protocol, samples, memory_bytes) in
        [(Protocol::Recgen, 1, 3 << 20), (Protocol::Hiergen, 1, 5 << 20), (Protocol::Recgen, 3, 4 << 20)]
    {
        let device = emulated(Order::Immediate, memory_bytes);
        let mut cuda = cuda_on(&model, Arc::clone(&device) as Arc<dyn Device>, Dtype::F32);
        let shape =
            |rows| DecoderSetup { protocol, rows, sequences: rows * samples, capacity: 8, run_ahead: 2 };
        let setup = shape(1);
        let machine = cuda.loaded();
        let room = device.free_bytes().expect("is known");
        let most = Layout::most_rows(machine, &program, setup, room, 100_000).expect("a layout");
        let most = most.expect("one row fits");
        assert!((2..100_000).contains(&most), "{protocol}: {most} rows");
        assert_eq!(Layout::most_rows(machine, &program, setup, room, 2).expect("a layout"), Some(2));
        let more = RecordedDecoder::new(machine, &program, shape(most + 1));
        assert!(
            matches!(more.err(), Some(BackendError::OutOfMemory { .. })),
            "{protocol}: {most} + 1 rows fit"
        );
        // What the failed attempt loaded is there already and is counted so.
        let room = device.free_bytes().expect("is known");
        assert_eq!(Layout::most_rows(machine, &program, setup, room, 100_000).expect("a layout"), Some(most));
        RecordedDecoder::new(machine, &program, shape(most)).expect("fits");
    }
    let device = emulated(Order::Immediate, 1 << 10);
    let mut cuda = cuda_on(&model, Arc::clone(&device) as Arc<dyn Device>, Dtype::F32);
    let setup = DecoderSetup { protocol: Protocol::Recgen, rows: 1, sequences: 1, capacity: 8, run_ahead: 2 };
    assert_eq!(Layout::most_rows(cuda.loaded(), &program, setup, 1 << 10, 9).expect("a layout"), None);
}

// The host goes on while prompts are encoded: it waits for tokens, and for nothing else.
#[test]
fn admitting_prompts_makes_the_host_wait_for_nothing() {
    let model = Model::of("paper");
    let device = emulated(Order::Mixed(9), 1 << 30);
    let mut cuda = cuda_on(&model, Arc::clone(&device) as Arc<dyn Device>, Dtype::F32);
    let setup =
        DecoderSetup { protocol: Protocol::Recgen, rows: 3, sequences: 3, capacity: 12, run_ahead: 2 };
    let mut decoder = RecordedDecoder::new(cuda.loaded(), &model.program(), setup).expect("a decoder");
    let draws = Arc::new(Draws::greedy());
    device.take_traffic();
    for row in 0..3 {
        let tokens = &prompt(&model, row + 1);
        decoder.admit(&[admission(row, &[row], tokens, &draws)]).expect("admits");
        decoder.start().expect("starts");
        assert_eq!(device.take_traffic().host_waits, 0, "row {row}");
        decoder.collect().expect("collects");
        assert_eq!(device.take_traffic().host_waits, 1, "row {row}");
    }
}

#[test]
fn a_decoder_without_room_for_a_prompt_says_so() {
    let model = Model::of("paper");
    let mut cuda = backend(&model, Order::Immediate, Dtype::F32);
    let setup = DecoderSetup { protocol: Protocol::Recgen, rows: 2, sequences: 2, capacity: 3, run_ahead: 3 };
    let error = RecordedDecoder::new(cuda.loaded(), &model.program(), setup).err().expect("refused");
    assert_eq!(
        error.to_string(),
        "decoder of 2 rows and 2 sequences: rows and run-ahead count from 1, sequences are no fewer than rows, and the \
         capacity exceeds the run-ahead; the capacity is 3, the run-ahead 3"
    );
}

#[test]
fn a_replica_that_does_not_fit_is_an_error_that_names_it() {
    let model = Model::of("paper");
    let small: Arc<dyn Device> = emulated(Order::Immediate, 1 << 16);
    let setup = DecoderSetup { protocol: Protocol::Recgen, rows: 1, sequences: 1, capacity: 8, run_ahead: 2 };
    let load = |device: Arc<dyn Device>| Ok(cuda_on(&model, device, Dtype::F32));
    let rows = RowCount::Fitting { reserve_bytes: 0, at_most: 4 };
    let requests = vec![Request::greedy(Protocol::Recgen, vec![1; model.meta_tokens], 4)];
    let served = serve_on(&[small], &load, &model.program(), setup, rows, requests, (&|_| {}, &|_| {}));
    let failed = served.expect_err("no room").to_string();
    assert!(failed.starts_with("replica 0: backend `cuda` has no room for "), "{failed}");
}
