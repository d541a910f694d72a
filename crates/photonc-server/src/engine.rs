//! A model that generates: the workers of its replicas under the server's metrics and phases. Owns how a request gets into
//! their queue and its tokens out of it; knows no HTTP.

use super::error::ApiError;
use super::language::Language;
use super::lifecycle::Phase;
use super::metrics::{DecoderMetrics, Heard, Metrics};
use super::options::{EngineOptions, ServeOptions};
use photonc_bundle::bundle::Bundle;
use photonc_runtime::logprobs::TokenLogprobs;
use photonc_runtime::plan::Program;
use photonc_runtime::request::{Burst, Cancel, Finish, Request};
use photonc_runtime::schedule::{Finished, Totals};
use photonc_runtime::timing::Timing;
use photonc_runtime::workers::{Observer, WorkerOptions, Workers};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

pub use photonc_runtime::workers::{Backends, Opened};

/// What is told of a request on its way.
#[derive(Debug)]
pub enum Event {
    /// New tokens of a sample.
    Tokens {
        /// Place of the prompt in the request of the client.
        prompt: usize,
        /// Number of the sample.
        sample: usize,
        /// The tokens.
        tokens: Vec<i64>,
        /// Their log-probabilities, if they were asked for.
        logprobs: Vec<TokenLogprobs>,
        /// Why the sample ended, with its last tokens.
        finish: Option<Finish>,
    },
    /// A prompt is done: every sample of it has ended.
    End {
        /// Its place.
        prompt: usize,
        /// Log-probabilities of its tokens, if they were asked for, or why it failed.
        result: Result<Option<Vec<TokenLogprobs>>, ApiError>,
    },
}

/// Requests on their way. Whoever drops it wants no more of them.
#[derive(Debug)]
pub struct Running {
    events: UnboundedReceiver<Event>,
    cancels: Vec<Cancel>,
    stop: watch::Receiver<Phase>,
}

impl Running {
    /// What comes next; `None` once every prompt is done or the engine is gone. A server that stops ends it.
    pub async fn next(&mut self) -> Option<Event> {
        let stopped = self.stop.wait_for(|phase| *phase == Phase::Stopped);
        tokio::select! {
            biased;
            event = self.events.recv() => event,
            _stopped = stopped => {
                let error = ApiError::unavailable("shutting_down", "the server is shutting down");
                Some(Event::End { prompt: 0, result: Err(error) })
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancels.iter().for_each(Cancel::cancel);
    }
}

/// A model that generates.
pub struct Engine {
    /// Its name among the models.
    pub name: String,
    /// What it runs.
    pub bundle: Bundle,
    /// What the runtime knows of it.
    pub program: Program,
    /// Text to tokens and back.
    pub language: Language,
    /// Most tokens of a sequence, prompt included.
    pub max_tokens: usize,
    /// Seconds since 1970 when it was loaded.
    pub loaded_at: u64,
    workers: Workers,
    metrics: Arc<Metrics>,
    stop: watch::Receiver<Phase>,
}

/// Told that an engine has failed.
pub type OnFailure = Arc<dyn Fn(&str) + Send + Sync>;

/// Who is told while a model loads and after, and what ends it.
pub struct Loading<'l> {
    /// Told what is being done.
    pub stage: &'l dyn Fn(&str),
    /// Told of a failure.
    pub on_failure: OnFailure,
    /// Says when to stop.
    pub stop: watch::Receiver<Phase>,
}

impl Engine {
    /// Loads a model and waits until it generates. `stage` is told what is being done.
    ///
    /// # Errors
    /// In words.
    pub fn load(
        name: &str,
        path: &Path,
        backends: &Arc<dyn Backends>,
        options: &ServeOptions,
        metrics: &Arc<Metrics>,
        Loading { stage, on_failure, stop }: Loading<'_>,
    ) -> Result<Arc<Engine>, String> {
        stage("reading the bundle");
        let bundle = backends.bundle(path)?;
        let mut program = Program::from_bundle(&bundle).map_err(|error| error.to_string())?;
        let max_tokens =
            options.engine.max_tokens.map_or(program.max_tokens, |most| most.min(program.max_tokens));
        program.max_tokens = max_tokens;
        let language = Language::of(&bundle, max_tokens, options.chat_template.as_ref())?;
        stage("loading the model");
        let EngineOptions { run_ahead, waiting, prefill_tokens, .. } = options.engine;
        let sizes = WorkerOptions { run_ahead, waiting, prefill_tokens };
        let observer: Arc<dyn Observer> = Arc::new(Observing {
            name: name.to_owned(),
            metrics: Arc::clone(metrics),
            decoder: metrics.decoder(name),
            on_failure,
        });
        let workers = Workers::start(&bundle, &program, sizes, backends, &observer)?;
        language.first_protocol(&program).ok_or("the bundle has no protocol")?;
        for protocol in program.protocols.keys() {
            stage(&format!("generating first tokens with {}", protocol.name()));
            workers.warm_up(&program, *protocol)?;
        }
        Ok(Arc::new(Engine {
            name: name.to_owned(),
            bundle,
            program,
            language,
            max_tokens,
            loaded_at: super::answer::unix_seconds(),
            workers,
            metrics: Arc::clone(metrics),
            stop,
        }))
    }

