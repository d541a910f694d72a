//! Every example runs as its header says.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The programs that cargo builds beside the tests.
fn example(name: &str) -> PathBuf {
    let photonc = Path::new(env!("CARGO_BIN_EXE_photonc"));
    photonc.parent().unwrap_or(Path::new(".")).join("examples").join(name)
}

fn run(name: &str, arguments: &[&Path]) -> Result<String, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = example(name);
    // `cargo test` builds examples, `cargo test --test examples` does not.
    assert!(program.is_file(), "{} is not there; run `cargo build --examples`", program.display());
    let output = Command::new(program).args(arguments).current_dir(root).output()?;
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn export_and_inspect_lists_the_graphs() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let out =
        run("export_and_inspect", &[Path::new("examples/paper-golden"), &folder.path().join("bundle")])?;
    assert!(out.lines().any(|line| line.starts_with("coarse: ")), "{out}");
    Ok(())
}

#[test]
fn generate_prints_one_burst_a_meta_context() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let out = run("generate", &[Path::new("examples/paper-golden"), &folder.path().join("bundle")])?;
    let bursts: Vec<usize> = out.lines().map(|line| line.split(' ').count()).collect();
    assert_eq!(bursts, [16, 16], "{out}");
    Ok(())
}

#[test]
fn why_not_split_names_the_path() -> Result<(), Box<dyn Error>> {
    let out = run("why_not_split", &[])?;
    assert!(out.contains("recgen: split at reconstruction"), "{out}");
    assert!(out.contains("a sample reaches the state `top_state`"), "{out}");
    Ok(())
}

// Cargo builds what it finds; this list must not be shorter.
#[test]
fn every_example_is_run() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut found: Vec<String> = std::fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().strip_suffix(".rs")?.to_owned()))
        .collect();
    found.sort();
    assert_eq!(found, ["export_and_inspect", "generate", "why_not_split"]);
    Ok(())
}
