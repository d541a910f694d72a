//! Where buffers live: host memory or that of a GPU, taken from ONNX Runtime's allocator for it. Owns the allocator, what is
//! copied within it and across to the host, and views of buffers for graphs.

use super::copies::{Copies, Host};
use super::{Provider, cudart, words};
use crate::portable::{Input, Output, no_elements};
use crate::region::{Piece, check_piece};
use half::f16;
use ort::AsPointer as _;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::ortsys;
use ort::session::{IoBinding, Session};
use ort::value::{
    DynTensor, DynValue, PrimitiveTensorElementType, Shape, TensorElementType, TensorRefMut, ValueType,
};
use photonc_graph::ir::dtype::Dtype;
use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::fmt::Debug;
use std::ptr::NonNull;
use std::sync::Arc;

/// A model `y = x` of opset 17, `x` and `y` f32[1]: a session of it has the allocator of its provider.
const IDENTITY: &[u8] = b"\x08\x08:7\n\x10\n\x01x\x12\x01y\"\x08Identity\x12\x01g\
    Z\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01\
    b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x11";

/// Bytes of blocks that queued work may keep from being freed, unless one piece of work alone needs more.
const MOST_PENDING_BYTES: usize = 64 << 20;

/// Elements in a memory, freed with the block once no queued work needs them.
pub struct Block {
    value: Arc<DynTensor>,
    bytes: usize,
}

/// Memory of one provider. Work on it may be queued; ONNX Runtime sees none of it before it is done.
pub(super) struct Memory {
    info: MemoryInfo<'static>,
    allocator: Allocator,
    copies: Box<dyn Copies>,
    /// What queued work reads and writes.
    pending: RefCell<Vec<Arc<DynTensor>>>,
    pending_bytes: Cell<usize>,
    /// The allocator is its.
    _session: Session,
}

impl Memory {
    /// The memory in which a provider computes; `session` loads a model for it.
    pub(super) fn of(
        provider: Provider,
        session: impl FnOnce(&[u8]) -> ort::Result<Session>,
    ) -> Result<Self, String> {
        let (place, number, copies): (_, _, Box<dyn Copies>) = match provider {
            Provider::Cpu => (AllocationDevice::CPU, 0, Box::new(Host)),
            Provider::Cuda { device } => {
                let number = i32::try_from(device).map_err(|error| error.to_string())?;
                (AllocationDevice::CUDA, number, Box::new(cudart::Queue::on(number)?))
            }
        };
        let info = || MemoryInfo::new(place.clone(), number, AllocatorType::Device, MemoryType::Default);
        let session = session(IDENTITY).map_err(words)?;
        let allocator = Allocator::new(&session, info().map_err(words)?).map_err(words)?;
        Ok(Memory {
            info: info().map_err(words)?,
            allocator,
            copies,
            pending: RefCell::default(),
            pending_bytes: Cell::default(),
            _session: session,
        })
    }

    /// Has other copies made from now on, which have to reach this memory.
    pub(super) fn copy_by(&mut self, copies: Box<dyn Copies>) -> Result<(), String> {
        self.wait()?;
        self.copies = copies;
        Ok(())
    }

    /// A block of zeros.
    pub(super) fn zeros(&self, dtype: Dtype, shape: &[usize]) -> Result<Block, String> {
        let block = self.room(dtype, shape)?;
        if block.bytes > 0 {
            self.keep([&block])?;
            // SAFETY: a whole block of this memory, kept until `wait`.
            unsafe { self.copies.zero(block.start().cast_mut(), block.bytes)? };
        }
        Ok(block)
    }

    fn room(&self, dtype: Dtype, shape: &[usize]) -> Result<Block, String> {
        let element = element(dtype)?;
        let value = DynTensor::new(&self.allocator, element, shape.to_vec()).map_err(words)?;
        Ok(Block { value: Arc::new(value), bytes: shape.iter().product::<usize>() * dtype.size_bytes() })
    }

