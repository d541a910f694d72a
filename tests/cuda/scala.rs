//! The SCALA goldens, every protocol: graph by graph with logits and states, and tokens from the device's own decoder where it
//! has one. On the emulated device one batch of each.

use crate::device;
use crate::emulated::Order;
use crate::fixture::model::AHEAD;
use crate::fixture::scala::{GOLDENS, Golden, PACKED};
use crate::on_a_gpu;
use photonc::ir::dtype::Dtype;
use photonc::runtime::launch::backend::LaunchBackend;

#[test]
fn every_golden_of_the_scala_family_is_reproduced() {
    for name in GOLDENS.into_iter().chain(PACKED) {
        let golden = Golden::of(name);
        let backend = LaunchBackend::of_bundle(golden.bundle.clone(), device(Order::Mixed(3)), Dtype::F32);
        let mut generator = golden.generator(Box::new(backend.expect("loads")));
        golden.check_tokens(&mut generator, AHEAD[1]);
        golden.check_batch(&mut generator, AHEAD[1]);
        if on_a_gpu() {
            golden.check_scores(&mut generator);
            golden.check(&mut generator, &AHEAD);
        }
    }
}
