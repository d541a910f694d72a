//! What is recorded of engines, beside them in the bundle. Owns the format and its integrity: an engine whose bytes are not
//! those recorded never reaches the vendor's library, which crashes on them.

use super::profile::Profile;
use super::target::{Sm, Vendor, Version};
use photonc_bundle::bundle::{Blake3, Bundle, BundleError, Layout, hash_file};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Version of the format written and read.
pub const FORMAT: u32 = 1;

/// Engines that were built together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineRecord {
    /// Version of the format, [`FORMAT`].
    pub format: u32,
    /// Version of photonc that built them.
    pub photonc: String,
    /// The library.
    pub vendor: Vendor,
    /// Its version.
    pub version: Version,
    /// GPUs that every engine was built for.
    pub sms: Vec<Sm>,
    /// Element type of weights and activations.
    pub precision: String,
    /// Engines by graph.
    pub graphs: BTreeMap<String, EngineFile>,
    /// What the key of the user who built them makes of all this; absent where they were built without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<Blake3>,
}

/// What an engine was built from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineSource {
    /// Hash of the ONNX model.
    pub onnx: Blake3,
    /// Hash of the hashes of the weights files.
    pub weights: Blake3,
}

/// One engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineFile {
    /// File, beside the record.
    pub file: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Hash of the contents.
    pub blake3: Blake3,
    /// What it was built from.
    pub source: EngineSource,
    /// Sizes it was built for, in the engine's order.
    pub profiles: Vec<Profile>,
    /// Seconds that the build took.
    pub build_seconds: f64,
    /// Host memory expected for the build, in bytes.
    pub predicted_peak_bytes: u64,
    /// Host memory that the process held at most during the build, in bytes, where it was measured: with what earlier builds
    /// of the process left to be used again.
    pub peak_bytes: Option<u64>,
}

/// Why engines cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The record is not one.
    #[error("{}: {message}; build the engines again with `photonc build`", .path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// What was found and expected.
        message: String,
    },
    /// The bytes of an engine are not those recorded.
    #[error(
        "{}: the engine is damaged ({found}, expected {expected}); build it again with `photonc build`", .path.display()
    )]
    Damaged {
        /// The engine.
        path: PathBuf,
        /// Size or hash found.
        found: String,
        /// Size or hash recorded.
        expected: String,
    },
    /// A graph has no engine.
    #[error("{}: has no engine of graph `{graph}`; build it with `photonc build --graph {graph}`", .path.display())]
    NoGraph {
        /// The folder.
        path: PathBuf,
        /// The graph.
        graph: String,
    },
    /// A file cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

impl EngineSource {
    /// What the bundle has of a graph for a vendor's engines.
    ///
    /// # Errors
    /// No ONNX model of such a graph.
    pub fn of(bundle: &Bundle, vendor: Vendor, graph: &str) -> Result<Self, BundleError> {
        let onnx = bundle.onnx_record(vendor.name(), graph)?.blake3.clone();
        let files = bundle.manifest().weight_files.values();
        let hashes: Vec<&str> = files.map(|file| file.blake3.as_str()).collect();
        Ok(EngineSource { onnx, weights: Blake3::of(hashes.join("\n").as_bytes()) })
    }
}

/// Engines of a bundle that were built together, where they stand.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineSet {
    /// The folder.
    pub folder: PathBuf,
    /// What is recorded.
    pub record: EngineRecord,
}

impl EngineSet {
    /// Reads the record in a folder.
    ///
    /// # Errors
    /// No record, or one of another format.
    pub fn open(folder: &Path) -> Result<Self, RecordError> {
        let path = folder.join(Layout::ENGINE_RECORD);
        let wrong = |message: String| RecordError::Record { path: path.clone(), message };
        let text = fs::read(&path).map_err(|error| wrong(format!("cannot read: {error}")))?;
        let value: serde_json::Value =
            serde_json::from_slice(&text).map_err(|error| wrong(format!("not JSON: {error}")))?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(format) if format == u64::from(FORMAT) => {}
            format => return Err(wrong(format!("engine format {format:?}, this photonc reads {FORMAT}"))),
        }
        let record = serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
        Ok(EngineSet { folder: folder.to_owned(), record })
    }

    /// What is recorded of the engine of a graph.
    ///
    /// # Errors
    /// There is none.
    pub fn graph(&self, graph: &str) -> Result<&EngineFile, RecordError> {
        let missing = || RecordError::NoGraph { path: self.folder.clone(), graph: graph.to_owned() };
        self.record.graphs.get(graph).ok_or_else(missing)
    }

    /// Path of an engine whose bytes are those recorded.
    ///
    /// # Errors
    /// It is missing or damaged.
    pub fn intact(&self, engine: &EngineFile) -> Result<PathBuf, RecordError> {
        let name = Path::new(&engine.file);
        if name.components().count() != 1 || name.file_name().is_none() {
            return Err(BundleError::OutsideBundle { name: engine.file.clone() }.into());
        }
        let path = self.folder.join(name);
        let (hash, bytes) = hash_file(&path)?;
        let damaged = |found: String, expected: String| {
            Err(RecordError::Damaged { path: path.clone(), found, expected })
        };
        if bytes != engine.bytes {
            return damaged(format!("{bytes} bytes"), format!("{} bytes", engine.bytes));
        }
        if hash != engine.blake3 {
            return damaged(format!("BLAKE3 {hash}"), engine.blake3.to_string());
        }
        Ok(path)
    }
}

