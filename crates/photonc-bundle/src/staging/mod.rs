//! Folders that appear whole: written beside their target or, where that cannot be, inside it, and put in its place at the end.
//! Owns the promise that whoever reads the target finds the old folder, the new one, or is told that neither is there; what is
//! inside is the caller's.

mod ending;
mod in_place;
mod leftovers;
mod names;
mod removal;

pub use ending::{Begun, clear, undisturbed};
pub use removal::remove_tree;

use leftovers::{Queue, told};
use names::{parent, waiting};
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Why a folder was not put in its place; but for [`StagingError::NotDurable`] what was there is there.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// Something is there already and was not to be replaced.
    #[error("{}: is there already", .path.display())]
    Exists {
        /// The target.
        path: PathBuf,
    },
    /// The root of the file system.
    #[error("{}: has no name", .path.display())]
    NoName {
        /// The target.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{}: cannot {action}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// It is in its place, and the system could not make that durable.
    #[error("{}: is in its place, but a power failure may undo that: {source}", .path.display())]
    NotDurable {
        /// The target.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl StagingError {
    fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| StagingError::Io { path, action, source }
    }
}

/// A folder that may be made or replaced: where it really is, with what interrupted runs left there put right.
#[derive(Debug)]
pub struct Site {
    path: PathBuf,
    seal: &'static str,
    notes: Vec<String>,
}

impl Site {
    /// The place of `target`: links are followed. `seal` is the file without which such a folder is not whole; it comes last.
    ///
    /// # Errors
    /// The path leads nowhere, or is the root.
    pub fn of(target: &Path, seal: &'static str) -> Result<Self, StagingError> {
        let path = names::resolve(target)?;
        let notes = leftovers::recover(&path, seal);
        Ok(Site { path, seal, notes })
    }

    /// Where the folder is, or will be.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of what is there, in order; `None` where nothing is.
    ///
    /// # Errors
    /// What is there is no folder, or cannot be listed.
    pub fn contents(&self) -> io::Result<Option<Vec<std::ffi::OsString>>> {
        match in_place::contents(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            listed => listed.map(Some),
        }
    }
}

/// Where `target` stands while two renames stand in for an exchange: a reader that comes between finds the old folder.
#[must_use]
pub fn standing(target: &Path, seal: &str) -> Option<PathBuf> {
    let old = waiting(&names::resolve(target).ok()?);
    old.join(seal).is_file().then_some(old)
}

/// Whether `target` is not whole because it is being filled, or a run that filled it was interrupted.
#[must_use]
pub fn is_unfinished(target: &Path) -> bool {
    let Ok(target) = names::resolve(target) else { return false };
    let beside = names::beside(&target);
    let unfinished = |folder: &Path, start: &std::ffi::OsStr| {
        fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
            let name = entry.file_name();
            name.as_encoded_bytes().starts_with(start.as_encoded_bytes())
                && in_place::is_filling(&entry.path())
        })
    };
    unfinished(&target, &names::inside()) || unfinished(&parent(&target), &beside)
}

/// A locked folder on the target's file system; removed on drop unless published.
#[derive(Debug)]
pub struct Staging {
    target: PathBuf,
    directory: PathBuf,
    seal: &'static str,
    replace: bool,
    inside: bool,
    notes: Vec<String>,
    /// Folders around the target that were not there, innermost first.
    around: Vec<PathBuf>,
    /// Set where removing the folder would lose what stood at the target.
    holds_old: bool,
    _begun: Begun,
    /// Held open for its lock.
    _lock: File,
}

