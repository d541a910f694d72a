//! What users name, or have, in place of a checkpoint: pointers of Git LFS, PyTorch files, the cache root of a model hub,
//! links that lead nowhere. Owns what each is called and what to do about it.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// First bytes of a pointer that Git LFS leaves in place of a file.
const LFS: &[u8] = b"version https://git-lfs.github.com/spec/";
const TO_SAFETENSORS: &str =
    "photonc reads safetensors: save the model with `save_pretrained(.., safe_serialization=True)`";

/// Whether a file of a checkpoint can be read: a regular file with contents of its own.
///
/// # Errors
/// What stands there instead, and what to do.
pub fn is_file_of_a_checkpoint(path: &Path) -> Result<(), String> {
    let is_link = path.symlink_metadata().is_ok_and(|found| found.is_symlink());
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if is_link && error.kind() == std::io::ErrorKind::NotFound => {
            return Err("a link to a file that is not there; fetch the file, or remove the link".to_owned());
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err("no such file or directory".to_owned());
        }
        Err(error) => return Err(error.to_string()),
    };
    let kind = metadata.file_type();
    let what = match () {
        () if kind.is_file() => return foreign(path).map_or(Ok(()), Err),
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(format!("{what}, not a regular file; put the file there, or remove it"))
}

/// What a file is by its first bytes, if it is no file of a checkpoint, and what to do.
fn foreign(path: &Path) -> Option<String> {
    let mut first = Vec::new();
    File::open(path).ok()?.take(64).read_to_end(&mut first).ok()?;
    if first.starts_with(LFS) {
        return Some("a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`".to_owned());
    }
    let is_pickled = first.starts_with(b"PK\x03\x04") || first.starts_with(&[0x80, 0x02]);
    is_pickled.then(|| format!("a PyTorch file; {TO_SAFETENSORS}"))
}

/// What a folder without safetensors weights is, if it is known, and what to do.
pub(super) fn foreign_folder(folder: &Path) -> Option<String> {
    if let Some(found) = cache_root(folder) {
        return Some(found);
    }
    let mut names: Vec<String> = fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    let is_pytorch = |name: &&String| {
        let path = Path::new(name.as_str());
        let known = ["bin", "pt", "pth", "ckpt"];
        path.extension().is_some_and(|end| known.iter().any(|known| end == *known))
            || name.ends_with(".bin.index.json")
    };
    let name = names.iter().find(is_pytorch)?;
    Some(format!("no safetensors weights, but `{name}`, which is PyTorch's; {TO_SAFETENSORS}"))
}

/// What to name in place of the root of a model in the cache of a hub, `models--owner--name`, or of its folder of snapshots.
#[must_use]
pub fn cache_root(folder: &Path) -> Option<String> {
    let named = |path: &Path| path.file_name().is_some_and(|name| name == "snapshots");
    let snapshots = if named(folder) { folder.to_owned() } else { folder.join("snapshots") };
    let blobs = snapshots.parent()?.join("blobs");
    if !snapshots.is_dir() || !blobs.is_dir() {
        return None;
    }
    let mut found: Vec<PathBuf> =
        fs::read_dir(&snapshots).ok()?.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.is_dir());
    found.sort();
    let what = "a folder of the Hugging Face cache, which holds revisions of a model";
    match found.first() {
        Some(first) => Some(format!("{what}; name one of them, such as {}", first.display())),
        None => Some(format!("{what}; none is there, download the model again")),
    }
}
