//! The sources of kernels, embedded, and which units of them are worth compiling ahead of need. Owns the names under
//! which sources include each other and the macros that specialise them.

use super::launcher::{Source, Unit};
use photonc_graph::ir::dtype::Dtype;

/// Headers that every source may include, by name.
pub const HEADERS: [(&str, &str); 7] = [
    ("abi.cuh", include_str!("kernels/abi.cuh")),
    ("device.cuh", include_str!("kernels/device.cuh")),
    ("linear.cuh", include_str!("kernels/linear.cuh")),
    ("few.cuh", include_str!("kernels/few.cuh")),
    ("general.cuh", include_str!("kernels/general.cuh")),
    ("codes.cuh", include_str!("kernels/codes.cuh")),
    ("attention.cuh", include_str!("kernels/attention.cuh")),
];

impl Source {
    /// Every source.
    pub const ALL: [Source; 10] = [
        Source::Linear,
        Source::Skinny,
        Source::Codes,
        Source::Rows,
        Source::Attention,
        Source::Window,
        Source::Stream,
        Source::Sample,
        Source::General,
        Source::Experts,
    ];

    /// Whether its units are of a width of heads.
    #[must_use]
    pub fn of_heads(self) -> bool {
        matches!(self, Source::Attention | Source::Window | Source::Stream)
    }

    /// File name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Source::Linear => "linear.cu",
            Source::Skinny => "skinny.cu",
            Source::Codes => "codes.cu",
            Source::Rows => "rows.cu",
            Source::Attention => "attention.cu",
            Source::Window => "window.cu",
            Source::Stream => "stream.cu",
            Source::Sample => "sample.cu",
            Source::General => "general_attention.cu",
            Source::Experts => "experts.cu",
        }
    }

    /// The CUDA C++ text.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Source::Linear => include_str!("kernels/linear.cu"),
            Source::Skinny => include_str!("kernels/skinny.cu"),
            Source::Codes => include_str!("kernels/codes.cu"),
            Source::Rows => include_str!("kernels/rows.cu"),
            Source::Attention => include_str!("kernels/attention.cu"),
            Source::Window => include_str!("kernels/window.cu"),
            Source::Stream => include_str!("kernels/stream.cu"),
            Source::Sample => include_str!("kernels/sample.cu"),
            Source::General => include_str!("kernels/general_attention.cu"),
            Source::Experts => include_str!("kernels/experts.cu"),
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
        match self.source {
            source if source.of_heads() => macros.push(format!("-DPHOTONC_HEAD_DIM={}", self.size)),
            Source::Skinny => macros.push(format!("-DPHOTONC_ROWS={}", self.size)),
            Source::Codes => macros.push(format!("-DPHOTONC_SCHEME={}", self.size)),
            _ => {}
        }
        Some(macros)
    }
}

/// Head widths that checks compile: the smallest, one of an odd half, the paper's, those of common models, the largest.
pub const CHECKED_HEAD_DIMS: [usize; 9] = [2, 8, 14, 52, 56, 60, 64, 128, 256];

/// Rows at once that `skinny.cu` is specialised to.
pub const SKINNY_ROWS: [usize; 4] = [8, 16, 32, 64];

/// Schemes that `codes.cu` is specialised to, by number.
pub const CODE_SCHEMES: [usize; 3] = [0, 1, 2];

/// Every unit that checks compile.
#[must_use]
pub fn checked_units() -> Vec<Unit> {
    let mut units = Vec::new();
    for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
        for source in Source::ALL {
            let sizes: &[usize] = match source {
                _ if source.of_heads() => &CHECKED_HEAD_DIMS,
                Source::Skinny if dtype == Dtype::F32 => &[],
                Source::Skinny => &SKINNY_ROWS,
                Source::Codes => &CODE_SCHEMES,
                _ => &[0],
            };
            units.extend(sizes.iter().map(|size| Unit { source, dtype, size: *size }));
        }
    }
    units
}
