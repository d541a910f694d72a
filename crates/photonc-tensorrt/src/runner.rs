//! What running engines asks of a vendor. Memory and its order are the caller's: a runner gets addresses on the device.

use super::mismatch::Here;
use photonc_bundle::bundle::Blake3;

/// A value of a run, on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding<'a> {
    /// Its name in the graph.
    pub name: &'a str,
    /// Its sizes, outermost first.
    pub shape: &'a [usize],
    /// Address of its first element; elements are of the graph's type, row-major.
    pub address: u64,
}

/// Inputs and outputs of a run.
#[derive(Clone, Copy, Debug)]
pub struct Bindings<'a> {
    /// Which of the engine's profiles covers the sizes.
    pub profile: usize,
    /// Every input of the graph.
    pub inputs: &'a [Binding<'a>],
    /// Every output of the graph; none shares memory with an input.
    pub outputs: &'a [Binding<'a>],
    /// The driver's handle of the stream that the run is entered on; 0 is the default stream.
    pub stream: u64,
}

/// A vendor's library that runs engines. Errors are in its words.
pub trait EngineRunner {
    /// The library and the GPU.
    fn here(&self) -> &Here;

    /// Loads the engine of a graph, whose bytes are those recorded, under this hash.
    ///
    /// # Errors
    /// The library refuses it.
    fn load(&mut self, graph: &str, hash: &Blake3, engine: &[u8]) -> Result<(), String>;

    /// Enters the run of a loaded engine on its stream, and may return before it is done: what was entered there before has
    /// written the inputs, what is entered after finds the outputs. Memory lives until the stream has been waited for.
    ///
    /// # Errors
    /// No such engine, or the library refuses or fails.
    fn run(&mut self, graph: &str, bindings: &Bindings<'_>) -> Result<(), String>;
}
