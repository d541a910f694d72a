//! How far two texts agree, and where in them.

use photonc::runtime::decoder::DecoderSetup;
use serde_json::{Value, json};
use std::ops::AddAssign;

/// Tokens equal at the same place, of tokens compared.
#[derive(Clone, Copy, Default)]
pub struct Share {
    pub equal: usize,
    pub compared: usize,
}

impl Share {
    pub fn of(found: &[i64], other: &[i64]) -> Self {
        let equal = found.iter().zip(other).filter(|(a, b)| a == b).count();
        Share { equal, compared: found.len() }
    }

    pub fn differ(self) -> usize {
        self.compared - self.equal
    }

    pub fn percent(self) -> f64 {
        let share = 100.0 * self.equal as f64 / self.compared.max(1) as f64;
        (share * 100.0).round() / 100.0
    }
}

impl AddAssign for Share {
    fn add_assign(&mut self, other: Share) {
        self.equal += other.equal;
        self.compared += other.compared;
    }
}

/// Where a text, or many of them, agree with others.
#[derive(Clone, Default)]
pub struct Agreement {
    pub whole: Share,
    pub first_burst: Share,
    /// Tokens at the start before the first that differs.
    pub start: usize,
    /// By distance from the prompt: meta-contexts 0, 1, 2 and 3, 4 to 7, ..
    pub distance: Vec<Share>,
}

impl Agreement {
    /// Of `found` with a text that is at least as long.
    pub fn of(found: &[i64], other: &[i64], setup: DecoderSetup, meta_tokens: usize) -> Self {
        let len = found.len();
        let other = &other[..len];
        let start = found.iter().zip(other).take_while(|(a, b)| a == b).count();
        let between = |from: usize, to: usize| {
            let (from, to) = (from.min(len), to.min(len));
            Share::of(&found[from..to], &other[from..to])
        };
        let mut distance = Vec::new();
        let (mut from, mut to) = (0, meta_tokens);
        while from < len {
            distance.push(between(from, to));
            (from, to) = (to, 2 * to);
        }
        let first_burst = between(0, setup.run_ahead * meta_tokens);
        Agreement { whole: between(0, len), first_burst, start, distance }
    }

    pub fn told(&self) -> Value {
        let distance: Vec<f64> = self.distance.iter().map(|share| share.percent()).collect();
        json!({
            "percent": self.whole.percent(),
            "first_burst_percent": self.first_burst.percent(),
            "start": self.start,
            "by_distance": distance,
        })
    }
}

impl AddAssign<&Agreement> for Agreement {
    fn add_assign(&mut self, other: &Agreement) {
        self.whole += other.whole;
        self.start += other.start;
        self.first_burst += other.first_burst;
        self.distance.resize(self.distance.len().max(other.distance.len()), Share::default());
        self.distance.iter_mut().zip(&other.distance).for_each(|(into, from)| *into += *from);
    }
}
