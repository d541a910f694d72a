//! Slices that together are the whole of a value: one `Split` instead of a `Slice` each.

use super::emit::Emitter;
use super::{ExportError, proto};
use photonc_graph::graph::NodeId;
use photonc_graph::ir::op::Op;

/// A slice of an axis.
struct Tile {
    start: usize,
    len: usize,
    slice: NodeId,
}

impl Emitter<'_> {
    /// The part that the slice `id` of `x` is, if the slices of `x` tile one of its axes.
    pub(super) fn split(&mut self, id: NodeId, x: NodeId) -> Result<Option<String>, ExportError> {
        if let Some(part) = self.parts.get(&id) {
            return Ok(Some(part.clone()));
        }
        let Some((axis, tiles)) = self.tiles(id, x) else { return Ok(None) };
        let sizes: Vec<i64> = tiles.iter().map(|tile| proto::to_i64(tile.len)).collect();
        let sizes = self.ints(&sizes);
        let value = self.values[&x].clone();
        let attributes = vec![proto::int("axis", proto::to_i64(axis))];
        let mut parts = self.node_of("Split", &[&value, &sizes], attributes, tiles.len());
        for (tile, part) in tiles.iter().zip(&mut parts) {
            let graph = self.graph;
            if let Some(output) = graph.outputs().iter().find(|output| output.node == tile.slice) {
                *part = output.name.to_string();
            }
        }
        self.rename_results(&parts);
        for (tile, part) in tiles.iter().zip(parts) {
            self.parts.insert(tile.slice, part);
        }
        Ok(self.parts.get(&id).cloned())
    }

    /// The axis that slices of `x` tile, and the tiles in order.
    fn tiles(&self, id: NodeId, x: NodeId) -> Option<(usize, Vec<Tile>)> {
        let graph = self.graph;
        let Op::Slice { axis: wanted, .. } = *graph.op(id) else { return None };
        let size = graph.ty(x).shape.0[wanted].as_const()?;
        let mut tiles: Vec<Tile> = graph
            .users(x)
            .into_iter()
            .filter_map(|(user, _)| match *graph.op(user) {
                Op::Slice { axis, start, len, from_end: false } if axis == wanted => {
                    Some(Tile { start, len, slice: user })
                }
                _ => None,
            })
            .collect();
        tiles.sort_unstable_by_key(|tile| tile.start);
        let mut end = 0;
        for tile in &tiles {
            if tile.start != end {
                return None;
            }
            end += tile.len;
        }
        (end == size && tiles.len() > 1).then_some((wanted, tiles))
    }
}
