//! Where a server stands between its start and its end, and what is under way. Owns the count of requests that a drain waits
//! for; knows no signals, which are `cli`'s.

use super::error::ApiError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::watch;

/// Where a server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It takes requests.
    Serving,
    /// It finishes what it has and takes nothing more.
    Draining,
    /// Everything is to end now.
    Stopped,
}

/// The phase and what is under way.
#[derive(Debug)]
pub struct Lifecycle {
    phase: watch::Sender<Phase>,
    under_way: AtomicUsize,
    /// Told when a request ends.
    ended: watch::Sender<()>,
    failure: OnceLock<String>,
}

/// A request that a drain waits for.
#[derive(Debug)]
pub struct UnderWay(Arc<Lifecycle>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
        self.0.ended.send_replace(());
    }
}

impl Lifecycle {
    /// A server that serves.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Lifecycle {
            phase: watch::Sender::new(Phase::Serving),
            under_way: AtomicUsize::new(0),
            ended: watch::Sender::new(()),
            failure: OnceLock::new(),
        })
    }

    /// Where it stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Hears of phases.
    #[must_use]
    pub fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Takes nothing more.
    pub fn drain(&self) {
        self.phase.send_if_modified(|phase| {
            let serving = *phase == Phase::Serving;
            if serving {
                *phase = Phase::Draining;
            }
            serving
        });
    }

    /// Ends everything.
    pub fn stop(&self) {
        self.phase.send_replace(Phase::Stopped);
    }

    /// Ends everything because an engine failed; the first reason is kept.
    pub fn fail(&self, message: &str) {
        // The reason of a later failure is the first one.
        let _first = self.failure.set(message.to_owned());
        self.drain();
    }

    /// Why it ends, where an engine failed.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Requests under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.under_way.load(Ordering::SeqCst)
    }

    /// Waits until everything is to end.
    pub async fn stopped(&self) {
        let mut phases = self.phases();
        // The sender lives as long as this.
        let _phase = phases.wait_for(|phase| *phase == Phase::Stopped).await.map(|phase| *phase);
    }

    /// Begins a request.
    ///
    /// # Errors
    /// The server takes nothing more.
    pub fn enter(self: &Arc<Self>) -> Result<UnderWay, ApiError> {
        // Counted first: a drain that begins now waits for it.
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let entered = UnderWay(Arc::clone(self));
        match (self.failure(), self.phase()) {
            (Some(message), _) => Err(ApiError::unavailable("engine_failed", message)),
            (None, Phase::Serving) => Ok(entered),
            (None, _) => Err(ApiError::unavailable("draining", "the server is shutting down")),
        }
    }

    /// Waits until nothing is under way.
    pub async fn idle(&self) {
        let mut ended = self.ended.subscribe();
        while self.under_way() > 0 {
            if ended.changed().await.is_err() {
                return;
            }
        }
    }
}
