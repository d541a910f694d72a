//! Stored tensors against the tensors a model has. Owns the report of everything that does not fit; reads no weights.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use indexmap::IndexMap;
use safetensors::tensor::TensorInfo;

use super::packed::PackedTensor;
use super::{TensorEntry, Unexpected};
use crate::model::config::ModelConfig;
use crate::model::dialect::{Dialect, Part};
use crate::model::parameters::{Parameter, parameters, resolve};
use photonc_graph::ir::dtype::Dtype;

/// Missing tensors that get a nearest name: a suggestion for each of thousands would only slow the report.
const MAX_SUGGESTIONS: usize = 100;
/// Unexpected names that each suggestion is sought among.
const MAX_CANDIDATES: usize = 5_000;
/// Least similarity of a suggestion.
const SIMILAR: f64 = 0.6;

/// One stored tensor, as its file's header describes it.
#[derive(Debug)]
pub(super) struct Stored {
    pub file: usize,
    pub data_start: u64,
    pub info: TensorInfo,
}

/// Everything that does not fit between a checkpoint and its configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// Dialect by which names were read.
    pub dialect: String,
    /// Tensors the model has and the checkpoint has not.
    pub missing: Vec<String>,
    /// Stored tensors that the model has not.
    pub unexpected: Vec<String>,
    /// Stored tensors of another shape or type than the model's.
    pub misshaped: Vec<String>,
    /// Whether unexpected tensors are all that is wrong, so that `--ignore-unexpected` accepts the checkpoint.
    pub acceptable: bool,
}

/// Tensors of each kind of fault listed at most.
const MAX_LISTED: usize = 50;

impl Mismatch {
    fn count(&self) -> usize {
        self.missing.len() + self.unexpected.len() + self.misshaped.len()
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (missing, unexpected, misshaped) =
            (self.missing.len(), self.unexpected.len(), self.misshaped.len());
        write!(
            f,
            "the tensors do not fit config.json (dialect {}): {missing} missing, {unexpected} unexpected, {misshaped} of wrong shape or type",
            self.dialect
        )?;
        let kinds = [("missing ", &self.missing), ("unexpected ", &self.unexpected), ("", &self.misshaped)];
        for (kind, lines) in kinds {
            for line in lines.iter().take(MAX_LISTED) {
                write!(f, "\n  {kind}{line}")?;
            }
            if lines.len() > MAX_LISTED {
                write!(f, "\n  {kind}and {} more", lines.len() - MAX_LISTED)?;
            }
        }
        if self.acceptable {
            write!(f, "\n  --ignore-unexpected takes the model without the unexpected tensors")?;
        }
        Ok(())
    }
}

/// A router without a bias in the file has none: where no layer of a stack has one, the configuration says so.
pub(super) fn settle_biases(config: &mut ModelConfig, dialect: &Dialect, stored: &BTreeMap<String, Stored>) {
    let names: Vec<String> = parameters(config).into_iter().map(|parameter| parameter.name).collect();
    let tied = tied_depth(config);
    let is_stored =
        |name: &String| dialect.native_name_of(name, tied).is_some_and(|native| stored.contains_key(&native));
    let tensors: Vec<usize> = (1..=config.depth()).map(|l| config.tensors_of(l)).collect();
    for (level, tensors) in config.levels.iter_mut().zip(tensors) {
        for (part, stack) in [("encoder", &mut level.encoder), ("decoder", &mut level.decoder)] {
            let prefix = format!("levels.{tensors}.{part}.");
            let mut biases =
                names.iter().filter(|name| name.starts_with(&prefix) && name.ends_with(".router.bias"));
            if let Some(experts) = &mut stack.options.experts {
                experts.bias = biases.any(is_stored);
            }
        }
    }
}

/// The depth of a model whose middle levels share their tensors.
fn tied_depth(config: &ModelConfig) -> Option<usize> {
    config.wiring.tied_middle.then(|| config.depth())
}

