//! The teacher-forced forward over given tokens: logits and perplexity.

use super::error::RuntimeError;
use super::generator::Generator;
use super::plan::SCORE;
use super::prompt::{check_ids, pad_right};
use super::session::{Session, State};
use super::timing::{Phase, Timing};

/// Score of one text.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// Tokens scored, the first included.
    pub tokens: Vec<i64>,
    /// Logits `[tokens, V]`, row-major; those at place `j` predict token `j`.
    pub logits: Vec<f64>,
    /// Sum of `-ln p(token)` over the tokens.
    pub negative_log_likelihood: f64,
}

impl Scored {
    /// `exp` of the mean negative log-likelihood per token.
    #[must_use]
    pub fn perplexity(&self) -> f64 {
        (self.negative_log_likelihood / self.tokens.len() as f64).exp()
    }

    /// `-ln p(token)` of each token.
    fn losses(&self, vocab_size: usize) -> impl Iterator<Item = f64> {
        let logits = self.logits.chunks_exact(vocab_size);
        self.tokens.iter().zip(logits).map(|(token, logits)| negative_log(*token, logits))
    }
}

/// How a text longer than a window is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Tokens of a window, rounded up to whole meta-contexts.
    pub tokens: usize,
    /// Tokens from the start of one window to that of the next, rounded likewise: those that each window after the first
    /// scores. The rest of a window is context.
    pub stride: usize,
}

/// Score of a text that may be longer than a window.
#[derive(Clone, Debug, PartialEq)]
pub struct LongScore {
    /// Tokens scored, the first included.
    pub tokens: usize,
    /// Sum of `-ln p(token)` over the tokens.
    pub negative_log_likelihood: f64,
    /// Windows read.
    pub windows: usize,
}

impl LongScore {
    /// `exp` of the mean negative log-likelihood per token.
    #[must_use]
    pub fn perplexity(&self) -> f64 {
        (self.negative_log_likelihood / self.tokens as f64).exp()
    }

    /// Bits per byte of a text whose scored tokens are `bytes` bytes long.
    #[must_use]
    pub fn bits_per_byte(&self, bytes: usize) -> f64 {
        self.negative_log_likelihood / std::f64::consts::LN_2 / bytes as f64
    }
}

impl Generator {
    /// Scores a text of any length, each token once, in windows that overlap. `on_progress` is told of tokens done and in
    /// all.
    ///
    /// # Errors
    /// As [`Generator::score`].
    pub fn score_long(
        &mut self,
        tokens: &[i64],
        windows: Windows,
        on_progress: &dyn Fn(usize, usize),
    ) -> Result<(LongScore, Timing), RuntimeError> {
        let (meta_tokens, vocab_size) = (self.program.meta_tokens, self.program.vocab_size);
        let whole = |tokens: usize| tokens.div_ceil(meta_tokens).max(1) * meta_tokens;
        let window = whole(windows.tokens);
        let stride = whole(windows.stride).min(window);
        check_ids(0, tokens, vocab_size)?;
        let all = tokens;
        let mut timing = Timing::default();
        let (mut done, mut likelihood, mut count) = (0, 0.0, 0);
        while done < all.len() {
            on_progress(done, all.len());
            // The first window scores all it has, each further one as many tokens behind those done.
            let end = if done == 0 { window } else { done + stride }.min(all.len());
            let start = end.saturating_sub(window);
            let (scored, spent) = self.score(&[all[start..end].to_vec()])?;
            let losses = scored.iter().flat_map(|scored| scored.losses(vocab_size));
            likelihood += losses.skip(done - start).sum::<f64>();
            timing.total += spent.total;
            (done, count) = (end, count + 1);
        }
        let score = LongScore { tokens: all.len(), negative_log_likelihood: likelihood, windows: count };
        Ok((score, timing))
    }

    /// Scores texts given as token ids, one row each.
    ///
    /// # Errors
    /// A text with unknown ids, or a failure of the backend.
    pub fn score(&mut self, texts: &[Vec<i64>]) -> Result<(Vec<Scored>, Timing), RuntimeError> {
        if texts.is_empty() {
            return Err(RuntimeError::Empty { what: "the number of texts" });
        }
        let (meta_tokens, vocab_size) = (self.program.meta_tokens, self.program.vocab_size);
        for (row, tokens) in texts.iter().enumerate() {
            check_ids(row, tokens, vocab_size)?;
        }
        // Nothing reads to its right: padding to whole meta-contexts changes no logits of what stands before it.
        let rows: Vec<&[i64]> = texts.iter().map(|tokens| &tokens[..]).collect();
        let longest = rows.iter().map(|tokens| tokens.len()).fold(1, usize::max);
        let (longest, ids) = pad_right(&rows, longest.next_multiple_of(meta_tokens));
        let mut session = Session::new(&mut *self.backend, &self.program, false);
        let ids = session.upload_ints(&[rows.len(), longest], ids)?;
        let lengths = rows.iter().map(|tokens| tokens.len().div_ceil(meta_tokens)).collect();
        let state = State { lengths, ..State::default() };
        let mut results = session.run(SCORE, Phase::Score, &state, &[("ids", &ids)])?;
        let logits = results.take("logits")?;
        let logits = session.download_floats(&logits)?;
        session.timing.total = session.started.elapsed();
        let timing = session.timing;
        for (row, (tokens, all)) in texts.iter().zip(logits.chunks_exact(longest * vocab_size)).enumerate() {
            let own = &all[..tokens.len() * vocab_size];
            if let Some(at) = own.iter().position(|logit| !logit.is_finite()) {
                return Err(RuntimeError::NotADistribution { row, token: at / vocab_size });
            }
        }
        let scored = texts.iter().zip(logits.chunks_exact(longest * vocab_size)).map(|(tokens, all)| {
            let logits = all[..tokens.len() * vocab_size].to_vec();
            let places = tokens.iter().zip(logits.chunks_exact(vocab_size));
            let negative_log_likelihood = places.map(|(token, logits)| negative_log(*token, logits)).sum();
            Scored { tokens: tokens.clone(), logits, negative_log_likelihood }
        });
        Ok((scored.collect(), timing))
    }
}

/// `-ln softmax(logits)[token]`.
fn negative_log(token: i64, logits: &[f64]) -> f64 {
    let peak = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mass: f64 = logits.iter().map(|logit| (logit - peak).exp()).sum();
    let own = usize::try_from(token).ok().and_then(|token| logits.get(token)).copied();
    mass.ln() + peak - own.unwrap_or(f64::NEG_INFINITY)
}
