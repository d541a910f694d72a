//! What stands in a bundle: weights, graphs as text and ONNX, carried files. Owns the manifest's account of it; the same
//! for a new bundle and for new weights in an old one.

use super::assemble::{ExportError, Progress};
use super::quantize::{self, StackError};
use super::store::{self, Store};
use super::target::Target;
use super::{arrange, onnx};
use crate::bundle::{
    Bundle, BundleError, BundleWriter, FORMAT, FileRecord, GraphRecord, Layout, Manifest, ModelRecord,
    SourceRecord, hash_file,
};
use crate::graph::{Graph, Verified, text};
use crate::ir::dtype::Dtype;
use crate::model::checkpoint::{Checkpoint, CheckpointError, is_file_of_a_checkpoint};
use crate::model::config_json::config_json;
use crate::passes::choose_protocol::Protocol;
use crate::passes::compile::Plan;
use crate::passes::protocols;
use indexmap::IndexMap;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// What a bundle is filled with.
pub(super) struct Contents<'a> {
    pub checkpoint: &'a Checkpoint,
    pub graphs: &'a IndexMap<String, Graph>,
    pub plans: &'a IndexMap<Protocol, Plan>,
    /// Type of every weight that is not in few bits.
    pub precision: Dtype,
    pub targets: &'a [Target],
    pub max_tokens: usize,
    pub allow_nonfinite: bool,
    /// A bundle of the same graphs, whose models are taken where every weight stands as there.
    pub models: Option<&'a Bundle>,
    /// Where files are carried from; the first that has one. The checkpoint's own comes first.
    pub folders: Vec<PathBuf>,
}

/// Writes weights, graphs, models and carried files; the manifest of all that, and how far weights in few bits are off.
pub(super) fn fill(
    writer: &BundleWriter,
    contents: &Contents<'_>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<(Manifest, Vec<StackError>), ExportError> {
    let stage = |stage| progress(Progress { stage, done_bytes: 0, total_bytes: 0 });
    let told = |done_bytes, total_bytes| {
        progress(Progress { stage: "write weights", done_bytes, total_bytes });
    };
    let Contents { checkpoint, allow_nonfinite, .. } = *contents;
    let carried = carried_files(&contents.folders)?;
    // As their texts have them, so that whoever reads a text makes the same model of it.
    let graphs: &IndexMap<String, Graph> = &contents.graphs.iter().map(reread_text).collect();
    let joined = arrange::joined(graphs.values(), None);
    let left_out = quantize::left_out(graphs.values());
    let source = store::Source {
        checkpoint,
        dtype: contents.precision,
        widens: contents.targets.iter().any(|target| target.reads_onnx()),
        left_out: &left_out,
        joined: &joined,
    };
    let mut store = store::write(writer, source, allow_nonfinite, &told)?;
    stage("quantise weights");
    let quantized = quantize::write(writer, checkpoint, graphs.values(), allow_nonfinite)?;
    store.quantized = quantized.records;
    store.files.extend(quantized.file.map(|file| (file.file.clone(), file)));
    stage("write graphs");
    let canonical = graphs;
    let graphs = write_texts(writer, canonical)?;
    let stands = |bundle: &&Bundle| {
        let old = bundle.manifest();
        // Another version may have written the same graph otherwise.
        old.photonc == env!("CARGO_PKG_VERSION")
            && (&old.weights, &old.widened) == (&store.weights, &store.widened)
            && old.quantized == store.quantized
    };
    let models = match contents.models.filter(stands) {
        Some(bundle) => keep_models(writer, bundle)?,
        None => write_models(writer, contents, canonical, &store)?,
    };
    let (carried, mut sources) = carry(writer, &contents.folders, &carried)?;
    sources.extend(store.sources);
    let manifest = Manifest {
        format: FORMAT,
        photonc: env!("CARGO_PKG_VERSION").to_owned(),
        source: SourceRecord { files: sources, dialect: checkpoint.dialect.name.clone() },
        model: ModelRecord {
            config: config_json(&checkpoint.config),
            vocab_size: checkpoint.config.vocab_size,
            meta_tokens: checkpoint.config.meta_tokens(),
            max_tokens: contents.max_tokens,
            remainder: protocols::remainder(&checkpoint.config),
        },
        precision: contents.precision.name().to_owned(),
        protocols: contents.plans.clone(),
        graphs,
        onnx: models,
        weight_files: store.files,
        weights: store.weights,
        widened: store.widened,
        quantized: store.quantized,
        carried,
    };
    Ok((manifest, quantized.errors))
}

fn reread_text((name, graph): (&String, &Graph)) -> (String, Graph) {
    let reread = text::parse(&text::print(graph)).expect("invariant: a printed graph parses");
    (name.clone(), reread)
}

/// The folder of a checkpoint that may be named by its weights file.
pub(super) fn folder_of(model: &Path) -> PathBuf {
    let folder = if model.is_dir() { model } else { model.parent().unwrap_or(Path::new(".")) };
    folder.to_owned()
}

