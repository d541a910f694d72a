//! The trained example writes on a GPU what its own training code writes.

use crate::emulated::Order;
use crate::fixture::model::{Model, PROTOCOLS, run};
use crate::fixture::trained::{ALL, Written};
use crate::{backend, on_a_gpu};
use photonc::ir::dtype::Dtype;
use photonc::runtime::request::{Batch, Request, RunAhead};

/// The emulated device takes its time: the first meta-contexts, or all that is known.
fn count() -> usize {
    if on_a_gpu() { ALL } else { 64 }
}

// Graph by graph, logits too.
#[test]
fn graph_by_graph_it_writes_what_the_training_code_writes() {
    let model = Model::trained();
    let mut generator = model.generator(Box::new(backend(&model, Order::Immediate, Dtype::F32)));
    Written::read().check(&mut generator, count());
}

// On the device from prompt to tokens.
#[test]
fn the_decoder_writes_what_the_training_code_writes() {
    let model = Model::trained();
    let written = Written::read();
    let mut generator = model.generator(Box::new(backend(&model, Order::Mixed(7), Dtype::F32)));
    for protocol in PROTOCOLS {
        for ahead in [1, 3] {
            let request = Request::greedy(protocol, written.prompt.clone(), count());
            let batch = Batch { run_ahead: RunAhead::MetaContexts(ahead), ..Batch::new(vec![request]) };
            let found = run(&mut generator, &batch);
            assert_eq!(found.sequences[0].tokens, written.tokens(protocol, count()), "{protocol} {ahead}");
        }
    }
}
