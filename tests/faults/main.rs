//! What becomes of what the program writes where the system fails it (`faults.py`), and that the same inputs give the same
//! bytes wherever and however they are read (`reproducible.py`). docs/testing.md says how both are made.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};

/// Exit code of a script that cannot do its work here.
const SKIPPED: i32 = 77;

/// Runs a script of this folder on the program; `None`, said aloud, where what it needs is missing.
fn script(test: &str, name: &str) -> Option<Output> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let deps = std::env::var_os("PHOTONC_DEPS").map_or_else(|| root.join(".deps"), |deps| root.join(deps));
    let python = deps.join("py/bin/python");
    let run = Command::new(python)
        .arg(root.join("tests/faults").join(name))
        .arg(env!("CARGO_BIN_EXE_photonc"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output();
    let why = match run {
        Ok(run) if run.status.code() == Some(SKIPPED) => text(&run.stdout),
        Ok(run) => return Some(run),
        Err(_) => "needs scripts/setup-test-deps.sh".to_owned(),
    };
    // Past the capture of passing tests.
    std::io::stderr().write_all(format!("SKIPPED {test}: {}\n", why.trim()).as_bytes()).unwrap();
    None
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Of every system call by which the program writes, some are made to fail: the target stays whole, the message names the
/// file and the reason, and the next run goes on as if nothing had been.
#[test]
fn no_fault_of_the_system_destroys_anything() {
    let Some(run) = script("no_fault_of_the_system_destroys_anything", "faults.py") else { return };
    assert!(run.status.success(), "{}{}", text(&run.stdout), text(&run.stderr));
}

#[test]
fn the_same_inputs_give_the_same_bytes_anywhere() {
    let Some(run) = script("the_same_inputs_give_the_same_bytes_anywhere", "reproducible.py") else { return };
    assert!(run.status.success(), "{}{}", text(&run.stdout), text(&run.stderr));
}
