//! Where the time of a generation goes. Owns the record; what is shown of it is the caller's.

use std::collections::BTreeMap;
use std::time::Duration;

/// Part of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Prompts to the state that generation starts from.
    Prefill,
    /// The coarse run-ahead.
    Coarse,
    /// From coarse states to tokens.
    Expand,
    /// A whole meta-context, where no split exists.
    Decode,
    /// Tokens back to the state.
    Reencode,
    /// Drawing outside the graphs, its graph runs included.
    HostSampling,
    /// The teacher-forced forward.
    Score,
}

/// Calls of one graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GraphTime {
    /// Number of runs.
    pub calls: u64,
    /// Time in them.
    pub total: Duration,
}

/// Times of one generation. On a device that works asynchronously a graph's time is that of its launch, unless the
/// generator profiles: then it is the device's, and graphs that run as one have one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// Time per phase.
    pub phases: BTreeMap<Phase, Duration>,
    /// Runs and time per graph.
    pub graphs: BTreeMap<String, GraphTime>,
    /// From the start to the first tokens in the caller's hands.
    pub first_token: Option<Duration>,
    /// From the start to the end.
    pub total: Duration,
}

impl Timing {
    /// Time of a phase.
    #[must_use]
    pub fn phase(&self, phase: Phase) -> Duration {
        self.phases.get(&phase).copied().unwrap_or_default()
    }

    /// The same with the times of graphs summed in phases, where there are none yet.
    #[must_use]
    pub(super) fn in_phases(mut self, phase_of: impl Fn(&str) -> Phase) -> Self {
        if self.phases.is_empty() {
            for (graph, time) in &self.graphs {
                *self.phases.entry(phase_of(graph)).or_insert(Duration::ZERO) += time.total;
            }
        }
        self
    }

    pub(super) fn add(&mut self, phase: Phase, graph: &str, spent: Duration) {
        *self.phases.entry(phase).or_default() += spent;
        let entry = self.graphs.entry(graph.to_owned()).or_default();
        entry.calls += 1;
        entry.total += spent;
    }
}
