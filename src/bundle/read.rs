//! Reading a bundle. Owns the checks on opening: format, paths, hashes of everything but the weights, whose hashes
//! `verify_weights` compares on demand.

use super::error::BundleError;
use super::hash::{Blake3, hash_file};
use super::layout::Layout;
use super::manifest::{FORMAT, FileRecord, GraphRecord, Manifest, WeightRecord};
use super::write::inside;
use crate::ir::attr::Scheme;
use crate::ir::bytes::floats_of;
use crate::ir::dtype::Dtype;
use crate::ir::tensor::Tensor;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// An opened bundle.
#[derive(Clone, Debug)]
pub struct Bundle {
    root: PathBuf,
    manifest: Manifest,
}

/// Takes a piece of a weight: its stored type and its bytes, in order.
pub type Piece<'p> = dyn FnMut(Dtype, &[u8]) -> Result<(), String> + 'p;

/// Takes rows of a weight in few bits: their codes and their scales, as they are stored.
pub type CodePiece<'p> = dyn FnMut(&[u8], &[f32]) -> Result<(), String> + 'p;

impl Bundle {
    /// Opens the bundle at `root` and checks every file but the weights against its manifest; of the weights only the
    /// sizes.
    ///
    /// # Errors
    /// No bundle there, one of another format, or files that are missing or changed.
    pub fn open(root: &Path) -> Result<Self, BundleError> {
        let root = &super::write::standing(root);
        let path = root.join(Layout::MANIFEST);
        let missing = || super::write::absent(root);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(missing()),
            Err(error) => return Err(BundleError::io(&path, "read")(error)),
        };
        let bundle = Bundle { root: root.to_owned(), manifest: parse(&path, &text)? };
        bundle.check_files()?;
        Ok(bundle)
    }

    /// Everything known about the bundle.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Directory of the bundle.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The record of a graph.
    ///
    /// # Errors
    /// No such graph.
    pub fn graph(&self, name: &str) -> Result<&GraphRecord, BundleError> {
        self.manifest.graphs.get(name).ok_or_else(|| self.missing(format!("graph `{name}`")))
    }

    /// The text of a graph.
    ///
    /// # Errors
    /// No such graph, or its file cannot be read or has changed.
    pub fn graph_text(&self, name: &str) -> Result<String, BundleError> {
        let path = inside(&self.root, &self.graph(name)?.text.file)?;
        fs::read_to_string(&path).map_err(BundleError::io(&path, "read"))
    }

    /// Path of a graph's ONNX model for a target.
    ///
    /// # Errors
    /// No such target or graph.
    pub fn onnx(&self, target: &str, name: &str) -> Result<PathBuf, BundleError> {
        inside(&self.root, &self.onnx_record(target, name)?.file)
    }

    /// The record of a graph's ONNX model for a target.
    ///
    /// # Errors
    /// No such target or graph.
    pub fn onnx_record(&self, target: &str, name: &str) -> Result<&FileRecord, BundleError> {
        let record = self.manifest.onnx.get(target).and_then(|graphs| graphs.get(name));
        record.ok_or_else(|| self.missing(format!("ONNX model of `{name}` for `{target}`")))
    }

    /// Path of a file carried from the checkpoint, such as `tokenizer.json`, if it had one.
    #[must_use]
    pub fn carried(&self, name: &str) -> Option<PathBuf> {
        self.manifest.carried.get(name).and_then(|record| inside(&self.root, &record.file).ok())
    }

    /// A weight by canonical name.
    ///
    /// # Errors
    /// No such weight, or its bytes cannot be read.
    pub fn weight(&self, name: &str) -> Result<Tensor, BundleError> {
        let mut values = Vec::new();
        let record = self.weight_pieces(name, usize::MAX, &mut |dtype, bytes| {
            values.extend(floats_of(dtype, bytes));
            Ok(())
        })?;
        let shape = &record.shape;
        Tensor::floats(shape, values).ok_or_else(|| BundleError::Manifest {
            path: self.manifest_path(),
            message: format!("weight `{name}`: shape {shape:?} does not fit"),
        })
    }

    /// Hands the stored elements of a weight to `piece` in order, at most `piece_bytes` at a time; gives its record.
    ///
    /// # Errors
    /// No such weight, its bytes cannot be read, or `piece` refuses.
    pub fn weight_pieces(
        &self,
        name: &str,
        piece_bytes: usize,
        piece: &mut Piece<'_>,
    ) -> Result<&WeightRecord, BundleError> {
        let record =
            self.manifest.weights.get(name).ok_or_else(|| self.missing(format!("weight `{name}`")))?;
        let path = inside(&self.root, &record.file)?;
        let invalid = |message: String| BundleError::Manifest { path: self.manifest_path(), message };
        let dtype = check_weight(name, record).map_err(invalid)?;
        let file = File::open(&path).map_err(BundleError::io(&path, "open"))?;
        // Whole elements, whatever their size.
        let step = (piece_bytes.max(8) / 8 * 8) as u64;
        let mut bytes = Vec::new();
        let mut done = 0;
        while done < record.length_bytes {
            let part = step.min(record.length_bytes - done);
            let length = usize::try_from(part).map_err(|_| invalid(format!("weight `{name}`: too large")))?;
            bytes.resize(length, 0);
            file.read_exact_at(&mut bytes, record.offset_bytes + done)
                .map_err(BundleError::io(&path, "read"))?;
            piece(dtype, &bytes).map_err(|message| invalid(format!("weight `{name}`: {message}")))?;
            done += part;
        }
        Ok(record)
    }

    /// A weight as its codes give it back.
    ///
    /// # Errors
    /// The bundle has no such codes, or their bytes cannot be read.
    pub fn quantized_weight(&self, name: &str, scheme: Scheme) -> Result<Tensor, BundleError> {
        let key = scheme.key(name);
        let missing = || self.missing(format!("codes `{key}`"));
        let record = self.manifest.quantized.get(&key).ok_or_else(missing)?;
        let (codes, scales) = (self.bytes(&record.codes)?, self.bytes(&record.scales)?);
        let invalid = || BundleError::Manifest {
            path: self.manifest_path(),
            message: format!("codes `{key}`: {} of shape {:?} do not fit", codes.len(), record.codes.shape),
        };
        let [rows, columns] = record.codes.shape[..] else { return Err(invalid()) };
        let values = scheme.decoded([rows, columns], &codes, &floats(&scales)).ok_or_else(invalid)?;
        Tensor::floats(&record.codes.shape, values).ok_or_else(invalid)
    }

    /// Hands the codes of a weight to `piece`, whole rows at a time and in order, about `piece_bytes` of them, each time
    /// with the scales of those rows: as they are stored.
    ///
    /// # Errors
    /// The bundle has no such codes, their bytes cannot be read, or `piece` refuses.
    pub fn code_pieces(
        &self,
        name: &str,
        scheme: Scheme,
        piece_bytes: usize,
        piece: &mut CodePiece<'_>,
    ) -> Result<(), BundleError> {
        let key = scheme.key(name);
        let missing = || self.missing(format!("codes `{key}`"));
        let record = self.manifest.quantized.get(&key).ok_or_else(missing)?;
        let invalid = |message: String| BundleError::Manifest {
            path: self.manifest_path(),
            message: format!("codes `{key}`: {message}"),
        };
        let misfit = || invalid(format!("do not fit the shape {:?}", record.codes.shape));
        let [rows, columns] = record.codes.shape[..] else { return Err(misfit()) };
        let elements = rows.checked_mul(columns).filter(|elements| *elements > 0).ok_or_else(misfit)?;
        let scales = floats(&self.bytes(&record.scales)?);
        let wanted = scheme.scale_shape([rows, columns]).map(|sizes| sizes.iter().product::<usize>());
        if record.codes.length_bytes != scheme.code_bytes(elements) as u64 || wanted != Some(scales.len()) {
            return Err(misfit());
        }
        let row_bytes = scheme.code_bytes(columns);
        let step = (piece_bytes / row_bytes.max(1)).clamp(1, rows);
        for first in (0..rows).step_by(step) {
            let count = step.min(rows - first);
            let part = WeightRecord {
                offset_bytes: record.codes.offset_bytes + (first * row_bytes) as u64,
                length_bytes: (count * row_bytes) as u64,
                ..record.codes.clone()
            };
            // One scale for the matrix is one for every part of it.
            let own = match scheme {
                Scheme::Fp8 => &scales[..],
                Scheme::Int8 | Scheme::Int4 => {
                    let each = scales.len() / rows;
                    &scales[first * each..(first + count) * each]
                }
            };
            piece(&self.bytes(&part)?, own).map_err(invalid)?;
        }
        Ok(())
    }

    fn bytes(&self, record: &WeightRecord) -> Result<Vec<u8>, BundleError> {
        let path = inside(&self.root, &record.file)?;
        let file = File::open(&path).map_err(BundleError::io(&path, "open"))?;
        let size = file.metadata().map_err(BundleError::io(&path, "inspect"))?.len();
        let end = record.offset_bytes.checked_add(record.length_bytes);
        if end.is_none_or(|end| end > size) {
            return Err(BundleError::Truncated { path, found: size, expected: end.unwrap_or(u64::MAX) });
        }
        let mut bytes = vec![0; usize::try_from(record.length_bytes).unwrap_or_default()];
        file.read_exact_at(&mut bytes, record.offset_bytes).map_err(BundleError::io(&path, "read"))?;
        Ok(bytes)
    }

    /// Reads every weights file and compares its hash.
    ///
    /// # Errors
    /// The first file that differs.
    pub fn verify_weights(&self) -> Result<(), BundleError> {
        for record in self.manifest.weight_files.values() {
            let path = inside(&self.root, &record.file)?;
            let (found, _) = hash_file(&path)?;
            same_hash(&path, &found, record)?;
        }
        Ok(())
    }

    fn manifest_path(&self) -> PathBuf {
        self.root.join(Layout::MANIFEST)
    }

    fn missing(&self, what: String) -> BundleError {
        BundleError::Missing { path: self.root.clone(), what, action: "export the model again with it" }
    }

    fn check_files(&self) -> Result<(), BundleError> {
        let graphs = self.manifest.graphs.values().map(|graph| &graph.text);
        let onnx = self.manifest.onnx.values().flat_map(|target| target.values());
        for record in graphs.chain(onnx).chain(self.manifest.carried.values()) {
            let path = inside(&self.root, &record.file)?;
            let (found, _) = hash_file(&path)?;
            same_hash(&path, &found, record)?;
        }
        for record in self.manifest.weight_files.values() {
            let path = inside(&self.root, &record.file)?;
            let found = fs::metadata(&path).map_err(BundleError::io(&path, "inspect"))?.len();
            if found != record.bytes {
                return Err(BundleError::Truncated { path, found, expected: record.bytes });
            }
        }
        for (name, record) in &self.manifest.weights {
            let error = |message| BundleError::Manifest { path: self.manifest_path(), message };
            check_weight(name, record).map_err(error)?;
            let size = self.manifest.weight_files.get(&record.file).map(|file| file.bytes);
            let end = record.offset_bytes.checked_add(record.length_bytes);
            if !matches!((end, size), (Some(end), Some(size)) if end <= size) {
                let message = format!("weight `{name}`: not inside `{}` of the weights files", record.file);
                return Err(error(message));
            }
        }
        Ok(())
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn parse(path: &Path, text: &[u8]) -> Result<Manifest, BundleError> {
    let error = |message: String| BundleError::Manifest { path: path.to_owned(), message };
    let value: serde_json::Value =
        serde_json::from_slice(text).map_err(|source| error(format!("not JSON: {source}")))?;
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format == u64::from(FORMAT) => {}
        Some(format) => {
            let writer = value.get("photonc").and_then(serde_json::Value::as_str).unwrap_or("unknown");
            return Err(error(format!(
                "bundle format {format} (photonc {writer}), this photonc reads {FORMAT}; export the model again"
            )));
        }
        None => return Err(error("not a bundle's manifest: it has no `format`".to_owned())),
    }
    let manifest: Manifest = serde_json::from_value(value).map_err(|source| error(source.to_string()))?;
    if manifest.model.meta_tokens == 0 || manifest.model.vocab_size == 0 {
        return Err(error("`meta_tokens` and `vocab_size` must be positive".to_owned()));
    }
    Ok(manifest)
}

fn check_weight(name: &str, record: &WeightRecord) -> Result<Dtype, String> {
    let dtype = Dtype::from_name(&record.dtype)
        .filter(|dtype| dtype.is_float())
        .ok_or_else(|| format!("weight `{name}`: type `{}` is no floating-point type", record.dtype))?;
    let elements = record.shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size as u64));
    let bytes = elements.and_then(|elements| elements.checked_mul(dtype.size_bytes() as u64));
    if bytes != Some(record.length_bytes) {
        return Err(format!(
            "weight `{name}`: {} bytes for {}{:?}",
            record.length_bytes, record.dtype, record.shape
        ));
    }
    Ok(dtype)
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
