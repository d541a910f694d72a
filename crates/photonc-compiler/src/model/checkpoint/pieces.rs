//! Weights read in bounded pieces. Owns the reads and the conversion of stored elements to floats; never maps a file, so
//! that a file cut short while it is read is an error and not a fault.

use std::os::unix::fs::FileExt;

use half::{bf16, f16};

use super::{Checkpoint, CheckpointError, TensorEntry, finite};
use photonc_graph::ir::dtype::Dtype;

/// Bytes of a piece where the caller does not choose.
pub const PIECE_BYTES: usize = 1 << 20;

impl Checkpoint {
    /// Hands a tensor's stored bytes to `each`, in order, in pieces of at most `piece_bytes` bytes (at least one element);
    /// no piece splits an element. What is packed comes as the f32 that its codes stand for. Peak memory is one piece, and of
    /// what is packed a few rows or one matrix of experts.
    ///
    /// # Errors
    /// No tensor of that name, a failed read or a file that has become shorter, or whatever `each` returns.
    pub fn for_each_piece<E: From<CheckpointError>>(
        &self,
        name: &str,
        piece_bytes: usize,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let entry = self.tensor(name)?;
        let element = entry.dtype.size_bytes();
        let piece = (piece_bytes / element).max(1) * element;
        if entry.packing.is_some() {
            return self.for_each_decoded(name, piece, each);
        }
        let mut buffer = vec![0u8; piece.min(usize::try_from(entry.length_bytes).unwrap_or(piece))];
        let mut done = 0u64;
        while done < entry.length_bytes {
            let length = usize::try_from(entry.length_bytes - done).map_or(piece, |rest| rest.min(piece));
            self.read_at(name, entry, done, &mut buffer[..length])?;
            each(&buffer[..length])?;
            done += length as u64;
        }
        Ok(())
    }

