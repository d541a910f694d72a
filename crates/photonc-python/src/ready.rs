//! A pipe that can be read when a stream has something, for event loops. Owns that no thread of the engine waits for a reader.

use rustix::io::{Errno, ioctl_fionbio};
use std::io::{PipeReader, Read as _, Write as _};
use std::os::fd::{AsRawFd, RawFd};

/// The end that an event loop watches.
pub struct Ready(PipeReader);

impl Ready {
    /// A pipe, and what writes to it.
    pub fn new() -> std::io::Result<(Self, impl Fn() + Send + 'static)> {
        let (reader, writer) = std::io::pipe()?;
        ioctl_fionbio(&reader, true).map_err(Errno::kind)?;
        ioctl_fionbio(&writer, true).map_err(Errno::kind)?;
        let wake = move || {
            // A full pipe can be read already; one whose reader has gone has nobody to tell.
            let _told = (&writer).write(&[0]);
        };
        Ok((Ready(reader), wake))
    }

    /// Its number.
    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Takes what was written.
    pub fn drain(&self) {
        let mut bytes = [0; 256];
        while (&self.0).read(&mut bytes).is_ok_and(|count| count == bytes.len()) {}
    }
}
