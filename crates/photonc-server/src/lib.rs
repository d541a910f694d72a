//! The server: OpenAI's interfaces and KServe's protocol over the open queue of the runtime. Owns HTTP, names of models, text
//! of tokens on their way, and the life of a server from its socket to its drain; which backend runs a bundle is the caller's choice
//! ([`engine::Backends`]).
//!
//! Invariant: every parameter of a body is honoured or refused by its name; none is ignored.
//! Invariant: a client that has gone ends its requests; a request that was taken is answered, in words where it failed.

mod admin;
mod answer;
mod body;
mod chat;
mod completions;
pub mod engine;
mod error;
mod fields;
mod flow;
mod fuzzing;
mod generate;
mod generation;
mod guard;
mod info;
mod language;
mod lifecycle;
mod listen;
mod messages;
mod metrics;
mod models;
mod named;
mod openapi;
pub mod options;
mod page;
mod prompt;
mod responses;
mod routes;
mod stream;
mod tls;
mod tokens;
mod told;
mod trajectories;
mod trajectory_store;
mod v2;

use engine::Backends;
#[doc(hidden)]
pub use fuzzing::read_body;
use lifecycle::{Lifecycle, Phase};
use metrics::Metrics;
use models::Models;
use options::ServeOptions;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use trajectory_store::TrajectoryStore;

/// The right to an open stream.
type StreamPermit = OwnedSemaphorePermit;

/// Why there is no server, or no longer one.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be listened at.
    #[error("cannot listen at {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A file of TLS is wrong.
    #[error("{}: {message}", .path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What was found.
        message: String,
    },
    /// A model cannot be loaded, or its engine failed.
    #[error("{0}")]
    Engine(String),
    /// The system gives no threads or sockets.
    #[error("the server cannot run: {0}")]
    System(#[from] std::io::Error),
    /// Two measured values have one name.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

/// Everything that handlers share.
struct ServerState {
    options: ServeOptions,
    models: Models,
    metrics: Arc<Metrics>,
    lifecycle: Arc<Lifecycle>,
    backends: Arc<dyn Backends>,
    stream_permits: Arc<Semaphore>,
    trajectories: TrajectoryStore,
}

impl ServerState {
    /// The server ends: what ran has been told, and nothing more can run.
    fn engine_failed(&self, message: &str) {
        self.lifecycle.fail(message);
    }
}

/// A server with a socket.
pub struct Server {
    state: Arc<ServerState>,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
}

/// What ends a server or loads its models again, from any thread.
#[derive(Clone)]
pub struct Control(Arc<ServerState>);

impl Control {
    /// Takes nothing more; the server ends once everything under way has.
    pub fn drain(&self) {
        self.0.lifecycle.drain();
    }

    /// Ends everything under way now.
    pub fn stop(&self) {
        self.0.lifecycle.stop();
    }

    /// Loads every bundle again from where it is, while requests run on.
    pub fn reload(&self) {
        for (name, path) in self.0.models.paths() {
            let state = Arc::clone(&self.0);
            std::thread::spawn(move || {
                // What went wrong is in the log, and the old model runs on.
                let _told = models::load(&state, &name, &path);
            });
        }
    }
}

impl Server {
    /// Takes the socket and reads the certificates; loads nothing yet.
    ///
    /// # Errors
    /// The address is taken or not this machine's, or the certificates are wrong.
    pub fn bind(options: ServeOptions, backends: Arc<dyn Backends>) -> Result<Self, ServerError> {
        let tls = options.tls.as_ref().map(tls::acceptor).transpose()?;
        let address = options.address;
        let bound = TcpListener::bind(address);
        let listener = bound.map_err(|source| ServerError::Bind { address, source })?;
        listener.set_nonblocking(true)?;
        let lifecycle = Lifecycle::new();
        let state = Arc::new(ServerState {
            models: Models::new(&options.bundles),
            metrics: Arc::new(Metrics::new()?),
            trajectories: TrajectoryStore::new(options.limits.trajectory_ttl, options.limits.trajectories),
            stream_permits: Arc::new(Semaphore::new(options.limits.streams)),
            lifecycle,
            backends,
            options,
        });
        Ok(Server { state, listener, tls })
    }

    /// Where it listens: with the port that the system chose, where 0 was asked for.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn address(&self) -> Result<SocketAddr, ServerError> {
        Ok(self.listener.local_addr()?)
    }

    /// What ends it.
    #[must_use]
    pub fn control(&self) -> Control {
        Control(Arc::clone(&self.state))
    }

    /// Loads the models and serves until it is drained or stopped.
    ///
    /// # Errors
    /// A model cannot be loaded, an engine failed, or the system gives no threads.
    pub fn run(self) -> Result<(), ServerError> {
        let Server { state, listener, tls } = self;
        let loading = Arc::clone(&state);
        std::thread::Builder::new().name("load".to_owned()).spawn(move || {
            for (name, path) in loading.models.paths() {
                if models::load(&loading, &name, &path).is_err() {
                    let statuses = loading.models.statuses();
                    let failed = statuses.into_iter().find(|status| status.name == name);
                    let message = failed.and_then(|status| status.error).unwrap_or_default();
                    loading.lifecycle.fail(&message);
                    return;
                }
            }
        })?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let served = runtime.block_on(listen::serve(Arc::clone(&state), listener, tls));
        // Streams that did not end in time are cut off; their requests end with them.
        runtime.shutdown_timeout(std::time::Duration::from_millis(200));
        let engines = state.models.engines();
        engines.iter().for_each(|engine| engine.close());
        let failed = state.lifecycle.failure().map(str::to_owned);
        if state.lifecycle.phase() == Phase::Stopped && failed.is_none() {
            engines.iter().for_each(|engine| engine.join());
        }
        served?;
        failed.map_or(Ok(()), |message| Err(ServerError::Engine(message)))
    }
}
