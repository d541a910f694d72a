//! Files that make the next start faster, in the user's cache folder or where an option says. Owns integrity, atomic writing
//! and that two processes do not lose each other's entries; what an entry holds is its user's.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// First bytes of an entry; the hash of its contents and the contents follow.
const MAGIC: &[u8] = b"photonc cache 1\n";
const HASH_BYTES: usize = 32;

/// A folder of entries, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    folder: Option<PathBuf>,
}

/// Why an entry cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Its bytes are not those that were written.
    #[error("{}: damaged, or no entry of a cache of photonc", .0.display())]
    Damaged(PathBuf),
    /// It, or its folder, cannot be read or written.
    #[error("{}: cannot {action}: {source}", .path.display())]
    Io {
        /// The entry.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's words.
        source: std::io::Error,
    },
}

impl Cache {
    /// The user's: `photonc/KIND` in `XDG_CACHE_HOME` or `~/.cache`; none if neither is known.
    #[must_use]
    pub fn of_user(kind: &str) -> Self {
        let absolute =
            |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
        Cache { folder: base.map(|base| base.join("photonc").join(kind)) }
    }

    /// One in this folder, which is made when the first entry is stored.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        Cache { folder: Some(folder.to_owned()) }
    }

    /// Keeps nothing.
    #[must_use]
    pub fn none() -> Self {
        Cache { folder: None }
    }

    /// Where entries are.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// What is stored under a name; `None` where there is nothing.
    ///
    /// # Errors
    /// The entry is damaged or cannot be read.
    pub fn read(&self, name: impl AsRef<Path>) -> Result<Option<Vec<u8>>, CacheError> {
        let Some(path) = self.folder.as_ref().map(|folder| folder.join(name)) else { return Ok(None) };
        let entry = match std::fs::read(&path) {
            Ok(entry) => entry,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CacheError::Io { path, action: "read", source }),
        };
        let parts = entry.strip_prefix(MAGIC).and_then(|rest| rest.split_at_checked(HASH_BYTES));
        match parts {
            Some((hash, contents)) if blake3::hash(contents).as_bytes() == hash => {
                Ok(Some(contents.to_vec()))
            }
            _ => Err(CacheError::Damaged(path)),
        }
    }

    /// Stores an entry. Readers see the old one or the new one, whole.
    ///
    /// # Errors
    /// The folder cannot be made or written.
    pub fn write(&self, name: impl AsRef<Path>, contents: &[u8]) -> Result<(), CacheError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let path = folder.join(name);
        let stored = std::fs::create_dir_all(folder).and_then(|()| {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(MAGIC)?;
            file.write_all(blake3::hash(contents).as_bytes())?;
            file.write_all(contents)?;
            file.persist(&path)?;
            Ok(())
        });
        stored.map_err(|source| CacheError::Io { path, action: "write", source })
    }

    /// Stores what `merge` makes of the entry that is there now, as `read` gives it; whoever else updates the entry meanwhile
    /// waits. Nothing is stored where `merge` gives nothing.
    ///
    /// # Errors
    /// As `write`.
    pub fn update(
        &self,
        name: impl AsRef<Path>,
        merge: impl FnOnce(Result<Option<Vec<u8>>, CacheError>) -> Option<Vec<u8>>,
    ) -> Result<(), CacheError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let mut path = folder.join(&name).into_os_string();
        path.push(".lock");
        let path = PathBuf::from(path);
        let locked = std::fs::create_dir_all(folder)
            .and_then(|()| File::options().create(true).write(true).truncate(false).open(&path))
            .and_then(|file| file.lock().map(|()| file));
        let _lock = locked.map_err(|source| CacheError::Io { path, action: "lock", source })?;
        match merge(self.read(&name)) {
            Some(contents) => self.write(&name, &contents),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test panics")]
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(&folder.path().join("a").join("b"));
        (folder, cache)
    }

    #[test]
    fn what_is_written_is_read() {
        let (_folder, cache) = cache();
        assert!(cache.read("k").unwrap().is_none());
        cache.write("k", b"entry").unwrap();
        cache.write("k", b"other").unwrap();
        assert_eq!(cache.read("k").unwrap().unwrap(), b"other");
        let left: Vec<_> = std::fs::read_dir(cache.folder().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "no temporary files stay");
    }

    /// A killed machine or a full disk may leave anything; it must reach neither the driver nor a vendor's library.
    #[test]
    fn damage_anywhere_is_found() {
        let (_folder, cache) = cache();
        cache.write("k", b"entry").unwrap();
        let place = cache.folder().unwrap().join("k");
        let whole = std::fs::read(&place).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(&place, &damaged).unwrap();
            assert!(matches!(cache.read("k"), Err(CacheError::Damaged(_))), "byte {at}");
            std::fs::write(&place, &whole[..at]).unwrap();
            assert!(matches!(cache.read("k"), Err(CacheError::Damaged(_))), "cut at {at}");
        }
        cache.update("k", |now| now.is_err().then(|| b"new".to_vec())).unwrap();
        assert_eq!(cache.read("k").unwrap().unwrap(), b"new");
    }

    /// A file where the folder should be stands for any folder that cannot be written (permissions do not bind root).
    #[test]
    fn a_folder_that_cannot_be_used_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let cache = Cache::at(&file.join("inner"));
        let told = cache.write("k", b"entry").unwrap_err().to_string();
        assert!(told.contains("file/inner/k: cannot write"), "{told}");
        assert!(matches!(cache.update("k", |_| None), Err(CacheError::Io { action: "lock", .. })));
        assert!(cache.read("k").is_err());
        Cache::none().write("k", b"entry").unwrap();
    }

    /// Each adds its byte to what is there; without the lock one would overwrite another's.
    #[test]
    fn two_that_update_at_once_lose_nothing() {
        let (_folder, cache) = cache();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let add = |now: Result<Option<Vec<u8>>, CacheError>| {
                            let mut now = now.unwrap().unwrap_or_default();
                            now.push(b'x');
                            Some(now)
                        };
                        cache.update("k", add).unwrap();
                    }
                });
            }
        });
        assert_eq!(cache.read("k").unwrap().unwrap().len(), 100);
    }
}
