//! From a model's equations to every graph of a bundle: specialise the step program by protocol, distribute it where
//! the data flow allows, otherwise cut it at its ids, and optimise each result. Owns graph names and plans.

mod cut;
mod options;

use super::choose_protocol::ChooseProtocol;
use super::close_counters::CloseCounters;
use super::distribute::{self, NotDistributed};
use super::eliminate_common_subexpressions::EliminateCommonSubexpressions;
use super::eliminate_dead_code::EliminateDeadCode;
use super::lower_caches::LowerCaches;
use super::lower_precision::LowerPrecision;
use super::opt_level::{self, OptLevel};
use super::pad_heads::PadHeads;
use super::pipeline::{PipelineError, Record, Runner};
use super::protocols;
use super::quantize_weights::{self, Choice, QuantizeWeights};
use super::{Pass, straighten};
use crate::model::build;
use crate::model::config::ModelConfig;
use crate::model::forecast::step_nodes;
use cut::Cut;
use indexmap::IndexMap;
use photonc_bundle::program::{self, Declined, Protocol, Remainder};
use photonc_graph::graph::{BuildError, Graph, NodeId, VerifyError};
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::op::Op;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;

pub use options::PassOptions;
pub use photonc_bundle::program::Plan;

/// Most nodes of a step program: those of two levels of 140 layers and chunks of 4.
pub const MAX_STEP_NODES: u128 = 40_000;

/// The state whose recurrence may run ahead.
const STATE: &str = "top_state";

/// The state of a step that is asked to run ahead: the top's, or, where nothing reads one, what its windows are conditioned on.
fn state_of(step: &Graph) -> &str {
    let names = step.delays().into_iter().filter_map(|id| match step.op(id) {
        Op::Delay { name, .. } => Some(&**name),
        _ => None,
    });
    let names: Vec<&str> = names.collect();
    let carry = names.iter().find(|name| name.starts_with("carry."));
    if names.contains(&STATE) { STATE } else { carry.copied().unwrap_or(STATE) }
}

/// Outputs that no graph reads, but people and samplers outside the graphs: f32 whatever the precision.
const WIDE_OUTPUTS: &[&str] = &["logits"];

/// Every graph of a model and how protocols use them.
#[derive(Clone, Debug)]
pub struct Compilation {
    /// Straight graphs by name, in the order they are exported.
    pub graphs: IndexMap<String, Graph>,
    /// How each protocol generates.
    pub plans: IndexMap<Protocol, Plan>,
    /// What stands for a meta-context that a prompt begins.
    pub remainder: Remainder,
    /// What each pass did, by graph; the step program of a protocol is `step-` and its name.
    pub records: IndexMap<String, Vec<Record>>,
}

/// Why a model did not compile.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// A pass broke, or the protocol is not defined for this model.
    #[error(transparent)]
    Pipeline(#[from] Box<PipelineError>),
    /// The builder's shapes contradict each other.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A graph is not valid.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// A model whose graphs would take too long to compile, or not fit memory.
    #[error(
        "the step program would have about {found} nodes, at most {MAX_STEP_NODES} are compiled: a model of fewer layers, \
         or of smaller chunks, whose positions are unrolled"
    )]
    TooManyNodes {
        /// Nodes forecast.
        found: u128,
    },
    /// A stack to quantise that no graph has.
    #[error(
        "there is no stack `{found}` with weights to quantise, expected one of {known}, or a part of such a name"
    )]
    UnknownStack {
        /// The stack asked for.
        found: String,
        /// Stacks there are.
        known: String,
    },
}

/// Compiles the graphs that `protocols` need, and `score`, at the default level.
///
/// # Errors
/// A protocol that is not defined for this model, or a bug, with the pass and the graphs.
pub fn compile(config: &ModelConfig, protocols: &[Protocol]) -> Result<Compilation, CompileError> {
    compile_with(config, protocols, PassOptions::default())
}

