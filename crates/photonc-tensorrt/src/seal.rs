//! Who built engines. Owns the user's key and the seal that a record carries: a hash tells whether an engine is damaged, and
//! nothing of who made it, but an engine is code that a driver runs. Refuses to leave this machine's key in any bundle.

use super::record::{EngineRecord, EngineSet};
use photonc_bundle::bundle::Blake3;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

const KEY_BYTES: usize = 32;

/// A secret of one user, with which engines are sealed that this user has built.
#[derive(Clone)]
pub struct Key([u8; KEY_BYTES]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// Where the user's key is: `photonc/key` in `XDG_CONFIG_HOME` or `~/.config`; none if neither is known.
    #[must_use]
    pub fn place() -> Option<PathBuf> {
        let absolute =
            |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
        Some(base?.join("photonc").join("key"))
    }

    /// The key in a file; `None` where there is none.
    ///
    /// # Errors
    /// The file cannot be read or holds no key.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut key = [0; KEY_BYTES];
        file.read_exact(&mut key)?;
        Ok(Some(Key(key)))
    }

    /// The key in a file, which is made, for the user alone, if it is not there.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn read_or_make(path: &Path) -> io::Result<Self> {
        if let Some(key) = Key::read(path)? {
            return Ok(key);
        }
        let mut key = [0; KEY_BYTES];
        File::open("/dev/urandom")?.read_exact(&mut key)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&key)?;
        match file.persist_noclobber(path) {
            Ok(_) => Ok(Key(key)),
            // Another process was first.
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                Key::read(path)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
            }
            Err(error) => Err(error.error),
        }
    }

    /// The seal of a record, which names every engine by its hash.
    #[must_use]
    pub fn seal(&self, record: &EngineRecord) -> Option<Blake3> {
        let unsealed = EngineRecord { seal: None, ..record.clone() };
        let text = serde_json::to_vec(&unsealed).ok()?;
        Some(blake3::keyed_hash(&self.0, &text).into())
    }
}

impl EngineSet {
    /// Whether the engines were built by the user of this key.
    #[must_use]
    pub fn is_sealed_by(&self, key: &Key) -> bool {
        self.record.seal.is_some() && self.record.seal == key.seal(&self.record)
    }
}

#[cfg(test)]
mod tests {
    use super::Key;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_is_made_once_and_for_the_user_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("inner").join("key");
        assert!(Key::read(&path).expect("reads").is_none());
        let made = Key::read_or_make(&path).expect("makes");
        assert_eq!(Key::read_or_make(&path).expect("reads").0, made.0);
        assert_eq!(std::fs::metadata(&path).expect("is there").permissions().mode() & 0o777, 0o600);
    }
}
