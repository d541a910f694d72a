//! The `tensorrt` backend: graphs as a vendor's engines. Owns which engine and which profile a run uses; its buffers, and
//! every work on them but runs, are those of the `cuda` backend.
//!
//! Runs are entered on the stream of all other work of that backend, so that the host waits for none of them.

use crate::launch::backend::LaunchBackend;
use crate::launch::device::Device;
use photonc_bundle::bundle::Bundle;
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::tensor::Tensor;
use photonc_runtime::backend::{Backend, BackendError, Buffer, Outputs};
use photonc_tensorrt::{Binding, Bindings, EngineRunner, Profile, pick};
use std::collections::HashMap;
use std::sync::Arc;

const NAME: &str = "tensorrt";

/// Engines of a bundle.
pub struct Tensorrt {
    bundle: Bundle,
    memory: LaunchBackend,
    runner: Box<dyn EngineRunner>,
    /// Profiles of the engines that are loaded.
    loaded: HashMap<String, Vec<Profile>>,
}

impl Tensorrt {
    /// The engines of a bundle that fit `runner`, with values in the memory of `device`.
    ///
    /// # Errors
    /// A graph of the bundle does not parse, or has weights in few bits.
    pub fn of_bundle(
        bundle: Bundle,
        device: Arc<dyn Device>,
        runner: Box<dyn EngineRunner>,
    ) -> Result<Self, BackendError> {
        let dtype = bundle.manifest().dtype();
        let memory = LaunchBackend::of_bundle(bundle.clone(), device, dtype)?;
        Ok(Tensorrt { bundle, memory, runner, loaded: HashMap::new() })
    }

    fn load(&mut self, graph: &str) -> Result<&[Profile], BackendError> {
        if !self.loaded.contains_key(graph) {
            let failed = |message: String| BackendError::Load { graph: graph.to_owned(), message };
            let picked =
                pick(&self.bundle, graph, self.runner.here()).map_err(|error| failed(error.to_string()))?;
            let bytes = std::fs::read(&picked.path)
                .map_err(|error| failed(format!("{}: cannot read: {error}", picked.path.display())))?;
            self.runner.load(graph, &picked.engine.blake3, &bytes).map_err(failed)?;
            self.loaded.insert(graph.to_owned(), picked.engine.profiles);
        }
        Ok(self.loaded.get(graph).map_or(&[], Vec::as_slice))
    }
}

impl Backend for Tensorrt {
    fn name(&self) -> &'static str {
        NAME
    }

    fn allocate(&mut self, dtype: Dtype, shape: &[usize]) -> Result<Buffer, BackendError> {
        self.memory.allocate(dtype, shape)
    }

    fn upload(&mut self, tensor: &Tensor, dtype: Dtype) -> Result<Buffer, BackendError> {
        self.memory.upload(tensor, dtype)
    }

    fn download(&mut self, buffer: &Buffer) -> Result<Tensor, BackendError> {
        self.memory.download(buffer)
    }

    fn write(
        &mut self,
        target: &mut Buffer,
        source: &Buffer,
        axis: usize,
        offsets: &[usize],
    ) -> Result<(), BackendError> {
        self.memory.write(target, source, axis, offsets)
    }

    fn gather(&mut self, source: &Buffer, rows: &[usize]) -> Result<Buffer, BackendError> {
        self.memory.gather(source, rows)
    }

    fn slice(
        &mut self,
        source: &Buffer,
        axis: usize,
        start: usize,
        len: usize,
    ) -> Result<Buffer, BackendError> {
        self.memory.slice(source, axis, start, len)
    }

    fn run(&mut self, graph: &str, inputs: &[(&str, &Buffer)]) -> Result<Outputs, BackendError> {
        let sizes = self.memory.sizes_of(graph, inputs)?;
        let outside = |message: String| BackendError::Binding { graph: graph.to_owned(), message };
        let profile = Profile::covering(self.load(graph)?, graph, &sizes)
            .map_err(|error| outside(error.to_string()))?;
        let mut converted = Vec::with_capacity(inputs.len());
        for (name, buffer) in inputs {
            converted.push(self.memory.as_declared(graph, name, buffer)?);
        }
        let outputs = self.memory.outputs_of(graph, &sizes)?;
        let bind = |name, buffer: &Buffer| {
            Ok::<_, BackendError>((name, buffer.shape().to_vec(), LaunchBackend::address(buffer)?))
        };
        let given = inputs.iter().zip(&converted);
        let given = given.map(|((name, buffer), other)| bind(*name, other.as_ref().unwrap_or(buffer)));
        let given = given.collect::<Result<Vec<_>, _>>()?;
        let made = outputs.iter().map(|(name, buffer)| bind(name.as_str(), buffer));
        let made = made.collect::<Result<Vec<_>, _>>()?;
        let stream = self.memory.stream_handle()?;
        let bindings = Bindings { profile, inputs: &bindings(&given), outputs: &bindings(&made), stream };
        let failed = |message| BackendError::Run { graph: graph.to_owned(), backend: NAME, message };
        self.runner.run(graph, &bindings).map_err(failed)?;
        Ok(outputs)
    }

    fn prepare(&mut self, graph: &str) -> Result<(), BackendError> {
        self.load(graph).map(|_| ())
    }

    fn synchronize(&mut self) -> Result<(), BackendError> {
        self.memory.synchronize()
    }
}

impl Drop for Tensorrt {
    fn drop(&mut self) {
        // A context may not go while its run is under way. A device that has failed runs nothing.
        let _waited = self.memory.synchronize();
    }
}

fn bindings<'a>(places: &'a [(&'a str, Vec<usize>, u64)]) -> Vec<Binding<'a>> {
    places.iter().map(|(name, shape, address)| Binding { name, shape, address: *address }).collect()
}
