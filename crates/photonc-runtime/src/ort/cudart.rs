//! Copies in a GPU's memory, by CUDA's runtime library, which the CUDA execution provider has loaded itself. Owns the calls,
//! their stream and their errors; allocates nothing.
//!
//! ONNX Runtime runs graphs on streams of its own and waits for them before it returns. Copies are queued on one stream here:
//! `wait` has to come between them and what ONNX Runtime does next.

use super::copies::Copies;
use crate::region::Piece;
use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr;

const FILE: &str = "libcudart.so.13";
/// `cudaMemcpyDefault`: the direction follows from the addresses.
const ANY_DIRECTION: c_int = 4;
/// `cudaStreamNonBlocking`: unordered with the default stream.
const NON_BLOCKING: c_uint = 1;

type Stream = *mut c_void;
type Code = c_int;

/// A queue of copies on one GPU.
pub(super) struct Queue {
    device: c_int,
    stream: Stream,
    calls: Calls,
}

struct Calls {
    select: unsafe extern "C" fn(c_int) -> Code,
    make: unsafe extern "C" fn(*mut Stream, c_uint) -> Code,
    destroy: unsafe extern "C" fn(Stream) -> Code,
    wait: unsafe extern "C" fn(Stream) -> Code,
    fill: unsafe extern "C" fn(*mut c_void, c_int, usize, Stream) -> Code,
    copy: unsafe extern "C" fn(*mut c_void, *const c_void, usize, c_int, Stream) -> Code,
    copy_runs:
        unsafe extern "C" fn(*mut c_void, usize, *const c_void, usize, usize, usize, c_int, Stream) -> Code,
    name: unsafe extern "C" fn(Code) -> *const c_char,
}

// SAFETY: a stream and functions, both of which any thread may use.
unsafe impl Send for Queue {}

impl Calls {
    fn load() -> Result<Self, String> {
        // SAFETY: its initialisers have no requirements, and it is loaded already.
        let library = unsafe { Library::new(FILE) }.map_err(|error| error.to_string())?;
        // It runs for as long as ONNX Runtime's provider does, which is never unloaded.
        let library: &'static Library = Box::leak(Box::new(library));
        let missing = |error: libloading::Error| format!("{FILE}: {error}");
        // SAFETY: the signatures are those of CUDA 13's runtime API.
        unsafe {
            Ok(Calls {
                select: *library.get(b"cudaSetDevice\0").map_err(missing)?,
                make: *library.get(b"cudaStreamCreateWithFlags\0").map_err(missing)?,
                destroy: *library.get(b"cudaStreamDestroy\0").map_err(missing)?,
                wait: *library.get(b"cudaStreamSynchronize\0").map_err(missing)?,
                fill: *library.get(b"cudaMemsetAsync\0").map_err(missing)?,
                copy: *library.get(b"cudaMemcpyAsync\0").map_err(missing)?,
                copy_runs: *library.get(b"cudaMemcpy2DAsync\0").map_err(missing)?,
                name: *library.get(b"cudaGetErrorString\0").map_err(missing)?,
            })
        }
    }

    fn check(&self, call: &str, code: Code) -> Result<(), String> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: takes any number and gives a static string.
        let words = unsafe { CStr::from_ptr((self.name)(code)) };
        Err(format!("{call}: {} (error {code})", words.to_string_lossy()))
    }

    fn select(&self, device: c_int) -> Result<(), String> {
        // SAFETY: takes any number.
        self.check("cudaSetDevice", unsafe { (self.select)(device) })
    }
}

impl Queue {
    pub(super) fn on(device: c_int) -> Result<Self, String> {
        let calls = Calls::load()?;
        calls.select(device)?;
        let mut stream = ptr::null_mut();
        // SAFETY: a place for the stream, written before the call returns.
        let code = unsafe { (calls.make)(&raw mut stream, NON_BLOCKING) };
        calls.check("cudaStreamCreateWithFlags", code)?;
        Ok(Queue { device, stream, calls })
    }

    /// Queues a copy between neighbours, whichever side is the host's.
    ///
    /// # Safety
    /// Both have as many bytes, on this GPU or in host memory.
    unsafe fn queue(&self, to: *mut u8, from: *const u8, bytes: usize) -> Result<(), String> {
        self.calls.select(self.device)?;
        // SAFETY: as promised by the caller; the stream is this queue's.
        let code = unsafe { (self.calls.copy)(to.cast(), from.cast(), bytes, ANY_DIRECTION, self.stream) };
        self.calls.check("cudaMemcpyAsync", code)
    }
}

impl Copies for Queue {
    unsafe fn zero(&self, to: *mut u8, bytes: usize) -> Result<(), String> {
        self.calls.select(self.device)?;
        // SAFETY: as promised by the caller; the stream is this queue's.
        let code = unsafe { (self.calls.fill)(to.cast(), 0, bytes, self.stream) };
        self.calls.check("cudaMemsetAsync", code)
    }

    // Memory that may be paged out has been read when the call returns.
    unsafe fn upload(&self, to: *mut u8, from: &[u8]) -> Result<(), String> {
        // SAFETY: as promised by the caller.
        unsafe { self.queue(to, from.as_ptr(), from.len()) }
    }

    unsafe fn download(&self, to: &mut [u8], from: *const u8) -> Result<(), String> {
        // SAFETY: as promised by the caller; it ends before `to` does.
        unsafe { self.queue(to.as_mut_ptr(), from, to.len())? };
        self.wait()
    }

    unsafe fn copy(&self, to: *mut u8, from: *const u8, piece: &Piece) -> Result<(), String> {
        let Piece { from: read, from_step, to: written, to_step, len, runs } = *piece;
        // SAFETY: as promised by the caller.
        let (to, from) = unsafe { (to.add(written), from.add(read)) };
        if runs == 1 {
            // A single run may be longer than the largest step that CUDA takes.
            // SAFETY: as promised by the caller.
            return unsafe { self.queue(to, from, len) };
        }
        self.calls.select(self.device)?;
        // SAFETY: as promised by the caller; the stream is this queue's.
        let code = unsafe {
            let (to, from) = (to.cast(), from.cast());
            (self.calls.copy_runs)(to, to_step, from, from_step, len, runs, ANY_DIRECTION, self.stream)
        };
        self.calls.check("cudaMemcpy2DAsync", code)
    }

    fn wait(&self) -> Result<(), String> {
        self.calls.select(self.device)?;
        // SAFETY: the stream is this queue's.
        self.calls.check("cudaStreamSynchronize", unsafe { (self.calls.wait)(self.stream) })
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // What failed so late has no one to hear of it.
        let _waited = self.wait();
        // SAFETY: the stream is this queue's, and not used again.
        let _destroyed = unsafe { (self.calls.destroy)(self.stream) };
    }
}
