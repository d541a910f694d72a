//! Weights in few bits as kernels read them. Owns their order on the device, which `kernels/codes.cuh` describes, and its
//! sizes; knows neither files nor memory.

use photonc_graph::ir::attr::Scheme;
use photonc_graph::ir::quant::BLOCK;

/// Bytes of a stretch of codes: what four lanes read at once.
const STRETCH_BYTES: usize = 64;
/// Codes that are one piece of a lane.
const PIECE: usize = 8;

/// The rows of matrices in few bits on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CodeRows {
    /// How they are kept.
    pub scheme: Scheme,
    /// Elements of a row.
    pub columns: usize,
    /// Codes stay in the order of their file.
    pub as_stored: bool,
}

/// `PHOTONC_SCHEME` of `kernels/codes.cuh`.
#[must_use]
pub fn scheme_number(scheme: Scheme) -> u8 {
    match scheme {
        Scheme::Int8 => 0,
        Scheme::Int4 => 1,
        Scheme::Fp8 => 2,
    }
}

impl CodeRows {
    /// Columns of a stretch.
    fn stretch(self) -> usize {
        match self.scheme {
            Scheme::Int8 | Scheme::Fp8 => STRETCH_BYTES,
            Scheme::Int4 => 2 * STRETCH_BYTES,
        }
    }

    /// Bytes of the codes of a row.
    #[must_use]
    pub fn code_bytes(self) -> usize {
        if self.as_stored {
            return self.scheme.code_bytes(self.columns);
        }
        self.columns.div_ceil(self.stretch()) * STRETCH_BYTES
    }

    /// Scales of a row, f32.
    #[must_use]
    pub fn scales(self) -> usize {
        match self.scheme {
            Scheme::Int8 | Scheme::Fp8 => 1,
            Scheme::Int4 if self.as_stored => self.columns / BLOCK,
            Scheme::Int4 => self.columns.div_ceil(self.stretch()) * self.stretch() / BLOCK,
        }
    }

    /// Byte of the piece of columns `8 index .. 8 index + 8`.
    fn piece(self, index: usize) -> usize {
        let in_stretch = self.stretch() / PIECE;
        let (stretch, lane, unit) = (index / in_stretch, index % 4, index % in_stretch / 4);
        stretch * STRETCH_BYTES + 16 * lane + self.scheme.code_bytes(PIECE) * unit
    }

    /// Appends stored rows of codes in the order of the device; what they are filled up with is zero.
    pub fn arrange(self, stored: &[u8], out: &mut Vec<u8>) {
        if self.as_stored {
            out.extend_from_slice(stored);
            return;
        }
        let stored_bytes = self.scheme.code_bytes(self.columns).max(1);
        for row in stored.chunks_exact(stored_bytes) {
            let start = out.len();
            out.resize(start + self.code_bytes(), 0);
            let to = &mut out[start..];
            for index in 0..self.columns.div_ceil(PIECE) {
                let piece = &mut to[self.piece(index)..][..self.scheme.code_bytes(PIECE)];
                for at in 0..PIECE.min(self.columns - index * PIECE) {
                    let column = index * PIECE + at;
                    match self.scheme {
                        Scheme::Int4 => {
                            let code = row[column / 2] >> (4 * (column % 2)) & 0xf;
                            let nibble = at / 2 + 4 * (at % 2);
                            piece[nibble / 2] |= code << (4 * (nibble % 2));
                        }
                        Scheme::Int8 | Scheme::Fp8 => {
                            piece[(at & 4) | ((at & 1) << 1) | ((at >> 1) & 1)] = row[column];
                        }
                    }
                }
            }
        }
    }

    /// Appends the scales of `rows` rows, given as they are stored, as the device has them.
    pub fn arrange_scales(self, rows: usize, stored: &[f32], out: &mut Vec<u8>) {
        let each = match self.scheme {
            Scheme::Int8 => 1,
            Scheme::Int4 => self.columns / BLOCK,
            Scheme::Fp8 => 0,
        };
        for row in 0..rows {
            let own =
                if each == 0 { stored } else { stored.get(row * each..(row + 1) * each).unwrap_or(&[]) };
            let filled = own.iter().copied().chain(std::iter::repeat(0.0)).take(self.scales());
            out.extend(filled.flat_map(f32::to_le_bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CodeRows, Scheme};

    fn arranged(scheme: Scheme, columns: usize, stored: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        CodeRows { scheme, columns, as_stored: false }.arrange(stored, &mut out);
        out
    }

    // The second 32 columns are the second half of each lane's 16 bytes; columns 1 and 2 of four change places.
    #[test]
    fn codes_of_a_byte_are_where_the_kernels_look() {
        let stored: Vec<u8> = (0..64).collect();
        let found = arranged(Scheme::Int8, 64, &stored);
        assert_eq!(found[..16], [0, 2, 1, 3, 4, 6, 5, 7, 32, 34, 33, 35, 36, 38, 37, 39]);
        assert_eq!(found[16..20], [8, 10, 9, 11]);
        assert_eq!(arranged(Scheme::Fp8, 64, &stored), found);
    }

    #[test]
    fn codes_of_half_a_byte_are_where_the_kernels_look() {
        // Code i of the first eight is i.
        let mut stored = vec![0; 64];
        stored[..4].copy_from_slice(&[0x10, 0x32, 0x54, 0x76]);
        stored[16..18].copy_from_slice(&[0x98, 0xba]);
        let found = arranged(Scheme::Int4, 128, &stored);
        // Low halves are columns 0 2 4 6, high halves of the word 1 3 5 7.
        assert_eq!(found[..4], [0x20, 0x64, 0x31, 0x75]);
        // Columns 32 .. 40.
        assert_eq!(found[4..8], [0xa8, 0x00, 0xb9, 0x00]);
    }

    #[test]
    fn rows_are_filled_up_to_whole_stretches() {
        for (scheme, columns, bytes, scales) in
            [(Scheme::Int8, 65, 128, 1), (Scheme::Int4, 160, 128, 8), (Scheme::Fp8, 3, 64, 1)]
        {
            let rows = CodeRows { scheme, columns, as_stored: false };
            assert_eq!((rows.code_bytes(), rows.scales()), (bytes, scales));
            let stored = vec![0x11; 2 * scheme.code_bytes(columns)];
            let found = arranged(scheme, columns, &stored);
            assert_eq!(found.len(), 2 * bytes);
            let ones: u32 = found.iter().map(|byte| byte.count_ones()).sum();
            assert_eq!(ones as usize, 2 * stored.len(), "every code is there once");
        }
    }

    #[test]
    fn every_row_has_scales() {
        let scales = |scheme, columns, rows: usize, stored: &[f32]| {
            let mut out = Vec::new();
            CodeRows { scheme, columns, as_stored: false }.arrange_scales(rows, stored, &mut out);
            out.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect::<Vec<_>>()
        };
        assert_eq!(scales(Scheme::Fp8, 8, 3, &[2.0]), [2.0, 2.0, 2.0]);
        assert_eq!(scales(Scheme::Int8, 8, 2, &[2.0, 3.0]), [2.0, 3.0]);
        assert_eq!(
            scales(Scheme::Int4, 64, 2, &[1.0, 2.0, 3.0, 4.0]),
            [1.0, 2.0, 0.0, 0.0, 3.0, 4.0, 0.0, 0.0]
        );
    }
}
