//! Speed of a decoder: every row has a prompt, all tokens are drawn to the end, nothing ends early. Owns what counts as the
//! first token, as steady generation and as the whole; the caller owns how often and with which sizes.

use super::decoder::Decoder;
use super::error::RuntimeError;
use super::random::uniform;
use super::request::Request;
use super::schedule::{Limits, Scheduler};
use super::timing::GraphTime;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Tokens of a prompt, and new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Regime {
    /// Of each prompt.
    pub prompt_tokens: usize,
    /// Drawn after it, each sequence.
    pub new_tokens: usize,
}

impl Regime {
    /// Long prompts, little drawn: the paper's PF.
    pub const PREFILL: Regime = Regime { prompt_tokens: 2048, new_tokens: 128 };
    /// Short prompts, much drawn: the paper's DE.
    pub const DECODE: Regime = Regime { prompt_tokens: 128, new_tokens: 2048 };

    /// Meta-contexts of a prompt, what does not fill one left out.
    #[must_use]
    pub fn prompt_meta_contexts(self, meta_tokens: usize) -> usize {
        self.prompt_tokens / meta_tokens.max(1)
    }

    /// As measured: prompts of whole meta-contexts, but for those that are shorter than one.
    #[must_use]
    pub fn in_meta_contexts(self, meta_tokens: usize) -> Self {
        match self.prompt_meta_contexts(meta_tokens) {
            0 => self,
            whole => Regime { prompt_tokens: whole * meta_tokens, ..self },
        }
    }

    /// Bursts of `run_ahead` meta-contexts until everything is drawn, behind what a prompt has of an unfinished one.
    #[must_use]
    pub fn bursts(self, meta_tokens: usize, run_ahead: usize) -> usize {
        let meta_tokens = meta_tokens.max(1);
        let tokens = self.prompt_tokens % meta_tokens + self.new_tokens;
        tokens.div_ceil(meta_tokens).div_ceil(run_ahead.max(1))
    }

    /// Meta-contexts that a row must have room for, one more than a burst at least.
    #[must_use]
    pub fn capacity(self, meta_tokens: usize, run_ahead: usize) -> usize {
        (self.prompt_meta_contexts(meta_tokens) + self.bursts(meta_tokens, run_ahead) * run_ahead)
            .max(run_ahead + 1)
    }

    /// `count` prompts of the same random tokens in every run.
    #[must_use]
    pub fn prompts(self, count: usize, vocab_size: usize) -> Vec<Vec<i64>> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a uniform below 1 times the vocabulary is a token id"
        )]
        let token =
            |row: usize, at: usize| (f64::from(uniform(0, row as u64, at as u64)) * vocab_size as f64) as i64;
        (0..count).map(|row| (0..self.prompt_tokens).map(|at| token(row, at)).collect()).collect()
    }
}

/// One repetition.
#[derive(Clone, Debug, PartialEq)]
pub struct Speed {
    /// Tokens asked for, over all sequences.
    pub tokens: usize,
    /// From the prompts to the first burst in the host's hands.
    pub first_token: Duration,
    /// From the prompts to the last token in the host's hands.
    pub total: Duration,
    /// Tokens a second between the first burst and the last but one; `None` where there are fewer than three. While the
    /// first is drawn the second goes on beside it, and the last has the device for itself: neither is as the others are.
    pub steady_tokens_per_s: Option<f64>,
    /// Runs and device time of each graph.
    pub graphs: BTreeMap<String, GraphTime>,
}

impl Speed {
    /// Tokens a second, prefill included.
    #[must_use]
    pub fn tokens_per_s(&self) -> f64 {
        if self.total.is_zero() { 0.0 } else { self.tokens as f64 / self.total.as_secs_f64() }
    }
}

/// Fills every row of an empty decoder with a prompt, draws `regime.new_tokens` for one sequence of each, greedily, and
/// empties the rows.
///
/// # Errors
/// The prompts do not fit the decoder, or the device failed.
pub fn once(
    decoder: &mut dyn Decoder,
    regime: Regime,
    limits: Limits,
    prompts: &[Vec<i64>],
) -> Result<Speed, RuntimeError> {
    let setup = decoder.setup();
    let rows = prompts.len().min(setup.rows);
    decoder.take_times();
    let began = Instant::now();
    let mut scheduler = Scheduler::new(decoder, limits);
    for (number, prompt) in prompts.iter().take(rows).enumerate() {
        let request = Request::greedy(setup.protocol, prompt.clone(), regime.new_tokens);
        scheduler.submit(number, request, Box::new(|_| {}))?;
    }
    let mut arrivals = Vec::new();
    let mut bursts = 0;
    while scheduler.turn()? {
        if scheduler.totals().bursts > bursts {
            bursts = scheduler.totals().bursts;
            arrivals.push(began.elapsed());
        }
    }
    let total = arrivals.last().copied().unwrap_or_else(|| began.elapsed());
    Ok(Speed {
        tokens: rows * regime.new_tokens,
        first_token: arrivals.first().copied().unwrap_or(total),
        total,
        steady_tokens_per_s: steady(rows * setup.run_ahead * limits.meta_tokens, &arrivals),
        graphs: decoder.take_times().graphs,
    })
}

/// From the tokens of a burst and the times at which the bursts were in the host's hands.
fn steady(burst_tokens: usize, arrivals: &[Duration]) -> Option<f64> {
    let [first, between @ .., _] = arrivals else { return None };
    let spent = between.last()?.saturating_sub(*first);
    let tokens = between.len() * burst_tokens;
    (tokens > 0 && !spent.is_zero()).then(|| tokens as f64 / spent.as_secs_f64())
}

/// `repetitions` runs, fastest first, after one of two bursts that counts for nothing: it has run everything there is.
///
/// # Errors
/// As `once`.
pub fn repeat(
    decoder: &mut dyn Decoder,
    regime: Regime,
    limits: Limits,
    prompts: &[Vec<i64>],
    repetitions: usize,
) -> Result<Vec<Speed>, RuntimeError> {
    let two_bursts = 2 * decoder.setup().run_ahead * limits.meta_tokens;
    let warm_up = Regime { new_tokens: regime.new_tokens.min(two_bursts), ..regime };
    once(decoder, warm_up, limits, prompts)?;
    let runs = (0..repetitions).map(|_| once(decoder, regime, limits, prompts));
    let mut speeds = runs.collect::<Result<Vec<Speed>, _>>()?;
    speeds.sort_by_key(|speed| speed.total);
    Ok(speeds)
}

#[cfg(test)]
mod tests {
    use super::steady;
    use std::time::Duration;

    #[test]
    fn neither_the_first_burst_nor_the_last_is_steady() {
        let arrivals = [4, 5, 6, 20].map(Duration::from_secs);
        // Two bursts of 3 meta-contexts of 4 tokens in 2 rows, within 2 s.
        assert_eq!(steady(2 * 3 * 4, &arrivals), Some(24.0));
        assert_eq!(steady(2 * 3 * 4, &arrivals[..2]), None);
        assert_eq!(steady(2 * 3 * 4, &[]), None);
    }
}
