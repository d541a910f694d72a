//! Writing one file of a bundle. Owns hashing while writing, and the one-pass copy that overlaps reading, hashing,
//! checking and writing on two cores with two buffers of bounded size.

use super::BundleError;
use super::hash::{Blake3, PIECE_BYTES};
use super::manifest::FileRecord;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// A file being written; `finish` makes it durable and yields its record.
#[derive(Debug)]
pub struct FileWriter {
    path: PathBuf,
    relative: String,
    file: File,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl FileWriter {
    pub(super) fn create(path: PathBuf, relative: &str) -> Result<Self, BundleError> {
        let file = File::create_new(&path).map_err(BundleError::io(&path, "create"))?;
        Ok(FileWriter { relative: relative.to_owned(), ..FileWriter::of(file, path) })
    }

    /// A writer to an open file that stands at `path`.
    pub(super) fn of(file: File, path: PathBuf) -> Self {
        FileWriter { path, relative: String::new(), file, hasher: blake3::Hasher::new(), bytes: 0 }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Has what was written so far put on the device soon, and forgotten by the system once it is there. A file that nobody
    /// reads soon would fill the memory with fresh pages, which cost more than the writing.
    pub(super) fn forget_pages(&self) {
        #[cfg(target_os = "linux")]
        // Where the system does not heed it, nothing is lost.
        let _ = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed);
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// The device is full or fails.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BundleError> {
        let FileWriter { path, file, hasher, .. } = self;
        let (written, ()) = rayon::join(
            || file.write_all(bytes),
            || {
                hasher.update_rayon(bytes);
            },
        );
        written.map_err(BundleError::io(path, "write"))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Appends the first `size_bytes` bytes of `source`, which stands at `source_path`, showing every piece with its
    /// offset to `check`. Where the file system can share the blocks (a reflink), nothing is written twice.
    ///
    /// # Errors
    /// The source is shorter, the device fails, or `check` refuses.
    pub fn copy(
        &mut self,
        source: &File,
        source_path: &Path,
        size_bytes: u64,
        check: impl Fn(u64, &[u8]) -> Result<(), BundleError> + Sync,
    ) -> Result<(), BundleError> {
        let shared = self.bytes == 0 && self.try_reflink(source, size_bytes);
        let read = |offset: u64, piece: &mut Vec<u8>| -> Result<(), BundleError> {
            let left = size_bytes.saturating_sub(offset);
            piece.resize(usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES)), 0);
            source.read_exact_at(piece, offset).map_err(|error| match error.kind() {
                std::io::ErrorKind::UnexpectedEof => truncated(source, source_path, size_bytes),
                _ => BundleError::io(source_path, "read")(error),
            })
        };
        let (mut piece, mut next) = (Vec::new(), Vec::new());
        let mut offset = 0;
        read(0, &mut piece)?;
        while !piece.is_empty() {
            let after = offset + piece.len() as u64;
            let FileWriter { path, file, hasher, .. } = self;
            let (written, examined) = rayon::join(
                || {
                    if shared {
                        Ok(())
                    } else {
                        file.write_all(&piece).map_err(BundleError::io(path, "write"))
                    }
                },
                || {
                    hasher.update(&piece);
                    check(offset, &piece)?;
                    read(after, &mut next)
                },
            );
            written?;
            examined?;
            std::mem::swap(&mut piece, &mut next);
            offset = after;
        }
        self.bytes += size_bytes;
        Ok(())
    }

    fn try_reflink(&self, source: &File, size_bytes: u64) -> bool {
        let whole = source.metadata().is_ok_and(|meta| meta.len() == size_bytes);
        #[cfg(target_os = "linux")]
        return whole && rustix::fs::ioctl_ficlone(&self.file, source).is_ok();
        #[cfg(not(target_os = "linux"))]
        return whole && false;
    }

    /// Makes the file durable.
    ///
    /// # Errors
    /// The device is full or fails.
    pub fn finish(self) -> Result<FileRecord, BundleError> {
        self.file.sync_all().map_err(BundleError::io(&self.path, "sync"))?;
        Ok(FileRecord { file: self.relative, bytes: self.bytes, blake3: self.hasher.finalize().into() })
    }

    /// Hash of what was written so far.
    #[must_use]
    pub fn hash(&self) -> Blake3 {
        self.hasher.finalize().into()
    }

    /// Bytes written so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

pub(super) fn truncated(source: &File, path: &Path, expected: u64) -> BundleError {
    let found = source.metadata().map(|meta| meta.len()).unwrap_or(0);
    BundleError::Truncated { path: path.to_owned(), found, expected }
}
