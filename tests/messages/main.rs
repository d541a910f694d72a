//! Every text of an error is explained in `docs/troubleshooting.md`, or reviewed and found to explain itself.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed test panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What stands for a value in a text.
const VALUE: &str = "..";

/// Texts that say all that there is to do, one a line; `#` begins a remark.
const REVIEWED: &str = "tests/messages/self_explanatory.txt";

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The Rust sources of the program and of what stands on it, in order.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src"), root.join("crates")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The string literal at the start of `rest`, its escapes resolved.
fn literal(rest: &str) -> Option<String> {
    let mut text = String::new();
    let mut letters = rest.strip_prefix('"')?.chars().peekable();
    loop {
        match letters.next()? {
            '"' => return Some(text),
            '\\' => match letters.next()? {
                // The literal goes on in the next line, behind its blanks.
                '\n' => while letters.next_if(|letter| letter.is_whitespace()).is_some() {},
                'n' => text.push('\n'),
                escaped @ ('"' | '\\') => text.push(escaped),
                other => panic!("`\\{other}` in an error's text: teach this test to read it"),
            },
            letter => text.push(letter),
        }
    }
}

/// A format string with [`VALUE`] for each value.
fn without_values(format: &str) -> String {
    let mut text = String::new();
    let mut letters = format.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '{' | '}' if letters.next_if_eq(&letter).is_some() => text.push(letter),
            '{' => {
                letters.by_ref().find(|inside| *inside == '}').expect("a value ends");
                text.push_str(VALUE);
            }
            letter => text.push(letter),
        }
    }
    text
}

/// Texts of `#[error("..")]` in a source. Those that pass on another error's words are left out.
fn texts(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, attribute) in source.match_indices("#[error(") {
        let rest = source[at + attribute.len()..].trim_start();
        if rest.starts_with("transparent)") {
            continue;
        }
        let line = rest.lines().next().unwrap_or_default();
        let format = literal(rest).unwrap_or_else(|| panic!("`{line}`: expected a text or `transparent`"));
        let text = without_values(&format);
        if text.replace(VALUE, "").contains(char::is_alphabetic) {
            found.push(text);
        }
    }
    found
}

/// Texts of all errors with the files that have them.
fn all_texts() -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in sources() {
        let source = fs::read_to_string(&path).expect("a source file");
        let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).expect("is in the repository");
        for text in texts(&source) {
            found.entry(text).or_default().push(name.display().to_string());
        }
    }
    found
}

/// The messages that a page has entries for, each as the parts that a text must have in this order.
fn entries(page: &str) -> Vec<Vec<String>> {
    let headings = page.lines().filter_map(|line| line.strip_prefix("### "));
    headings
        .map(|heading| {
            let message = heading.trim().trim_matches('`').trim();
            let parts = message.split(VALUE).map(str::trim).filter(|part| !part.is_empty());
            parts.map(str::to_owned).collect()
        })
        .collect()
}

/// Whether an entry is about a text: has its words in their order, and at least a third of its letters, so that a short heading
/// does not take what it was not written for.
fn explains(entry: &[String], text: &str) -> bool {
    let letters = |text: &str| text.chars().filter(|letter| letter.is_alphabetic()).count();
    let mut rest = text;
    let in_order = entry.iter().all(|part| match rest.find(part.as_str()) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    });
    in_order && 3 * entry.iter().map(|part| letters(part)).sum::<usize>() >= letters(text)
}

fn reviewed() -> BTreeSet<String> {
    let list = read(REVIEWED);
    let lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

#[test]
fn every_error_is_explained_or_explains_itself() {
    let entries = entries(&read("docs/troubleshooting.md"));
    let reviewed = reviewed();
    let mut wrong = Vec::new();
    for (text, files) in all_texts() {
        let explained = entries.iter().any(|entry| explains(entry, &text));
        match (explained, reviewed.contains(&text)) {
            (false, false) => wrong.push(format!(
                "{}: `{text}` has no entry in docs/troubleshooting.md; write one, or add the text to {REVIEWED} if it \
                 says what to do",
                files.join(", ")
            )),
            (true, true) => wrong.push(format!("{REVIEWED}: `{text}` has an entry in docs/troubleshooting.md")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn reviewed_texts_are_still_said() {
    let said = all_texts();
    let gone: Vec<_> = reviewed().into_iter().filter(|text| !said.contains_key(text)).collect();
    assert!(gone.is_empty(), "{REVIEWED}: no error says\n{}", gone.join("\n"));
}

#[test]
fn texts_are_read_from_attributes() {
    let source = r##"
        #[error("{0}: {source}")] #[error(transparent)] #[error("`{name}` is {{no}} \"tensor\"{}", shown(.0))]
        #[error(
            "goes on \
             here", first.join(", ")
        )]
    "##;
    assert_eq!(texts(source), ["`..` is {no} \"tensor\"..", "goes on here"]);
    let entry = &entries("### ``.. is {no} .. ``\n## No message")[0];
    assert!(explains(entry, "`..` is {no} \"tensor\".."));
    assert!(!explains(entry, "goes on here"));
    assert!(!explains(entry, "`..` is {no} tensor that anybody would look for under this heading"));
}