fn write_texts(
    writer: &BundleWriter,
    graphs: &IndexMap<String, Graph>,
) -> Result<IndexMap<String, GraphRecord>, ExportError> {
    let mut records = IndexMap::new();
    for (name, graph) in graphs {
        let verified = graph.verify()?;
        let record = writer.put(&Layout::graph(name), text::print(verified.graph()).as_bytes())?;
        records.insert(name.clone(), GraphRecord::new(verified, record));
    }
    Ok(records)
}

/// ONNX models by target and graph.
type Models = BTreeMap<String, BTreeMap<String, FileRecord>>;

/// The models of another bundle, as they are: nothing in them but the places of weights can change.
fn keep_models(writer: &BundleWriter, bundle: &Bundle) -> Result<Models, ExportError> {
    let models = &bundle.manifest().onnx;
    let records = models.values().flat_map(BTreeMap::values);
    // Targets that take the same model share its file.
    let files: BTreeMap<&str, &FileRecord> = records.map(|record| (record.file.as_str(), record)).collect();
    for (file, record) in files {
        writer.put(file, &bundle.read(record)?)?;
    }
    Ok(models.clone())
}

fn write_models(
    writer: &BundleWriter,
    contents: &Contents<'_>,
    graphs: &IndexMap<String, Graph>,
    store: &Store,
) -> Result<Models, ExportError> {
    let mut models = Models::new();
    for (name, graph) in graphs {
        let verified = graph.verify()?;
        // Targets that take the same model share its file.
        let mut written: Vec<(Vec<u8>, FileRecord)> = Vec::new();
        for target in contents.targets.iter().filter(|target| target.reads_onnx()) {
            let doc = onnx::describe(name, contents.plans);
            let model = onnx::export(verified, *target, &doc, &|weight| store.locate(weight))?;
            let bytes = onnx::to_bytes(&model);
            let known = written.iter().find(|(other, _)| *other == bytes).map(|(_, record)| record.clone());
            let record = match known {
                Some(record) => record,
                None => {
                    let relative = Layout::onnx(target.name(), name);
                    let record = writer.put(&relative, &bytes)?;
                    reread(writer, &relative, verified, *target)?;
                    record
                }
            };
            written.push((bytes, record.clone()));
            models.entry(target.name().to_owned()).or_default().insert(name.clone(), record);
        }
    }
    Ok(models)
}

/// Checks a model as it stands in its file.
fn reread(
    writer: &BundleWriter,
    relative: &str,
    graph: Verified<'_>,
    target: Target,
) -> Result<(), ExportError> {
    let path = writer.staged(relative)?;
    let failed = |source| BundleError::Io { path: path.clone(), action: "read", source };
    let bytes = std::fs::read(&path).map_err(failed)?;
    Ok(onnx::check(&bytes, graph, target)?)
}

type Carried = (BTreeMap<String, FileRecord>, BTreeMap<String, crate::bundle::Blake3>);

/// The checkpoint's other files that a bundle carries, by name: each from the first folder that has it.
///
/// # Errors
/// Something of that name stands there which cannot be carried.
fn carried_files(folders: &[PathBuf]) -> Result<Vec<(&'static str, PathBuf)>, ExportError> {
    let mut files = Vec::new();
    for name in Layout::CARRIED {
        let places = folders.iter().map(|folder| folder.join(name));
        let Some(path) = places.into_iter().find(|path| path.symlink_metadata().is_ok()) else { continue };
        if let Err(reason) = is_file_of_a_checkpoint(&path) {
            return Err(CheckpointError::NotCarried { path, reason }.into());
        }
        files.push((name, path));
    }
    Ok(files)
}

/// Copies the files to carry; beside them, hashes of what the export read.
fn carry(
    writer: &BundleWriter,
    folders: &[PathBuf],
    files: &[(&'static str, PathBuf)],
) -> Result<Carried, ExportError> {
    let mut carried = BTreeMap::new();
    let mut sources = BTreeMap::new();
    for name in ["config.json", "model.safetensors.index.json"] {
        if let Some(path) = folders.first().map(|own| own.join(name)).filter(|path| path.is_file()) {
            sources.insert(name.to_owned(), hash_file(&path)?.0);
        }
    }
    for (name, path) in files {
        let unreadable = |source: std::io::Error| {
            ExportError::Checkpoint(CheckpointError::Unreadable {
                path: path.clone(),
                reason: source.to_string(),
            })
        };
        let file = File::open(path).map_err(unreadable)?;
        let size_bytes = file.metadata().map_err(unreadable)?.len();
        let mut out = writer.file(name)?;
        out.copy(&file, path, size_bytes, |_, _| Ok(()))?;
        let record = out.finish()?;
        sources.insert((*name).to_owned(), record.blake3.clone());
        carried.insert((*name).to_owned(), record);
    }
    Ok((carried, sources))
}
