//! Tokens of a client's request on their way to text: one piece after the other, in whole characters, up to the stop strings.
//! Owns what becomes of a burst, when its tokens are let go, and the errors that end it.

use super::engine::{Event, Running};
use super::error::ApiError;
use super::options::StreamInterval;
use axum::http::StatusCode;
use photonc_runtime::logprobs::TokenLogprobs;
use photonc_runtime::request::Finish;
use photonc_text::speech::Speech;
use photonc_text::tokenizer::Tokenizer;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Part of the time until the next burst over which a burst is let go: the rest is for clocks that differ.
const SPREAD: f64 = 0.9;

/// New tokens of a choice and the text that is certain with them.
#[derive(Clone, Debug, Default)]
pub struct Piece {
    /// Place of the choice: prompt times `n` and the sample.
    pub choice: usize,
    /// Text that is certain now.
    pub text: String,
    /// The tokens.
    pub tokens: Vec<i64>,
    /// Their log-probabilities, if they were asked for.
    pub logprobs: Vec<TokenLogprobs>,
    /// Why the choice ended, with its last piece.
    pub finish: Option<Finish>,
}

/// What comes out.
#[derive(Debug)]
pub enum Step {
    /// Tokens.
    Piece(Piece),
    /// A prompt is done, with the log-probabilities of its tokens if they were asked for.
    Prompt(usize, Option<Vec<TokenLogprobs>>),
}

/// How text is made.
#[derive(Clone, Debug)]
pub struct Voice {
    /// What makes text of tokens; without one there is none.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// What text ends at.
    pub stops: Arc<[String]>,
}

/// A choice on its way.
struct Choice {
    speech: Option<Speech>,
    /// When its last burst came, and the time between the last two.
    last_burst: Option<Instant>,
    gap: Option<Duration>,
}

/// The choices of a request on their way.
pub struct Flow {
    running: Running,
    samples: usize,
    choices: Vec<Choice>,
    /// Prompts that are not done.
    left: usize,
    interval: StreamInterval,
    /// What is to be let go, and when.
    held: VecDeque<(Instant, Step)>,
    /// New tokens so far.
    pub new_tokens: usize,
}

impl Flow {
    /// The choices of so many prompts with so many samples each.
    #[must_use]
    pub fn new(
        running: Running,
        [prompts, samples]: [usize; 2],
        voice: &Voice,
        interval: StreamInterval,
    ) -> Self {
        let choice = |_| Choice {
            speech: voice
                .tokenizer
                .as_ref()
                .map(|one| Speech::new(Arc::clone(one), Arc::clone(&voice.stops))),
            last_burst: None,
            gap: None,
        };
        Flow {
            running,
            samples,
            choices: (0..prompts * samples).map(choice).collect(),
            left: prompts,
            interval,
            held: VecDeque::new(),
            new_tokens: 0,
        }
    }

    /// What comes next; `None` once every prompt is done.
    ///
    /// # Errors
    /// The request failed, was too late, or the engine is gone; nothing comes after it.
    pub async fn next(&mut self) -> Result<Option<Step>, ApiError> {
        loop {
            let due = self.held.front().map(|(due, _)| *due);
            if due.is_some_and(|due| due <= Instant::now()) || (self.left == 0 && due.is_none()) {
                return Ok(self.held.pop_front().map(|(_, step)| step));
            }
            let event = match due {
                // Everything has come: what is held is let go at its time.
                Some(due) if self.left == 0 => {
                    sleep_until(due).await;
                    continue;
                }
                Some(due) => tokio::select! {
                    () = sleep_until(due) => continue,
                    event = self.running.next() => event,
                },
                None => self.running.next().await,
            };
            match event {
                Some(event) => self.take(event)?,
                None => return Err(ApiError::internal("the engine ended before the request did")),
            }
        }
    }

    fn take(&mut self, event: Event) -> Result<(), ApiError> {
        match event {
            Event::Tokens { prompt, sample, tokens, logprobs, finish } => {
                check_finish(finish)?;
                self.burst(prompt * self.samples + sample, &tokens, logprobs, finish)
            }
            Event::End { prompt, result } => {
                self.left -= 1;
                let due = self.held.back().map_or_else(Instant::now, |(due, _)| *due);
                self.held.push_back((due, Step::Prompt(prompt, result?)));
                Ok(())
            }
        }
    }

