//! What a benchmark of the recorded decoder says: rates, memory, and shares of the measured ceilings. Owns the counts behind the shares: the
//! weights and caches that the graphs must read (MBU) and the operations of their products (MFU), whatever the kernels did.

use super::{peak, peak_memory_bytes};
use crate::cli::Failure;
use crate::cli::backends::BackendName;
use crate::inspect::{Setting, Subject, Work};
use crate::ir::dtype::Dtype;
use crate::runtime::launch::bench::{BenchPoint, BenchSetting};
use crate::runtime::launch::roofline::Roofline;
use crate::runtime::measure::Speed;
use crate::runtime::plan::ENCODE;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

const GIB: f64 = (1u64 << 30) as f64;

/// One measured batch.
pub(super) struct Measured {
    setting: BenchSetting,
    point: BenchPoint,
    median: Speed,
    ceilings: Roofline,
    /// On the processor.
    on_host: bool,
    /// Graphs as they were timed, with the work of all their runs.
    graphs: Vec<(String, Work)>,
}

/// Shares of the ceilings, from 0 to 1.
#[derive(Clone, Copy)]
struct Shares {
    bandwidth: f64,
    arithmetic: f64,
}

impl Measured {
    pub(super) fn of(
        subject: &Subject,
        setting: BenchSetting,
        point: BenchPoint,
        (ceilings, counted): (Roofline, Option<Dtype>),
    ) -> Result<Self, Failure> {
        let median = point.median().cloned().ok_or_else(|| Failure::bug(&"no measurements"))?;
        let work = |names: &str, runs: u64| -> Work {
            let sizes = sizes(&point, names == ENCODE, counted);
            let sheets = names.split(" + ").filter_map(|name| subject.sheet(name, &sizes));
            let once: Work = sheets.map(|sheet| sheet.root.work).sum();
            match names {
                // The prompts go in as many groups, each of which reads the weights.
                ENCODE => Work { weight_bytes: once.weight_bytes.saturating_mul(runs), ..once },
                _ => times(once, runs),
            }
        };
        let graphs =
            median.graphs.iter().map(|(name, time)| (name.clone(), work(name, time.calls))).collect();
        Ok(Measured { setting, median, ceilings, on_host: counted.is_none(), graphs, point })
    }

    pub(super) fn batch(&self) -> usize {
        self.point.setup.rows
    }

    pub(super) fn tokens_per_second(&self) -> f64 {
        self.median.tokens_per_s()
    }

    fn shares(&self, work: Work, seconds: f64) -> Shares {
        if seconds <= 0.0 {
            return Shares { bandwidth: 0.0, arithmetic: 0.0 };
        }
        Shares {
            bandwidth: work.floor_bytes() as f64 / seconds / self.ceilings.read_bytes_per_s,
            arithmetic: work.matmul_flops as f64 / seconds / self.ceilings.product_flops,
        }
    }

    /// Largest resident memory of this process so far; a GPU's is another.
    fn peak_memory_bytes(&self) -> Option<u64> {
        if self.on_host { peak_memory_bytes() } else { None }
    }

    fn whole(&self) -> Shares {
        self.shares(self.graphs.iter().map(|(_, work)| *work).sum(), self.median.total.as_secs_f64())
    }

    /// Tokens a second for each GiB of keys and values of one sequence, as the paper counts it.
    fn per_gib(&self, kv_bytes: usize) -> f64 {
        self.tokens_per_second() / (kv_bytes.max(1) as f64 / GIB)
    }

    pub(super) fn json(&self) -> Value {
        let (kv, whole) = (self.point.kv, self.whole());
        let mut graphs = Map::new();
        for (name, work) in &self.graphs {
            let Some(time) = self.median.graphs.get(name) else { continue };
            let shares = self.shares(*work, time.total.as_secs_f64());
            let value = json!({
                "runs": time.calls,
                "device_seconds": time.total.as_secs_f64(),
                "mbu": shares.bandwidth,
                "mfu": shares.arithmetic,
                "floor": shares.floor(),
            });
            graphs.insert(name.clone(), value);
        }
        json!({
            "batch": self.batch(),
            "run_ahead": self.point.setup.run_ahead,
            "tokens_per_second": self.tokens_per_second(),
            "steady_tokens_per_second": self.median.steady_tokens_per_s,
            "first_token_seconds": self.median.first_token.as_secs_f64(),
            "total_seconds":
                self.point.speeds.iter().map(|speed| speed.total.as_secs_f64()).collect::<Vec<_>>(),
            "mbu": whole.bandwidth,
            "mfu": whole.arithmetic,
            "floor": whole.floor(),
            "kv_bytes_per_sample": {
                "top": kv.top,
                "persistent": kv.persistent,
                "prompt": kv.prompt,
                "windows": kv.windows,
                "all": kv.all(),
            },
            "tokens_per_second_per_gib": {"top": self.per_gib(kv.top), "all": self.per_gib(kv.all())},
            "weight_bytes": self.point.weight_bytes,
            "decoder_bytes": self.point.decoder_bytes,
            "peak_memory_bytes": self.peak_memory_bytes(),
            "graphs": graphs,
        })
    }

