//! Attention with what surrounds it: rotations, the concatenation with cached or earlier keys, and the stores of new
//! keys and values. Owns the recognition of the three forms (window, cache, stream) and their arguments.

use super::PlanError;
use super::demand::Demand;
use super::view::int;
use super::window_keys::segments;
use photonc_graph::graph::NodeId;
use photonc_graph::ir::attr::{Attribute, Mask, Reach};
use photonc_graph::ir::op::Op;

/// Most keys of a sequence that is computed like a window: the kernels of windows hold so many.
pub(super) const WINDOW_KEYS: usize = 16;

/// Widest head of the kernels of windows, caches and streams; they read elements in pairs.
pub const MOST_HEAD_DIM: usize = 256;

/// Which kernel serves an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Positions known, and few keys or keys of earlier windows before the new ones.
    Window,
    /// Cached keys of each row's own number, then new ones.
    Cache,
    /// A whole sequence at once.
    Stream,
}

/// An attention as its kernel sees it.
#[derive(Clone, Debug)]
pub(super) struct Attend {
    pub kind: Kind,
    /// Queries before rotation `[B, H, n, d]`.
    pub query: NodeId,
    /// New keys before rotation `[B, G, m, d]`.
    pub key: NodeId,
    /// New keys after rotation: the value that the kernel stores.
    pub new_key: NodeId,
    /// New values.
    pub value: NodeId,
    /// Keys before the new ones, oldest first.
    pub earlier_keys: Vec<NodeId>,
    pub cache: Option<(NodeId, NodeId)>,
    pub lengths: Option<(NodeId, i64)>,
    pub theta: Option<f64>,
    pub scale: f64,
    /// Keys before the new ones, where their number is known.
    pub past: usize,
    pub keys: usize,
    pub queries: usize,
    /// A later window attention reads the new keys.
    pub read_later: bool,
}

/// Integers `scale * input + offsets`.
struct Affine {
    input: Option<NodeId>,
    scale: i64,
    offsets: Vec<i64>,
}

impl Attend {
    pub(super) fn of(demand: &Demand<'_>, id: NodeId) -> Result<Self, PlanError> {
        let Op::Attention { scale, mask, reach } = demand.graph.op(id) else {
            return Err(demand.error(id, "not an attention"));
        };
        let operands = demand.graph.operands(id);
        if *reach != Reach::ALL {
            return Err(demand.error(id, format!("no kernel for attention that reaches `{}`", reach.print())));
        }
        if operands.len() > 3 + usize::from(*mask != Mask::Causal) {
            return Err(demand.error(id, "no kernel for attention with sinks"));
        }
        let (keys_wide, values_wide) = (demand.dims(operands[1])[3], demand.dims(operands[2])[3]);
        if keys_wide != values_wide || !keys_wide.is_multiple_of(2) || keys_wide > MOST_HEAD_DIM {
            let message =
                format!("no kernel for attention with keys of width {keys_wide}, values of {values_wide}");
            return Err(demand.error(id, message));
        }
        let (keys, values) = (segments(demand.graph, operands[1]), segments(demand.graph, operands[2]));
        let counts = |list: &[NodeId]| -> Vec<usize> { list.iter().map(|id| demand.dims(*id)[2]).collect() };
        let (Some(new_key), Some(value), true) =
            (keys.last().copied(), values.last().copied(), counts(&keys) == counts(&values))
        else {
            return Err(demand.error(id, "keys and values are put together differently"));
        };
        let (query, query_positions) = unrotated(demand, operands[0]);
        let (key, key_positions) = unrotated(demand, new_key);
        let total: usize = counts(&keys).iter().sum();
        let new = demand.dims(new_key)[2];
        let mut attend = Attend {
            kind: Kind::Window,
            query,
            key,
            new_key,
            value,
            earlier_keys: keys[..keys.len() - 1].to_vec(),
            cache: None,
            lengths: None,
            theta: None,
            scale: scale.get(),
            past: total - new,
            keys: new,
            queries: demand.dims(operands[0])[2],
            read_later: false,
        };
        match mask {
            Mask::Causal if total <= WINDOW_KEYS || keys.len() > 1 => {}
            Mask::Causal => attend.kind = Kind::Stream,
            Mask::Past if keys.len() == 2 => {
                attend.take_cache(demand, id, (keys[0], values[0]), operands[3])?
            }
            _ => {
                return Err(demand.error(
                    id,
                    format!(
                        "no kernel for a `{}` mask over {} key segments of {total} keys",
                        mask.name(),
                        keys.len()
                    ),
                ));
            }
        }
        attend.check_positions(demand, id, query_positions, key_positions)?;
        Ok(attend)
    }

