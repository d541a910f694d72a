//! Weights stored in few bits with their scales beside them: `N.packed`, `N.scale`, `N.global_scale`, `N.shape`,
//! `N.red_axis`, `N.fmt`. Owns the formats and the reading of a whole tensor; formats may differ from tensor to tensor.
//!
//! The axis that is summed over stands last in the packed form, all others folded to rows: `[rows, K]`.

use super::WeightsFile;
use super::matching::Stored;
use photonc_graph::ir::attr::Scheme;
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;

/// Ends of the names that belong to one packed tensor, beside `.packed` itself.
const SIDECARS: [&str; 5] = ["scale", "global_scale", "shape", "red_axis", "fmt"];

/// Integers that say how one tensor is packed, at most.
const MAX_INTEGERS: usize = 64;

/// Elements decoded at a time, about.
const PART_ELEMENTS: usize = 1 << 18;

/// Magnitudes of the low three bits of a 4-bit float (E2M1).
const E2M1: [f64; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// How a packed tensor's codes are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackedFormat {
    /// 4-bit floats, an E4M3 scale for each 16, one divisor for all.
    Nvfp4,
    /// 4-bit floats, a power of two for each 32.
    Mxfp4,
    /// 8-bit floats (E4M3), a scale for each row.
    Fp8,
}

impl PackedFormat {
    /// Name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            PackedFormat::Nvfp4 => "nvfp4",
            PackedFormat::Mxfp4 => "mxfp4",
            PackedFormat::Fp8 => "fp8",
        }
    }

    /// Codes of a row that share a scale; `None`: all of them.
    fn block(self) -> Option<usize> {
        match self {
            PackedFormat::Nvfp4 => Some(16),
            PackedFormat::Mxfp4 => Some(32),
            PackedFormat::Fp8 => None,
        }
    }

    fn code_bytes(self, codes: usize) -> usize {
        match self {
            PackedFormat::Nvfp4 | PackedFormat::Mxfp4 => codes / 2,
            PackedFormat::Fp8 => codes,
        }
    }

    /// Types that codes may have in a file.
    fn code_form(self) -> &'static [Dtype] {
        match self {
            PackedFormat::Nvfp4 | PackedFormat::Mxfp4 => &[Dtype::U8],
            PackedFormat::Fp8 => &[Dtype::F8_E4M3, Dtype::U8],
        }
    }

    /// Types that scales may have in a file.
    fn scale_form(self) -> &'static [Dtype] {
        match self {
            PackedFormat::Nvfp4 => &[Dtype::F8_E4M3, Dtype::U8],
            PackedFormat::Mxfp4 => &[Dtype::U8, Dtype::F8_E8M0],
            PackedFormat::Fp8 => &[Dtype::F32],
        }
    }

    fn scale_sizes(self, rows: usize, columns: usize) -> Vec<usize> {
        self.block().map_or_else(|| vec![rows], |block| vec![rows, columns / block])
    }

    fn scale_bytes(self, rows: usize, columns: usize) -> usize {
        self.block().map_or(rows * 4, |block| rows * (columns / block))
    }
}

/// A tensor in few bits: where its codes and scales stand.
#[derive(Clone, Debug, PartialEq)]
pub struct Packing {
    /// How codes are read.
    pub format: PackedFormat,
    rows: usize,
    columns: usize,
    /// The axis before the last is the one summed over: rows and columns of each matrix are exchanged.
    swapped: bool,
    codes: Span,
    scales: Span,
    /// Divisor of every scale.
    global: f64,
}

/// Bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    file: usize,
    offset_bytes: u64,
    length_bytes: usize,
}

impl Span {
    fn of(stored: &Stored) -> Self {
        let (from, to) = stored.info.data_offsets;
        Span {
            file: stored.file,
            offset_bytes: stored.data_start + from as u64,
            length_bytes: to.saturating_sub(from),
        }
    }

    fn read(&self, files: &[WeightsFile]) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; self.length_bytes];
        let file = files.get(self.file).ok_or("no such file")?;
        file.handle().read_exact_at(&mut bytes, self.offset_bytes).map_err(|error| error.to_string())?;
        Ok(bytes)
    }
}

/// A packed tensor among the stored ones.
#[derive(Debug)]
pub(super) struct PackedTensor {
    pub shape: Vec<usize>,
    pub packing: Packing,
}

