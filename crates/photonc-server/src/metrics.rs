//! What `/metrics` shows: vLLM's names where it has one for the same, so that its dashboards work, and `photonc_` names for
//! what only this engine has. Owns names, labels, buckets and when each is counted.

use super::engine::Engine;
use photonc_runtime::request::{Burst, Finish, Request};
use photonc_runtime::timing::{Phase, Timing};
use prometheus::core::Collector;
use prometheus::{
    CounterVec, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry, TextEncoder,
};
use std::collections::BTreeMap;
use std::time::Instant;

const MODEL: &str = "model_name";

/// Seconds, as vLLM has them, and shorter ones.
const SECONDS: [f64; 24] = [
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];

/// Tokens.
const TOKENS: [f64; 15] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4];

/// Every measured value of a server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    running: GaugeVec,
    waiting: GaugeVec,
    cache_usage: GaugeVec,
    rows: GaugeVec,
    prompt_tokens: IntCounterVec,
    generation_tokens: IntCounterVec,
    success: IntCounterVec,
    first_token: HistogramVec,
    per_token: HistogramVec,
    between_tokens: HistogramVec,
    whole: HistogramVec,
    prompt_lengths: HistogramVec,
    generation_lengths: HistogramVec,
    bursts: IntCounterVec,
    run_ahead: HistogramVec,
    wasted: IntCounterVec,
    busy_rows: IntCounterVec,
    prefilled: IntCounterVec,
    shared_prompts: IntCounterVec,
    coarse: CounterVec,
    expansion: CounterVec,
    /// Answers by route, method and status.
    pub answers: IntCounterVec,
    /// Streams that are open.
    pub streams: IntGauge,
    /// Connections that are open.
    pub connections: IntGauge,
    /// Requests refused because the queue was full.
    pub refused: IntCounter,
}

/// Makes collectors and registers them.
struct Making(Registry);