    /// Fills `buffer` with a tensor's stored bytes from `from_bytes` on.
    ///
    /// # Errors
    /// No tensor of that name, bytes beyond its end, or a failed read.
    pub fn read_bytes(&self, name: &str, from_bytes: u64, buffer: &mut [u8]) -> Result<(), CheckpointError> {
        let entry = self.unpacked(name)?;
        let end = from_bytes.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > entry.length_bytes) {
            let reason = format!(
                "bytes {from_bytes}..+{} asked for, the tensor has {}",
                buffer.len(),
                entry.length_bytes
            );
            return Err(CheckpointError::Read {
                path: self.files[entry.file].path.clone(),
                name: name.to_owned(),
                reason,
            });
        }
        self.read_at(name, entry, from_bytes, buffer)
    }

    /// A whole tensor as f32, row-major.
    ///
    /// # Errors
    /// As [`Checkpoint::for_each_piece`].
    pub fn read(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        let entry = self.tensor(name)?;
        let mut values = Vec::with_capacity(entry.elements());
        let dtype = entry.dtype;
        self.for_each_piece(name, PIECE_BYTES, |bytes| {
            extend_f32(dtype, bytes, &mut values);
            Ok::<(), CheckpointError>(())
        })?;
        Ok(values)
    }

    /// A whole tensor as f64, row-major. Every stored element is exact in f64.
    ///
    /// # Errors
    /// As [`Checkpoint::for_each_piece`].
    pub fn read_f64(&self, name: &str) -> Result<Vec<f64>, CheckpointError> {
        Ok(self.read(name)?.into_iter().map(f64::from).collect())
    }

    /// Looks for a NaN or infinite element in every tensor of the model, in canonical order.
    ///
    /// # Errors
    /// The first one, with its tensor and index, or a failed read.
    pub fn check_finite(&self) -> Result<(), CheckpointError> {
        for (name, entry) in &self.tensors {
            let mut before = 0;
            self.for_each_piece(name, PIECE_BYTES, |bytes| {
                match finite::first_nonfinite(entry.dtype, bytes) {
                    Some(at) => Err(self.nonfinite(name, entry, before + at, bytes, at)),
                    None => {
                        before += bytes.len() / entry.dtype.size_bytes();
                        Ok(())
                    }
                }
            })?;
        }
        Ok(())
    }

    /// The error for element `index` of a tensor, found at element `at` of `piece`.
    #[must_use]
    pub fn nonfinite(
        &self,
        name: &str,
        entry: &TensorEntry,
        index: usize,
        piece: &[u8],
        at: usize,
    ) -> CheckpointError {
        let size = entry.dtype.size_bytes();
        let mut value = Vec::new();
        extend_f32(entry.dtype, piece.get(at * size..(at + 1) * size).unwrap_or(&[]), &mut value);
        let mut rest = index;
        let mut place: Vec<usize> = entry
            .shape
            .iter()
            .rev()
            .map(|&dim| {
                let position = rest % dim.max(1);
                rest /= dim.max(1);
                position
            })
            .collect();
        place.reverse();
        CheckpointError::NonFinite {
            path: self.files.get(entry.file).map(|file| file.path.clone()).unwrap_or_default(),
            name: name.to_owned(),
            index,
            place,
            value: value.first().copied().unwrap_or(f32::NAN),
        }
    }

    /// Pieces of `piece` bytes of a packed tensor's elements as f32.
    fn for_each_decoded<E: From<CheckpointError>>(
        &self,
        name: &str,
        piece: usize,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let entry = self.tensor(name)?;
        let Some(packing) = &entry.packing else { return Ok(()) };
        let path = self.files[entry.file].path.clone();
        let mut waiting: Vec<u8> = Vec::new();
        let decoded = packing.for_each_part(&entry.shape, &self.files, |values| {
            waiting.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            let whole = waiting.len() / piece * piece;
            waiting[..whole].chunks_exact(piece).try_for_each(&mut each).map_err(Decoding::Taken)?;
            waiting.drain(..whole);
            Ok(())
        });
        match decoded {
            Ok(()) if waiting.is_empty() => Ok(()),
            Ok(()) => each(&waiting),
            Err(Decoding::Taken(error)) => Err(error),
            Err(Decoding::Read(reason)) => {
                Err(CheckpointError::Read { path, name: name.to_owned(), reason }.into())
            }
        }
    }

    /// A tensor whose stored bytes are its elements.
    fn unpacked(&self, name: &str) -> Result<&TensorEntry, CheckpointError> {
        let entry = self.tensor(name)?;
        match &entry.packing {
            None => Ok(entry),
            Some(packing) => Err(CheckpointError::Packed { name: name.to_owned(), format: packing.format }),
        }
    }

    fn read_at(
        &self,
        name: &str,
        entry: &TensorEntry,
        from_bytes: u64,
        buffer: &mut [u8],
    ) -> Result<(), CheckpointError> {
        let file = &self.files[entry.file];
        file.handle.read_exact_at(buffer, entry.offset_bytes + from_bytes).map_err(|error| {
            let reason = match error.kind() {
                std::io::ErrorKind::UnexpectedEof => {
                    "the file has become shorter since it was opened".to_owned()
                }
                _ => error.to_string(),
            };
            CheckpointError::Read { path: file.path.clone(), name: name.to_owned(), reason }
        })
    }
}

/// Why the decoding of a packed tensor ended early.
enum Decoding<E> {
    /// Codes or scales cannot be read.
    Read(String),
    /// Whoever takes the elements refused.
    Taken(E),
}

impl<E> From<String> for Decoding<E> {
    fn from(reason: String) -> Self {
        Decoding::Read(reason)
    }
}

/// Appends little-endian stored elements as f32; exact for f32, f16 and bf16. Other types append nothing: no weight has one.
pub fn extend_f32(dtype: Dtype, bytes: &[u8], values: &mut Vec<f32>) {
    match dtype {
        Dtype::F32 => {
            values.extend(bytes.as_chunks::<4>().0.iter().map(|&element| f32::from_le_bytes(element)))
        }
        Dtype::F16 => values
            .extend(bytes.as_chunks::<2>().0.iter().map(|&element| f16::from_le_bytes(element).to_f32())),
        Dtype::Bf16 => values
            .extend(bytes.as_chunks::<2>().0.iter().map(|&element| bf16::from_le_bytes(element).to_f32())),
        Dtype::I64 | Dtype::Bool => {}
    }
}
