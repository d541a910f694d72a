//! From a call of a plan to a launch: which kernel of which unit, with how many blocks and threads.

use super::arguments::{ElementArguments, GatherArguments, Plain as _, ReadArguments, UniformArguments};
use super::device::{Device, DeviceError, Launch, Properties, Source, Stream, Unit};
use super::launch::{self, Shape};
use super::launch_attention;
use super::launch_codes;
use super::plan::Call;
use super::plan::view::View;
use crate::ir::dtype::Dtype;

/// A launch without its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Where the kernel is compiled from.
    pub unit: Unit,
    /// The kernel.
    pub shape: Shape,
}

/// The launch of a call, activations and weights of type `dtype`.
///
/// # Errors
/// A size beyond what the kernel can launch, or a product of cuBLASLt, which is no launch.
pub fn of(call: &Call, dtype: Dtype, device: &Properties) -> Result<Planned, DeviceError> {
    let unit = |source: Source, size: usize| Unit { source, dtype, size };
    let rows = unit(Source::Rows, 0);
    let (unit, shape) = match call {
        Call::Linear(arguments) => {
            let shape = launch::linear(arguments, dtype, device);
            match shape.as_ref().ok().and_then(|shape| launch::skinny_rows(shape.name)) {
                Some(rows) => (unit(Source::Skinny, rows), shape),
                None => (unit(Source::Linear, 0), shape),
            }
        }
        Call::Codes(arguments) => {
            let scheme = usize::try_from(arguments.scheme).unwrap_or_default();
            (unit(Source::Codes, scheme), launch_codes::product(arguments, dtype, device))
        }
        Call::Dequantize(arguments) => {
            let scheme = usize::try_from(arguments.scheme).unwrap_or_default();
            (unit(Source::Codes, scheme), launch_codes::dequantize(arguments, device))
        }
        Call::Norm(arguments) => (rows, launch::rms_norm(arguments, device)),
        Call::Swiglu(arguments) => (rows, launch::swiglu(arguments, device)),
        Call::Embed(arguments) => (rows, launch::embed(arguments, device)),
        Call::Element(arguments) => (rows, launch::elementwise(arguments, device)),
        Call::Gather(arguments) => (rows, launch::gather_rows(arguments, device)),
        Call::Iota(arguments) => (rows, launch::iota(arguments, device)),
        Call::AttendWindow(arguments, width)
        | Call::AttendCache(arguments, width)
        | Call::AttendStream(arguments, width) => {
            let shape = launch_attention::attend(arguments, *width, dtype, device);
            let source =
                shape.as_ref().map_or(Source::Attention, |shape| launch_attention::source(shape.name));
            (unit(source, *width), shape)
        }
        Call::AppendKeys(arguments, width) => {
            (unit(Source::Attention, *width), launch_attention::append_keys(arguments, *width, dtype))
        }
        Call::Sample(arguments) => (unit(Source::Sample, 0), launch::sample(arguments)),
        Call::MatMul(_) => {
            return Err(DeviceError::Call {
                call: "choosing a launch",
                message: "a matrix product is no kernel of ours".to_owned(),
            });
        }
    };
    Ok(Planned { unit, shape: shape.map_err(refused)? })
}

fn refused(error: launch::LaunchError) -> DeviceError {
    DeviceError::Call { call: "choosing a launch", message: error.to_string() }
}

/// Copies a box of elements, converting between element types; views without a buffer, at their own addresses.
///
/// # Errors
/// The device failed, or the box has more than five axes that cannot be joined.
pub fn copy(
    device: &dyn Device,
    stream: Stream,
    dtype: Dtype,
    from: (u64, &View),
    to: (u64, &View),
) -> Result<(), DeviceError> {
    if to.1.elements() == 0 {
        return Ok(());
    }
    let arguments = ElementArguments::copy(dtype, from, to).ok_or_else(|| DeviceError::Call {
        call: "copying",
        message: format!("{:?} to {:?} moves elements along too many axes", from.1.dims, to.1.dims),
    })?;
    element(device, stream, dtype, &arguments)
}

/// Launches an elementwise operation.
///
/// # Errors
/// The device failed.
pub fn element(
    device: &dyn Device,
    stream: Stream,
    dtype: Dtype,
    arguments: &ElementArguments,
) -> Result<(), DeviceError> {
    let unit = Unit { source: Source::Rows, dtype, size: 0 };
    let shape = launch::elementwise(arguments, device.properties()).map_err(refused)?;
    start(device, stream, unit, &shape, &arguments.bytes())
}

/// Gathers rows of a value by their indices.
///
/// # Errors
/// The device failed.
pub fn gather_rows(
    device: &dyn Device,
    stream: Stream,
    dtype: Dtype,
    arguments: &GatherArguments,
) -> Result<(), DeviceError> {
    let unit = Unit { source: Source::Rows, dtype, size: 0 };
    let shape = launch::gather_rows(arguments, device.properties()).map_err(refused)?;
    start(device, stream, unit, &shape, &arguments.bytes())
}

/// Launches the generator of uniform numbers.
///
/// # Errors
/// The device failed.
pub fn uniforms(
    device: &dyn Device,
    stream: Stream,
    dtype: Dtype,
    arguments: &UniformArguments,
) -> Result<(), DeviceError> {
    let unit = Unit { source: Source::Sample, dtype, size: 0 };
    let shape = launch::uniforms(arguments, device.properties()).map_err(refused)?;
    start(device, stream, unit, &shape, &arguments.bytes())
}

/// Reads memory; `out` has an element for each block, of which the number is given back.
///
/// # Errors
/// The device failed.
pub fn read_words(
    device: &dyn Device,
    stream: Stream,
    dtype: Dtype,
    arguments: &ReadArguments,
) -> Result<usize, DeviceError> {
    let unit = Unit { source: Source::Rows, dtype, size: 0 };
    let shape = launch::read_words(arguments, device.properties()).map_err(refused)?;
    start(device, stream, unit, &shape, &arguments.bytes())?;
    Ok(shape.grid[0] as usize)
}

fn start(
    device: &dyn Device,
    stream: Stream,
    unit: Unit,
    shape: &Shape,
    arguments: &[u8],
) -> Result<(), DeviceError> {
    let function = device.function(unit, shape.name)?;
    let Shape { grid, threads, shared_bytes, .. } = *shape;
    device.launch(stream, &Launch { function, grid, threads, shared_bytes, arguments })
}
