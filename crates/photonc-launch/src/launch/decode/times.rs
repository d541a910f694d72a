//! How long graphs take on the device, by events around them. Owns the spans under way; off unless asked for, because every
//! event costs the host a call.

use super::super::device::{Device, DeviceError, Event, Stream};
use photonc_runtime::timing::GraphTime;
use std::collections::BTreeMap;
use std::time::Duration;

/// Spans that stay open at most: their events are still known then (`EVENTS_KNOWN`), whatever else is recorded between.
const MOST_OPEN: usize = 256;

/// A stretch of a stream between two events.
pub(super) struct Span {
    graph: String,
    runs: u64,
    from: Event,
    to: Event,
}

/// Times of graphs since they were last taken.
#[derive(Default)]
pub(super) struct Times {
    pub on: bool,
    /// Spans that no burst has taken along yet.
    open: Vec<Span>,
    spent: BTreeMap<String, GraphTime>,
}

impl Times {
    /// The beginning of a span.
    pub fn mark(&self, device: &dyn Device, stream: Stream) -> Result<Option<Event>, DeviceError> {
        if self.on { device.record(stream).map(Some) } else { Ok(None) }
    }

    /// The end of a span that `mark` began: `runs` runs of a graph.
    pub fn span(
        &mut self,
        device: &dyn Device,
        stream: Stream,
        graph: &str,
        runs: usize,
        from: Option<Event>,
    ) -> Result<(), DeviceError> {
        if let Some(from) = from {
            let to = device.record(stream)?;
            self.open.push(Span { graph: graph.to_owned(), runs: runs as u64, from, to });
        }
        if self.open.len() > MOST_OPEN {
            // The older half has most likely ended: a prefill of many groups goes on meanwhile.
            let older: Vec<Span> = self.open.drain(..MOST_OPEN / 2).collect();
            for span in &older {
                device.finish(span.to)?;
            }
            self.settle(device, older)?;
        }
        Ok(())
    }

    /// The spans before a point that a caller waits for.
    pub fn take_open(&mut self) -> Vec<Span> {
        std::mem::take(&mut self.open)
    }

    /// Adds spans that have ended.
    pub fn settle(&mut self, device: &dyn Device, spans: Vec<Span>) -> Result<(), DeviceError> {
        for span in spans {
            let milliseconds = device.elapsed_ms(span.from, span.to)?;
            let time = self.spent.entry(span.graph).or_default();
            time.calls += span.runs;
            time.total += Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3);
        }
        Ok(())
    }

    /// What was settled since the last call.
    pub fn take(&mut self) -> BTreeMap<String, GraphTime> {
        std::mem::take(&mut self.spent)
    }
}
