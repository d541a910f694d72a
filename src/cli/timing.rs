//! Times of a generation for people and tools. Owns units: seconds, tokens per second.

use super::backends::BackendName;
use crate::passes::choose_protocol::Protocol;
use crate::runtime::timing::{Phase, Timing};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Seconds of the whole, of phases and of graphs, for `tokens` new tokens.
pub fn as_json(timing: &Timing, tokens: usize) -> Value {
    let phases: Map<String, Value> = timing
        .phases
        .iter()
        .map(|(phase, spent)| (phase_name(*phase).to_owned(), json!(spent.as_secs_f64())))
        .collect();
    let graphs: Map<String, Value> = timing
        .graphs
        .iter()
        .map(|(name, time)| (name.clone(), json!({"calls": time.calls, "seconds": time.total.as_secs_f64()})))
        .collect();
    json!({
        "total_seconds": timing.total.as_secs_f64(),
        "first_token_seconds": timing.first_token.map(|time| time.as_secs_f64()),
        "tokens_per_second": per_second(tokens, timing.total),
        "phase_seconds": phases,
        "graphs": graphs,
    })
}

/// What a person wants to know.
pub fn one_line(timing: &Timing, tokens: usize, protocol: Protocol, backend: BackendName) -> String {
    let first = timing.first_token.map_or_else(String::new, |time| format!(", first after {time:.1?}"));
    format!(
        "{tokens} tokens in {:.1?}{first}, {:.1} tokens/s ({protocol} on {})",
        timing.total,
        per_second(tokens, timing.total),
        backend.name()
    )
}

/// Tokens per second; 0 where no time passed.
pub fn per_second(tokens: usize, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { tokens as f64 / time.as_secs_f64() }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Prefill => "prefill",
        Phase::Coarse => "coarse",
        Phase::Expand => "expand",
        Phase::Decode => "decode",
        Phase::Reencode => "reencode",
        Phase::HostSampling => "host_sampling",
        Phase::Score => "score",
    }
}
