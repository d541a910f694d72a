//! Writing a file on a thread of its own, while its maker goes on. Owns how far the file may lie behind: a few pieces.

use super::BundleError;
use super::hash::PIECE_BYTES;
use super::manifest::FileRecord;
use super::stream::FileWriter;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Pieces that wait to be written at most.
const WAITING: usize = 4;

type Written = Result<FileRecord, BundleError>;

/// A file that is written behind. Dropping it leaves an unfinished file, which nothing refers to.
#[derive(Debug)]
pub struct WriteBehind {
    path: PathBuf,
    pieces: Option<SyncSender<Vec<u8>>>,
    thread: Option<JoinHandle<Written>>,
}

/// A file that will be durable in a while.
#[derive(Debug)]
pub struct Unsynced {
    path: PathBuf,
    thread: Option<JoinHandle<Written>>,
}

impl WriteBehind {
    /// Goes on with a file behind its maker.
    ///
    /// # Errors
    /// There can be no further thread.
    pub fn start(mut file: FileWriter) -> Result<Self, BundleError> {
        let path = file.path().to_owned();
        let (pieces, waiting): (_, Receiver<Vec<u8>>) = sync_channel(WAITING);
        let write = move || {
            for piece in waiting {
                file.write(&piece)?;
                file.forget_pages();
            }
            file.finish()
        };
        let thread = std::thread::Builder::new().name("write".to_owned()).spawn(write);
        let thread = thread.map_err(BundleError::io(&path, "write"))?;
        Ok(WriteBehind { path, pieces: Some(pieces), thread: Some(thread) })
    }

    /// Appends bytes, as soon as few enough wait.
    ///
    /// # Errors
    /// The device was full or failed at bytes given earlier.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BundleError> {
        for piece in bytes.chunks(PIECE_BYTES) {
            let taken = self.pieces.as_ref().is_some_and(|pieces| pieces.send(piece.to_vec()).is_ok());
            if !taken {
                return Err(self.failure());
            }
        }
        Ok(())
    }

    /// Ends the file; the rest of it is written and made durable while its maker goes on.
    #[must_use]
    pub fn finish(mut self) -> Unsynced {
        self.pieces = None;
        Unsynced { path: self.path.clone(), thread: self.thread.take() }
    }

    /// Why the thread takes nothing more.
    fn failure(&mut self) -> BundleError {
        self.pieces = None;
        joined(self.thread.take(), &self.path).err().unwrap_or_else(|| ended_early(&self.path))
    }
}

impl Drop for WriteBehind {
    fn drop(&mut self) {
        self.pieces = None;
        // The folder may be removed next, so nothing may write into it any more; what failed was of no use anyhow.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Unsynced {
    /// Waits until the file is durable.
    ///
    /// # Errors
    /// The device is full or fails.
    pub fn record(self) -> Result<FileRecord, BundleError> {
        joined(self.thread, &self.path)
    }
}

fn joined(thread: Option<JoinHandle<Written>>, path: &Path) -> Written {
    let written = thread.map(|thread| thread.join().unwrap_or_else(|_| Err(ended_early(path))));
    written.unwrap_or_else(|| Err(ended_early(path)))
}

fn ended_early(path: &Path) -> BundleError {
    BundleError::io(path, "write")(std::io::Error::other("its thread ended early"))
}

#[cfg(test)]
mod tests {
    use super::{PIECE_BYTES, WAITING, WriteBehind};
    use crate::bundle::Blake3;
    use crate::bundle::stream::FileWriter;
    use std::fs;

    #[test]
    fn a_file_written_behind_is_whole_and_hashed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..(WAITING + 2) * PIECE_BYTES + 5).map(|at| (at % 251) as u8).collect();
        let mut behind =
            WriteBehind::start(FileWriter::create(path.clone(), "file").expect("creates")).expect("starts");
        let (first, rest) = bytes.split_at(7);
        behind.write(first).expect("takes");
        behind.write(rest).expect("takes");
        let record = behind.finish().record().expect("writes");
        assert_eq!((record.bytes, &record.blake3), (bytes.len() as u64, &Blake3::of(&bytes)));
        assert_eq!(fs::read(&path).expect("reads"), bytes);
    }

    // The maker must learn of a full disk and not be left waiting for a thread that takes nothing more.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_told_to_the_maker() {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("a disk that is always full");
        let file = FileWriter::of(full, "/dev/full".into());
        let mut behind = WriteBehind::start(file).expect("starts");
        let piece = vec![1; PIECE_BYTES];
        let failed = (0..WAITING + 3).find_map(|_| behind.write(&piece).err());
        let text = failed.expect("is told").to_string();
        assert!(text.contains("/dev/full"), "{text}");
    }
}
