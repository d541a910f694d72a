//! A model that generates: an open queue and a thread for each replica of the model. Owns the threads, what becomes of them,
//! and how a request gets into the queue and its tokens out of it; knows no HTTP.

use super::error::ApiError;
use super::language::Language;
use super::lifecycle::Phase;
use super::metrics::{Heard, Metrics};
use super::options::{EngineOptions, ServeOptions};
use super::paced::Paced;
use crate::bundle::Bundle;
use crate::runtime::decoder::DecoderSetup;
use crate::runtime::error::RuntimeError;
use crate::runtime::generator::Generator;
use crate::runtime::logprobs::TokenLogprobs;
use crate::runtime::plan::Program;
use crate::runtime::request::{Burst, Cancel, Finish, Request};
use crate::runtime::sampler::Sampling;
use crate::runtime::schedule::{DecoderKind, Finished, Limits, Queue, QueueLimits, ServeError, Totals};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread::JoinHandle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

/// How a bundle comes to run, which is the caller's choice.
pub trait Backends: Send + Sync {
    /// Opens the bundle at a path.
    ///
    /// # Errors
    /// In words.
    fn bundle(&self, path: &Path) -> Result<Bundle, String>;

    /// Replicas of a model that run side by side.
    fn replicas(&self) -> usize;

    /// Name of the backend.
    fn name(&self) -> &'static str;

    /// Opens a replica on the thread that calls. `setups` are the decoders that it will have, but for their rows.
    ///
    /// # Errors
    /// In words.
    fn open(&self, bundle: &Bundle, replica: usize, setups: &[DecoderSetup]) -> Result<Opened, String>;
}

/// A replica.
pub struct Opened {
    /// What generates.
    pub generator: Generator,
    /// Rows of its decoders.
    pub rows: usize,
}

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
    queue: Arc<Queue<'static>>,
    failed: Arc<OnceLock<String>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    metrics: Arc<Metrics>,
    stop: watch::Receiver<Phase>,
}

/// Told that an engine has failed.
pub type OnFailure = Arc<dyn Fn(&str) + Send + Sync>;

/// Sequences that share a row at most, where rows are free to have several.
const SEQUENCES_OF_A_ROW: usize = 4;

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
        let language = Language::of(&bundle, options.chat_template.as_ref())?;
        let max_tokens =
            options.engine.max_tokens.map_or(program.max_tokens, |most| most.min(program.max_tokens));
        program.max_tokens = max_tokens;
        stage("loading the model");
        let shape = Shape::of(&program, options.engine);
        let replicas = backends.replicas();
        let model = Limits::of(&program);
        let limits = QueueLimits {
            model,
            capacity: shape.capacity,
            run_ahead: shape.run_ahead.1,
            waiting: options.engine.waiting,
        };
        let engine = Arc::new(Engine {
            name: name.to_owned(),
            bundle: bundle.clone(),
            program: program.clone(),
            language,
            max_tokens,
            loaded_at: super::answer::unix_seconds(),
            queue: Arc::new(Queue::new(limits, replicas)),
            failed: Arc::default(),
            threads: Mutex::default(),
            metrics: Arc::clone(metrics),
            stop,
        });
        let (opened, told) = mpsc::channel();
        for replica in 0..replicas {
            let worker = Worker {
                name: name.to_owned(),
                replica,
                bundle: bundle.clone(),
                program: program.clone(),
                shape,
                backends: Arc::clone(backends),
                queue: Arc::clone(&engine.queue),
                failed: Arc::clone(&engine.failed),
                metrics: Arc::clone(metrics),
                on_failure: Arc::clone(&on_failure),
            };
            let opened = opened.clone();
            let thread = std::thread::Builder::new().name(format!("replica {replica}"));
            let thread = thread.spawn(move || worker.run(&opened)).map_err(|error| error.to_string())?;
            engine.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        drop(opened);
        let all_opened = (0..replicas).try_for_each(|_| {
            told.recv().unwrap_or_else(|_| Err("a replica ended while it was loaded".to_owned()))
        });
        all_opened.and_then(|()| engine.warm_up(stage)).inspect_err(|_| engine.close())?;
        Ok(engine)
    }

    /// Generates a token from the model's own distribution and a greedy one, so that the first clients do not wait for graphs
    /// and kernels.
    fn warm_up(&self, stage: &dyn Fn(&str)) -> Result<(), String> {
        stage("generating first tokens");
        let Some(protocol) = self.language.first_protocol(&self.program) else {
            return Err("the bundle has no protocol".to_owned());
        };
        for temperature in [1.0, 0.0] {
            let (done, told) = mpsc::channel();
            let sampling = Sampling { temperature, top_k: 0, ..Sampling::greedy() };
            let prompt = vec![0; self.program.meta_tokens.min(self.max_tokens.saturating_sub(1))];
            let request = Request { sampling, ..Request::greedy(protocol, prompt, 1) };
            let end = move |finished: Finished| drop(done.send(finished.result.map(|_| ())));
            let taken = self.queue.submit(request, Box::new(|_| {}), Box::new(end));
            taken.map_err(|error| error.to_string())?;
            let ended = told.recv().map_err(|_| "the engine ended while it was loaded".to_owned())?;
            ended.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Puts the requests of a client into the queue, all or none.
    ///
    /// # Errors
    /// Why not.
    pub fn submit(&self, requests: Vec<Request>) -> Result<Running, ApiError> {
        if let Some(message) = self.failed.get() {
            return Err(ApiError::unavailable("engine_failed", message.clone()));
        }
        let (tell, events) = unbounded_channel();
        let mut running = Running { events, cancels: Vec::new(), stop: self.stop.clone() };
        for (prompt, request) in requests.into_iter().enumerate() {
            let request = Request { cancel: Cancel::default(), ..request };
            let heard = self.metrics.request(&self.name, &request);
            let ticket =
                self.queue.submit(request, sink(prompt, tell.clone(), heard), done(prompt, tell.clone()))?;
            running.cancels.push(ticket.cancel);
        }
        Ok(running)
    }

    /// Requests that wait, and those that run.
    #[must_use]
    pub fn load_now(&self) -> (usize, usize) {
        self.queue.load()
    }

    /// What its replicas have done so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.queue.totals().into_iter().fold(Totals::default(), |sum, totals| sum + totals)
    }

    /// Why it takes nothing more, if it has failed.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
    }

    /// Takes nothing more; what runs goes on to its end.
    pub fn close(&self) {
        self.queue.close();
    }

    /// Waits until everything has ended, once it is closed.
    pub fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A panic was caught and told on the thread itself.
            let _ended = thread.join();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
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

