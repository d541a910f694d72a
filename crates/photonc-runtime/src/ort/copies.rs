//! How bytes get from one block of a provider's memory to another and across to the host. Owns the trait and its answer for
//! host memory; a GPU's is `cudart`.

use crate::region::Piece;

/// Copies in one memory, done in the order in which they are asked for, by the next `wait` at the latest. Addresses of the
/// memory need not be the host's: nothing reads them but what does the copying.
pub trait Copies: Send {
    /// Writes zeros.
    ///
    /// # Errors
    /// The device refuses.
    ///
    /// # Safety
    /// `to` is the start of `bytes > 0` bytes of this memory, which stay until the next `wait`.
    unsafe fn zero(&self, to: *mut u8, bytes: usize) -> Result<(), String>;

    /// Writes bytes of the host, which have been read when this returns.
    ///
    /// # Errors
    /// The device refuses.
    ///
    /// # Safety
    /// `to` is the start of `from.len() > 0` bytes of this memory, which stay until the next `wait`.
    unsafe fn upload(&self, to: *mut u8, from: &[u8]) -> Result<(), String>;

    /// Reads bytes to the host, after all that was asked for before; they are there when this returns.
    ///
    /// # Errors
    /// The device refuses, or something asked for before has failed.
    ///
    /// # Safety
    /// `from` is the start of `to.len() > 0` bytes of this memory.
    unsafe fn download(&self, to: &mut [u8], from: *const u8) -> Result<(), String>;

    /// Copies a piece, in bytes, none of whose numbers is 0 but the starts.
    ///
    /// # Errors
    /// The device refuses.
    ///
    /// # Safety
    /// `from` and `to` are starts in this memory that have the piece and do not overlap; both stay until the next `wait`.
    unsafe fn copy(&self, to: *mut u8, from: *const u8, piece: &Piece) -> Result<(), String>;

    /// Waits for all that was asked for.
    ///
    /// # Errors
    /// Something asked for has failed.
    fn wait(&self) -> Result<(), String>;
}

/// Host memory, copied at once.
#[derive(Clone, Copy, Debug)]
pub struct Host;

impl Copies for Host {
    unsafe fn zero(&self, to: *mut u8, bytes: usize) -> Result<(), String> {
        // SAFETY: as promised by the caller.
        unsafe { to.write_bytes(0, bytes) };
        Ok(())
    }

    unsafe fn upload(&self, to: *mut u8, from: &[u8]) -> Result<(), String> {
        // SAFETY: as promised by the caller.
        unsafe { to.copy_from_nonoverlapping(from.as_ptr(), from.len()) };
        Ok(())
    }

    unsafe fn download(&self, to: &mut [u8], from: *const u8) -> Result<(), String> {
        // SAFETY: as promised by the caller.
        unsafe { from.copy_to_nonoverlapping(to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    unsafe fn copy(&self, to: *mut u8, from: *const u8, piece: &Piece) -> Result<(), String> {
        for run in 0..piece.runs {
            let (read, written) = (piece.from + run * piece.from_step, piece.to + run * piece.to_step);
            // SAFETY: as promised by the caller.
            unsafe { from.add(read).copy_to_nonoverlapping(to.add(written), piece.len) };
        }
        Ok(())
    }

    fn wait(&self) -> Result<(), String> {
        Ok(())
    }
}
