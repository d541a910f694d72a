//! Kernels and matrix products of the driver: loading, launching.

use super::context::{call, check};
use super::{Driver, lock};
use crate::cuda::launcher::{Function, Launch, Launcher, Unit};
use crate::launch::device::{DeviceError, MatMul, Stream};
use cudarc::driver::sys;

impl Launcher for Driver {
    fn load_units(&self, units: &[Unit]) -> Result<(), DeviceError> {
        let mut missing = Vec::new();
        for unit in units {
            if !missing.contains(unit) && !lock(&self.kernels).modules.contains_key(unit) {
                missing.push(*unit);
            }
        }
        let cubins = self.compiler.cubins(&missing)?;
        missing.iter().zip(cubins).try_for_each(|(unit, cubin)| self.add_module(*unit, &cubin))
    }

    fn function(&self, unit: Unit, name: &str) -> Result<Function, DeviceError> {
        let key = (unit, name.to_owned());
        if let Some(known) = lock(&self.kernels).names.get(&key) {
            return Ok(*known);
        }
        self.load_units(&[unit])?;
        let found = self.find_function(unit, name)?;
        let mut kernels = lock(&self.kernels);
        kernels.functions.push(found);
        let function = Function(kernels.functions.len() - 1);
        kernels.names.insert(key, function);
        Ok(function)
    }

    fn launch(&self, stream: Stream, launch: &Launch<'_>) -> Result<(), DeviceError> {
        let (stream, after_kernel) = self.stream_for(stream, true)?;
        let function = lock(&self.kernels).functions.get(launch.function.0).copied();
        let function = function.ok_or_else(|| call("launch", "a function that was not loaded"))?;
        let mut overlap = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
        };
        let config = sys::CUlaunchConfig {
            gridDimX: launch.grid[0],
            gridDimY: launch.grid[1],
            gridDimZ: launch.grid[2],
            blockDimX: launch.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: launch.shared_bytes,
            hStream: stream,
            attrs: &raw mut overlap,
            numAttrs: u32::from(self.overlap && after_kernel),
        };
        let mut parameters = [launch.arguments.as_ptr().cast_mut().cast::<std::ffi::c_void>()];
        // SAFETY: the kernel takes one struct by value, which the driver copies before it returns; its addresses lie in
        // allocations that outlive the work, as the caller promises.
        let started = unsafe {
            sys::cuLaunchKernelEx(&raw const config, function, parameters.as_mut_ptr(), std::ptr::null_mut())
        };
        check("cuLaunchKernelEx", started)
    }

    fn matmul(&self, stream: Stream, matmul: &MatMul) -> Result<(), DeviceError> {
        // A kernel after it may begin its constant part early too: it waits for the whole product.
        let (raw, _) = self.stream_for(stream, true)?;
        lock(&self.products).run(stream.0, raw, matmul)
    }
}
