//! The equations of PHOTON (arXiv 2512.20687, sections 3-4) as graphs. Owns the step program with its delays and the
//! sequence forms `encode` and `score`; knows nothing of coarse or expansion graphs, which passes derive.

mod attention;
mod emit;
mod encode;
mod encoded_step;
mod modules;
mod ops;
mod score;
mod stack;
mod step;
mod stream;
mod window;
mod window_step;

use super::config::{Condition, ModelConfig};
use ops::Builder;
use photonc_graph::graph::{BuildError, Graph};
use photonc_graph::ir::dtype::Dtype;

/// Largest number of candidates that in-graph sampling considers.
pub const MAX_CANDIDATES: usize = 64;

/// What stands for a finished unit: what a window reads back of it, and what is chunked to the next unit above. The rows
/// of the table of protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Summary {
    /// The encoder's state of it: everything drawn is read again.
    State,
    /// The same, of encoders below the top that forget: they see the units of a tile alone.
    TiledState,
    /// The chunk of what it is made of, without the encoder.
    Chunk,
    /// Its reconstruction: nothing that was drawn is read.
    Reconstruction,
}

/// Which encoder levels' KV caches prefill hands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptCaches {
    /// The top level's: all that RecGen reads.
    Top,
    /// Every level's: HierGen re-encodes through all of them.
    All,
    /// Every level's, those below the top as encoders that see one tile alone make them.
    Tiled,
}

/// One meta-context step of the recursive generator, with delays for everything that lives on to the next step.
///
/// State: `top_state [batch, 1, D_L]`, `carry.{l} [batch, 1, D_l]`, `lengths [batch]` (meta-contexts so far) and a K
/// and a V cache per encoder level and layer. Outputs: `ids [batch, n_0]`, `logits [batch, n_0, V]` and
/// `conditions [batch*n_1, R_1, W_1]`, the prefix vectors of the level-1 windows.
///
/// # Errors
/// A configuration whose widths contradict each other.
pub fn step_program(config: &ModelConfig) -> Result<Graph, BuildError> {
    match config.wiring.condition {
        Condition::Carried => step::build(Builder::new("step", config, Dtype::F32)),
        Condition::Estimate | Condition::State | Condition::Predicted => {
            step_program_of(config, Summary::State)
        }
    }
}

/// One meta-context step for one way to summarise units; those of carried conditions are wired into one.
///
/// State: `top_state [batch, 1, D_L]`, `lengths [batch]` (meta-contexts so far) and a K and a V cache per layer of each
/// encoder that runs. Inputs: `forced [batch, n_0]`, tokens that stand in the place of drawn ones where they are not
/// negative, and what sampling reads. Outputs: `ids [batch, n_0]`, `logits [batch, n_0, V]` and, where no window waits for
/// a sample of another, `conditions [batch*n_1, R_1, W_1]`.
///
/// # Errors
/// A configuration whose widths contradict each other.
pub fn step_program_of(config: &ModelConfig, summary: Summary) -> Result<Graph, BuildError> {
    match config.wiring.condition {
        Condition::Estimate => emit::build(Builder::new("step", config, Dtype::F32), summary),
        Condition::State | Condition::Predicted => {
            encoded_step::build(Builder::new("step", config, Dtype::F32), summary)
        }
        Condition::Carried => step_program(config),
    }
}

/// Prefill: `ids [batch, n_0*meta]`, `lengths [batch]` to the state that generation starts from. Named `encode`, or
/// `encode_windowed` where caches are tiled.
///
/// # Errors
/// A configuration whose widths contradict each other.
pub fn encode(config: &ModelConfig, kept: KeptCaches) -> Result<Graph, BuildError> {
    let name = match kept {
        KeptCaches::Top | KeptCaches::All => "encode",
        KeptCaches::Tiled => "encode_windowed",
    };
    encode::build(Builder::new(name, config, Dtype::F32), kept)
}

/// The teacher-forced forward: `ids [batch, n_0*meta]`, `lengths [batch]` to `logits [batch, n_0*meta, V]`.
///
/// # Errors
/// A configuration whose widths contradict each other.
pub fn score(config: &ModelConfig) -> Result<Graph, BuildError> {
    score::build(Builder::new("score", config, Dtype::F32), false)
}

/// The teacher-forced forward with what its levels hold: `score`, and for each level `l` the encoder states `encoded.{l}
/// [batch, n_l*meta, D_l]` and, below the top, their reconstructions `reconstructed.{l}` of the same shape.
///
/// # Errors
/// A configuration whose widths contradict each other.
pub fn states(config: &ModelConfig) -> Result<Graph, BuildError> {
    score::build(Builder::new("states", config, Dtype::F32), true)
}

/// One position of a level-1 window, for samplers outside the graph, as a step program over the window's caches.
///
/// # Errors
/// A configuration whose widths contradict each other.
pub fn window_step(config: &ModelConfig) -> Result<Graph, BuildError> {
    window_step::build(Builder::new("expand_step", config, Dtype::F32))
}