/// Compiles the graphs that `protocols` need, and `score`.
///
/// # Errors
/// As [`compile`].
pub fn compile_with(
    config: &ModelConfig,
    protocols: &[Protocol],
    options: PassOptions<'_>,
) -> Result<Compilation, CompileError> {
    compile_by(config, protocols, options, &|step| distribute::distribute(step, state_of(step)))
}

/// The same with every step in one piece, as if its data flow forbade all else: what a split is compared with.
///
/// # Errors
/// As [`compile`].
pub fn compile_whole(
    config: &ModelConfig,
    protocols: &[Protocol],
    options: PassOptions<'_>,
) -> Result<Compilation, CompileError> {
    let whole = |_: &Graph| {
        let reason = "kept in one piece".to_owned();
        let declined = Declined { state: STATE.to_owned(), reason, path: Vec::new() };
        Err(NotDistributed::Declined(declined))
    };
    compile_by(config, protocols, options, &whole)
}

fn compile_by(
    config: &ModelConfig,
    protocols: &[Protocol],
    options: PassOptions<'_>,
    split: &dyn Fn(&Graph) -> Result<distribute::Distributed, NotDistributed>,
) -> Result<Compilation, CompileError> {
    check_size(config)?;
    let mut compiler = Compiler::new(options);
    compiler.done.remainder = protocols::remainder(config);
    for kept in protocols::prefills(protocols) {
        compiler.insert(build::encode(config, kept)?)?;
    }
    for protocol in protocols {
        let step = compiler.specialise(config, *protocol)?;
        let plan = match split(&step) {
            Ok(parts) => compiler.distributed(parts)?,
            Err(NotDistributed::Declined(declined)) => compiler.undistributed(&step, *protocol, declined)?,
            Err(NotDistributed::Build(error)) => return Err(error.into()),
        };
        compiler.done.plans.insert(*protocol, plan);
    }
    let window_step = compiler.window_step(config)?;
    compiler.insert(window_step)?;
    compiler.insert(build::score(config)?)?;
    compiler.finish()
}

/// The step program of one protocol, canonical, verified, with counters closed and dead state gone.
///
/// # Errors
/// As [`compile`].
pub fn specialise(config: &ModelConfig, protocol: Protocol) -> Result<Graph, CompileError> {
    specialise_with(config, protocol, PassOptions::at(OptLevel::O1))
}

/// The step program of one protocol, verified, with counters closed; canonical from `O1` on.
///
/// # Errors
/// As [`compile`].
pub fn specialise_with(
    config: &ModelConfig,
    protocol: Protocol,
    options: PassOptions<'_>,
) -> Result<Graph, CompileError> {
    Compiler::new(options).specialise(config, protocol)
}

/// The teacher-forced forward with the states of every level, for measurements: no part of a bundle.
///
/// # Errors
/// As [`compile`].
pub fn states(config: &ModelConfig, precision: Dtype, quantized: Vec<Choice>) -> Result<Graph, CompileError> {
    let mut compiler = Compiler::new(PassOptions { precision, quantized, ..PassOptions::at(OptLevel::O1) });
    let name = compiler.insert(build::states(config)?)?;
    Ok(compiler.done.graphs.swap_remove(&name).unwrap_or_else(|| Graph::new(&name)))
}

/// Names of every pass that compilation can run: those that are in no level first, those that choose types of values and
/// weights last.
#[must_use]
pub fn pass_names() -> Vec<&'static str> {
    let needed = [
        ChooseProtocol(Protocol::Recgen).name(),
        CloseCounters.name(),
        LowerCaches.name(),
        PadHeads(NonZeroUsize::MIN).name(),
    ];
    let lower = LowerPrecision { dtype: Dtype::F32, wide_outputs: WIDE_OUTPUTS };
    let last = [lower.name(), QuantizeWeights { choices: Vec::new().into() }.name()];
    let optional = opt_level::TABLE.iter().map(|row| (row.pass)().name());
    needed.into_iter().chain(optional).chain(last).collect()
}

