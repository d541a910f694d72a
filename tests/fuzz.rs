//! Random graphs through random pipelines. Whatever runs, in whatever order and however far: the graph verifies, computes
//! the same, survives its text, and has one canonical form.
//!
//! `PHOTONC_FUZZ_CASES` cases (500) from `PHOTONC_FUZZ_SEED` (a number, or `random`); the seed is printed. A failure is
//! shrunk and written to `tests/cases/fuzz`, whose files are run again by every test.
#![allow(clippy::panic, reason = "a test fails by panicking")]

#[path = "harness/mod.rs"]
#[allow(dead_code, reason = "each test uses its part of the harness")]
mod harness;
mod random_graph;

use harness::{Setting, cases, root, setting, try_outputs};
use photonc::graph::interp::Tensors;
use photonc::graph::{Graph, NodeId, text};
use photonc::ir::attr::Scheme;
use photonc::ir::dtype::Dtype;
use photonc::ir::op::{Op, OpKind};
use photonc::ir::tensor::{Data, Tensor};
use photonc::passes::Pass;
use photonc::passes::choose_protocol::{ChooseProtocol, Protocol};
use photonc::passes::close_counters::CloseCounters;
use photonc::passes::compile::pass_names;
use photonc::passes::distribute::{NotDistributed, distribute};
use photonc::passes::eliminate_common_subexpressions::EliminateCommonSubexpressions;
use photonc::passes::eliminate_dead_code::EliminateDeadCode;
use photonc::passes::flatten_rows::FlattenRows;
use photonc::passes::fold_constants::FoldConstants;
use photonc::passes::fuse_residuals::FuseResiduals;
use photonc::passes::lower_caches::LowerCaches;
use photonc::passes::lower_precision::LowerPrecision;
use photonc::passes::merge_gates::MergeGates;
use photonc::passes::merge_projections::MergeProjections;
use photonc::passes::opt_level::OptLevel;
use photonc::passes::pad_heads::PadHeads;
use photonc::passes::pipeline::{Record, Runner};
use photonc::passes::quantize_weights::{Choice, QuantizeWeights};
use photonc::passes::reduce::reduce;
use photonc::passes::simplify_casts::SimplifyCasts;
use photonc::passes::simplify_shapes::SimplifyShapes;
use photonc::passes::simplify_unit_transposes::SimplifyUnitTransposes;
use photonc::passes::sink_reshapes::SinkReshapes;
use photonc::passes::skip_unread_positions::SkipUnreadPositions;
use proptest::prelude::{Strategy, any};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use random_graph::{Recipe, recipes};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A pass, and what it owes to the values.
type Row = (fn() -> Box<dyn Pass>, Debt);

/// What a pass owes to the values.
#[derive(Clone, Copy, PartialEq)]
enum Debt {
    /// The same bits: every result is computed by the same operations in the same order.
    Exact,
    /// The same bits where nothing is rounded: its graph with every narrow type as f32.
    Unrounded,
    /// The same bits over the weights that its codes stand for.
    Decoded,
}

/// Every pass but `choose-protocol`, which runs first where there is a choice.
const PASSES: [Row; 15] = [
    (|| Box::new(CloseCounters), Debt::Exact),
    (|| Box::new(LowerCaches), Debt::Exact),
    (|| Box::new(SimplifyShapes), Debt::Exact),
    (|| Box::new(SimplifyCasts), Debt::Exact),
    (|| Box::new(FoldConstants), Debt::Exact),
    (|| Box::new(EliminateCommonSubexpressions), Debt::Exact),
    (|| Box::new(EliminateDeadCode), Debt::Exact),
    (|| Box::new(SkipUnreadPositions), Debt::Exact),
    (|| Box::new(SimplifyUnitTransposes), Debt::Exact),
    (|| Box::new(MergeGates), Debt::Exact),
    (|| Box::new(MergeProjections), Debt::Exact),
    (|| Box::new(PadHeads(HEAD_MULTIPLE)), Debt::Exact),
    (|| Box::new(FlattenRows), Debt::Exact),
    (|| Box::new(FuseResiduals), Debt::Exact),
    (|| Box::new(SinkReshapes), Debt::Exact),
];

