//! What a vendor's library keeps for its next start: timings of kernels that it tried while building, kernels that it compiled
//! while running. Owns where, and for which library and GPU; the library judges what is inside.

use super::mismatch::Gpu;
use super::target::{Vendor, Version};
use photonc_bundle::bundle::Blake3;
use photonc_bundle::cache::{Cache, CacheError};
use std::path::{Path, PathBuf};

/// Folder in the user's cache.
const KIND: &str = "tensorrt";

/// One thing that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    cache: Cache,
    name: PathBuf,
    /// The library and the GPU, which the entry begins with.
    owner: String,
    /// Whether the user named the file: one that is something else is then left as it is.
    named: bool,
}

/// Why what is kept cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NotKept {
    /// It is of another library, version or GPU.
    #[error("{}: of {found}, here is {here}", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// What is here.
        here: String,
    },
    /// It cannot be read or written.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl Kept {
    /// Timings of a library's builds on a GPU: in `file`, else in the user's cache folder.
    #[must_use]
    pub fn timings(file: Option<&Path>, vendor: Vendor, version: Version, gpu: &Gpu) -> Self {
        let owner = owner(vendor, version, gpu);
        let Some(file) = file else {
            let name = format!("{}-{version}-{}-{}.timings", vendor.name(), gpu.sm, short(&gpu.name));
            return Kept { cache: Cache::of_user(KIND), name: name.into(), owner, named: false };
        };
        // A link stays a link: what it leads to is replaced.
        let file = &file.canonicalize().unwrap_or_else(|_| file.to_owned());
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        let name = file.file_name().map_or_else(|| PathBuf::from("timings"), PathBuf::from);
        Kept { cache: Cache::at(folder.unwrap_or(Path::new("."))), name, owner, named: true }
    }

    /// Kernels that a library compiled on a GPU to run the engine of this hash.
    #[must_use]
    pub fn kernels(cache: Cache, engine: &Blake3, vendor: Vendor, version: Version, gpu: &Gpu) -> Self {
        let name = format!("{}-{}-{}.kernels", engine.as_str(), gpu.sm, short(&gpu.name));
        Kept { cache, name: name.into(), owner: owner(vendor, version, gpu), named: false }
    }

    /// The user's folder of such files.
    #[must_use]
    pub fn of_user() -> Cache {
        Cache::of_user(KIND)
    }

    /// What is kept; `None` where nothing is yet.
    ///
    /// # Errors
    /// It is damaged, somebody else's, or cannot be read.
    pub fn load(&self) -> Result<Option<Vec<u8>>, NotKept> {
        self.judged(self.cache.read(&self.name))
    }

    /// Keeps what `merge` makes of what is kept by now; nothing where it gives nothing. Two processes that keep at once wait for
    /// each other.
    ///
    /// # Errors
    /// It cannot be written; or the user named a file that is damaged or somebody else's, which stays as it is.
    pub fn keep(&self, merge: impl FnOnce(Option<Vec<u8>>) -> Option<Vec<u8>>) -> Result<(), NotKept> {
        let mut refused = None;
        self.cache.update(&self.name, |there| {
            let there = match self.judged(there) {
                Ok(there) => there,
                Err(error) if self.named => {
                    refused = Some(error);
                    return None;
                }
                Err(_) => None,
            };
            let contents = merge(there)?;
            Some([self.owner.as_bytes(), b"\n", contents.as_slice()].concat())
        })?;
        refused.map_or(Ok(()), Err)
    }

    /// The contents of an entry that is of this library and GPU.
    fn judged(&self, entry: Result<Option<Vec<u8>>, CacheError>) -> Result<Option<Vec<u8>>, NotKept> {
        let Some(entry) = entry? else { return Ok(None) };
        let end = entry.iter().position(|byte| *byte == b'\n').unwrap_or(entry.len());
        let (found, contents) = entry.split_at(end);
        if found == self.owner.as_bytes() {
            return Ok(Some(contents.get(1..).unwrap_or_default().to_vec()));
        }
        let path = self.cache.folder().map_or_else(|| self.name.clone(), |folder| folder.join(&self.name));
        let found = String::from_utf8_lossy(found).into_owned();
        Err(NotKept::Foreign { path, found, here: self.owner.clone() })
    }
}

