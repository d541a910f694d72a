//! A device without a device: any backend behind buffers that the host cannot read. Owns a memory of its own, poisons
//! what is allocated, and counts every crossing, so that code which passes here runs on real devices.

use super::backend::{Backend, BackendError, Buffer, Outputs};
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::tensor::{Data, Tensor};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const NAME: &str = "simulated";
/// Fills fresh float buffers: finite, as `allocate` promises, and large enough to show in any result that reads it.
const POISON: f64 = 1e30;
/// Fills fresh integer buffers: no valid id, length or position.
const POISON_INT: i64 = -1;

/// What crossed between host and device, and what lives on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Calls of `upload`.
    pub uploads: usize,
    /// Bytes uploaded.
    pub uploaded_bytes: usize,
    /// Calls of `download`.
    pub downloads: usize,
    /// Bytes downloaded.
    pub downloaded_bytes: usize,
    /// Buffers on the device now.
    pub live_buffers: usize,
    /// Bytes on the device now.
    pub live_bytes: usize,
    /// Most bytes on the device so far.
    pub peak_bytes: usize,
}

/// The device's memory: buffers of the backend inside, by handle.
#[derive(Default)]
struct Memory {
    buffers: HashMap<u64, Buffer>,
    next: u64,
    traffic: Traffic,
}

/// All that the host holds of a buffer.
struct Handle {
    id: u64,
    memory: Arc<Mutex<Memory>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut memory = lock(&self.memory);
        if let Some(buffer) = memory.buffers.remove(&self.id) {
            memory.traffic.live_buffers -= 1;
            memory.traffic.live_bytes -= buffer.bytes();
        }
    }
}

/// A map of buffers is whole even if another thread died holding it.
fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A backend whose buffers refuse host reads, around one whose buffers are host memory.
pub struct Simulated<B> {
    inner: B,
    memory: Arc<Mutex<Memory>>,
}

/// A view of the device that outlives the borrow of the backend.
#[derive(Clone)]
pub struct Meter(Arc<Mutex<Memory>>);

impl Meter {
    /// What crossed so far, and what lives on the device now.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        lock(&self.0).traffic
    }
}

impl<B: Backend> Simulated<B> {
    /// A device that computes as `inner` does.
    pub fn new(inner: B) -> Self {
        Simulated { inner, memory: Arc::default() }
    }

    /// Counts what crosses from now on and before.
    #[must_use]
    pub fn meter(&self) -> Meter {
        Meter(Arc::clone(&self.memory))
    }

    fn keep(&self, buffer: Buffer) -> Buffer {
        let (dtype, shape) = (buffer.dtype(), buffer.shape().to_vec());
        let mut memory = lock(&self.memory);
        let id = memory.next;
        memory.next += 1;
        memory.traffic.live_buffers += 1;
        memory.traffic.live_bytes += buffer.bytes();
        memory.traffic.peak_bytes = memory.traffic.peak_bytes.max(memory.traffic.live_bytes);
        memory.buffers.insert(id, buffer);
        Buffer::new(dtype, shape, Handle { id, memory: Arc::clone(&self.memory) })
    }
}

impl Memory {
    /// Takes a buffer out, under the sizes the host gives it.
    fn take(&mut self, buffer: &Buffer) -> Result<(u64, Buffer), BackendError> {
        let id = buffer.storage::<Handle>()?.id;
        let inner = self.buffers.remove(&id).ok_or(BackendError::ForeignBuffer)?;
        Ok((id, inner.reshaped(buffer.shape())?))
    }

    /// Lends a buffer to `work` under the sizes the host gives it.
    fn with<T>(
        &mut self,
        buffer: &Buffer,
        work: impl FnOnce(&Buffer) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let (id, inner) = self.take(buffer)?;
        let result = work(&inner);
        self.buffers.insert(id, inner);
        result
    }
}

impl<B: Backend> Backend for Simulated<B> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn allocate(&mut self, dtype: Dtype, shape: &[usize]) -> Result<Buffer, BackendError> {
        let count = shape.iter().product();
        let data = match dtype {
            Dtype::F32 | Dtype::F16 | Dtype::Bf16 => Data::float(vec![POISON; count]),
            Dtype::I64 => Data::int(vec![POISON_INT; count]),
            Dtype::Bool => Data::bool(vec![true; count]),
        };
        let poisoned = self.inner.upload(&Tensor { shape: shape.to_vec(), data }, dtype)?;
        Ok(self.keep(poisoned))
    }

    fn upload(&mut self, tensor: &Tensor, dtype: Dtype) -> Result<Buffer, BackendError> {
        let buffer = self.inner.upload(tensor, dtype)?;
        {
            let traffic = &mut lock(&self.memory).traffic;
            traffic.uploads += 1;
            traffic.uploaded_bytes += buffer.bytes();
        }
        Ok(self.keep(buffer))
    }

    fn download(&mut self, buffer: &Buffer) -> Result<Tensor, BackendError> {
        let mut memory = lock(&self.memory);
        memory.traffic.downloads += 1;
        memory.traffic.downloaded_bytes += buffer.bytes();
        memory.with(buffer, |inner| self.inner.download(inner))
    }

    fn write(
        &mut self,
        target: &mut Buffer,
        source: &Buffer,
        axis: usize,
        offsets: &[usize],
    ) -> Result<(), BackendError> {
        let mut memory = lock(&self.memory);
        let (id, mut into) = memory.take(target)?;
        let result = memory.with(source, |from| self.inner.write(&mut into, from, axis, offsets));
        memory.buffers.insert(id, into);
        result
    }

    fn gather(&mut self, source: &Buffer, rows: &[usize]) -> Result<Buffer, BackendError> {
        let part = lock(&self.memory).with(source, |inner| self.inner.gather(inner, rows))?;
        Ok(self.keep(part))
    }

    fn slice(
        &mut self,
        source: &Buffer,
        axis: usize,
        start: usize,
        len: usize,
    ) -> Result<Buffer, BackendError> {
        let part = lock(&self.memory).with(source, |inner| self.inner.slice(inner, axis, start, len))?;
        Ok(self.keep(part))
    }

    fn run(&mut self, graph: &str, inputs: &[(&str, &Buffer)]) -> Result<Outputs, BackendError> {
        // Every input leaves the memory for the run and comes back whatever happens.
        let mut lent: Vec<(u64, Buffer)> = Vec::with_capacity(inputs.len());
        let mut result = Ok(());
        {
            let mut memory = lock(&self.memory);
            for (_, buffer) in inputs {
                match memory.take(buffer) {
                    Ok(taken) => lent.push(taken),
                    Err(error) => result = Err(error),
                }
            }
        }
        let outputs = result.and_then(|()| {
            let bound: Vec<(&str, &Buffer)> =
                inputs.iter().zip(&lent).map(|((name, _), (_, inner))| (*name, inner)).collect();
            self.inner.run(graph, &bound)
        });
        lock(&self.memory).buffers.extend(lent);
        Ok(outputs?.into_iter().map(|(name, buffer)| (name, self.keep(buffer))).collect())
    }

    fn prepare(&mut self, graph: &str) -> Result<(), BackendError> {
        self.inner.prepare(graph)
    }

    fn synchronize(&mut self) -> Result<(), BackendError> {
        self.inner.synchronize()
    }
}
