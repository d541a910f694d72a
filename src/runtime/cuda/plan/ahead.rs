//! Which weights a product brings closer before the next product reads them: memory then goes on while blocks add up and wait
//! for each other.

use super::{Call, Plan};

/// What one 16-byte step of a copy is.
const STEP_BYTES: usize = 16;

/// Tells every product of few rows where the weights of the next one begin, at most `most_bytes` of them.
pub(super) fn assign(plan: &mut Plan, most_bytes: usize) {
    let element_bytes = plan.dtype.size_bytes();
    let mut next: Option<(u64, usize)> = None;
    for step in plan.steps.iter_mut().rev() {
        let Call::Linear(linear) = &mut step.call else { continue };
        if let Some((weight, bytes)) = next {
            let bytes = bytes.min(most_bytes) / STEP_BYTES * STEP_BYTES;
            (linear.ahead, linear.ahead_bytes) = match i32::try_from(bytes) {
                Ok(bytes) if bytes > 0 => (weight, bytes),
                _ => (0, 0),
            };
        }
        let size = |size: i32| usize::try_from(size).unwrap_or(0);
        let rows = size(linear.n) * if linear.mode == 1 { 2 } else { 1 };
        next = Some((linear.weight, rows * size(linear.k) * element_bytes));
    }
}
