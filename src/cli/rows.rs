//! How many prompts run side by side on a GPU: a number, or what fits. Owns the words of the options.

use crate::runtime::launch::replicas::RowCount;

/// Device memory that `max` leaves free: what recordings and loaded kernels take is known to the driver alone. 2 GiB, as
/// the paper's protocol has it.
pub const DEFAULT_RESERVE_MIB: usize = 2048;

/// Prompts at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// So many.
    Rows(usize),
    /// As many as fit.
    Max,
}

/// For clap: a number of things of which there is at least one.
pub fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("expected a number from 1".to_owned()),
    }
}

impl std::str::FromStr for Batch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(rows) if rows > 0 => Ok(Batch::Rows(rows)),
            _ if text == "max" => Ok(Batch::Max),
            _ => Err("expected a number of prompts from 1, or `max`".to_owned()),
        }
    }
}

impl Batch {
    /// The rows of a decoder: what fits leaves `reserve_mib` free and is no more than `at_most`.
    pub fn rows(self, reserve_mib: usize, at_most: usize) -> RowCount {
        match self {
            Batch::Rows(rows) => RowCount::Fixed(rows),
            Batch::Max => RowCount::Fitting { reserve_bytes: reserve_mib.saturating_mul(1 << 20), at_most },
        }
    }
}
