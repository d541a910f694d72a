//! Reading the weights of an opened bundle: whole, in pieces, or as quantized codes with their scales. Owns what a record of
//! a weight must be; refuses to hold more of a weight than a piece where the caller asks for pieces.

use super::error::BundleError;
use super::manifest::WeightRecord;
use super::read::Bundle;
use photonc_graph::ir::attr::Scheme;
use photonc_graph::ir::bytes::floats_of;
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::tensor::Tensor;

/// Takes a piece of a weight: its stored type and its bytes, in order.
pub type Piece<'p> = dyn FnMut(Dtype, &[u8]) -> Result<(), String> + 'p;

/// Takes rows of a weight in few bits: their codes and their scales, as they are stored.
pub type CodePiece<'p> = dyn FnMut(&[u8], &[f32]) -> Result<(), String> + 'p;

impl Bundle {
    /// A weight by canonical name.
    ///
    /// # Errors
    /// No such weight, or its bytes cannot be read.
    pub fn weight(&self, name: &str) -> Result<Tensor, BundleError> {
        let mut values = Vec::new();
        let record = self.weight_pieces(name, usize::MAX, &mut |dtype, bytes| {
            values.extend(floats_of(dtype, bytes));
            Ok(())
        })?;
        let shape = &record.shape;
        Tensor::floats(shape, values).ok_or_else(|| BundleError::Manifest {
            path: self.manifest_path(),
            message: format!("weight `{name}`: shape {shape:?} does not fit"),
        })
    }

    /// Hands the stored elements of a weight to `piece` in order, at most `piece_bytes` at a time; gives its record.
    ///
    /// # Errors
    /// No such weight, its bytes cannot be read, or `piece` refuses.
    pub fn weight_pieces(
        &self,
        name: &str,
        piece_bytes: usize,
        piece: &mut Piece<'_>,
    ) -> Result<&WeightRecord, BundleError> {
        let record =
            self.manifest().weights.get(name).ok_or_else(|| self.missing(format!("weight `{name}`")))?;
        let invalid = |message: String| BundleError::Manifest { path: self.manifest_path(), message };
        let dtype = check_weight(name, record).map_err(invalid)?;
        let file = self.weights_file(&record.file)?;
        // Whole elements, whatever their size.
        let step = (piece_bytes.max(8) / 8 * 8) as u64;
        let mut bytes = Vec::new();
        let mut done = 0;
        while done < record.length_bytes {
            let part = step.min(record.length_bytes - done);
            let length = usize::try_from(part).map_err(|_| invalid(format!("weight `{name}`: too large")))?;
            bytes.resize(length, 0);
            file.read_at(&mut bytes, record.offset_bytes + done)?;
            piece(dtype, &bytes).map_err(|message| invalid(format!("weight `{name}`: {message}")))?;
            done += part;
        }
        Ok(record)
    }

    /// A weight as its codes give it back.
    ///
    /// # Errors
    /// The bundle has no such codes, or their bytes cannot be read.
    pub fn quantized_weight(&self, name: &str, scheme: Scheme) -> Result<Tensor, BundleError> {
        let key = scheme.key(name);
        let missing = || self.missing(format!("codes `{key}`"));
        let record = self.manifest().quantized.get(&key).ok_or_else(missing)?;
        let (codes, scales) = (self.bytes(&record.codes)?, self.bytes(&record.scales)?);
        let invalid = || BundleError::Manifest {
            path: self.manifest_path(),
            message: format!("codes `{key}`: {} of shape {:?} do not fit", codes.len(), record.codes.shape),
        };
        let [rows, columns] = record.codes.shape[..] else { return Err(invalid()) };
        let values = scheme.decoded([rows, columns], &codes, &floats(&scales)).ok_or_else(invalid)?;
        Tensor::floats(&record.codes.shape, values).ok_or_else(invalid)
    }

    /// Hands the codes of a weight to `piece`, whole rows at a time and in order, about `piece_bytes` of them, each time
    /// with the scales of those rows: as they are stored.
    ///
    /// # Errors
    /// The bundle has no such codes, their bytes cannot be read, or `piece` refuses.
    pub fn code_pieces(
        &self,
        name: &str,
        scheme: Scheme,
        piece_bytes: usize,
        piece: &mut CodePiece<'_>,
    ) -> Result<(), BundleError> {
        let key = scheme.key(name);
        let missing = || self.missing(format!("codes `{key}`"));
        let record = self.manifest().quantized.get(&key).ok_or_else(missing)?;
        let invalid = |message: String| BundleError::Manifest {
            path: self.manifest_path(),
            message: format!("codes `{key}`: {message}"),
        };
        let misfit = || invalid(format!("do not fit the shape {:?}", record.codes.shape));
        let [rows, columns] = record.codes.shape[..] else { return Err(misfit()) };
        let elements = rows.checked_mul(columns).filter(|elements| *elements > 0).ok_or_else(misfit)?;
        let scales = floats(&self.bytes(&record.scales)?);
        let wanted = scheme.scale_shape([rows, columns]).map(|sizes| sizes.iter().product::<usize>());
        if record.codes.length_bytes != scheme.code_bytes(elements) as u64 || wanted != Some(scales.len()) {
            return Err(misfit());
        }
        let row_bytes = scheme.code_bytes(columns);
        let step = (piece_bytes / row_bytes.max(1)).clamp(1, rows);
        for first in (0..rows).step_by(step) {
            let count = step.min(rows - first);
            let part = WeightRecord {
                offset_bytes: record.codes.offset_bytes + (first * row_bytes) as u64,
                length_bytes: (count * row_bytes) as u64,
                ..record.codes.clone()
            };
            // One scale for the matrix is one for every part of it.
            let own = match scheme {
                Scheme::Fp8 => &scales[..],
                Scheme::Int8 | Scheme::Int4 => {
                    let each = scales.len() / rows;
                    &scales[first * each..(first + count) * each]
                }
            };
            piece(&self.bytes(&part)?, own).map_err(invalid)?;
        }
        Ok(())
    }

    fn bytes(&self, record: &WeightRecord) -> Result<Vec<u8>, BundleError> {
        let file = self.weights_file(&record.file)?;
        let (size, end) = (file.size_bytes(), record.offset_bytes.checked_add(record.length_bytes));
        let length = usize::try_from(record.length_bytes).ok();
        let Some(length) = length.filter(|_| end.is_some_and(|end| end <= size)) else {
            let (path, expected) = (file.path.clone(), end.unwrap_or(u64::MAX));
            return Err(BundleError::Truncated { path, found: size, expected });
        };
        let mut bytes = vec![0; length];
        file.read_at(&mut bytes, record.offset_bytes)?;
        Ok(bytes)
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// The type of a weight whose record is consistent; an error says what contradicts what.
pub(super) fn check_weight(name: &str, record: &WeightRecord) -> Result<Dtype, String> {
    let dtype = Dtype::from_name(&record.dtype)
        .filter(|dtype| dtype.is_float())
        .ok_or_else(|| format!("weight `{name}`: type `{}` is no floating-point type", record.dtype))?;
    let elements = record.shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size as u64));
    let bytes = elements.and_then(|elements| elements.checked_mul(dtype.size_bytes() as u64));
    if bytes != Some(record.length_bytes) {
        return Err(format!(
            "weight `{name}`: {} bytes for {}{:?}",
            record.length_bytes, record.dtype, record.shape
        ));
    }
    Ok(dtype)
}
