//! Runs every case file. The folder says what is checked, the file's name what it claims, its first comment why.
//!
//! - `cases/text`: the text is canonical, survives the round trip, and computes the same afterwards.
//! - `cases/eval`: every output `x` has the value of the output `x.expected`, worked out by hand.
//! - `cases/bad`: every error stands in a comment `//~ message` on its line; above the graph, if only the verifier
//!   finds it.
//! - `cases/passes/<pass>`: the pass named like the folder runs; the text is a snapshot, the values stay.

#[path = "harness/mod.rs"]
mod harness;

use harness::{Case, UPDATE, assert_close, assert_same_values, cases, outputs, root, setting};
use photonc::graph::{Graph, text};
use photonc::ir::op::Op;

/// A pass as the cases run it.
type Run = fn(&mut Graph);

/// Passes by the name of their folder. A pass without a folder and a folder without a pass both fail.
const PASSES: &[(&str, Run)] = &[];

/// How far a pass may move a value: it may reorder sums, in binary64.
const PASS_TOLERANCE: f64 = 1e-9;

/// Numbers in case files are written to this precision.
const EVAL_TOLERANCE: f64 = 1e-12;

fn parsed(case: &Case) -> Graph {
    text::parse(&case.text).unwrap_or_else(|errors| unreachable!("{}: {errors}", case.path.display()))
}

/// The comment lines a file starts with, and the rest.
fn split_comment(text: &str) -> (&str, &str) {
    let comments = text.lines().take_while(|line| line.starts_with("//"));
    text.split_at(comments.map(|line| line.len() + 1).sum())
}

#[test]
fn texts_round_trip() {
    let found = cases("text");
    assert!(!found.is_empty());
    for case in found.iter().chain(&cases("eval")) {
        let graph = parsed(case);
        let printed = text::print(&graph);
        let (comment, body) = split_comment(&case.text);
        assert!(!comment.is_empty(), "{}: starts with a comment that says why", case.path.display());
        if std::env::var_os(UPDATE).is_some() {
            std::fs::write(&case.path, format!("{comment}{printed}")).expect("writable");
        } else {
            assert_eq!(body, printed, "{} is not canonical; set {UPDATE}=1", case.path.display());
        }
        let again = text::parse(&printed).expect("parses");
        assert_eq!(text::print(&again), printed);
        let open = |op: &Op| matches!(op, Op::ProtocolSwitch);
        if graph.select(open).is_empty() {
            assert_same_values(&graph, &again, 0.0, &case.path.display().to_string());
        } else {
            graph.verify().expect("valid");
        }
    }
}

#[test]
fn evaluations_give_hand_computed_values() {
    let found = cases("eval");
    assert!(!found.is_empty());
    for case in found {
        let graph = parsed(&case);
        let values = outputs(&graph, &setting(&graph, 1), 1).remove(0);
        let pairs: Vec<_> = values.iter().filter(|(name, _)| !name.ends_with(".expected")).collect();
        assert_eq!(pairs.len() * 2, values.len(), "{}: outputs come in pairs", case.path.display());
        for (name, value) in pairs {
            let what = format!("{}: `{name}`", case.path.display());
            let expected = values.get(&format!("{name}.expected"));
            assert_close(value, expected.expect("has an expected value"), EVAL_TOLERANCE, &what);
        }
    }
}

#[test]
fn bad_texts_are_told_where_and_why() {
    let found = cases("bad");
    assert!(!found.is_empty());
    for case in found {
        let wanted: Vec<(usize, &str)> = case
            .text
            .lines()
            .enumerate()
            .filter_map(|(line, text)| Some((line + 1, text.split_once("//~")?.1.trim())))
            .collect();
        let (found, located) = match text::parse(&case.text) {
            Err(errors) => {
                (errors.0.into_iter().map(|error| (error.line, error.message)).collect::<Vec<_>>(), true)
            }
            Ok(graph) => {
                let error = graph.verify().expect_err("neither parses nor verifies");
                (error.violations.iter().map(|violation| (0, violation.to_string())).collect(), false)
            }
        };
        let path = case.path.display();
        assert_eq!(found.len(), wanted.len(), "{path}: found {found:#?}\nexpected {wanted:#?}");
        for ((line, message), (wanted_line, wanted)) in found.iter().zip(&wanted) {
            assert!(message.contains(wanted), "{path}:{line}: found `{message}`, expected `{wanted}`");
            assert!(
                !located || line == wanted_line,
                "{path}: `{message}` at {line}, expected at {wanted_line}"
            );
        }
    }
}

#[test]
fn passes_keep_values() {
    let folders: Vec<String> = std::fs::read_dir(root().join("tests/cases/passes"))
        .map(|entries| {
            entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into()).collect()
        })
        .unwrap_or_default();
    for folder in &folders {
        assert!(PASSES.iter().any(|(name, _)| name == folder), "cases/passes/{folder} is no pass");
    }
    for (name, run) in PASSES {
        let found = cases(&format!("passes/{name}"));
        assert!(!found.is_empty(), "pass {name} has no cases");
        for case in found {
            check_pass(name, *run, &case);
        }
    }
}

/// One case of a pass: the text it leaves is a snapshot, the values it leaves are the same.
fn check_pass(name: &str, run: Run, case: &Case) {
    let before = parsed(case);
    before.verify().expect("valid before");
    let mut after = before.clone();
    run(&mut after);
    after.verify().expect("valid after");
    assert_same_values(&before, &after, PASS_TOLERANCE, &case.path.display().to_string());
    let behaviour = case.path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let (comment, _) = split_comment(&case.text);
    insta::with_settings!({
        snapshot_path => format!("snapshots/passes/{name}"),
        prepend_module_to_snapshot => false,
        omit_expression => true,
        description => comment.replace("// ", "").trim(),
    }, { insta::assert_snapshot!(behaviour, text::print(&after)); });
}