/// The sets of engines of a bundle.
#[derive(Debug, Default)]
pub struct Sets {
    /// Those whose record can be read, in order of their folders.
    pub readable: Vec<EngineSet>,
    /// What is wrong with each of the others.
    pub unreadable: Vec<RecordError>,
}

/// Every set of engines of a bundle. One that cannot be read hides no other.
#[must_use]
pub fn sets(bundle: &Bundle) -> Sets {
    let (mut folders, mut sets) = (Vec::new(), Sets::default());
    for vendor in Vendor::ALL {
        let parent = bundle.root().join(Layout::engines(vendor.name()));
        match fs::read_dir(&parent) {
            Ok(listed) => {
                let listed = listed.flatten().map(|entry| entry.path());
                folders.extend(listed.filter(|path| path.join(Layout::ENGINE_RECORD).is_file()));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                let message = format!("cannot be listed: {error}");
                sets.unreadable.push(RecordError::Record { path: parent, message });
            }
        }
    }
    // What a killed build left begins with a dot.
    let hidden =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    folders.retain(|path| !hidden(path));
    folders.sort();
    for folder in folders {
        match EngineSet::open(&folder) {
            Ok(set) => sets.readable.push(set),
            Err(error) => sets.unreadable.push(error),
        }
    }
    sets
}

#[cfg(test)]
mod tests {
    use super::{EngineFile, EngineRecord, EngineSet, EngineSource, FORMAT, RecordError};
    use crate::target::{Sm, Vendor, Version};
    use photonc_bundle::bundle::{Blake3, Layout};
    use std::collections::BTreeMap;
    use std::fs;

    fn engine(contents: &[u8]) -> EngineFile {
        EngineFile {
            file: "coarse.engine".to_owned(),
            bytes: contents.len() as u64,
            blake3: Blake3::of(contents),
            source: EngineSource { onnx: Blake3::of(b"onnx"), weights: Blake3::of(b"weights") },
            profiles: Vec::new(),
            build_seconds: 1.5,
            predicted_peak_bytes: 1,
            peak_bytes: None,
        }
    }

    fn stored(folder: &std::path::Path, contents: &[u8]) -> EngineSet {
        let record = EngineRecord {
            format: FORMAT,
            photonc: "0.1.0".to_owned(),
            vendor: Vendor::TensorrtRtx,
            version: Version { major: 1, minor: 7, patch: 1 },
            sms: vec![Sm(89)],
            precision: "f32".to_owned(),
            graphs: BTreeMap::from([("coarse".to_owned(), engine(contents))]),
            seal: None,
        };
        let text = serde_json::to_vec_pretty(&record).expect("JSON");
        fs::write(folder.join(Layout::ENGINE_RECORD), text).expect("writes");
        fs::write(folder.join("coarse.engine"), contents).expect("writes");
        EngineSet::open(folder).expect("opens")
    }

    #[test]
    fn an_intact_engine_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let set = stored(folder.path(), b"engine");
        let engine = set.graph("coarse").expect("is recorded");
        assert_eq!(set.intact(engine).expect("is intact"), folder.path().join("coarse.engine"));
        assert!(matches!(set.graph("expand"), Err(RecordError::NoGraph { .. })));
    }

    // The vendor's library dies of a changed engine, so none may reach it.
    #[test]
    fn a_changed_or_cut_engine_is_damaged() {
        let folder = tempfile::tempdir().expect("a folder");
        let set = stored(folder.path(), b"engine");
        for contents in [b"engins".as_slice(), b"engin"] {
            fs::write(folder.path().join("coarse.engine"), contents).expect("writes");
            let error = set.intact(set.graph("coarse").expect("is recorded")).expect_err("is damaged");
            assert!(error.to_string().contains("the engine is damaged"), "{error}");
        }
    }

    #[test]
    fn a_record_cannot_lead_out_of_its_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let set = stored(folder.path(), b"engine");
        for file in ["../coarse.engine", "/etc/passwd", "", ".."] {
            let engine = EngineFile { file: file.to_owned(), ..engine(b"engine") };
            assert!(set.intact(&engine).is_err(), "{file}");
        }
    }

    #[test]
    fn another_format_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        for text in ["{}", r#"{"format": 9}"#, "engine", r#"{"format": 1, "vendor": "other"}"#] {
            fs::write(folder.path().join(Layout::ENGINE_RECORD), text).expect("writes");
            let error = EngineSet::open(folder.path()).expect_err("is refused").to_string();
            assert!(error.contains("photonc build"), "{error}");
        }
    }
}
