//! The header of one safetensors file. Owns its validation against the file's real size; reads nothing but the header,
//! in one bounded read, and trusts no number in it.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use std::collections::BTreeMap;

/// Bytes before the header: its length as a little-endian 64-bit number.
const LENGTH_BYTES: u64 = 8;
/// Longest header read, in bytes: that of 100 000 tensors, the most that a model may have.
const MAX_HEADER_BYTES: u64 = 16 << 20;

/// The tensors of one file.
#[derive(Debug)]
pub(super) struct Header {
    /// Offset of the first tensor's bytes in the file.
    pub data_start: u64,
    /// Tensors by offset; their offsets count from `data_start`.
    pub tensors: Vec<(String, TensorInfo)>,
}

/// Reads and checks the header of a file of `size_bytes` bytes.
///
/// # Errors
/// Says in one sentence what is wrong with the file; the caller names it.
pub(super) fn read(file: &File, size_bytes: u64) -> Result<Header, String> {
    if size_bytes < LENGTH_BYTES {
        return Err(format!(
            "not a safetensors file: {size_bytes} bytes, a header needs at least {LENGTH_BYTES}"
        ));
    }
    let mut length = [0u8; 8];
    file.read_exact_at(&mut length, 0).map_err(|error| error.to_string())?;
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes > size_bytes - LENGTH_BYTES {
        return Err(format!(
            "truncated or not a safetensors file: the header claims {header_bytes} bytes, the file has {} after its length",
            size_bytes - LENGTH_BYTES
        ));
    }
    if header_bytes > MAX_HEADER_BYTES {
        return Err(format!("the header claims {header_bytes} bytes, at most {MAX_HEADER_BYTES} are read"));
    }
    let mut text = vec![0u8; usize::try_from(header_bytes).map_err(|error| error.to_string())?];
    file.read_exact_at(&mut text, LENGTH_BYTES).map_err(|error| error.to_string())?;
    let data_start = LENGTH_BYTES + header_bytes;
    let tensors = parse(&text, size_bytes - data_start)?;
    Ok(Header { data_start, tensors })
}

/// Parses a header and checks that its tensors fill exactly `data_bytes` bytes, without gap or overlap.
fn parse(text: &[u8], data_bytes: u64) -> Result<Vec<(String, TensorInfo)>, String> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let mut tensors = json.deserialize_map(Entries).map_err(|error| format!("broken header: {error}"))?;
    json.end().map_err(|error| format!("broken header: {error}"))?;
    tensors.sort_by(|(left_name, left), (right_name, right)| {
        left.data_offsets.cmp(&right.data_offsets).then_with(|| left_name.cmp(right_name))
    });
    let mut end = 0;
    let mut before = "the header";
    for (name, info) in &tensors {
        let (from, to) = info.data_offsets;
        if from < end {
            return Err(format!(
                "broken header: `{name}` at bytes {from}..{to} overlaps `{before}`, which ends at {end}"
            ));
        }
        if from > end {
            return Err(format!(
                "broken header: bytes {end}..{from} between `{before}` and `{name}` belong to no tensor"
            ));
        }
        check_length(name, info)?;
        end = to;
        before = name;
    }
    let end = end as u64;
    if end > data_bytes {
        return Err(format!(
            "truncated: the tensors need {end} bytes, the file has {data_bytes} after its header"
        ));
    }
    if end < data_bytes {
        return Err(format!(
            "broken header: {} bytes after the last tensor belong to no tensor",
            data_bytes - end
        ));
    }
    let check = Metadata::new(None, tensors.clone());
    check.map_err(|error| format!("broken header: {error}"))?;
    Ok(tensors)
}

fn check_length(name: &str, info: &TensorInfo) -> Result<(), String> {
    let (from, to) = info.data_offsets;
    if to < from {
        return Err(format!("broken header: `{name}` ends at byte {to}, before its start {from}"));
    }
    let elements = info.shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
    let bits = elements.and_then(|elements| elements.checked_mul(info.dtype.bitsize()));
    match bits {
        Some(bits) if bits.is_multiple_of(8) && bits / 8 == to - from => Ok(()),
        Some(bits) => Err(format!(
            "broken header: `{name}` of shape {:?} and type {:?} needs {} bytes, its offsets {from}..{to} span {}",
            info.shape,
            info.dtype,
            bits.div_ceil(8),
            to - from
        )),
        None => Err(format!("broken header: `{name}` of shape {:?} is larger than any file", info.shape)),
    }
}

