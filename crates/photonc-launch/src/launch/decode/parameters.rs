//! How the tokens of every sequence are drawn, as the host knows it and the device is told.

use photonc_graph::ir::bytes::narrow;
use photonc_runtime::decoder::Admission;
use std::collections::VecDeque;

/// Sampling of every sequence.
#[derive(Debug)]
pub(super) struct Parameters {
    temperature: Vec<f32>,
    top_k: Vec<i64>,
    top_p: Vec<f32>,
    min_p: Vec<f32>,
    seed: Vec<u64>,
    sample: Vec<u64>,
    /// Position of the next token, prompt included.
    first: Vec<i64>,
    changed: bool,
    /// Tokens to take in place of drawn ones, from the next on.
    forced: Vec<VecDeque<i64>>,
    /// Whether the device still has forced tokens of the burst before.
    forces: bool,
}

impl Parameters {
    pub(super) fn new(sequences: usize) -> Self {
        Parameters {
            temperature: vec![0.0; sequences],
            top_k: vec![1; sequences],
            top_p: vec![1.0; sequences],
            min_p: vec![0.0; sequences],
            seed: vec![0; sequences],
            sample: vec![0; sequences],
            first: vec![0; sequences],
            changed: false,
            forced: vec![VecDeque::new(); sequences],
            forces: true,
        }
    }

    pub(super) fn admit(&mut self, admission: &Admission<'_>) {
        let sampling = admission.draws.sampling;
        for (number, at) in admission.sequences.iter().copied().enumerate() {
            self.temperature[at] = narrow(sampling.temperature);
            self.top_k[at] = i64::try_from(sampling.top_k).unwrap_or(i64::MAX);
            self.top_p[at] = narrow(sampling.top_p);
            self.min_p[at] = narrow(sampling.min_p);
            self.seed[at] = sampling.seed;
            self.sample[at] = admission.first_sample + number as u64;
            self.first[at] = admission.prompt.len() as i64;
            self.forced[at] = admission.forced.iter().copied().collect();
        }
        self.changed = true;
    }

    pub(super) fn change(&mut self) {
        self.changed = true;
    }

    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The device counts along: what it has after a burst.
    pub(super) fn advance(&mut self, tokens: usize) {
        let tokens = i64::try_from(tokens).unwrap_or(i64::MAX);
        self.first.iter_mut().for_each(|first| *first = first.saturating_add(tokens));
    }

    /// Forced tokens `[sequences, tokens]` of the next burst; nothing where the device has none and needs none.
    pub(super) fn take_forced(&mut self, tokens: usize) -> Option<Vec<u8>> {
        let any = self.forced.iter().any(|forced| !forced.is_empty());
        if !any && !self.forces {
            return None;
        }
        self.forces = any;
        let mut bytes = Vec::with_capacity(self.forced.len() * tokens * 8);
        for forced in &mut self.forced {
            for _ in 0..tokens {
                bytes.extend(forced.pop_front().unwrap_or(-1).to_le_bytes());
            }
        }
        Some(bytes)
    }

    pub(super) fn bytes(&self) -> [(&'static str, Vec<u8>); 7] {
        let floats = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let ints = |values: &[i64]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let words = |values: &[u64]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
        [
            ("temperature", floats(&self.temperature)),
            ("top_k", ints(&self.top_k)),
            ("top_p", floats(&self.top_p)),
            ("min_p", floats(&self.min_p)),
            ("seed", words(&self.seed)),
            ("sample", words(&self.sample)),
            ("first", ints(&self.first)),
        ]
    }
}
