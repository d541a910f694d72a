//! Predicted times from the roofline: a part takes as long as the slower of its arithmetic and its traffic. Owns two
//! figures for each part and what bounds the first:
//!
//! - the *floor*: all matrix products at the peak for their type, weights and KV caches read at full bandwidth, nothing
//!   else moved. No implementation that reads weights as often as the graph does is faster.
//! - *unfused*: every node a kernel of its own that reads its operands and writes its result; no time between kernels.
//!
//! Neither knows launches, caches of the GPU or small matrices: they bound, they do not simulate.

use super::gpu::Gpu;
use super::sheet::{Fold, Sheet};
use super::subject::{Setting, Subject};
use super::units::{seconds, si, table};
use super::work::{Work, coded_bytes};
use crate::passes::compile::Plan;
use photonc_graph::ir::attr::{Attribute as _, Scheme};
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::shape::Type;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Share of a graph's unfused time below which a part is left out of the text.
const SHOWN_SHARE: f64 = 0.001;

/// What a part waits for at its floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Reading weights.
    Weights,
    /// Reading KV caches.
    KvCache,
    /// Arithmetic.
    Arithmetic,
    /// Nothing that the floor counts.
    Nothing,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bound::Weights => "weights",
            Bound::KvCache => "KV cache",
            Bound::Arithmetic => "arithmetic",
            Bound::Nothing => "-",
        })
    }
}

/// Predicted times of a graph or of a scope inside it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// Scope; empty for the whole graph.
    pub scope: String,
    /// What it computes and moves.
    pub work: Work,
    /// Least time in seconds.
    pub floor_s: f64,
    /// What the floor waits for.
    pub bound: Bound,
    /// Time in seconds of one kernel a node.
    pub unfused_s: f64,
}

/// Predicted times of one run of a graph.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GraphCost {
    /// Name of the graph.
    pub graph: String,
    /// The whole.
    pub total: Part,
    /// Its stacks and other scopes two parts deep.
    pub parts: Vec<Part>,
}

/// Predicted speed of generation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Generation {
    /// Name of the protocol.
    pub protocol: &'static str,
    /// Graphs run for these tokens, with how often.
    pub runs: Vec<(String, usize)>,
    /// Tokens that these runs yield, over the batch.
    pub tokens: usize,
    /// Tokens a second at the floor.
    pub floor_tokens_per_s: f64,
    /// Tokens a second with one kernel a node.
    pub unfused_tokens_per_s: f64,
}

/// Predictions for one GPU and setting.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CostReport {
    /// What was predicted for.
    pub gpu: Gpu,
    /// Sizes of the runs.
    pub setting: Setting,
    /// Bytes of every distinct weight: what the GPU's memory must hold beside caches and activations.
    pub stored_weight_bytes: u64,
    /// Graphs by name.
    pub graphs: Vec<GraphCost>,
    /// Protocols.
    pub generation: Vec<Generation>,
}

impl CostReport {
    /// Predicts every graph of a subject and its generation.
    #[must_use]
    pub fn new(subject: &Subject, setting: &Setting, gpu: Gpu) -> Self {
        let sheets = subject.sheets(setting);
        let graphs: Vec<GraphCost> = sheets.iter().map(|sheet| graph_cost(sheet, setting, &gpu)).collect();
        let generation = subject
            .plans
            .iter()
            .map(|(protocol, plan)| generation(subject, setting, protocol.name(), plan, &graphs))
            .collect();
        let stored_weight_bytes = stored_weight_bytes(&sheets, setting);
        CostReport { gpu, setting: *setting, stored_weight_bytes, graphs, generation }
    }
}

/// Bytes of the distinct weights of all graphs.
fn stored_weight_bytes(sheets: &[Sheet], setting: &Setting) -> u64 {
    let rows = || sheets.iter().flat_map(|sheet| &sheet.rows);
    let coded: BTreeMap<(&str, &str), u64> = rows()
        .filter_map(|row| {
            let (_, scheme) = row.attributes.iter().find(|(name, _)| *name == "scheme")?;
            let bytes = coded_bytes(&Type::parse(&row.ty)?, Scheme::parse(scheme)?)?;
            Some(((row.own_name()?, scheme.as_str()), bytes))
        })
        .collect();
    let sizes: BTreeMap<&str, u64> = rows()
        .filter(|row| row.op == "weight")
        .filter(|row| row.parameters > 0)
        .filter_map(|row| {
            let own = Dtype::from_name(row.ty.split('[').next()?)?;
            let dtype = setting.precision.unwrap_or(own);
            Some((row.own_name()?, row.parameters.saturating_mul(dtype.size_bytes() as u64)))
        })
        .collect();
    sizes.values().sum::<u64>() + coded.values().sum::<u64>()
}

fn graph_cost(sheet: &Sheet, setting: &Setting, gpu: &Gpu) -> GraphCost {
    let part = |fold: &Fold| part(sheet, fold, setting, gpu);
    let inner = sheet.root.walk(2).into_iter();
    let stacks = inner.filter(|(depth, fold)| *depth == 2 || (*depth == 1 && fold.children.is_empty()));
    // What lies directly in a level beside its stacks is reshapes; it counts in the total alone.
    let parts = stacks.map(|(_, fold)| part(fold)).filter(|part| part.work.bytes() > 0).collect();
    GraphCost { graph: sheet.graph.clone(), total: part(&sheet.root), parts }
}

