//! Finding weights that are no numbers, or too large for the bundle's type, while a file streams by. Owns the way from an offset in the file to a tensor and
//! element; reads nothing but the few elements that two pieces share.

use super::ExportError;
use crate::ir::dtype::Dtype;
use crate::model::checkpoint::{Checkpoint, TensorEntry, extend_f32, first_nonfinite};

/// The tensors of one weights file by offset.
pub(super) struct FiniteCheck<'c> {
    checkpoint: &'c Checkpoint,
    tensors: Vec<(&'c str, &'c TensorEntry)>,
    /// The type that the elements will have.
    dtype: Dtype,
}

impl<'c> FiniteCheck<'c> {
    pub(super) fn of(checkpoint: &'c Checkpoint, file: usize, dtype: Dtype) -> Self {
        let mut tensors: Vec<_> = checkpoint
            .tensors
            .iter()
            .filter(|(_, entry)| entry.file == file && entry.packing.is_none())
            .map(|(name, entry)| (name.as_str(), entry))
            .collect();
        tensors.sort_unstable_by_key(|(_, entry)| entry.offset_bytes);
        FiniteCheck { checkpoint, tensors, dtype }
    }

    /// Checks the piece of the file that starts at `offset`.
    pub(super) fn piece(&self, offset: u64, piece: &[u8]) -> Result<(), ExportError> {
        let end = offset + piece.len() as u64;
        let first =
            self.tensors.partition_point(|(_, entry)| entry.offset_bytes + entry.length_bytes <= offset);
        for (name, entry) in &self.tensors[first..] {
            if entry.offset_bytes >= end {
                break;
            }
            self.part(name, entry, offset, piece)?;
        }
        Ok(())
    }

    fn part(&self, name: &str, entry: &TensorEntry, offset: u64, piece: &[u8]) -> Result<(), ExportError> {
        let size = entry.dtype.size_bytes() as u64;
        let end = offset + piece.len() as u64;
        // Whole elements inside the piece; pieces need not start at an element's first byte.
        let from = offset.saturating_sub(entry.offset_bytes).div_ceil(size);
        let to = (end.min(entry.offset_bytes + entry.length_bytes) - entry.offset_bytes) / size;
        if from < to {
            let start = index(entry.offset_bytes + from * size - offset);
            let bytes = &piece[start..start + index((to - from) * size)];
            if let Some(at) = first_nonfinite(entry.dtype, bytes) {
                return Err(self.checkpoint.nonfinite(name, entry, index(from) + at, bytes, at).into());
            }
            self.fits(name, entry, index(from), bytes)?;
        }
        let cut = entry.offset_bytes + to * size;
        if cut < end && end < entry.offset_bytes + entry.length_bytes {
            let mut element = vec![0; index(size)];
            self.checkpoint.read_bytes(name, to * size, &mut element)?;
            if first_nonfinite(entry.dtype, &element).is_some() {
                return Err(self.checkpoint.nonfinite(name, entry, index(to), &element, 0).into());
            }
            self.fits(name, entry, index(to), &element)?;
        }
        Ok(())
    }

    /// Checks that finite elements, of which the first is element `first` of the tensor, stay finite.
    fn fits(&self, name: &str, entry: &TensorEntry, first: usize, bytes: &[u8]) -> Result<(), ExportError> {
        if self.dtype != Dtype::F16 || entry.dtype == Dtype::F16 {
            return Ok(());
        }
        let mut values = Vec::with_capacity(bytes.len() / entry.dtype.size_bytes());
        extend_f32(entry.dtype, bytes, &mut values);
        match values.iter().position(|value| self.dtype.round(f64::from(*value)).is_infinite()) {
            None => Ok(()),
            Some(at) => {
                Err(ExportError::TooLarge { name: name.to_owned(), index: first + at, value: values[at] })
            }
        }
    }
}

/// Offsets inside a piece fit a `usize`, because the piece is in memory.
fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::FiniteCheck;
    use crate::ir::dtype::Dtype;
    use crate::model::checkpoint::Checkpoint;
    use crate::model::dialect::DialectChoice;
    use std::path::Path;

    // A NaN, and what f16 does not hold, must be found wherever a piece happens to end, also in the middle of its bytes.
    #[test]
    fn what_does_not_fit_is_found_at_every_cut() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/paper");
        let directory = tempfile::tempdir().expect("temporary directory");
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(golden.join(file), directory.path().join(file)).expect("copies");
        }
        let path = directory.path().join("model.safetensors");
        let clean = Checkpoint::open(&golden, &DialectChoice::Recognise).expect("opens");
        let entry = &clean.tensors["levels.1.start"];
        let at = usize::try_from(entry.offset_bytes).expect("small") + 4 * 7;
        let mut bytes = std::fs::read(&path).expect("reads");
        for (value, what) in [(f32::NAN, "NaN"), (7e4, "70000")] {
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            std::fs::write(&path, &bytes).expect("writes");
            let checkpoint = Checkpoint::open(directory.path(), &DialectChoice::Recognise).expect("opens");
            let check = FiniteCheck::of(&checkpoint, 0, Dtype::F16);
            for cut in at - 6..at + 6 {
                let (left, right) = bytes.split_at(cut);
                let found = check.piece(0, left).and_then(|()| check.piece(cut as u64, right));
                let message = found.expect_err("passed").to_string();
                let named = message.contains("levels.1.start") && message.contains("element 7");
                assert!(named && message.contains(what), "{message}");
            }
        }
    }
}
