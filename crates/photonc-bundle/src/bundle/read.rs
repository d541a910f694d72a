//! Reading a bundle. Owns the checks on opening: format, paths, hashes, and that the manifest says of graphs and weights what
//! their files say; a bundle that opened is one whole bundle, whatever is put in its place later.

use super::agree;
use super::error::BundleError;
use super::folder::{Folder, OpenFile};
use super::hash::Blake3;
use super::layout::Layout;
use super::manifest::{FileRecord, GraphRecord, MAX_FILE_BYTES, Manifest};
use super::seal;
use super::write::inside;
use indexmap::IndexMap;
use photonc_graph::graph::{Graph, text};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An opened bundle. Clones share what is open.
#[derive(Clone, Debug)]
pub struct Bundle(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    folder: Folder,
    manifest: Manifest,
    /// Every file that the manifest records, by path inside the bundle.
    files: BTreeMap<String, OpenFile>,
    graphs: IndexMap<String, ParsedGraph>,
}

/// A graph and the text it was parsed from.
#[derive(Debug)]
pub(super) struct ParsedGraph {
    pub text: String,
    pub graph: Graph,
}

impl Bundle {
    /// Opens the bundle at `root`, compares every file with its hash, and what the manifest says of graphs and weights with
    /// what their files say.
    ///
    /// # Errors
    /// No bundle there, one of another format, or files that are missing, changed, or say another thing than the manifest.
    pub fn open(root: &Path) -> Result<Self, BundleError> {
        let bundle = Self::open_unverified(root)?;
        bundle.verify_weights()?;
        Ok(bundle)
    }

    /// [`Bundle::open`], but for the hashes of the weights, of which only sizes and headers are compared: for bundles that
    /// something else vouches for.
    ///
    /// # Errors
    /// As [`Bundle::open`].
    pub fn open_unverified(root: &Path) -> Result<Self, BundleError> {
        let root = &super::write::standing(root);
        let missing = || super::write::absent(root);
        if !root.exists() || root.is_file() {
            return Err(missing());
        }
        let folder = Folder::open(root)?;
        let file = folder.find(Layout::MANIFEST)?.ok_or_else(missing)?;
        let manifest = seal::parse(&file.path, &file.read(MAX_FILE_BYTES)?)?;
        let files = open_files(&folder, &manifest)?;
        let mut graphs = IndexMap::new();
        for (name, record) in &manifest.graphs {
            let parsed = parse(&files, &record.text)?;
            agree::graph(&folder.root().join(Layout::MANIFEST), name, record, &parsed.graph)?;
            graphs.insert(name.clone(), parsed);
        }
        let path = folder.root().join(Layout::MANIFEST);
        agree::manifest(&path, &manifest, &graphs)?;
        agree::weights(&path, &manifest, &files)?;
        Ok(Bundle(Arc::new(Opened { folder, manifest, files, graphs })))
    }

    /// Everything known about the bundle.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// Where the bundle stood when it was opened: for messages, and for libraries that read by path, between two calls of
    /// [`Bundle::in_place`].
    #[must_use]
    pub fn root(&self) -> &Path {
        self.0.folder.root()
    }

    /// The record of a graph.
    ///
    /// # Errors
    /// No such graph.
    pub fn graph(&self, name: &str) -> Result<&GraphRecord, BundleError> {
        self.manifest().graphs.get(name).ok_or_else(|| self.missing(format!("graph `{name}`")))
    }

    /// A graph, as its text describes it: valid, and with the ports that the manifest lists.
    ///
    /// # Errors
    /// No such graph.
    pub fn parsed(&self, name: &str) -> Result<&Graph, BundleError> {
        let parsed = self.0.graphs.get(name).map(|parsed| &parsed.graph);
        parsed.ok_or_else(|| self.missing(format!("graph `{name}`")))
    }

    /// The text of a graph.
    ///
    /// # Errors
    /// No such graph.
    pub fn graph_text(&self, name: &str) -> Result<String, BundleError> {
        let parsed = self.0.graphs.get(name).map(|parsed| parsed.text.clone());
        parsed.ok_or_else(|| self.missing(format!("graph `{name}`")))
    }

    /// Path of a graph's ONNX model for a target.
    ///
    /// # Errors
    /// No such target or graph.
    pub fn onnx(&self, target: &str, name: &str) -> Result<PathBuf, BundleError> {
        inside(self.root(), &self.onnx_record(target, name)?.file)
    }

    /// The record of a graph's ONNX model for a target.
    ///
    /// # Errors
    /// No such target or graph.
    pub fn onnx_record(&self, target: &str, name: &str) -> Result<&FileRecord, BundleError> {
        let record = self.manifest().onnx.get(target).and_then(|graphs| graphs.get(name));
        record.ok_or_else(|| self.missing(format!("ONNX model of `{name}` for `{target}`")))
    }

