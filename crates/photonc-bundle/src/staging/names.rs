//! What folders that are being written are called, and where a folder that a user names really is. Owns the marks by which
//! the next run knows what an interrupted one left.

use super::StagingError;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// Being written: `.NAME.photonc-new.HOST.RANDOM` beside the target, or `.photonc-new.HOST.RANDOM` inside it.
pub(super) const NEW: &str = "photonc-new";
/// An old folder that waits while two renames stand in for an exchange.
const OLD: &str = "photonc-old";
/// Inside a folder that is being written: what stood at the target, while the target is emptied.
pub(super) const EMPTYING: &str = ".photonc-old";
/// The same, once the target is empty and is being filled.
pub(super) const FILLING: &str = ".photonc-moved";
/// Longest name of a target, in bytes, that stands whole in the names above.
const LONGEST: usize = 160;

/// Links that are followed to a folder that is not there yet.
const MOST_LINKS: usize = 40;

/// The folder that a path means: links are followed, so that they stay links, and `.` and `..` have a name.
pub(super) fn resolve(target: &Path) -> Result<PathBuf, StagingError> {
    let mut path = target.to_owned();
    for _ in 0..MOST_LINKS {
        if path.is_symlink() {
            let aim = path.read_link().map_err(StagingError::io(target, "follow"))?;
            path = parent(&path).join(aim);
        } else if path.file_name().is_none() || path.ends_with("..") {
            path = path.canonicalize().map_err(StagingError::io(target, "follow"))?;
            if path.file_name().is_none() {
                return Err(StagingError::NoName { path: target.to_owned() });
            }
        } else {
            return Ok(path);
        }
    }
    Err(StagingError::io(target, "follow")(std::io::Error::other("too many links")))
}

/// The folder that a path stands in.
pub(super) fn parent(target: &Path) -> PathBuf {
    match target.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// A target's name as it stands in the names of what is written for it.
fn stem(target: &Path) -> OsString {
    let name = target.file_name().unwrap_or(OsStr::new("folder"));
    if name.len() <= LONGEST {
        return name.to_owned();
    }
    // Names end at 255 bytes.
    let hash = blake3::hash(name.as_bytes()).to_hex();
    let mut short = name.as_bytes()[..LONGEST].to_vec();
    short.extend_from_slice(hash[..16].as_bytes());
    OsString::from_vec(short)
}

fn hidden(target: &Path, mark: &str) -> OsString {
    let mut name = OsString::from(".");
    name.push(stem(target));
    name.push(".");
    name.push(mark);
    name
}

/// Start of the names of folders that are written beside a target.
pub(super) fn beside(target: &Path) -> OsString {
    let mut name = hidden(target, NEW);
    name.push(".");
    name
}

/// Start of the names of folders that are written inside a target.
pub(super) fn inside() -> OsString {
    OsString::from(format!(".{NEW}."))
}

/// Where an old folder waits while two renames stand in for an exchange.
pub(super) fn waiting(target: &Path) -> PathBuf {
    parent(target).join(hidden(target, OLD))
}

/// The target that a name stands for, if it is that of a folder written beside one, and whether this machine wrote it.
pub(super) fn target_of(name: &OsStr) -> Option<(OsString, bool)> {
    let bytes = name.as_bytes().strip_prefix(b".")?;
    let mark = format!(".{NEW}.");
    let at = bytes.windows(mark.len()).rposition(|window| window == mark.as_bytes())?;
    let own = bytes[at + mark.len()..].starts_with(host().as_bytes());
    Some((OsString::from_vec(bytes[..at].to_vec()), own))
}

/// Whether an entry of a folder is none of its contents: something being written, or what a file system keeps for itself.
pub(super) fn is_foreign(name: &OsStr) -> bool {
    name == "lost+found" || name.as_bytes().starts_with(inside().as_bytes())
}

/// A few digits for this machine: on shared file systems a lock may tell nothing about another one's runs.
pub(super) fn host() -> String {
    let name = rustix::system::uname();
    blake3::hash(name.nodename().to_bytes()).to_hex()[..8].to_owned()
}
