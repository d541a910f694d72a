//! The export of one checkpoint: compile, write weights, graphs and ONNX, then the manifest. Owns the order of the
//! work; the bundle appears whole or not at all.

use super::fill::{Contents, fill, folder_of};
use super::logit_error::{self, LogitError};
use super::onnx;
use super::options::ExportOptions;
use super::quantize::StackError;
use super::rules::{self, Refused};
use super::store;
use super::target::Target;
use crate::bundle::{BundleError, BundleWriter, Manifest};
use crate::graph::VerifyError;
use crate::graph::interp::InterpError;
use crate::ir::dtype::Dtype;
use crate::model::checkpoint::{Checkpoint, CheckpointError};
use crate::passes::choose_protocol::Protocol;
use crate::passes::compile::{Compilation, CompileError, PassOptions, compile_with};
use crate::passes::protocols;
use indexmap::IndexMap;
use std::collections::BTreeSet;

/// Cache bound where neither the caller nor the checkpoint states one, in tokens.
const DEFAULT_MAX_TOKENS: usize = 2048;

/// How far an export has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: &'static str,
    /// Source bytes done in this stage.
    pub done_bytes: u64,
    /// Source bytes of this stage; 0 where they do not measure it.
    pub total_bytes: u64,
}

/// What was exported.
#[derive(Clone, Debug)]
pub struct ExportReport {
    /// The bundle's manifest.
    pub manifest: Manifest,
    /// Nodes of each graph, by name.
    pub nodes: IndexMap<String, usize>,
    /// Stacks whose weights are kept in few bits, and how far they are from what they were.
    pub quantized: Vec<StackError>,
    /// How far logits are from those in f32, where precision or weights differ and the model is not too large.
    pub logits: Option<LogitError>,
    /// What the user may want to know.
    pub notes: Vec<String>,
}

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The bundle cannot be written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A protocol that the model does not define was asked for.
    #[error("{protocol} is not defined for this model: {reason}; export with --protocol hiergen")]
    Undefined {
        /// The protocol.
        protocol: Protocol,
        /// Why not.
        reason: String,
    },
    /// The caller's bound on tokens holds no meta-context.
    #[error("a maximum of {found} tokens holds no meta-context, which is {expected} tokens")]
    MaxTokens {
        /// What was asked for.
        found: usize,
        /// Tokens of a meta-context.
        expected: usize,
    },
    /// A weight that is infinite in the bundle's type.
    #[error(
        "weight `{name}`: element {index} is {value}, f16 holds at most 65504; export with --dtype bf16 or --dtype f32"
    )]
    TooLarge {
        /// Canonical name.
        name: String,
        /// Index of the element, row-major.
        index: usize,
        /// The element.
        value: f32,
    },
    /// The model does not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// A graph is not valid.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// A target refuses a place of a graph.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The model could not be run to measure its logits.
    #[error("measuring logits: {0}")]
    Measure(Box<InterpError>),
    /// A written model is not what it should be.
    #[error(transparent)]
    Check(#[from] onnx::CheckError),
    /// A graph has no ONNX form.
    #[error(transparent)]
    Onnx(#[from] onnx::ExportError),
}

/// Exports a checkpoint as a bundle. Peak memory does not grow with the weights.
///
/// # Errors
/// The checkpoint is damaged, a protocol is not defined for it, or the bundle cannot be written. What stood at
/// `options.out` is as it was.
pub fn export(
    options: &ExportOptions,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<ExportReport, ExportError> {
    export_with(options, PassOptions::at(options.opt_level), progress)
}

/// [`export`] with these passes, watched.
///
/// # Errors
/// As [`export`].
pub fn export_with(
    options: &ExportOptions,
    passes: PassOptions<'_>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<ExportReport, ExportError> {
    let stage = |stage| progress(Progress { stage, done_bytes: 0, total_bytes: 0 });
    stage("read checkpoint");
    let checkpoint = Checkpoint::open_with(&options.model, &options.dialect, options.unexpected)?;
    let mut notes = checkpoint.notes.clone();
    notes.extend(checkpoint.decoded_note());
    let protocols = protocols(&checkpoint, options, &mut notes)?;
    let max_tokens = max_tokens(&checkpoint, options)?;
    let targets = targets(&checkpoint, options, &mut notes);
    // Where nothing may be written, nothing should be computed first.
    let writer = BundleWriter::create(&options.out, options.force)?;
    stage("compile");
    let compilation = compile_with(
        &checkpoint.config,
        &protocols,
        PassOptions { precision: options.precision, quantized: options.quantized.clone(), ..passes },
    )?;
    // Nor should weights be written for a target that refuses the graphs.
    for graph in compilation.graphs.values() {
        let verified = graph.verify()?;
        targets.iter().try_for_each(|target| rules::check(verified, *target))?;
    }
    let narrowed = options.precision != Dtype::F32 || !options.quantized.is_empty();
    let logits = match compilation.graphs.get("score").filter(|_| narrowed) {
        Some(score) => {
            stage("measure logits");
            let measured = logit_error::measure(&checkpoint, score)?;
            if measured.is_none() {
                notes.push(
                    "the model is too large to measure its logits here; compare with `photonc score`"
                        .to_owned(),
                );
            }
            measured
        }
        None => None,
    };
    let contents = Contents {
        checkpoint: &checkpoint,
        graphs: &compilation.graphs,
        plans: &compilation.plans,
        precision: options.precision,
        targets: &targets,
        max_tokens,
        allow_nonfinite: options.allow_nonfinite,
        models: None,
        folders: vec![folder_of(&options.model)],
    };
    let (manifest, quantized) = fill(&writer, &contents, progress)?;
    notes.extend(kept_whole(&compilation));
    stage("commit");
    notes.extend(writer.commit(&manifest)?);
    let nodes = compilation.graphs.iter().map(|(name, graph)| (name.clone(), graph.len())).collect();
    Ok(ExportReport { manifest, nodes, quantized, logits, notes })
}

fn protocols(
    checkpoint: &Checkpoint,
    options: &ExportOptions,
    notes: &mut Vec<String>,
) -> Result<Vec<Protocol>, ExportError> {
    let config = &checkpoint.config;
    let check = |protocol: Protocol| {
        let undefined = |reason| ExportError::Undefined { protocol, reason };
        protocols::check(config, protocol).map_err(undefined)
    };
    match &options.protocols {
        Some(wanted) => {
            wanted.iter().try_for_each(|protocol| check(*protocol))?;
            Ok(wanted.clone())
        }
        None => {
            // A model of the paper's wiring has RecGen unless its widths forbid it.
            notes.extend(check(Protocol::Recgen).err().map(|error| error.to_string()));
            Ok(protocols::defined(config))
        }
    }
}

/// Whom models are written for.
fn targets(checkpoint: &Checkpoint, options: &ExportOptions, notes: &mut Vec<String>) -> Vec<Target> {
    if let Some(targets) = &options.targets {
        return targets.clone();
    }
    let own = checkpoint.tensors.values().filter(|entry| entry.packing.is_none()).map(|entry| entry.dtype);
    let narrow =
        own.map(|own| store::stored_as(options.precision, own)).find(|own| *own != options.precision);
    match narrow {
        None => vec![Target::Portable],
        Some(narrow) => {
            notes.push(format!(
                "weights stay {narrow}, as the checkpoint has them; no ONNX models are written, which would read a copy of them in {}: ask with --target portable",
                options.precision
            ));
            Vec::new()
        }
    }
}

fn max_tokens(checkpoint: &Checkpoint, options: &ExportOptions) -> Result<usize, ExportError> {
    let stated = checkpoint.config.max_position_embeddings;
    let stated = if stated == 0 { DEFAULT_MAX_TOKENS } else { stated };
    let meta = checkpoint.config.meta_tokens();
    match options.max_tokens {
        Some(found) if found < meta => Err(ExportError::MaxTokens { found, expected: meta }),
        Some(asked) => Ok(asked),
        None => Ok(stated.max(meta)),
    }
}

/// Maps of the chosen stacks that could not be quantised, each once with its reason.
fn kept_whole(compilation: &Compilation) -> BTreeSet<String> {
    let records = compilation.records.values().flatten();
    let declined = records.filter(|record| record.pass == "quantize-weights");
    let places = declined.flat_map(|record| &record.rewrites.declined);
    places.map(|place| format!("not quantised: {}: {}", place.at, place.reason)).collect()
}
