//! Compiled kernels on disk, so that the second start compiles nothing. Owns names, integrity and atomic writing of
//! entries; a folder that cannot be read or written only makes starts slower.

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// First bytes of an entry; the hash of the kernel and the kernel follow.
const MAGIC: &[u8] = b"photonc kernel 1\n";
const HASH_BYTES: usize = 32;

/// A folder of compiled kernels, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelCache {
    folder: Option<PathBuf>,
}

impl KernelCache {
    /// The user's: `photonc/kernels` in `XDG_CACHE_HOME` or `~/.cache`; none if neither is known.
    #[must_use]
    pub fn of_user() -> Self {
        let absolute =
            |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
        KernelCache { folder: base.map(|base| base.join("photonc").join("kernels")) }
    }

    /// One in this folder, which is made when the first kernel is stored.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        KernelCache { folder: Some(folder.to_owned()) }
    }

    /// Keeps nothing.
    #[must_use]
    pub fn none() -> Self {
        KernelCache { folder: None }
    }

    /// Where entries are.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Name of the entry made from these parts; their borders count.
    #[must_use]
    pub fn key(parts: &[&str]) -> String {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// The kernel stored under a key; `None` if there is none or it is damaged.
    #[must_use]
    pub fn read(&self, key: &str) -> Option<Vec<u8>> {
        let entry = std::fs::read(self.place(key)?).ok()?;
        let (hash, kernel) = entry.strip_prefix(MAGIC)?.split_at_checked(HASH_BYTES)?;
        (blake3::hash(kernel).as_bytes() == hash).then(|| kernel.to_vec())
    }

    /// Stores a kernel; whether it worked. Readers see the old entry or the new one, whole.
    pub fn write(&self, key: &str, kernel: &[u8]) -> bool {
        let Some(place) = self.place(key) else { return false };
        let Some(folder) = place.parent() else { return false };
        let stored = std::fs::create_dir_all(folder).and_then(|()| {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(MAGIC)?;
            file.write_all(blake3::hash(kernel).as_bytes())?;
            file.write_all(kernel)?;
            file.persist(&place)?;
            Ok(())
        });
        stored.is_ok()
    }

    fn place(&self, key: &str) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(format!("{key}.cubin")))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test panics")]
    use super::*;

    fn cache() -> (tempfile::TempDir, KernelCache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = KernelCache::at(&folder.path().join("a").join("b"));
        (folder, cache)
    }

    #[test]
    fn what_is_written_is_read() {
        let (_folder, cache) = cache();
        assert_eq!(cache.read("k"), None);
        assert!(cache.write("k", b"kernel"));
        assert!(cache.write("k", b"other"));
        assert_eq!(cache.read("k").unwrap(), b"other");
        let left: Vec<_> = std::fs::read_dir(cache.folder().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "no temporary files stay");
    }

    /// A killed machine or a full disk may leave anything; it must never reach the driver.
    #[test]
    fn damage_anywhere_is_found() {
        let (_folder, cache) = cache();
        assert!(cache.write("k", b"kernel"));
        let place = cache.folder().unwrap().join("k.cubin");
        let whole = std::fs::read(&place).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(&place, &damaged).unwrap();
            assert_eq!(cache.read("k"), None, "byte {at}");
            std::fs::write(&place, &whole[..at]).unwrap();
            assert_eq!(cache.read("k"), None, "cut at {at}");
        }
        assert!(cache.write("k", b"kernel"));
        assert!(cache.read("k").is_some());
    }

    /// A file where the folder should be stands for any folder that cannot be written (permissions do not bind root).
    #[test]
    fn a_folder_that_cannot_be_used_is_no_failure() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let cache = KernelCache::at(&file.join("kernels"));
        assert!(!cache.write("k", b"kernel"));
        assert_eq!(cache.read("k"), None);
        assert!(!KernelCache::none().write("k", b"kernel"));
    }

    #[test]
    fn keys_know_where_parts_end() {
        assert_ne!(KernelCache::key(&["ab", "c"]), KernelCache::key(&["a", "bc"]));
        assert_eq!(KernelCache::key(&["ab", "c"]), KernelCache::key(&["ab", "c"]));
    }
}
