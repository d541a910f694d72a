//! Folders that appear whole: runs that are ended, killed or started twice, targets that cannot be renamed. Each test runs the
//! program.

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

type TestResult = Result<(), Box<dyn Error>>;

fn program() -> &'static str {
    env!("CARGO_BIN_EXE_photonc")
}

fn photonc(folder: &Path, arguments: &[&str]) -> Result<Output, Box<dyn Error>> {
    Ok(Command::new(program()).current_dir(folder).args(arguments).output()?)
}

fn names(folder: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let entries: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    let mut names: Vec<String> =
        entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Starts a run that takes long and signals it once it has begun to write in `folder`.
fn signalled(folder: &Path, arguments: &[&str], signal: &str) -> Result<Output, Box<dyn Error>> {
    let mut command = Command::new(program());
    command.current_dir(folder).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn()?;
    for _ in 0..500 {
        std::thread::sleep(Duration::from_millis(10));
        if names(folder)?.iter().any(|name| name.contains("photonc-new")) {
            break;
        }
    }
    Command::new("kill").args(["-s", signal, &child.id().to_string()]).status()?;
    Ok(child.wait_with_output()?)
}

/// 130 or 143, one line, nothing behind; and what a kill leaves the next run takes away, whatever it writes.
#[test]
fn an_ended_run_leaves_nothing() -> TestResult {
    let folder = tempfile::tempdir()?;
    let synth = ["synth", "--preset", "paper-1.2b", "-o", "new/big"];
    fs::create_dir(folder.path().join("new"))?;
    let inside = folder.path().join("new");
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let ended = signalled(&inside, &["synth", "--preset", "paper-1.2b", "-o", "big"], signal)?;
        assert_eq!(ended.status.code(), Some(code), "{}", stderr(&ended));
        assert_eq!(
            stderr(&ended),
            format!("photonc: ended by SIG{signal}; nothing that was begun is left\n")
        );
        assert!(names(&inside)?.is_empty(), "{:?}", names(&inside)?);
    }
    let killed = signalled(&inside, &["synth", "--preset", "paper-1.2b", "-o", "big"], "KILL")?;
    assert_eq!(killed.status.signal(), Some(9));
    assert_eq!(names(&inside)?.len(), 1, "a killed run cannot remove anything");
    assert!(photonc(&inside, &["synth", "--preset", "tiny", "-o", "other", "-q"])?.status.success());
    assert_eq!(names(&inside)?, ["other"]);
    // Folders made on the way go too.
    let export = ["export", "new/other", "-o", "a/b/bundle", "--max-tokens", "1"];
    assert_eq!(photonc(folder.path(), &export)?.status.code(), Some(1));
    assert_eq!(names(folder.path())?, ["new"], "{synth:?}");
    Ok(())
}

/// Of two exports to one place that do not replace, one wins and the other says so.
#[test]
fn two_runs_cannot_both_have_a_place() -> TestResult {
    let folder = tempfile::tempdir()?;
    for seed in ["1", "2"] {
        let synth = ["synth", "--preset", "tiny", "--seed", seed, "-o", seed, "-q"];
        assert!(photonc(folder.path(), &synth)?.status.success());
    }
    for round in 0..3 {
        if round == 1 {
            fs::create_dir(folder.path().join("bundle"))?;
        }
        let start = |model: &str| {
            let mut command = Command::new(program());
            command.current_dir(folder.path()).args(["export", model, "-o", "bundle", "-q"]);
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
        };
        let (one, other) = (start("1")?, start("2")?);
        let ended = [one.wait_with_output()?, other.wait_with_output()?];
        let codes: Vec<_> = ended.iter().map(|output| output.status.code()).collect();
        assert!(codes.contains(&Some(0)) && codes.contains(&Some(1)), "{codes:?}");
        assert!(ended.iter().any(|output| stderr(output).contains("a bundle is there already")));
        assert_eq!(names(folder.path())?, ["1", "2", "bundle"]);
        assert!(photonc(folder.path(), &["inspect", "bundle"])?.status.success());
        fs::remove_dir_all(folder.path().join("bundle"))?;
    }
    Ok(())
}

