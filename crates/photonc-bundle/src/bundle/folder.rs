//! The files of a bundle, opened once below one directory handle. Owns that a reader sees one bundle whatever is put in its
//! place meanwhile: nothing is opened by path later, and a file that changes under its handle is an error. Refuses what is
//! no regular file before a byte of it is read: a pipe or a device could block for ever, or never end.

use super::error::BundleError;
use super::hash::{Blake3, hash_open};
use super::manifest::FileRecord;
use super::write::inside;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, retry_on_intr};
use std::fs::{File, Metadata};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// The directory of a bundle, held open.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    directory: OwnedFd,
}

/// A file of a bundle, held open.
#[derive(Debug)]
pub(super) struct OpenFile {
    /// Where it stood, for messages.
    pub path: PathBuf,
    handle: File,
    stamp: Stamp,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

impl Folder {
    /// Opens the directory `root`.
    ///
    /// # Errors
    /// It is not there, no directory, or not readable.
    pub(super) fn open(root: &Path) -> Result<Self, BundleError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = retry_on_intr(|| openat(CWD, root, flags, Mode::empty()));
        let directory = directory.map_err(|error| BundleError::io(root, "open")(error.into()))?;
        Ok(Folder { root: root.to_owned(), directory })
    }

    /// Where the directory stood when it was opened.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Opens a file below the directory, through links too; `None` where there is none.
    ///
    /// # Errors
    /// The name leads out of the bundle, or it is no file that can be read.
    pub(super) fn find(&self, relative: &str) -> Result<Option<OpenFile>, BundleError> {
        let path = inside(&self.root, relative)?;
        // Without waiting: a pipe that nobody writes to would be waited for here.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let handle = match retry_on_intr(|| openat(&self.directory, relative, flags, Mode::empty())) {
            Ok(handle) => File::from(handle),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(BundleError::io(&path, "open")(error.into())),
        };
        let metadata = handle.metadata().map_err(BundleError::io(&path, "inspect"))?;
        if !metadata.is_file() {
            return Err(BundleError::NotAFile { path });
        }
        Ok(Some(OpenFile { path, handle, stamp: Stamp::of(&metadata) }))
    }

    /// Opens the file of a record, whose size it has.
    ///
    /// # Errors
    /// As [`Folder::find`], or the file is missing or of another size.
    pub(super) fn recorded(&self, record: &FileRecord) -> Result<OpenFile, BundleError> {
        let Some(file) = self.find(&record.file)? else {
            // What stood here went with the bundle that another has replaced.
            if !self.is_in_place() {
                return Err(BundleError::Replaced { path: self.root.clone() });
            }
            let path = inside(&self.root, &record.file)?;
            return Err(BundleError::io(&path, "open")(std::io::ErrorKind::NotFound.into()));
        };
        if file.size_bytes() != record.bytes {
            let (path, found) = (file.path, file.stamp.size_bytes);
            return Err(BundleError::Truncated { path, found, expected: record.bytes });
        }
        Ok(file)
    }

    /// Whether the path of the bundle still leads to this directory.
    pub(super) fn is_in_place(&self) -> bool {
        let own = rustix::fs::fstat(&self.directory);
        let there = rustix::fs::stat(&self.root);
        matches!((own, there), (Ok(own), Ok(there)) if (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino))
    }
}

impl OpenFile {
    /// Size when it was opened, in bytes.
    pub(super) fn size_bytes(&self) -> u64 {
        self.stamp.size_bytes
    }

    /// The whole file, as it was when it was opened.
    ///
    /// # Errors
    /// It cannot be read, is longer than `most_bytes`, or has changed.
    pub(super) fn read(&self, most_bytes: u64) -> Result<Vec<u8>, BundleError> {
        let size = self.size_bytes();
        let Some(length) = usize::try_from(size).ok().filter(|_| size <= most_bytes) else {
            return Err(BundleError::TooLong { path: self.path.clone(), found: size, most: most_bytes });
        };
        let mut bytes = vec![0; length];
        self.read_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Fills `bytes` from offset `offset_bytes` on.
    ///
    /// # Errors
    /// The file is shorter, cannot be read, or has changed since it was opened.
    pub(super) fn read_at(&self, bytes: &mut [u8], offset_bytes: u64) -> Result<(), BundleError> {
        self.handle.read_exact_at(bytes, offset_bytes).map_err(|error| self.failed(error))?;
        self.unchanged()
    }

    /// Hash of the whole file.
    ///
    /// # Errors
    /// As [`OpenFile::read_at`].
    pub(super) fn hash(&self) -> Result<Blake3, BundleError> {
        let hash = hash_open(&self.handle, &self.path, self.size_bytes())?;
        self.unchanged()?;
        Ok(hash)
    }

    /// Whether the name of this file below `root` still leads to it, unchanged.
    pub(super) fn is_in_place(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|found| Stamp::of(&found) == self.stamp)
    }

    fn unchanged(&self) -> Result<(), BundleError> {
        let found = self.handle.metadata().map_err(BundleError::io(&self.path, "inspect"))?;
        match Stamp::of(&found) == self.stamp {
            true => Ok(()),
            false => Err(BundleError::Replaced { path: self.path.clone() }),
        }
    }

    fn failed(&self, error: std::io::Error) -> BundleError {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => BundleError::Replaced { path: self.path.clone() },
            _ => BundleError::io(&self.path, "read")(error),
        }
    }
}
