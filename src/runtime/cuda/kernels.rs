//! The sources of kernels, embedded, and which units of them are worth compiling ahead of need. Owns the names under
//! which sources include each other and the macros that specialise them.

use super::device::{Source, Unit};
use crate::ir::dtype::Dtype;

/// Headers that every source may include, by name.
pub const HEADERS: [(&str, &str); 2] =
    [("abi.cuh", include_str!("kernels/abi.cuh")), ("device.cuh", include_str!("kernels/device.cuh"))];

impl Source {
    /// Every source.
    pub const ALL: [Source; 4] = [Source::Linear, Source::Rows, Source::Attention, Source::Sample];

    /// File name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Source::Linear => "linear.cu",
            Source::Rows => "rows.cu",
            Source::Attention => "attention.cu",
            Source::Sample => "sample.cu",
        }
    }

    /// The CUDA C++ text.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Source::Linear => include_str!("kernels/linear.cu"),
            Source::Rows => include_str!("kernels/rows.cu"),
            Source::Attention => include_str!("kernels/attention.cu"),
            Source::Sample => include_str!("kernels/sample.cu"),
        }
    }
}

impl Unit {
    /// Macros that specialise the source, as compiler options; `None` for an element type that no kernel has.
    #[must_use]
    pub fn macros(self) -> Option<Vec<String>> {
        let number = match self.dtype {
            Dtype::F32 => 0,
            Dtype::Bf16 => 1,
            Dtype::F16 => 2,
            Dtype::I64 | Dtype::Bool => return None,
        };
        let mut macros = vec![format!("-DPHOTONC_TYPE={number}")];
        if self.source == Source::Attention {
            macros.push(format!("-DPHOTONC_HEAD_DIM={}", self.head_dim));
        }
        Some(macros)
    }
}

/// Head widths that checks compile: the smallest, one of an odd half, the paper's, those of common models, the largest.
pub const CHECKED_HEAD_DIMS: [usize; 9] = [2, 8, 14, 52, 56, 60, 64, 128, 256];

/// Every unit that checks compile.
#[must_use]
pub fn checked_units() -> Vec<Unit> {
    let mut units = Vec::new();
    for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
        for source in Source::ALL {
            let widths: &[usize] = if source == Source::Attention { &CHECKED_HEAD_DIMS } else { &[0] };
            units.extend(widths.iter().map(|head_dim| Unit { source, dtype, head_dim: *head_dim }));
        }
    }
    units
}
