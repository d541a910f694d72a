//! Headers of the weights files of a bundle: which tensor stands where. Owns the bound on their length; reads no weights.

use super::error::BundleError;
use super::folder::OpenFile;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// Bytes before a header: its length as a little-endian 64-bit number.
const LENGTH_BYTES: u64 = 8;
/// Longest header that is read, in bytes.
const MAX_HEADER_BYTES: u64 = 16 << 20;

/// Tensors of a file by their names in it.
pub(super) type Tensors = BTreeMap<String, Placed>;

/// Where a tensor stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Placed {
    /// Element type as the format spells it: `F32`, `BF16`, ...
    pub dtype: String,
    pub shape: Vec<usize>,
    /// Offset of the first byte in the file.
    pub offset_bytes: u64,
    pub length_bytes: u64,
}

/// An entry of a header; offsets count from its end.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// The tensors of a weights file.
///
/// # Errors
/// It is no safetensors file.
pub(super) fn read(file: &OpenFile) -> Result<Tensors, BundleError> {
    let broken = |message: String| BundleError::Differs { path: file.path.clone(), message };
    let mut length = [0; LENGTH_BYTES as usize];
    file.read_at(&mut length, 0)?;
    let length = u64::from_le_bytes(length);
    let most = file.size_bytes().saturating_sub(LENGTH_BYTES).min(MAX_HEADER_BYTES);
    let Some(bytes) = usize::try_from(length).ok().filter(|_| length <= most) else {
        return Err(broken(format!("its header claims {length} bytes, at most {most} can be one")));
    };
    let mut text = vec![0; bytes];
    file.read_at(&mut text, LENGTH_BYTES)?;
    let mut json = serde_json::Deserializer::from_slice(&text);
    let entries = json.deserialize_map(Entries).map_err(|error| broken(format!("broken header: {error}")))?;
    let start = LENGTH_BYTES + length;
    let placed = entries.into_iter().map(|(name, entry)| {
        let (from, to) = entry.data_offsets;
        let offset = start.checked_add(from).filter(|_| from <= to);
        let end = start.checked_add(to).filter(|end| *end <= file.size_bytes());
        let (Some(offset_bytes), Some(_)) = (offset, end) else {
            return Err(broken(format!(
                "broken header: `{name}` at bytes {from}..{to} is not inside the file"
            )));
        };
        let Entry { dtype, shape, .. } = entry;
        Ok((name, Placed { dtype, shape, offset_bytes, length_bytes: to - from }))
    });
    placed.collect()
}

/// The entries of a header, without its metadata.
struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<(String, Entry)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<Option<BTreeMap<String, String>>>()?;
            } else {
                entries.push((name, map.next_value()?));
            }
        }
        Ok(entries)
    }
}
