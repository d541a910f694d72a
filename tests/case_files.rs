//! Runs every case file. The folder says what is checked, the file's name what it claims, its first comment why.
//!
//! - `cases/text`: the text is canonical, survives the round trip, and computes the same afterwards.
//! - `cases/eval`: every output `x` has the value of the output `x.expected`, worked out by hand.
//! - `cases/bad`: every error stands in a comment `//~ message` on its line; above the graph, if only the verifier
//!   finds it.
//! - `cases/passes/<pass>`: the pass named like the folder runs; the text is a snapshot, the values stay.

#[path = "harness/mod.rs"]
#[allow(dead_code, reason = "each test uses its part of the harness")]
mod harness;

use harness::{Case, UPDATE, assert_close, assert_same_values, cases, outputs, root, setting};
use photonc::graph::{Graph, text};
use photonc::ir::attr::Scheme;
use photonc::ir::op::Op;
use photonc::passes::Pass;
use photonc::passes::choose_protocol::{ChooseProtocol, Protocol};
use photonc::passes::close_counters::CloseCounters;
use photonc::passes::distribute::distribute;
use photonc::passes::eliminate_common_subexpressions::EliminateCommonSubexpressions;
use photonc::passes::eliminate_dead_code::EliminateDeadCode;
use photonc::passes::flatten_rows::FlattenRows;
use photonc::passes::fold_constants::FoldConstants;
use photonc::passes::fuse_residuals::FuseResiduals;
use photonc::passes::lower_caches::LowerCaches;
use photonc::passes::lower_precision::LowerPrecision;
use photonc::passes::merge_gates::MergeGates;
use photonc::passes::merge_projections::MergeProjections;
use photonc::passes::pad_heads::PadHeads;
use photonc::passes::quantize_weights::{Choice, QuantizeWeights};
use photonc::passes::simplify_casts::SimplifyCasts;
use photonc::passes::simplify_shapes::SimplifyShapes;
use photonc::passes::simplify_unit_transposes::SimplifyUnitTransposes;
use photonc::passes::sink_reshapes::SinkReshapes;
use photonc::passes::skip_unread_positions::SkipUnreadPositions;
use std::borrow::Cow;
use std::num::NonZeroUsize;

/// A pass as the cases run it.
struct Tested {
    /// Its folder.
    name: &'static str,
    pass: &'static dyn Pass,
    /// How far values may move where the graphs before and after take the same inputs and states and so can be run side
    /// by side: not where a choice was open before, nor where a state became an input.
    tolerance: Option<f64>,
}

const fn tested(name: &'static str, pass: &'static dyn Pass, comparable: bool) -> Tested {
    Tested { name, pass, tolerance: if comparable { Some(PASS_TOLERANCE) } else { None } }
}

/// A pass that rounds: values of at most about 1 after at most 8 roundings to f16, each off by 2^-11 of its value.
const fn rounding(name: &'static str, pass: &'static dyn Pass) -> Tested {
    Tested { name, pass, tolerance: Some(8.0 / 2048.0) }
}

/// Stacks as the cases of `quantize_weights` have them.
const CHOICES: &[Choice] = &[
    Choice { stack: Cow::Borrowed("level1.decoder"), scheme: Scheme::Int8 },
    Choice { stack: Cow::Borrowed("lm_head"), scheme: Scheme::Int4 },
];