fn owner(vendor: Vendor, version: Version, gpu: &Gpu) -> String {
    format!("{vendor} {version} on {} ({})", gpu.name.replace('\n', " "), gpu.sm)
}

/// A few digits that stand for a name in a file's name.
fn short(name: &str) -> String {
    Blake3::of(name.as_bytes()).as_str().chars().take(8).collect()
}

#[cfg(test)]
mod tests {
    use super::{Kept, NotKept};
    use crate::{Gpu, Sm, Vendor, Version};
    use photonc_bundle::bundle::Blake3;
    use photonc_bundle::cache::Cache;
    use std::fs;
    use std::path::Path;

    const VERSION: Version = Version { major: 11, minor: 4, patch: 0 };

    fn gpu(name: &str) -> Gpu {
        Gpu { name: name.to_owned(), sm: Sm(89) }
    }

    fn timings(file: &Path, version: Version, name: &str) -> Kept {
        Kept::timings(Some(file), Vendor::Tensorrt, version, &gpu(name))
    }

    #[test]
    fn what_is_kept_is_loaded_with_every_byte() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("inner").join("timings");
        let kept = timings(&file, VERSION, "L4");
        assert!(kept.load().expect("there is none").is_none());
        for contents in [b"\n\n".as_slice(), b"", b"a\nb"] {
            kept.keep(|_| Some(contents.to_vec())).expect("keeps");
            assert_eq!(kept.load().expect("loads").as_deref(), Some(contents));
        }
        kept.keep(|there| there.filter(|there| there.is_empty())).expect("keeps nothing");
        assert_eq!(kept.load().expect("loads").as_deref(), Some(b"a\nb".as_slice()));
    }

    // Timings of another GPU choose kernels that are wrong or slow here; those of another version are refused by the library.
    #[test]
    fn what_is_somebody_elses_is_told_and_left_where_the_user_named_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("timings");
        timings(&file, VERSION, "L4").keep(|_| Some(b"first".to_vec())).expect("keeps");
        for other in [timings(&file, Version { minor: 5, ..VERSION }, "L4"), timings(&file, VERSION, "L40")] {
            let told = other.load().expect_err("is foreign").to_string();
            assert!(told.contains("of TensorRT 11.4.0 on L4 (sm_89), here is TensorRT 11."), "{told}");
            assert!(matches!(other.keep(|_| Some(Vec::new())), Err(NotKept::Foreign { .. })));
        }
        let first = timings(&file, VERSION, "L4").load().expect("loads");
        assert_eq!(first.as_deref(), Some(b"first".as_slice()));
    }

    // A mistyped path must not cost a model.
    #[test]
    fn a_named_file_that_is_something_else_stays_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("model.onnx");
        fs::write(&file, "weights").expect("writes");
        let kept = timings(&file, VERSION, "L4");
        assert!(kept.load().expect_err("is none").to_string().contains("damaged"));
        assert!(kept.keep(|_| Some(b"timings".to_vec())).is_err());
        assert_eq!(fs::read(&file).expect("reads"), b"weights");
    }

    // Whereas in the cache's own folder there is nothing to lose.
    #[test]
    fn a_damaged_entry_of_the_cache_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let kernels = |engine: &[u8], name: &str| {
            let cache = Cache::at(folder.path());
            Kept::kernels(cache, &Blake3::of(engine), Vendor::TensorrtRtx, VERSION, &gpu(name))
        };
        let kept = kernels(b"engine", "L4");
        kept.keep(|_| Some(b"kernels".to_vec())).expect("keeps");
        fs::write(folder.path().join(&kept.name), "damaged").expect("writes");
        assert!(kept.load().is_err());
        kept.keep(|there| there.is_none().then(|| b"new".to_vec())).expect("keeps");
        assert_eq!(kept.load().expect("loads").as_deref(), Some(b"new".as_slice()));
        for other in [kernels(b"another", "L4"), kernels(b"engine", "L40")] {
            assert!(
                other.load().expect("there is none").is_none(),
                "each engine and GPU has a file of its own"
            );
        }
    }
}
