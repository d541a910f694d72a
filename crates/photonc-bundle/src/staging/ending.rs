//! What must not outlive a run that is ended from outside: by a signal, or because memory ran out. Owns the list of what was
//! begun and is not finished, and that nothing is half renamed when the list is cleared.

use super::removal::remove_tree;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

/// Held while names change; taken for good by the end of the process.
static GATE: Mutex<()> = Mutex::new(());
static LIST: Mutex<BTreeMap<u64, Unfinished>> = Mutex::new(BTreeMap::new());
static NEXT: AtomicU64 = AtomicU64::new(0);

/// How often, with 10 ms between, an end waits for a step that is under way: a device that hangs must not keep it.
const WAITS: usize = 300;

#[derive(Debug)]
enum Unfinished {
    File(PathBuf),
    /// A folder, and the folders around it that were made for it, innermost first.
    Folder(PathBuf, Vec<PathBuf>),
    /// A file of which so many bytes are whole lines.
    Lines(Arc<File>, Arc<AtomicU64>),
}

/// Something begun; dropping it says that it is finished, or removed already.
#[derive(Debug)]
pub struct Begun(u64);

impl Begun {
    /// A file that is removed if the run ends now.
    #[must_use]
    pub fn file(path: PathBuf) -> Self {
        Self::list(Unfinished::File(path))
    }

    /// A folder that is removed if the run ends now, and the folders `around` it, innermost first, where they are empty.
    #[must_use]
    pub fn folder(path: PathBuf, around: Vec<PathBuf>) -> Self {
        Self::list(Unfinished::Folder(path, around))
    }

    /// A file that is cut to its first `whole` bytes if the run ends now.
    #[must_use]
    pub fn lines(file: Arc<File>, whole: Arc<AtomicU64>) -> Self {
        Self::list(Unfinished::Lines(file, whole))
    }

    fn list(unfinished: Unfinished) -> Self {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        list().insert(id, unfinished);
        Begun(id)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        list().remove(&self.0);
    }
}

/// Does what must not be cut in two by an end from outside: making, renaming and removing what the list is about. Calls do not
/// nest.
pub fn undisturbed<T>(work: impl FnOnce() -> T) -> T {
    let _gate = GATE.lock().unwrap_or_else(PoisonError::into_inner);
    work()
}

/// Removes everything that was begun and is not finished. Whoever comes to [`undisturbed`] afterwards waits for the end of the
/// process, which the caller brings about.
pub fn clear() {
    if let Some(gate) = wait_for(&GATE) {
        std::mem::forget(gate);
    }
    let Some(mut list) = wait_for(&LIST) else { return };
    for unfinished in std::mem::take(&mut *list).into_values() {
        // The process ends: what cannot be removed is left to the next run.
        match unfinished {
            Unfinished::File(path) => drop(std::fs::remove_file(path)),
            Unfinished::Folder(path, around) => {
                drop(remove_tree(&path));
                around.iter().for_each(|folder| drop(std::fs::remove_dir(folder)));
            }
            Unfinished::Lines(file, whole) => drop(file.set_len(whole.load(Ordering::Relaxed))),
        }
    }
}

/// The lock, or `None` where it does not become free: whoever holds it may be this very thread, out of memory.
fn wait_for<T>(lock: &'static Mutex<T>) -> Option<MutexGuard<'static, T>> {
    for _ in 0..WAITS {
        match lock.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(guard)) => return Some(guard.into_inner()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    None
}

fn list() -> MutexGuard<'static, BTreeMap<u64, Unfinished>> {
    LIST.lock().unwrap_or_else(PoisonError::into_inner)
}
