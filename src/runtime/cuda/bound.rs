//! A plan with addresses: what a device runs. Owns the substitution of symbolic addresses and the lookup of kernels;
//! refuses to choose what shares a launch, which `chain` does.

use super::chain::{self, Chain};
use super::device::{Device, DeviceError, Function, Launch, MatMul, Stream, Unit};
use super::dispatch::{self, Planned};
use super::launch::Shape;
use super::plan::view::located;
use super::plan::{Call, Plan};
use crate::graph::Scope;
use std::collections::BTreeSet;

/// A step that only needs a stream.
enum Ready {
    Launch { function: Function, shape: Shape, cooperative: bool, arguments: Vec<u8> },
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
        let chains = chain::chains(plan, device.properties());
        units.extend(chains.iter().map(|chain| chain.planned.unit));
        let chained = |at: usize| chains.iter().any(|chain| chain.steps.contains(&at));
        for (at, step) in plan.steps.iter().enumerate() {
            if !matches!(step.call, Call::MatMul(_)) && !chained(at) {
                units.insert(dispatch::of(&step.call, plan.dtype, device.properties())?.unit);
            }
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
        let mut calls = Vec::with_capacity(plan.steps.len());
        for step in &plan.steps {
            let mut call = step.call.clone();
            call.addresses(&mut |address, _| {
                *address = match located(*address) {
                    Some((buffer, byte)) => addresses.get(buffer).map_or(0, |base| base + byte),
                    None => 0,
                };
            });
            calls.push(call);
        }
        let mut chains = chain::chains(plan, device.properties()).into_iter().peekable();
        let mut steps = Vec::with_capacity(calls.len());
        let mut at = 0;
        while let (Some(call), Some(step)) = (calls.get(at), plan.steps.get(at)) {
            let chain = chains.next_if(|chain| chain.steps.start == at);
            let ready = match &chain {
                Some(chain) => chained(device, chain, calls.get(chain.steps.clone()).unwrap_or_default()),
                None => ready(device, plan, call),
            };
            let ready = ready.map_err(|source| DeviceError::Call {
                call: "preparing a launch",
                message: format!("graph `{}`, {}: {source}", plan.graph, step.scope),
            })?;
            steps.push((step.scope.clone(), ready));
            at = chain.map_or(at + 1, |chain| chain.steps.end);
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
                Ready::Launch { function, shape, cooperative, arguments } => {
                    start(device, stream, *function, shape, *cooperative, arguments)
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
    let Planned { unit, shape } = dispatch::of(call, plan.dtype, device.properties())?;
    let function = device.function(unit, shape.name)?;
    Ok(Ready::Launch { function, shape, cooperative: false, arguments: call.bytes() })
}

fn chained(device: &dyn Device, chain: &Chain, calls: &[Call]) -> Result<Ready, DeviceError> {
    let Planned { unit, shape } = chain.planned;
    let function = device.function(unit, shape.name)?;
    let arguments = chain.arguments(calls, &|matrix| device.tile_map(matrix))?;
    Ok(Ready::Launch { function, shape, cooperative: true, arguments })
}

fn start(
    device: &dyn Device,
    stream: Stream,
    function: Function,
    shape: &Shape,
    cooperative: bool,
    arguments: &[u8],
) -> Result<(), DeviceError> {
    let Shape { grid, threads, shared_bytes, .. } = *shape;
    let mut launch = Launch { function, grid, threads, shared_bytes, cooperative, arguments };
    if !cooperative {
        return device.launch(stream, &launch);
    }
    let mut own = arguments.to_vec();
    if let Some(barrier) = own.get_mut(chain::BARRIER_AT..chain::BARRIER_AT + 8) {
        barrier.copy_from_slice(&device.barrier(stream)?.to_le_bytes());
    }
    launch.arguments = &own;
    device.launch(stream, &launch)
}