/// The folder one is in stays the folder one is in, and any name will do.
#[test]
fn every_folder_that_a_path_means_can_be_written() -> TestResult {
    let folder = tempfile::tempdir()?;
    assert!(photonc(folder.path(), &["synth", "--preset", "tiny", "-o", "model", "-q"])?.status.success());
    let here = folder.path().join("here");
    fs::create_dir(&here)?;
    for arguments in [
        &["export", "../model", "-o", "."][..],
        &["export", "../model", "-o", ".", "--force"],
        &["export", "../model", "-o", "../here", "--force"],
        &["refit", ".", "--weights", "../model"],
    ] {
        let output = photonc(&here, arguments)?;
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        assert!(!names(&here)?.iter().any(|name| name.starts_with('.')), "{:?}", names(&here)?);
        assert!(photonc(folder.path(), &["verify", "here", "--graph", "encode"])?.status.success());
    }
    let again = photonc(&here, &["export", "../model", "-o", "."])?;
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains(".: a bundle is there already"), "{}", stderr(&again));
    std::os::unix::fs::symlink("beyond", folder.path().join("link"))?;
    let long = "n".repeat(255);
    for out in [OsStr::new("link"), OsStr::from_bytes(b"out\xff"), OsStr::new(&long), OsStr::new("a/../b/")] {
        let mut command = Command::new(program());
        command.current_dir(folder.path()).args(["export", "model", "--json", "-o"]).arg(out);
        fs::create_dir_all(folder.path().join("a"))?;
        let output = command.output()?;
        assert!(output.status.success(), "{out:?}: {}", stderr(&output));
        assert!(folder.path().join(out).join("photon.json").is_file(), "{out:?}");
    }
    assert!(folder.path().join("link").is_symlink());
    let root = photonc(folder.path(), &["export", "model", "-o", "/"])?;
    assert!(root.status.code() == Some(1) && stderr(&root).contains("root"), "{}", stderr(&root));
    Ok(())
}

/// Mount points and layers cannot be renamed. Resources a namespace of its own; where there is none, nothing is tested.
#[test]
fn mount_points_and_layers_are_filled() -> TestResult {
    let folder = tempfile::tempdir()?;
    let script = r#"
        set -e
        mount -t tmpfs tmpfs . && cd "$PWD" || exit 77
        $P synth --preset tiny -o m -q >o; $P synth --preset tiny --seed 1 -o n -q >o
        mkdir v; mount -t tmpfs tmpfs v; mkdir v/lost+found
        for run in "export m -o v" "export n -o v --force" "refit v --weights m" "inspect v"; do $P $run -q >o; done
        ls -A v | grep -v '^lost+found$' | grep '^\.' && exit 1
        $P export m -o v 2>e && exit 1; grep -q 'already' e
        rm -rf v/[!l]* v/lost+found; $P synth --preset tiny -o v -q >o; $P synth --preset tiny -o v -q --force >o
        umount v; mkdir -p l u w f l/e; $P export m -o l/b -q >o
        mount -t overlay o -o lowerdir=l,upperdir=u,workdir=w,userxattr f 2>e || exit 77
        for run in "export n -o f/b --force" "refit f/b --weights m" "export m -o f/e" "inspect f/b" "inspect f/e"; do
          $P $run -q >o; done
        test "$(ls -A f)" = "$(printf 'b\ne')"
    "#;
    let mut command = Command::new("unshare");
    let output =
        command.current_dir(folder.path()).env("P", program()).args(["-rm", "sh", "-c", script]).output();
    let Ok(output) = output else { return Ok(()) };
    let text = stderr(&output);
    let skipped = output.status.code() == Some(77) || text.contains("unshare: ");
    assert!(skipped || output.status.success(), "{}: {text}", output.status);
    Ok(())
}