    /// Puts the requests of a client into the queue, all or none.
    ///
    /// # Errors
    /// Why not.
    pub fn submit(&self, requests: Vec<Request>) -> Result<Running, ApiError> {
        if let Some(message) = self.failure() {
            return Err(ApiError::unavailable("engine_failed", message));
        }
        let (tell, events) = unbounded_channel();
        let mut running = Running { events, cancels: Vec::new(), stop: self.stop.clone() };
        for (prompt, request) in requests.into_iter().enumerate() {
            let request = Request { cancel: Cancel::default(), ..request };
            let heard = self.metrics.request(&self.name, &request);
            let sink = sink(prompt, tell.clone(), heard);
            let ticket = self.workers.queue().submit(request, sink, done(prompt, tell.clone()))?;
            running.cancels.push(ticket.cancel);
        }
        Ok(running)
    }

    /// Requests that wait, and those that run.
    #[must_use]
    pub fn load_now(&self) -> (usize, usize) {
        self.workers.queue().load()
    }

    /// What its replicas have done so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.workers.queue().totals().into_iter().fold(Totals::default(), |sum, totals| sum + totals)
    }

    /// Why it takes nothing more, if it has failed.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.workers.failure()
    }

    /// Takes nothing more; what runs goes on to its end.
    pub fn close(&self) {
        self.workers.close();
    }

    /// Waits until everything has ended, once it is closed.
    pub fn join(&self) {
        self.workers.join();
    }
}

/// What the server counts of its replicas.
struct Observing {
    name: String,
    metrics: Arc<Metrics>,
    decoder: DecoderMetrics,
    on_failure: OnFailure,
}

impl Observer for Observing {
    fn rows(&self, replica: usize, rows: usize) {
        self.metrics.rows(&self.name, replica, rows);
    }

    fn burst(&self, meta_contexts: usize) {
        self.decoder.burst(meta_contexts);
    }

    fn times(&self, timing: &Timing) {
        self.decoder.times(timing);
    }

    fn failed(&self, message: &str) {
        (self.on_failure)(message);
    }
}

fn sink(prompt: usize, tell: UnboundedSender<Event>, mut heard: Heard) -> Box<dyn FnMut(&Burst<'_>) + Send> {
    Box::new(move |burst| {
        heard.burst(burst);
        let event = Event::Tokens {
            prompt,
            sample: burst.sample,
            tokens: burst.tokens.to_vec(),
            logprobs: burst.logprobs.to_vec(),
            finish: burst.finish,
        };
        // Nobody listens any more: the request is cancelled already.
        let _unheard = tell.send(event);
    })
}

fn done(prompt: usize, tell: UnboundedSender<Event>) -> Box<dyn FnOnce(Finished) + Send> {
    Box::new(move |finished| {
        let result = finished.result.map(|completion| completion.prompt_logprobs).map_err(ApiError::from);
        let _unheard = tell.send(Event::End { prompt, result });
    })
}