/// What the format says of a tensor, and no more: whoever writes another key means something that is not read here.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

/// Collects the entries of a header in file order. A repeated name is an error here: a map would keep only the last.
struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<(String, TensorInfo)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        let mut names = std::collections::BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                let metadata = map.next_value::<Option<BTreeMap<String, String>>>();
                metadata.map_err(|error| serde::de::Error::custom(format!("`{name}`: {error}")))?;
                continue;
            }
            let entry: Entry =
                map.next_value().map_err(|error| serde::de::Error::custom(format!("`{name}`: {error}")))?;
            let Entry { dtype, shape, data_offsets } = entry;
            let info = TensorInfo { dtype, shape, data_offsets };
            if !names.insert(name.clone()) {
                return Err(serde::de::Error::custom(format!("`{name}` stands there twice")));
            }
            entries.push((name, info));
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str, data_bytes: u64) -> String {
        parse(text.as_bytes(), data_bytes).expect_err("a lying header")
    }

    fn two(a: &str, b: &str) -> String {
        format!(
            r#"{{"a":{{"dtype":"F32","shape":[2],"data_offsets":{a}}},"b":{{"dtype":"F32","shape":[2],"data_offsets":{b}}}}}"#
        )
    }

    #[test]
    fn a_sound_header_lists_tensors_by_offset() {
        let tensors = parse(two("[8,16]", "[0,8]").as_bytes(), 16).expect("sound");
        let names: Vec<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["b", "a"]);
    }

    #[test]
    fn lies_are_named() {
        assert_eq!(
            message(&two("[0,8]", "[4,12]"), 12),
            "broken header: `b` at bytes 4..12 overlaps `a`, which ends at 8"
        );
        assert_eq!(
            message(&two("[0,8]", "[0,8]"), 8),
            "broken header: `b` at bytes 0..8 overlaps `a`, which ends at 8"
        );
        assert_eq!(
            message(&two("[0,8]", "[12,20]"), 20),
            "broken header: bytes 8..12 between `a` and `b` belong to no tensor"
        );
        assert_eq!(
            message(&two("[0,8]", "[8,16]"), 15),
            "truncated: the tensors need 16 bytes, the file has 15 after its header"
        );
        assert_eq!(
            message(&two("[0,8]", "[8,16]"), 17),
            "broken header: 1 bytes after the last tensor belong to no tensor"
        );
        assert!(message(&two("[0,8]", "[8,20]"), 20).contains("needs 8 bytes, its offsets 8..20 span 12"));
        assert!(message(&two("[0,8]", "[8,4]"), 20).contains("before its start"));
    }

    #[test]
    fn absurd_shapes_and_repeated_names_are_errors() {
        let huge = r#"{"a":{"dtype":"F32","shape":[18446744073709551615,9],"data_offsets":[0,8]}}"#;
        assert!(message(huge, 8).contains("larger than any file"));
        let twice = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
        assert!(message(twice, 8).contains("`a` stands there twice"));
        assert!(message("[]", 0).contains("an object of tensors"));
    }

    // Nobody reads them here, so that whoever wrote them meant something else.
    #[test]
    fn what_the_format_does_not_have_is_refused() {
        let more = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"scale":2}}"#;
        assert!(message(more, 4).contains("`a`: unknown field `scale`"), "{}", message(more, 4));
        for metadata in ["[1]", r#"{"a": [[]]}"#, r#"{"a": 1}"#] {
            let text = format!(r#"{{"__metadata__":{metadata}}}"#);
            assert!(message(&text, 0).contains("`__metadata__`: invalid type"), "{}", message(&text, 0));
        }
        assert!(parse(br#"{"__metadata__":{"format":"pt"}}"#, 0).is_ok());
    }
}
