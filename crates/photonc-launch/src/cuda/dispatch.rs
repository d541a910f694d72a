//! From a call of a plan to a launch: which kernel of which unit, with how many blocks and threads.

use super::launch::{self, Shape};
use super::launch_attention;
use super::launch_codes;
use super::launch_general;
use super::launcher::{Source, Unit};
use crate::launch::device::{DeviceError, Properties};
use crate::launch::plan::Call;
use photonc_graph::ir::dtype::Dtype;

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
    let (general, experts) = (unit(Source::General, 0), unit(Source::Experts, 0));
    let (unit, shape) = match call {
        Call::Linear(arguments) => {
            let shape = launch::linear(arguments, dtype, device);
            match shape.as_ref().ok().and_then(|shape| launch::skinny_rows(shape.name)) {
                Some(rows) => (unit(Source::Skinny, rows), shape),
                None => (unit(Source::Linear, 0), shape),
            }
        }
        Call::Codes(arguments) => {
            let scheme = usize::try_from(arguments.scheme).expect("invariant: schemes count from 0");
            (unit(Source::Codes, scheme), launch_codes::product(arguments, dtype, device))
        }
        Call::Dequantize(arguments) => {
            let scheme = usize::try_from(arguments.scheme).expect("invariant: schemes count from 0");
            (unit(Source::Codes, scheme), launch_codes::dequantize(arguments, device))
        }
        Call::Norm(arguments) => (rows, launch::rms_norm(arguments, device)),
        Call::Swiglu(arguments) => (rows, launch::swiglu(arguments, device)),
        Call::Embed(arguments) => (rows, launch::embed(arguments, device)),
        Call::Element(arguments) => (rows, launch::elementwise(arguments, device)),
        Call::Gather(arguments) => (rows, launch::gather_rows(arguments, device)),
        Call::Iota(arguments) => (rows, launch::iota(arguments, device)),
        Call::Read(arguments) => (rows, launch::read_words(arguments, device)),
        Call::Uniforms(arguments) => (unit(Source::Sample, 0), launch::uniforms(arguments, device)),
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
        Call::Rope(arguments) => (general, launch_general::rope(arguments, device)),
        Call::AttendGeneral(arguments) => (general, launch_general::attend_general(arguments)),
        Call::Append(arguments) => (general, launch_general::append(arguments, device)),
        Call::Route(arguments) => (experts, launch_general::route(arguments)),
        Call::ExpertsUp(arguments) => (experts, launch_general::experts_up(arguments)),
        Call::ExpertsDown(arguments) => (experts, launch_general::experts_down(arguments)),
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