impl Staging {
    /// Makes a fresh folder for `site`. Without `replace` nothing but an empty folder may be there when it is published.
    ///
    /// # Errors
    /// No folder can be made there.
    pub fn create(site: Site, replace: bool) -> Result<Self, StagingError> {
        let Site { path: target, seal, notes } = site;
        let folder = parent(&target);
        let mut around = missing(&folder);
        undisturbed(|| fs::create_dir_all(&folder)).map_err(StagingError::io(&folder, "create"))?;
        around.retain(|folder| folder.is_dir());
        let unfit = target.is_dir() && (is_mount_point(&target) || holds_working_folder(&target));
        let (directory, lock, begun, inside) = undisturbed(|| {
            let ((directory, lock), inside) = make(&target, &folder, unfit)?;
            let begun = Begun::folder(directory.clone(), around.clone());
            Ok((directory, lock, begun, inside))
        })?;
        let holds_old = false;
        let (_begun, _lock) = (begun, lock);
        Ok(Staging { target, directory, seal, replace, inside, notes, around, holds_old, _begun, _lock })
    }

    /// Where the contents are written.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Puts the folder in the target's place, durably. Returns sentences on what is left of earlier runs and of the old folder.
    ///
    /// # Errors
    /// Something is there that may not be replaced, or the device fails; what was there is there, unless the error is
    /// [`StagingError::NotDurable`].
    pub fn publish(mut self) -> Result<Vec<String>, StagingError> {
        sync_tree(&self.directory)?;
        let folder = if self.inside { self.target.clone() } else { parent(&self.target) };
        let queue = Queue::at(&folder);
        undisturbed(|| self.commit())?;
        drop(queue);
        self.around.clear();
        // Names have changed around the target, or in it where it was filled.
        let synced = sync_directory(&folder).and_then(|()| sync_directory(&self.target));
        synced.map_err(|error| match error {
            StagingError::Io { source, .. } => StagingError::NotDurable { path: self.target.clone(), source },
            error => error,
        })?;
        // What stands under the temporary name now is the old folder, if there was one.
        let mut notes = std::mem::take(&mut self.notes);
        told(undisturbed(|| remove_tree(&self.directory)), &self.directory, &mut notes);
        Ok(notes)
    }

    fn commit(&mut self) -> Result<(), StagingError> {
        if self.inside {
            return self.fill();
        }
        let failed = |error: io::Error| StagingError::io(&self.target, "rename")(error);
        if fs::symlink_metadata(&self.target).is_err() {
            match renameat_with(CWD, &self.directory, CWD, &self.target, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(()),
                Err(Errno::EXIST) => {}
                // No such flag; the queue keeps other runs out.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    return fs::rename(&self.directory, &self.target).map_err(failed);
                }
                Err(error) => return Err(failed(error.into())),
            }
        }
        let swapped = if self.replace { self.exchange() } else { self.take_empty() };
        match swapped {
            Err(StagingError::Io { source, .. })
                if matches!(source.kind(), ErrorKind::ResourceBusy | ErrorKind::CrossesDevices) =>
            {
                self.fill()
            }
            swapped => swapped,
        }
    }

    /// The system puts a folder in the place of an empty one, and of no other.
    fn take_empty(&self) -> Result<(), StagingError> {
        fs::rename(&self.directory, &self.target).map_err(|error| match error.kind() {
            ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists => {
                StagingError::Exists { path: self.target.clone() }
            }
            _ => StagingError::io(&self.target, "rename")(error),
        })
    }

    fn exchange(&self) -> Result<(), StagingError> {
        match renameat_with(CWD, &self.directory, CWD, &self.target, RenameFlags::EXCHANGE) {
            Ok(()) => return Ok(()),
            Err(error @ (Errno::BUSY | Errno::XDEV)) => {
                return Err(StagingError::io(&self.target, "rename")(error.into()));
            }
            Err(_) => {}
        }
        // File systems without an exchange: the old folder waits whole under a name that readers and `recover` know.
        let old = waiting(&self.target);
        fs::rename(&self.target, &old).map_err(StagingError::io(&self.target, "rename"))?;
        if let Err(error) = fs::rename(&self.directory, &self.target) {
            fs::rename(&old, &self.target).map_err(StagingError::io(&old, "rename back"))?;
            return Err(StagingError::io(&self.target, "rename")(error));
        }
        // It stands where the new one did, and goes with it.
        let _ = fs::rename(&old, &self.directory);
        Ok(())
    }

    fn fill(&mut self) -> Result<(), StagingError> {
        let there = in_place::contents(&self.target).map_err(StagingError::io(&self.target, "list"))?;
        if !self.replace && !there.is_empty() {
            return Err(StagingError::Exists { path: self.target.clone() });
        }
        let filled = in_place::fill(&self.directory, &self.target, self.seal);
        self.holds_old = filled.is_err() && in_place::is_filling(&self.directory);
        filled
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.holds_old {
            return;
        }
        // A leftover costs space only, and the next run to this target removes it.
        let _ = undisturbed(|| remove_tree(&self.directory));
        self.around.iter().for_each(|folder| drop(fs::remove_dir(folder)));
    }
}