/// Every pass. A pass without a folder and a folder without a pass both fail.
const PASSES: &[Tested] = &[
    tested("choose_protocol", &ChooseProtocol(Protocol::Recgen), false),
    tested("close_counters", &CloseCounters, true),
    tested("eliminate_common_subexpressions", &EliminateCommonSubexpressions, true),
    tested("eliminate_dead_code", &EliminateDeadCode, true),
    tested("flatten_rows", &FlattenRows, true),
    tested("fold_constants", &FoldConstants, true),
    tested("fuse_residuals", &FuseResiduals, true),
    tested("lower_caches", &LowerCaches, true),
    rounding(
        "lower_precision",
        &LowerPrecision { dtype: photonc::ir::dtype::Dtype::F16, wide_outputs: &["logits"] },
    ),
    tested("merge_gates", &MergeGates, true),
    tested("merge_projections", &MergeProjections, true),
    tested("pad_heads", &PadHeads(NonZeroUsize::new(4).unwrap()), true),
    Tested {
        name: "quantize_weights",
        pass: &QuantizeWeights { choices: Cow::Borrowed(CHOICES) },
        // Two products of 4 weights below 1, each off by half of 1/127, the first times 4.
        tolerance: Some(0.1),
    },
    tested("simplify_casts", &SimplifyCasts, true),
    tested("simplify_shapes", &SimplifyShapes, true),
    tested("simplify_unit_transposes", &SimplifyUnitTransposes, true),
    tested("sink_reshapes", &SinkReshapes, true),
    tested("skip_unread_positions", &SkipUnreadPositions, true),
];

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
        assert!(PASSES.iter().any(|tested| tested.name == folder), "cases/passes/{folder} is no pass");
    }
    for tested in PASSES {
        let found = cases(&format!("passes/{}", tested.name));
        assert_eq!(tested.pass.name().replace('-', "_"), tested.name);
        let fires = found.iter().filter(|case| check_pass(tested, case) > 0).count();
        assert!(
            0 < fires && fires < found.len(),
            "{}: needs a case that fires and one that must not",
            tested.name
        );
    }
}

/// Coarse and expansion graphs, or the reason there are none.
#[test]
fn distribution_splits_or_says_why_not() {
    let found = cases("distribute");
    assert!(!found.is_empty());
    for case in found {
        let step = parsed(&case);
        step.verify().expect("valid");
        let text = match distribute(&step, "top_state") {
            Ok(parts) => {
                parts.coarse.verify().expect("valid coarse graph");
                parts.expand.verify().expect("valid expansion");
                let certificate = serde_json::to_string_pretty(&parts.certificate).expect("serialises");
                format!("{}\n{}\n{certificate}\n", text::print(&parts.coarse), text::print(&parts.expand))
            }
            Err(error) => format!("{error}\n"),
        };
        let behaviour = behaviour(&case);
        let declines = behaviour.starts_with("declines");
        assert_eq!(text.contains("not distributed"), declines, "{behaviour}: {text}");
        snapshot("distribute", &case, &text);
    }
}

fn behaviour(case: &Case) -> String {
    case.path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

fn snapshot(folder: &str, case: &Case, text: &str) {
    let (comment, _) = split_comment(&case.text);
    insta::with_settings!({
        snapshot_path => format!("snapshots/{folder}"),
        prepend_module_to_snapshot => false,
        omit_expression => true,
        description => comment.replace("// ", "").trim(),
    }, { insta::assert_snapshot!(behaviour(case), text); });
}

/// One case of a pass: the text it leaves is a snapshot, the values it leaves are the same. Returns the rewrites.
fn check_pass(tested: &Tested, case: &Case) -> usize {
    let path = case.path.display().to_string();
    let before = parsed(case);
    before.verify().expect("valid before");
    let mut after = before.clone();
    let rewrites = tested.pass.run(&mut after).expect("runs").count;
    assert_eq!(after.rewrites_started(), rewrites, "{path}: asks before each rewrite");
    after.sweep();
    after.verify().expect("valid after");
    if rewrites == 0 {
        assert_eq!(text::print(&after), text::print(&before), "{path}: no rewrites, but another graph");
    }
    if let Some(tolerance) = tested.tolerance {
        assert_same_values(&before, &after, tolerance, &path);
    }
    snapshot(&format!("passes/{}", tested.name), case, &text::print(&after));
    for limit in 0..rewrites {
        check_stopped(tested, &before, limit, &path);
    }
    rewrites
}

/// Bisection ends a pass between any two rewrites.
fn check_stopped(tested: &Tested, before: &Graph, limit: usize, path: &str) {
    let mut after = before.clone();
    after.allow_rewrites(Some(limit));
    let rewrites = tested.pass.run(&mut after).expect("runs").count;
    assert_eq!((rewrites, after.rewrites_started()), (limit, limit), "{path}: stopped after {limit}");
    after.sweep();
    after.verify().expect("valid after some rewrites");
    if let Some(tolerance) = tested.tolerance {
        assert_same_values(before, &after, tolerance, path);
    }
}
