//! The server behind other people's fleets: NVIDIA Dynamo, Shepherd Model Gateway and Triton's Python backend, each driven by a
//! script of `tests/cluster` on what `photonc package` wrote; and the manifests of Kubernetes. What they need is installed by
//! `scripts/setup-test-deps.sh --cluster`; what is not there is skipped by name.
#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod clients;

use clients::{MODEL, bundle, deps, python, root, skipped};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn photonc() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_photonc"))
}

/// The package of a kind.
fn package(kind: &str, more: &[&str]) -> PathBuf {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cluster").join(format!("package-{kind}"));
    let mut command = Command::new(photonc());
    command
        .arg("package")
        .arg(&bundle("cluster").0)
        .args(["--for", kind, "--force", "-o"])
        .arg(&out)
        .args(more);
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    out
}

/// Runs a script of `tests/cluster` in an environment of the dependencies, which must have a package.
fn run(test: &str, [environment, needed, script]: [&str; 3], arguments: &[&Path]) {
    let Some(python) = python(environment, needed) else {
        return skipped(test, &format!("needs {needed}: scripts/setup-test-deps.sh --cluster"));
    };
    let mut command = Command::new(python);
    command.arg(root().join("tests/cluster").join(script)).args(arguments);
    let done = command.output().unwrap();
    let [said, told] = [&done.stdout, &done.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(done.status.success(), "{}\n{said}\n{told}", done.status);
}

/// One after the other: each starts several servers, and two cores are all there is.
#[test]
fn fleets_keep_every_text_whole() {
    let bundle = &bundle("cluster").0;
    run(
        "dynamo_keeps_texts_whole",
        ["dynamo", "dynamo.frontend", "dynamo_check.py"],
        &[photonc(), bundle, &package("dynamo", &[])],
    );
    run("smg_keeps_texts_whole", ["smg", "smg", "smg_check.py"], &[photonc(), bundle]);
    run(
        "triton_model_answers",
        ["py", "numpy", "triton_check.py"],
        &[photonc(), bundle, &package("triton", &[])],
    );
}

/// The manifests are Kubernetes', and say of the server what it does.
#[test]
fn manifests_of_kubernetes_fit_the_server() {
    run(
        "manifests_of_kubernetes_fit_the_server",
        ["kubernetes", "kubernetes_validate", "kubernetes_check.py"],
        &[photonc(), &bundle("cluster").0, &deps().join("kubernetes-node")],
    );
}

/// What a package says is what the manifest says, once.
#[test]
fn packages_state_the_manifest() {
    let manifest: Value =
        serde_json::from_slice(&fs::read(bundle("cluster").0.join("photon.json")).unwrap()).unwrap();
    let read = |folder: &Path, name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let facts =
        |folder: &Path| -> Value { serde_json::from_str(&read(folder, "photonc-package.json")).unwrap() };
    let dynamo = package("dynamo", &[]);
    for key in ["vocab_size", "meta_tokens", "max_tokens"] {
        assert_eq!(facts(&dynamo)[key], manifest["model"][key], "{key}");
    }
    let config: Value = serde_json::from_str(&read(&dynamo, "card/config.json")).unwrap();
    assert_eq!(config["max_position_embeddings"], manifest["model"]["max_tokens"]);
    let spoken: Value = serde_json::from_str(&read(&dynamo, "card/tokenizer_config.json")).unwrap();
    assert!(spoken["chat_template"].as_str().unwrap().contains("messages"), "{spoken}");
    assert_eq!(spoken["eos_token"], "<|endoftext|>");
    assert_eq!(
        read(&dynamo, "card/tokenizer.json"),
        read(&root().join("examples/english"), "tokenizer.json")
    );

    let on_host = read(&package("kserve", &[]), "inferenceservice.yaml");
    let on_gpus = read(
        &package("kserve", &["--gpus", "2", "--served-model-name", "My_Model"]),
        "inferenceservice.yaml",
    );
    assert!(
        on_host.contains("/v2/models/english/infer") && on_host.contains("{name: PROTOCOL, value: v2}"),
        "{on_host}"
    );
    assert!(on_host.contains("name: english\n") && !on_host.contains("gpu"), "{on_host}");
    assert!(on_gpus.contains("name: my-model\n") && on_gpus.contains("nvidia.com/gpu: \"2\"\n"), "{on_gpus}");
    assert!(on_gpus.contains("\"--devices\", \"0,1\"]"), "{on_gpus}");
    let docker = package("docker", &["--image", "registry.example/photonc:1"]);
    assert!(read(&docker, "Dockerfile").contains("ARG PHOTONC=registry.example/photonc:1\n"));
    let triton = read(&package("triton", &[]), "repository/photon/config.pbtxt");
    assert!(triton.contains(&format!("string_value: \"{MODEL}\"")), "{triton}");
    for text in [on_host, on_gpus, read(&docker, "Dockerfile"), read(&docker, "compose.yaml"), triton] {
        assert!(!text.contains('@') && !text.contains("#gpu"), "{text}");
    }
}

/// What stands in the place of a package stays where it is none, and is replaced as a whole where it is.
#[test]
fn packages_replace_packages_only() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let write = |more: &[&str]| {
        let mut command = Command::new(photonc());
        command.arg("package").arg(&bundle("cluster").0).args(["--for", "docker", "-o"]).arg(&out).args(more);
        command.output().unwrap().status.code()
    };
    assert_eq!(write(&[]), Some(0));
    assert_eq!(write(&[]), Some(1), "one stands there");
    assert_eq!(write(&["--force"]), Some(0));
    fs::remove_file(out.join("photonc-package.json")).unwrap();
    assert_eq!(write(&["--force"]), Some(1), "what stands there is no package");
    assert!(out.join("Dockerfile").is_file());
    assert_eq!(write(&["--served-model-name", "a/b"]), Some(2));
}
