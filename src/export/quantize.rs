//! Writes the weights that graphs read in few bits: codes and scales in a file of their own, piece by piece. Owns the
//! order of that file and the measured error of each stack; refuses elements that are no numbers.

use super::{ExportError, arrange};
use crate::bundle::{BundleWriter, FileRecord, FileWriter, Layout, QuantizedRecord, WeightRecord};
use crate::graph::Graph;
use crate::ir::attr::Scheme;
use crate::ir::op::Op;
use crate::model::checkpoint::{Checkpoint, PIECE_BYTES, TensorEntry, extend_f32, first_nonfinite};
use crate::passes::quantize_weights::stack_of;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A matrix that graphs read in few bits, and for which stacks.
#[derive(Clone, Debug)]
struct Wanted {
    name: String,
    scheme: Scheme,
    stacks: BTreeSet<String>,
}

/// How far a stack's weights are from what they were.
#[derive(Clone, Debug, PartialEq)]
pub struct StackError {
    /// `level1.decoder`, `lm_head`.
    pub stack: String,
    /// How its weights are kept.
    pub scheme: Scheme,
    /// Matrices.
    pub weights: usize,
    /// Root of the summed squares of the differences over that of the elements.
    pub relative: f64,
}

/// What was written.
#[derive(Debug, Default)]
pub(super) struct Quantized {
    pub file: Option<FileRecord>,
    pub records: BTreeMap<String, QuantizedRecord>,
    pub errors: Vec<StackError>,
}

/// Squares of differences and of elements, summed.
#[derive(Clone, Copy, Debug, Default)]
struct Squares {
    difference: f64,
    whole: f64,
}

/// Weights that graphs read in few bits alone. One that no graph reads stays, as in the checkpoint.
pub(super) fn left_out<'g>(graphs: impl Iterator<Item = &'g Graph>) -> BTreeSet<String> {
    let (mut whole, mut coded) = (BTreeSet::new(), BTreeSet::new());
    for graph in graphs {
        for id in graph.nodes() {
            match graph.op(id) {
                Op::Weight { name, .. } => whole.insert(name.to_string()),
                Op::QuantizedWeight { name, .. } => coded.insert(name.to_string()),
                _ => false,
            };
        }
    }
    coded.difference(&whole).cloned().collect()
}

/// Writes what `graphs` read in few bits; nothing, if they read nothing so.
pub(super) fn write<'g>(
    writer: &BundleWriter,
    checkpoint: &Checkpoint,
    graphs: impl Iterator<Item = &'g Graph> + Clone,
    allow_nonfinite: bool,
) -> Result<Quantized, ExportError> {
    let wanted = wanted(graphs.clone());
    if wanted.is_empty() {
        return Ok(Quantized::default());
    }
    let runs = runs(&wanted, graphs);
    let relative = Layout::weights("quantized.safetensors");
    let mut out = writer.file(&relative)?;
    let (header, records) = place(checkpoint, &runs, &relative)?;
    out.write(&header)?;
    let mut sums: BTreeMap<(String, Scheme), (usize, Squares)> = BTreeMap::new();
    for run in &runs {
        let mut scales = Vec::new();
        for one in run {
            let squares = encode(checkpoint, one, allow_nonfinite, &mut out, &mut scales)?;
            for stack in &one.stacks {
                let (count, sum) = sums.entry((stack.clone(), one.scheme)).or_default();
                *count += 1;
                sum.difference += squares.difference;
                sum.whole += squares.whole;
            }
        }
        let scales: Vec<u8> = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
        out.write(&scales)?;
    }
    let errors = sums.into_iter().map(|((stack, scheme), (weights, sum))| StackError {
        stack,
        scheme,
        weights,
        relative: if sum.whole > 0.0 { (sum.difference / sum.whole).sqrt() } else { 0.0 },
    });
    Ok(Quantized { errors: errors.collect(), file: Some(out.finish()?), records })
}

fn wanted<'g>(graphs: impl Iterator<Item = &'g Graph>) -> Vec<Wanted> {
    let mut found: BTreeMap<(String, Scheme), BTreeSet<String>> = BTreeMap::new();
    for graph in graphs {
        for id in graph.nodes() {
            if let Op::QuantizedWeight { name, scheme, .. } = graph.op(id) {
                let stack = stack_of(graph.scope(id).as_str());
                found.entry((name.to_string(), *scheme)).or_default().insert(stack);
            }
        }
    }
    found.into_iter().map(|((name, scheme), stacks)| Wanted { name, scheme, stacks }).collect()
}

fn matrix(entry: &TensorEntry) -> [usize; 2] {
    match entry.shape[..] {
        [rows, columns] => [rows, columns],
        // Graphs were verified: what they read in few bits is a matrix.
        _ => [1, entry.elements()],
    }
}

/// Matrices that graphs read as one together, others alone, in the order of the file.
fn runs<'w, 'g>(
    wanted: &'w [Wanted],
    graphs: impl Iterator<Item = &'g Graph> + Clone,
) -> Vec<Vec<&'w Wanted>> {
    let mut all = Vec::new();
    for scheme in Scheme::ALL {
        let entries: Vec<(&str, &Wanted)> =
            wanted.iter().filter(|one| one.scheme == *scheme).map(|one| (one.name.as_str(), one)).collect();
        let runs = arrange::arrange(&entries, &arrange::joined(graphs.clone(), Some(*scheme)));
        all.extend(runs.into_iter().map(|run| run.into_iter().map(|(_, one)| one).collect()));
    }
    all
}