fn part(sheet: &Sheet, fold: &Fold, setting: &Setting, gpu: &Gpu) -> Part {
    let inside = fold.walk(usize::MAX).into_iter().flat_map(|(_, inside)| inside.own.iter());
    let unfused_s = inside
        .map(|number| {
            let row = &sheet.rows[*number];
            let arithmetic = arithmetic_s(&row.work, gpu, float_type(&row.ty, setting));
            arithmetic.max(row.work.bytes() as f64 / gpu.read_bytes_per_s)
        })
        .sum();
    let dtype = fold_type(sheet, fold, setting);
    let arithmetic = fold.work.matmul_flops as f64 / gpu.matmul_flops(dtype);
    let traffic = fold.work.floor_bytes() as f64 / gpu.read_bytes_per_s;
    let bound = match () {
        () if fold.work.floor_bytes() == 0 && fold.work.matmul_flops == 0 => Bound::Nothing,
        () if arithmetic > traffic => Bound::Arithmetic,
        () if fold.work.cache_bytes > fold.work.weight_bytes => Bound::KvCache,
        () => Bound::Weights,
    };
    Part { scope: fold.scope.clone(), work: fold.work, floor_s: arithmetic.max(traffic), bound, unfused_s }
}

fn arithmetic_s(work: &Work, gpu: &Gpu, dtype: Dtype) -> f64 {
    work.matmul_flops as f64 / gpu.matmul_flops(dtype) + work.other_flops as f64 / gpu.f32_flops
}

fn float_type(ty: &str, setting: &Setting) -> Dtype {
    let own = ty.split('[').next().and_then(Dtype::from_name).unwrap_or(Dtype::F32);
    setting.precision.unwrap_or(own)
}

/// The type of the matrix products of a fold: that of the largest.
fn fold_type(sheet: &Sheet, fold: &Fold, setting: &Setting) -> Dtype {
    let inside = fold.walk(usize::MAX).into_iter().flat_map(|(_, inside)| inside.own.iter());
    let largest = inside.map(|number| &sheet.rows[*number]).max_by_key(|row| row.work.matmul_flops);
    largest.map_or(Dtype::F32, |row| float_type(&row.ty, setting))
}

fn generation(
    subject: &Subject,
    setting: &Setting,
    protocol: &'static str,
    plan: &Plan,
    graphs: &[GraphCost],
) -> Generation {
    let (metas, runs) = match plan {
        Plan::Distributed { coarse, lead, expand, .. } => {
            let times = if plan.expands_in_order() { setting.run_ahead } else { 1 };
            let mut runs = vec![(coarse.clone(), setting.run_ahead)];
            runs.extend(lead.iter().map(|lead| (lead.clone(), 1)));
            runs.push((expand.clone(), times));
            (setting.run_ahead, runs)
        }
        Plan::Undistributed { decode, reencode, .. } => (
            1,
            [Some(decode), reencode.as_ref()].into_iter().flatten().map(|name| (name.clone(), 1)).collect(),
        ),
    };
    let sum = |time: fn(&Part) -> f64| -> f64 {
        let run = |(name, times): &(String, usize)| {
            let found = graphs.iter().find(|graph| graph.graph == *name);
            found.map_or(0.0, |graph| time(&graph.total) * *times as f64)
        };
        runs.iter().map(run).sum()
    };
    let tokens = setting.batch.saturating_mul(metas).saturating_mul(subject.meta_tokens);
    let (floor_s, unfused_s) = (sum(|part| part.floor_s), sum(|part| part.unfused_s));
    Generation {
        protocol,
        tokens,
        floor_tokens_per_s: tokens as f64 / floor_s,
        unfused_tokens_per_s: tokens as f64 / unfused_s,
        runs,
    }
}

impl fmt::Display for CostReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gpu = &self.gpu;
        writeln!(f, "{} on {}", self.setting.describe(), gpu.title)?;
        let half = gpu.bf16_flops.map_or_else(|| "no ".to_owned(), si);
        writeln!(
            f,
            "  ceilings: read {}B/s, bf16 {half}FLOP/s, f16 {}FLOP/s, f32 {}FLOP/s ({})",
            si(gpu.read_bytes_per_s),
            si(gpu.f16_flops),
            si(gpu.f32_flops),
            gpu.source
        )?;
        let held = self.stored_weight_bytes as f64;
        let fits = if held <= gpu.memory_bytes { "fit" } else { "do not fit" };
        writeln!(f, "  weights: {}B, which {fits} its {}B\n", si(held), si(gpu.memory_bytes))?;
        let header = ["one run of", "FLOPs", "weights B", "KV cache B", "floor", "bound by", "unfused"];
        let mut lines = vec![header.map(str::to_owned).to_vec()];
        for graph in &self.graphs {
            lines.push(line(&graph.graph, &graph.total));
            let counts = |part: &&Part| part.unfused_s >= SHOWN_SHARE * graph.total.unfused_s;
            let parts = graph.parts.iter().filter(counts);
            lines.extend(parts.map(|part| line(&format!("  {}", part.scope), part)));
        }
        writeln!(f, "{}", table(&lines))?;
        let header = ["generation", "runs", "tokens", "tokens/s at the floor", "tokens/s unfused"];
        let mut lines = vec![header.map(str::to_owned).to_vec()];
        for generation in &self.generation {
            let runs: Vec<String> =
                generation.runs.iter().map(|(graph, times)| format!("{times} x {graph}")).collect();
            lines.push(vec![
                generation.protocol.to_owned(),
                runs.join(" + "),
                generation.tokens.to_string(),
                si(generation.floor_tokens_per_s),
                si(generation.unfused_tokens_per_s),
            ]);
        }
        f.write_str(&table(&lines))
    }
}

fn line(name: &str, part: &Part) -> Vec<String> {
    let count = |value: u64| if value == 0 { "-".to_owned() } else { si(value as f64) };
    vec![
        name.to_owned(),
        count(part.work.flops()),
        count(part.work.weight_bytes),
        count(part.work.cache_bytes),
        seconds(part.floor_s),
        part.bound.to_string(),
        seconds(part.unfused_s),
    ]
}
