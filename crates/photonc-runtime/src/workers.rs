//! Threads that serve an open queue, one for each replica of a model. Owns the threads, how a replica's decoders are made, and
//! what becomes of the queue where a replica fails; knows no clients.

use super::decoder::DecoderSetup;
use super::error::RuntimeError;
use super::generator::Generator;
use super::paced::{Pace, Paced};
use super::plan::Program;
use super::request::Request;
use super::sampler::Sampling;
use super::schedule::{DecoderKind, Finished, Limits, Queue, QueueLimits, ServeError};
use super::timing::Timing;
use photonc_bundle::bundle::Bundle;
use photonc_bundle::program::Protocol;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread::JoinHandle;

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

/// Told what the replicas do, on their threads.
pub trait Observer: Send + Sync {
    /// A replica is there, with so many rows.
    fn rows(&self, _replica: usize, _rows: usize) {}

    /// A burst of so many meta-contexts has started.
    fn burst(&self, _meta_contexts: usize) {}

    /// Graphs have taken these times.
    fn times(&self, _timing: &Timing) {}

    /// The first replica that failed, and why; the whole ends with it.
    fn failed(&self, _message: &str) {}
}

/// Sizes of what is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerOptions {
    /// Meta-contexts of a burst: the fewest while little is to do, the most where requests wait.
    pub run_ahead: (usize, usize),
    /// Requests that wait at most.
    pub waiting: usize,
    /// Tokens of prompts that are encoded from one burst to the next; a longer prompt goes alone.
    pub prefill_tokens: usize,
}

/// Sequences that share a row at most, where rows are free to have several.
const SEQUENCES_OF_A_ROW: usize = 4;

/// The threads of a model and their queue. Whoever drops it closes the queue; what runs goes on to its end.
pub struct Workers {
    queue: Arc<Queue<'static>>,
    pace: Arc<Pace>,
    failed: Arc<OnceLock<String>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Workers {
    /// Starts the replicas of a bundle and waits until all are there.
    ///
    /// # Errors
    /// In words: the first replica that cannot be opened; the others end.
    pub fn start(
        bundle: &Bundle,
        program: &Program,
        options: WorkerOptions,
        backends: &Arc<dyn Backends>,
        observer: &Arc<dyn Observer>,
    ) -> Result<Self, String> {
        let (pace, capacity) = sizes(program, options);
        let run_ahead = pace.run_ahead.1;
        let WorkerOptions { waiting, prefill_tokens, .. } = options;
        let limits = QueueLimits { model: Limits::of(program), capacity, run_ahead, waiting, prefill_tokens };
        let replicas = backends.replicas();
        let workers = Workers {
            queue: Arc::new(Queue::new(limits, replicas)),
            pace: Arc::new(pace),
            failed: Arc::default(),
            threads: Mutex::default(),
        };
        let (opened, told) = mpsc::channel();
        for replica in 0..replicas {
            let worker = Worker {
                replica,
                bundle: bundle.clone(),
                program: program.clone(),
                capacity,
                backends: Arc::clone(backends),
                queue: Arc::clone(&workers.queue),
                pace: Arc::clone(&workers.pace),
                failed: Arc::clone(&workers.failed),
                observer: Arc::clone(observer),
            };
            let opened = opened.clone();
            let thread = std::thread::Builder::new().name(format!("replica {replica}"));
            let thread = thread.spawn(move || worker.run(&opened)).map_err(|error| error.to_string())?;
            workers.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        drop(opened);
        for _ in 0..replicas {
            told.recv().unwrap_or_else(|_| Err("a replica ended while it was loaded".to_owned()))?;
        }
        Ok(workers)
    }

    /// Generates a token from the model's own distribution and a greedy one, so that the first clients do not wait for graphs
    /// and kernels.
    ///
    /// # Errors
    /// In words.
    pub fn warm_up(&self, program: &Program, protocol: Protocol) -> Result<(), String> {
        for temperature in [1.0, 0.0] {
            let (done, told) = mpsc::channel();
            let sampling = Sampling { temperature, top_k: 0, ..Sampling::greedy() };
            let prompt = vec![0; program.meta_tokens.min(program.max_tokens.saturating_sub(1))];
            let request = Request { sampling, ..Request::greedy(protocol, prompt, 1) };
            let end = move |finished: Finished| drop(done.send(finished.result.map(|_| ())));
            let taken = self.queue.submit(request, Box::new(|_| {}), Box::new(end));
            taken.map_err(|error| error.to_string())?;
            let ended = told.recv().map_err(|_| "the engine ended while it was loaded".to_owned())?;
            ended.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> &Queue<'static> {
        &self.queue
    }

    /// Has bursts from now on be of so many meta-contexts whatever the load, up to the most; `None` leaves it to the load.
    pub fn hold_run_ahead(&self, meta_contexts: Option<usize>) {
        self.pace.held.store(meta_contexts.map_or(0, |held| held.max(1)), Ordering::Relaxed);
    }

    /// Why nothing more is taken, if a replica has failed.
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

impl Drop for Workers {
    fn drop(&mut self) {
        self.close();
    }
}

/// How long bursts are, and the meta-contexts that a row has room for.
fn sizes(program: &Program, options: WorkerOptions) -> (Pace, usize) {
    let longest = program.max_tokens.div_ceil(program.meta_tokens).max(1);
    let (least, most) = options.run_ahead;
    let most = most.clamp(1, longest);
    let pace = Pace::new((least.clamp(1, most), most));
    // Bursts of several lengths may go further past an end than whole ones of the longest.
    (pace, longest + 2 * most)
}

/// A replica on its thread.
struct Worker {
    replica: usize,
    bundle: Bundle,
    program: Program,
    capacity: usize,
    backends: Arc<dyn Backends>,
    queue: Arc<Queue<'static>>,
    pace: Arc<Pace>,
    failed: Arc<OnceLock<String>>,
    observer: Arc<dyn Observer>,
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
            self.observer.failed(&message);
        }
        let _loaded_already = opened.send(Err(message));
    }

    fn serve(&self, opened: &mpsc::Sender<Result<(), String>>) -> Result<(), String> {
        let setup = |protocol, rows, sequences| DecoderSetup {
            protocol,
            rows,
            sequences,
            capacity: self.capacity,
            run_ahead: self.pace.run_ahead.1,
        };
        let setups: Vec<DecoderSetup> =
            self.program.protocols.keys().map(|protocol| setup(*protocol, 1, 1)).collect();
        let Opened { mut generator, rows } = self.backends.open(&self.bundle, self.replica, &setups)?;
        let decoded: Vec<Protocol> = {
            let backend = generator.backend();
            let of = |protocol: &Protocol| backend.decodes(&self.program, setup(*protocol, rows, rows));
            self.program.protocols.keys().copied().filter(of).collect()
        };
        self.observer.rows(self.replica, rows);
        let _loaded_already = opened.send(Ok(()));
        let kind = |request: &Request| DecoderKind {
            protocol: request.protocol,
            graphs: !decoded.contains(&request.protocol) || request.needs_graphs(),
        };
        let (queue, pace, observer) = (&self.queue, &*self.pace, &*self.observer);
        let served = queue.run_kinds(self.replica, &kind, &mut |kind, work| {
            let sequences = if kind.graphs { rows * SEQUENCES_OF_A_ROW } else { rows };
            let setup = setup(kind.protocol, rows, sequences);
            generator.with_decoder(setup, false, kind.graphs, &mut |decoder| {
                work(&mut Paced { decoder, queue, pace, observer })
            })
        });
        served.map_err(|error| error.to_string())
    }
}
