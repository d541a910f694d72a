//! A checkpoint on disk: configuration, dialect, and where each tensor's bytes stand. Owns opening and checking; weights
//! are read only through the bounded reads of `pieces`, and nothing is ever written.

mod finite;
mod header;
mod locate;
mod matching;
mod packed;
mod pieces;
mod recognise;
mod source;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;

pub use finite::first_nonfinite;
pub use matching::Mismatch;
pub use packed::{PackedFormat, Packing};
pub use pieces::{PIECE_BYTES, extend_f32};
pub use recognise::{cache_root, is_file_of_a_checkpoint};

use crate::model::config::ModelConfig;
use crate::model::dialect::{self, ConfigError, Dialect, DialectChoice, DialectError};
use crate::model::parameters::resolve;
use matching::Stored;
use photonc_graph::ir::dtype::Dtype;

/// An opened checkpoint: every tensor of the model is there, in its shape.
#[derive(Debug)]
pub struct Checkpoint {
    /// Shape of the model.
    pub config: ModelConfig,
    /// How the checkpoint names things.
    pub dialect: Dialect,
    /// Tensors by canonical name, in canonical order. A tied head has no entry of its own.
    pub tensors: IndexMap<String, TensorEntry>,
    /// The weights files.
    pub files: Vec<WeightsFile>,
    /// What the user may want to know: keys and tensors that were ignored.
    pub notes: Vec<String>,
    /// Where each choice and size of the configuration came from.
    pub sources: Vec<dialect::Source>,
    /// Name of the configuration's file.
    pub config_file: String,
}

/// One weights file, open for reading.
#[derive(Debug)]
pub struct WeightsFile {
    /// Where it stands.
    pub path: PathBuf,
    /// Its size when it was opened.
    pub size_bytes: u64,
    /// Offset of the first tensor's bytes.
    pub data_start_bytes: u64,
    handle: File,
}

impl WeightsFile {
    /// The open file, for positioned reads and copies by the kernel.
    #[must_use]
    pub fn handle(&self) -> &File {
        &self.handle
    }
}

/// What happens to stored tensors that the model has not and the dialect does not know as harmless.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unexpected {
    /// They are an error.
    #[default]
    Refused,
    /// They are left alone, with a note.
    Ignored,
}

/// Where one tensor's bytes stand.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorEntry {
    /// Position in [`Checkpoint::files`].
    pub file: usize,
    /// The checkpoint's own name of the tensor.
    pub native: String,
    /// Element type: f32, f16 or bf16; f32 of what is packed.
    pub dtype: Dtype,
    /// Sizes of the axes.
    pub shape: Vec<usize>,
    /// Offset of the first byte in the file.
    pub offset_bytes: u64,
    /// Number of bytes.
    pub length_bytes: u64,
    /// Which part of the stored tensor it is, if not the whole.
    pub part: Option<dialect::Part>,
    /// How it is packed, if in few bits; the bytes are then codes.
    pub packing: Option<Packing>,
}

