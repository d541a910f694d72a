//! Attention with what surrounds it: rotations, the concatenation with cached or earlier keys, and the stores of new
//! keys and values. Owns the recognition of the three forms (window, cache, stream) and their arguments.

use super::demand::Demand;
use super::emit::Emitter;
use super::view::{Element, View, int};
use super::{Call, PlanError};
use crate::graph::NodeId;
use crate::ir::attr::Mask;
use crate::ir::op::Op;
use crate::runtime::cuda::arguments::{AttendArguments, Heads};

/// Most keys of a window, cached and new.
pub(super) const WINDOW_KEYS: usize = 16;

/// Which kernel serves an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// At most `WINDOW_KEYS` keys, positions known.
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
    query: NodeId,
    /// New keys before rotation `[B, G, m, d]`.
    key: NodeId,
    /// New keys after rotation: the value that the kernel stores.
    pub new_key: NodeId,
    /// New values.
    value: NodeId,
    /// First segment of the keys: identifies a window.
    pub first_key: NodeId,
    cache: Option<(NodeId, NodeId)>,
    lengths: Option<(NodeId, i64)>,
    theta: Option<f64>,
    scale: f64,
    /// Keys before the new ones, where their number is known.
    pub past: usize,
    pub keys: usize,
    queries: usize,
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
        let Op::Attention { scale, mask } = demand.graph.op(id) else {
            return Err(demand.error(id, "not an attention"));
        };
        let operands = demand.graph.operands(id);
        let (keys, values) = (segments(demand, operands[1]), segments(demand, operands[2]));
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
            first_key: keys[0],
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
            Mask::Causal if total <= WINDOW_KEYS => {}
            Mask::Causal if keys.len() == 1 => attend.kind = Kind::Stream,
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

    /// Nodes whose values the kernel reads.
    pub(super) fn wants(&self) -> Vec<NodeId> {
        let mut wants = vec![self.query, self.key, self.value];
        wants.extend(self.cache.iter().flat_map(|(key, value)| [*key, *value]));
        wants.extend(self.lengths.map(|(input, _)| input));
        wants
    }
}

