//! Filling a folder that cannot be replaced as a whole: a mount point, one of a lower layer, the one the user is in. Owns that
//! nobody reads a mixture: the file that makes a folder whole, its seal, goes first and comes last.

use super::StagingError;
use super::names::{EMPTYING, FILLING, is_foreign};
use super::removal::move_tree;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::Path;

/// Contents of a folder, in order, without what is only passing through.
pub(super) fn contents(folder: &Path) -> io::Result<Vec<OsString>> {
    let names: io::Result<Vec<OsString>> =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name())).collect();
    let mut names = names?;
    names.retain(|name| !is_foreign(name) && name != EMPTYING && name != FILLING);
    names.sort_unstable();
    Ok(names)
}

/// Puts the contents of `staged` into `target` in place of what is there, which ends up in a folder inside `staged`. An error
/// leaves everything as it was. The caller syncs `target`.
pub(super) fn fill(staged: &Path, target: &Path, seal: &str) -> Result<(), StagingError> {
    let failed = |source| StagingError::Io { path: target.to_owned(), action: "replace what is in", source };
    let emptying = staged.join(EMPTYING);
    fs::create_dir(&emptying).map_err(failed)?;
    let emptied = move_contents(target, &emptying, seal, Seal::First);
    let emptied = emptied.and_then(|()| fs::rename(&emptying, staged.join(FILLING)));
    if let Err(error) = emptied {
        settle(staged, target, seal).map_err(failed)?;
        return Err(failed(error));
    }
    if let Err(error) = move_contents(staged, target, seal, Seal::Last) {
        // Back to what was there: the other way round, step by step.
        let back = move_contents(target, staged, seal, Seal::First)
            .and_then(|()| fs::rename(staged.join(FILLING), &emptying))
            .and_then(|()| settle(staged, target, seal));
        back.map_err(failed)?;
        return Err(failed(error));
    }
    Ok(())
}

/// Whether a folder is being filled, or a run that filled it was interrupted.
pub(super) fn is_filling(staged: &Path) -> bool {
    staged.join(EMPTYING).is_dir() || staged.join(FILLING).is_dir()
}

/// Ends what an interrupted run began: a target that was being emptied gets its contents back, one that was being filled the
/// rest of the new ones.
pub(super) fn settle(staged: &Path, target: &Path, seal: &str) -> io::Result<()> {
    let emptying = staged.join(EMPTYING);
    if emptying.is_dir() {
        move_contents(&emptying, target, seal, Seal::Last)?;
        return fs::remove_dir(&emptying);
    }
    if staged.join(FILLING).is_dir() {
        move_contents(staged, target, seal, Seal::Last)?;
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Seal {
    First,
    Last,
}

fn move_contents(from: &Path, to: &Path, seal: &str, place: Seal) -> io::Result<()> {
    let (seals, others): (Vec<_>, Vec<_>) =
        contents(from)?.into_iter().partition(|name| name == OsStr::new(seal));
    let ordered = match place {
        Seal::First => seals.into_iter().chain(others),
        Seal::Last => others.into_iter().chain(seals),
    };
    for name in ordered {
        move_tree(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}