fn check_size(config: &ModelConfig) -> Result<(), CompileError> {
    let found = step_nodes(config);
    if found > MAX_STEP_NODES { Err(CompileError::TooManyNodes { found }) } else { Ok(()) }
}

/// Outputs beside the state: what callers of a step want of it.
fn is_state(name: &str) -> bool {
    name.starts_with("next.")
}

/// A compilation under way.
struct Compiler<'o> {
    done: Compilation,
    level: OptLevel,
    pad_heads: Option<NonZeroUsize>,
    precision: Dtype,
    quantized: Vec<Choice>,
    /// Scopes that have weights to quantise, of all graphs so far.
    scopes: BTreeSet<String>,
    runner: Runner<'o>,
}

impl<'o> Compiler<'o> {
    fn new(options: PassOptions<'o>) -> Self {
        Compiler {
            done: Compilation {
                graphs: IndexMap::new(),
                plans: IndexMap::new(),
                remainder: Remainder::default(),
                records: IndexMap::new(),
            },
            level: options.level,
            pad_heads: options.pad_heads,
            precision: options.precision,
            quantized: options.quantized,
            scopes: BTreeSet::new(),
            runner: Runner::new(options.observer, options.stop_after),
        }
    }

    /// The analyses of distribution see the same step program from `O1` on: merging what a step shares with the next
    /// would tie parts together that can be told apart.
    fn specialise(&mut self, config: &ModelConfig, protocol: Protocol) -> Result<Graph, CompileError> {
        check_size(config)?;
        // A model of carried conditions wires its protocols into one program.
        let mut step = build::step_program_of(config, protocols::row(protocol).summary)?;
        step.verify()?;
        let passes: Vec<Box<dyn Pass>> =
            vec![Box::new(ChooseProtocol(protocol)), Box::new(CloseCounters), Box::new(LowerCaches)];
        let mut records = self.runner.run(&mut step, &passes)?;
        for passes in self.level.min(OptLevel::O1).stages() {
            records.extend(self.runner.run_to_fixpoint(&mut step, &passes)?);
        }
        self.done.records.insert(format!("step-{protocol}"), records);
        Ok(step)
    }

    /// Every graph, if each stack that was named is one of theirs.
    fn finish(self) -> Result<Compilation, CompileError> {
        let Compiler { done, quantized, scopes, .. } = self;
        let is_unknown =
            |choice: &&Choice| !scopes.iter().any(|scope| quantize_weights::covers(&choice.stack, scope));
        match quantized.iter().find(is_unknown) {
            None => Ok(done),
            Some(choice) => {
                let known: BTreeSet<String> =
                    scopes.iter().map(|scope| quantize_weights::stack_of(scope)).collect();
                let known = known.into_iter().collect::<Vec<_>>().join(", ");
                Err(CompileError::UnknownStack { found: choice.stack.to_string(), known })
            }
        }
    }

    fn window_step(&mut self, config: &ModelConfig) -> Result<Graph, CompileError> {
        let mut step = build::window_step(config)?;
        step.verify()?;
        let passes: Vec<Box<dyn Pass>> = vec![Box::new(LowerCaches)];
        self.runner.run(&mut step, &passes)?;
        let mut roots: Vec<(String, NodeId)> =
            step.outputs().iter().map(|output| (output.name.to_string(), output.node)).collect();
        roots.extend(straighten::next_states(&step, &step.delays()));
        Ok(straighten::straighten(&step, "expand_step", &roots, &[])?)
    }

    /// Optimises a straight graph and adds it under its name.
    fn insert(&mut self, mut graph: Graph) -> Result<String, CompileError> {
        graph.verify()?;
        let mut records = Vec::new();
        for passes in self.level.stages() {
            records.extend(self.runner.run_to_fixpoint(&mut graph, &passes)?);
        }
        // What widens heads would stand in the way of passes that know them.
        if let Some(multiple) = self.pad_heads {
            let passes: Vec<Box<dyn Pass>> = vec![Box::new(PadHeads(multiple))];
            records.extend(self.runner.run_to_fixpoint(&mut graph, &passes)?);
        }
        records.extend(self.choose_types(&mut graph)?);
        let name = graph.name().to_owned();
        self.done.records.insert(name.clone(), records);
        self.done.graphs.insert(name.clone(), graph);
        Ok(name)
    }