impl TensorEntry {
    /// Number of elements.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file or directory cannot be read.
    #[error("{}: {reason}", path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file that a bundle carries cannot be carried.
    #[error("{}: {reason}", path.display())]
    NotCarried {
        /// What stands there.
        path: PathBuf,
        /// What it is, and what to do.
        reason: String,
    },
    /// A directory lacks a part of a checkpoint.
    #[error("{}: {what}", path.display())]
    NotFound {
        /// The directory.
        path: PathBuf,
        /// What is missing or ambiguous.
        what: String,
    },
    /// A safetensors file contradicts itself or its size.
    #[error("{}: {reason}", path.display())]
    Header {
        /// The weights file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A sharded index and its shards do not agree.
    #[error("{}: the index and its shards do not agree{}", path.display(), listed(problems))]
    Index {
        /// The index file.
        path: PathBuf,
        /// Every fault.
        problems: Vec<String>,
    },
    /// No dialect fits.
    #[error("{}: {source}", path.display())]
    Dialect {
        /// The checkpoint.
        path: PathBuf,
        /// Why not.
        source: DialectError,
    },
    /// The configuration describes no model.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Tensors and configuration do not fit each other.
    #[error("{}: {mismatch}", path.display())]
    Mismatch {
        /// The checkpoint.
        path: PathBuf,
        /// Everything that does not fit.
        mismatch: Box<Mismatch>,
    },
    /// The model has no such tensor: a fault of the caller.
    #[error("the model has no tensor `{name}`")]
    NoTensor {
        /// The name asked for.
        name: String,
    },
    /// Packed weights where stored elements are asked for.
    #[error("`{name}` is packed ({}): its bytes are codes, and elements are asked for", format.name())]
    Packed {
        /// Canonical name of the tensor.
        name: String,
        /// How it is packed.
        format: PackedFormat,
    },
    /// Weights could not be read.
    #[error("{}: `{name}`: {reason}", path.display())]
    Read {
        /// The weights file.
        path: PathBuf,
        /// Canonical name of the tensor.
        name: String,
        /// Why.
        reason: String,
    },
    /// A weight is NaN or infinite.
    #[error(
        "{}: `{name}`: element {index} at {place:?} is {value}, expected finite weights; --allow-nonfinite takes them as they are",
        path.display()
    )]
    NonFinite {
        /// The weights file.
        path: PathBuf,
        /// Canonical name of the tensor.
        name: String,
        /// Row-major index of the first such element.
        index: usize,
        /// Its position along each axis.
        place: Vec<usize>,
        /// Its value.
        value: f32,
    },
}

/// The first problems of an index, one a line.
fn listed(problems: &[String]) -> String {
    const MOST: usize = 50;
    let mut text: String = problems.iter().take(MOST).map(|problem| format!("\n  {problem}")).collect();
    if problems.len() > MOST {
        text.push_str(&format!("\n  and {} more", problems.len() - MOST));
    }
    text
}

impl CheckpointError {
    fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        let reason = match error.kind() {
            std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            _ => error.to_string(),
        };
        CheckpointError::Unreadable { path: path.to_owned(), reason }
    }
}

impl Checkpoint {
    /// Opens a directory with `config.json` and safetensors weights (one file or a sharded index), or a path to the weights
    /// file or index itself. Reads headers only.
    ///
    /// # Errors
    /// Missing or unreadable files, headers that contradict themselves or the file's size, an index that does not fit its
    /// shards, an unknown dialect, a contradictory configuration, or tensors that do not fit it: each kind as one report.
    pub fn open(path: &Path, choice: &DialectChoice) -> Result<Self, CheckpointError> {
        Checkpoint::open_with(path, choice, Unexpected::Refused)
    }

    /// The same, with a choice of what happens to tensors that the model has not.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open_with(
        path: &Path,
        choice: &DialectChoice,
        unexpected: Unexpected,
    ) -> Result<Self, CheckpointError> {
        let located = locate::locate(path)?;
        let json = locate::read_json(&located.config, locate::MAX_CONFIG_BYTES)?;
        let (files, mut stored) = read_headers(&located)?;
        let mut notes = located.notes;
        let packed = packed::take(&files, &mut stored)
            .map_err(|reason| CheckpointError::Header { path: path.to_owned(), reason })?;
        let names = stored.keys().chain(packed.keys()).map(String::as_str);
        let dialect = dialect::choose(choice, &json, names)
            .map_err(|source| CheckpointError::Dialect { path: path.to_owned(), source })?;
        let mut parsed = dialect.read_config(&located.config.display().to_string(), &json)?;
        notes.extend(parsed.notes);
        matching::settle_biases(&mut parsed.config, &dialect, &stored);
        let found = matching::Found { stored: &stored, packed: &packed, unexpected };
        let tensors =
            matching::match_tensors(&parsed.config, &dialect, found, &mut notes).map_err(|mismatch| {
                CheckpointError::Mismatch { path: path.to_owned(), mismatch: Box::new(mismatch) }
            })?;
        let config_file =
            located.config.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Ok(Checkpoint {
            config: parsed.config,
            dialect,
            tensors,
            files,
            notes,
            sources: parsed.sources,
            config_file,
        })
    }

    /// What to say of packed tensors where they are written as the numbers that their codes stand for; `None` if there are
    /// none.
    #[must_use]
    pub fn decoded_note(&self) -> Option<String> {
        let packings = self.tensors.values().filter_map(|entry| entry.packing.as_ref());
        let mut names: Vec<&str> = packings.map(|packing| packing.format.name()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        let formats = names.join(" and ");
        (count > 0).then(|| {
            format!(
                "{count} tensors packed as {formats} are written as the numbers that their codes stand for, in the \
                 bundle's type: --dtype bf16 rounds them as the family's own code does"
            )
        })
    }

    /// Where a tensor's bytes stand, by canonical name; a tied `lm_head.weight` is `embed.weight`.
    ///
    /// # Errors
    /// The model has no tensor of that name.
    pub fn tensor(&self, name: &str) -> Result<&TensorEntry, CheckpointError> {
        let entry = self.tensors.get(resolve(&self.config, name));
        entry.ok_or_else(|| CheckpointError::NoTensor { name: name.to_owned() })
    }
}