    pub(super) fn text(&self, backend: BackendName) -> String {
        let (kv, whole) = (self.point.kv, self.whole());
        let on_host = self.on_host;
        let regime = self.setting.regime;
        let mut text = format!(
            "{} on {}, batch {}, run-ahead {}, {} tokens in, {} out, median of {}\n",
            self.setting.protocol,
            backend.name(),
            self.batch(),
            self.point.setup.run_ahead,
            regime.prompt_tokens,
            regime.new_tokens,
            self.point.speeds.len()
        );
        let mut line = |name: &str, words: String| {
            let _infallible = writeln!(text, "{name:<19} {words}");
        };
        line("tokens/s", format!("{:.1} prefill included", self.tokens_per_second()));
        if let Some(steady) = self.median.steady_tokens_per_s {
            line("", format!("{steady:.1} between the first burst and the last"));
        }
        line("time to first token", format!("{:.1?}", self.median.first_token));
        line("of the ceilings", whole.shown(on_host));
        let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        line(
            "KV per sample",
            format!("{:.3} MiB top level, {:.3} MiB with prompt and windows", mib(kv.top), mib(kv.all())),
        );
        line(
            "tokens/s per GiB",
            format!("{:.0} of top-level KV, {:.0} of all KV", self.per_gib(kv.top), self.per_gib(kv.all())),
        );
        line(
            "device memory",
            format!(
                "{:.0} MiB weights, {:.0} MiB decoder",
                mib(self.point.weight_bytes),
                mib(self.point.decoder_bytes)
            ),
        );
        if let Some(bytes) = self.peak_memory_bytes() {
            line("peak memory", peak(bytes));
        }
        for (name, work) in &self.graphs {
            let Some(time) = self.median.graphs.get(name) else { continue };
            let each = time.total / u32::try_from(time.calls.max(1)).unwrap_or(u32::MAX);
            let shares = self.shares(*work, time.total.as_secs_f64()).shown(on_host);
            line(&format!("  {name}"), format!("{:>6} runs of {each:.1?}, {shares}", time.calls));
        }
        text
    }
}

impl Shares {
    /// Of the time that the bytes and the operations take one after the other, as on a processor, whose cores do both.
    fn floor(self) -> f64 {
        self.bandwidth + self.arithmetic
    }

    fn shown(self, on_host: bool) -> String {
        let (bandwidth, arithmetic) = (self.bandwidth * 100.0, self.arithmetic * 100.0);
        let both = format!("{bandwidth:.1} % MBU, {arithmetic:.1} % MFU");
        if on_host { format!("{both}, {:.1} % of the floor", self.floor() * 100.0) } else { both }
    }
}

/// Sizes that a run's work is counted for: prompts as they are, and else caches as full as they are on the way on average.
fn sizes(point: &BenchPoint, encodes: bool, precision: Option<Dtype>) -> Setting {
    let on_the_way = point.prompt_meta_contexts + point.new_meta_contexts.div_ceil(2);
    Setting {
        batch: point.setup.sequences,
        run_ahead: point.setup.run_ahead,
        capacity: if encodes { point.prompt_meta_contexts } else { on_the_way },
        precision,
    }
}

fn times(work: Work, runs: u64) -> Work {
    Work {
        matmul_flops: work.matmul_flops.saturating_mul(runs),
        other_flops: work.other_flops.saturating_mul(runs),
        weight_bytes: work.weight_bytes.saturating_mul(runs),
        cache_bytes: work.cache_bytes.saturating_mul(runs),
        activation_bytes: work.activation_bytes.saturating_mul(runs),
    }
}