/// The header of the file, and where codes and scales of each matrix stand in it: codes of a run, then its scales.
fn place(
    checkpoint: &Checkpoint,
    runs: &[Vec<&Wanted>],
    file: &str,
) -> Result<(Vec<u8>, BTreeMap<String, QuantizedRecord>), ExportError> {
    let mut entries = Map::new();
    let mut records = BTreeMap::new();
    let mut end = 0u64;
    let mut part = |tensor: &str, stored: (&str, Vec<usize>), at: (&str, Vec<usize>), bytes: usize| {
        let start = end;
        end += bytes as u64;
        let entry = json!({"dtype": stored.0, "shape": stored.1, "data_offsets": [start, end]});
        entries.insert(tensor.to_owned(), entry);
        WeightRecord {
            file: file.to_owned(),
            tensor: tensor.to_owned(),
            dtype: at.0.to_owned(),
            shape: at.1,
            offset_bytes: start,
            length_bytes: bytes as u64,
        }
    };
    for run in runs {
        let mut coded = Vec::with_capacity(run.len());
        for one in run {
            let shape = matrix(checkpoint.tensor(&one.name)?);
            let (dtype, sizes) = one.scheme.stored_as(shape);
            let bytes = one.scheme.code_bytes(shape[0] * shape[1]);
            let key = one.scheme.key(&one.name);
            let codes = part(&key, (dtype, sizes.to_vec()), (one.scheme.name(), shape.to_vec()), bytes);
            coded.push((*one, shape, key, codes));
        }
        for (one, shape, key, codes) in coded {
            let sizes = one.scheme.scale_shape(shape).expect("invariant: codes have scales");
            let bytes = 4 * sizes.iter().product::<usize>();
            let scales = part(&format!("{key}.scale"), ("F32", sizes.clone()), ("f32", sizes), bytes);
            let (weight, scheme) = (one.name.clone(), one.scheme.name().to_owned());
            records.insert(key, QuantizedRecord { weight, scheme, codes, scales });
        }
    }
    let mut text = Value::Object(entries).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.append(&mut text);
    for record in records.values_mut() {
        record.codes.offset_bytes += header.len() as u64;
        record.scales.offset_bytes += header.len() as u64;
    }
    Ok((header, records))
}

/// Writes the codes of one matrix and appends its scales.
fn encode(
    checkpoint: &Checkpoint,
    one: &Wanted,
    allow_nonfinite: bool,
    out: &mut FileWriter,
    scales: &mut Vec<f32>,
) -> Result<Squares, ExportError> {
    let entry = checkpoint.tensor(&one.name)?.clone();
    let (scheme, group, size) = (one.scheme, one.scheme.group(matrix(&entry)), entry.dtype.size_bytes());
    if scheme == Scheme::Fp8 {
        scales.push(scheme.scale(largest(checkpoint, &one.name, &entry)?));
    }
    let piece_bytes = match scheme {
        Scheme::Fp8 => PIECE_BYTES,
        Scheme::Int8 | Scheme::Int4 => (PIECE_BYTES / (group * size).max(1)).max(1) * group * size,
    };
    let (mut values, mut codes, mut squares, mut before) = (Vec::new(), Vec::new(), Squares::default(), 0);
    checkpoint.for_each_piece(&one.name, piece_bytes, |bytes| -> Result<(), ExportError> {
        if let Some(at) = first_nonfinite(entry.dtype, bytes).filter(|_| !allow_nonfinite) {
            return Err(checkpoint.nonfinite(&one.name, &entry, before + at, bytes, at).into());
        }
        values.clear();
        codes.clear();
        extend_f32(entry.dtype, bytes, &mut values);
        before += values.len();
        for part in values.chunks(if scheme == Scheme::Fp8 { values.len() } else { group }.max(1)) {
            if scheme != Scheme::Fp8 {
                scales.push(scheme.scale(part.iter().fold(0f32, |most, value| most.max(value.abs()))));
            }
            let scale = scales.last().copied().unwrap_or(1.0);
            for value in part {
                let code = scheme.encode(*value, scale);
                squares.difference += (scheme.decode(code, scale) - f64::from(*value)).powi(2);
                squares.whole += f64::from(*value).powi(2);
                codes.push(code);
            }
        }
        if scheme == Scheme::Int4 {
            codes = codes.as_chunks::<2>().0.iter().map(|[low, high]| low | (high << 4)).collect();
        }
        Ok(out.write(&codes)?)
    })?;
    Ok(squares)
}

fn largest(checkpoint: &Checkpoint, name: &str, entry: &TensorEntry) -> Result<f32, ExportError> {
    let (mut most, mut values) = (0f32, Vec::new());
    checkpoint.for_each_piece(name, PIECE_BYTES, |bytes| -> Result<(), ExportError> {
        values.clear();
        extend_f32(entry.dtype, bytes, &mut values);
        most = values.iter().fold(most, |most, value| most.max(value.abs()));
        Ok(())
    })?;
    Ok(most)
}
