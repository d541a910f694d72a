//! Which files a checkpoint consists of. Owns the search in a directory and the sharded index; opens no weights file and
//! follows no index entry out of the checkpoint's directory.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use indexmap::IndexMap;
use serde_json::Value;

use super::{CheckpointError, recognise};

/// Longest configuration read, in bytes.
pub(super) const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// Longest index read, in bytes.
const MAX_INDEX_BYTES: u64 = 16 << 20;
/// Names of the configuration, first that is there.
const CONFIGS: [&str; 2] = ["config.json", "model_config.json"];
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The files of a checkpoint.
#[derive(Debug)]
pub(super) struct Located {
    pub config: PathBuf,
    pub weights: Vec<PathBuf>,
    /// The sharded index: where it stands, and the position in `weights` for every tensor it lists.
    pub index: Option<(PathBuf, IndexMap<String, usize>)>,
    pub notes: Vec<String>,
}

/// Finds the configuration and the weights of a directory, or of a path to a weights file or index inside it.
///
/// # Errors
/// No configuration or weights, several candidates, or an index that cannot be followed (all its faults in one report).
pub(super) fn locate(path: &Path) -> Result<Located, CheckpointError> {
    let meta = std::fs::metadata(path).map_err(|error| CheckpointError::unreadable(path, &error))?;
    let mut notes = Vec::new();
    let (directory, weights) = if meta.is_dir() {
        if let Some(what) = recognise::cache_root(path) {
            return Err(CheckpointError::NotFound { path: path.to_owned(), what });
        }
        (path.to_owned(), weights_in(path, &mut notes)?)
    } else {
        (parent(path), path.to_owned())
    };
    let found = CONFIGS.iter().map(|name| directory.join(name));
    let Some(config) = found.into_iter().find(|path| path.symlink_metadata().is_ok()) else {
        let beside = if meta.is_dir() { "beside the weights" } else { "beside it" };
        let what = format!("no {} {beside}", CONFIGS.join(" or "));
        return Err(CheckpointError::NotFound { path: path.to_owned(), what });
    };
    is_file(&config)?;
    if weights.extension().is_some_and(|extension| extension == "json") {
        let (files, tensors) = read_index(&directory, &weights)?;
        return Ok(Located { config, weights: files, index: Some((weights, tensors)), notes });
    }
    Ok(Located { config, weights: vec![weights], index: None, notes })
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn weights_in(directory: &Path, notes: &mut Vec<String>) -> Result<PathBuf, CheckpointError> {
    let (single, index) = (directory.join(SINGLE), directory.join(INDEX));
    if single.symlink_metadata().is_ok() {
        is_file(&single)?;
        if index.is_file() {
            notes.push(format!("{SINGLE} is read; {INDEX} beside it is ignored"));
        }
        return Ok(single);
    }
    if index.symlink_metadata().is_ok() {
        is_file(&index)?;
        return Ok(index);
    }
    let mut found = Vec::new();
    for entry in
        std::fs::read_dir(directory).map_err(|error| CheckpointError::unreadable(directory, &error))?
    {
        let candidate = entry.map_err(|error| CheckpointError::unreadable(directory, &error))?.path();
        if candidate.extension().is_some_and(|extension| extension == "safetensors") && candidate.is_file() {
            found.push(candidate);
        }
    }
    found.sort_unstable();
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => {
            let nothing = || format!("no {SINGLE}, {INDEX} or other *.safetensors file");
            let what = recognise::foreign_folder(directory).unwrap_or_else(nothing);
            Err(CheckpointError::NotFound { path: directory.to_owned(), what })
        }
        several => {
            let names: Vec<String> = several
                .iter()
                .filter_map(|file| file.file_name())
                .map(|name| format!("`{}`", name.to_string_lossy()))
                .collect();
            let what =
                format!("several weights files and no {INDEX}: {}; name one of them", names.join(", "));
            Err(CheckpointError::NotFound { path: directory.to_owned(), what })
        }
    }
}

/// Whether a part of a checkpoint can be read.
fn is_file(path: &Path) -> Result<(), CheckpointError> {
    let unreadable = |reason| CheckpointError::Unreadable { path: path.to_owned(), reason };
    recognise::is_file_of_a_checkpoint(path).map_err(unreadable)
}

/// Reads a JSON file of at most `most_bytes` bytes.
pub(super) fn read_json(path: &Path, most_bytes: u64) -> Result<Value, CheckpointError> {
    let bad = |reason: String| CheckpointError::Unreadable { path: path.to_owned(), reason };
    let file = File::open(path).map_err(|error| CheckpointError::unreadable(path, &error))?;
    let mut text = Vec::new();
    file.take(most_bytes + 1)
        .read_to_end(&mut text)
        .map_err(|error| CheckpointError::unreadable(path, &error))?;
    if text.len() as u64 > most_bytes {
        return Err(bad(format!("longer than {most_bytes} bytes")));
    }
    photonc_bundle::json::parse(&text).map_err(|error| bad(format!("not JSON: {error}")))
}

fn read_index(
    directory: &Path,
    path: &Path,
) -> Result<(Vec<PathBuf>, IndexMap<String, usize>), CheckpointError> {
    let json = read_json(path, MAX_INDEX_BYTES)?;
    let mut problems = Vec::new();
    let mut shards: IndexMap<String, PathBuf> = IndexMap::new();
    let mut tensors = IndexMap::new();
    match json.get("weight_map") {
        Some(Value::Object(map)) => {
            for (tensor, shard) in map {
                let Some(shard) = shard.as_str() else {
                    problems.push(format!("`{tensor}`: found {shard}, expected the name of a shard"));
                    continue;
                };
                if !shards.contains_key(shard) {
                    shards.insert(shard.to_owned(), directory.join(shard));
                    problems.extend(shard_problem(directory, shard));
                }
                tensors.extend(shards.get_index_of(shard).map(|at| (tensor.clone(), at)));
            }
            if map.is_empty() {
                problems.push("`weight_map` lists no tensor".into());
            }
        }
        Some(_) => problems.push("`weight_map` is no object".into()),
        None => problems.push("`weight_map` is missing".into()),
    }
    if problems.is_empty() {
        Ok((shards.into_values().collect(), tensors))
    } else {
        Err(CheckpointError::Index { path: path.to_owned(), problems })
    }
}

fn shard_problem(directory: &Path, shard: &str) -> Option<String> {
    let inside =
        !shard.is_empty() && Path::new(shard).components().all(|part| matches!(part, Component::Normal(_)));
    if !inside {
        return Some(format!("shard `{shard}` leads out of the checkpoint's directory"));
    }
    (!directory.join(shard).is_file()).then(|| format!("shard `{shard}` is not there"))
}
