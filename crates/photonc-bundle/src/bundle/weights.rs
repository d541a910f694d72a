//! Weights rewritten as another float type, or in another order, in a stream. Owns the safetensors header it writes and
//! the conversion of elements; checks what it reads as it goes, and hashes it too, unless the order is another than the
//! source's.

use super::BundleError;
use super::hash::{Blake3, PIECE_BYTES, hash_open};
use super::stream::{FileWriter, truncated};
use half::slice::HalfFloatSliceExt as _;
use half::{bf16, f16};
use photonc_graph::ir::dtype::Dtype;
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
    /// Writes the header of a safetensors file that holds `tensors` in the order given, each in the type that `becomes` makes
    /// of its own; where each stands. Their elements are to be appended.
    ///
    /// # Errors
    /// The device fails.
    pub fn place(
        &mut self,
        becomes: impl Fn(Dtype) -> Dtype,
        tensors: &[StoredTensor],
    ) -> Result<Vec<StoredTensor>, BundleError> {
        let (header, placed) = header(becomes, tensors);
        self.write(&header)?;
        Ok(placed)
    }

    /// Appends elements of type `from` as such of type `to`. Widening is exact, narrowing rounds to nearest, ties to even.
    ///
    /// # Errors
    /// The device fails.
    pub fn append(&mut self, from: Dtype, to: Dtype, stored: &[u8]) -> Result<(), BundleError> {
        let mut made = Vec::new();
        convert(from, to, stored, &mut made);
        self.write(&made)
    }

    /// Writes `tensors` of a `source` of `size_bytes` bytes, in the order given, as a safetensors file, each in the type that
    /// `becomes` makes of its own. What lies between them in the source is hashed with the rest of it but not written. Every piece of a tensor as
    /// stored goes through `check` with its offset in the source. In another order than the source's, the source is read
    /// twice.
    ///
    /// # Errors
    /// The source is shorter, the device fails, or `check` refuses.
    pub fn convert_to(
        &mut self,
        becomes: impl Fn(Dtype) -> Dtype + Sync,
        source: &File,
        source_path: &Path,
        size_bytes: u64,
        tensors: &[StoredTensor],
        check: impl Fn(u64, &[u8]) -> Result<(), BundleError> + Sync,
    ) -> Result<Converted, BundleError> {
        let placed = self.place(&becomes, tensors)?;
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
        // One core converts, hashes and writes a piece while the other hashes and checks it and reads the next.
        let (mut stored, mut next, mut made) = (Vec::new(), Vec::new(), Vec::new());
        read(0, &mut stored)?;
        for (index, (from, offset, _)) in pieces.iter().enumerate() {
            let (written, examined) = rayon::join(
                || match from {
                    Some(from) => {
                        convert(*from, becomes(*from), &stored, &mut made);
                        self.write(&made)
                    }
                    None => Ok(()),
                },
                || {
                    if in_order {
                        hasher.update(&stored);
                    }
                    if from.is_some() {
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

/// Header bytes of a file of tensors in the types that theirs become, padded so that the data starts at a multiple of 8, and where each tensor stands.
fn header(becomes: impl Fn(Dtype) -> Dtype, tensors: &[StoredTensor]) -> (Vec<u8>, Vec<StoredTensor>) {
    let mut entries = Map::new();
    entries.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut placed = Vec::with_capacity(tensors.len());
    let mut end = 0u64;
    for tensor in tensors {
        let dtype = becomes(tensor.dtype);
        let elements = tensor.length_bytes / tensor.dtype.size_bytes() as u64;
        let (start, length_bytes) = (end, elements * dtype.size_bytes() as u64);
        end += length_bytes;
        let entry = json!({"dtype": dtype.name().to_uppercase(), "shape": tensor.shape, "data_offsets": [start, end]});
        entries.insert(tensor.name.clone(), entry);
        placed.push(StoredTensor { dtype, offset_bytes: start, length_bytes, ..tensor.clone() });
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

/// Little-endian bytes of type `to` of stored elements of type `from`. Widening is exact, narrowing rounds to nearest,
/// ties to even.
fn convert(from: Dtype, to: Dtype, stored: &[u8], made: &mut Vec<u8>) {
    const BLOCK: usize = 1024;
    made.clear();
    if from == to {
        return made.extend_from_slice(stored);
    }
    let mut floats = [0f32; BLOCK];
    for block in stored.chunks(BLOCK * from.size_bytes()) {
        let count = block.len() / from.size_bytes();
        let floats = &mut floats[..count];
        read_floats(from, block, floats);
        write_floats(to, floats, made);
    }
}

fn read_floats(from: Dtype, bytes: &[u8], floats: &mut [f32]) {
    match from {
        Dtype::F16 => halves(bytes).convert_to_f32_slice(floats),
        Dtype::Bf16 => {
            for (float, bytes) in floats.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *float = bf16::from_le_bytes(*bytes).to_f32();
            }
        }
        Dtype::F32 | Dtype::I64 | Dtype::Bool => {
            for (float, bytes) in floats.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *float = f32::from_le_bytes(*bytes);
            }
        }
    }
}

fn halves(bytes: &[u8]) -> Vec<f16> {
    bytes.as_chunks::<2>().0.iter().map(|bytes| f16::from_le_bytes(*bytes)).collect()
}

fn write_floats(to: Dtype, floats: &[f32], made: &mut Vec<u8>) {
    match to {
        Dtype::F16 => {
            let mut halves = vec![f16::ZERO; floats.len()];
            halves.convert_from_f32_slice(floats);
            made.extend(halves.iter().flat_map(|half| half.to_le_bytes()));
        }
        Dtype::Bf16 => made.extend(floats.iter().flat_map(|float| bf16::from_f32(*float).to_le_bytes())),
        Dtype::F32 | Dtype::I64 | Dtype::Bool => {
            made.extend(floats.iter().flat_map(|float| float.to_le_bytes()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{convert, header};
    use crate::bundle::StoredTensor;
    use half::{bf16, f16};
    use photonc_graph::ir::dtype::Dtype;

    #[test]
    fn widening_is_exact() {
        let values = [1.5f32, -0.0, 65504.0, 2f32.powi(-14)];
        let expected: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut wide = Vec::new();
        let stored: Vec<u8> = values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
        convert(Dtype::F16, Dtype::F32, &stored, &mut wide);
        assert_eq!(wide, expected);
        let values = [1.5f32, -0.0, 2f32.powi(100)];
        let expected: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let stored: Vec<u8> = values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect();
        convert(Dtype::Bf16, Dtype::F32, &stored, &mut wide);
        assert_eq!(wide, expected);
    }

    #[test]
    fn narrowing_rounds_to_even_as_the_reference_does() {
        let values: Vec<f32> =
            (0..5000).map(|i| (i as f32 - 2500.0) * 0.013_7).chain([65_519.0, 1e-8]).collect();
        let stored: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        for dtype in [Dtype::F16, Dtype::Bf16] {
            let (mut narrow, mut wide) = (Vec::new(), Vec::new());
            convert(Dtype::F32, dtype, &stored, &mut narrow);
            convert(dtype, Dtype::F32, &narrow, &mut wide);
            let found = wide.as_chunks::<4>().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes)));
            let expected = values.iter().map(|value| dtype.round(f64::from(*value)));
            assert!(found.eq(expected), "{dtype}");
        }
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
        let (mut bytes, placed) = header(|_| Dtype::F32, &[tensor("a", 100, 8), tensor("b", 108, 16)]);
        assert_eq!(placed[0].offset_bytes % 8, 0);
        bytes.resize(bytes.len() + 48, 0);
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("reads back");
        assert_eq!(file.tensor("b").expect("is there").shape(), [2, 4]);
        assert_eq!(placed[1].offset_bytes, placed[0].offset_bytes + 16);
    }
}
