//! A plan with addresses: what a device runs. Owns the substitution of symbolic addresses, and calls outside plans.

use super::arguments::ElementArguments;
use super::device::{CallTypes, Device, DeviceError, MatMul, Prepared, Stream};
use super::plan::view::{View, located};
use super::plan::{Call, Plan};
use photonc_graph::graph::Scope;
use photonc_graph::ir::dtype::Dtype;

/// A step with its addresses.
struct BoundStep {
    scope: Scope,
    prepared: Prepared,
    /// What is multiplied, where it is a matrix product.
    product: Option<MatMul>,
}

/// A plan whose buffers have addresses on a device.
pub struct BoundPlan {
    steps: Vec<BoundStep>,
}

impl BoundPlan {
    /// Gives every buffer of `plan` its address.
    ///
    /// # Errors
    /// A kernel cannot be loaded, or a size is beyond what it can take.
    pub fn new(device: &dyn Device, plan: &Plan, addresses: &[u64]) -> Result<Self, DeviceError> {
        let mut steps = Vec::with_capacity(plan.steps.len());
        for step in &plan.steps {
            let failed = |source: DeviceError| DeviceError::Call {
                call: "preparing a call",
                message: format!("graph `{}`, {}: {source}", plan.graph, step.scope),
            };
            let mut call = step.call.clone();
            let mut unplaced = None;
            call.addresses(&mut |address, _| {
                // Absent values have address 0.
                let Some((buffer, byte)) = located(*address) else { return };
                match addresses.get(buffer) {
                    Some(base) => *address = base + byte,
                    None => unplaced = Some(buffer),
                }
            });
            if let Some(buffer) = unplaced {
                let message = format!("buffer {buffer} has no address");
                return Err(failed(DeviceError::Call { call: "binding", message }));
            }
            let prepared = device
                .prepare(&call, CallTypes { activations: plan.dtype, matrices: step.matrices })
                .map_err(failed)?;
            let product = match call {
                Call::MatMul(product) => Some(product),
                _ => None,
            };
            steps.push(BoundStep { scope: step.scope.clone(), prepared, product });
        }
        Ok(BoundPlan { steps })
    }

    /// The matrix products, in order.
    pub fn products(&self) -> impl Iterator<Item = (&MatMul, &Prepared)> {
        self.steps.iter().filter_map(|step| Some((step.product.as_ref()?, &step.prepared)))
    }

    /// Runs the steps on a stream.
    ///
    /// # Errors
    /// The device refused a step; the message says which, by scope.
    pub fn run(&self, device: &dyn Device, stream: Stream) -> Result<(), DeviceError> {
        for BoundStep { scope, prepared, .. } in &self.steps {
            device.start(stream, prepared).map_err(|source| match source {
                DeviceError::Call { call, message } => {
                    DeviceError::Call { call, message: format!("{scope}: {message}") }
                }
                other => other,
            })?;
        }
        Ok(())
    }
}

/// Starts a call outside a plan, its addresses those of the device.
///
/// # Errors
/// The device failed.
pub fn start(device: &dyn Device, stream: Stream, dtype: Dtype, call: &Call) -> Result<(), DeviceError> {
    device.start(stream, &device.prepare(call, dtype.into())?)
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
    start(device, stream, dtype, &Call::Element(arguments))
}
