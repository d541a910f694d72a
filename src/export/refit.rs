//! New weights for a bundle. Owns the check that they are those of the same model; graphs, protocols and precision stay as
//! they are. The bundle is the old one or the new one, whole.

use super::assemble::{ExportError, Progress};
use super::fill::{Contents, fill, folder_of};
use super::target::Target;
use crate::bundle::{Bundle, BundleError, BundleWriter, Manifest};
use crate::engine::{EngineSet, Sets, sets};
use crate::graph::Graph;
use crate::model::checkpoint::{Checkpoint, CheckpointError, Unexpected};
use crate::model::config_json::config_json;
use crate::model::dialect::DialectChoice;
use indexmap::IndexMap;
use serde_json::Value;
use std::fmt;
use std::path::PathBuf;

/// Whose weights a bundle gets.
#[derive(Clone, Debug)]
pub struct RefitOptions {
    /// The bundle.
    pub bundle: PathBuf,
    /// The checkpoint: a directory or a safetensors file.
    pub weights: PathBuf,
    /// How the checkpoint names things.
    pub dialect: DialectChoice,
    /// What happens to tensors that the model has not.
    pub unexpected: Unexpected,
    /// Takes NaN and infinite weights as they are.
    pub allow_nonfinite: bool,
}

/// What a bundle got.
#[derive(Clone, Debug)]
pub struct RefitReport {
    /// The bundle's new manifest.
    pub manifest: Manifest,
    /// Engines that the bundle had, which hold the old weights and are gone.
    pub engines: Vec<EngineSet>,
    /// ONNX models that are the same as before, since weights stand where they stood.
    pub models_kept: usize,
    /// What the user may want to know.
    pub notes: Vec<String>,
}

/// A place where two models differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Path in the configuration: `levels[0].encoder.layers`.
    pub place: String,
    /// What the checkpoint has.
    pub found: String,
    /// What the bundle has.
    pub expected: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, the bundle has {}", self.place, self.found, self.expected)
    }
}

/// Why a bundle kept its weights.
#[derive(Debug, thiserror::Error)]
pub enum RefitError {
    /// The bundle cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint is of another model.
    #[error(
        "the weights are those of another model{}", .0.iter().map(|at| format!("\n  {at}")).collect::<String>()
    )]
    OtherModel(Vec<Difference>),
    /// The bundle says something that no export writes.
    #[error("{0}")]
    Unknown(String),
    /// The bundle could not be written.
    #[error(transparent)]
    Export(Box<ExportError>),
}

impl From<ExportError> for RefitError {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Checkpoint(error) => error.into(),
            ExportError::Bundle(error) => error.into(),
            other => RefitError::Export(Box::new(other)),
        }
    }
}

/// Replaces the weights of a bundle by those of a checkpoint of the same shapes. Graphs are not compiled again.
///
/// # Errors
/// A checkpoint that is damaged or of another model, or a bundle that cannot be written. The bundle is as it was.
pub fn refit(
    options: &RefitOptions,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<RefitReport, RefitError> {
    progress(Progress { stage: "read checkpoint", done_bytes: 0, total_bytes: 0 });
    // Its weights go.
    let bundle = Bundle::open_unverified(&options.bundle)?;
    let old = bundle.manifest();
    let checkpoint = Checkpoint::open_with(&options.weights, &options.dialect, options.unexpected)?;
    let mut differences = Vec::new();
    compare("", &config_json(&checkpoint.config), &old.model.config, &mut differences);
    if !differences.is_empty() {
        return Err(RefitError::OtherModel(differences));
    }
    let Sets { readable: engines, unreadable } = sets(&bundle);
    let graphs = graphs(&bundle)?;
    let unknown =
        |what: &str| RefitError::Unknown(format!("the bundle has {what}, which this photonc does not know"));
    let named =
        |name: &String| Target::from_name(name).ok_or_else(|| unknown(&format!("models for `{name}`")));
    let targets: Vec<Target> = old.onnx.keys().map(named).collect::<Result<_, _>>()?;
    let writer = BundleWriter::create(&options.bundle, true)?;
    let contents = Contents {
        checkpoint: &checkpoint,
        graphs: &graphs,
        plans: &old.protocols,
        precision: old.dtype(),
        targets: &targets,
        max_tokens: old.model.max_tokens,
        allow_nonfinite: options.allow_nonfinite,
        models: Some(&bundle),
        folders: vec![folder_of(&options.weights), options.bundle.clone()],
    };
    let (manifest, _) = fill(&writer, &contents, progress)?;
    let kept = |manifest: &Manifest| -> Vec<String> {
        let models = manifest.onnx.values().flat_map(|models| models.values());
        models.map(|model| model.blake3.to_string()).collect()
    };
    let models_kept = kept(&manifest).iter().zip(kept(old)).filter(|(new, old)| *new == old).count();
    progress(Progress { stage: "commit", done_bytes: 0, total_bytes: 0 });
    let mut notes = checkpoint.notes.clone();
    notes.extend(checkpoint.decoded_note());
    notes.extend(writer.commit(&manifest)?);
    notes.extend(unreadable.iter().map(|error| format!("engines are left out: {error}")));
    Ok(RefitReport { manifest, engines, models_kept, notes })
}

fn graphs(bundle: &Bundle) -> Result<IndexMap<String, Graph>, RefitError> {
    let mut graphs = IndexMap::new();
    for name in bundle.manifest().graphs.keys() {
        graphs.insert(name.clone(), bundle.parsed(name)?.clone());
    }
    Ok(graphs)
}

/// Where two configurations differ; the bound on tokens is the bundle's own.
fn compare(place: &str, found: &Value, expected: &Value, differences: &mut Vec<Difference>) {
    let inside = |key: &str| if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            let mut keys: Vec<&String> = found.keys().chain(expected.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys.into_iter().filter(|key| *key != "max_position_embeddings") {
                let value = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                compare(&inside(key), &value(found), &value(expected), differences);
            }
        }
        (Value::Array(found), Value::Array(expected)) if found.len() == expected.len() => {
            for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
                compare(&format!("{place}[{at}]"), found, expected, differences);
            }
        }
        (Value::Array(found), Value::Array(expected)) => differences.push(Difference {
            place: format!("the number of {place}"),
            found: found.len().to_string(),
            expected: expected.len().to_string(),
        }),
        _ if found != expected => differences.push(Difference {
            place: place.to_owned(),
            found: found.to_string(),
            expected: expected.to_string(),
        }),
        _ => {}
    }
}
