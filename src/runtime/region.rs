//! Copying regions of row-major arrays in host memory. Owns the index arithmetic and its bounds checks, for backends
//! whose buffers are host memory; knows no element types.

/// A region that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// Source and destination must agree on every axis but the one written along.
    #[error("cannot write {source_shape:?} into {target_shape:?} along axis {axis}: the other axes differ")]
    Shapes {
        /// Sizes of the source.
        source_shape: Vec<usize>,
        /// Sizes of the destination.
        target_shape: Vec<usize>,
        /// The axis written along.
        axis: usize,
    },
    /// Offsets are one per row.
    #[error("{offsets} offsets for {rows} rows")]
    Offsets {
        /// Offsets given.
        offsets: usize,
        /// Size of axis 0.
        rows: usize,
    },
    /// A part past the end of its axis.
    #[error("row {row}: {len} entries from {start} do not fit axis {axis} of {shape:?}")]
    Bounds {
        /// Row of axis 0.
        row: usize,
        /// First entry.
        start: usize,
        /// Number of entries.
        len: usize,
        /// The axis.
        axis: usize,
        /// Sizes of the array that is too small.
        shape: Vec<usize>,
    },
}

/// An array in host memory: elements and sizes.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T> {
    /// Row-major elements.
    pub data: &'a [T],
    /// Sizes of the axes.
    pub shape: &'a [usize],
}

/// Writes row `b` of `source` into row `b` of `target` at entry `offsets[b]` of `axis`; `axis >= 1`, and the other
/// axes agree.
///
/// # Errors
/// Shapes that do not agree, or entries past the end.
pub fn write<T: Copy>(
    target: &mut [T],
    target_shape: &[usize],
    source: View<'_, T>,
    axis: usize,
    offsets: &[usize],
) -> Result<(), RegionError> {
    check_write(target_shape, source.shape, axis, offsets)?;
    let (size, len) = (target_shape[axis], source.shape[axis]);
    let between: usize = target_shape[1..axis].iter().product();
    let inner: usize = target_shape[axis + 1..].iter().product();
    for (row, start) in offsets.iter().copied().enumerate() {
        for middle in row * between..(row + 1) * between {
            let from = middle * len * inner;
            let to = (middle * size + start) * inner;
            target[to..to + len * inner].copy_from_slice(&source.data[from..from + len * inner]);
        }
    }
    Ok(())
}

/// Checks that `write` can be done.
///
/// # Errors
/// Shapes that do not agree, or entries past the end.
pub fn check_write(
    target_shape: &[usize],
    source_shape: &[usize],
    axis: usize,
    offsets: &[usize],
) -> Result<(), RegionError> {
    let agree = source_shape.len() == target_shape.len()
        && (1..target_shape.len()).contains(&axis)
        && source_shape.iter().zip(target_shape).enumerate().all(|(at, (a, b))| at == axis || a == b);
    if !agree {
        let (source_shape, target_shape) = (source_shape.to_vec(), target_shape.to_vec());
        return Err(RegionError::Shapes { source_shape, target_shape, axis });
    }
    if offsets.len() != target_shape[0] {
        return Err(RegionError::Offsets { offsets: offsets.len(), rows: target_shape[0] });
    }
    let (size, len) = (target_shape[axis], source_shape[axis]);
    for (row, start) in offsets.iter().copied().enumerate() {
        if start.checked_add(len).is_none_or(|end| end > size) {
            return Err(RegionError::Bounds { row, start, len, axis, shape: target_shape.to_vec() });
        }
    }
    Ok(())
}

/// Checks that entries `start .. start + len` of `axis` are there.
///
/// # Errors
/// Entries past the end.
pub fn check_slice(shape: &[usize], axis: usize, start: usize, len: usize) -> Result<(), RegionError> {
    let size = shape.get(axis).copied().unwrap_or(0);
    if start.checked_add(len).is_none_or(|end| end > size) {
        return Err(RegionError::Bounds { row: 0, start, len, axis, shape: shape.to_vec() });
    }
    Ok(())
}

/// Checks that rows `rows` of axis 0 are there.
///
/// # Errors
/// A row past the end.
pub fn check_gather(shape: &[usize], rows: &[usize]) -> Result<(), RegionError> {
    let size = shape.first().copied().unwrap_or(0);
    match rows.iter().find(|row| **row >= size) {
        Some(row) => {
            Err(RegionError::Bounds { row: *row, start: *row, len: 1, axis: 0, shape: shape.to_vec() })
        }
        None => Ok(()),
    }
}

/// Entries `start .. start + len` of `axis`.
///
/// # Errors
/// Entries past the end.
pub fn slice<T: Copy>(
    source: View<'_, T>,
    axis: usize,
    start: usize,
    len: usize,
) -> Result<Vec<T>, RegionError> {
    check_slice(source.shape, axis, start, len)?;
    let size = source.shape[axis];
    let outer: usize = source.shape[..axis].iter().product();
    let inner: usize = source.shape[axis + 1..].iter().product();
    let mut part = Vec::with_capacity(outer * len * inner);
    for at in 0..outer {
        let from = (at * size + start) * inner;
        part.extend_from_slice(&source.data[from..from + len * inner]);
    }
    Ok(part)
}

/// Rows `rows[0], rows[1], ..` of axis 0; a row may come several times.
///
/// # Errors
/// A row past the end.
pub fn gather<T: Copy>(source: View<'_, T>, rows: &[usize]) -> Result<Vec<T>, RegionError> {
    check_gather(source.shape, rows)?;
    let inner: usize = source.shape.iter().skip(1).product();
    let mut part = Vec::with_capacity(rows.len() * inner);
    for row in rows.iter().copied() {
        part.extend_from_slice(&source.data[row * inner..(row + 1) * inner]);
    }
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::{RegionError, View, gather, slice, write};

    // [2 rows, 2 heads, 3 slots, 1]: each row appends at its own length.
    #[test]
    fn rows_are_written_at_their_own_offsets() {
        let mut cache = vec![0; 12];
        let new = View { data: &[1, 2, 3, 4], shape: &[2, 2, 1, 1] };
        write(&mut cache, &[2, 2, 3, 1], new, 2, &[0, 2]).expect("fits");
        assert_eq!(cache, [1, 0, 0, 2, 0, 0, 0, 0, 3, 0, 0, 4]);
    }

    #[test]
    fn regions_past_the_end_are_refused() {
        let mut cache = vec![0; 12];
        let new = View { data: &[1, 2, 3, 4], shape: &[2, 2, 1, 1] };
        let error = write(&mut cache, &[2, 2, 3, 1], new, 2, &[0, 3]).expect_err("slot 3 of 3");
        assert_eq!(error, RegionError::Bounds { row: 1, start: 3, len: 1, axis: 2, shape: vec![2, 2, 3, 1] });
        assert!(write(&mut cache, &[2, 2, 3, 1], new, 2, &[0]).is_err());
        assert!(write(&mut cache, &[2, 2, 3, 1], new, 1, &[0, 0]).is_err());
        assert!(slice(new, 1, 1, 2).is_err());
        assert!(gather(new, &[2]).is_err());
    }

    #[test]
    fn slices_and_rows_come_in_order() {
        let array = View { data: &[0, 1, 2, 3, 4, 5, 6, 7], shape: &[2, 2, 2] };
        assert_eq!(slice(array, 1, 1, 1).expect("fits"), [2, 3, 6, 7]);
        assert_eq!(gather(array, &[1, 0, 1]).expect("fits"), [4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