    /// The bytes of a file that the manifest records beside the weights: those with the recorded hash.
    ///
    /// # Errors
    /// It cannot be read, or has changed since the bundle was opened.
    pub fn read(&self, record: &FileRecord) -> Result<Vec<u8>, BundleError> {
        let file = self.file(&record.file)?;
        let bytes = file.read(u64::MAX)?;
        same_hash(&file.path, &Blake3::of(&bytes), record)?;
        Ok(bytes)
    }

    /// Path and bytes of a file carried from the checkpoint, such as `tokenizer.json`, if it had one.
    ///
    /// # Errors
    /// As [`Bundle::read`].
    pub fn carried(&self, name: &str) -> Result<Option<(PathBuf, Vec<u8>)>, BundleError> {
        let Some(record) = self.manifest().carried.get(name) else { return Ok(None) };
        Ok(Some((inside(self.root(), &record.file)?, self.read(record)?)))
    }

    /// Fills `bytes` with what stands in a weights file, by its path inside the bundle, from `offset_bytes` on.
    ///
    /// # Errors
    /// No such file, one that is shorter, or one that has changed since the bundle was opened.
    pub fn read_weights(&self, file: &str, offset_bytes: u64, bytes: &mut [u8]) -> Result<(), BundleError> {
        self.weights_file(file)?.read_at(bytes, offset_bytes)
    }

    /// Whether the path of the bundle, and of every file of it, still leads to what was opened: asked before and after a
    /// library has read by path.
    ///
    /// # Errors
    /// [`BundleError::Replaced`].
    pub fn in_place(&self) -> Result<(), BundleError> {
        let replaced = |path: &Path| Err(BundleError::Replaced { path: path.to_owned() });
        if !self.0.folder.is_in_place() {
            return replaced(self.root());
        }
        match self.0.files.values().find(|file| !file.is_in_place()) {
            Some(file) => replaced(&file.path),
            None => Ok(()),
        }
    }

    /// Reads every weights file and compares its hash.
    ///
    /// # Errors
    /// The first file that differs.
    pub fn verify_weights(&self) -> Result<(), BundleError> {
        for record in self.manifest().weight_files.values() {
            let file = self.file(&record.file)?;
            same_hash(&file.path, &file.hash()?, record)?;
        }
        Ok(())
    }

    pub(super) fn weights_file(&self, name: &str) -> Result<&OpenFile, BundleError> {
        match self.manifest().weight_files.get(name) {
            Some(record) => self.file(&record.file),
            None => Err(self.missing(format!("weights file `{name}`"))),
        }
    }

    fn file(&self, name: &str) -> Result<&OpenFile, BundleError> {
        self.0.files.get(name).ok_or_else(|| self.missing(format!("file `{name}`")))
    }

    pub(super) fn manifest_path(&self) -> PathBuf {
        self.root().join(Layout::MANIFEST)
    }

    pub(super) fn missing(&self, what: String) -> BundleError {
        BundleError::Missing { path: self.root().to_owned(), what, action: "export the model again with it" }
    }
}

/// Opens every file of the manifest; all but the weights have their hashes.
fn open_files(folder: &Folder, manifest: &Manifest) -> Result<BTreeMap<String, OpenFile>, BundleError> {
    let graphs = manifest.graphs.values().map(|graph| &graph.text);
    let onnx = manifest.onnx.values().flat_map(|target| target.values());
    let small = graphs.chain(onnx).chain(manifest.carried.values());
    let mut files: BTreeMap<String, OpenFile> = BTreeMap::new();
    let mut hashes: BTreeMap<&str, Blake3> = BTreeMap::new();
    for record in small {
        if !files.contains_key(&record.file) {
            let file = folder.recorded(record)?;
            hashes.insert(&record.file, file.hash()?);
            files.insert(record.file.clone(), file);
        }
        if let (Some(file), Some(found)) = (files.get(&record.file), hashes.get(record.file.as_str())) {
            same_hash(&file.path, found, record)?;
        }
    }
    for record in manifest.weight_files.values() {
        files.insert(record.file.clone(), folder.recorded(record)?);
    }
    Ok(files)
}

fn parse(files: &BTreeMap<String, OpenFile>, record: &FileRecord) -> Result<ParsedGraph, BundleError> {
    let file = files.get(&record.file).expect("invariant: every file of the manifest is open");
    let bytes = file.read(MAX_FILE_BYTES)?;
    // Once more, of the very bytes that are parsed.
    same_hash(&file.path, &Blake3::of(&bytes), record)?;
    let invalid = |message: String| BundleError::Differs { path: file.path.clone(), message };
    let text = String::from_utf8(bytes).map_err(|error| invalid(error.to_string()))?;
    let graph = text::parse(&text).map_err(|errors| invalid(errors.to_string()))?;
    Ok(ParsedGraph { text, graph })
}

fn same_hash(path: &Path, found: &Blake3, record: &FileRecord) -> Result<(), BundleError> {
    if *found == record.blake3 {
        return Ok(());
    }
    Err(BundleError::Hash {
        path: path.to_owned(),
        found: found.to_string(),
        expected: record.blake3.to_string(),
    })
}
