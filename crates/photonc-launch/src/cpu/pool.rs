//! Threads that share the work of a call. Owns how it is divided: into pieces that any thread takes, the calling one among
//! them; which thread took which changes nothing. Threads without work sleep.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Nanoseconds of work that waking a thread is not worth.
const INLINE_NS: usize = 20_000;

/// Threads.
pub struct Pool {
    threads: usize,
    /// All but the calling thread; none for one thread.
    others: Option<rayon::ThreadPool>,
}

impl Pool {
    /// `threads` threads, the calling one among them; at least one.
    ///
    /// # Errors
    /// The system starts no thread.
    pub fn new(threads: usize) -> Result<Self, String> {
        let others = match threads.saturating_sub(1) {
            0 => None,
            others => {
                let name = |index| format!("photonc-cpu-{index}");
                let built = rayon::ThreadPoolBuilder::new().num_threads(others).thread_name(name).build();
                Some(built.map_err(|error| error.to_string())?)
            }
        };
        Ok(Pool { threads: threads.max(1), others })
    }

    /// Threads, the calling one among them.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `work` with every number below `pieces`, each once, of a call that takes one thread about `work_ns`.
    pub fn share(&self, pieces: usize, work_ns: usize, work: &(dyn Fn(usize) + Sync)) {
        let helpers = (self.threads - 1).min(pieces.saturating_sub(1));
        let Some(others) = self.others.as_ref().filter(|_| helpers > 0 && work_ns >= INLINE_NS) else {
            return (0..pieces).for_each(work);
        };
        let next = AtomicUsize::new(0);
        let take = || {
            loop {
                let piece = next.fetch_add(1, Ordering::Relaxed);
                if piece >= pieces {
                    return;
                }
                work(piece);
            }
        };
        others.in_place_scope(|scope| {
            for _ in 0..helpers {
                scope.spawn(|_| take());
            }
            take();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::Pool;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_piece_is_done_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads).expect("threads");
            for pieces in [0, 1, 2, 3, 100] {
                let done: Vec<AtomicUsize> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
                pool.share(pieces, usize::MAX, &|piece| {
                    done[piece].fetch_add(1, Ordering::Relaxed);
                });
                assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }
}
