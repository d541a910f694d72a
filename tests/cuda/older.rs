//! The goldens of the two older wirings: graph by graph with logits, and tokens from the device's own decoder. On the emulated
//! device one batch of each.

use crate::device;
use crate::emulated::Order;
use crate::fixture::model::AHEAD;
use crate::fixture::older::{GOLDENS, Golden};
use crate::on_a_gpu;
use photonc::ir::dtype::Dtype;
use photonc::runtime::launch::backend::LaunchBackend;

#[test]
fn every_golden_of_the_older_wirings_is_reproduced() {
    for name in GOLDENS {
        let golden = Golden::of(name);
        let backend = LaunchBackend::of_bundle(golden.bundle.clone(), device(Order::Mixed(3)), Dtype::F32);
        let mut generator = golden.generator(Box::new(backend.expect("loads")));
        golden.check_batch(&mut generator, AHEAD[1], false);
        golden.check_batch(&mut generator, AHEAD[1], true);
        if on_a_gpu() {
            for ahead in AHEAD {
                golden.check(&mut generator, ahead, false);
                golden.check(&mut generator, ahead, true);
            }
            golden.check_scores(&mut generator);
        }
    }
}
