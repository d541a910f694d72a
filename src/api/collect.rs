//! Whole outputs of a stream. Owns the order: by prompt, then by sample.

use super::error::Error;
use super::stream::{Ended, Next, Piece, Stream};
use crate::runtime::logprobs::TokenLogprobs;
use crate::runtime::request::{Finish, StateRecord};
use std::time::Duration;

/// How long nobody is asked whether to go on.
const POLL: Duration = Duration::from_millis(50);

/// A finished sequence.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Number of the sample, from 0.
    pub index: usize,
    /// Its text up to a stop string; `None` where the model has no tokenizer.
    pub text: Option<String>,
    /// Its tokens, without the id that ended it.
    pub tokens: Vec<i64>,
    /// Their log-probabilities, if they were asked for.
    pub logprobs: Vec<TokenLogprobs>,
    /// Why it ended.
    pub finish: Option<Finish>,
    /// Logits `[tokens of its meta-contexts, V]`, row-major, if they were to be kept.
    pub logits: Vec<f64>,
}

/// Everything of a prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// Log-probabilities of the prompt's tokens, if they were asked for.
    pub prompt_logprobs: Option<Vec<TokenLogprobs>>,
    /// Its sequences.
    pub samples: Vec<Sample>,
    /// States, if they were to be kept.
    pub states: Vec<StateRecord>,
}

impl Stream {
    /// Waits for everything. `poll` is asked several times a second whether to go on.
    ///
    /// # Errors
    /// As [`Stream::next`], or what `poll` says; then everything is cancelled.
    pub fn collect<E: From<Error>>(
        mut self,
        poll: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<Vec<Output>, E> {
        let sample = |index| Sample { index, ..Sample::default() };
        let output = || Output { samples: (0..self.samples).map(sample).collect(), ..Output::default() };
        let mut outputs: Vec<Output> = std::iter::repeat_with(output).take(self.left).collect();
        loop {
            match self.next(POLL)? {
                Next::Over => return Ok(outputs),
                Next::Waiting => {}
                Next::Piece(piece) => {
                    let prompt = outputs.get_mut(piece.prompt);
                    let own = prompt.and_then(|output| output.samples.get_mut(piece.sample));
                    own.ok_or_else(|| Error::internal("a piece of no sequence"))?.take(piece);
                }
                Next::Ended(ended) => {
                    let own = outputs.get_mut(ended.prompt);
                    own.ok_or_else(|| Error::internal("the end of no prompt"))?.end(ended);
                }
            }
            poll()?;
        }
    }
}

impl Sample {
    fn take(&mut self, piece: Piece) {
        if let Some(text) = piece.text {
            self.text.get_or_insert_default().push_str(&text);
        }
        self.tokens.extend(piece.tokens);
        self.logprobs.extend(piece.logprobs);
        self.finish = piece.finish.or(self.finish);
    }
}

impl Output {
    fn end(&mut self, ended: Ended) {
        self.prompt_logprobs = ended.prompt_logprobs;
        self.states = ended.states;
        for (sample, logits) in self.samples.iter_mut().zip(ended.logits) {
            sample.logits = logits;
        }
    }
}