/// Opens every weights file; tensors by native name.
fn read_headers(
    located: &locate::Located,
) -> Result<(Vec<WeightsFile>, BTreeMap<String, Stored>), CheckpointError> {
    let mut files = Vec::with_capacity(located.weights.len());
    let mut stored = BTreeMap::new();
    let mut problems = Vec::new();
    for (at, path) in located.weights.iter().enumerate() {
        let (file, header) = open_file(path)?;
        for (name, info) in header.tensors {
            let listed = located.index.as_ref().map(|(_, index)| index.get(&name).copied());
            problems.extend(shard_problem(&name, path, at, listed, stored.contains_key(&name)));
            let data_start = header.data_start;
            stored.insert(name, Stored { file: at, data_start, info });
        }
        files.push(file);
    }
    if let Some((path, index)) = &located.index {
        for (name, &at) in index.iter().filter(|(name, _)| !stored.contains_key(*name)) {
            let shard = shown(&located.weights[at]);
            problems.push(format!("`{name}` is listed in {shard} and not stored there"));
        }
        if !problems.is_empty() {
            return Err(CheckpointError::Index { path: path.clone(), problems });
        }
    }
    Ok((files, stored))
}

/// Opens a weights file and reads its header. A pipe or device is refused before it is opened: it could block for ever.
fn open_file(path: &Path) -> Result<(WeightsFile, header::Header), CheckpointError> {
    let unreadable = |error: std::io::Error| CheckpointError::unreadable(path, &error);
    if let Err(reason) = is_file_of_a_checkpoint(path) {
        return Err(CheckpointError::Unreadable { path: path.to_owned(), reason });
    }
    let handle = File::open(path).map_err(unreadable)?;
    let size_bytes = handle.metadata().map_err(unreadable)?.len();
    let header = header::read(&handle, size_bytes)
        .map_err(|reason| CheckpointError::Header { path: path.to_owned(), reason })?;
    Ok((
        WeightsFile { path: path.to_owned(), size_bytes, data_start_bytes: header.data_start, handle },
        header,
    ))
}

/// What is wrong with a tensor found in shard `at`, given the shard in which the index lists it.
fn shard_problem(
    name: &str,
    path: &Path,
    at: usize,
    listed: Option<Option<usize>>,
    seen: bool,
) -> Option<String> {
    let shard = shown(path);
    if seen {
        return Some(format!("`{name}` is stored in {shard} and in a shard before it"));
    }
    match listed {
        Some(None) => Some(format!("`{name}` is stored in {shard} and not listed")),
        Some(Some(expected)) if expected != at => {
            Some(format!("`{name}` is stored in {shard} and listed in another shard"))
        }
        _ => None,
    }
}

fn shown(path: &Path) -> String {
    path.file_name()
        .map_or_else(|| path.display().to_string(), |name| format!("`{}`", name.to_string_lossy()))
}
