//! Rotations by themselves, and attention in its general form: any widths, windows, tiles, sinks, keys that are rotated in
//! part or not at all. Owns what the kernels of `attention.rs` refuse; new keys are appended to caches in a step of their own.

use super::demand::Demand;
use super::emit::Emitter;
use super::view::{Element, View};
use super::{Call, PlanError};
use crate::launch::arguments::{AppendArguments, GeneralArguments, RopeArguments};
use photonc_graph::graph::NodeId;
use photonc_graph::ir::attr::{Mask, Reach};
use photonc_graph::ir::bytes::narrow;
use photonc_graph::ir::op::Op;
use std::num::NonZeroUsize;

/// Part of the keys or of the values: all entries of one value, or some of them.
#[derive(Clone, Copy, Debug)]
struct Part {
    node: NodeId,
    /// First entry and number of entries along the axis of keys, where it is not all of them.
    within: Option<(usize, usize)>,
}

/// Slots of a cache and the number of those that are filled.
#[derive(Clone, Copy, Debug)]
struct Cache {
    key: Part,
    value: Part,
    lengths: NodeId,
}

/// An attention as its kernel sees it.
#[derive(Clone, Debug)]
pub(super) struct General {
    cache: Option<Cache>,
    keys: Vec<Part>,
    values: Vec<Part>,
    sinks: Option<NodeId>,
    scale: f64,
    reach: Reach,
    /// Keys that are no slots of a cache.
    new: usize,
}

impl General {
    pub(super) fn of(demand: &Demand<'_>, id: NodeId) -> Result<Self, PlanError> {
        let Op::Attention { scale, mask, reach } = demand.graph.op(id) else {
            return Err(demand.error(id, "not an attention"));
        };
        let operands = demand.graph.operands(id);
        let (queries, total) = (demand.dims(operands[0])[2], demand.dims(operands[1])[2]);
        let whole = |operand: usize| vec![Part { node: operands[operand], within: None }];
        let (scale, reach) = (scale.get(), *reach);
        match mask {
            Mask::Causal => Ok(General {
                cache: None,
                keys: whole(1),
                values: whole(2),
                sinks: operands.get(3).copied(),
                scale,
                reach,
                new: total,
            }),
            Mask::Past => {
                let new = queries + reach.recent;
                let Some(slots) = total.checked_sub(new) else {
                    return Err(demand.error(id, format!("{total} keys for {new} new ones")));
                };
                let (key, keys) = parted(demand, operands[1], slots);
                let (value, values) = parted(demand, operands[2], slots);
                let cache = Some(Cache { key, value, lengths: operands[3] });
                Ok(General { cache, keys, values, sinks: operands.get(4).copied(), scale, reach, new })
            }
            Mask::Cache => Err(demand.error(id, "no kernel for a `cache` mask")),
        }
    }

    /// Nodes whose values the kernel reads.
    pub(super) fn wants(&self, query: NodeId) -> Vec<NodeId> {
        let mut wants = vec![query];
        wants.extend(self.keys.iter().chain(&self.values).map(|part| part.node));
        if let Some(cache) = self.cache {
            wants.extend([cache.key.node, cache.value.node, cache.lengths]);
        }
        wants
    }
}

/// Keys or values as the slots of a cache and what follows them.
fn parted(demand: &Demand<'_>, id: NodeId, slots: usize) -> (Part, Vec<Part>) {
    if let Op::Concat { axis: 2 } = demand.graph.op(id) {
        let operands = demand.graph.operands(id);
        if demand.dims(operands[0])[2] == slots {
            let part = |node: &NodeId| Part { node: *node, within: None };
            return (part(&operands[0]), operands[1..].iter().map(part).collect());
        }
    }
    let rest = demand.dims(id)[2] - slots;
    let part = |start, len| Part { node: id, within: Some((start, len)) };
    (part(0, slots), vec![part(slots, rest)])
}

