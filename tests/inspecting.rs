//! `docs/inspecting.md` shows what the commands in it print. With `PHOTONC_UPDATE_DOCS=1` the page is written anew.

mod fixture;

use fixture::hollow;
use serde_json::{Value, json};
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;

type TestResult = Result<(), Box<dyn Error>>;

/// What a shell with `photonc` on its path prints, stderr after stdout.
fn shell(folder: &Path, line: &str) -> Result<String, Box<dyn Error>> {
    let program = Path::new(env!("CARGO_BIN_EXE_photonc")).parent().ok_or("a folder")?;
    let path = format!("{}:{}", program.display(), std::env::var("PATH")?);
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(folder).env("PATH", path).env("NO_COLOR", "1");
    let output = command.output()?;
    Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// The page with the output of each `$ ..` line of its console blocks below it.
fn filled(page: &str, folder: &Path) -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    let mut inside = false;
    for line in page.lines() {
        inside = line == "```console" || (inside && line != "```");
        match line.strip_prefix("$ ") {
            Some(command) if inside => {
                text.push_str(&format!("{line}\n{}", shell(folder, command)?));
            }
            _ if inside && line != "```console" => {}
            _ => text.push_str(&format!("{line}\n")),
        }
    }
    Ok(text)
}

#[test]
fn the_page_shows_what_the_commands_print() -> TestResult {
    let folder = tempfile::tempdir()?;
    hollow(&folder.path().join("paper-600m"), "paper-600m")?;
    for line in [
        "photonc synth --preset tiny -o tiny",
        "photonc synth --preset tiny --seed 7 -o tiny-reseeded",
        "mkdir tiny-norm && cp tiny/model.safetensors tiny-norm/ \
         && sed 's/\"rms_norm_eps\": *[^,]*/\"rms_norm_eps\": 1e-06/' tiny/config.json > tiny-norm/config.json",
    ] {
        shell(folder.path(), line)?;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/inspecting.md");
    let page = fs::read_to_string(&path)?;
    let real = filled(&page, folder.path())?;
    if std::env::var_os("PHOTONC_UPDATE_DOCS").is_some() {
        fs::write(&path, real)?;
    } else {
        assert!(page == real, "docs/inspecting.md differs from what the commands print:\n{real}");
    }
    Ok(())
}

fn exit_code(folder: &Path, line: &str) -> Result<String, Box<dyn Error>> {
    shell(folder, &format!("{line} > /dev/null 2>&1; printf $?"))
}

// A script asks `diff` by its exit code; a bundle is compared by the bytes of its weights.
#[test]
fn diff_answers_with_its_exit_code() -> TestResult {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    for line in [
        "photonc synth --preset tiny -o model",
        "photonc synth --preset tiny --seed 3 -o other",
        "photonc export model -o bundle",
        "photonc export other -o other-bundle",
    ] {
        assert_eq!(exit_code(folder, line)?, "0", "{line}");
    }
    for (line, code) in [
        ("photonc diff bundle bundle", "0"),
        ("photonc diff bundle other-bundle --no-weights", "0"),
        ("photonc diff bundle other-bundle", "1"),
        ("photonc diff bundle missing", "1"),
        ("photonc diff bundle", "2"),
        ("photonc diff bundle bundle --batch 0", "2"),
    ] {
        assert_eq!(exit_code(folder, line)?, code, "{line}");
    }
    let difference: Value = serde_json::from_str(&shell(folder, "photonc diff bundle other-bundle --json")?)?;
    assert_eq!(difference["graphs"], json!({}));
    assert!(difference["weights"]["lm_head.weight"]["left"]["blake3"].is_string());
    Ok(())
}

// What a checkpoint compiles to costs what its bundle costs.
#[test]
fn views_of_a_checkpoint_and_its_bundle_agree() -> TestResult {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    for line in ["photonc synth --preset tiny -o model", "photonc export model -o bundle"] {
        assert_eq!(exit_code(folder, line)?, "0", "{line}");
    }
    for view in ["--cost", "--fold 2", "--fold 1 --json", "--explain distribute"] {
        let (model, bundle) = (
            shell(folder, &format!("photonc inspect model {view}"))?,
            shell(folder, &format!("photonc inspect bundle {view}"))?,
        );
        assert_eq!(model, bundle, "{view}");
    }
    assert!(shell(folder, "photonc inspect bundle --format html")?.starts_with("<!doctype html>"));
    for line in [
        "photonc inspect model --format dot",
        "photonc inspect model --format html --graph coarse",
        "photonc inspect model --format html --json",
        "photonc inspect model --cost --gpu abacus",
    ] {
        assert_eq!(exit_code(folder, line)?, "2", "{line}");
    }
    assert_eq!(exit_code(folder, "photonc inspect model --cost --graph course")?, "1");
    Ok(())
}

// Bisection by hand: `--stop-after 0` is `-O0`, and a pass is watched on stderr while the result stays on stdout.
#[test]
fn passes_are_stopped_timed_and_printed() -> TestResult {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    shell(folder, "photonc synth --preset tiny -o model")?;
    let printed = |options: &str| shell(folder, &format!("photonc inspect model --graph encode {options}"));
    assert_eq!(printed("--stop-after 0")?, printed("-O0")?);
    assert_eq!(printed("--stop-after 100000")?, printed("")?);
    let stopped = printed("--stop-after 40")?;
    assert!(stopped != printed("-O0")? && stopped != printed("")?);

    let watched = printed("--print-after simplify-unit-transposes --time-passes 2>&1 >/dev/null")?;
    assert!(watched.starts_with("// after simplify-unit-transposes, "), "{watched}");
    let (graphs, times) = watched.split_once("pass  ").ok_or("a table")?;
    for text in graphs.split("// after").skip(1) {
        photonc::graph::text::parse(&format!("// {text}"))?;
    }
    assert!(
        times.contains("\nfold-constants ") && times.contains("\nall, with their verification "),
        "{times}"
    );
    let times: Value = serde_json::from_str(&printed("--json --time-passes 2>&1 >/dev/null")?)?;
    assert!(times["passes"].as_array().is_some_and(|passes| passes.len() > 5));

    shell(folder, "photonc export model -o bundle --stop-after 0 && photonc export model -o plain -O0")?;
    assert_eq!(exit_code(folder, "photonc diff bundle plain")?, "0");
    for (line, code) in [
        ("photonc export model -o other --print-after fold-constant", "2"),
        ("photonc inspect bundle --graph expand --time-passes", "2"),
        ("photonc inspect bundle --explain fold-constants --time-passes", "0"),
    ] {
        assert_eq!(exit_code(folder, line)?, code, "{line}");
    }
    assert!(!folder.join("other").exists());
    Ok(())
}
