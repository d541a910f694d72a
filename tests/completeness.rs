//! No operation is left out: each has a text case, an evaluation case and a row in `docs/ir.md`. The pages on adding things
//! name every file that has to decide about a new one, and no other.

#[path = "harness/mod.rs"]
#[allow(dead_code, reason = "each test uses its part of the harness")]
mod harness;

use harness::{UPDATE, cases, root};
use photonc::graph::text;
use photonc::ir::op::OpKind;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Operations that occur in the case files of a folder.
fn kinds(folder: &str) -> BTreeSet<OpKind> {
    let mut kinds = BTreeSet::new();
    for case in cases(folder) {
        let graph = text::parse(&case.text).expect("parses");
        kinds.extend(graph.nodes().into_iter().map(|id| graph.op(id).kind()));
    }
    kinds
}

/// Operations whose value the interpreter is given, or which it refuses; its own tests cover them.
fn is_external(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::Input | OpKind::Weight | OpKind::QuantizedWeight | OpKind::Delay | OpKind::ProtocolSwitch
    )
}

#[test]
fn every_operation_has_a_text_case() {
    let covered = kinds("text");
    for kind in OpKind::ALL {
        assert!(covered.contains(kind), "no file of tests/cases/text has `{}`", kind.def().name);
    }
}

#[test]
fn every_operation_has_an_evaluation_case() {
    let covered = kinds("eval");
    for kind in OpKind::ALL.iter().filter(|kind| !is_external(**kind)) {
        assert!(covered.contains(kind), "no file of tests/cases/eval has `{}`", kind.def().name);
    }
}

/// The operations' page, from their table.
fn page() -> String {
    let mut page = String::from(
        "# Operations\n\n\
         Made from the operation table in `crates/photonc-graph/src/ir/op.rs`;\n\
         `PHOTONC_UPDATE=1 cargo test --test completeness` writes it anew.\n\
         The text form of graphs is described in `crates/photonc-graph/src/graph/text/mod.rs`.\n\n\
         | operation | operands | attributes | meaning | ONNX |\n|---|---|---|---|---|\n",
    );
    for kind in OpKind::ALL {
        let def = kind.def();
        let operands = match (def.min_operands, def.max_operands) {
            (min, max) if min == max => min.to_string(),
            (min, usize::MAX) => format!("{min} or more"),
            (min, max) => format!("{min} to {max}"),
        };
        let attributes: Vec<String> = kind.attribute_names().iter().map(|name| format!("`{name}`")).collect();
        let meaning = def.doc.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
        let (attributes, name, onnx) = (attributes.join(", "), def.name, def.onnx);
        // Writing to a string cannot fail.
        let _ = writeln!(page, "| `{name}` | {operands} | {attributes} | {meaning} | {onnx} |");
    }
    page
}

#[test]
fn the_page_of_operations_is_current() {
    let path = root().join("docs/ir.md");
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, page()).expect("writable");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, page(), "docs/ir.md is not current; set {UPDATE}=1");
}

/// The walk through a row quotes the row as it is, and the files that it sends people to decide about it by name.
#[test]
fn the_page_on_adding_an_operation_is_true() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap_or_default();
    let page = read("docs/adding-an-op.md");
    let quoted =
        page.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a quoted row");
    let table = read("crates/photonc-graph/src/ir/op.rs");
    for line in quoted.lines() {
        assert!(
            table.contains(&format!("    {line}\n")),
            "crates/photonc-graph/src/ir/op.rs has no line `{line}`"
        );
    }
    let files = table_of(&page);
    assert!(files.len() > 5, "{files:?}");
    for file in files {
        assert!(read(&file).contains("Op::Shift"), "{file} does not decide about `shift`");
    }
    for path in page.split('`').filter(|part| part.contains('/') && !part.contains(' ')) {
        assert!(root().join(path).exists(), "{path} does not exist");
    }
}

/// Source files that the rows of a page's table begin with.
fn table_of(page: &str) -> BTreeSet<String> {
    let rows = page.lines().filter_map(|line| line.trim().strip_prefix("| `")?.split('`').next());
    rows.filter(|file| file.ends_with(".rs")).map(str::to_owned).collect()
}

/// Rust files below a folder, as paths from the root.
fn sources(folder: &str, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(root().join(folder)).expect("lists") {
        let path = format!("{folder}/{}", entry.expect("entry").file_name().to_string_lossy());
        if root().join(&path).is_dir() {
            sources(&path, found);
        } else if path.ends_with(".rs") {
            found.insert(path);
        }
    }
}

/// Compares the files that the table of a page names with those of the program that contain one of `words`; paths that the
/// page names exist.
fn the_table_is_whole(page: &str, words: &[&str]) {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap_or_default();
    let text = read(page);
    let named = table_of(&text);
    let mut deciding = BTreeSet::new();
    sources("src", &mut deciding);
    sources("crates", &mut deciding);
    deciding.retain(|file| {
        let text = read(file);
        words.iter().any(|word| text.contains(word))
    });
    assert_eq!(named, deciding, "{page} names the first, the second contain {words:?}");
    for path in text.split('`').filter(|part| part.contains('/') && !part.contains([' ', '='])) {
        assert!(root().join(path).exists(), "{page}: {path} does not exist");
    }
}

#[test]
fn the_page_on_adding_a_kernel_names_what_decides_about_one() {
    the_table_is_whole("docs/adding-a-kernel.md", &["Call::Norm(", "launch::rms_norm(", "pub fn rms_norm(a"]);
}

#[test]
fn the_page_on_adding_a_backend_names_what_decides_about_one() {
    the_table_is_whole("docs/adding-a-backend.md", &["BackendName::Ort", "BackendKind::Ort"]);
}
