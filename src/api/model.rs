//! A loaded model: its queue with the thread that serves it, and its text. Owns the life of both; clones share them.

use super::backends::{BackendKind, Chosen, LoadOptions};
use super::collect::Output;
use super::desk::Desk;
use super::error::Error;
use super::sampling::{Context, SamplingParams};
use super::stream::{Shared, Stream};
use crate::bundle::Bundle;
use crate::program::Protocol;
use crate::runtime::generator::Generator;
use crate::runtime::plan::Program;
use crate::runtime::request::{Cancel, Keep, Request};
use crate::runtime::workers::{Backends, Observer, WorkerOptions, Workers};
use crate::text::chat::{ChatOptions, ChatTemplate, Message};
use crate::text::clock::today;
use crate::text::defaults::{GenerationDefaults, Wanted};
use crate::text::speech::Speech;
use crate::text::tokenizer::Tokenizer;
use serde_json::Value;
use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A text or its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// Words, which the model's tokenizer encodes with the marks it puts around a text.
    Text(String),
    /// Token ids, oldest first; may be empty.
    Ids(Vec<i64>),
}

impl From<&str> for Prompt {
    fn from(text: &str) -> Self {
        Prompt::Text(text.to_owned())
    }
}

impl From<Vec<i64>> for Prompt {
    fn from(ids: Vec<i64>) -> Self {
        Prompt::Ids(ids)
    }
}

/// What to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct Generate {
    /// The prompts.
    pub prompts: Vec<Prompt>,
    /// How tokens are drawn, and where sequences end.
    pub params: SamplingParams,
    /// How states advance; by default `recgen` where the bundle has it.
    pub protocol: Option<Protocol>,
    /// Meta-contexts of a burst while this runs, up to what the model was loaded with; by default what the load asks for. All
    /// calls of a model share it. Changes no token.
    pub run_ahead: Option<NonZero<usize>>,
    /// What to keep besides the tokens: logits and states; trajectories are asked for by [`Model::trajectory`].
    pub keep: Keep,
}

impl Generate {
    /// These prompts and no more.
    #[must_use]
    pub fn of(prompts: Vec<Prompt>, params: SamplingParams) -> Self {
        Generate { prompts, params, protocol: None, run_ahead: None, keep: Keep::default() }
    }
}

/// A loaded model.
#[derive(Clone)]
pub struct Model(pub(super) Arc<Loaded>);

/// What its handles share.
pub(super) struct Loaded {
    bundle: Bundle,
    program: Program,
    backend: Chosen,
    tokenizer: Option<Arc<Tokenizer>>,
    eos: Vec<i64>,
    workers: Workers,
    desk: Desk,
    closed: AtomicBool,
    begun: AtomicU64,
    /// What ends the requests of each stream.
    cancels: Mutex<BTreeMap<u64, Vec<Cancel>>>,
}

/// The requests of a stream; whoever drops it cancels them.
pub(super) struct Running {
    model: Model,
    number: u64,
    holds_run_ahead: bool,
}

impl Running {
    pub fn cancel(&self) {
        self.cancels().iter().for_each(Cancel::cancel);
    }

    /// What ends its requests.
    pub fn cancels(&self) -> Vec<Cancel> {
        let cancels = self.model.0.cancels.lock().unwrap_or_else(PoisonError::into_inner);
        cancels.get(&self.number).cloned().into_iter().flatten().collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel();
        self.model.0.cancels.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
        if self.holds_run_ahead {
            self.model.0.workers.hold_run_ahead(None);
        }
    }
}

/// Nobody counts what an embedded model does.
struct Unobserved;

impl Observer for Unobserved {}

