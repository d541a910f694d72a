//! The smallest part of a graph that a vendor cannot build, as an ONNX model of its own. Owns what counts as the same
//! failure, and stops when its time is over.

use super::plan::{Planned, ports, profiles};
use super::{EngineError, EngineOptions};
use crate::bundle::BundleError;
use crate::engine::{BuildError, EngineBuilder, Order, findings};
use crate::export::onnx::{self, WeightLocation};
use crate::export::target::Target;
use crate::graph::{Graph, text};
use crate::ir::op::Op;
use crate::ir::shape::Type;
use crate::passes::reduce::reduce;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// File of zeros that stands for the weights of a reproducer. Its blocks are not stored.
const ZEROS: &str = "zeros.bin";

/// The smallest part found that fails alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reproducer {
    /// The ONNX model; the graph's text and zeros for its weights are beside it.
    pub onnx: PathBuf,
    /// Operations that remain, with their numbers.
    pub operations: BTreeMap<&'static str, usize>,
    /// Nodes of the graph.
    pub nodes_before: usize,
    /// Parts that were built.
    pub tried: usize,
    /// Whether every smaller part was tried; otherwise time was over.
    pub minimal: bool,
}

impl fmt::Display for Reproducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: usize = self.operations.values().sum();
        let operations: Vec<String> =
            self.operations.iter().map(|(name, count)| format!("{count} {name}")).collect();
        write!(
            f,
            "{}: {nodes} of {} nodes fail alike: {}",
            self.onnx.display(),
            self.nodes_before,
            operations.join(", ")
        )?;
        if self.minimal {
            Ok(())
        } else {
            write!(f, " (not the smallest: time was over after {} tries)", self.tried)
        }
    }
}

/// Shrinks the graph of `planned`, which fails as `kind`, and writes what remains to `folder`. `None` where the graph with
/// zeros for its weights does not fail so.
pub(super) fn reproduce(
    planned: &Planned,
    kind: &str,
    builder: &mut dyn EngineBuilder,
    options: &EngineOptions,
    folder: &Path,
) -> Result<Option<Reproducer>, EngineError> {
    let io = |path: &Path, action: &'static str| {
        let path = path.to_owned();
        move |source| BundleError::Io { path, action, source }
    };
    let scratch = tempfile::tempdir().map_err(io(folder, "make a temporary folder for"))?;
    let deadline = Instant::now() + options.reduce_for;
    let mut minimal = true;
    let mut fails = |graph: &Graph| -> Result<bool, EngineError> {
        if Instant::now() > deadline {
            minimal = false;
            return Ok(false);
        }
        let Some(onnx) =
            written(graph, planned.target, scratch.path()).map_err(io(scratch.path(), "write"))?
        else {
            return Ok(false);
        };
        let inputs = ports(graph);
        let profiles = profiles(&inputs, &planned.given, planned.usage, planned.limits);
        let sms = &options.sms;
        let order = Order { onnx: &onnx, sms, inputs: &inputs, profiles: &profiles, steps: Arc::new(|_| {}) };
        Ok(match builder.build(&order, &mut |_| Ok(())) {
            Ok(_) | Err(BuildError::Write(_)) => false,
            Err(error) => {
                let found = match &error {
                    BuildError::Refused { messages, .. } => findings(graph, messages),
                    _ => Vec::new(),
                };
                error.kind(&found) == kind
            }
        })
    };
    if !fails(&planned.graph)? {
        return Ok(None);
    }
    let reduction = reduce(&planned.graph, &mut fails)?;
    fs::create_dir_all(folder).map_err(io(folder, "create"))?;
    let Some(onnx) = written(&reduction.graph, planned.target, folder).map_err(io(folder, "write"))? else {
        return Ok(None);
    };
    let mut operations = BTreeMap::new();
    for id in reduction.graph.nodes() {
        *operations.entry(reduction.graph.op(id).kind().def().name).or_default() += 1;
    }
    let (nodes_before, tried) = (planned.graph.len(), reduction.tried);
    Ok(Some(Reproducer { onnx, operations, nodes_before, tried, minimal }))
}

/// Writes a graph as text and as ONNX with zeros for its weights; `None` where it has no ONNX form.
fn written(graph: &Graph, target: Target, folder: &Path) -> std::io::Result<Option<PathBuf>> {
    let mut zeros = Zeros::default();
    for id in graph.nodes() {
        match graph.op(id) {
            Op::Weight { name, ty } => {
                let Some(elements) = elements(ty) else { return Ok(None) };
                zeros.place(name, elements * ty.dtype.size_bytes());
            }
            Op::QuantizedWeight { name, ty, scheme } => {
                let (Some(elements), Some([rows, columns])) =
                    (elements(ty), ty.shape.as_const().as_deref().map(matrix))
                else {
                    return Ok(None);
                };
                let Some(scales) = scheme.scale_shape([rows, columns]) else { return Ok(None) };
                let key = scheme.key(name);
                zeros.place(&key, scheme.code_bytes(elements));
                zeros.place(&format!("{key}.scale"), 4 * scales.iter().product::<usize>());
            }
            _ => {}
        }
    }
    let Ok(verified) = graph.verify() else { return Ok(None) };
    let locate = |name: &str| zeros.places.get(name).cloned();
    let Ok(model) = onnx::export(verified, target, "", &locate) else { return Ok(None) };
    let path = folder.join(format!("{}.onnx", graph.name()));
    fs::write(&path, onnx::to_bytes(&model))?;
    fs::write(folder.join(format!("{}.pho", graph.name())), text::print(graph))?;
    File::create(folder.join(ZEROS))?.set_len(zeros.end)?;
    Ok(Some(path))
}

/// Where each weight would stand in a file of zeros, one after the other.
#[derive(Default)]
struct Zeros {
    places: HashMap<String, WeightLocation>,
    end: u64,
}

impl Zeros {
    fn place(&mut self, name: &str, bytes: usize) {
        let place =
            WeightLocation { file: ZEROS.to_owned(), offset_bytes: self.end, length_bytes: bytes as u64 };
        if self.places.insert(name.to_owned(), place).is_none() {
            self.end += bytes as u64;
        }
    }
}

fn elements(ty: &Type) -> Option<usize> {
    ty.shape.as_const().map(|sizes| sizes.iter().product())
}

/// Rows and columns; no matrix has none.
fn matrix(sizes: &[usize]) -> [usize; 2] {
    match sizes {
        [rows, columns] => [*rows, *columns],
        _ => [0, 0],
    }
}