    /// A block that takes bytes of the host.
    pub(super) fn upload(&self, dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Result<Block, String> {
        let block = self.room(dtype, shape)?;
        if bytes.len() != block.bytes {
            return Err(format!("{} bytes for {dtype}{shape:?}, which has {}", bytes.len(), block.bytes));
        }
        if block.bytes > 0 {
            self.keep([&block])?;
            // SAFETY: a block of as many bytes, made for this and kept until `wait`.
            unsafe { self.copies.upload(block.start().cast_mut(), bytes)? };
        }
        Ok(block)
    }

    /// The bytes of a block, once they are there.
    pub(super) fn download(&self, block: &Block) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; block.bytes];
        if block.bytes > 0 {
            // SAFETY: a block of as many bytes.
            unsafe { self.copies.download(&mut bytes, block.start())? };
        }
        Ok(bytes)
    }

    /// Copies pieces, in elements, from one block to another.
    pub(super) fn copy(
        &self,
        target: &mut Block,
        source: &Block,
        dtype: Dtype,
        pieces: &[Piece],
    ) -> Result<(), String> {
        self.keep([target, source])?;
        for piece in pieces {
            let piece = piece.scaled(dtype.size_bytes());
            check_piece(&piece, source.bytes, target.bytes).map_err(|error| error.to_string())?;
            if piece.len > 0 && piece.runs > 0 {
                // SAFETY: just checked; a block has its memory to itself (`adopt`), and both are kept until `wait`.
                unsafe { self.copies.copy(target.start().cast_mut(), source.start(), &piece)? };
            }
        }
        Ok(())
    }

    /// Has blocks stay until work that is queued next is done.
    fn keep<const N: usize>(&self, blocks: [&Block; N]) -> Result<(), String> {
        let bytes: usize = blocks.iter().map(|block| block.bytes).sum();
        if self.pending_bytes.get() + bytes > MOST_PENDING_BYTES {
            self.wait()?;
        }
        self.pending.borrow_mut().extend(blocks.map(|block| Arc::clone(&block.value)));
        self.pending_bytes.set(self.pending_bytes.get() + bytes);
        Ok(())
    }

    /// Waits for all work on this memory.
    pub(super) fn wait(&self) -> Result<(), String> {
        self.copies.wait()?;
        self.pending.borrow_mut().clear();
        self.pending_bytes.set(0);
        Ok(())
    }

    /// Runs a graph on blocks where they lie; what it yields stays in this memory.
    pub(super) fn run(
        &self,
        session: &mut Session,
        inputs: &[Input<'_, Block>],
    ) -> Result<Vec<Output<Block>>, String> {
        let outputs: Vec<String> = session.outputs().iter().map(|output| output.name().to_owned()).collect();
        self.wait()?;
        // It ends with this call, the blocks of the inputs do not.
        let mut binding = session.create_binding().map_err(words)?;
        for input in inputs {
            self.bind(&mut binding, input)?;
        }
        for output in outputs {
            binding.bind_output_to_device(output, &self.info).map_err(words)?;
        }
        let yielded = session.run_binding(&binding).map_err(words)?;
        // The work of this memory is on another stream.
        binding.synchronize_outputs().map_err(words)?;
        yielded.into_iter().map(|(_, value)| self.adopt(value, inputs)).collect()
    }

    /// Gives a graph a block as one of its inputs, under sizes of as many elements.
    fn bind(&self, binding: &mut IoBinding, input: &Input<'_, Block>) -> Result<(), String> {
        match input.dtype {
            Dtype::F32 => self.view::<f32>(binding, input),
            Dtype::F16 => self.view::<f16>(binding, input),
            Dtype::I64 => self.view::<i64>(binding, input),
            Dtype::Bool => self.view::<bool>(binding, input),
            Dtype::Bf16 => Err(no_elements(input.dtype)),
        }
    }

    fn view<T: PrimitiveTensorElementType + Debug>(
        &self,
        binding: &mut IoBinding,
        input: &Input<'_, Block>,
    ) -> Result<(), String> {
        let Input { name, shape, storage, .. } = *input;
        if shape.iter().product::<usize>() * size_of::<T>() != storage.bytes {
            return Err(format!("input `{name}` has {} bytes, its sizes {shape:?} others", storage.bytes));
        }
        let name = CString::new(name).map_err(|error| error.to_string())?;
        // A block of no bytes may have no address; a tensor needs one.
        let none = NonNull::<T>::dangling().as_ptr().cast_const().cast();
        let start = if storage.bytes == 0 { none } else { storage.start() };
        let mut bind = || -> ort::Result<()> {
            let shape = Shape::from(shape.to_vec());
            // SAFETY: the block is in this memory and has as many bytes, as was checked; graphs only read their inputs.
            let view =
                unsafe { TensorRefMut::<T>::from_raw(self.info.to_owned(), start.cast_mut().cast(), shape)? };
            // SAFETY: all three are there; the binding keeps what it needs of the tensor.
            ortsys![unsafe BindInput(binding.ptr_mut(), name.as_ptr(), view.ptr())?];
            Ok(())
        };
        bind().map_err(words)
    }

    /// What a graph has yielded as a block of its own. Where it is the memory of an input, which a graph may pass on, it is
    /// copied: the input's owner goes on to change it.
    fn adopt(&self, value: DynValue, inputs: &[Input<'_, Block>]) -> Result<Output<Block>, String> {
        let (dtype, shape) = kind(&value)?;
        let bytes = shape.iter().product::<usize>() * dtype.size_bytes();
        let storage = Block { value: Arc::new(value.downcast().map_err(words)?), bytes };
        if bytes == 0 || inputs.iter().all(|input| input.storage.start() != storage.start()) {
            return Ok(Output { dtype, shape, storage });
        }
        let mut own = self.room(dtype, &shape)?;
        self.copy(&mut own, &storage, dtype, &[Piece::first(bytes / dtype.size_bytes())])?;
        Ok(Output { dtype, shape, storage: own })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // What is queued needs its blocks; what failed so late has no one to hear of it.
        let _done = self.wait();
    }
}

impl Block {
    /// Address of the first element, which need not be one of the host's.
    fn start(&self) -> *const u8 {
        self.value.data_ptr().cast()
    }
}

fn element(dtype: Dtype) -> Result<TensorElementType, String> {
    match dtype {
        Dtype::F32 => Ok(TensorElementType::Float32),
        Dtype::F16 => Ok(TensorElementType::Float16),
        Dtype::I64 => Ok(TensorElementType::Int64),
        Dtype::Bool => Ok(TensorElementType::Bool),
        Dtype::Bf16 => Err(no_elements(dtype)),
    }
}

/// Type and sizes of a tensor.
fn kind(value: &DynValue) -> Result<(Dtype, Vec<usize>), String> {
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
        return Err(format!("it yields {}, expected a tensor", value.dtype()));
    };
    let dtype = match ty {
        TensorElementType::Float32 => Dtype::F32,
        TensorElementType::Float16 => Dtype::F16,
        TensorElementType::Int64 => Dtype::I64,
        TensorElementType::Bool => Dtype::Bool,
        other => return Err(format!("it yields elements of type {other}")),
    };
    let sizes = shape.iter().map(|size| usize::try_from(*size).map_err(|error| error.to_string()));
    Ok((dtype, sizes.collect::<Result<_, _>>()?))
}
