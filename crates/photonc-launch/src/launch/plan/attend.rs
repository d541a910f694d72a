//! Attention's arguments: what its kernel reads, where new keys and values go, and the memory of windows.

use super::attention::{Attend, Kind, WINDOW_KEYS};
use super::emit::Emitter;
use super::view::{Element, View};
use super::{Call, PlanError};
use crate::launch::arguments::{AttendArguments, Heads};
use photonc_graph::graph::NodeId;
use photonc_graph::ir::bytes::narrow;

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
        let (query, key, value) = (
            self.in_pairs(id, attend.query)?,
            self.in_pairs(id, attend.key)?,
            self.in_pairs(id, attend.value)?,
        );
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

    /// The value with elements that lie in pairs, as the kernels of attention read them; else a copy.
    fn in_pairs(&mut self, id: NodeId, of: NodeId) -> Result<View, PlanError> {
        let view = self.value(of)?;
        if view.strides.last() == Some(&1) && view.is_in_pairs() {
            return Ok(view);
        }
        let copy = self.position_major(self.four(id, of)?);
        self.copy(id, &view, &copy)?;
        Ok(copy)
    }

    /// Memory `[B, H, n, d]` with heads side by side at every position, as products around attention have them.
    fn position_major(&mut self, [batch, heads, positions, width]: [usize; 4]) -> View {
        let buffer = self.arena(Element::Model, batch * heads * positions * width);
        let whole = View::whole(buffer, Element::Model, &[batch, positions, heads, width]);
        whole.transpose(&[0, 2, 1, 3])
    }

    fn attention_out(&mut self, id: NodeId, shape: [usize; 4]) -> View {
        match self.placed.get(&id) {
            Some(placed) if placed.strides.last() == Some(&1) && placed.is_in_pairs() => placed.clone(),
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
        let window = match self.windows.get(&attend.first_key()) {
            Some(window) => window.clone(),
            None => {
                let positions = self.demand.windows.get(&attend.first_key()).copied().unwrap_or(keys);
                let shape = [batch, kv_heads, positions, width];
                Window { key: self.position_major(shape), value: self.position_major(shape), filled: 0 }
            }
        };
        // A place that no later one reads is no part of the window: others may take its number.
        let stores = attend.read_later || asked;
        if window.filled < attend.past || (stores && window.filled != attend.past) {
            let (filled, past) = (window.filled, attend.past);
            let message =
                format!("keys of an earlier position were not computed before: {filled} of {past} are there");
            return Err(self.demand.error(id, message));
        }
        arguments.cache_k = self.heads(id, &window.key)?;
        arguments.cache_v = self.heads(id, &window.value)?;
        if stores {
            (arguments.store_k, arguments.store_v) = (arguments.cache_k, arguments.cache_v);
            arguments.store_at_past = 1;
            self.values.insert(attend.new_key, window.key.slice(2, attend.past, keys));
        }
        let filled = if stores { attend.past + keys } else { window.filled };
        self.windows.insert(attend.first_key(), Window { filled, ..window });
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
                Some(placed) if placed.strides.last() == Some(&1) && placed.is_in_pairs() => placed.clone(),
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
