//! BLAKE3 hashes of files. Owns bounded hashing and the text form.

use super::BundleError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Bytes read at a time: large enough for the hash to use every core.
pub(super) const PIECE_BYTES: usize = 8 << 20;

/// A BLAKE3 hash as 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Blake3(String);

impl Blake3 {
    /// The hash of bytes in memory.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        blake3::hash(bytes).into()
    }

    /// The 64 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<blake3::Hash> for Blake3 {
    fn from(hash: blake3::Hash) -> Self {
        Blake3(hash.to_hex().to_string())
    }
}

impl fmt::Display for Blake3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Hash and size of a file in bytes, read in bounded pieces.
///
/// # Errors
/// The file cannot be read.
pub fn hash_file(path: &Path) -> Result<(Blake3, u64), BundleError> {
    let mut file = File::open(path).map_err(BundleError::io(path, "open"))?;
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut bytes = 0;
    loop {
        let mut filled = 0;
        while filled < piece.len() {
            let read = file.read(&mut piece[filled..]).map_err(BundleError::io(path, "read"))?;
            if read == 0 {
                break;
            }
            filled += read;
        }
        if filled == 0 {
            return Ok((hasher.finalize().into(), bytes));
        }
        hasher.update_rayon(&piece[..filled]);
        bytes += filled as u64;
    }
}

/// Hash of the first `size_bytes` bytes of an open file that stands at `path`; one piece is read while another is hashed.
pub(super) fn hash_open(file: &File, path: &Path, size_bytes: u64) -> Result<Blake3, BundleError> {
    let mut hasher = blake3::Hasher::new();
    let read = |offset: u64, piece: &mut Vec<u8>| -> Result<(), BundleError> {
        let left = usize::try_from(size_bytes.saturating_sub(offset)).unwrap_or(PIECE_BYTES);
        piece.resize(left.min(PIECE_BYTES), 0);
        file.read_exact_at(piece, offset).map_err(BundleError::io(path, "read"))
    };
    let (mut piece, mut next) = (Vec::new(), Vec::new());
    let mut offset = 0;
    read(0, &mut piece)?;
    while !piece.is_empty() {
        offset += piece.len() as u64;
        let hash = || {
            hasher.update_rayon(&piece);
        };
        let (was_read, ()) = rayon::join(|| read(offset, &mut next), hash);
        was_read?;
        std::mem::swap(&mut piece, &mut next);
    }
    Ok(hasher.finalize().into())
}
