//! How far RecGen drifts from HierGen, measured on a bundle: owns the graph that tells the states of every level, which is no
//! part of a bundle.

use super::backends::{Chosen, LoadOptions};
use super::error::Error;
use crate::bundle::Bundle;
use crate::graph::{Graph, Verified, VerifyError};
use crate::inspect::source::config_of;
use crate::ir::op::Op;
use crate::onnx::{self, location, target::Target};
use crate::passes::compile;
use crate::passes::quantize_weights::choices_of;
use crate::program::{Plan, Protocol};
use crate::runtime::drift::{Drift, DriftOptions, Levels, States, measure};
use crate::runtime::generator::Generator;
use crate::runtime::plan::SCORE;
use crate::runtime::portable::OnnxGraph;

/// The teacher-forced forward of a bundle with the states of every level.
pub struct DriftSetup {
    graph: Graph,
    /// Sizes of the levels.
    pub levels: Levels,
}

impl DriftSetup {
    /// That of a bundle: reads the weights as the bundle's own forward does.
    ///
    /// # Errors
    /// The bundle's configuration cannot be read, or does not compile.
    pub fn of(bundle: &Bundle) -> Result<Self, Error> {
        let config = config_of(bundle)?;
        let manifest = bundle.manifest();
        let precision = manifest.dtype();
        let quantized = match manifest.quantized.is_empty() {
            true => Vec::new(),
            false => choices_of(bundle.parsed(SCORE)?),
        };
        let graph = compile::states(&config, precision, quantized)?;
        let levels = 1..=config.depth();
        let levels = Levels {
            units: levels.clone().map(|l| config.units(l)).collect(),
            dims: levels.map(|l| config.dim(l)).collect(),
        };
        Ok(DriftSetup { graph, levels })
    }

    /// The graph.
    ///
    /// # Errors
    /// It is not valid, which is a bug.
    pub fn graph(&self) -> Result<Verified<'_>, VerifyError> {
        self.graph.verify()
    }

    /// The graph for backends that run ONNX; its weights stand in the bundle.
    ///
    /// # Errors
    /// It has no ONNX form.
    pub fn onnx(&self, bundle: &Bundle) -> Result<OnnxGraph, Error> {
        let verified = self.graph().map_err(Error::internal)?;
        let locate = |name: &str| location(bundle, name);
        let model = onnx::export(verified, Target::Portable, "", &locate);
        let model = model.map_err(|error| Error::backend(error.to_string()))?;
        let inputs = self.graph.inputs().into_iter().filter_map(|id| match self.graph.op(id) {
            Op::Input { name, .. } => Some(name.to_string()),
            _ => None,
        });
        Ok(OnnxGraph {
            name: self.graph.name().to_owned(),
            inputs: inputs.collect(),
            outputs: self.graph.outputs().iter().map(|output| output.name.to_string()).collect(),
            model: onnx::to_bytes(&model),
        })
    }
}

/// Measures the drift of a bundle on `tokens`. `on_progress` is told of prompts done and in all.
///
/// # Errors
/// The bundle or the backend cannot be used, RecGen has no open-loop state, or the text is too short.
pub fn drift(
    bundle: &Bundle,
    options: &LoadOptions,
    tokens: &[i64],
    measured: DriftOptions,
    on_progress: &dyn Fn(usize, usize),
) -> Result<Drift, Error> {
    let chosen = Chosen::of(options)?;
    let mut generator = Generator::of_bundle(bundle, chosen.backend(bundle)?)?;
    if let Plan::Undistributed { declined, .. } = generator.program().plan(Protocol::Recgen)? {
        return Err(Error::refused(format!("RecGen of this model reads its own samples: {declined}")));
    }
    let (asked, longest) =
        (measured.prompt_tokens.saturating_add(measured.new_tokens), bundle.manifest().model.max_tokens);
    if asked > longest {
        let message =
            format!("a prompt and what follows it have {asked} tokens, and the longest sequence {longest}");
        return Err(Error::refused(message));
    }
    let setup = DriftSetup::of(bundle)?;
    let graph = setup.graph().map_err(Error::internal)?;
    let model = if chosen.runs_onnx() { Some(setup.onnx(bundle)?) } else { None };
    let mut forward = chosen.with_graph(bundle, graph, model)?;
    let levels = setup.levels.clone();
    let mut states = States { backend: forward.as_mut(), graph: graph.graph().name(), levels };
    Ok(measure(&mut generator, &mut states, tokens, measured, on_progress)?)
}
