//! Weights rewritten as f32 in a stream. Owns the safetensors header it writes, the order of the tensors and the widening
//! of bf16 and f16; checks what it reads as it goes, and hashes it too, unless the order is another than the source's.

use super::BundleError;
use super::hash::{Blake3, PIECE_BYTES, hash_open};
use super::stream::{FileWriter, truncated};
use crate::ir::dtype::Dtype;
use half::slice::HalfFloatSliceExt as _;
use half::{bf16, f16};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// A tensor in a weights file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor {
    /// Name in the file.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Sizes of the axes.
    pub shape: Vec<usize>,
    /// Offset of the first byte in the file.
    pub offset_bytes: u64,
    /// Number of bytes.
    pub length_bytes: u64,
}

/// What a conversion read and wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// Hash of the whole source file.
    pub source: Blake3,
    /// The tensors where they stand in the new file, in the order given.
    pub tensors: Vec<StoredTensor>,
}

impl FileWriter {
    /// Writes `tensors` of a `source` of `size_bytes` bytes, in the order given, as an f32 safetensors file. What lies
    /// between them in the source is hashed with the rest of it but not written. Every piece of a tensor as stored goes
    /// through `check` with its offset in the source. In another order than the source's, the source is read twice.
    ///
    /// # Errors
    /// The source is shorter, the device fails, or `check` refuses.
    pub fn convert_to_f32(
        &mut self,
        source: &File,
        source_path: &Path,
        size_bytes: u64,
        tensors: &[StoredTensor],
        check: impl Fn(u64, &[u8]) -> Result<(), BundleError> + Sync,
    ) -> Result<Converted, BundleError> {
        let (header, placed) = header(tensors);
        self.write(&header)?;
        let mut hasher = blake3::Hasher::new();
        let in_order = tensors.is_sorted_by_key(|tensor| tensor.offset_bytes);
        let pieces = if in_order { pieces(size_bytes, tensors) } else { pieces_of(tensors) };
        let read = |index: usize, stored: &mut Vec<u8>| -> Result<(), BundleError> {
            let (_, offset, length) = pieces.get(index).copied().unwrap_or((None, 0, 0));
            stored.resize(length, 0);
            source.read_exact_at(stored, offset).map_err(|error| match error.kind() {
                std::io::ErrorKind::UnexpectedEof => truncated(source, source_path, offset + length as u64),
                _ => BundleError::io(source_path, "read")(error),
            })
        };
        // One core widens, hashes and writes a piece while the other hashes and checks it and reads the next.
        let (mut stored, mut next, mut wide) = (Vec::new(), Vec::new(), Vec::new());
        read(0, &mut stored)?;
        for (index, (dtype, offset, _)) in pieces.iter().enumerate() {
            let (written, examined) = rayon::join(
                || match dtype {
                    Some(dtype) => {
                        widen(*dtype, &stored, &mut wide);
                        self.write(&wide)
                    }
                    None => Ok(()),
                },
                || {
                    if in_order {
                        hasher.update(&stored);
                    }
                    if dtype.is_some() {
                        check(*offset, &stored)?;
                    }
                    read(index + 1, &mut next)
                },
            );
            written?;
            examined?;
            std::mem::swap(&mut stored, &mut next);
        }
        let source =
            if in_order { hasher.finalize().into() } else { hash_open(source, source_path, size_bytes)? };
        Ok(Converted { source, tensors: placed })
    }
}

/// Parts of the source in file order: pieces of tensors, and what lies around them (no type).
fn pieces(size_bytes: u64, tensors: &[StoredTensor]) -> Vec<(Option<Dtype>, u64, usize)> {
    let mut pieces = Vec::new();
    let mut end = 0;
    for tensor in tensors {
        pieces.extend(cut(None, end, tensor.offset_bytes.saturating_sub(end)));
        pieces.extend(cut(Some(tensor.dtype), tensor.offset_bytes, tensor.length_bytes));
        end = tensor.offset_bytes + tensor.length_bytes;
    }
    pieces.extend(cut(None, end, size_bytes.saturating_sub(end)));
    pieces
}

/// Pieces of the tensors alone, in the order given.
fn pieces_of(tensors: &[StoredTensor]) -> Vec<(Option<Dtype>, u64, usize)> {
    let cut = |tensor: &StoredTensor| cut(Some(tensor.dtype), tensor.offset_bytes, tensor.length_bytes);
    tensors.iter().flat_map(cut).collect()
}