    fn burst(
        &mut self,
        choice: usize,
        tokens: &[i64],
        logprobs: Vec<TokenLogprobs>,
        finish: Option<Finish>,
    ) -> Result<(), ApiError> {
        self.new_tokens += tokens.len();
        let state = &mut self.choices[choice];
        let mut logprobs = logprobs.into_iter();
        let failed = |error| ApiError::of_text(&error, "tokens");
        let mut pieces: Vec<Piece> = Vec::new();
        for token in tokens {
            let text = state.speech.as_mut().map(|speech| speech.push(*token)).transpose().map_err(failed)?;
            pieces.push(Piece {
                choice,
                text: text.unwrap_or_default(),
                tokens: vec![*token],
                logprobs: logprobs.next().into_iter().collect(),
                finish: None,
            });
        }
        if finish.is_some() {
            let rest = state.speech.as_mut().map(Speech::finish).transpose().map_err(failed)?;
            if pieces.is_empty() {
                pieces.push(Piece { choice, ..Piece::default() });
            }
            if let Some(last) = pieces.last_mut() {
                last.text.push_str(&rest.unwrap_or_default());
                last.finish = finish;
            }
        }
        let now = Instant::now();
        let gap = state.last_burst.map(|last| now - last);
        state.gap = gap.or(state.gap);
        state.last_burst = Some(now);
        let spread = match (self.interval, state.gap) {
            (StreamInterval::Smooth, Some(gap)) => gap.mul_f64(SPREAD),
            _ => Duration::ZERO,
        };
        self.hold(pieces, now, spread);
        Ok(())
    }

    /// Holds the pieces of a burst until their times, evenly over `spread`; all at once where that is nothing.
    fn hold(&mut self, pieces: Vec<Piece>, now: Instant, spread: Duration) {
        if spread.is_zero() {
            let joined = pieces.into_iter().reduce(Piece::joined);
            self.held.extend(joined.map(|piece| (now, Step::Piece(piece))));
            return;
        }
        let count = pieces.len() as u32;
        // What an earlier burst of the same choice left goes first: this one has come before it was expected.
        let choice = pieces.first().map(|piece| piece.choice);
        for (due, step) in &mut self.held {
            if matches!(step, Step::Piece(piece) if Some(piece.choice) == choice) {
                *due = now;
            }
        }
        for (at, piece) in (0..).zip(pieces) {
            self.held.push_back((now + spread * at / count, Step::Piece(piece)));
        }
        self.held.make_contiguous().sort_by_key(|(due, _)| *due);
    }
}

impl Piece {
    /// Two pieces of one choice, one after the other.
    fn joined(mut self, next: Piece) -> Piece {
        self.text.push_str(&next.text);
        self.tokens.extend(next.tokens);
        self.logprobs.extend(next.logprobs);
        Piece { finish: next.finish, ..self }
    }
}

/// Ends that no client has asked for are errors.
fn check_finish(finish: Option<Finish>) -> Result<(), ApiError> {
    match finish {
        Some(Finish::Cancelled) => Err(ApiError::unavailable("shutting_down", "the server is shutting down")),
        Some(Finish::Deadline) => {
            let message = "the request took longer than the server allows";
            Err(ApiError::new(StatusCode::GATEWAY_TIMEOUT, "request_timeout", message))
        }
        _ => Ok(()),
    }
}

/// Everything of a choice.
#[derive(Clone, Debug, Default)]
pub struct Whole {
    /// Its tokens and text.
    pub piece: Piece,
    /// Log-probabilities of its prompt, if they were asked for.
    pub prompt_logprobs: Option<Vec<TokenLogprobs>>,
}

/// Waits for all choices.
///
/// # Errors
/// As [`Flow::next`].
pub async fn collect(mut flow: Flow) -> Result<(Vec<Whole>, usize), ApiError> {
    let mut wholes: Vec<Whole> = vec![Whole::default(); flow.choices.len()];
    while let Some(step) = flow.next().await? {
        match step {
            Step::Piece(piece) => {
                let whole = &mut wholes[piece.choice];
                whole.piece = std::mem::take(&mut whole.piece).joined(piece);
            }
            Step::Prompt(prompt, logprobs) => {
                let own = prompt * flow.samples..(prompt + 1) * flow.samples;
                wholes[own].iter_mut().for_each(|whole| whole.prompt_logprobs.clone_from(&logprobs));
            }
        }
    }
    Ok((wholes, flow.new_tokens))
}

/// The word that OpenAI has for an end.
#[must_use]
pub fn finish_reason(finish: Option<Finish>) -> Option<&'static str> {
    Some(match finish? {
        Finish::Length => "length",
        Finish::Stop | Finish::Eos => "stop",
        Finish::Cancelled | Finish::Deadline => "error",
    })
}
