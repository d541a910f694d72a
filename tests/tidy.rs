//! Keeps the house in order: who may import whom, what files are called, how long they are, what they begin with.

use std::fs;
use std::path::{Path, PathBuf};

/// A part and those that it may use.
type Part = (&'static str, &'static [&'static str]);

/// Parts of the crates that have several, and the parts of the same crate whose public face each may use, lowest first.
/// Which crate uses which is in their manifests, where the compiler holds them to it.
const MAY_USE: [(&str, &[Part]); 5] = [
    ("crates/photonc-graph/src", &[("ir", &[]), ("graph", &["ir"])]),
    (
        "crates/photonc-bundle/src",
        &[
            ("json", &[]),
            ("cache", &[]),
            ("places", &[]),
            ("staging", &[]),
            ("program", &[]),
            ("bundle", &["staging", "program"]),
        ],
    ),
    (
        "crates/photonc-compiler/src",
        &[("model", &[]), ("passes", &["model"]), ("inspect", &["model", "passes"])],
    ),
    (
        "crates/photonc-launch/src",
        &[("launch", &[]), ("cpu", &["launch"]), ("cuda", &["launch"]), ("tensorrt", &["launch"])],
    ),
    ("src", &[("export", &[]), ("api", &["export"]), ("cli", &["export", "api"])]),
];

/// Words that only this folder may say.
const RESERVED: [(&str, &str); 9] = [
    ("clap::", "src/cli"),
    ("clap_complete::", "src/cli"),
    ("miette::", "src/cli"),
    ("indicatif::", "src/cli"),
    ("signal_hook::", "src/cli"),
    ("tracing_subscriber::", "src/cli"),
    ("io::stdout", "src/cli"),
    ("io::stderr", "src/cli"),
    ("tract_onnx::", "crates/photonc-runtime"),
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

/// Folders of sources of the program and its library.
fn sources() -> Vec<PathBuf> {
    let crates = files("crates", &["rs"]);
    let crates = crates.into_iter().filter(|path| {
        !path
            .strip_prefix(root())
            .is_ok_and(|path| path.iter().any(|folder| folder == "tests" || folder == "examples"))
    });
    files("src", &["rs"]).into_iter().chain(crates).collect()
}

/// Whether a line names `part` of its own crate, as `crate::part` or by climbing out of its part with `super`.
fn names_part(line: &str, depth: usize, part: &str) -> bool {
    let climb = "super::".repeat(depth);
    ["crate::", &climb].iter().any(|start| {
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
    })
}

#[test]
fn every_part_uses_only_the_parts_below_it() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (folder, parts) in MAY_USE {
        for path in files(folder, &["rs"]) {
            let inside = path.strip_prefix(root().join(folder)).expect("is inside");
            let first = inside.iter().next().and_then(|first| first.to_str()).unwrap_or_default();
            let own = first.strip_suffix(".rs").unwrap_or(first);
            let Some((_, allowed)) = parts.iter().find(|(part, _)| *part == own) else { continue };
            seen += 1;
            let text = fs::read_to_string(&path).expect("a source file");
            let is_root = path.file_stem().is_some_and(|stem| stem == "mod");
            let depth = inside.components().count() - usize::from(is_root);
            let others =
                parts.iter().map(|(part, _)| *part).filter(|part| *part != own && !allowed.contains(part));
            for forbidden in others {
                for (number, line) in code(&text) {
                    if names_part(line, depth, forbidden) {
                        wrong.push(format!("{}:{number}: `{own}` uses `{forbidden}`", shown(&path)));
                    }
                }
            }
        }
    }
    assert!(seen > 300, "{seen}");
    assert!(wrong.is_empty(), "expected only {MAY_USE:?}\n{}", wrong.join("\n"));
}

/// The tree of parts has no cycle: each may use only parts that come before it.
#[test]
fn parts_are_listed_lowest_first() {
    for (folder, parts) in MAY_USE {
        for (at, (part, uses)) in parts.iter().enumerate() {
            for used in *uses {
                assert!(
                    parts[..at].iter().any(|(below, _)| below == used),
                    "{folder}: `{part}` uses `{used}`"
                );
            }
        }
    }
}

#[test]
fn a_library_is_named_only_where_it_belongs() {
    let mut wrong = Vec::new();
    for path in sources() {
        let text = fs::read_to_string(&path).expect("a source file");
        for (number, line) in code(&text) {
            for (word, folder) in RESERVED {
                if line.contains(word) && !path.starts_with(root().join(folder)) {
                    wrong.push(format!("{}:{number}: `{word}` outside {folder}", shown(&path)));
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
            let own = wanted.get("path").is_some() || name.starts_with("photonc-");
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