    fn take_cache(
        &mut self,
        demand: &Demand<'_>,
        id: NodeId,
        cache: (NodeId, NodeId),
        lengths: NodeId,
    ) -> Result<(), PlanError> {
        let is_input = |id: NodeId| matches!(demand.graph.op(id), Op::Input { .. });
        if !is_input(cache.0) || !is_input(cache.1) {
            return Err(demand.error(id, "the cached keys and values are not inputs"));
        }
        let affine = affine(demand, lengths);
        let Some(Affine { input: Some(input), scale, offsets }) = affine else {
            return Err(demand.error(id, "the number of cached keys is not a multiple of an input"));
        };
        if offsets != [0] {
            return Err(demand.error(id, "the number of cached keys has a constant part"));
        }
        self.kind = Kind::Cache;
        self.cache = Some(cache);
        self.lengths = Some((input, scale));
        self.past = 0;
        Ok(())
    }

    /// The kernels number positions themselves: the graph's must be the same.
    fn check_positions(
        &mut self,
        demand: &Demand<'_>,
        id: NodeId,
        query: Option<(f64, NodeId)>,
        key: Option<(f64, NodeId)>,
    ) -> Result<(), PlanError> {
        let (Some((theta, query)), Some((key_theta, key))) = (query, key) else {
            return match (query, key) {
                (None, None) => Ok(()),
                _ => Err(demand.error(id, "queries and new keys must both be rotated, or neither")),
            };
        };
        let unknown = || demand.error(id, "positions are not a multiple of an input plus constants");
        let (query, key) =
            (affine(demand, query).ok_or_else(unknown)?, affine(demand, key).ok_or_else(unknown)?);
        let of_lengths = |affine: &Affine| affine.input.map(|input| (input, affine.scale)) == self.lengths;
        let first = int(self.past);
        let in_order = |from: i64, count: usize, found: &[i64]| {
            found.len() == count && found.iter().zip(from..).all(|(found, expected)| *found == expected)
        };
        let fits = theta == key_theta
            && of_lengths(&query)
            && of_lengths(&key)
            && self.queries <= self.keys
            && in_order(first, self.keys, &key.offsets)
            && in_order(first + int(self.keys - self.queries), self.queries, &query.offsets);
        if !fits {
            return Err(demand.error(id, "positions do not follow the order of the keys"));
        }
        self.theta = Some(theta);
        Ok(())
    }

    /// First segment of the keys: identifies a window.
    pub(super) fn first_key(&self) -> NodeId {
        self.earlier_keys.first().copied().unwrap_or(self.new_key)
    }

    /// Nodes whose values the kernel reads.
    pub(super) fn wants(&self) -> Vec<NodeId> {
        let mut wants = vec![self.query, self.key, self.value];
        wants.extend(self.cache.iter().flat_map(|(key, value)| [*key, *value]));
        wants.extend(self.lengths.map(|(input, _)| input));
        wants
    }
}

/// The value before a rotation, and the rotation's base and positions.
fn unrotated(demand: &Demand<'_>, id: NodeId) -> (NodeId, Option<(f64, NodeId)>) {
    match (demand.graph.op(id), demand.graph.operands(id).as_slice()) {
        (Op::Rope { theta }, [x, positions]) => (*x, Some((theta.get(), *positions))),
        _ => (id, None),
    }
}

fn affine(demand: &Demand<'_>, id: NodeId) -> Option<Affine> {
    use photonc_graph::ir::attr::BinaryFn::{Add, Mul};
    let operands = demand.graph.operands(id);
    match demand.graph.op(id) {
        Op::Input { .. } => Some(Affine { input: Some(id), scale: 1, offsets: vec![0] }),
        Op::Const { value } => {
            Some(Affine { input: None, scale: 1, offsets: value.to_tensor().as_ints()?.to_vec() })
        }
        Op::Iota { .. } => {
            Some(Affine { input: None, scale: 1, offsets: (0..int(demand.dims(id)[0])).collect() })
        }
        Op::Reshape { .. } => affine(demand, operands[0]),
        Op::Binary { function: function @ (Add | Mul) } => {
            let (a, b) = (affine(demand, operands[0])?, affine(demand, operands[1])?);
            let (known, other) = if a.input.is_none() { (a, b) } else { (b, a) };
            if known.input.is_some() {
                return None;
            }
            match (function, known.offsets.as_slice()) {
                (Mul, [factor]) => Some(Affine {
                    input: other.input,
                    scale: other.scale * factor,
                    offsets: other.offsets.iter().map(|offset| offset * factor).collect(),
                }),
                (Add, offsets) if other.offsets.len() == 1 => Some(Affine {
                    offsets: offsets.iter().map(|offset| offset + other.offsets[0]).collect(),
                    ..other
                }),
                (Add, [offset]) => Some(Affine {
                    offsets: other.offsets.iter().map(|known| known + offset).collect(),
                    ..other
                }),
                _ => None,
            }
        }
        _ => None,
    }
}