    /// After all other passes: they know the equations by their shapes, and casts would stand between.
    fn choose_types(&mut self, graph: &mut Graph) -> Result<Vec<Record>, CompileError> {
        let mut records = Vec::new();
        if self.precision.is_narrow() {
            let lower = LowerPrecision { dtype: self.precision, wide_outputs: WIDE_OUTPUTS };
            records.extend(self.runner.run(graph, &[Box::new(lower)])?);
        }
        self.scopes.extend(quantize_weights::scopes(graph));
        if !self.quantized.is_empty() {
            let quantize = QuantizeWeights { choices: self.quantized.clone().into() };
            let passes: [Box<dyn Pass>; 3] =
                [Box::new(quantize), Box::new(EliminateCommonSubexpressions), Box::new(EliminateDeadCode)];
            records.extend(self.runner.run(graph, &passes)?);
        }
        Ok(records)
    }

    fn distributed(&mut self, parts: distribute::Distributed) -> Result<Plan, CompileError> {
        let coarse = self.insert(parts.coarse)?;
        let lead = parts.lead.map(|lead| self.insert(lead)).transpose()?;
        let wide = &parts.expand;
        wide.verify()?;
        let expand = self.insert(wide.subgraph("expand", |name| is_state(name) || name == "ids")?)?;
        let keep = |name: &str| is_state(name) || name == "ids" || name == "logits";
        let logits = self.insert(wide.subgraph("expand_logits", keep)?)?;
        let keep = |name: &str| is_state(name) || name == "conditions";
        // A loop of tokens has no windows to draw outside.
        let prepare = match wide.output("conditions") {
            Some(_) => Some(self.insert(wide.subgraph("expand_prepare", keep)?)?),
            None => None,
        };
        // Of the graphs as they are exported: whoever reads them can derive it again.
        let graphs = &self.done.graphs;
        let proof = program::certificate(&graphs[&coarse], &graphs[&expand], &parts.certificate.state);
        Ok(Plan::Distributed { coarse, lead, expand, logits, prepare, certificate: proof })
    }

    fn undistributed(
        &mut self,
        step: &Graph,
        protocol: Protocol,
        declined: Declined,
    ) -> Result<Plan, CompileError> {
        let suffix = match protocol {
            Protocol::Hiergen => String::new(),
            Protocol::Recgen | Protocol::Windowed | Protocol::Chunkgen => format!("_{protocol}"),
        };
        let cut = Cut::of(step);
        let mut variant = |name: &str, outputs: &[&str]| -> Result<String, CompileError> {
            let wanted = step.outputs().iter().filter(|output| outputs.contains(&&*output.name));
            let mut roots: Vec<(String, NodeId)> =
                wanted.map(|output| (output.name.to_string(), output.node)).collect();
            roots.extend(cut.before.iter().cloned());
            self.insert(straighten::straighten(step, &format!("{name}{suffix}"), &roots, &[])?)
        };
        let decode = variant("decode", &["ids"])?;
        let logits = variant("decode_logits", &["ids", "logits"])?;
        let prepare =
            if cut.before_reads_samples { None } else { Some(variant("decode_prepare", &["conditions"])?) };
        let reencode = match (cut.after.is_empty(), step.output("ids")) {
            (false, Some(ids)) => {
                let name = format!("reencode{suffix}");
                Some(self.insert(straighten::straighten(step, &name, &cut.after, &[(ids, "ids")])?)?)
            }
            _ => None,
        };
        Ok(Plan::Undistributed { decode, logits, prepare, reencode, declined })
    }
}

#[cfg(test)]
mod tests;
