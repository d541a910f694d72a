//! Compiled kernels on disk, so that the second start compiles nothing. Owns their names; a folder that cannot be read or
//! written only makes starts slower.

use photonc_bundle::cache::Cache;
use std::path::Path;

/// A folder of compiled kernels, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelCache(Cache);

impl KernelCache {
    /// The user's: `photonc/kernels` in `XDG_CACHE_HOME` or `~/.cache`; none if neither is known.
    #[must_use]
    pub fn of_user() -> Self {
        KernelCache(Cache::of_user("kernels"))
    }

    /// One in this folder, which is made when the first kernel is stored.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        KernelCache(Cache::at(folder))
    }

    /// Keeps nothing.
    #[must_use]
    pub fn none() -> Self {
        KernelCache(Cache::none())
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
        self.0.read(named(key)).ok().flatten()
    }

    /// Stores a kernel; whether it worked. Readers see the old entry or the new one, whole.
    pub fn write(&self, key: &str, kernel: &[u8]) -> bool {
        self.0.write(named(key), kernel).is_ok()
    }
}

fn named(key: &str) -> String {
    format!("{key}.cubin")
}

#[cfg(test)]
mod tests {
    use super::KernelCache;

    #[test]
    fn what_cannot_be_kept_is_compiled_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = KernelCache::at(folder.path());
        assert!(cache.write("k", b"kernel"));
        assert_eq!(cache.read("k").as_deref(), Some(b"kernel".as_slice()));
        std::fs::write(folder.path().join("k.cubin"), b"damaged").expect("writes");
        assert_eq!(cache.read("k"), None);
        assert_eq!(KernelCache::none().read("k"), None);
    }

    #[test]
    fn keys_know_where_parts_end() {
        assert_ne!(KernelCache::key(&["ab", "c"]), KernelCache::key(&["a", "bc"]));
        assert_eq!(KernelCache::key(&["ab", "c"]), KernelCache::key(&["ab", "c"]));
    }
}
