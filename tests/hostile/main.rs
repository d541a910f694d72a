//! Hostile inputs of every kind (`hostile.py`): each is refused by name or is right to accept, within its time and memory, and
//! none ends as a bug, by a signal or on a terminal. docs/testing.md says how they are made.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// `PHOTONC_HOSTILE` inputs (200) from `PHOTONC_HOSTILE_SEED` (1).
#[test]
fn no_hostile_input_does_more_than_it_may() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let deps = std::env::var_os("PHOTONC_DEPS").map_or_else(|| root.join(".deps"), |deps| root.join(deps));
    let python = deps.join("py/bin/python");
    let has_packages = Command::new(&python).args(["-c", "import blake3"]).output();
    if !has_packages.is_ok_and(|output| output.status.success()) {
        // Past the capture of passing tests.
        let told = b"SKIPPED no_hostile_input_does_more_than_it_may: needs scripts/setup-test-deps.sh\n";
        std::io::stderr().write_all(told).unwrap();
        return;
    }
    let setting = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let run = Command::new(python)
        .arg(root.join("tests/hostile/hostile.py"))
        .arg(env!("CARGO_BIN_EXE_photonc"))
        .args([
            "--count",
            &setting("PHOTONC_HOSTILE", "200"),
            "--seed",
            &setting("PHOTONC_HOSTILE_SEED", "1"),
        ])
        .output()
        .unwrap();
    let [found, said] = [run.stdout, run.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(run.status.success(), "{found}{said}");
}
