//! Moving and removing trees of files, whatever their permissions and the file system say. Owns the detours: a folder that is
//! read-only, one of a lower layer that cannot be renamed as a whole.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Removes a folder and everything in it, read-only folders too.
///
/// # Errors
/// The system refuses; some of it may be gone.
pub fn remove_tree(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            open_up(folder);
            fs::remove_dir_all(folder)
        }
        removed => removed,
    }
}

/// Lets the owner change every folder of a tree, as far as the system allows.
fn open_up(folder: &Path) {
    let Ok(meta) = fs::symlink_metadata(folder) else { return };
    if !meta.is_dir() {
        return;
    }
    // Where this fails the removal fails too, and says so.
    let _ = fs::set_permissions(folder, Permissions::from_mode(meta.permissions().mode() | 0o700));
    let Ok(entries) = fs::read_dir(folder) else { return };
    entries.flatten().for_each(|entry| open_up(&entry.path()));
}

/// Moves a file or a folder to a name that is free, on the same file system: as a whole where the system can.
pub(super) fn move_tree(from: &Path, to: &Path) -> io::Result<()> {
    let error = match fs::rename(from, to) {
        Err(error) => error,
        moved => return moved,
    };
    let meta = fs::symlink_metadata(from)?;
    match error.kind() {
        // A folder of a lower layer, or one that may not be changed.
        ErrorKind::CrossesDevices | ErrorKind::PermissionDenied if meta.is_dir() => {
            let mode = meta.permissions().mode();
            fs::set_permissions(from, Permissions::from_mode(mode | 0o700))?;
            fs::create_dir(to)?;
            for entry in fs::read_dir(from)? {
                let entry = entry?;
                move_tree(&entry.path(), &to.join(entry.file_name()))?;
            }
            fs::set_permissions(to, Permissions::from_mode(mode))?;
            fs::remove_dir(from)
        }
        ErrorKind::CrossesDevices if meta.is_file() => {
            fs::copy(from, to)?;
            fs::File::open(to)?.sync_all()?;
            fs::remove_file(from)
        }
        _ => Err(error),
    }
}
