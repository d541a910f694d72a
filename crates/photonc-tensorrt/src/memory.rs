//! Memory of a build: what it is expected to take, what it took, and that what is freed serves the next build.

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

/// While it lives, the C library of this process keeps what is freed, large blocks too, for what is built next: pages that go
/// back to the system and come again cost a third of a build's time. Dropping it gives them back and restores what
/// `malloc.h` has by default. Nothing happens where the C library is not glibc.
#[cfg(feature = "tensorrt-rtx")]
#[derive(Debug)]
pub(super) struct KeepFreed(());

#[cfg(feature = "tensorrt-rtx")]
impl KeepFreed {
    pub(super) fn start() -> Self {
        // No block is mapped on its own, and the heap never shrinks.
        set_malloc(0, -1);
        KeepFreed(())
    }
}

#[cfg(feature = "tensorrt-rtx")]
impl Drop for KeepFreed {
    fn drop(&mut self) {
        set_malloc(65536, 128 << 10);
        give_back();
    }
}

/// Sets how many blocks are mapped one by one at most, and from how many free bytes on the heap shrinks.
#[cfg(all(feature = "tensorrt-rtx", target_os = "linux", target_env = "gnu"))]
fn set_malloc(mapped_blocks: std::ffi::c_int, free_bytes: std::ffi::c_int) {
    use std::ffi::c_int;
    /// Of `malloc.h`.
    const M_TRIM_THRESHOLD: c_int = -1;
    /// Of `malloc.h`.
    const M_MMAP_MAX: c_int = -4;
    unsafe extern "C" {
        fn mallopt(parameter: c_int, value: c_int) -> c_int;
    }
    // SAFETY: as `malloc.h` declares it; it may be called at any time and from any thread, and moves no block.
    unsafe {
        mallopt(M_MMAP_MAX, mapped_blocks);
        mallopt(M_TRIM_THRESHOLD, free_bytes);
    }
}

#[cfg(all(feature = "tensorrt-rtx", target_os = "linux", target_env = "gnu"))]
fn give_back() {
    unsafe extern "C" {
        fn malloc_trim(kept_bytes: usize) -> std::ffi::c_int;
    }
    // SAFETY: as above.
    unsafe { malloc_trim(0) };
}

#[cfg(all(feature = "tensorrt-rtx", not(all(target_os = "linux", target_env = "gnu"))))]
fn set_malloc(_mapped_blocks: std::ffi::c_int, _free_bytes: std::ffi::c_int) {}

#[cfg(all(feature = "tensorrt-rtx", not(all(target_os = "linux", target_env = "gnu"))))]
fn give_back() {}

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
        fs::read_to_string("/proc/self/status")
            .ok()
            .filter(|_| self.reset)
            .and_then(|status| peak_of(&status))
    }
}

/// The peak in bytes that a `/proc/PID/status` tells.
fn peak_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::{PeakMemory, peak_of};
    use std::io::Write as _;
    use std::process::Command;

    #[test]
    fn the_peak_is_read_from_the_system_and_not_guessed() {
        assert_eq!(peak_of("Name:\tphotonc\nVmPeak:\t  900 kB\nVmHWM:\t     812 kB\n"), Some(812 << 10));
        for silent in ["", "VmPeak:\t  900 kB\n", "VmHWM:\t  812 MB\n", "VmHWM:\t  many kB\n"] {
            assert_eq!(peak_of(silent), None, "{silent}");
        }
    }

    // Other tests of this process hold and free memory meanwhile, so that this one runs in a process of its own.
    #[test]
    fn a_large_buffer_raises_the_peak() {
        const ALONE: &str = "PHOTONC_TEST_ALONE";
        if std::env::var_os(ALONE).is_none() {
            let mut program = Command::new(std::env::current_exe().expect("a program"));
            let name = "memory::tests::a_large_buffer_raises_the_peak";
            let output =
                program.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().expect("runs");
            // What is skipped there is told here, past the capture of passing tests.
            std::io::stderr().write_all(&output.stderr).expect("writes");
            let told = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && told.contains("1 passed"), "{told}");
            return;
        }
        let peak = PeakMemory::start();
        let Some(before) = peak.bytes() else {
            let said = b"SKIPPED a_large_buffer_raises_the_peak: this system tells no peak of memory\n";
            std::io::stderr().write_all(said).expect("writes");
            return;
        };
        let buffer = vec![1_u8; 64 << 20];
        let after = peak.bytes().expect("is measured");
        assert!(buffer.iter().all(|byte| *byte == 1));
        assert!(after >= before + (32 << 20), "{before} then {after}");
    }
}
