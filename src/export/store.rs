//! The weights of a bundle, once for all its graphs, in the checkpoint's own types where these widen exactly. Owns the names
//! of the files and where each tensor ends up; files whose tensors keep their types, and whose order suits the graphs, are
//! copied as they are, others are written in a stream.

use super::ExportError;
use super::arrange::arrange;
use super::finite_check::FiniteCheck;
use super::onnx::WeightLocation;
use crate::bundle::{
    self, Blake3, BundleError, BundleWriter, FileRecord, Layout, QuantizedRecord, StoredTensor, WeightRecord,
};
use crate::ir::dtype::Dtype;
use crate::model::checkpoint::{Checkpoint, PIECE_BYTES, TensorEntry, first_nonfinite};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Weights files and tensors as they stand in the bundle, and hashes of what they were made from.
pub(super) struct Store {
    pub files: BTreeMap<String, FileRecord>,
    pub weights: BTreeMap<String, WeightRecord>,
    /// Copies for ONNX models of those that are narrower than graphs read them.
    pub widened: BTreeMap<String, WeightRecord>,
    pub quantized: BTreeMap<String, QuantizedRecord>,
    pub sources: BTreeMap<String, Blake3>,
}

/// What is written, and how.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub checkpoint: &'a Checkpoint,
    /// Type in which graphs read every tensor.
    pub dtype: Dtype,
    /// Whether a copy in that type is written of weights that are stored in a narrower one.
    pub widens: bool,
    /// Canonical names of those that graphs read in few bits alone.
    pub left_out: &'a BTreeSet<String>,
    /// Weights that graphs read as one, in order.
    pub joined: &'a [Vec<String>],
}

impl Source<'_> {
    /// Type in which a tensor of type `dtype` is stored: its own where that widens to what graphs read.
    fn stored_as(&self, dtype: Dtype) -> Dtype {
        stored_as(self.dtype, dtype)
    }
}

/// Type in which a weight of type `own` is stored for graphs that read `read`: its own where that widens exactly.
pub(super) fn stored_as(read: Dtype, own: Dtype) -> Dtype {
    if own.widens_to(read) { own } else { read }
}