impl Emitter<'_> {
    /// A rotation whose result is a value of its own.
    pub(super) fn rope(&mut self, id: NodeId, operands: &[NodeId], theta: f64) -> Result<(), PlanError> {
        let [rows, heads, count, width] = self.four(id, id)?;
        let x = self.value(operands[0])?;
        let x = self.last_contiguous(id, x)?;
        let positions = self.value(operands[1])?;
        let (position_row, position_step) = match positions.strides.as_slice() {
            [step] => (0, *step),
            [row, step] => (*row, *step),
            _ => return Err(self.demand.error(id, "positions have more than two axes")),
        };
        let out = match self.target(id) {
            placed if placed.strides.last() == Some(&1) => placed,
            _ => self.fresh(Element::Model, &[rows, heads, count, width]),
        };
        if out.elements() > 0 {
            let arguments = RopeArguments {
                x: self.heads(id, &x)?,
                out: self.heads(id, &out)?,
                positions: positions.address(self.dtype),
                position_row,
                position_step,
                theta,
                rows: self.count(id, rows)?,
                heads: self.count(id, heads)?,
                count: self.count(id, count)?,
                width: self.count(id, width)?,
            };
            self.step(id, Call::Rope(arguments));
        }
        self.values.insert(id, out);
        Ok(())
    }

    pub(super) fn attend_general(&mut self, id: NodeId, general: &General) -> Result<(), PlanError> {
        let [rows, heads, queries, value_width] = self.four(id, id)?;
        let operands = self.graph().operands(id);
        let [_, kv_heads, _, width] = self.four(id, operands[1])?;
        let out = match self.placed.get(&id) {
            Some(placed) if placed.strides.last() == Some(&1) => placed.clone(),
            _ => self.fresh(Element::Model, &[rows, queries, heads, value_width]).transpose(&[0, 2, 1, 3]),
        };
        self.values.insert(id, out.clone());
        if out.elements() == 0 {
            return Ok(());
        }
        let query = self.value(operands[0])?;
        let query = self.last_contiguous(id, query)?;
        let (key, value) = (self.joined(id, &general.keys)?, self.joined(id, &general.values)?);
        let size = |size: Option<NonZeroUsize>| self.count(id, size.map_or(0, NonZeroUsize::get));
        let mut arguments = GeneralArguments {
            q: self.heads(id, &query)?,
            k: self.heads(id, &key)?,
            v: self.heads(id, &value)?,
            out: self.heads(id, &out)?,
            rows: self.count(id, rows)?,
            heads: self.count(id, heads)?,
            kv_heads: self.count(id, kv_heads)?,
            queries: self.count(id, queries)?,
            keys: self.count(id, general.new)?,
            width: self.count(id, width)?,
            value_width: self.count(id, value_width)?,
            window: size(general.reach.window)?,
            tile: size(general.reach.tile)?,
            scale: narrow(general.scale),
            ..GeneralArguments::default()
        };
        if let Some(sinks) = general.sinks {
            arguments.sinks = self.weight(id, sinks)?;
        }
        if let Some(cache) = general.cache {
            let (keys, values) = (self.part(cache.key)?, self.part(cache.value)?);
            let lengths = self.value(cache.lengths)?;
            arguments.lengths = self.contiguous(id, lengths)?.address(self.dtype);
            (arguments.cache_k, arguments.cache_v) = (self.heads(id, &keys)?, self.heads(id, &values)?);
            for part in [cache.key, cache.value] {
                self.lengths_of.entry(part.node).or_insert(cache.lengths);
            }
        }
        self.step(id, Call::AttendGeneral(arguments));
        Ok(())
    }

    /// Puts new entries behind those that a cache has, in its own memory.
    pub(super) fn append(&mut self, id: NodeId, input: NodeId) -> Result<(), PlanError> {
        let Some(lengths) = self.lengths_of.get(&input).copied() else {
            return Err(self.demand.error(id, "no attention says how many entries the cache has"));
        };
        let (new, cache) = (self.value(id)?, self.value(input)?);
        let new = self.last_contiguous(id, new)?;
        let [rows, heads, count, width] = self.four(id, id)?;
        let lengths = self.value(lengths)?;
        let arguments = AppendArguments {
            x: self.heads(id, &new)?,
            cache: self.heads(id, &cache)?,
            lengths: self.contiguous(id, lengths)?.address(self.dtype),
            rows: self.count(id, rows)?,
            heads: self.count(id, heads)?,
            count: self.count(id, count)?,
            width: self.count(id, width)?,
        };
        self.step(id, Call::Append(arguments));
        Ok(())
    }

    fn part(&self, part: Part) -> Result<View, PlanError> {
        let view = self.value(part.node)?;
        Ok(part.within.map_or_else(|| view.clone(), |(start, len)| view.slice(2, start, len)))
    }

    /// Parts as one value, copied where there are several.
    fn joined(&mut self, id: NodeId, parts: &[Part]) -> Result<View, PlanError> {
        if let [part] = parts {
            let view = self.part(*part)?;
            return self.last_contiguous(id, view);
        }
        let views = parts.iter().map(|part| self.part(*part)).collect::<Result<Vec<_>, _>>()?;
        let mut dims = views.first().map(|view| view.dims.clone()).unwrap_or_default();
        dims[2] = views.iter().map(|view| view.dims[2]).sum();
        let whole = self.fresh(Element::Model, &dims);
        let mut start = 0;
        for view in views {
            let entries = view.dims[2];
            self.copy(id, &view, &whole.slice(2, start, entries))?;
            start += entries;
        }
        Ok(whole)
    }

    /// The value where neighbours along the last axis are neighbours in memory; else a copy.
    fn last_contiguous(&mut self, id: NodeId, view: View) -> Result<View, PlanError> {
        let width = view.dims.last().copied().unwrap_or(1);
        if view.strides.last() == Some(&1) {
            return Ok(view);
        }
        if width == 1 {
            let mut view = view;
            if let Some(last) = view.strides.last_mut() {
                *last = 1;
            }
            return Ok(view);
        }
        let copy = self.fresh(view.element, &view.dims);
        self.copy(id, &view, &copy)?;
        Ok(copy)
    }
}
