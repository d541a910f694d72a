//! Memory of a plan. Owns the lifetimes of its own buffers and their places in one arena: buffers whose lifetimes do not
//! meet share memory.

use super::view::located;
use super::{Contents, Plan};
use crate::launch::arguments::Access;

/// Alignment of every buffer in bytes: what vector loads and cuBLASLt want.
const ALIGN_BYTES: usize = 256;

/// Gives every buffer of the arena its offset. Steps run in order, so a buffer lives from the first step that writes it
/// to the last that reads it.
pub(super) fn assign(plan: &mut Plan) {
    let mut lives: Vec<Option<(usize, usize)>> = vec![None; plan.buffers.len()];
    for (at, step) in plan.steps.iter().enumerate() {
        step.call.clone().addresses(&mut |address: &mut u64, _: Access| {
            if let Some((buffer, _)) = located(*address) {
                let (first, last) = lives[buffer].get_or_insert((at, at));
                (*first, *last) = ((*first).min(at), (*last).max(at));
            }
        });
    }
    let mut order: Vec<usize> = (0..plan.buffers.len())
        .filter(|index| matches!(plan.buffers[*index].contents, Contents::Arena { .. }))
        .collect();
    // Largest first: small ones fill the gaps.
    order.sort_by_key(|index| (std::cmp::Reverse(plan.buffers[*index].bytes), *index));
    let mut placed: Vec<(usize, usize, (usize, usize))> = Vec::new();
    for index in order {
        let Some(life) = lives[index] else { continue };
        let bytes = plan.buffers[index].bytes.next_multiple_of(ALIGN_BYTES);
        let mut busy: Vec<(usize, usize)> = placed
            .iter()
            .filter(|(_, _, other)| other.0 <= life.1 && life.0 <= other.1)
            .map(|(start, end, _)| (*start, *end))
            .collect();
        busy.sort_unstable();
        let mut offset = 0;
        for (start, end) in busy {
            if offset + bytes <= start {
                break;
            }
            offset = offset.max(end);
        }
        placed.push((offset, offset + bytes, life));
        plan.arena_bytes = plan.arena_bytes.max(offset + bytes);
        plan.buffers[index].contents = Contents::Arena { offset_bytes: offset };
    }
}
