//! Random checkpoints in canonical format, for tests and benchmarks. Owns their layout and the atomic writing; peak memory
//! is one piece per thread, whatever the model's size, and bytes do not depend on the number of threads.

mod noise;

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use serde_json::{Map, Value, json};

use crate::model::config::ModelConfig;
use crate::model::config_json::config_json;
use crate::model::parameters::{Parameter, parameters};
use crate::model::validate::{self, Problem};
use noise::Noise;
use photonc_bundle::staging::{Site, Staging, StagingError, undisturbed};
use photonc_graph::ir::dtype::Dtype;

/// Names of the files of a synthesised checkpoint; the first comes last into a folder and makes it whole.
const FILES: [&str; 2] = ["config.json", "model.safetensors"];

/// Bytes of one piece, the unit of work of a thread.
const PIECE_BYTES: u64 = 1 << 20;

/// Why no checkpoint was written; but for [`SynthError::NotDurable`] nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum SynthError {
    /// The configuration describes no model.
    #[error("the configuration contradicts itself{}", problems.iter().map(|problem| format!("\n  {problem}")).collect::<String>())]
    Config {
        /// Every contradiction.
        problems: Vec<Problem>,
    },
    /// Weights of that type are not written.
    #[error("weights of type {dtype} cannot be synthesised, expected f32, f16 or bf16")]
    Dtype {
        /// The type asked for.
        dtype: Dtype,
    },
    /// Something else stands at the target.
    #[error("{}: exists and is not an empty directory; name another one or remove it", path.display())]
    Exists {
        /// The target.
        path: PathBuf,
    },
    /// Writing failed.
    #[error("{}: {source}", path.display())]
    Write {
        /// The target.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The checkpoint is there, and the system could not make that durable.
    #[error("{}: is in its place, but a power failure may undo that: {source}", path.display())]
    NotDurable {
        /// The target.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Synthesised {
    /// Bytes of the weights file.
    pub weights_bytes: u64,
    /// What could not be removed of the checkpoint that was replaced and of interrupted runs.
    pub notes: Vec<String>,
}

/// Writes `config.json` and `model.safetensors` with random weights into `directory`, which must not exist or be empty;
/// returns the bytes of the weights file. The same configuration, type and seed give the same bytes. `progress` is called
/// from several threads with the bytes written and their total.
///
/// Weights: linear maps with deviation `1 / sqrt(fan-in)`, embeddings and start latents with 1 (a tied table
/// `1 / sqrt(width)`), biases with 0.02, norms `1 +- 0.1`: states stay of order 1 and logits vary.
///
/// # Errors
/// A contradictory configuration, a type that holds no weights, a target that exists, or a failed write (a full disk);
/// whatever was begun is removed.
pub fn synth(
    config: &ModelConfig,
    dtype: Dtype,
    seed: u64,
    directory: &Path,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<u64, SynthError> {
    synth_over(config, dtype, seed, directory, false, progress).map(|written| written.weights_bytes)
}

/// As [`synth`]; `replace` allows a directory with the files of an earlier one, and nothing else, to be there.
///
/// # Errors
/// As [`synth`].
pub fn synth_over(
    config: &ModelConfig,
    dtype: Dtype,
    seed: u64,
    directory: &Path,
    replace: bool,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Synthesised, SynthError> {
    let problems = validate::problems(config);
    if !problems.is_empty() {
        return Err(SynthError::Config { problems });
    }
    if !dtype.is_float() {
        return Err(SynthError::Dtype { dtype });
    }
    let failed = |source: std::io::Error| SynthError::Write { path: directory.to_owned(), source };
    let staged = |error: StagingError| match error {
        StagingError::Exists { .. } => SynthError::Exists { path: directory.to_owned() },
        StagingError::NoName { .. } => failed(ErrorKind::IsADirectory.into()),
        StagingError::Io { source, .. } => failed(source),
        StagingError::NotDurable { path, source } => SynthError::NotDurable { path, source },
    };
    let site = Site::of(directory, FILES[0]).map_err(staged)?;
    if site.path().parent().is_some_and(|parent| parent != Path::new("") && !parent.is_dir()) {
        return Err(failed(ErrorKind::NotFound.into()));
    }
    match site.contents() {
        Ok(names) => {
            let ours = |name: &std::ffi::OsString| replace && FILES.iter().any(|file| name == file);
            if !names.unwrap_or_default().iter().all(ours) {
                return Err(SynthError::Exists { path: directory.to_owned() });
            }
        }
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            return Err(SynthError::Exists { path: directory.to_owned() });
        }
        Err(error) => return Err(failed(error)),
    }
    let staging = Staging::create(site, replace).map_err(staged)?;
    write_config(config, &staging.directory().join(FILES[0])).map_err(failed)?;
    let weights = staging.directory().join(FILES[1]);
    let weights_bytes = write_weights(config, dtype, seed, &weights, progress).map_err(failed)?;
    let notes = staging.publish().map_err(staged)?;
    Ok(Synthesised { weights_bytes, notes })
}

fn write_config(config: &ModelConfig, path: &Path) -> std::io::Result<()> {
    let mut text = serde_json::to_string_pretty(&config_json(config))?;
    text.push('\n');
    let mut file = undisturbed(|| File::create(path))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// A run of elements of one tensor and its place in the file.
struct Piece {
    noise: Noise,
    first_element: u64,
    offset_bytes: u64,
    length_bytes: u64,
}

fn write_weights(
    config: &ModelConfig,
    dtype: Dtype,
    seed: u64,
    path: &Path,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> std::io::Result<u64> {
    let list = parameters(config);
    let header = header(&list, dtype)?;
    let pieces = pieces(config, &list, dtype, seed, header.len() as u64);
    let total: u64 = pieces.iter().map(|piece| piece.length_bytes).sum();
    let file = undisturbed(|| File::create(path))?;
    file.write_all_at(&header, 0)?;
    let done = AtomicU64::new(0);
    pieces.par_iter().try_for_each_init(Vec::new, |buffer: &mut Vec<u8>, piece| {
        buffer.resize(usize::try_from(piece.length_bytes).map_err(std::io::Error::other)?, 0);
        piece.noise.fill(piece.first_element, dtype, buffer);
        file.write_all_at(buffer, piece.offset_bytes)?;
        let before = done.fetch_add(piece.length_bytes, Ordering::Relaxed);
        progress(before + piece.length_bytes, total);
        Ok::<(), std::io::Error>(())
    })?;
    file.sync_all()?;
    Ok(header.len() as u64 + total)
}

/// Length and text of a safetensors header; padded so that the data starts at a multiple of 8.
fn header(list: &[Parameter], dtype: Dtype) -> std::io::Result<Vec<u8>> {
    let mut map = Map::new();
    map.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut end = 0u64;
    for parameter in list {
        let start = end;
        end += parameter.elements() as u64 * dtype.size_bytes() as u64;
        let name = dtype.name().to_uppercase();
        let entry = json!({"dtype": name, "shape": parameter.shape, "data_offsets": [start, end]});
        map.insert(parameter.name.clone(), entry);
    }
    let mut text = serde_json::to_vec(&Value::Object(map))?;
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.append(&mut text);
    Ok(header)
}

fn pieces(config: &ModelConfig, list: &[Parameter], dtype: Dtype, seed: u64, data_start: u64) -> Vec<Piece> {
    let element_bytes = dtype.size_bytes() as u64;
    let mut pieces = Vec::new();
    let mut offset_bytes = data_start;
    for parameter in list {
        let (mean, deviation) = distribution(config, parameter);
        let noise = Noise::new(seed, &parameter.name, mean, deviation);
        let bytes = parameter.elements() as u64 * element_bytes;
        let mut done = 0;
        while done < bytes {
            let length_bytes = PIECE_BYTES.min(bytes - done);
            pieces.push(Piece {
                noise,
                first_element: done / element_bytes,
                offset_bytes: offset_bytes + done,
                length_bytes,
            });
            done += length_bytes;
        }
        offset_bytes += bytes;
    }
    pieces
}

/// Mean and standard deviation of a tensor's elements.
fn distribution(config: &ModelConfig, parameter: &Parameter) -> (f64, f64) {
    let name = parameter.name.as_str();
    if name.ends_with("norm.weight") || name.contains(".residual.") {
        return (1.0, 0.1);
    }
    if name.ends_with(".bias") {
        return (0.0, 0.02);
    }
    let is_table = name == "decoder_embed.weight" || (name == "embed.weight" && !config.tied_head);
    if is_table || name.ends_with(".start") {
        return (0.0, 1.0);
    }
    // A linear map is `[out, in]`, a convolutional converter `[in, out, R]`.
    let fan_in = match parameter.shape.as_slice() {
        // Experts are `[E, in, out]`; a kernel along rows is `[channels, 1, rows]`.
        [_, inputs, _] if name.contains(".experts.") || name.contains(".rows.") => *inputs,
        [_, 1, rows] => *rows,
        [_, inputs] | [inputs, _, _] => *inputs,
        _ => 1,
    };
    (0.0, 1.0 / (fan_in as f64).sqrt())
}
