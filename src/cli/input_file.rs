//! Files that a user names to be read whole. Owns that what never ends is no file: of a pipe or a device only so much is taken.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Bytes that are taken of what has no size of its own.
const MAX_STREAM_BYTES: u64 = 64 << 20;

/// The bytes of a file.
///
/// # Errors
/// It cannot be read, or is a pipe or device that gives more than so many bytes.
pub fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    if file.metadata()?.is_file() {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    stream(&mut file)
}

/// The bytes of a stream.
///
/// # Errors
/// It cannot be read, or gives more than so many bytes.
pub fn stream(stream: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(MAX_STREAM_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_STREAM_BYTES {
        let most = MAX_STREAM_BYTES >> 20;
        return Err(io::Error::other(format!("gives more than {most} MiB; write them to a file first")));
    }
    Ok(bytes)
}

/// A file of UTF-8 text.
///
/// # Errors
/// As [`bytes`], or it is no such text.
pub fn text(path: &Path) -> io::Result<String> {
    String::from_utf8(bytes(path)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        io::Error::new(io::ErrorKind::InvalidData, format!("no UTF-8 text: byte {at} begins no character"))
    })
}
