//! Values that other code made of given tokens, from a safetensors file. Owns which tensors it must have and the bound on its
//! size.

use super::error::Error;
use crate::ir::dtype::Dtype;
use crate::ir::tensor::Tensor;
use crate::model::checkpoint::{extend_f32, is_file_of_a_checkpoint};
use crate::model::config::ModelConfig;
use safetensors::{SafeTensors, tensor::TensorView};
use std::collections::BTreeMap;
use std::path::Path;

/// Name of the tensor of tokens.
const IDS: &str = "ids";
/// Name of the tensor that every file has.
pub(super) const LOGITS: &str = "logits";
/// Largest file read, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 30;

/// Values of `rows` texts of `tokens` tokens each.
pub(super) struct Expected {
    pub rows: usize,
    pub tokens: usize,
    /// `[rows, tokens]`.
    pub ids: Vec<i64>,
    /// By name, `[rows, ..]` or of a single text without that axis.
    pub values: BTreeMap<String, Tensor>,
}

/// Reads a file for a model.
///
/// # Errors
/// It is no safetensors file, lacks `ids` or `logits`, or they do not fit the model.
pub(super) fn read(path: &Path, config: &ModelConfig) -> Result<Expected, Error> {
    let refused = |reason: String| Error::refused(format!("{}: {reason}", path.display()));
    is_file_of_a_checkpoint(path).map_err(refused)?;
    let bytes = std::fs::metadata(path).map_err(|error| refused(error.to_string()))?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(refused(format!("{bytes} bytes, at most {MAX_FILE_BYTES} are read")));
    }
    let bytes = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
    let file =
        SafeTensors::deserialize(&bytes).map_err(|error| refused(format!("no safetensors file: {error}")))?;
    let mut values = BTreeMap::new();
    let mut ids = None;
    for (name, view) in file.iter() {
        match name {
            IDS => ids = Some((view.shape().to_vec(), ints(&view).map_err(refused)?)),
            _ => drop(values.insert(name.to_owned(), floats(name, &view).map_err(refused)?)),
        }
    }
    let (shape, ids) = ids.ok_or_else(|| refused(format!("no tensor `{IDS}`: the tokens, i32 or i64")))?;
    let (rows, tokens) = match shape[..] {
        [tokens] => (1, tokens),
        [rows, tokens] => (rows, tokens),
        _ => return Err(refused(format!("`{IDS}` has the shape {shape:?}, expected [n] or [rows, n]"))),
    };
    if rows == 0 || tokens == 0 {
        return Err(refused(format!("`{IDS}` has the shape {shape:?}, expected some tokens")));
    }
    let known = |id: &i64| usize::try_from(*id).is_ok_and(|id| id < config.vocab_size);
    if let Some(id) = ids.iter().find(|id| !known(id)) {
        return Err(refused(format!("`{IDS}` has {id}, the vocabulary is {}", config.vocab_size)));
    }
    let logits = values.get(LOGITS).ok_or_else(|| refused(format!("no tensor `{LOGITS}`")))?;
    let wanted = rows.saturating_mul(tokens).saturating_mul(config.vocab_size);
    if logits.shape.iter().product::<usize>() != wanted {
        return Err(refused(format!(
            "`{LOGITS}` has the shape {:?}, expected {rows} x {tokens} tokens x {} of the vocabulary",
            logits.shape, config.vocab_size
        )));
    }
    Ok(Expected { rows, tokens, ids, values })
}

fn ints(view: &TensorView<'_>) -> Result<Vec<i64>, String> {
    let data = view.data();
    match view.dtype() {
        safetensors::Dtype::I32 => {
            Ok(data.as_chunks::<4>().0.iter().map(|&word| i64::from(i32::from_le_bytes(word))).collect())
        }
        safetensors::Dtype::I64 => {
            Ok(data.as_chunks::<8>().0.iter().map(|&word| i64::from_le_bytes(word)).collect())
        }
        other => Err(format!("`{IDS}` is {other:?}, expected I32 or I64")),
    }
}

fn floats(name: &str, view: &TensorView<'_>) -> Result<Tensor, String> {
    let values: Vec<f64> = match view.dtype() {
        safetensors::Dtype::F64 => {
            view.data().as_chunks::<8>().0.iter().map(|&word| f64::from_le_bytes(word)).collect()
        }
        dtype => {
            let dtype = match dtype {
                safetensors::Dtype::F32 => Dtype::F32,
                safetensors::Dtype::F16 => Dtype::F16,
                safetensors::Dtype::BF16 => Dtype::Bf16,
                other => return Err(format!("`{name}` is {other:?}, expected F32, F64, F16 or BF16")),
            };
            let mut values = Vec::new();
            extend_f32(dtype, view.data(), &mut values);
            values.into_iter().map(f64::from).collect()
        }
    };
    Tensor::floats(view.shape(), values).ok_or_else(|| format!("`{name}` has another number of elements"))
}