/// Takes every packed tensor and what belongs to it out of the stored ones; by native name.
///
/// # Errors
/// A packed tensor whose parts are missing or do not fit each other, as `name: reason`.
pub(super) fn take(
    files: &[WeightsFile],
    stored: &mut BTreeMap<String, Stored>,
) -> Result<BTreeMap<String, PackedTensor>, String> {
    let names: Vec<String> =
        stored.keys().filter_map(|name| name.strip_suffix(".packed")).map(str::to_owned).collect();
    let mut packed = BTreeMap::new();
    for name in names {
        let tensor = packed_tensor(files, stored, &name).map_err(|reason| format!("`{name}`: {reason}"))?;
        stored.remove(&format!("{name}.packed"));
        for part in SIDECARS {
            stored.remove(&format!("{name}.{part}"));
        }
        packed.insert(name, tensor);
    }
    Ok(packed)
}

fn packed_tensor(
    files: &[WeightsFile],
    stored: &BTreeMap<String, Stored>,
    name: &str,
) -> Result<PackedTensor, String> {
    let part = |part: &str| stored.get(&format!("{name}.{part}"));
    let ints = |name: &str| part(name).map(|stored| integers(stored, files)).transpose();
    let format = match ints("fmt")?.as_deref() {
        None | Some([0]) => PackedFormat::Nvfp4,
        Some([1]) => PackedFormat::Mxfp4,
        Some([2]) => PackedFormat::Fp8,
        Some(other) => return Err(format!("packed format {other:?}, expected 0, 1 or 2")),
    };
    let sizes = ints("shape")?.ok_or("packed without its shape")?;
    let shape: Vec<usize> = sizes
        .iter()
        .map(|size| usize::try_from(*size))
        .collect::<Result<_, _>>()
        .map_err(|e| e.to_string())?;
    let axis = ints("red_axis")?.and_then(|axis| axis.first().copied()).unwrap_or(-1);
    let swapped = match (axis, shape.len()) {
        (-1, 1..) => false,
        (-2, 2..) => true,
        _ => return Err(format!("packed along axis {axis} of {shape:?}, expected -1 or -2")),
    };
    let columns = shape[shape.len() - 1 - usize::from(swapped)];
    let elements = shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    let rows = elements.zip(Some(columns)).and_then(|(all, columns)| all.checked_div(columns));
    let rows = rows.ok_or_else(|| format!("packed shape {shape:?} holds nothing"))?;
    if format.block().is_some_and(|block| !columns.is_multiple_of(block)) {
        return Err(format!("{columns} columns in blocks of {:?} ({})", format.block(), format.name()));
    }
    let codes = Span::of(part("packed").ok_or("packed without codes")?);
    let scales = Span::of(part("scale").ok_or("packed without scales")?);
    let expected = [format.code_bytes(rows * columns), format.scale_bytes(rows, columns)];
    if [codes.length_bytes, scales.length_bytes] != expected {
        return Err(format!(
            "{} bytes of codes and {} of scales, expected {} and {} for {} {shape:?}",
            codes.length_bytes,
            scales.length_bytes,
            expected[0],
            expected[1],
            format.name()
        ));
    }
    let parts = [
        ("codes", part("packed"), format.code_form(), vec![rows, format.code_bytes(columns)]),
        ("scales", part("scale"), format.scale_form(), format.scale_sizes(rows, columns)),
    ];
    for (what, stored, form, sizes) in parts {
        let info = stored.map(|stored| &stored.info);
        // Scales of rows may stand in a column.
        let fits = |shape: &[usize]| shape == sizes || shape.strip_suffix(&[1]) == Some(&sizes[..]);
        if info.is_none_or(|info| !form.contains(&info.dtype) || !fits(&info.shape)) {
            let found = info.map_or("none".to_owned(), |info| format!("{:?}{:?}", info.dtype, info.shape));
            let name = format.name();
            return Err(format!("{what} are {found}, expected {:?}{sizes:?} for {name} {shape:?}", form[0]));
        }
    }
    let global = match (format, part("global_scale")) {
        (PackedFormat::Nvfp4, Some(stored)) => {
            let bytes = Span::of(stored).read(files)?;
            let four = bytes.as_chunks::<4>().0.first().ok_or("global scale is no f32")?;
            f64::from(f32::from_le_bytes(*four))
        }
        (PackedFormat::Nvfp4, None) => return Err("nvfp4 without its global scale".to_owned()),
        _ => 1.0,
    };
    Ok(PackedTensor { shape, packing: Packing { format, rows, columns, swapped, codes, scales, global } })
}

