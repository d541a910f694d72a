//! Scores of given tokens: their log-probabilities under the teacher-forced forward, and its logits.

use super::collect::Output;
use super::error::Error;
use super::model::Model;
use crate::runtime::logprobs::TokenLogprobs;
use crate::runtime::request::Request;

/// Score of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// Of each token, the first included.
    pub logprobs: Vec<TokenLogprobs>,
}

impl Score {
    /// Sum of `-ln p(token)`.
    #[must_use]
    pub fn negative_log_likelihood(&self) -> f64 {
        -self.logprobs.iter().map(|one| one.logprob).sum::<f64>()
    }

    /// `exp` of the mean negative log-likelihood per token.
    #[must_use]
    pub fn perplexity(&self) -> f64 {
        (self.negative_log_likelihood() / self.logprobs.len() as f64).exp()
    }
}

impl Model {
    /// The log-probability of each token of a text, and of the `top` most probable ones at its place. `poll` is asked several
    /// times a second whether to go on.
    ///
    /// # Errors
    /// No token, more than the model reads at once, unknown ids, or the backend failed.
    pub fn score<E: From<Error>>(
        &self,
        tokens: &[i64],
        top: usize,
        poll: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<Score, E> {
        self.check_length(tokens)?;
        let mut prompt = tokens.to_vec();
        // No room is left behind the prompt, so its last token is what comes next.
        let full = tokens.len() == self.program().max_tokens;
        let forced: Vec<i64> = if full { prompt.pop().into_iter().collect() } else { Vec::new() };
        let request = Request {
            logprobs: full.then_some(top),
            prompt_logprobs: Some(top),
            forced,
            ..Request::greedy(self.protocol(None)?, prompt, 1)
        };
        let stream = self.submit(vec![request], &[], None)?;
        let Output { prompt_logprobs, samples, .. } =
            stream.collect(poll)?.pop().ok_or_else(|| Error::internal("a score without an output"))?;
        let mut logprobs = prompt_logprobs.unwrap_or_default();
        if full {
            logprobs.extend(samples.into_iter().flat_map(|sample| sample.logprobs));
        }
        Ok(Score { logprobs })
    }

    /// Logits `[tokens, V]` of a text, row-major, each token's from what stands before it. They are computed beside the queue,
    /// with the weights once more in memory.
    ///
    /// # Errors
    /// As [`Model::score`].
    pub fn score_logits(&self, tokens: &[i64]) -> Result<Vec<f64>, Error> {
        self.check_length(tokens)?;
        let texts = vec![tokens.to_vec()];
        self.at_desk(move |generator| {
            let (mut scored, _) = generator.score(&texts)?;
            let scored = scored.pop().ok_or_else(|| Error::internal("a text without a score"))?;
            Ok(scored.logits)
        })
    }

    fn check_length(&self, tokens: &[i64]) -> Result<(), Error> {
        let (found, most) = (tokens.len(), self.program().max_tokens);
        match found {
            0 => Err(Error::refused("there is no token to score")),
            _ if found > most => Err(Error::refused(format!(
                "{found} tokens, and the model reads {most} at once; score fewer"
            ))),
            _ => Ok(()),
        }
    }
}