/// `length` bytes from `start` in pieces. Widening doubles the bytes, so half a piece keeps the buffers bounded.
fn cut(dtype: Option<Dtype>, start: u64, length: u64) -> impl Iterator<Item = (Option<Dtype>, u64, usize)> {
    const LARGEST: usize = PIECE_BYTES / 2;
    (0..length.div_ceil(LARGEST as u64)).map(move |piece| {
        let done = piece * LARGEST as u64;
        (dtype, start + done, usize::try_from(length - done).unwrap_or(LARGEST).min(LARGEST))
    })
}

/// Header bytes of an f32 file, padded so that the data starts at a multiple of 8, and where each tensor stands.
fn header(tensors: &[StoredTensor]) -> (Vec<u8>, Vec<StoredTensor>) {
    let mut entries = Map::new();
    entries.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut placed = Vec::with_capacity(tensors.len());
    let mut end = 0u64;
    for tensor in tensors {
        let elements = tensor.length_bytes / tensor.dtype.size_bytes() as u64;
        let (start, length_bytes) = (end, elements * Dtype::F32.size_bytes() as u64);
        end += length_bytes;
        let entry = json!({"dtype": "F32", "shape": tensor.shape, "data_offsets": [start, end]});
        entries.insert(tensor.name.clone(), entry);
        placed.push(StoredTensor { dtype: Dtype::F32, offset_bytes: start, length_bytes, ..tensor.clone() });
    }
    let mut text = Value::Object(entries).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.append(&mut text);
    for tensor in &mut placed {
        tensor.offset_bytes += header.len() as u64;
    }
    (header, placed)
}

/// Little-endian f32 bytes of stored elements; every bf16 and f16 number is one exactly.
fn widen(dtype: Dtype, stored: &[u8], wide: &mut Vec<u8>) {
    const BLOCK: usize = 1024;
    wide.clear();
    match dtype {
        Dtype::F16 => {
            let (mut halves, mut floats) = ([f16::ZERO; BLOCK], [0f32; BLOCK]);
            for block in stored.as_chunks::<2>().0.chunks(BLOCK) {
                for (half, bytes) in halves.iter_mut().zip(block) {
                    *half = f16::from_le_bytes(*bytes);
                }
                halves[..block.len()].convert_to_f32_slice(&mut floats[..block.len()]);
                for float in &floats[..block.len()] {
                    wide.extend_from_slice(&float.to_le_bytes());
                }
            }
        }
        Dtype::Bf16 => {
            wide.resize(stored.len() * 2, 0);
            let floats = wide.as_chunks_mut::<4>().0;
            for (float, bytes) in floats.iter_mut().zip(stored.as_chunks::<2>().0) {
                *float = bf16::from_le_bytes(*bytes).to_f32().to_le_bytes();
            }
        }
        Dtype::F32 | Dtype::I64 | Dtype::Bool => wide.extend_from_slice(stored),
    }
}

#[cfg(test)]
mod tests {
    use super::{header, widen};
    use crate::bundle::StoredTensor;
    use crate::ir::dtype::Dtype;
    use half::{bf16, f16};

    #[test]
    fn widening_is_exact() {
        let values = [1.5f32, -0.0, 65504.0, 2f32.powi(-14)];
        let expected: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut wide = Vec::new();
        let stored: Vec<u8> = values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
        widen(Dtype::F16, &stored, &mut wide);
        assert_eq!(wide, expected);
        let values = [1.5f32, -0.0, 2f32.powi(100)];
        let expected: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let stored: Vec<u8> = values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect();
        widen(Dtype::Bf16, &stored, &mut wide);
        assert_eq!(wide, expected);
    }

    #[test]
    fn the_header_is_read_back_by_safetensors() {
        let tensor = |name: &str, offset_bytes, length_bytes| StoredTensor {
            name: name.to_owned(),
            dtype: Dtype::Bf16,
            shape: vec![2, usize::try_from(length_bytes / 4).expect("small")],
            offset_bytes,
            length_bytes,
        };
        let (mut bytes, placed) = header(&[tensor("a", 100, 8), tensor("b", 108, 16)]);
        assert_eq!(placed[0].offset_bytes % 8, 0);
        bytes.resize(bytes.len() + 48, 0);
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("reads back");
        assert_eq!(file.tensor("b").expect("is there").shape(), [2, 4]);
        assert_eq!(placed[1].offset_bytes, placed[0].offset_bytes + 16);
    }
}
