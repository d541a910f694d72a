//! Making a subject of what is on disk. Owns the reading: graphs of a bundle are parsed and verified again, a checkpoint
//! or a bare configuration is compiled; weights are hashed only where asked.

use super::subject::{StoredWeight, Subject};
use crate::model::checkpoint::{Checkpoint, CheckpointError, PIECE_BYTES};
use crate::model::config::ModelConfig;
use crate::model::dialect::{self, ConfigError, DialectError};
use crate::model::parameter_table::{ParameterTable, grouped};
use crate::model::parameters::{Parameter, parameters};
use crate::passes::choose_protocol::Protocol;
use crate::passes::compile::{Compilation, CompileError, compile};
use crate::passes::protocols;
use indexmap::IndexMap;
use photonc_bundle::bundle::{Bundle, BundleError, Layout};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Longest sequence where the model states none, in tokens; as an export takes it.
const DEFAULT_MAX_TOKENS: usize = 2048;

/// Why something cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The bundle cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The model does not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The configuration in a manifest is none.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A manifest's configuration is that of another model.
    #[error("{}: `model.config` describes {message}", path.display())]
    Differs {
        /// The manifest.
        path: PathBuf,
        /// What it describes, and what is there.
        message: String,
    },
    /// A dialect that is built in does not parse.
    #[error(transparent)]
    Dialect(#[from] DialectError),
}

/// What to call what stands at a path: the name of its folder.
#[must_use]
pub fn subject_title(path: &Path) -> String {
    let name =
        path.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    name.unwrap_or_else(|| path.display().to_string())
}

/// The configuration of a bundle's model. A manifest has the canonical form, whatever dialect the checkpoint had.
///
/// # Errors
/// It has not, or describes other weights than there are.
pub fn config_of(bundle: &Bundle) -> Result<ModelConfig, SourceError> {
    let dialects = dialect::built_in()?;
    let canonical = dialects.first().expect("invariant: the canonical dialect is the first that is built in");
    let manifest = bundle.manifest();
    let config = canonical.read_config(Layout::MANIFEST, &manifest.model.config)?.config;
    let differs =
        |message: String| SourceError::Differs { path: bundle.root().join(Layout::MANIFEST), message };
    let meta_tokens = config.levels.iter().map(|level| level.chunk_size).product::<usize>();
    if (config.vocab_size, meta_tokens) != (manifest.model.vocab_size, manifest.model.meta_tokens) {
        return Err(differs(format!(
            "a vocabulary of {} and {meta_tokens} tokens in a meta-context, its graphs have {} and {}",
            config.vocab_size, manifest.model.vocab_size, manifest.model.meta_tokens
        )));
    }
    let codes = manifest.quantized.values().map(|record| (record.weight.as_str(), &record.codes.shape));
    let whole = manifest.weights.iter().map(|(name, record)| (name.as_str(), &record.shape));
    let stored: BTreeMap<&str, &Vec<usize>> = codes.chain(whole).collect();
    let described = parameters(&config);
    let mut left: BTreeSet<&str> = stored.keys().copied().collect();
    for parameter in &described {
        left.remove(parameter.name.as_str());
        match stored.get(parameter.name.as_str()) {
            Some(shape) if **shape == parameter.shape => {}
            found => {
                let found = found.map_or("none".to_owned(), |shape| format!("one of {shape:?}"));
                let Parameter { name, shape, .. } = parameter;
                return Err(differs(format!("a weight `{name}` of {shape:?}, the bundle has {found}")));
            }
        }
    }
    match left.first() {
        Some(name) => Err(differs(format!("no weight `{name}`, the bundle has one"))),
        None => Ok(config),
    }
}

/// Every protocol that a model defines, RecGen first.
#[must_use]
pub fn protocols(config: &ModelConfig) -> Vec<Protocol> {
    protocols::defined(config)
}

impl Subject {
    /// A configuration, compiled; without weights.
    ///
    /// # Errors
    /// It does not compile.
    pub fn of_config(title: &str, config: &ModelConfig) -> Result<Self, SourceError> {
        Ok(Subject::of_compilation(title, config, compile(config, &protocols(config))?))
    }