/// What the files hold, by native name.
#[derive(Clone, Copy)]
pub(super) struct Found<'a> {
    pub stored: &'a BTreeMap<String, Stored>,
    pub packed: &'a BTreeMap<String, PackedTensor>,
    pub unexpected: Unexpected,
}

/// Finds every tensor of the model among the stored ones, by native name; canonical order.
///
/// # Errors
/// One report of every missing, unexpected and mis-shaped tensor.
pub(super) fn match_tensors(
    config: &ModelConfig,
    dialect: &Dialect,
    found: Found<'_>,
    notes: &mut Vec<String>,
) -> Result<IndexMap<String, TensorEntry>, Mismatch> {
    let Found { stored, packed, .. } = found;
    let mut mismatch = Mismatch { dialect: dialect.name.clone(), ..Mismatch::default() };
    let mut entries = IndexMap::new();
    let mut expected = BTreeSet::new();
    let mut missing: Vec<(Parameter, String)> = Vec::new();
    for parameter in parameters(config) {
        let Some(native) = dialect.native_name_of(&parameter.name, tied_depth(config)) else {
            mismatch
                .missing
                .push(format!("`{}`: dialect {} has no name for it", parameter.name, dialect.name));
            continue;
        };
        expected.insert(native.clone());
        match stored.get(&native) {
            None => match packed.get(&native).map(|tensor| packed_entry(&parameter, &native, tensor)) {
                None => missing.push((parameter, native)),
                Some(Ok(entry)) => drop(entries.insert(parameter.name, entry)),
                Some(Err(line)) => mismatch.misshaped.push(line),
            },
            Some(found) => match entry(&parameter, &native, found, dialect.part_of(&parameter.name)) {
                Ok(entry) => drop(entries.insert(parameter.name, entry)),
                Err(line) => mismatch.misshaped.push(line),
            },
        }
    }
    if config.tied_head || config.wiring.tied_decoder_head {
        tied_head(config, dialect, stored, &mut expected, &mut mismatch, notes);
    }
    let others = stored.keys().chain(packed.keys()).filter(|name| !expected.contains(*name));
    let (left_over, unexpected): (Vec<&String>, Vec<&String>) =
        others.partition(|name| dialect.ignores(name));
    if !left_over.is_empty() {
        let (count, dialect) = (left_over.len(), &dialect.name);
        notes.push(format!(
            "{count} stored tensors that dialect {dialect} knows to be no weights were ignored"
        ));
    }
    for (at, (parameter, native)) in missing.iter().enumerate() {
        let near = if at < MAX_SUGGESTIONS { nearest(native, &unexpected) } else { None };
        mismatch.missing.push(missing_line(parameter, native, near));
    }
    if found.unexpected == Unexpected::Ignored {
        notes.extend(
            unexpected.iter().map(|name| format!("`{name}` is no tensor of the model and was ignored")),
        );
    } else {
        mismatch.unexpected.extend(unexpected.iter().map(|name| match stored.get(*name) {
            Some(found) => format!("`{name}`: {}", described(&found.info)),
            None => format!("`{name}`: packed"),
        }));
        if !mismatch.unexpected.is_empty() && mismatch.missing.is_empty() && mismatch.misshaped.is_empty() {
            mismatch.acceptable = true;
        }
    }
    if mismatch.count() == 0 { Ok(entries) } else { Err(mismatch) }
}

fn packed_entry(parameter: &Parameter, native: &str, tensor: &PackedTensor) -> Result<TensorEntry, String> {
    if tensor.shape != parameter.shape {
        return Err(format!(
            "`{native}`: found packed {:?}, expected {:?} ({})",
            tensor.shape,
            parameter.shape,
            parameter.axes.join(", ")
        ));
    }
    let (file, offset_bytes, length_bytes) = tensor.packing.place();
    Ok(TensorEntry {
        file,
        native: native.to_owned(),
        dtype: Dtype::F32,
        shape: parameter.shape.clone(),
        offset_bytes,
        length_bytes,
        part: None,
        packing: Some(tensor.packing.clone()),
    })
}