fn integers(stored: &Stored, files: &[WeightsFile]) -> Result<Vec<i64>, String> {
    let span = Span::of(stored);
    if span.length_bytes > MAX_INTEGERS * 8 {
        return Err(format!("{} bytes beside packed weights, expected a few integers", span.length_bytes));
    }
    let bytes = span.read(files)?;
    match stored.info.dtype {
        Dtype::I32 => {
            Ok(bytes.as_chunks::<4>().0.iter().map(|four| i64::from(i32::from_le_bytes(*four))).collect())
        }
        Dtype::I64 => Ok(bytes.as_chunks::<8>().0.iter().map(|all| i64::from_le_bytes(*all)).collect()),
        other => Err(format!("{other:?} beside packed weights, expected i32 or i64")),
    }
}

impl Packing {
    /// Where the codes stand: file, offset and length in bytes.
    pub(super) fn place(&self) -> (usize, u64, u64) {
        (self.codes.file, self.codes.offset_bytes, self.codes.length_bytes as u64)
    }

    /// Hands the elements of a tensor of that shape to `each`, row-major and in order, a few rows at a time; where the axis
    /// that is summed over is the last but one, a matrix at a time.
    ///
    /// # Errors
    /// The codes or scales cannot be read, or whatever `each` returns.
    pub(super) fn for_each_part<E: From<String>>(
        &self,
        shape: &[usize],
        files: &[WeightsFile],
        mut each: impl FnMut(&[f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        let swapped = match shape {
            [.., inputs, outputs] if self.swapped => Some([*inputs, *outputs]),
            _ => None,
        };
        // A matrix `[inputs, outputs]` stands as `outputs` rows.
        let step =
            swapped.map_or_else(|| PART_ELEMENTS.div_ceil(self.columns.max(1)), |[_, outputs]| outputs);
        let step = step.max(1);
        let mut turned = Vec::new();
        for first in (0..self.rows).step_by(step) {
            let values = self.read_rows(first, step.min(self.rows - first), files)?;
            let Some([inputs, outputs]) = swapped else {
                each(&values)?;
                continue;
            };
            turned.clear();
            turned.resize(values.len(), 0.0);
            for (at, value) in values.iter().enumerate() {
                turned[at % inputs * outputs + at / inputs] = *value;
            }
            each(&turned)?;
        }
        Ok(())
    }

    /// The elements of rows as they are packed.
    #[expect(clippy::cast_possible_truncation, reason = "a code times its scale, as f32 arithmetic gives it")]
    fn read_rows(&self, first: usize, count: usize, files: &[WeightsFile]) -> Result<Vec<f32>, String> {
        let part = |span: &Span, each: usize| Span {
            file: span.file,
            offset_bytes: span.offset_bytes + (first * each) as u64,
            length_bytes: count * each,
        };
        let (code_bytes, scale_bytes) =
            (self.format.code_bytes(self.columns), self.format.scale_bytes(1, self.columns));
        let codes = part(&self.codes, code_bytes).read(files)?;
        let scales = part(&self.scales, scale_bytes).read(files)?;
        let block = self.format.block().unwrap_or(self.columns).max(1);
        let value = |at: usize| {
            let scale = match self.format {
                PackedFormat::Fp8 => scales
                    .as_chunks::<4>()
                    .0
                    .get(at / block)
                    .map_or(0.0, |four| f64::from(f32::from_le_bytes(*four))),
                PackedFormat::Nvfp4 => e4m3(scales[at / block]) / self.global,
                PackedFormat::Mxfp4 => 2f64.powi(i32::from(scales[at / block]) - 127),
            };
            let code = match self.format {
                PackedFormat::Fp8 => e4m3(codes[at]),
                PackedFormat::Nvfp4 | PackedFormat::Mxfp4 => e2m1(codes[at / 2] >> (4 * (at % 2)) & 0xf),
            };
            (code * scale) as f32
        };
        Ok((0..count * self.columns).map(value).collect())
    }
}

fn e4m3(code: u8) -> f64 {
    if code & 0x7f == 0x7f { f64::NAN } else { Scheme::Fp8.decode(code, 1.0) }
}

fn e2m1(code: u8) -> f64 {
    let magnitude = E2M1[usize::from(code & 7)];
    if code & 8 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::{e2m1, e4m3};

    #[test]
    fn codes_are_the_numbers_of_their_formats() {
        assert_eq!((0..16).map(e2m1).sum::<f64>(), 0.0);
        assert_eq!([e2m1(0b0111), e2m1(0b1001), e2m1(0b0010)], [6.0, -0.5, 1.0]);
        assert_eq!([e4m3(0x38), e4m3(0xb8), e4m3(0x7e), e4m3(0x01)], [1.0, -1.0, 448.0, 2f64.powi(-9)]);
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
    }
}
