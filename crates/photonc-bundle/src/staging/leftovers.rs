//! What interrupted runs leave, and its end. Owns how it is known: by its name, and as nobody's by its free lock. What cannot
//! be removed is told and stands in nobody's way.

use super::in_place;
use super::names::{beside, inside, parent, target_of, waiting};
use super::removal::remove_tree;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

/// How often, with 10 ms between, one waits for another's renames.
const WAITS: usize = 200;

/// Held while names in a folder change, so that two runs do not undo each other's steps. Where the file system has no locks
/// there is none.
pub(super) struct Queue(Option<File>);

impl Queue {
    pub(super) fn at(folder: &Path) -> Self {
        let Ok(folder) = File::open(folder) else { return Queue(None) };
        for _ in 0..WAITS {
            match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Queue(Some(folder)),
                Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(Duration::from_millis(10)),
                Err(_) => break,
            }
        }
        Queue(None)
    }

    /// Whether others really wait.
    pub(super) fn is_held(&self) -> bool {
        self.0.is_some()
    }
}

/// The lock goes with the process that made the folder, however it ended.
fn is_abandoned(folder: &Path) -> bool {
    File::open(folder).is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok())
}

/// Puts right what interrupted runs left at `target` and around it. Returns what could not be removed, as sentences.
pub(super) fn recover(target: &Path, seal: &str) -> Vec<String> {
    let mut notes = Vec::new();
    let folder = parent(target);
    let queue = Queue::at(&folder);
    let old = waiting(target);
    if old.is_dir() && !target.exists() {
        if let Err(error) = fs::rename(&old, target) {
            notes.push(format!("{}: cannot put it back: {error}", old.display()));
        }
    } else if old.is_dir() {
        told(remove_tree(&old), &old, &mut notes);
    }
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let of_target = name.as_bytes().starts_with(beside(target).as_bytes());
        let other = target_of(&name).filter(|(other, own)| !of_target && *own && !other.is_empty());
        if !(of_target || other.is_some() && queue.is_held()) || !path.is_dir() || !is_abandoned(&path) {
            continue;
        }
        match other {
            // Another target's: removed with as little said as when it was left.
            Some((name, _)) => {
                if in_place::settle(&path, &folder.join(name), seal).is_ok() {
                    let _ = remove_tree(&path);
                }
            }
            None => settled(&path, target, seal, &mut notes),
        }
    }
    drop(queue);
    recover_inside(target, seal, &mut notes);
    notes
}

/// The same inside the target, where it could not be replaced as a whole.
fn recover_inside(target: &Path, seal: &str, notes: &mut Vec<String>) {
    if !target.is_dir() {
        return;
    }
    let _queue = Queue::at(target);
    for entry in fs::read_dir(target).into_iter().flatten().flatten() {
        let path = entry.path();
        let ours = entry.file_name().as_bytes().starts_with(inside().as_bytes());
        if ours && path.is_dir() && is_abandoned(&path) {
            settled(&path, target, seal, notes);
        }
    }
}

fn settled(left: &Path, target: &Path, seal: &str, notes: &mut Vec<String>) {
    match in_place::settle(left, target, seal) {
        Ok(()) => told(remove_tree(left), left, notes),
        Err(error) => {
            notes.push(format!("{}: an interrupted run cannot be put right: {error}", left.display()));
        }
    }
}

/// Adds what could not be removed.
pub(super) fn told(removed: std::io::Result<()>, path: &Path, notes: &mut Vec<String>) {
    if let Err(error) = removed {
        notes.push(format!("{}: is not needed any more and cannot be removed: {error}", path.display()));
    }
}
