//! Adding to a bundle what its manifest does not count: engines. Owns that the new folder appears whole, in the place of the
//! old one, or not at all.

use super::behind::WriteBehind;
use super::error::BundleError;
use super::layout::Layout;
use super::read::Bundle;
use super::stream::FileWriter;
use super::write::inside;
use crate::staging::{Site, Staging, undisturbed};
use std::path::{Path, PathBuf};

/// A folder of a bundle being written. Dropping it without `publish` leaves the old one untouched and nothing behind.
#[derive(Debug)]
pub struct PartWriter {
    staging: Staging,
    target: PathBuf,
}

impl PartWriter {
    /// Starts the folder `relative` of a bundle, with `/` between parts.
    ///
    /// # Errors
    /// The path leads out of the bundle, or the folder cannot be made.
    pub fn create(bundle: &Bundle, relative: &str) -> Result<Self, BundleError> {
        let target = inside(bundle.root(), relative)?;
        let site = Site::of(&target, Layout::ENGINE_RECORD)?;
        Ok(PartWriter { staging: Staging::create(site, true)?, target })
    }

    /// Where the folder will stand.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Starts a file of the folder.
    ///
    /// # Errors
    /// The name leads out of the folder, the file is there already, or it cannot be made.
    pub fn file(&self, name: &str) -> Result<FileWriter, BundleError> {
        let path = inside(self.staging.directory(), name)?;
        undisturbed(|| FileWriter::create(path, name))
    }

    /// Starts a file of the folder that is written behind, and that nobody reads soon.
    ///
    /// # Errors
    /// As for `file`, or there can be no further thread.
    pub fn behind(&self, name: &str) -> Result<WriteBehind, BundleError> {
        WriteBehind::start(self.file(name)?)
    }

    /// Puts the folder in its place, durably.
    ///
    /// # Errors
    /// The device fails; the old folder is as it was, unless the error is [`BundleError::NotDurable`].
    pub fn publish(self) -> Result<(), BundleError> {
        // What cannot be removed of the old engines is tried again by the next build.
        self.staging.publish().map(drop).map_err(BundleError::from)
    }
}