    /// A compiled configuration.
    #[must_use]
    pub fn of_compilation(title: &str, config: &ModelConfig, compilation: Compilation) -> Self {
        let stated = config.max_position_embeddings;
        let max_tokens = if stated == 0 { DEFAULT_MAX_TOKENS } else { stated.max(config.meta_tokens()) };
        let facts = [
            ("levels", config.depth().to_string()),
            ("tokens in a meta-context", config.meta_tokens().to_string()),
            ("vocabulary", grouped(config.vocab_size)),
            ("parameters", grouped(ParameterTable::new(config).total)),
            ("longest sequence, tokens", max_tokens.to_string()),
        ];
        Subject {
            title: title.to_owned(),
            facts: facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            meta_tokens: config.meta_tokens(),
            max_tokens,
            plans: compilation.plans,
            graphs: compilation.graphs,
            weights: BTreeMap::new(),
        }
    }

    /// A checkpoint and what it compiled to; its weights hashed if asked, which reads all of them.
    ///
    /// # Errors
    /// Its weights cannot be read.
    pub fn of_checkpoint(
        title: &str,
        checkpoint: &Checkpoint,
        compilation: Compilation,
        hash_weights: bool,
    ) -> Result<Self, SourceError> {
        let mut subject = Subject::of_compilation(title, &checkpoint.config, compilation);
        subject.facts.insert("dialect".to_owned(), checkpoint.dialect.name.clone());
        for (name, entry) in &checkpoint.tensors {
            let mut hasher = blake3::Hasher::new();
            if hash_weights {
                checkpoint.for_each_piece(name, PIECE_BYTES, |piece| {
                    hasher.update(piece);
                    Ok::<_, CheckpointError>(())
                })?;
            }
            let weight = StoredWeight {
                ty: format!("{}{:?}", entry.dtype, entry.shape),
                blake3: hash_weights.then(|| hasher.finalize().to_hex().to_string()),
            };
            subject.weights.insert(name.clone(), weight);
        }
        Ok(subject)
    }

    /// A bundle, its graphs verified again; its weights hashed if asked, which reads all of them.
    ///
    /// # Errors
    /// A file is missing, damaged or no graph.
    pub fn of_bundle(title: &str, bundle: &Bundle, hash_weights: bool) -> Result<Self, SourceError> {
        let manifest = bundle.manifest();
        let mut graphs = IndexMap::new();
        for name in manifest.graphs.keys() {
            graphs.insert(name.clone(), bundle.parsed(name)?.clone());
        }
        let facts = [
            ("bundle format", format!("{} by photonc {}", manifest.format, manifest.photonc)),
            ("dialect", manifest.source.dialect.clone()),
            ("precision", manifest.precision.clone()),
            ("tokens in a meta-context", manifest.model.meta_tokens.to_string()),
            ("vocabulary", grouped(manifest.model.vocab_size)),
            ("longest sequence, tokens", manifest.model.max_tokens.to_string()),
        ];
        Ok(Subject {
            title: title.to_owned(),
            facts: facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            meta_tokens: manifest.model.meta_tokens,
            max_tokens: manifest.model.max_tokens,
            plans: manifest.protocols.clone(),
            graphs,
            weights: bundle_weights(bundle, hash_weights)?,
        })
    }
}

fn bundle_weights(bundle: &Bundle, hash: bool) -> Result<BTreeMap<String, StoredWeight>, SourceError> {
    let mut weights = BTreeMap::new();
    for (name, record) in &bundle.manifest().weights {
        let ty = format!("{}{:?}", record.dtype, record.shape);
        let blake3 = match hash {
            true => {
                let mut hasher = blake3::Hasher::new();
                bundle.weight_pieces(name, PIECE_BYTES, &mut |_, piece| {
                    hasher.update(piece);
                    Ok(())
                })?;
                Some(hasher.finalize().to_hex().to_string())
            }
            false => None,
        };
        weights.insert(name.clone(), StoredWeight { ty, blake3 });
    }
    Ok(weights)
}
