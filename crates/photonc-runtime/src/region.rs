//! Copying regions of row-major arrays. Owns the index arithmetic and its bounds checks, for backends whose buffers are host
//! memory or are copied by the piece; knows no element types.

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
    /// A piece past the end of an array.
    #[error(
        "cannot copy up to {read} of {source_elements} elements and write up to {written} of {target_elements}"
    )]
    Piece {
        /// End of what is read.
        read: usize,
        /// Elements of the source.
        source_elements: usize,
        /// End of what is written.
        written: usize,
        /// Elements of the target.
        target_elements: usize,
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

/// Runs of one length at equal distances in two arrays: a piece of a copy. All in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// First element read.
    pub from: usize,
    /// From one run to the next where they are read, at least `len`.
    pub from_step: usize,
    /// First element written.
    pub to: usize,
    /// From one run to the next where they are written, at least `len`.
    pub to_step: usize,
    /// Elements of a run.
    pub len: usize,
    /// Number of runs.
    pub runs: usize,
}

impl Piece {
    /// The first `len` elements of an array.
    #[must_use]
    pub fn first(len: usize) -> Self {
        Piece { from: 0, from_step: len, to: 0, to_step: len, len, runs: 1 }
    }

    /// Elements that the array read has at least, and that the array written has.
    #[must_use]
    pub fn ends(&self) -> (usize, usize) {
        let end = |start: usize, step: usize| match self.runs.checked_sub(1) {
            Some(steps) => start + steps * step + self.len,
            None => 0,
        };
        (end(self.from, self.from_step), end(self.to, self.to_step))
    }

    /// The same in bytes, for elements of `bytes` each.
    #[must_use]
    pub fn scaled(self, bytes: usize) -> Self {
        let Piece { from, from_step, to, to_step, len, runs } = self;
        Piece {
            from: from * bytes,
            from_step: from_step * bytes,
            to: to * bytes,
            to_step: to_step * bytes,
            len: len * bytes,
            runs,
        }
    }
}

/// What `write` copies: row `b` of an array of `source_shape` into row `b` of one of `target_shape` at entry `offsets[b]`
/// of `axis`; `axis >= 1`, and the other axes agree.
///
/// # Errors
/// Shapes that do not agree, or entries past the end.
pub fn written(
    target_shape: &[usize],
    source_shape: &[usize],
    axis: usize,
    offsets: &[usize],
) -> Result<Vec<Piece>, RegionError> {
    check_write(target_shape, source_shape, axis, offsets)?;
    let (size, len) = (target_shape[axis], source_shape[axis]);
    let runs: usize = target_shape[1..axis].iter().product();
    let inner: usize = target_shape[axis + 1..].iter().product();
    let row = |(row, start): (usize, &usize)| Piece {
        from: row * runs * len * inner,
        from_step: len * inner,
        to: (row * runs * size + start) * inner,
        to_step: size * inner,
        len: len * inner,
        runs,
    };
    Ok(offsets.iter().enumerate().map(row).collect())
}

/// What `slice` copies: entries `start .. start + len` of `axis` of an array of `shape` into one of their own.
///
/// # Errors
/// Entries past the end.
pub fn sliced(shape: &[usize], axis: usize, start: usize, len: usize) -> Result<Piece, RegionError> {
    check_slice(shape, axis, start, len)?;
    let runs = shape.iter().take(axis).product();
    let inner: usize = shape.iter().skip(axis + 1).product();
    let size = shape.get(axis).copied().unwrap_or(0);
    let (step, taken) = (size * inner, len * inner);
    Ok(Piece { from: start * inner, from_step: step, to: 0, to_step: taken, len: taken, runs })
}

/// What `gather` copies: rows `rows[0], rows[1], ..` of axis 0 of an array of `shape` into one of their own.
///
/// # Errors
/// A row past the end.
pub fn gathered(shape: &[usize], rows: &[usize]) -> Result<Vec<Piece>, RegionError> {
    check_gather(shape, rows)?;
    let len: usize = shape.iter().skip(1).product();
    let piece = |(at, row): (usize, &usize)| Piece { from: row * len, to: at * len, ..Piece::first(len) };
    Ok(rows.iter().enumerate().map(piece).collect())
}

/// Copies pieces that both arrays have.
///
/// # Errors
/// A piece past the end of an array.
pub fn copy<T: Copy>(target: &mut [T], source: &[T], pieces: &[Piece]) -> Result<(), RegionError> {
    for piece in pieces {
        check_piece(piece, source.len(), target.len())?;
        for run in 0..piece.runs {
            let (from, to) = (piece.from + run * piece.from_step, piece.to + run * piece.to_step);
            target[to..to + piece.len].copy_from_slice(&source[from..from + piece.len]);
        }
    }
    Ok(())
}

/// Checks that an array of `source` elements and one of `target` have a piece.
///
/// # Errors
/// It is past the end of one of them.
pub fn check_piece(piece: &Piece, source: usize, target: usize) -> Result<(), RegionError> {
    let (read, written) = piece.ends();
    if read > source || written > target {
        return Err(RegionError::Piece { read, source_elements: source, written, target_elements: target });
    }
    Ok(())
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
    copy(target, source.data, &written(target_shape, source.shape, axis, offsets)?)
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
    taken(source.data, &[sliced(source.shape, axis, start, len)?])
}

/// Rows `rows[0], rows[1], ..` of axis 0; a row may come several times.
///
/// # Errors
/// A row past the end.
pub fn gather<T: Copy>(source: View<'_, T>, rows: &[usize]) -> Result<Vec<T>, RegionError> {
    taken(source.data, &gathered(source.shape, rows)?)
}

/// Pieces that lie one behind the other where they are written.
fn taken<T: Copy>(source: &[T], pieces: &[Piece]) -> Result<Vec<T>, RegionError> {
    let mut part = Vec::with_capacity(pieces.iter().map(|piece| piece.len * piece.runs).sum());
    for piece in pieces {
        check_piece(piece, source.len(), usize::MAX)?;
        for run in 0..piece.runs {
            let from = piece.from + run * piece.from_step;
            part.extend_from_slice(&source[from..from + piece.len]);
        }
    }
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::{Piece, RegionError, View, copy, gather, slice, sliced, write};

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

    // A backend whose arrays are not slices relies on the ends.
    #[test]
    fn a_piece_ends_with_its_last_run() {
        let piece = sliced(&[2, 3, 4], 1, 1, 2).expect("fits");
        assert_eq!(piece, Piece { from: 4, from_step: 12, to: 0, to_step: 8, len: 8, runs: 2 });
        assert_eq!(piece.ends(), (24, 16));
        assert_eq!(piece.scaled(4).ends(), (96, 64));
        assert_eq!(Piece { runs: 0, ..piece }.ends(), (0, 0));
        assert!(copy(&mut [0; 16], &[1; 24], &[piece]).is_ok());
        assert!(copy(&mut [0; 16], &[1; 23], &[piece]).is_err());
        assert!(copy(&mut [0; 15], &[1; 24], &[piece]).is_err());
    }
}
