//! Errors of bundles. Each names the file, what was found and what to do.

use crate::staging::StagingError;
use std::io;
use std::path::{Path, PathBuf};

/// Why a bundle could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The target exists and is something else.
    #[error("{}: exists and is not a bundle ({reason}); choose another directory or remove it", .path.display())]
    NotABundle {
        /// The target.
        path: PathBuf,
        /// What it is.
        reason: String,
    },
    /// The target is a bundle and the caller did not ask to replace it.
    #[error("{}: a bundle is there already; replace it with --force", .path.display())]
    Exists {
        /// The target.
        path: PathBuf,
    },
    /// The file system is full; what was written is gone again.
    #[error("{}: no space left on the device; nothing was kept, free some space and export again", .path.display())]
    NoSpace {
        /// The file being written.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error("{}: cannot {action}: {source}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// It is in its place, and the system could not make that durable.
    #[error("{}: is in its place, but a power failure may undo that: {source}", .path.display())]
    NotDurable {
        /// The bundle, or the folder of engines.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file ended early or its contents changed while it was read.
    #[error("{}: {found} bytes where {expected} were expected; the file is truncated or being written", .path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes there.
        found: u64,
        /// Bytes expected.
        expected: u64,
    },
    /// The manifest cannot be used.
    #[error("{}: {message}", .path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What was found and expected.
        message: String,
    },
    /// A file's contents are not those the manifest recorded.
    #[error("{}: contents differ from the manifest (BLAKE3 {found}, expected {expected}); export the bundle again", .path.display())]
    Hash {
        /// The file.
        path: PathBuf,
        /// Hash of the contents.
        found: String,
        /// Hash in the manifest.
        expected: String,
    },
    /// A file is not what a bundle consists of.
    #[error("{}: not a regular file (a folder, pipe or device), expected a file of the bundle", .path.display())]
    NotAFile {
        /// What stands there.
        path: PathBuf,
    },
    /// A file is longer than any that photonc writes.
    #[error("{}: {found} bytes, at most {most} are read", .path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Bytes there.
        found: u64,
        /// Bytes read at most.
        most: u64,
    },
    /// The bundle, or a file of it, is another one than when it was opened.
    #[error("{}: was replaced or changed while in use; run the command again", .path.display())]
    Replaced {
        /// The bundle or the file.
        path: PathBuf,
    },
    /// The manifest says of a graph or a model what the graph's text does not.
    #[error("{}: {message}; export the bundle again", .path.display())]
    Differs {
        /// The manifest or the file.
        path: PathBuf,
        /// Where, what was found and what the graphs say.
        message: String,
    },
    /// A name that leads out of the bundle.
    #[error("`{name}` is not a path inside the bundle")]
    OutsideBundle {
        /// The name.
        name: String,
    },
    /// Something the caller asked for is not in the bundle.
    #[error("{}: has no {what}; {action}", .path.display())]
    Missing {
        /// The bundle.
        path: PathBuf,
        /// What was asked for.
        what: String,
        /// What to do.
        action: &'static str,
    },
    /// The check handed in by the caller refused a weight.
    #[error("{0}")]
    Refused(String),
}

impl BundleError {
    /// The error of a failed system call on `path`.
    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull => BundleError::NoSpace { path },
            _ => BundleError::Io { path, action, source },
        }
    }
}

impl From<StagingError> for BundleError {
    fn from(error: StagingError) -> Self {
        match error {
            StagingError::Exists { path } => BundleError::Exists { path },
            StagingError::NoName { path } => {
                BundleError::NotABundle { path, reason: "the root of the file system".to_owned() }
            }
            StagingError::Io { path, action, source } => BundleError::io(&path, action)(source),
            StagingError::NotDurable { path, source } => BundleError::NotDurable { path, source },
        }
    }
}