/// Sizes of an engine's decoders, but for their rows.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// Meta-contexts of a row.
    capacity: usize,
    /// Fewest and most of a burst.
    run_ahead: (usize, usize),
}

impl Shape {
    fn of(program: &Program, options: EngineOptions) -> Self {
        let longest = program.max_tokens.div_ceil(program.meta_tokens).max(1);
        let (least, most) = options.run_ahead;
        let most = most.clamp(1, longest);
        // Bursts of several lengths may go further past an end than whole ones of the longest.
        Shape { capacity: longest + 2 * most, run_ahead: (least.clamp(1, most), most) }
    }
}

/// A replica on its thread.
struct Worker {
    name: String,
    replica: usize,
    bundle: Bundle,
    program: Program,
    shape: Shape,
    backends: Arc<dyn Backends>,
    queue: Arc<Queue<'static>>,
    failed: Arc<OnceLock<String>>,
    metrics: Arc<Metrics>,
    on_failure: OnFailure,
}

impl Worker {
    fn run(&self, opened: &mpsc::Sender<Result<(), String>>) {
        let served = catch_unwind(AssertUnwindSafe(|| self.serve(opened)));
        let message = match served {
            Ok(Ok(())) => return,
            Ok(Err(message)) => message,
            Err(_) => "the engine panicked: this is a bug of photonc".to_owned(),
        };
        let source = RuntimeError::Lost { message: message.clone() };
        self.queue.fail(ServeError { replica: self.replica, source });
        // The first failure is the reason; those after it are its consequences.
        if self.failed.set(message.clone()).is_ok() {
            (self.on_failure)(&message);
        }
        let _loaded_already = opened.send(Err(message));
    }

    fn serve(&self, opened: &mpsc::Sender<Result<(), String>>) -> Result<(), String> {
        let setup = |protocol, rows, sequences| DecoderSetup {
            protocol,
            rows,
            sequences,
            capacity: self.shape.capacity,
            run_ahead: self.shape.run_ahead.1,
        };
        let setups: Vec<DecoderSetup> =
            self.program.protocols.keys().map(|protocol| setup(*protocol, 1, 1)).collect();
        let Opened { mut generator, rows } = self.backends.open(&self.bundle, self.replica, &setups)?;
        let records = generator.backend().decodes();
        self.metrics.rows(&self.name, self.replica, rows);
        let _loaded_already = opened.send(Ok(()));
        let kind = |request: &Request| DecoderKind {
            protocol: request.protocol,
            graphs: !records || request.needs_graphs(),
        };
        let queue = &self.queue;
        let served = queue.run_kinds(self.replica, &kind, &mut |kind, work| {
            let sequences = if kind.graphs { rows * SEQUENCES_OF_A_ROW } else { rows };
            let setup = setup(kind.protocol, rows, sequences);
            let told = self.metrics.decoder(&self.name);
            generator.with_decoder(setup, false, kind.graphs, &mut |decoder| {
                work(&mut Paced::new(decoder, queue, self.shape.run_ahead, told.clone()))
            })
        });
        served.map_err(|error| error.to_string())
    }
}
