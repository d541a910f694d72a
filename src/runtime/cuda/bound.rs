//! A plan with addresses: what a device runs. Owns the substitution of symbolic addresses and the lookup of kernels;
//! refuses to choose what shares a launch, which `chain` does.

use super::chain::{self, Chain};
use super::device::{Allocation, Device, DeviceError, Function, Launch, MatMul, Stream, Unit};
use super::dispatch::{self, Planned};
use super::launch::Shape;
use super::plan::view::located;
use super::plan::{Call, Plan};
use crate::graph::Scope;
use std::collections::BTreeSet;

/// A step that only needs a stream.
enum Ready {
    Launch { function: Function, shape: Shape, arguments: Vec<u8> },
    Chain { function: Function, chain: Chain, table: Allocation },
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
            let end = chain.as_ref().map_or(at + 1, |chain| chain.steps.end);
            let ready = match chain {
                Some(chain) => chained(device, chain, calls.get(at..end).unwrap_or_default()),
                None => ready(device, plan, call),
            };
            let ready = ready.map_err(|source| DeviceError::Call {
                call: "preparing a launch",
                message: format!("graph `{}`, {}: {source}", plan.graph, step.scope),
            })?;
            steps.push((step.scope.clone(), ready));
            at = end;
        }
        Ok(Bound { steps })
    }

    /// The matrix products, in order.
    pub fn products(&self) -> impl Iterator<Item = &MatMul> {
        self.steps.iter().filter_map(|(_, step)| match step {
            Ready::MatMul(matmul) => Some(matmul),
            Ready::Launch { .. } | Ready::Chain { .. } => None,
        })
    }

    /// Device memory that its launches read as long as they may run; a recording of them too.
    pub fn into_tables(self) -> impl Iterator<Item = Allocation> {
        self.steps.into_iter().filter_map(|(_, step)| match step {
            Ready::Chain { table, .. } => Some(table),
            Ready::MatMul(_) | Ready::Launch { .. } => None,
        })
    }

    /// Runs the steps on a stream.
    ///
    /// # Errors
    /// The device refused a step; the message says which, by scope.
    pub fn run(&self, device: &dyn Device, stream: Stream) -> Result<(), DeviceError> {
        for (scope, step) in &self.steps {
            let done = match step {
                Ready::Launch { function, shape, arguments } => {
                    device.launch(stream, &launch_of(*function, shape, arguments))
                }
                Ready::Chain { function, chain, table } => device.barrier(stream).and_then(|barrier| {
                    let arguments = chain.arguments(table.address, barrier);
                    let launch = launch_of(*function, &chain.planned.shape, &arguments);
                    device.launch(stream, &Launch { cooperative: true, ..launch })
                }),
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
    Ok(Ready::Launch { function, shape, arguments: call.bytes() })
}

fn chained(device: &dyn Device, chain: Chain, calls: &[Call]) -> Result<Ready, DeviceError> {
    let Planned { unit, shape } = chain.planned;
    let function = device.function(unit, shape.name)?;
    let table = device.allocate(chain.table_bytes())?;
    let bytes = chain.table(calls, table.address, &|matrix| device.tile_map(matrix))?;
    device.write(Stream(0), table.address, &bytes)?;
    device.synchronize()?;
    Ok(Ready::Chain { function, chain, table })
}

fn launch_of<'a>(function: Function, shape: &Shape, arguments: &'a [u8]) -> Launch<'a> {
    let Shape { grid, threads, shared_bytes, .. } = *shape;
    Launch { function, grid, threads, shared_bytes, cooperative: false, arguments }
}