/// Passes that change what is computed, each alone on what the others made.
const ROUNDING: [Row; 2] = [
    (|| Box::new(LowerPrecision { dtype: Dtype::F16, wide_outputs: &[] }), Debt::Unrounded),
    (|| Box::new(QuantizeWeights { choices: CHOICES.into() }), Debt::Decoded),
];

/// Scopes that random graphs have.
const CHOICES: &[Choice] = &[
    Choice { stack: Cow::Borrowed("level1"), scheme: Scheme::Int8 },
    Choice { stack: Cow::Borrowed("level1.encoder.layer0"), scheme: Scheme::Fp8 },
    Choice { stack: Cow::Borrowed("level2"), scheme: Scheme::Int8 },
];

const STEPS: usize = 2;

/// Odd, so that heads of most widths are padded.
const HEAD_MULTIPLE: NonZeroUsize = NonZeroUsize::new(3).unwrap();

/// What runs on a graph.
#[derive(Clone, Debug, PartialEq)]
struct Pipeline {
    /// Names, in order.
    passes: Vec<&'static str>,
    /// In rounds until nothing is left to do, instead of once.
    rounds: bool,
    /// Rewrites after which rounds end.
    stop_after: Option<usize>,
}

fn named(name: &str) -> Box<dyn Pass> {
    let found = PASSES.iter().map(|(pass, _)| pass()).find(|pass| pass.name() == name);
    found.unwrap_or_else(|| panic!("no pass is called {name}"))
}

fn pipelines() -> impl Strategy<Value = Pipeline> {
    let passes = proptest::collection::vec(0..PASSES.len(), 1..7);
    let stop = proptest::option::of(0..12usize);
    (passes, any::<bool>(), stop).prop_map(|(passes, rounds, stop_after)| Pipeline {
        passes: passes.into_iter().map(|at| PASSES[at].0().name()).collect(),
        rounds,
        stop_after: stop_after.filter(|_| rounds),
    })
}