impl Model {
    /// Loads a bundle and waits until it generates.
    ///
    /// # Errors
    /// The bundle cannot be used, or the backend cannot run it.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Self, Error> {
        let backend = Chosen::of(options)?;
        let bundle = if options.verify { Bundle::open(path)? } else { Bundle::open_unverified(path)? };
        let mut program = Program::from_bundle(&bundle)?;
        if let Some(most) = options.max_tokens {
            program.max_tokens = program.max_tokens.min(most.get());
        }
        let tokenizer = Tokenizer::of_bundle(&bundle)?;
        let wanted = Wanted { eos: true, ..Wanted::default() };
        let eos = GenerationDefaults::of_bundle(&bundle, tokenizer.as_ref(), wanted)?.eos;
        let sizes = WorkerOptions {
            run_ahead: (1, options.run_ahead.get()),
            waiting: usize::MAX,
            prefill_tokens: usize::MAX,
        };
        let backends: Arc<dyn Backends> = Arc::new(backend.clone());
        let observer: Arc<dyn Observer> = Arc::new(Unobserved);
        let workers =
            Workers::start(&bundle, &program, sizes, &backends, &observer).map_err(Error::backend)?;
        let first = program.protocols.keys().next();
        let first = *first.ok_or_else(|| Error::refused("the bundle has no protocol"))?;
        workers.warm_up(&program, first).map_err(Error::backend)?;
        Ok(Model(Arc::new(Loaded {
            bundle,
            program,
            backend,
            tokenizer: tokenizer.map(Arc::new),
            eos,
            workers,
            desk: Desk::default(),
            closed: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            cancels: Mutex::default(),
        })))
    }

    /// The bundle.
    #[must_use]
    pub fn bundle(&self) -> &Bundle {
        &self.0.bundle
    }

    /// What the runtime knows of it: sizes and protocols.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.0.program
    }

    /// The backend that runs it.
    #[must_use]
    pub fn backend(&self) -> BackendKind {
        self.0.backend.kind
    }

    /// Ids that end a sequence by the model's convention.
    #[must_use]
    pub fn eos(&self) -> &[i64] {
        &self.0.eos
    }

    /// Text to tokens and back.
    ///
    /// # Errors
    /// The bundle has no tokenizer.
    pub fn tokenizer(&self) -> Result<&Arc<Tokenizer>, Error> {
        match &self.0.tokenizer {
            Some(tokenizer) => Ok(tokenizer),
            None => Err(Error::refused("the model has no tokenizer: it reads and writes token ids only")),
        }
    }

    /// The text of a conversation, by the model's chat template, ready for the assistant's answer: `messages` and `tools` are JSON
    /// as transformers has them.
    ///
    /// # Errors
    /// They are none, the bundle has no chat template, or it refuses the messages.
    pub fn chat(&self, messages: &str, tools: Option<&str>) -> Result<String, Error> {
        let wrong = |what| move |error: serde_json::Error| Error::refused(format!("{what}: {error}"));
        let said: Vec<Message> = serde_json::from_str(messages).map_err(wrong("messages"))?;
        let tools = tools.map_or(Ok(Value::Null), serde_json::from_str).map_err(wrong("tools"))?;
        let options = ChatOptions { tools, date: today() };
        Ok(ChatTemplate::needed(&self.0.bundle)?.render(&said, &options)?)
    }

    /// The tokens of a prompt.
    ///
    /// # Errors
    /// The model has no tokenizer, or it cannot encode the text.
    pub fn ids(&self, prompt: &Prompt) -> Result<Vec<i64>, Error> {
        match prompt {
            Prompt::Text(text) => Ok(self.tokenizer()?.encode(text, true)?.ids),
            Prompt::Ids(ids) => Ok(ids.clone()),
        }
    }

    /// The protocol of requests that name none.
    ///
    /// # Errors
    /// The bundle has none.
    pub fn protocol(&self, asked: Option<Protocol>) -> Result<Protocol, Error> {
        let known = &self.0.program.protocols;
        match asked {
            Some(protocol) => Ok(self.0.program.plan(protocol).map(|_| protocol)?),
            None if known.contains_key(&Protocol::Recgen) => Ok(Protocol::Recgen),
            None => known.keys().next().copied().ok_or_else(|| Error::refused("the bundle has no protocol")),
        }
    }

    /// Generates and waits.
    ///
    /// # Errors
    /// What was asked for cannot be met, the backend failed, or the model was closed.
    pub fn generate(&self, asked: &Generate) -> Result<Vec<Output>, Error> {
        self.stream(asked)?.collect(&mut || Ok(()))
    }

    /// Generates; tokens come as they are drawn.
    ///
    /// # Errors
    /// What was asked for cannot be met, or the model is closed.
    pub fn stream(&self, asked: &Generate) -> Result<Stream, Error> {
        let protocol = self.protocol(asked.protocol)?;
        let mut requests = Vec::new();
        let mut stops = Vec::new();
        for prompt in &asked.prompts {
            let request = self.request(prompt, &asked.params)?;
            requests.push(Request { protocol, keep: Keep { trajectory: false, ..asked.keep }, ..request });
            stops.push(Arc::from(asked.params.stop.clone()));
        }
        self.submit(requests, &stops, asked.run_ahead)
    }

    /// The request of a prompt; its protocol is the caller's.
    pub(super) fn request(&self, prompt: &Prompt, params: &SamplingParams) -> Result<Request, Error> {
        let context = Context {
            tokenizer: self.0.tokenizer.as_ref(),
            eos: &self.0.eos,
            vocab_size: self.0.program.vocab_size,
            max_tokens: self.0.program.max_tokens,
        };
        params.request(self.ids(prompt)?, &context)
    }

    /// Puts requests into the queue, all or none.
    pub(super) fn submit(
        &self,
        requests: Vec<Request>,
        stops: &[Arc<[String]>],
        run_ahead: Option<NonZero<usize>>,
    ) -> Result<Stream, Error> {
        self.check_open()?;
        let loaded = &self.0;
        let shared = Arc::new(Shared::default());
        let number = loaded.begun.fetch_add(1, Ordering::Relaxed);
        let running = Running { model: self.clone(), number, holds_run_ahead: run_ahead.is_some() };
        let samples = requests.first().map_or(0, |request| request.samples);
        let speech = |stops: &Arc<[String]>| {
            let one = loaded.tokenizer.as_ref().map(|one| Speech::new(Arc::clone(one), Arc::clone(stops)));
            std::iter::repeat_n(one, samples).flatten()
        };
        let speeches = stops.iter().flat_map(speech).collect();
        let left = requests.len();
        if run_ahead.is_some() {
            loaded.workers.hold_run_ahead(run_ahead.map(NonZero::get));
        }
        for (prompt, request) in requests.into_iter().enumerate() {
            let request = Request { cancel: Cancel::default(), ..request };
            let queue = loaded.workers.queue();
            let ticket = queue.submit(request, shared.sink(prompt), shared.done(prompt))?;
            let mut cancels = loaded.cancels.lock().unwrap_or_else(PoisonError::into_inner);
            cancels.entry(number).or_default().push(ticket.cancel);
        }
        // A model that was closed meanwhile has cancelled all but the last of them.
        if loaded.closed.load(Ordering::SeqCst) {
            running.cancel();
        }
        Ok(Stream { shared, running, speeches, samples, left })
    }

    /// Does work on a generator beside the queue, which has the weights once more.
    pub(super) fn at_desk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Generator) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.check_open()?;
        let Loaded { bundle, backend, program, desk, .. } = &*self.0;
        desk.run((bundle, backend, program), work)
    }

    fn check_open(&self) -> Result<(), Error> {
        if let Some(message) = self.0.workers.failure() {
            return Err(Error::backend(message));
        }
        match self.0.closed.load(Ordering::SeqCst) {
            true => Err(Error::cancelled("the model is closed")),
            false => Ok(()),
        }
    }

    /// Requests that wait, and those that run.
    #[must_use]
    pub fn load_now(&self) -> (usize, usize) {
        self.0.workers.queue().load()
    }

    /// Cancels what runs, and gives back what the model holds; further calls are refused. Waits for the threads.
    pub fn close(&self) {
        self.0.close();
    }
}

impl Loaded {
    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        {
            let cancels = self.cancels.lock().unwrap_or_else(PoisonError::into_inner);
            cancels.values().flatten().for_each(Cancel::cancel);
        }
        self.workers.close();
        self.workers.join();
        self.desk.close();
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.close();
    }
}
