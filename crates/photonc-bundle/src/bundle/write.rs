//! Writing a bundle. Owns what may be replaced: nothing, an empty directory, or a bundle the caller gave up. Everything
//! goes to a directory beside the target; only `commit` makes it visible, whole.

use super::error::BundleError;
use super::layout::Layout;
use super::manifest::{FileRecord, MAX_FILE_BYTES, Manifest};
use super::seal::sealed;
use super::stream::FileWriter;
use crate::staging::{self, Site, Staging, undisturbed};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::path::{Component, Path, PathBuf};

/// A bundle being written. Dropping it without `commit` leaves the target untouched and nothing behind.
#[derive(Debug)]
pub struct BundleWriter {
    /// As the caller named it.
    target: PathBuf,
    staging: Staging,
}

impl BundleWriter {
    /// Starts a bundle that will stand at `target`; `replace` allows another bundle to be there now.
    ///
    /// # Errors
    /// Something else is at `target`, a bundle without `replace`, or the directory cannot be made.
    pub fn create(target: &Path, replace: bool) -> Result<Self, BundleError> {
        let site = Site::of(target, Layout::MANIFEST)?;
        if occupied_by_bundle(target, &site)? && !replace {
            return Err(BundleError::Exists { path: target.to_owned() });
        }
        Ok(BundleWriter { target: target.to_owned(), staging: Staging::create(site, replace)? })
    }

    /// Starts a file at a path inside the bundle, with `/` between parts.
    ///
    /// # Errors
    /// The path leads out of the bundle, the file is there already, or it cannot be made.
    pub fn file(&self, relative: &str) -> Result<FileWriter, BundleError> {
        let path = inside(self.staging.directory(), relative)?;
        undisturbed(|| {
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory).map_err(BundleError::io(directory, "create"))?;
            }
            FileWriter::create(path, relative)
        })
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

    /// Writes the manifest and puts the bundle in its place, durably. Returns sentences on what could not be removed of the old
    /// bundle and of interrupted runs.
    ///
    /// # Errors
    /// Somebody else put a bundle there meanwhile and none was to be replaced, or the device is full or fails; the target is as
    /// it was, unless the error is [`BundleError::NotDurable`].
    pub fn commit(self, manifest: &Manifest) -> Result<Vec<String>, BundleError> {
        let path = self.staging.directory().join(Layout::MANIFEST);
        let text =
            sealed(manifest).map_err(|error| BundleError::Manifest { path, message: error.to_string() })?;
        self.put(Layout::MANIFEST, text.as_bytes())?;
        self.staging.publish().map_err(|error| match BundleError::from(error) {
            BundleError::Exists { .. } => BundleError::Exists { path: self.target },
            error => error,
        })
    }
}

/// Where the bundle `root` is while it is being replaced by two renames: at its own place but for the instant between them.
pub(super) fn standing(root: &Path) -> PathBuf {
    let gone = || staging::standing(root, Layout::MANIFEST);
    if root.exists() { root.to_owned() } else { gone().unwrap_or_else(|| root.to_owned()) }
}

/// Whether a bundle is at `root`, for those who take something else there too.
#[must_use]
pub fn is_bundle(root: &Path) -> bool {
    standing(root).join(Layout::MANIFEST).is_file()
}

/// Why there is no bundle at `root`.
pub(super) fn absent(root: &Path) -> BundleError {
    let what = Layout::MANIFEST;
    let (what, action) = match staging::is_unfinished(root) {
        true => (
            format!("{what} yet, because it is being replaced"),
            "try again; if that was interrupted, export again",
        ),
        false => (format!("{what}, so it is not a bundle"), "make one with `photonc export MODEL -o BUNDLE`"),
    };
    BundleError::Missing { path: root.to_owned(), what, action }
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
fn occupied_by_bundle(target: &Path, site: &Site) -> Result<bool, BundleError> {
    let refuse =
        |reason: &str| Err(BundleError::NotABundle { path: target.to_owned(), reason: reason.to_owned() });
    match site.contents() {
        Ok(None) => return Ok(false),
        Ok(Some(names)) if names.is_empty() => return Ok(false),
        Ok(Some(_)) => {}
        Err(error) if error.kind() == ErrorKind::NotADirectory => return refuse("a file"),
        Err(error) => return Err(BundleError::io(target, "list")(error)),
    }
    let path = site.path().join(Layout::MANIFEST);
    let text = match manifest_text(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return refuse("a directory without photon.json");
        }
        Err(error) => return Err(BundleError::io(&path, "read")(error)),
    };
    match serde_json::from_slice::<serde_json::Value>(&text) {
        Ok(manifest) if manifest.get("format").is_some() => Ok(true),
        _ => refuse("its photon.json is not a manifest"),
    }
}

/// What stands in a file that may be a manifest; nothing where it is no file.
fn manifest_text(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    // A pipe would be waited for, and a device has no end.
    if fs::metadata(path)?.is_file() {
        File::open(path)?.take(MAX_FILE_BYTES).read_to_end(&mut text)?;
    }
    Ok(text)
}
