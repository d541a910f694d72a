//! `photonc reduce` with real commands: what it writes fails, blames the right pass, and no single move is left.
#![allow(clippy::panic, reason = "a test fails by panicking")]

use photonc::graph::{Graph, text};
use photonc::passes::reduce::candidates;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

fn photonc(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = assert_cmd::Command::cargo_bin("photonc").expect("built");
    let output = command.current_dir(folder).args(arguments).env("NO_COLOR", "1").output().expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// A folder with `model`, its `bundle`, and a graph before any pass.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    assert_eq!(photonc(at, &["synth", "--preset", "tiny", "-o", "model"]).0, 0);
    assert_eq!(photonc(at, &["export", "model", "-o", "bundle", "-O0"]).0, 0);
    folder
}

fn read(folder: &Path, name: &str) -> (String, Graph) {
    let text = fs::read_to_string(folder.join(name)).expect("a graph");
    let graph = text::parse(&text).expect("parses");
    graph.verify().expect("valid");
    (text, graph)
}

// A script that fails where a graph has a norm and a rotation: what remains has one of each.
#[test]
fn a_graph_shrinks_under_a_script() {
    let folder = folder();
    let folder = folder.path();
    let script = "#!/bin/sh\n! { grep -q 'rms_norm' \"$1\" && grep -q 'rope' \"$1\"; }\n";
    fs::write(folder.join("check.sh"), script).expect("writes");
    let arguments = ["reduce", "bundle", "--graph", "coarse", "--json", "--", "sh", "check.sh", "{}"];
    let (code, told, errors) = photonc(folder, &arguments);
    assert_eq!(code, 0, "{errors}");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told["operations"]["rms_norm"], 1);
    assert_eq!(told["operations"]["rope"], 1);
    let (text, graph) = read(folder, "reduced.pho");
    insta::assert_snapshot!("reduced_by_script", text);
    let fails = |graph: &Graph| {
        let path = folder.join("candidate.pho");
        fs::write(&path, text::print(graph)).expect("writes");
        !Command::new("sh").arg(folder.join("check.sh")).arg(&path).status().expect("runs").success()
    };
    assert!(fails(&graph), "the reproducer fails");
    assert!(!candidates(&graph).any(|smaller| fails(&smaller)), "no single move is left");
    // It is not written over.
    assert_eq!(photonc(folder, &arguments).0, 1);
}

// The pass is named, and the graph before its rewrite shrunk.
#[test]
fn a_rewrite_is_blamed() {
    let folder = folder();
    let folder = folder.path();
    let passes = ["reduce", "bundle", "--graph", "coarse", "--passes", "O2"];
    // Fails where the unrolled decoder reads this weight once instead of four times.
    let check = "[ $(grep -c 'levels.1.decoder.layers.0.input_layernorm.weight' {}) -ne 1 ]";
    let (code, told, errors) = photonc(folder, &[&passes[..], &["--json", "--", "sh", "-c", check]].concat());
    assert_eq!(code, 0, "{errors}");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert!(told["pass"]["rewrite"].as_u64().is_some_and(|rewrite| rewrite > 0), "{told}");
    let (text, _) = read(folder, "reduced.pho");
    assert_eq!(told["pass"]["name"], "eliminate-common-subexpressions");
    assert!(
        text.starts_with("// Fails after the first rewrite of eliminate-common-subexpressions: sh -c "),
        "{text}"
    );
    assert!(told["nodes"].as_u64().is_some_and(|nodes| nodes < 12), "{text}");
    assert_eq!(text.matches("= weight").count(), 2, "{text}");

    let out = ["--out", "other.pho", "--"];
    for (command, code) in [("true", 1), ("false", 1)] {
        let (found, _, errors) = photonc(folder, &[&passes[..], &out, &[command, "{}"]].concat());
        assert_eq!(found, code, "{errors}");
    }
    for arguments in [
        &["reduce", "bundle", "--out", "other.pho", "--", "false", "{}"][..],
        &["reduce", "bundle", "--graph", "coarse", "--out", "other.pho", "--", "false"],
        &[
            "reduce",
            "bundle",
            "--graph",
            "coarse",
            "--out",
            "other.pho",
            "--passes",
            "O9",
            "--",
            "false",
            "{}",
        ],
    ] {
        assert_eq!(photonc(folder, arguments).0, 2, "{arguments:?}");
    }
    assert!(!folder.join("other.pho").exists());
}