impl Making {
    fn keep<C: Collector + Clone + 'static>(&mut self, made: prometheus::Result<C>) -> prometheus::Result<C> {
        let made = made?;
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn gauge(&mut self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<GaugeVec> {
        self.keep(GaugeVec::new(Opts::new(name, help), labels))
    }

    fn count(&mut self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.keep(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn sum(&mut self, name: &str, help: &str) -> prometheus::Result<CounterVec> {
        self.keep(CounterVec::new(Opts::new(name, help), &[MODEL]))
    }

    fn spread(&mut self, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<HistogramVec> {
        self.keep(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), &[MODEL]))
    }
}

impl Metrics {
    /// All of them, at zero.
    ///
    /// # Errors
    /// Two have one name.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let mut m = Making(registry.clone());
        let by_model = &[MODEL];
        Ok(Metrics {
            running: m.gauge("vllm:num_requests_running", "Requests that have a row.", by_model)?,
            waiting: m.gauge("vllm:num_requests_waiting", "Requests that wait for a row.", by_model)?,
            cache_usage: m.gauge(
                "vllm:kv_cache_usage_perc",
                "Part of the rows that are taken, 0 to 1.",
                by_model,
            )?,
            rows: m.gauge("photonc_rows", "Rows of a replica.", &[MODEL, "replica"])?,
            prompt_tokens: m.count("vllm:prompt_tokens_total", "Tokens of prompts.", by_model)?,
            generation_tokens: m.count("vllm:generation_tokens_total", "New tokens.", by_model)?,
            success: m.count(
                "vllm:request_success_total",
                "Sequences by why they ended.",
                &[MODEL, "finished_reason"],
            )?,
            first_token: m.spread(
                "vllm:time_to_first_token_seconds",
                "From submission to the first tokens.",
                &SECONDS,
            )?,
            per_token: m.spread(
                "vllm:time_per_output_token_seconds",
                "Time between bursts of a sequence, shared out over the tokens of the later one.",
                &SECONDS,
            )?,
            between_tokens: m.spread(
                "vllm:inter_token_latency_seconds",
                "The same under its newer name.",
                &SECONDS,
            )?,
            whole: m.spread("vllm:e2e_request_latency_seconds", "From submission to the end.", &SECONDS)?,
            prompt_lengths: m.spread("vllm:request_prompt_tokens", "Tokens of a prompt.", &TOKENS)?,
            generation_lengths: m.spread(
                "vllm:request_generation_tokens",
                "New tokens of a sequence.",
                &TOKENS,
            )?,
            bursts: m.count("photonc_bursts_total", "Bursts started.", by_model)?,
            run_ahead: m.spread(
                "photonc_run_ahead_meta_contexts",
                "Meta-contexts of a burst.",
                &[1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0, 64.0],
            )?,
            wasted: m.count("photonc_wasted_tokens_total", "Tokens computed behind an end.", by_model)?,
            busy_rows: m.count("photonc_busy_rows_total", "Rows that took part in bursts.", by_model)?,
            prefilled: m.count(
                "photonc_prefill_tokens_total",
                "Tokens of prompts that went through the encoders.",
                by_model,
            )?,
            shared_prompts: m.count(
                "photonc_shared_prompt_tokens_total",
                "Tokens of prompts that an equal prompt beside them was encoded for.",
                by_model,
            )?,
            coarse: m
                .sum("photonc_coarse_seconds_total", "Time in the coarse graph, where the backend tells.")?,
            expansion: m
                .sum("photonc_expansion_seconds_total", "Time in the expansion, where the backend tells.")?,
            answers: m.count("photonc_http_answers_total", "Answers.", &["route", "method", "status"])?,
            streams: m.keep(IntGauge::new("photonc_streams", "Streams that are open."))?,
            connections: m.keep(IntGauge::new("photonc_connections", "Connections that are open."))?,
            refused: m.keep(IntCounter::new(
                "photonc_refused_total",
                "Requests refused because the queue was full.",
            ))?,
            registry,
        })
    }

    /// The text form, with what `engines` do now.
    ///
    /// # Errors
    /// A value that the form has no way to say.
    pub fn text(&self, engines: &[std::sync::Arc<Engine>]) -> prometheus::Result<String> {
        for engine in engines {
            let name = &[engine.name.as_str()];
            let (waiting, running) = engine.load_now();
            self.waiting.with_label_values(name).set(waiting as f64);
            self.running.with_label_values(name).set(running as f64);
            let rows = self.rows_of(&engine.name);
            self.cache_usage.with_label_values(name).set((running as f64 / rows.max(1.0)).min(1.0));
            let totals = engine.totals();
            for (counter, total) in [
                (&self.wasted, totals.wasted_tokens),
                (&self.busy_rows, totals.busy_rows),
                (&self.prefilled, totals.prefill.encoded),
                (&self.shared_prompts, totals.prefill.shared),
            ] {
                let counter = counter.with_label_values(name);
                counter.reset();
                counter.inc_by(total as u64);
            }
        }
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// Notes the rows of a replica.
    pub fn rows(&self, model: &str, replica: usize, rows: usize) {
        self.rows.with_label_values(&[model, &replica.to_string()]).set(rows as f64);
    }

    fn rows_of(&self, model: &str) -> f64 {
        let families = self.rows.collect();
        let all = families.iter().flat_map(prometheus::proto::MetricFamily::get_metric);
        let own = all.filter(|metric| {
            metric.get_label().iter().any(|label| label.name() == MODEL && label.value() == model)
        });
        own.map(|metric| metric.get_gauge().get_value()).sum()
    }

    /// What is counted of a request.
    #[must_use]
    pub fn request(&self, model: &str, request: &Request) -> Heard {
        let name = &[model];
        let prompt_tokens = request.prompt.len();
        Heard {
            submitted: Instant::now(),
            prompt_tokens,
            samples: BTreeMap::new(),
            left: request.samples,
            first_token: self.first_token.with_label_values(name),
            per_token: self.per_token.with_label_values(name),
            between_tokens: self.between_tokens.with_label_values(name),
            whole: self.whole.with_label_values(name),
            prompts: self.prompt_tokens.with_label_values(name),
            generated: self.generation_tokens.with_label_values(name),
            prompt_lengths: self.prompt_lengths.with_label_values(name),
            generation_lengths: self.generation_lengths.with_label_values(name),
            ends: ["stop", "length", "abort"].map(|end| self.success.with_label_values(&[model, end])),
        }
    }

    /// What is counted of a decoder.
    #[must_use]
    pub fn decoder(&self, model: &str) -> DecoderMetrics {
        let name = &[model];
        DecoderMetrics {
            bursts: self.bursts.with_label_values(name),
            run_ahead: self.run_ahead.with_label_values(name),
            coarse: self.coarse.with_label_values(name),
            expansion: self.expansion.with_label_values(name),
        }
    }
}

/// What is counted of a decoder.
#[derive(Clone, Debug)]
pub struct DecoderMetrics {
    bursts: IntCounter,
    run_ahead: Histogram,
    coarse: prometheus::Counter,
    expansion: prometheus::Counter,
}

impl DecoderMetrics {
    /// A burst of so many meta-contexts has started.
    pub fn burst(&self, meta_contexts: usize) {
        self.bursts.inc();
        self.run_ahead.observe(meta_contexts as f64);
    }

    /// Graphs have taken these times.
    pub fn times(&self, timing: &Timing) {
        self.coarse.inc_by(timing.phase(Phase::Coarse).as_secs_f64());
        self.expansion.inc_by(timing.phase(Phase::Expand).as_secs_f64());
    }
}

/// What is counted of a request on its way.
#[derive(Debug)]
pub struct Heard {
    submitted: Instant,
    prompt_tokens: usize,
    /// When each sample last had tokens, and how many it has.
    samples: BTreeMap<usize, (Instant, usize)>,
    /// Samples that have not ended.
    left: usize,
    first_token: Histogram,
    per_token: Histogram,
    between_tokens: Histogram,
    whole: Histogram,
    prompts: IntCounter,
    generated: IntCounter,
    prompt_lengths: Histogram,
    generation_lengths: Histogram,
    ends: [IntCounter; 3],
}

impl Heard {
    /// Counts a burst.
    pub fn burst(&mut self, burst: &Burst<'_>) {
        let now = Instant::now();
        let count = burst.tokens.len();
        if count > 0 && self.samples.is_empty() {
            self.first_token.observe((now - self.submitted).as_secs_f64());
            self.prompts.inc_by(self.prompt_tokens as u64);
            self.prompt_lengths.observe(self.prompt_tokens as f64);
        }
        if count > 0 {
            self.generated.inc_by(count as u64);
            let (before, tokens) = self.samples.entry(burst.sample).or_insert((now, 0));
            if *tokens > 0 {
                let each = (now - *before).as_secs_f64() / count as f64;
                for _ in 0..count {
                    self.per_token.observe(each);
                    self.between_tokens.observe(each);
                }
            }
            (*before, *tokens) = (now, *tokens + count);
        }
        let Some(finish) = burst.finish else { return };
        let end = match finish {
            Finish::Stop | Finish::Eos => 0,
            Finish::Length => 1,
            Finish::Cancelled | Finish::Deadline => 2,
        };
        self.ends[end].inc();
        self.generation_lengths
            .observe(self.samples.get(&burst.sample).map_or(0, |(_, tokens)| *tokens) as f64);
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.whole.observe((now - self.submitted).as_secs_f64());
        }
    }
}