#[test]
fn no_pass_is_left_out() {
    let mut found: Vec<&str> =
        PASSES.iter().chain(&ROUNDING).map(|(pass, _)| pass().name()).chain(["choose-protocol"]).collect();
    let mut expected = pass_names();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

/// What one case did.
struct Outcome {
    /// Whether the graph had values to compare.
    compared: bool,
    records: Vec<Record>,
}

/// Everything that must hold of a graph and a pipeline.
fn check(graph: &Graph, pipeline: &Pipeline) -> Result<Outcome, String> {
    graph.verify().map_err(|error| format!("the grown graph: {error}"))?;
    round_trip(graph)?;
    let before = chosen(graph)?;
    distributes(&before)?;
    let mut after = before.clone();
    let passes: Vec<Box<dyn Pass>> = pipeline.passes.iter().map(|name| named(name)).collect();
    let mut runner = Runner::new(None, pipeline.stop_after);
    let ran = if pipeline.rounds {
        runner.run_to_fixpoint(&mut after, &passes)
    } else {
        runner.run(&mut after, &passes)
    };
    let mut records = ran.map_err(|error| error.to_string())?;
    round_trip(&after)?;
    let compared = same_values(&before, &after)?;
    canonical(&after)?;
    for row in &ROUNDING {
        records.extend(rounds(&after, row)?);
    }
    Ok(Outcome { compared, records })
}

/// A pass that rounds, on a graph whose form it takes.
fn rounds(graph: &Graph, (pass, debt): &Row) -> Result<Vec<Record>, String> {
    let (pass, mut after) = (pass(), graph.clone());
    if pass.requires().broken_by(graph).is_some() {
        return Ok(Vec::new());
    }
    let name = pass.name();
    let records = Runner::default().run(&mut after, &[pass]).map_err(|error| error.to_string())?;
    round_trip(&after)?;
    canonical(&after)?;
    let compared = match debt {
        Debt::Exact => same_values(graph, &after),
        Debt::Unrounded if graph.nodes().into_iter().any(|id| rounds_anyway(graph, id)) => Ok(false),
        Debt::Unrounded => same_values(graph, &widened(&after)?),
        Debt::Decoded => same_decoded(graph, &after),
    };
    compared.map_err(|error| format!("after {name}: {error}"))?;
    Ok(records)
}

/// Whether a value is rounded even where narrow types are f32: narrow before, or a constant that no f16 is.
fn rounds_anyway(graph: &Graph, id: NodeId) -> bool {
    let is_inexact = |value: &f64| Dtype::F16.round(*value) != *value;
    let constant = match graph.op(id) {
        Op::Const { value } => {
            value.to_tensor().as_floats().is_some_and(|values| values.iter().any(is_inexact))
        }
        _ => false,
    };
    constant || graph.ty(id).dtype.is_narrow()
}

/// The graph with every narrow type as f32.
fn widened(graph: &Graph) -> Result<Graph, String> {
    let printed = text::print(graph).replace("bf16", "f32").replace("f16", "f32");
    text::parse(&printed).map_err(|errors| format!("with f32 for f16: {errors}\n{printed}"))
}

/// Whether there were values to compare: those of `after` with those of `before` over decoded weights.
fn same_decoded(before: &Graph, after: &Graph) -> Result<bool, String> {
    let mut schemes: BTreeMap<String, BTreeSet<Option<Scheme>>> = BTreeMap::new();
    for id in after.nodes() {
        match after.op(id) {
            Op::Weight { name, .. } => schemes.entry(name.to_string()).or_default().insert(None),
            Op::QuantizedWeight { name, scheme, .. } => {
                schemes.entry(name.to_string()).or_default().insert(Some(*scheme))
            }
            _ => false,
        };
    }
    // A weight that is read in two ways has no one value; one that was decoded before would be coded twice.
    let is_coded = |id: &NodeId| matches!(before.op(*id), Op::QuantizedWeight { .. });
    if schemes.values().any(|ways| ways.len() > 1) || before.nodes().iter().any(is_coded) {
        return Ok(false);
    }
    same_values_over(before, after, |setting| {
        for (name, ways) in &schemes {
            if let Some(scheme) = ways.iter().find_map(|way| *way) {
                setting.decode(name, scheme);
            }
        }
    })
}

/// The graph with its protocol chosen.
fn chosen(graph: &Graph) -> Result<Graph, String> {
    let mut chosen = graph.clone();
    let passes: Vec<Box<dyn Pass>> = vec![Box::new(ChooseProtocol(Protocol::Hiergen))];
    Runner::default().run(&mut chosen, &passes).map_err(|error| error.to_string())?;
    Ok(chosen)
}

fn round_trip(graph: &Graph) -> Result<Graph, String> {
    let printed = text::print(graph);
    let again = text::parse(&printed).map_err(|errors| format!("does not parse: {errors}\n{printed}"))?;
    again.verify().map_err(|error| format!("does not verify after the round trip: {error}"))?;
    let reprinted = text::print(&again);
    if reprinted == printed { Ok(again) } else { Err(format!("prints as\n{printed}\nthen as\n{reprinted}")) }
}

/// Canonical passes leave nothing to canonical passes, and text does not undo them.
fn canonical(graph: &Graph) -> Result<(), String> {
    let settle = |graph: &mut Graph| -> Result<usize, String> {
        let mut rewrites = 0;
        for passes in OptLevel::O1.stages() {
            let records =
                Runner::default().run_to_fixpoint(graph, &passes).map_err(|error| error.to_string())?;
            rewrites += records.iter().map(|record| record.rewrites.count).sum::<usize>();
        }
        Ok(rewrites)
    };
    let mut once = graph.clone();
    settle(&mut once)?;
    let mut twice = round_trip(&once)?;
    match (settle(&mut once.clone())?, settle(&mut twice)?) {
        (0, 0) => Ok(()),
        (again, parsed) => {
            Err(format!("canonical, but {again} rewrites follow, {parsed} after the round trip"))
        }
    }
}

/// Distribution takes any graph: it declines, or both parts verify.
fn distributes(graph: &Graph) -> Result<(), String> {
    for delay in graph.delays() {
        let Op::Delay { name, .. } = graph.op(delay) else { continue };
        match distribute(graph, name) {
            Ok(parts) => {
                for part in [&parts.coarse, &parts.expand] {
                    if !part.outputs().is_empty() {
                        part.verify().map_err(|error| format!("distributed around {name}: {error}"))?;
                    }
                }
            }
            Err(NotDistributed::Declined(_)) => {}
            Err(NotDistributed::Build(error)) => return Err(format!("distributed around {name}: {error}")),
        }
    }
    Ok(())
}

/// Whether there were values to compare.
fn same_values(before: &Graph, after: &Graph) -> Result<bool, String> {
    same_values_over(before, after, |_| {})
}

/// [`same_values`], where `before` runs over what `change` makes of its weights.
fn same_values_over(before: &Graph, after: &Graph, change: impl Fn(&mut Setting)) -> Result<bool, String> {
    for seed in 1..=2 {
        let setting = setting(before, seed);
        let mut changed = setting.clone();
        change(&mut changed);
        let Ok(expected) = try_outputs(before, &changed, STEPS) else { return Ok(false) };
        let found =
            try_outputs(after, &setting, STEPS).map_err(|error| format!("does not run any more: {error}"))?;
        for (step, (expected, found)) in expected.iter().zip(&found).enumerate() {
            let names = |tensors: &Tensors| tensors.keys().cloned().collect::<Vec<_>>();
            if names(expected) != names(found) {
                return Err(format!("outputs {:?} became {:?}", names(expected), names(found)));
            }
            if let Some((name, _)) = expected.iter().find(|(name, value)| !same(value, &found[*name])) {
                let (was, is) = (&expected[name], &found[name]);
                let short = |tensor: &Tensor| format!("{tensor:?}").chars().take(200).collect::<String>();
                let (was, is) = (short(was), short(is));
                return Err(format!(
                    "`{name}` differs in step {step} of seed {seed}\n  was {was}\n  is  {is}"
                ));
            }
        }
    }
    Ok(true)
}

fn same(a: &Tensor, b: &Tensor) -> bool {
    match (&a.data, &b.data) {
        (Data::Float(x), Data::Float(y)) => {
            a.shape == b.shape && x.iter().zip(&**y).all(|(x, y)| x == y || (x.is_nan() && y.is_nan()))
        }
        _ => a == b,
    }
}

fn variable(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) if text == "random" => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(default, |time| time.as_nanos() as u64 % 1_000_000_007)
        }
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is `{text}`, expected a number")),
        Err(_) => default,
    }
}

