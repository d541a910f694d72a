//! The temporary directory beside a target, and the swap. Owns the promise that the target is the old bundle or the new
//! one at every instant; a killed run's leftovers are recognised by name, and as nobody's by their free lock.

use super::BundleError;
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

const NEW: &str = "photonc-new";
const OLD: &str = "photonc-old";

/// A locked directory on the target's file system; removed on drop unless published.
#[derive(Debug)]
pub(super) struct Staging {
    target: PathBuf,
    directory: PathBuf,
    /// Held open for its lock.
    _lock: File,
}

impl Staging {
    /// Puts an interrupted fallback swap right, clears leftovers of killed runs, then makes a fresh directory.
    pub(super) fn create(target: &Path) -> Result<Self, BundleError> {
        let parent = parent(target);
        fs::create_dir_all(&parent).map_err(BundleError::io(&parent, "create"))?;
        recover(target)?;
        let name = file_name(target)?;
        let directory = tempfile::Builder::new()
            .prefix(&format!(".{name}.{NEW}."))
            .tempdir_in(&parent)
            .map_err(BundleError::io(&parent, "create a temporary directory in"))?
            .keep();
        let lock = File::open(&directory).map_err(BundleError::io(&directory, "open"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| BundleError::io(&directory, "lock")(error.into()))?;
        readable_by_all(&directory)?;
        Ok(Staging { target: target.to_owned(), directory, _lock: lock })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Puts the directory in the target's place; an old bundle is whole until the swap and gone after it.
    pub(super) fn publish(self) -> Result<(), BundleError> {
        sync_tree(&self.directory)?;
        let parent = parent(&self.target);
        if self.target.exists() {
            self.exchange()?;
        } else {
            fs::rename(&self.directory, &self.target).map_err(BundleError::io(&self.target, "rename"))?;
        }
        sync_directory(&parent)
        // Dropping removes what now stands under the temporary name: the old bundle, if there was one.
    }

    fn exchange(&self) -> Result<(), BundleError> {
        if renameat_with(CWD, &self.directory, CWD, &self.target, RenameFlags::EXCHANGE).is_ok() {
            return Ok(());
        }
        // File systems without an exchange: the old bundle waits whole under a name that `recover` knows.
        let old = parent(&self.target).join(format!(".{}.{OLD}", file_name(&self.target)?));
        fs::rename(&self.target, &old).map_err(BundleError::io(&self.target, "rename"))?;
        if let Err(error) = fs::rename(&self.directory, &self.target) {
            fs::rename(&old, &self.target).map_err(BundleError::io(&old, "rename back"))?;
            return Err(BundleError::io(&self.target, "rename")(error));
        }
        fs::remove_dir_all(&old).map_err(BundleError::io(&old, "remove"))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // A leftover costs space only, and the next export to this target removes it.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn parent(target: &Path) -> PathBuf {
    match target.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn file_name(target: &Path) -> Result<String, BundleError> {
    match target.file_name() {
        Some(name) => Ok(name.to_string_lossy().into_owned()),
        None => Err(BundleError::NotABundle {
            path: target.to_owned(),
            reason: "the path does not end in a name".to_owned(),
        }),
    }
}

fn recover(target: &Path) -> Result<(), BundleError> {
    let (parent, name) = (parent(target), file_name(target)?);
    let old = parent.join(format!(".{name}.{OLD}"));
    if old.is_dir() && !target.exists() {
        fs::rename(&old, target).map_err(BundleError::io(&old, "rename back"))?;
    } else if old.is_dir() {
        fs::remove_dir_all(&old).map_err(BundleError::io(&old, "remove"))?;
    }
    let prefix = format!(".{name}.{NEW}.");
    for entry in fs::read_dir(&parent).map_err(BundleError::io(&parent, "list"))? {
        let path = entry.map_err(BundleError::io(&parent, "list"))?.path();
        let ours = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix));
        if ours && path.is_dir() && is_abandoned(&path) {
            fs::remove_dir_all(&path).map_err(BundleError::io(&path, "remove"))?;
        }
    }
    Ok(())
}

/// The lock goes with the process that made the directory, however it ended.
fn is_abandoned(directory: &Path) -> bool {
    File::open(directory).is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok())
}

/// Temporary directories are private; a bundle is as readable as the user's other directories.
fn readable_by_all(directory: &Path) -> Result<(), BundleError> {
    use std::os::unix::fs::PermissionsExt as _;
    let probe = directory.join("mode");
    fs::create_dir(&probe).map_err(BundleError::io(&probe, "create"))?;
    let mode = fs::metadata(&probe).map_err(BundleError::io(&probe, "inspect"))?.permissions().mode();
    fs::remove_dir(&probe).map_err(BundleError::io(&probe, "remove"))?;
    fs::set_permissions(directory, fs::Permissions::from_mode(mode))
        .map_err(BundleError::io(directory, "set permissions of"))
}

fn sync_directory(directory: &Path) -> Result<(), BundleError> {
    File::open(directory).and_then(|file| file.sync_all()).map_err(BundleError::io(directory, "sync"))
}

fn sync_tree(directory: &Path) -> Result<(), BundleError> {
    for entry in fs::read_dir(directory).map_err(BundleError::io(directory, "list"))? {
        let path = entry.map_err(BundleError::io(directory, "list"))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        }
    }
    sync_directory(directory)
}