/// A tied head stored a second time is ignored, but one of another shape contradicts the tie.
fn tied_head(
    config: &ModelConfig,
    dialect: &Dialect,
    stored: &BTreeMap<String, Stored>,
    expected: &mut BTreeSet<String>,
    mismatch: &mut Mismatch,
    notes: &mut Vec<String>,
) {
    let Some(native) = dialect.native_name("lm_head.weight") else {
        return;
    };
    let table = resolve(config, "lm_head.weight");
    if let Some(found) = stored.get(&native) {
        let width = if config.tied_head { config.embed_dim } else { config.level(1).decoder_dim };
        let shape = [config.vocab_size, width];
        if found.info.shape == shape {
            notes.push(format!(
                "`{native}` is stored beside the table it is tied to (`{table}`) and was ignored"
            ));
        } else {
            mismatch.misshaped.push(format!(
                "`{native}`: found {}, expected {shape:?} (tied to `{table}`)",
                described(&found.info)
            ));
        }
    }
    expected.insert(native);
}

fn entry(
    parameter: &Parameter,
    native: &str,
    found: &Stored,
    part: Option<Part>,
) -> Result<TensorEntry, String> {
    let dtype = match found.info.dtype {
        safetensors::Dtype::F32 => Some(Dtype::F32),
        safetensors::Dtype::F16 => Some(Dtype::F16),
        safetensors::Dtype::BF16 => Some(Dtype::Bf16),
        _ => None,
    };
    let described = described(&found.info);
    let Part { index, count } = part.unwrap_or(Part { index: 0, count: 1 });
    let mut expected = parameter.shape.clone();
    if let Some(rows) = expected.first_mut() {
        *rows = rows.saturating_mul(count);
    }
    if found.info.shape != expected {
        let parts = if count > 1 { format!("{count} of ") } else { String::new() };
        let axes = parameter.axes.join(", ");
        return Err(format!("`{native}`: found {described}, expected {expected:?} ({parts}{axes})"));
    }
    let dtype =
        dtype.ok_or_else(|| format!("`{native}`: found {described}, expected type f32, f16 or bf16"))?;
    let (from, to) = found.info.data_offsets;
    Ok(TensorEntry {
        file: found.file,
        native: native.to_owned(),
        dtype,
        shape: parameter.shape.clone(),
        offset_bytes: found.data_start + from as u64 + (index * ((to - from) / count)) as u64,
        length_bytes: ((to - from) / count) as u64,
        part,
        packing: None,
    })
}

/// Type and shape as graph text writes them: `f32[1664, 416]`.
fn described(info: &TensorInfo) -> String {
    format!("{}{:?}", format!("{:?}", info.dtype).to_lowercase(), info.shape)
}

fn missing_line(parameter: &Parameter, native: &str, near: Option<&String>) -> String {
    let canonical = if native == parameter.name { String::new() } else { format!(" (`{}`)", parameter.name) };
    let near = near.map_or_else(String::new, |near| format!("; did you mean the stored `{near}`"));
    format!("`{native}`{canonical}: expected {:?} ({}){near}", parameter.shape, parameter.axes.join(", "))
}

fn nearest<'a>(name: &str, candidates: &[&'a String]) -> Option<&'a String> {
    let scored = candidates
        .iter()
        .take(MAX_CANDIDATES)
        .map(|candidate| (strsim::normalized_levenshtein(name, candidate), *candidate));
    let best = scored.fold(None, |best: Option<(f64, &String)>, next| match best {
        Some((score, _)) if score >= next.0 => best,
        _ => Some(next),
    });
    best.filter(|(score, _)| *score >= SIMILAR).map(|(_, candidate)| candidate)
}