/// Past the capture of passing tests.
fn say(text: &str) {
    std::io::stderr().write_all(format!("{text}\n").as_bytes()).expect("stderr");
}

#[test]
fn pipelines_keep_what_random_graphs_compute() {
    let (seed, count) = (variable("PHOTONC_FUZZ_SEED", 1), variable("PHOTONC_FUZZ_CASES", 500));
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases: u32::try_from(count).expect("a count of cases"),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let compared = Cell::new(0u64);
    let (kinds, rewrites) = (RefCell::new(BTreeSet::new()), RefCell::new(BTreeMap::new()));
    let outcome = runner.run(&(recipes(), pipelines()), |(recipe, pipeline)| {
        let graph = recipe.graph();
        kinds.borrow_mut().extend(graph.nodes().into_iter().map(|id| graph.op(id).kind()));
        let outcome = check(&graph, &pipeline).map_err(TestCaseError::fail)?;
        compared.set(compared.get() + u64::from(outcome.compared));
        for record in outcome.records {
            *rewrites.borrow_mut().entry(record.pass).or_insert(0) += record.rewrites.count;
        }
        Ok(())
    });
    match outcome {
        Ok(()) => {
            say(&format!("fuzz: seed {seed}, {count} cases, {} compared by value", compared.get()));
            assert!(compared.get() * 10 >= count * 9, "only {} of {count} graphs had values", compared.get());
            let missing: Vec<_> = OpKind::ALL.iter().filter(|kind| !kinds.borrow().contains(kind)).collect();
            assert!(missing.is_empty() || count < 500, "no random graph has {missing:?}");
            let idle =
                |(pass, _): &&Row| rewrites.borrow().get(pass().name()).is_none_or(|count| *count == 0);
            let idle: Vec<&str> =
                PASSES.iter().chain(&ROUNDING).filter(idle).map(|(pass, _)| pass().name()).collect();
            assert!(idle.is_empty() || count < 500, "{idle:?} rewrote nothing");
        }
        Err(TestError::Fail(reason, (recipe, pipeline))) => {
            fail(seed, &reason.to_string(), &recipe, &pipeline)
        }
        Err(TestError::Abort(reason)) => panic!("fuzzing stopped: {reason}"),
    }
}

