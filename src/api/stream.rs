//! Tokens and text of several sequences as they come. Owns what is between the threads of the engine, which never wait for a
//! reader, and whoever reads; a stream that is dropped cancels its requests.

use super::error::Error;
use super::model::Running;
use crate::runtime::logprobs::TokenLogprobs;
use crate::runtime::request::{Burst, Cancel, Finish, StateRecord};
use crate::runtime::schedule::{Completion, Done, Finished, Sink};
use crate::text::speech::Speech;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// New tokens of a sequence and the text that is certain with them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    /// Place of the prompt.
    pub prompt: usize,
    /// Number of the sample, from 0.
    pub sample: usize,
    /// Text that is certain now, in whole characters; `None` where the model has no tokenizer.
    pub text: Option<String>,
    /// The tokens.
    pub tokens: Vec<i64>,
    /// Their log-probabilities, if they were asked for.
    pub logprobs: Vec<TokenLogprobs>,
    /// Why the sequence ended, with its last piece.
    pub finish: Option<Finish>,
}

/// A prompt all of whose sequences have ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ended {
    /// Place of the prompt.
    pub prompt: usize,
    /// Log-probabilities of its tokens, if they were asked for.
    pub prompt_logprobs: Option<Vec<TokenLogprobs>>,
    /// Logits `[tokens of its meta-contexts, V]` of each sample, if they were to be kept.
    pub logits: Vec<Vec<f64>>,
    /// States, if they were to be kept.
    pub states: Vec<StateRecord>,
}

/// What a stream has.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// New tokens.
    Piece(Piece),
    /// The end of a prompt.
    Ended(Ended),
    /// Nothing yet.
    Waiting,
    /// Nothing more.
    Over,
}

enum Event {
    Piece(Piece),
    Ended(Result<Ended, Error>),
}

type Waker = Box<dyn Fn() + Send>;

/// What the engine's threads write.
#[derive(Default)]
pub(super) struct Shared {
    events: Mutex<VecDeque<Event>>,
    changed: Condvar,
    waker: Mutex<Option<Waker>>,
}

impl Shared {
    fn push(&self, event: Event) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push_back(event);
        self.changed.notify_all();
        if let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            waker();
        }
    }

    /// Told the tokens of the prompt at a place.
    pub fn sink(self: &Arc<Self>, prompt: usize) -> Sink<'static> {
        let shared = Arc::clone(self);
        Box::new(move |burst: &Burst<'_>| {
            shared.push(Event::Piece(Piece {
                prompt,
                sample: burst.sample,
                text: None,
                tokens: burst.tokens.to_vec(),
                logprobs: burst.logprobs.to_vec(),
                finish: burst.finish,
            }));
        })
    }

    /// Told its end.
    pub fn done(self: &Arc<Self>, prompt: usize) -> Done<'static> {
        let shared = Arc::clone(self);
        Box::new(move |finished: Finished| {
            let ended = |completion: Completion| Ended {
                prompt,
                prompt_logprobs: completion.prompt_logprobs,
                logits: completion.sequences.into_iter().map(|sequence| sequence.logits).collect(),
                states: completion.states,
            };
            shared.push(Event::Ended(finished.result.map(ended).map_err(Error::from)));
        })
    }
}

/// What ends the sequences of a stream from any thread, also while another waits for what comes next.
#[derive(Clone, Debug)]
pub struct StreamCancel(Vec<Cancel>);

impl StreamCancel {
    /// As [`Stream::cancel`].
    pub fn cancel(&self) {
        self.0.iter().for_each(Cancel::cancel);
    }
}

/// Sequences on their way.
pub struct Stream {
    pub(super) shared: Arc<Shared>,
    pub(super) running: Running,
    /// Text of each sequence, by prompt then sample; empty without a tokenizer.
    pub(super) speeches: Vec<Speech>,
    /// Samples of a prompt.
    pub(super) samples: usize,
    /// Prompts that have not ended.
    pub(super) left: usize,
}

impl Stream {
    /// What comes next, waited for no longer than `timeout`.
    ///
    /// # Errors
    /// A request failed, or was cancelled; nothing comes after it.
    pub fn next(&mut self, timeout: Duration) -> Result<Next, Error> {
        if self.left == 0 {
            return Ok(Next::Over);
        }
        let event = {
            let events = self.shared.events.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = self.shared.changed.wait_timeout_while(events, timeout, |events| events.is_empty());
            waited.unwrap_or_else(PoisonError::into_inner).0.pop_front()
        };
        let taken = match event {
            None => return Ok(Next::Waiting),
            Some(Event::Piece(piece)) => self.spoken(piece).map(Next::Piece),
            Some(Event::Ended(ended)) => {
                self.left -= 1;
                ended.map(Next::Ended)
            }
        };
        taken.inspect_err(|_| {
            self.left = 0;
            self.cancel();
        })
    }

    /// The piece with its text.
    fn spoken(&mut self, mut piece: Piece) -> Result<Piece, Error> {
        if piece.finish == Some(Finish::Cancelled) {
            return Err(Error::cancelled("the generation was cancelled"));
        }
        if let Some(speech) = self.speeches.get_mut(piece.prompt * self.samples + piece.sample) {
            let mut text = String::new();
            for token in &piece.tokens {
                text.push_str(&speech.push(*token)?);
            }
            if piece.finish.is_some() {
                text.push_str(&speech.finish()?);
            }
            piece.text = Some(text);
        }
        Ok(piece)
    }

    /// Ends every sequence at the next burst; the stream then says that it was cancelled.
    pub fn cancel(&self) {
        self.running.cancel();
    }

    /// What cancels it from another thread.
    #[must_use]
    pub fn canceller(&self) -> StreamCancel {
        StreamCancel(self.running.cancels())
    }

    /// Has `waker` called, on a thread of the engine that it must not hold up, whenever there is something; and now.
    pub fn on_ready(&self, waker: impl Fn() + Send + 'static) {
        waker();
        *self.shared.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(waker));
        // What came between the two is not missed.
        if let Some(waker) = &*self.shared.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            waker();
        }
    }
}
