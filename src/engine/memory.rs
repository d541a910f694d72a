//! Memory of a build: what it is expected to take, what it took, and that what is freed goes back to the system.

use std::fs;

/// Host memory that the vendor's libraries take whatever they build, in bytes.
const BASE_BYTES: u64 = 600 << 20;
/// How often the weights of a graph are in memory at once: read from ONNX, prepared, and in the engine.
const COPIES_OF_WEIGHTS: u64 = 3;

/// Host memory expected while an engine of `weights_bytes` of weights is built, in bytes. An upper bound for the graphs of a
/// model together; a smaller graph of wide layers may take a fifth more, since its engine holds some weights twice, laid
/// out for few and for many rows.
#[must_use]
pub fn predicted_peak_bytes(weights_bytes: u64) -> u64 {
    BASE_BYTES + COPIES_OF_WEIGHTS * weights_bytes
}

/// Makes the C library of this process give large blocks back to the system as soon as they are freed, and gives back what
/// it holds. It would keep blocks of weights, of up to 32 MiB, for later ones that rarely fit them: a fifth of a peak.
/// Nothing happens where the C library is not glibc.
#[cfg(feature = "tensorrt-rtx")]
pub(crate) fn give_back_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;
        /// `M_MMAP_THRESHOLD` of `malloc.h`.
        const MMAP_THRESHOLD: c_int = -3;
        /// Blocks from this size on are mapped one by one.
        const LARGE_BYTES: c_int = 1 << 20;
        unsafe extern "C" {
            fn mallopt(parameter: c_int, value: c_int) -> c_int;
            fn malloc_trim(kept_bytes: usize) -> c_int;
        }
        // SAFETY: as `malloc.h` declares them; both may be called at any time and from any thread, and move no block.
        unsafe {
            mallopt(MMAP_THRESHOLD, LARGE_BYTES);
            malloc_trim(0);
        }
    }
}

/// The most memory that this process has held since the measurement began.
#[derive(Debug)]
pub struct PeakMemory {
    /// Whether the system let us begin anew; otherwise the peak is that of the whole run.
    reset: bool,
}

impl PeakMemory {
    /// Begins to measure. Linux only; elsewhere nothing is measured.
    #[must_use]
    pub fn start() -> Self {
        PeakMemory { reset: fs::write("/proc/self/clear_refs", "5").is_ok() }
    }

    /// The most bytes held since; `None` where the system does not tell.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        let status = fs::read_to_string("/proc/self/status").ok().filter(|_| self.reset)?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib << 10)
    }
}

#[cfg(test)]
mod tests {
    use super::PeakMemory;

    #[test]
    fn a_large_buffer_raises_the_peak() {
        let peak = PeakMemory::start();
        let Some(before) = peak.bytes() else { return };
        let buffer = vec![1_u8; 64 << 20];
        let after = peak.bytes().expect("is measured");
        assert!(buffer.iter().all(|byte| *byte == 1));
        assert!(after >= before + (32 << 20), "{before} then {after}");
    }
}
