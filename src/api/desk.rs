//! A generator of a model's own beside its queue, on a thread: for work whose buffers outlive a request. It is opened when it is
//! first needed, and holds the weights once more.

use super::backends::Chosen;
use super::error::Error;
use crate::bundle::Bundle;
use crate::runtime::generator::Generator;
use crate::runtime::plan::Program;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

type Job = Box<dyn FnOnce(&mut Result<Generator, Error>) + Send>;

/// The thread, once there is one.
#[derive(Default)]
pub(super) struct Desk(Mutex<Option<(mpsc::Sender<Job>, JoinHandle<()>)>>);

impl Desk {
    /// Does work on the thread and waits for it.
    ///
    /// # Errors
    /// The backend cannot be opened, the work panicked, or what it says.
    pub fn run<T: Send + 'static>(
        &self,
        (bundle, backend, program): (&Bundle, &Chosen, &Program),
        work: impl FnOnce(&mut Generator) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (tell, told) = mpsc::channel();
        let job: Job = Box::new(move |generator| {
            let done = match generator {
                Ok(generator) => catch_unwind(AssertUnwindSafe(|| work(generator)))
                    .unwrap_or_else(|_| Err(Error::internal("the engine panicked"))),
                Err(error) => Err(error.clone()),
            };
            // Whoever asked waits below.
            let _heard = tell.send(done);
        });
        let ended = || Error::internal("the thread of a model's own generator has ended");
        {
            let mut thread = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if thread.is_none() {
                *thread = Some(start(bundle.clone(), backend.clone(), program.clone())?);
            }
            let (jobs, _) = thread.as_ref().ok_or_else(ended)?;
            jobs.send(job).map_err(|_| ended())?;
        }
        told.recv().map_err(|_| ended())?
    }

    /// Ends the thread after what it has.
    pub fn close(&self) {
        let thread = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((jobs, thread)) = thread {
            drop(jobs);
            // Panics of jobs were caught and told.
            let _ended = thread.join();
        }
    }
}

fn start(
    bundle: Bundle,
    backend: Chosen,
    program: Program,
) -> Result<(mpsc::Sender<Job>, JoinHandle<()>), Error> {
    let (jobs, received) = mpsc::channel::<Job>();
    let run = move || {
        let opened = backend.backend(&bundle).map_err(Error::from);
        let mut generator = opened.map(|backend| Generator::new(program, backend));
        for job in received {
            job(&mut generator);
        }
    };
    let thread = std::thread::Builder::new().name("desk".to_owned()).spawn(run);
    Ok((jobs, thread.map_err(|error| Error::backend(error.to_string()))?))
}
