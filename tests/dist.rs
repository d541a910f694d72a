//! What a release hands out: the bill of materials has every crate that is linked, and `install.sh` installs nothing that
//! does not have its sum.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed test panics")]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const TARGET: &str = "x86_64-unknown-linux-musl";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// What a command prints; it succeeds.
fn printed(command: &mut Command) -> String {
    let out = run(command);
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("text")
}

/// `None` where this machine has no Python: said, not passed over.
fn python() -> Option<&'static str> {
    let there = Command::new("python3").arg("--version").output().is_ok_and(|out| out.status.success());
    if !there {
        let told = b"SKIPPED the_bill_of_materials_has_what_is_linked: needs python3\n";
        std::io::stderr().write_all(told).expect("stderr");
    }
    there.then_some("python3")
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}

#[test]
fn the_bill_of_materials_has_what_is_linked() {
    let Some(python) = python() else { return };
    // Crates of this machine's kind are there, as they were needed to build this test.
    let compiler = printed(Command::new("rustc").arg("-vV"));
    let host = compiler.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root()).args(["metadata", "--offline", "--locked", "--format-version", "1"]);
    let metadata = printed(cargo.args(["--filter-platform", host]));
    let bill = |metadata: &str| -> String {
        let mut child = Command::new(python)
            .arg(root().join("scripts/sbom.py"))
            .args(["--package", "photonc", "--target", TARGET, "--lock"])
            .arg(root().join("Cargo.lock"))
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        child.stdin.take().expect("a pipe").write_all(metadata.as_bytes()).expect("is read");
        let out = child.wait_with_output().expect("ends");
        assert!(out.status.success());
        String::from_utf8(out.stdout).expect("text")
    };
    let made = bill(&metadata);
    assert_eq!(made, bill(&metadata), "the same metadata gives the same bytes");
    let document: Value = serde_json::from_str(&made).expect("JSON");
    assert_eq!((text(&document, "bomFormat"), text(&document, "specVersion")), ("CycloneDX", "1.5"));
    assert_eq!(text(&document["metadata"], "timestamp"), "2023-11-14T22:13:20Z");

    let components = document["components"].as_array().expect("a list");
    let scopes: BTreeMap<&str, &str> =
        components.iter().map(|one| (text(one, "name"), text(one, "scope"))).collect();
    // Linked, and linked through others.
    for name in ["safetensors", "blake3", "serde", "memchr"] {
        assert_eq!(scopes.get(name), Some(&"required"), "{name}");
    }
    // A compiler of C builds only; what tests use is not in the program.
    assert_eq!(scopes.get("cc"), Some(&"excluded"));
    for name in ["insta", "proptest", "criterion", "photonc-python"] {
        assert_eq!(scopes.get(name), None, "{name}");
    }
    for one in components {
        // What is built from these sources has no sum of the registry.
        let own = text(one, "name").starts_with("photonc-");
        assert!(own || text(&one["hashes"][0], "content").len() == 64, "{one}");
        assert!(text(one, "purl").starts_with("pkg:cargo/"), "{one}");
        assert!(!text(&one["licenses"][0], "expression").contains('/'), "{one}");
    }

    // Every reference leads to a component, and every direct dependency of the manifest that is no option is one.
    let own = text(&document["metadata"]["component"], "bom-ref");
    let known: BTreeSet<&str> =
        components.iter().map(|one| text(one, "bom-ref")).chain(std::iter::once(own)).collect();
    assert_eq!(known.len(), components.len() + 1, "every reference is there once");
    for edge in document["dependencies"].as_array().expect("a list") {
        let needed = edge["dependsOn"].as_array().expect("a list").iter();
        for reference in needed.map(|one| one.as_str().expect("a text")).chain([text(edge, "ref")]) {
            assert!(known.contains(reference), "{reference} is no component");
        }
    }
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("a manifest");
    let manifest: toml::Table = manifest.parse().expect("a manifest");
    let optional =
        |value: &toml::Value| value.get("optional").and_then(toml::Value::as_bool).unwrap_or(false);
    for (name, value) in manifest["dependencies"].as_table().expect("a table") {
        assert!(optional(value) || scopes.contains_key(name.as_str()), "{name} is not in the bill");
    }
}

/// A folder as `scripts/dist.sh` makes one, with a program that says its name.
fn release() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let name = format!("photonc-9.9.9-{TARGET}");
    fs::create_dir(folder.path().join(&name)).expect("a folder");
    fs::write(folder.path().join(&name).join("photonc"), "#!/bin/sh\necho it runs\n").expect("writes");
    let archive = format!("{name}.tar.gz");
    printed(Command::new("tar").current_dir(folder.path()).args(["-czf", &archive, &name]));
    let sums = printed(Command::new("sha256sum").current_dir(folder.path()).arg(&archive));
    fs::write(folder.path().join("SHA256SUMS"), sums).expect("writes");
    folder
}

fn install(from: &Path, to: &Path) -> Output {
    let mut command = Command::new("sh");
    command.arg(root().join("scripts/install.sh")).args(["--version", "9.9.9", "--target", TARGET]);
    run(command.arg("--from").arg(from).arg("--to").arg(to))
}

#[test]
fn a_release_installs() {
    let (from, to) = (release(), tempfile::tempdir().expect("a folder"));
    // Over an older one, too.
    fs::write(to.path().join("photonc"), "old").expect("writes");
    let out = install(from.path(), to.path());
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(printed(&mut Command::new(to.path().join("photonc"))), "it runs\n");
    assert_eq!(fs::read_dir(to.path()).expect("a folder").count(), 1, "nothing else is left there");
}

#[test]
fn nothing_is_installed_without_its_sum() {
    let refused = |damage: &dyn Fn(&Path), reason: &str| {
        let (from, to) = (release(), tempfile::tempdir().expect("a folder"));
        damage(from.path());
        let out = install(from.path(), to.path());
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && said.contains(reason), "expected `{reason}`: {said}");
        assert_eq!(fs::read_dir(to.path()).expect("a folder").count(), 0, "{reason}");
    };
    let archive = format!("photonc-9.9.9-{TARGET}.tar.gz");
    let damage = |folder: &Path| {
        let mut bytes = fs::read(folder.join(&archive)).expect("is there");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(folder.join(&archive), bytes).expect("writes");
    };
    refused(&damage, "is damaged");
    refused(&|folder| fs::write(folder.join("SHA256SUMS"), "").expect("writes"), "SHA256SUMS has no");
    refused(&|folder| fs::remove_file(folder.join("SHA256SUMS")).expect("removes"), "cannot get");
    refused(&|folder| fs::remove_file(folder.join(&archive)).expect("removes"), "cannot get");
}
