//! Keeps the house in order: who may import whom, what files are called, how long they are, what they begin with.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Each part of the crate and the parts whose public face it may use: floor 0 to 4, lowest first.
const MAY_USE: [(&str, &[&str]); 19] = [
    ("json", &[]),
    ("cache", &[]),
    ("places", &[]),
    ("staging", &[]),
    ("ir", &[]),
    ("graph", &["ir"]),
    ("program", &["ir", "graph"]),
    ("model", &["json", "staging", "ir", "graph"]),
    ("passes", &["ir", "graph", "program", "model"]),
    ("bundle", &["staging", "ir", "graph", "program"]),
    ("onnx", &["ir", "graph", "program", "bundle"]),
    ("engine", &["cache", "places", "ir", "graph", "bundle"]),
    ("export", &["ir", "graph", "program", "model", "passes", "bundle", "onnx", "engine"]),
    ("inspect", &["ir", "graph", "program", "model", "passes", "bundle"]),
    (
        "runtime",
        &["cache", "places", "ir", "graph", "program", "model", "passes", "bundle", "onnx", "engine"],
    ),
    ("text", &["json", "bundle", "runtime"]),
    (
        "api",
        &[
            "ir", "graph", "program", "model", "passes", "bundle", "onnx", "export", "inspect", "runtime",
            "text",
        ],
    ),
    ("server", &["program", "bundle", "runtime", "text"]),
    (
        "cli",
        &[
            "json", "cache", "places", "staging", "ir", "graph", "program", "model", "passes", "bundle",
            "onnx", "engine", "export", "inspect", "runtime", "text", "api", "server",
        ],
    ),
];

/// Words that only these parts may say.
const RESERVED: [(&str, &[&str]); 18] = [
    ("trtx::", &["engine"]),
    ("petgraph::", &["graph"]),
    ("clap::", &["cli"]),
    ("clap_complete::", &["cli"]),
    ("miette::", &["cli"]),
    ("indicatif::", &["cli"]),
    ("signal_hook::", &["cli"]),
    ("io::stdout", &["cli"]),
    ("io::stderr", &["cli"]),
    ("tract_onnx::", &["onnx", "runtime"]),
    ("prost::", &["onnx"]),
    ("tokenizers::", &["text"]),
    ("axum::", &["server"]),
    ("hyper::", &["server"]),
    ("tokio::", &["server"]),
    ("utoipa::", &["server"]),
    ("prometheus::", &["server"]),
    ("tracing_subscriber::", &["cli"]),
];

/// Names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 5] = ["utils", "helpers", "common", "misc", "manager"];

/// Longest file in lines, its own tests left out.
const MAX_LINES: usize = 400;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files below `folder` of the repository with one of the extensions, in order; build outputs are left out.
fn files(folder: &str, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() && !["target", ".git", ".deps"].contains(&name) && !path.is_symlink() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| extensions.iter().any(|known| end == *known)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// Lines of code with their numbers: comments and whatever follows a `#[cfg(test)]` module are left out.
fn code(text: &str) -> Vec<(usize, &str)> {
    let own = text.find("#[cfg(test)]\nmod ").map_or(text, |tests| &text[..tests]);
    let lines = own.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    lines.filter(|(_, line)| !line.starts_with("//")).collect()
}

/// The part of the crate a file belongs to; `None` for the crate's root.
fn part(path: &Path) -> Option<&'static str> {
    let inside = path.strip_prefix(root().join("src")).ok()?;
    let first = inside.components().next()?.as_os_str().to_str()?;
    let stem = first.strip_suffix(".rs").unwrap_or(first);
    MAY_USE.iter().map(|(part, _)| *part).find(|part| *part == stem)
}

/// Parts that a line names, as `crate::part` or by climbing out of its own with `super`.
fn named_parts(line: &str, depth: usize) -> Vec<&'static str> {
    let climb = "super::".repeat(depth);
    let names = |start: &str, part: &str| {
        line.match_indices(start).any(|(at, _)| {
            let rest = &line[at + start.len()..];
            let starts = rest
                .strip_prefix(part)
                .is_some_and(|end| !end.starts_with(|next: char| next.is_alphanumeric() || next == '_'));
            let listed = rest
                .strip_prefix('{')
                .and_then(|list| list.split('}').next())
                .is_some_and(|list| list.split(',').any(|item| item.trim().split("::").next() == Some(part)));
            starts || listed
        })
    };
    let parts = MAY_USE.iter().map(|(part, _)| *part);
    parts.filter(|part| names("crate::", part) || names(&climb, part)).collect()
}

