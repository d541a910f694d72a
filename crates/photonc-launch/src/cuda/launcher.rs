//! What launches kernels: a GPU's driver, or something that acts as one. Owns the names of sources, units and launches, and
//! how a call of a plan becomes one.

use super::dispatch::{self, Planned};
use super::launch::Shape;
use crate::launch::device::{CallTypes, Device, DeviceError, Kernels, MatMul, Prepared, Properties, Stream};
use crate::launch::plan::Call;
use photonc_graph::ir::dtype::Dtype;
use std::collections::BTreeSet;

/// A source file of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// `linear.cu`: products of any size and type.
    Linear,
    /// `skinny.cu`: products with few rows, in short types.
    Skinny,
    /// `codes.cu`: products with weights in few bits, and the weights themselves.
    Codes,
    /// `rows.cu`: norms, SwiGLU, embedding, gathers, elementwise operations.
    Rows,
    /// `attention.cu`: queries over a cache, new keys.
    Attention,
    /// `window.cu`: windows of few keys.
    Window,
    /// `stream.cu`: many queries over a cache.
    Stream,
    /// `sample.cu`: uniform numbers and tokens.
    Sample,
    /// `general_attention.cu`: rotations by themselves, attention of any wiring.
    General,
    /// `experts.cu`: routing and expert feed-forward.
    Experts,
}

/// A source specialised to an element type and to a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Unit {
    /// The source file.
    pub source: Source,
    /// Element type `T` of activations and weights.
    pub dtype: Dtype,
    /// Width of a head for `attention.cu`, `window.cu` and `stream.cu`, rows at once for `skinny.cu`, the
    /// number of the scheme for `codes.cu`, else 0.
    pub size: usize,
}

/// A kernel that the device has loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Function(pub usize);

/// One launch. The arguments are the kernel's struct of `arguments.rs`, byte by byte.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch<'a> {
    /// The kernel.
    pub function: Function,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory in bytes.
    pub shared_bytes: u32,
    /// The kernel's one argument.
    pub arguments: &'a [u8],
}

/// A device that runs kernels by launches and matrix products by a library.
pub trait Launcher: Device {
    /// Compiles (or takes from the cache) and loads units; those loaded before cost nothing.
    ///
    /// # Errors
    /// A source does not compile or the result does not load.
    fn load_units(&self, units: &[Unit]) -> Result<(), DeviceError>;

    /// A kernel of a unit; the unit is loaded if need be.
    ///
    /// # Errors
    /// As `load_units`, or the unit has no such kernel.
    fn function(&self, unit: Unit, name: &str) -> Result<Function, DeviceError>;

    /// Starts a kernel.
    ///
    /// # Errors
    /// The driver refused the launch.
    fn launch(&self, stream: Stream, launch: &Launch<'_>) -> Result<(), DeviceError>;

    /// Starts a matrix product. A library may load its kernels at the first product of a kind, which cannot be recorded:
    /// a product that is recorded is of a kind that was started before outside recordings.
    ///
    /// # Errors
    /// The library refused it.
    fn matmul(&self, stream: Stream, matmul: &MatMul) -> Result<(), DeviceError>;
}

/// A call that only needs a stream.
enum Ready {
    Launch { function: Function, grid: [u32; 3], threads: u32, shared_bytes: u32, arguments: Vec<u8> },
    MatMul(MatMul),
}

/// `Device::kernels` of a launcher.
///
/// # Errors
/// A size is beyond what a kernel can launch.
pub fn kernels(
    properties: &Properties,
    calls: &mut dyn Iterator<Item = &Call>,
    dtype: Dtype,
) -> Result<Kernels, DeviceError> {
    let mut units = BTreeSet::new();
    for call in calls.filter(|call| !matches!(call, Call::MatMul(_))) {
        units.insert(dispatch::of(call, dtype, properties)?.unit);
    }
    Ok(Kernels(Box::new(units.into_iter().collect::<Vec<Unit>>())))
}

/// `Device::load` of a launcher.
///
/// # Errors
/// As `load_units`, or the kernels are those of another kind of device.
pub fn load(launcher: &dyn Launcher, kernels: &Kernels) -> Result<(), DeviceError> {
    let units = kernels.0.downcast_ref::<Vec<Unit>>().ok_or_else(|| foreign("loading kernels"))?;
    launcher.load_units(units)
}

/// `Device::prepare` of a launcher.
///
/// # Errors
/// As `kernels` and `load`.
pub fn prepare(launcher: &dyn Launcher, call: &Call, types: CallTypes) -> Result<Prepared, DeviceError> {
    let CallTypes { activations: dtype, matrices } = types;
    if matrices != dtype {
        let message = format!("no kernel computes in {dtype} with weights of {matrices}");
        return Err(DeviceError::Call { call: "preparing a call", message });
    }
    if let Call::MatMul(matmul) = call {
        return Ok(Prepared(Box::new(Ready::MatMul(*matmul))));
    }
    let Planned { unit, shape } = dispatch::of(call, dtype, launcher.properties())?;
    let function = launcher.function(unit, shape.name)?;
    let Shape { grid, threads, shared_bytes, .. } = shape;
    Ok(Prepared(Box::new(Ready::Launch { function, grid, threads, shared_bytes, arguments: call.bytes() })))
}

/// `Device::start` of a launcher.
///
/// # Errors
/// As `launch` and `matmul`, or another kind of device made the call ready.
pub fn start(launcher: &dyn Launcher, stream: Stream, prepared: &Prepared) -> Result<(), DeviceError> {
    match prepared.0.downcast_ref::<Ready>().ok_or_else(|| foreign("starting a call"))? {
        Ready::Launch { function, grid, threads, shared_bytes, arguments } => {
            let (function, grid, threads, shared_bytes) = (*function, *grid, *threads, *shared_bytes);
            launcher.launch(stream, &Launch { function, grid, threads, shared_bytes, arguments })
        }
        Ready::MatMul(matmul) => launcher.matmul(stream, matmul),
    }
}

fn foreign(call: &'static str) -> DeviceError {
    DeviceError::Call { call, message: "it was made ready by another kind of device".to_owned() }
}