fn segments(demand: &Demand<'_>, id: NodeId) -> Vec<NodeId> {
    match demand.graph.op(id) {
        Op::Concat { axis: 2 } => {
            demand.graph.operands(id).into_iter().flat_map(|part| segments(demand, part)).collect()
        }
        _ => vec![id],
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
    use crate::ir::attr::BinaryFn::{Add, Mul};
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

/// Keys and values of a window, oldest first.
#[derive(Clone, Debug)]
pub(super) struct Window {
    key: View,
    value: View,
    /// Positions filled so far.
    filled: usize,
}

impl Emitter<'_> {
    pub(super) fn attend(&mut self, id: NodeId, attend: &Attend) -> Result<(), PlanError> {
        let [batch, heads, queries, width] = self.four(id, id)?;
        let [_, kv_heads, _, _] = self.four(id, attend.key)?;
        let out = self.attention_out(id, [batch, heads, queries, width]);
        let (query, key, value) =
            (self.value(attend.query)?, self.value(attend.key)?, self.value(attend.value)?);
        let mut arguments = AttendArguments {
            q: self.heads(id, &query)?,
            k: self.heads(id, &key)?,
            v: self.heads(id, &value)?,
            out: self.heads(id, &out)?,
            rows_per_length: 1,
            past_base: self.count(id, attend.past)?,
            visible_scale: 1,
            past_scale: 1,
            rows: self.count(id, batch)?,
            heads: self.count(id, heads)?,
            kv_heads: self.count(id, kv_heads)?,
            queries: self.count(id, queries)?,
            keys: self.count(id, attend.keys)?,
            first_query: self.count(id, attend.keys - queries)?,
            causal: 1,
            scale: narrow(attend.scale),
            ..AttendArguments::default()
        };
        if let Some((input, scale)) = attend.lengths {
            arguments.lengths = self.value(input)?.address(self.dtype);
            arguments.past_scale =
                i32::try_from(scale).map_err(|_| self.demand.error(id, "too many units"))?;
        }
        let shape = [batch, kv_heads, attend.keys, width];
        match attend.kind {
            Kind::Window => self.window(id, attend, shape, &mut arguments)?,
            Kind::Cache => self.cached(id, attend, shape, &mut arguments)?,
            Kind::Stream => self.stream(id, attend, shape, &mut arguments)?,
        }
        self.rotation(id, attend, width, &mut arguments)?;
        let call = match attend.kind {
            Kind::Window => Call::AttendWindow(arguments, width),
            Kind::Cache => Call::AttendCache(arguments, width),
            Kind::Stream => {
                self.step(id, Call::AppendKeys(arguments, width));
                // All keys are in the cache now, those of the queries last.
                let stream = AttendArguments {
                    keys: 0,
                    past_base: arguments.past_base + arguments.keys,
                    first_query: -arguments.queries,
                    store_k: Heads::default(),
                    store_v: Heads::default(),
                    ..arguments
                };
                Call::AttendStream(stream, width)
            }
        };
        self.step(id, call);
        self.values.insert(id, out);
        Ok(())
    }

    /// Memory `[B, H, n, d]` with heads side by side at every position, as products around attention have them.
    fn position_major(&mut self, [batch, heads, positions, width]: [usize; 4]) -> View {
        let buffer = self.arena(Element::Model, batch * heads * positions * width);
        let whole = View::whole(buffer, Element::Model, &[batch, positions, heads, width]);
        whole.transpose(&[0, 2, 1, 3])
    }

    fn attention_out(&mut self, id: NodeId, shape: [usize; 4]) -> View {
        match self.placed.get(&id) {
            Some(placed) if placed.strides.last() == Some(&1) => placed.clone(),
            _ => self.position_major(shape),
        }
    }

    fn window(
        &mut self,
        id: NodeId,
        attend: &Attend,
        [batch, kv_heads, keys, width]: [usize; 4],
        arguments: &mut AttendArguments,
    ) -> Result<(), PlanError> {
        let asked = self.is_read(attend.new_key) || self.placed.contains_key(&attend.value);
        if attend.past == 0 && !attend.read_later {
            return match asked {
                true => self.store_new(id, attend, [batch, kv_heads, keys, width], arguments),
                false => Ok(()),
            };
        }
        let window = match self.windows.get(&attend.first_key) {
            Some(window) => window.clone(),
            None => {
                let positions = self.demand.windows.get(&attend.first_key).copied().unwrap_or(keys);
                let shape = [batch, kv_heads, positions, width];
                Window { key: self.position_major(shape), value: self.position_major(shape), filled: 0 }
            }
        };
        if window.filled != attend.past {
            return Err(self.demand.error(id, "keys of an earlier position were not computed before"));
        }
        arguments.cache_k = self.heads(id, &window.key)?;
        arguments.cache_v = self.heads(id, &window.value)?;
        if attend.read_later || asked {
            (arguments.store_k, arguments.store_v) = (arguments.cache_k, arguments.cache_v);
            arguments.store_at_past = 1;
            self.values.insert(attend.new_key, window.key.slice(2, attend.past, keys));
        }
        let filled = attend.past + keys;
        self.windows.insert(attend.first_key, Window { filled, ..window });
        Ok(())
    }

    fn cached(
        &mut self,
        id: NodeId,
        attend: &Attend,
        shape: [usize; 4],
        arguments: &mut AttendArguments,
    ) -> Result<(), PlanError> {
        let Some((key, value)) = attend.cache else { return Ok(()) };
        arguments.cache_k = {
            let view = self.value(key)?;
            self.heads(id, &view)?
        };
        arguments.cache_v = {
            let view = self.value(value)?;
            self.heads(id, &view)?
        };
        if self.demand.options.in_place {
            (arguments.store_k, arguments.store_v) = (arguments.cache_k, arguments.cache_v);
            arguments.store_at_past = 1;
            self.in_place.extend([attend.new_key, attend.value]);
            return Ok(());
        }
        match self.is_read(attend.new_key) || self.placed.contains_key(&attend.value) {
            true => self.store_new(id, attend, shape, arguments),
            false => Ok(()),
        }
    }

    fn stream(
        &mut self,
        id: NodeId,
        attend: &Attend,
        shape: [usize; 4],
        arguments: &mut AttendArguments,
    ) -> Result<(), PlanError> {
        self.store_new(id, attend, shape, arguments)?;
        (arguments.cache_k, arguments.cache_v) = (arguments.store_k, arguments.store_v);
        Ok(())
    }

    /// New keys and values go where the graph's outputs want them, or to memory of the plan.
    fn store_new(
        &mut self,
        id: NodeId,
        attend: &Attend,
        shape: [usize; 4],
        arguments: &mut AttendArguments,
    ) -> Result<(), PlanError> {
        for (node, target) in
            [(attend.new_key, &mut arguments.store_k), (attend.value, &mut arguments.store_v)]
        {
            let store = match self.placed.get(&node) {
                Some(placed) if placed.strides.last() == Some(&1) => placed.clone(),
                _ => self.position_major(shape),
            };
            *target = self.heads(id, &store)?;
            self.values.insert(node, store);
        }
        Ok(())
    }

    fn rotation(
        &mut self,
        id: NodeId,
        attend: &Attend,
        width: usize,
        arguments: &mut AttendArguments,
    ) -> Result<(), PlanError> {
        let Some(theta) = attend.theta else { return Ok(()) };
        let cached = attend.cache.map_or(attend.past, |(key, _)| self.demand.dims(key)[2]);
        let positions = (cached + attend.keys).next_multiple_of(WINDOW_KEYS);
        arguments.table = self.rotation_table(theta, width / 2, positions);
        arguments.table_positions = self.count(id, positions)?;
        Ok(())
    }
}

/// Scales are given as f64 and used as f32 by every kernel.
#[allow(clippy::cast_possible_truncation, reason = "the nearest f32 is what kernels compute with")]
pub(in crate::runtime::cuda) fn narrow(value: f64) -> f32 {
    value as f32
}
