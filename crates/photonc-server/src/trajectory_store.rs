//! Coarse trajectories that are kept for a while, and the thread that expands them. Owns their names, their time to live and
//! the one backend beside the engine's that holds them: an engine's rows come and go, what is kept must not.

use super::ServerState;
use super::answer::name;
use super::engine::{Engine, Opened};
use super::error::ApiError;
use axum::http::StatusCode;
use photonc_runtime::generator::Generator;
use photonc_runtime::sampler::Sampling;
use photonc_runtime::trajectory::Trajectory;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Work on trajectories that waits at most.
const WAITING: usize = 64;

/// What a trajectory's thread has.
pub struct Worker {
    /// What generates and expands.
    pub generator: Generator,
    /// Trajectories by name.
    pub kept: BTreeMap<String, Kept>,
}

/// A trajectory that is kept.
pub struct Kept {
    /// The trajectory, on the device.
    pub trajectory: Trajectory,
    /// How its tokens were drawn.
    pub sampling: Sampling,
}

type Job = Box<dyn FnOnce(Result<&mut Worker, ApiError>) + Send>;

/// Whose a trajectory is, and until when.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The model's name.
    pub model: String,
    until: Instant,
}

/// Trajectories of all models.
pub struct TrajectoryStore {
    ttl: Duration,
    most: usize,
    owners: Mutex<BTreeMap<String, Owner>>,
    threads: Mutex<BTreeMap<String, mpsc::Sender<Job>>>,
    waiting: Arc<AtomicUsize>,
}

impl TrajectoryStore {
    /// Nothing kept; each for so long, so many at most.
    #[must_use]
    pub fn new(ttl: Duration, most: usize) -> Self {
        TrajectoryStore {
            ttl,
            most,
            owners: Mutex::default(),
            threads: Mutex::default(),
            waiting: Arc::default(),
        }
    }

    /// How long a trajectory is kept behind its last use.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// A name for another trajectory of a model.
    ///
    /// # Errors
    /// As many are kept as may be.
    pub fn reserve(&self, model: &str) -> Result<String, ApiError> {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        owners.retain(|_, owner| owner.until > now);
        if owners.len() >= self.most {
            let message = format!("{} trajectories are kept already; delete one or wait", self.most);
            return Err(ApiError::too_many("too_many_trajectories", message));
        }
        let id = name("traj");
        owners.insert(id.clone(), Owner { model: model.to_owned(), until: now + self.ttl });
        Ok(id)
    }

    /// Whose a trajectory is; it is kept for its whole time again.
    ///
    /// # Errors
    /// It is not kept, or no longer.
    pub fn touch(&self, id: &str) -> Result<Owner, ApiError> {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match owners.get_mut(id).filter(|owner| owner.until > now) {
            Some(owner) => {
                owner.until = now + self.ttl;
                Ok(owner.clone())
            }
            None => Err(missing(id)),
        }
    }

    /// Forgets a trajectory; its memory goes with the next work of its thread.
    pub fn release(&self, id: &str) {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Forgets every trajectory of a model, and its thread.
    pub fn forget(&self, model: &str) {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, owner| owner.model != model);
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).remove(model);
    }

    fn alive(&self, id: &str) -> bool {
        let owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        owners.get(id).is_some_and(|owner| owner.until > Instant::now())
    }

    /// Does work on the thread of a model's trajectories, which is started where there is none.
    ///
    /// # Errors
    /// The backend has no room for it (501), too much waits (429), or what the work says.
    pub async fn work<T: Send + 'static>(
        state: &Arc<ServerState>,
        engine: &Arc<Engine>,
        work: impl FnOnce(&mut Worker) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let store = &state.trajectories;
        if store.waiting.fetch_add(1, Ordering::SeqCst) >= WAITING {
            store.waiting.fetch_sub(1, Ordering::SeqCst);
            return Err(ApiError::too_many("queue_full", format!("{WAITING} expansions wait already")));
        }
        let waiting = Arc::clone(&store.waiting);
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move |worker| {
            waiting.fetch_sub(1, Ordering::SeqCst);
            // Nobody waits any more where the client has gone.
            let _unheard = tell.send(worker.and_then(work));
        });
        store.send(state, engine, job)?;
        told.await.unwrap_or_else(|_| Err(ApiError::internal("the thread of trajectories has ended")))
    }

    fn send(&self, state: &Arc<ServerState>, engine: &Arc<Engine>, job: Job) -> Result<(), ApiError> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if !threads.contains_key(&engine.name) {
            let (send, jobs) = mpsc::channel();
            self.start(state, engine, jobs)?;
            threads.insert(engine.name.clone(), send);
        }
        let sent = threads.get(&engine.name).map(|thread| thread.send(job));
        if matches!(sent, Some(Ok(()))) {
            return Ok(());
        }
        threads.remove(&engine.name);
        Err(ended())
    }

    fn start(
        &self,
        state: &Arc<ServerState>,
        engine: &Arc<Engine>,
        jobs: mpsc::Receiver<Job>,
    ) -> Result<(), ApiError> {
        let (bundle, backends) = (engine.bundle.clone(), Arc::clone(&state.backends));
        let state = Arc::downgrade(state);
        let run = move || {
            let mut worker = backends
                .open(&bundle, 0, &[])
                .map(|Opened { generator, .. }| Worker { generator, kept: BTreeMap::new() });
            for job in jobs {
                let Some(state) = state.upgrade() else { return };
                match &mut worker {
                    Ok(worker) => {
                        worker.kept.retain(|id, _| state.trajectories.alive(id));
                        job(Ok(worker));
                    }
                    Err(message) => job(Err(not_here(message))),
                }
            }
        };
        let thread = std::thread::Builder::new().name("trajectories".to_owned()).spawn(run);
        thread.map(drop).map_err(|error| ApiError::internal(error.to_string()))
    }
}

fn ended() -> ApiError {
    ApiError::internal("the thread of trajectories has ended")
}

/// A trajectory that is not kept.
#[must_use]
pub fn missing(id: &str) -> ApiError {
    let message = format!("there is no trajectory `{id}`, or no longer");
    ApiError::new(StatusCode::NOT_FOUND, "trajectory_not_found", message).of("id")
}

/// Trajectories are not kept here, and why.
#[must_use]
pub fn not_here(message: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_IMPLEMENTED, "trajectories_unavailable", message)
}
