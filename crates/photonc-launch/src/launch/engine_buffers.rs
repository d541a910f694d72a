//! The `cuda` backend's memory, lent to engines: which sizes and types a graph declares, and where values lie.

use super::backend::{LaunchBackend, STREAM, failed_in, held, whole};
use super::loaded_model::solve;
use super::plan::view::Element;
use photonc_graph::ir::dim::Bindings;
use photonc_graph::ir::dtype::Dtype;
use photonc_runtime::backend::{BackendError, Buffer, Outputs};
use photonc_runtime::plan::signature;

impl LaunchBackend {
    /// Sizes of a graph's symbols on these inputs.
    ///
    /// # Errors
    /// No such graph, or inputs that are not its own.
    pub(crate) fn sizes_of(
        &mut self,
        graph: &str,
        inputs: &[(&str, &Buffer)],
    ) -> Result<Bindings, BackendError> {
        let binding = |message: String| BackendError::Binding { graph: graph.to_owned(), message };
        let known = self.loaded.graph(graph).map_err(|error| failed_in(graph, error))?;
        let names = signature(known);
        if let Some((name, _)) = inputs.iter().find(|(name, _)| !names.inputs.contains_key(*name)) {
            return Err(binding(format!("has no input `{name}`")));
        }
        let sizes: Vec<(&str, &[usize])> =
            inputs.iter().map(|(name, buffer)| (*name, buffer.shape())).collect();
        solve(known, &sizes).map_err(binding)
    }

    /// The driver's handle of the stream that all work on these buffers is entered on.
    ///
    /// # Errors
    /// The driver failed.
    pub(crate) fn stream_handle(&self) -> Result<u64, BackendError> {
        Ok(self.loaded.device.handle(STREAM)?)
    }

    /// Fresh buffers for the outputs of a graph, of the types that it declares.
    ///
    /// # Errors
    /// No such graph, or no room.
    pub(crate) fn outputs_of(&mut self, graph: &str, sizes: &Bindings) -> Result<Outputs, BackendError> {
        let names = signature(self.loaded.graph(graph).map_err(|error| failed_in(graph, error))?);
        let mut outputs = Outputs::new();
        for (name, ty) in names.outputs {
            let unsized_ = || BackendError::Binding {
                graph: graph.to_owned(),
                message: format!("`{name}` has no size"),
            };
            let shape = ty.shape.eval(sizes).ok_or_else(unsized_)?;
            let buffer = self.hold(declared(ty.dtype), ty.dtype, &shape)?;
            outputs.push((name, buffer));
        }
        Ok(outputs)
    }

    /// An input in the type that its graph declares; `None` where the buffer holds it so already.
    ///
    /// # Errors
    /// No such graph, or no room.
    pub(crate) fn as_declared(
        &mut self,
        graph: &str,
        name: &str,
        buffer: &Buffer,
    ) -> Result<Option<Buffer>, BackendError> {
        let names = signature(self.loaded.graph(graph).map_err(|error| failed_in(graph, error))?);
        let Some(ty) = names.inputs.get(name) else { return Ok(None) };
        let (from, wanted) = (held(buffer)?, declared(ty.dtype));
        let (element, address) = (from.element, from.address());
        let floats = [Element::Float, Element::Model];
        let alike = self.loaded.dtype == Dtype::F32 && floats.contains(&element) && floats.contains(&wanted);
        if element == wanted || alike {
            return Ok(None);
        }
        let made = self.hold(wanted, ty.dtype, buffer.shape())?;
        let target = held(&made)?.address();
        self.copy((address, &whole(buffer, element)), (target, &whole(&made, wanted)))?;
        Ok(Some(made))
    }

    /// Where a buffer's elements lie.
    ///
    /// # Errors
    /// The buffer belongs to another backend.
    pub(crate) fn address(buffer: &Buffer) -> Result<u64, BackendError> {
        Ok(held(buffer)?.address())
    }
}

/// How an engine holds values that its graph declares as `dtype`.
fn declared(dtype: Dtype) -> Element {
    match dtype {
        Dtype::I64 => Element::Int,
        Dtype::Bool => Element::Bool,
        Dtype::F32 => Element::Float,
        Dtype::F16 | Dtype::Bf16 => Element::Model,
    }
}