/// Writes the shrunk case where the next run finds it.
fn fail(seed: u64, reason: &str, recipe: &Recipe, pipeline: &Pipeline) -> ! {
    // Said first: where growing the graph itself panics, nothing else is.
    say(&format!("fuzz: PHOTONC_FUZZ_SEED={seed} found a bug"));
    // A panic is a failure like any other.
    let checked = |graph: &Graph| {
        let outcome = catch_unwind(AssertUnwindSafe(|| check(graph, pipeline)));
        outcome.unwrap_or_else(|_| Err("panics".to_owned()))
    };
    let fails = |graph: &Graph| checked(graph).is_err();
    // What the text parses to, if that fails by itself; then moves on the graph go further than moves on what it was grown
    // from.
    let grown = recipe.graph();
    let parsed = text::parse(&text::print(&grown)).ok().filter(&fails);
    let Ok(reduction) = reduce(&parsed.unwrap_or(grown), &mut |graph| Ok::<bool, Infallible>(fails(graph)));
    let graph = reduction.graph;
    let again = text::parse(&text::print(&graph)).is_ok_and(|graph| fails(&graph));
    let reason = checked(&graph).err().unwrap_or_else(|| reason.to_owned());
    let folder = root().join("tests/cases/fuzz");
    let path = folder.join(format!("seed_{seed}.pho"));
    let case = format!("// {}\n{}{}", first_line(&reason), header(pipeline), text::print(&graph));
    std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, &case)).expect("a case file");
    let caution = if again { "" } else { "; the text alone does not fail, the order of creation matters" };
    panic!("PHOTONC_FUZZ_SEED={seed} found a bug, shrunk to {}{caution}\n{reason}\n{case}", path.display());
}

fn first_line(reason: &str) -> &str {
    reason.lines().next().unwrap_or_default()
}

fn header(pipeline: &Pipeline) -> String {
    let mut text = format!("// passes: {}\n", pipeline.passes.join(", "));
    if pipeline.rounds {
        text.push_str("// rounds\n");
    }
    if let Some(stop) = pipeline.stop_after {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "// stop-after: {stop}");
    }
    text
}

/// The pipeline in the comments of a case.
fn read_header(text: &str) -> Pipeline {
    let comment = |key: &str| text.lines().find_map(|line| line.strip_prefix(&format!("// {key}")));
    let names = comment("passes: ").expect("a line `// passes: ..`");
    Pipeline {
        passes: names.split(", ").map(|name| named(name).name()).collect(),
        rounds: comment("rounds").is_some(),
        stop_after: comment("stop-after: ").map(|count| count.parse().expect("a count")),
    }
}

// Each was a bug once: found by fuzzing, shrunk, repaired.
#[test]
fn cases_found_before_stay_repaired() {
    let found = cases("fuzz");
    assert!(!found.is_empty());
    for case in found {
        let graph =
            text::parse(&case.text).unwrap_or_else(|errors| panic!("{}: {errors}", case.path.display()));
        let pipeline = read_header(&case.text);
        assert_eq!(read_header(&header(&pipeline)), pipeline);
        let outcome =
            check(&graph, &pipeline).unwrap_or_else(|error| panic!("{}: {error}", case.path.display()));
        assert!(outcome.compared, "{}: has no values", case.path.display());
    }
}