/// Folders on the way to `folder` that are not there, innermost first.
fn missing(folder: &Path) -> Vec<PathBuf> {
    let ancestors = folder.ancestors().filter(|path| *path != Path::new(""));
    ancestors.take_while(|path| !path.exists()).map(Path::to_owned).collect()
}

/// A fresh folder beside the target, or inside one that is `unfit` to be replaced as a whole; and whether it is inside.
fn make(target: &Path, folder: &Path, unfit: bool) -> Result<((PathBuf, File), bool), StagingError> {
    let within = || fresh(target, &names::inside()).map(|made| (made, true));
    let action = "create a temporary directory in";
    if unfit {
        return within().map_err(StagingError::io(target, action));
    }
    match fresh(folder, &names::beside(target)) {
        Ok(made) => Ok((made, false)),
        // The folder is the user's, what is around it is not.
        Err(error) if target.is_dir() && is_refusal(&error) => {
            within().map_err(|_| StagingError::io(folder, action)(error))
        }
        Err(error) => Err(StagingError::io(folder, action)(error)),
    }
}

/// A fresh folder in `parent`, locked before anybody can take it for abandoned. Its mode is cut by the umask, as that of any
/// folder that a user makes.
fn fresh(parent: &Path, start: &std::ffi::OsStr) -> io::Result<(PathBuf, File)> {
    let _queue = Queue::at(parent);
    let mut start = start.to_owned();
    start.push(format!("{}.", names::host()));
    let directory = tempfile::Builder::new()
        .prefix(&start)
        .permissions(fs::Permissions::from_mode(0o777))
        .tempdir_in(parent)?
        .keep();
    // As the caller names it: messages show it.
    let directory = directory.file_name().map_or(directory.clone(), |name| parent.join(name));
    let locked = File::open(&directory).and_then(|lock| {
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            // Without locks nothing is ever taken for abandoned.
            Ok(()) | Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOLCK) => Ok(lock),
            Err(error) => Err(error.into()),
        }
    });
    match locked {
        Ok(lock) => Ok((directory, lock)),
        Err(error) => {
            let _ = fs::remove_dir(&directory);
            Err(error)
        }
    }
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

/// Whether something is mounted there, so that it cannot be renamed.
fn is_mount_point(folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};
        let found = statx(CWD, folder, AtFlags::empty(), StatxFlags::BASIC_STATS);
        if let Ok(found) = found
            && found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT)
        {
            return found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
        }
    }
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    device(folder) != device(&folder.join(".."))
}

/// Whether the process, and so probably the user's shell, is in that folder: it would stay in the old one.
fn holds_working_folder(folder: &Path) -> bool {
    let here = std::env::current_dir().and_then(|here| here.canonicalize());
    here.is_ok_and(|here| folder.canonicalize().is_ok_and(|folder| here.starts_with(folder)))
}

fn sync_directory(directory: &Path) -> Result<(), StagingError> {
    match File::open(directory).and_then(|file| file.sync_all()) {
        // A folder that may be changed and not read: it cannot be synced.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        synced => synced.map_err(StagingError::io(directory, "sync")),
    }
}

fn sync_tree(directory: &Path) -> Result<(), StagingError> {
    for entry in fs::read_dir(directory).map_err(StagingError::io(directory, "list"))? {
        let path = entry.map_err(StagingError::io(directory, "list"))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        }
    }
    sync_directory(directory)
}
