//! The `cpu` backend: the goldens, the trained example, low precision, weights in few bits, forced tokens and any prompt
//! through the tests that the other devices of the launch-plan runtime pass; bit-equality over threads, instructions and
//! batches; products against plain sums; weights as they are stored. Fresh memory is full of NaN.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed test panics")]
#![allow(clippy::print_stdout, reason = "what was measured is shown with --nocapture")]
#![allow(dead_code, reason = "the other devices' tests use all of it")]

#[path = "../cuda/codes.rs"]
mod codes;
#[path = "../cuda/english.rs"]
mod english;
#[path = "../fixture/mod.rs"]
mod fixture;
#[path = "../cuda/forced.rs"]
mod forced;
#[path = "../cuda/goldens.rs"]
mod goldens;
#[path = "../cuda/older.rs"]
mod older;
#[path = "../cuda/precision.rs"]
mod precision;
mod products;
#[path = "../cuda/scala.rs"]
mod scala;
mod stored;

use emulated::Order;
use fixture::model::Model;
use photonc::graph::interp::WeightSource;
use photonc::ir::dtype::Dtype;
use photonc::runtime::cpu::device::{Cpu, CpuOptions};
use photonc::runtime::launch::backend::LaunchBackend;
use photonc::runtime::launch::device::Device;
use std::sync::Arc;

/// How far logits and states in f32 may be from the goldens.
const TOLERANCE_F32: f64 = 2e-3;

/// What the shared tests ask of a device.
mod emulated {
    /// When work is done: here always at once.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Order {
        Immediate,
        Mixed(u64),
    }
}

fn device(_order: Order) -> Arc<dyn Device> {
    let options = CpuOptions { threads: Some(2), poison: true, ..CpuOptions::default() };
    Arc::new(Cpu::new(&options).expect("a processor"))
}

/// Everything is checked, as on a device that is quick.
fn on_a_gpu() -> bool {
    true
}

fn backend(model: &Model, order: Order, dtype: Dtype) -> LaunchBackend {
    let weights: Arc<dyn WeightSource> = Arc::clone(&model.weights) as Arc<dyn WeightSource>;
    LaunchBackend::of_graphs(model.compilation.graphs.clone(), weights, device(order), dtype).expect("loads")
}
