//! Standard output as the run finds it. Owns what is made of one that is closed, full, or whose reader went away.

use super::signals;
use super::visible::visible;
use std::io::{ErrorKind, IsTerminal as _, Result, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether standard output was closed at the start. The standard library opens `/dev/null` in its place, and results would
/// vanish without a word.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// Looks before the standard library does.
#[cfg(target_os = "linux")]
#[used]
// SAFETY: the loader calls what stands in this section with no expectations of it, before `main`; the function makes one system
// call and stores a flag.
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

#[cfg(target_os = "linux")]
extern "C" fn look() {
    let closed = rustix::io::fcntl_getfd(rustix::stdio::stdout()).is_err();
    CLOSED.store(closed, Ordering::Relaxed);
}

/// Fails where nothing that is printed can reach anybody.
pub fn check_open() -> Result<()> {
    match CLOSED.load(Ordering::Relaxed) {
        true => Err(std::io::Error::other("standard output is closed")),
        false => Ok(()),
    }
}

/// Prints a result; a reader that went away (`photonc .. | head`) is no error.
pub fn print(text: &str) -> Result<()> {
    match put(visible(text).as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

/// Prints a part of a result that is still being made, as it is but on a terminal. A reader that went away ends the run: there
/// is nobody to go on for.
pub fn stream(text: &str) -> Result<()> {
    let shown = match std::io::stdout().is_terminal() {
        true => put(visible(text).as_bytes()),
        false => put(text.as_bytes()),
    };
    match shown {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => signals::end(0),
        printed => printed,
    }
}

/// Prints bytes that are no text.
pub fn bytes(bytes: &[u8]) -> Result<()> {
    put(bytes)
}

fn put(bytes: &[u8]) -> Result<()> {
    check_open()?;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}