#[test]
fn every_part_uses_only_the_parts_below_it() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_USE.into_iter().collect();
    let mut wrong = Vec::new();
    for path in files("src", &["rs"]) {
        let Some(own) = part(&path) else { continue };
        let text = fs::read_to_string(&path).expect("a source file");
        let inside = path.strip_prefix(root().join("src")).expect("is in src");
        let is_root = path.file_stem().is_some_and(|stem| stem == "mod");
        let depth = inside.components().count() - usize::from(is_root);
        for (number, line) in code(&text) {
            for used in named_parts(line, depth) {
                if used != own && !allowed[own].contains(&used) {
                    wrong.push(format!("{}:{number}: `{own}` uses `{used}`", shown(&path)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "expected only {allowed:?}\n{}", wrong.join("\n"));
}

/// The tree of parts has no cycle: each may use only parts that come before it.
#[test]
fn parts_are_listed_lowest_first() {
    for (at, (part, uses)) in MAY_USE.iter().enumerate() {
        for used in *uses {
            assert!(MAY_USE[..at].iter().any(|(below, _)| below == used), "`{part}` uses `{used}`");
        }
    }
}

#[test]
fn a_library_is_named_only_where_it_belongs() {
    let mut wrong = Vec::new();
    for path in files("src", &["rs"]) {
        let own = part(&path).unwrap_or("root");
        let text = fs::read_to_string(&path).expect("a source file");
        for (number, line) in code(&text) {
            for (word, parts) in RESERVED {
                if line.contains(word) && !parts.contains(&own) {
                    wrong.push(format!("{}:{number}: `{word}` outside {}", shown(&path), parts.join(", ")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_begin_with_what_they_own_and_stay_short() {
    let mut wrong = Vec::new();
    for path in [
        files("src", &["rs"]),
        files("crates", &["rs"]),
        files("tests", &["rs"]),
        files("examples", &["rs"]),
        files("benches", &["rs"]),
    ]
    .concat()
    {
        let text = fs::read_to_string(&path).expect("a source file");
        if !text.starts_with("//! ") {
            wrong.push(format!("{}: expected a `//!` header that says what it owns", shown(&path)));
        }
        let own = text.find("#[cfg(test)]\nmod ").map_or(&text[..], |tests| &text[..tests]);
        let lines = own.lines().count();
        // Test programs are lists of claims; they may be long.
        let tests = path.strip_prefix(root()).is_ok_and(|path| path.iter().any(|folder| folder == "tests"));
        if lines > MAX_LINES && !tests {
            wrong.push(format!("{}: {lines} lines, expected at most {MAX_LINES}", shown(&path)));
        }
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let folder = path.parent().and_then(|folder| folder.file_name()).and_then(|name| name.to_str());
        if EMPTY_NAMES.iter().any(|empty| *empty == name || Some(*empty) == folder) {
            wrong.push(format!("{}: `{name}` says nothing of what is inside", shown(&path)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Paths of one machine mean nothing on another.
#[test]
fn no_file_names_a_place_on_somebodys_machine() {
    let places = ["work", "home", "root", "Users"].map(|folder| format!("/{folder}/"));
    let mut wrong = Vec::new();
    for path in files("", &["rs", "md", "toml", "sh", "py", "json", "snap", "pho", "lock", "yml"]) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (number, line) in text.lines().enumerate() {
            let named = places.iter().any(|place| {
                line.match_indices(place.as_str()).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    before.is_none_or(|before| !before.is_alphanumeric() && !"._-/*]}".contains(before))
                })
            });
            if named {
                wrong.push(format!("{}:{}: {}", shown(&path), number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every dependency comes from the public registry, and `docs/dependencies.md` says why each direct one is there.
#[test]
fn dependencies_are_public_and_explained() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap_or_else(|_| panic!("no {name}"));
    let lock = read("Cargo.lock");
    let public = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    for line in lock.lines().filter(|line| line.starts_with("source = ")) {
        assert_eq!(line, public);
    }
    let docs = read("docs/dependencies.md");
    let members = files("crates", &["toml"]).into_iter().filter(|path| path.ends_with("Cargo.toml"));
    for manifest in std::iter::once(root().join("Cargo.toml")).chain(members) {
        let text = fs::read_to_string(&manifest).expect("a manifest");
        let manifest: toml::Table = text.parse().expect("a manifest");
        let sections = ["dependencies", "dev-dependencies"];
        let tables = sections.iter().filter_map(|section| manifest.get(*section)?.as_table());
        for (name, wanted) in tables.flatten() {
            let own = wanted.get("path").is_some();
            let row = docs.contains(&format!("| `{name}` |"));
            assert!(own || row, "docs/dependencies.md has no row for `{name}`");
        }
    }
}

/// `doctor` shows the version of the library that is built in.
#[test]
fn the_tract_version_shown_is_the_one_built_in() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("a lock file");
    let entry = lock.split("[[package]]").find(|entry| entry.contains("name = \"tract-onnx\"\n"));
    let version = entry.and_then(|entry| entry.split("version = \"").nth(1)?.split('"').next());
    let backends = fs::read_to_string(root().join("src/cli/backends.rs")).expect("a source file");
    let expected = format!("TRACT_VERSION: &str = \"{}\"", version.expect("tract is locked"));
    assert!(backends.contains(&expected), "expected `{expected}`");
}
