//! Writing a bundle. Owns what may be replaced: nothing, an empty directory, or a bundle the caller gave up. Everything
//! goes to a directory beside the target; only `commit` makes it visible, whole.

use super::error::BundleError;
use super::layout::Layout;
use super::manifest::{FileRecord, Manifest};
use super::seal::sealed;
use super::staging::Staging;
use super::stream::FileWriter;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// A bundle being written. Dropping it without `commit` leaves the target untouched and nothing behind.
#[derive(Debug)]
pub struct BundleWriter {
    staging: Staging,
}

impl BundleWriter {
    /// Starts a bundle that will stand at `target`; `replace` allows another bundle to be there now.
    ///
    /// # Errors
    /// Something else is at `target`, a bundle without `replace`, or the directory cannot be made.
    pub fn create(target: &Path, replace: bool) -> Result<Self, BundleError> {
        // A link to a bundle stays a link: what it points to is replaced.
        let target = if target.is_symlink() {
            target.canonicalize().map_err(BundleError::io(target, "follow"))?
        } else {
            target.to_owned()
        };
        if occupied_by_bundle(&target)? && !replace {
            return Err(BundleError::Exists { path: target });
        }
        Ok(BundleWriter { staging: Staging::create(&target)? })
    }

    /// Starts a file at a path inside the bundle, with `/` between parts.
    ///
    /// # Errors
    /// The path leads out of the bundle, the file is there already, or it cannot be made.
    pub fn file(&self, relative: &str) -> Result<FileWriter, BundleError> {
        let path = inside(self.staging.directory(), relative)?;
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(BundleError::io(directory, "create"))?;
        }
        FileWriter::create(path, relative)
    }

    /// Writes a small file in one go.
    ///
    /// # Errors
    /// As [`BundleWriter::file`].
    pub fn put(&self, relative: &str, bytes: &[u8]) -> Result<FileRecord, BundleError> {
        let mut file = self.file(relative)?;
        file.write(bytes)?;
        file.finish()
    }

    /// Where a file of the bundle stands until `commit`, for exporters that write it themselves.
    ///
    /// # Errors
    /// The path leads out of the bundle.
    pub fn staged(&self, relative: &str) -> Result<PathBuf, BundleError> {
        inside(self.staging.directory(), relative)
    }

    /// Writes the manifest and puts the bundle in its place, durably.
    ///
    /// # Errors
    /// The device is full or fails; the target is as it was.
    pub fn commit(self, manifest: &Manifest) -> Result<(), BundleError> {
        let path = self.staging.directory().join(Layout::MANIFEST);
        let text =
            sealed(manifest).map_err(|error| BundleError::Manifest { path, message: error.to_string() })?;
        self.put(Layout::MANIFEST, text.as_bytes())?;
        self.staging.publish()
    }
}

/// The path of a name inside `root`.
pub(super) fn inside(root: &Path, relative: &str) -> Result<PathBuf, BundleError> {
    let normal = Path::new(relative).components().all(|part| matches!(part, Component::Normal(_)));
    if relative.is_empty() || !normal {
        return Err(BundleError::OutsideBundle { name: relative.to_owned() });
    }
    Ok(root.join(relative))
}

/// Whether a bundle stands at `target`; nothing or an empty directory is `false`.
fn occupied_by_bundle(target: &Path) -> Result<bool, BundleError> {
    if !target.exists() {
        return Ok(false);
    }
    let refuse =
        |reason: &str| Err(BundleError::NotABundle { path: target.to_owned(), reason: reason.to_owned() });
    if !target.is_dir() {
        return refuse("a file");
    }
    if fs::read_dir(target).map_err(BundleError::io(target, "list"))?.next().is_none() {
        return Ok(false);
    }
    let Ok(text) = fs::read(target.join(Layout::MANIFEST)) else {
        return refuse("a directory without photon.json");
    };
    match serde_json::from_slice::<serde_json::Value>(&text) {
        Ok(manifest) if manifest.get("format").is_some() => Ok(true),
        _ => refuse("its photon.json is not a manifest"),
    }
}
