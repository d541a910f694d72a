//! A plan with addresses: what a device runs. Owns the substitution of symbolic addresses and the lookup of kernels.

use super::device::{Device, DeviceError, Function, Launch, MatMul, Stream, Unit};
use super::plan::view::located;
use super::plan::{Call, Plan};
use super::{dispatch, launch};
use crate::graph::Scope;
use std::collections::BTreeSet;

/// A step that only needs a stream.
enum Ready {
    Launch { function: Function, grid: [u32; 3], threads: u32, shared_bytes: u32, arguments: Vec<u8> },
    MatMul(MatMul),
}

/// A plan whose buffers have addresses on a device.
pub struct Bound {
    steps: Vec<(Scope, Ready)>,
}

/// The units that some plans have kernels of. Loaded at once, a device may compile them side by side.
///
/// # Errors
/// A size is beyond what a kernel can launch.
pub fn units<'p>(
    device: &dyn Device,
    plans: impl IntoIterator<Item = &'p Plan>,
) -> Result<BTreeSet<Unit>, DeviceError> {
    let mut units = BTreeSet::new();
    for plan in plans {
        for step in plan.steps.iter().filter(|step| !matches!(step.call, Call::MatMul(_))) {
            units.insert(dispatch::of(&step.call, plan.dtype, device.properties())?.unit);
        }
    }
    Ok(units)
}

impl Bound {
    /// Gives every buffer of `plan` its address.
    ///
    /// # Errors
    /// A kernel cannot be loaded, or a size is beyond what it can launch.
    pub fn new(device: &dyn Device, plan: &Plan, addresses: &[u64]) -> Result<Self, DeviceError> {
        let mut steps = Vec::with_capacity(plan.steps.len());
        for step in &plan.steps {
            let mut call = step.call.clone();
            call.addresses(&mut |address, _| {
                *address = match located(*address) {
                    Some((buffer, byte)) => addresses.get(buffer).map_or(0, |base| base + byte),
                    None => 0,
                };
            });
            let ready = ready(device, plan, &call).map_err(|source| DeviceError::Call {
                call: "preparing a launch",
                message: format!("graph `{}`, {}: {source}", plan.graph, step.scope),
            })?;
            steps.push((step.scope.clone(), ready));
        }
        Ok(Bound { steps })
    }

    /// The matrix products, in order.
    pub fn products(&self) -> impl Iterator<Item = &MatMul> {
        self.steps.iter().filter_map(|(_, step)| match step {
            Ready::MatMul(matmul) => Some(matmul),
            Ready::Launch { .. } => None,
        })
    }

    /// Runs the steps on a stream.
    ///
    /// # Errors
    /// The device refused a step; the message says which, by scope.
    pub fn run(&self, device: &dyn Device, stream: Stream) -> Result<(), DeviceError> {
        for (scope, step) in &self.steps {
            let done = match step {
                Ready::Launch { function, grid, threads, shared_bytes, arguments } => {
                    let launch = Launch {
                        function: *function,
                        grid: *grid,
                        threads: *threads,
                        shared_bytes: *shared_bytes,
                        arguments,
                    };
                    device.launch(stream, &launch)
                }
                Ready::MatMul(matmul) => device.matmul(stream, matmul),
            };
            done.map_err(|source| match source {
                DeviceError::Call { call, message } => {
                    DeviceError::Call { call, message: format!("{scope}: {message}") }
                }
                other => other,
            })?;
        }
        Ok(())
    }
}

fn ready(device: &dyn Device, plan: &Plan, call: &Call) -> Result<Ready, DeviceError> {
    if let Call::MatMul(matmul) = call {
        return Ok(Ready::MatMul(*matmul));
    }
    let dispatch::Planned { unit, shape } = dispatch::of(call, plan.dtype, device.properties())?;
    let function = device.function(unit, shape.name)?;
    let launch::Shape { grid, threads, shared_bytes, .. } = shape;
    Ok(Ready::Launch { function, grid, threads, shared_bytes, arguments: call.bytes() })
}
