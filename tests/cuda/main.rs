//! The CUDA runtime on the emulated device, or, where `PHOTONC_GPU` is set and the feature `cuda` is built, on the GPU of
//! that number. The binary travels: it needs only `tests/golden` and `examples/english` below `CARGO_MANIFEST_DIR`.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed test panics")]
#![allow(clippy::print_stdout, reason = "the stress test tells its figures to scripts/gpu.sh")]
#![allow(dead_code, reason = "the emulated device's own tests use all of it")]

#[path = "../harness/emulated/mod.rs"]
mod emulated;
#[path = "../fixture/mod.rs"]
mod fixture;

mod codes;
mod decoder;
mod english;
mod forced;
mod goldens;
mod invariant;
mod older;
mod precision;
mod scala;
mod serving;
mod stress;

use emulated::{Emulated, Options, Order, program_text};
use fixture::model::Model;
use photonc::graph::interp::WeightSource;
use photonc::ir::dtype::Dtype;
use photonc::runtime::launch::backend::LaunchBackend;
use photonc::runtime::launch::device::Device;
use std::sync::Arc;

/// How far logits and states in f32 may be from the goldens.
const TOLERANCE_F32: f64 = 2e-3;

fn device(order: Order) -> Arc<dyn Device> {
    device_of(order, false)
}

/// The device; with `batch_invariant`, kernels are chosen without regard to the number of rows.
fn device_of(order: Order, batch_invariant: bool) -> Arc<dyn Device> {
    #[cfg(feature = "cuda")]
    if let Ok(ordinal) = std::env::var("PHOTONC_GPU") {
        use photonc::runtime::cuda::driver::{Driver, DriverOptions};
        let ordinal = ordinal.parse().expect("a device number");
        let options = DriverOptions { ordinal, batch_invariant, ..DriverOptions::default() };
        return Arc::new(Driver::open(options).expect("a GPU"));
    }
    let mut options = Options::new(order);
    options.properties.batch_invariant = batch_invariant;
    Arc::new(Emulated::new(options, Box::new(program_text)))
}

/// Whether the tests run on a GPU.
fn on_a_gpu() -> bool {
    cfg!(feature = "cuda") && std::env::var_os("PHOTONC_GPU").is_some()
}

fn backend(model: &Model, order: Order, dtype: Dtype) -> LaunchBackend {
    cuda_on(model, device(order), dtype)
}

fn cuda_on(model: &Model, device: Arc<dyn Device>, dtype: Dtype) -> LaunchBackend {
    let weights: Arc<dyn WeightSource> = Arc::clone(&model.weights) as Arc<dyn WeightSource>;
    LaunchBackend::of_graphs(model.compilation.graphs.clone(), weights, device, dtype).expect("loads")
}