/// Writes every weights file, checking each element that a graph may read.
pub(super) fn write(
    writer: &BundleWriter,
    source: Source<'_>,
    allow_nonfinite: bool,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Store, ExportError> {
    let checkpoint = source.checkpoint;
    let total: u64 = checkpoint.files.iter().map(|file| file.size_bytes).sum();
    let done = AtomicU64::new(0);
    let mut store = Store {
        files: BTreeMap::new(),
        weights: BTreeMap::new(),
        widened: BTreeMap::new(),
        quantized: BTreeMap::new(),
        sources: BTreeMap::new(),
    };
    for file in 0..checkpoint.files.len() {
        let refused = Mutex::new(None);
        let finite = FiniteCheck::of(checkpoint, file, source.dtype);
        let check = |offset: u64, piece: &[u8]| -> Result<(), BundleError> {
            let length = piece.len() as u64;
            progress(done.fetch_add(length, Ordering::Relaxed) + length, total);
            if allow_nonfinite {
                return Ok(());
            }
            finite.piece(offset, piece).map_err(|error| {
                let message = error.to_string();
                if let Ok(mut slot) = refused.lock() {
                    *slot = Some(error);
                }
                BundleError::Refused(message)
            })
        };
        let written = store.file(writer, source, file, check);
        // The checkpoint's own error says more than its text.
        if let Some(error) = refused.into_inner().ok().flatten() {
            return Err(error);
        }
        written?;
    }
    store.decoded(writer, source, allow_nonfinite)?;
    if source.widens {
        store.widen(writer, source)?;
    }
    Ok(store)
}

impl Store {
    /// Where a weight stands, as an ONNX model of the bundle names it.
    pub(super) fn locate(&self, weight: &str) -> Option<WeightLocation> {
        bundle::stored(&self.widened, &self.weights, &self.quantized, weight).map(|at| WeightLocation {
            file: Layout::beside_onnx(&at.file),
            offset_bytes: at.offset_bytes,
            length_bytes: at.length_bytes,
        })
    }

    fn file(
        &mut self,
        writer: &BundleWriter,
        from: Source<'_>,
        index: usize,
        check: impl Fn(u64, &[u8]) -> Result<(), BundleError> + Sync,
    ) -> Result<(), BundleError> {
        let source = &from.checkpoint.files[index];
        let in_file_order =
            entries_of(from.checkpoint, |entry| entry.file == index && entry.packing.is_none());
        let is_whole = |entry: &TensorEntry| entry.packing.is_none() && entry.part.is_none();
        let is_whole = from.checkpoint.tensors.values().all(|entry| entry.file != index || is_whole(entry));
        let mut entries = arrange(&in_file_order, from.joined).concat();
        entries.retain(|(name, _)| !from.left_out.contains(*name));
        let is_typed = entries.iter().all(|(_, entry)| from.stored_as(entry.dtype) == entry.dtype);
        let relative = Layout::weights(&file_name(index, from.checkpoint.files.len()));
        let mut out = writer.file(&relative)?;
        let tensors: Vec<StoredTensor> = entries.iter().map(|(_, entry)| stored(entry)).collect();
        let (source_hash, tensors) = if is_typed && is_whole && entries == in_file_order {
            out.copy(source.handle(), &source.path, source.size_bytes, check)?;
            (None, tensors)
        } else {
            let handle = source.handle();
            let becomes = |dtype| from.stored_as(dtype);
            let made = out.convert_to(becomes, handle, &source.path, source.size_bytes, &tensors, check)?;
            (Some(made.source), made.tensors)
        };
        let record = out.finish()?;
        let name =
            source.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        self.sources.insert(name, source_hash.unwrap_or_else(|| record.blake3.clone()));
        self.weights.extend(records(&relative, &entries, tensors));
        self.files.insert(relative, record);
        Ok(())
    }

    /// Writes copies of the weights that are narrower than graphs read them, a file for each that has some.
    fn widen(&mut self, writer: &BundleWriter, from: Source<'_>) -> Result<(), ExportError> {
        let files = &from.checkpoint.files;
        for (index, source) in files.iter().enumerate() {
            let is_narrow =
                |name: &str| self.weights.get(name).is_some_and(|record| record.dtype != from.dtype.name());
            let in_file_order =
                entries_of(from.checkpoint, |entry| entry.file == index && entry.packing.is_none());
            let mut entries = arrange(&in_file_order, from.joined).concat();
            entries.retain(|(name, _)| !from.left_out.contains(*name));
            if !entries.iter().any(|(name, _)| is_narrow(name)) {
                continue;
            }
            let relative =
                Layout::weights(&format!("{}-{}", from.dtype.name(), file_name(index, files.len())));
            let mut out = writer.file(&relative)?;
            let tensors: Vec<StoredTensor> = entries.iter().map(|(_, entry)| stored(entry)).collect();
            let becomes = |_| from.dtype;
            let made = out.convert_to(
                becomes,
                source.handle(),
                &source.path,
                source.size_bytes,
                &tensors,
                |_, _| Ok(()),
            )?;
            self.widened.extend(records(&relative, &entries, made.tensors));
            self.files.insert(relative, out.finish()?);
        }
        Ok(())
    }

    /// Writes what the checkpoint has packed as the numbers that codes stand for, in a file of its own.
    fn decoded(
        &mut self,
        writer: &BundleWriter,
        from: Source<'_>,
        allow_nonfinite: bool,
    ) -> Result<(), ExportError> {
        let in_file_order = entries_of(from.checkpoint, |entry| entry.packing.is_some());
        let mut entries = arrange(&in_file_order, from.joined).concat();
        entries.retain(|(name, _)| !from.left_out.contains(*name));
        if entries.is_empty() {
            return Ok(());
        }
        let relative = Layout::weights("decoded.safetensors");
        let mut out = writer.file(&relative)?;
        let elements = |entry: &TensorEntry| StoredTensor {
            length_bytes: (entry.elements() * entry.dtype.size_bytes()) as u64,
            ..stored(entry)
        };
        let tensors: Vec<StoredTensor> = entries.iter().map(|(_, entry)| elements(entry)).collect();
        let tensors = out.place(|_| from.dtype, &tensors)?;
        for (name, entry) in &entries {
            let mut before = 0;
            from.checkpoint.for_each_piece(name, PIECE_BYTES, |bytes| -> Result<(), ExportError> {
                if let Some(at) = first_nonfinite(entry.dtype, bytes).filter(|_| !allow_nonfinite) {
                    return Err(from.checkpoint.nonfinite(name, entry, before + at, bytes, at).into());
                }
                before += bytes.len() / entry.dtype.size_bytes();
                Ok(out.append(entry.dtype, from.dtype, bytes)?)
            })?;
        }
        self.weights.extend(records(&relative, &entries, tensors));
        self.files.insert(relative, out.finish()?);
        Ok(())
    }
}

/// Where the tensors of a file stand, by canonical name.
fn records(
    relative: &str,
    entries: &[(&str, &TensorEntry)],
    tensors: Vec<StoredTensor>,
) -> BTreeMap<String, WeightRecord> {
    let record = |tensor: StoredTensor| WeightRecord {
        file: relative.to_owned(),
        tensor: tensor.name,
        dtype: tensor.dtype.name().to_owned(),
        shape: tensor.shape,
        offset_bytes: tensor.offset_bytes,
        length_bytes: tensor.length_bytes,
    };
    let names = entries.iter().map(|(name, _)| (*name).to_owned());
    names.zip(tensors.into_iter().map(record)).collect()
}

/// Tensors that `is_one` says, in file order, by canonical name.
fn entries_of(checkpoint: &Checkpoint, is_one: impl Fn(&TensorEntry) -> bool) -> Vec<(&str, &TensorEntry)> {
    let all = checkpoint.tensors.iter().filter(|(_, entry)| is_one(entry));
    let mut entries: Vec<_> = all.map(|(name, entry)| (name.as_str(), entry)).collect();
    entries.sort_unstable_by_key(|(_, entry)| (entry.file, entry.offset_bytes));
    entries
}

fn stored(entry: &TensorEntry) -> StoredTensor {
    StoredTensor {
        // Parts of one stored tensor are tensors of their own here.
        name: match entry.part {
            Some(part) => format!("{}.{}", entry.native, part.index),
            None => entry.native.clone(),
        },
        dtype: entry.dtype,
        shape: entry.shape.clone(),
        offset_bytes: entry.offset_bytes,
        length_bytes: entry.length_bytes,
    }
}

fn file_name(index: usize, count: usize) -> String {
    match count {
        1 => "model.safetensors".to_owned(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
    }
}
