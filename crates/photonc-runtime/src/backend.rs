//! What the generator asks of a device. Owns the trait, its opaque buffers and their errors; refuses to assume host
//! memory: data crosses only in `upload` and `download`.
//!
//! Calls may return before the device has done the work. A backend keeps the order that buffers imply, on as many
//! streams as it likes (the coarse run-ahead beside an expansion): what reads a buffer runs after what wrote it.
//! `download` and `synchronize` wait.

use super::decoder::{Decoder, DecoderSetup};
use super::plan::Program;
use super::region::RegionError;
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::tensor::Tensor;
use std::any::Any;
use std::fmt;

/// A value on a device. Its elements are the backend's; sizes are known to all.
pub struct Buffer {
    dtype: Dtype,
    shape: Vec<usize>,
    storage: Box<dyn Any + Send>,
}

impl Buffer {
    /// A buffer around a backend's own storage.
    pub fn new(dtype: Dtype, shape: Vec<usize>, storage: impl Any + Send) -> Self {
        Buffer { dtype, shape, storage: Box::new(storage) }
    }

    /// Element type.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Sizes of the axes, outermost first.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Size in bytes, at the declared element type.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.size_bytes()
    }

    /// The same elements under other sizes.
    ///
    /// # Errors
    /// The number of elements differs.
    pub fn reshaped(self, shape: &[usize]) -> Result<Self, BackendError> {
        if shape.iter().product::<usize>() != self.elements() {
            return Err(BackendError::Reshape { from: self.shape, to: shape.to_vec() });
        }
        Ok(Buffer { shape: shape.to_vec(), ..self })
    }

    /// The storage, if `T` made it.
    ///
    /// # Errors
    /// The buffer belongs to another backend.
    pub fn storage<T: Any>(&self) -> Result<&T, BackendError> {
        self.storage.downcast_ref().ok_or(BackendError::ForeignBuffer)
    }

    /// The storage for writing, if `T` made it.
    ///
    /// # Errors
    /// The buffer belongs to another backend.
    pub fn storage_mut<T: Any>(&mut self) -> Result<&mut T, BackendError> {
        self.storage.downcast_mut().ok_or(BackendError::ForeignBuffer)
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({}{:?})", self.dtype, self.shape)
    }
}

/// Why a backend could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The bundle has no such graph for this backend.
    #[error("graph `{graph}` is not in the bundle for backend `{backend}`; export it again with this graph")]
    NoGraph {
        /// The graph asked for.
        graph: String,
        /// The backend.
        backend: &'static str,
    },
    /// A graph's files could not be loaded.
    #[error("graph `{graph}`: {message}")]
    Load {
        /// The graph.
        graph: String,
        /// What was found, from the loader.
        message: String,
    },
    /// An input is missing, unknown or has the wrong type.
    #[error("graph `{graph}`: {message}")]
    Binding {
        /// The graph.
        graph: String,
        /// What was found and expected.
        message: String,
    },
    /// Running a graph failed.
    #[error("graph `{graph}` failed in backend `{backend}`: {message}")]
    Run {
        /// The graph.
        graph: String,
        /// The backend.
        backend: &'static str,
        /// What the backend said, with the node's scope where it is known.
        message: String,
    },
    /// The device failed outside any graph.
    #[error("backend `{backend}`: {message}")]
    Device {
        /// The backend.
        backend: &'static str,
        /// What was called, and what the device said.
        message: String,
    },
    /// A decoder was asked for what it cannot do.
    #[error("decoder of {rows} rows and {sequences} sequences: {message}")]
    Decoder {
        /// Its rows.
        rows: usize,
        /// Its sequences.
        sequences: usize,
        /// What was found and expected.
        message: String,
    },
    /// Graphs that do not go together, or cannot do what was asked.
    #[error("{message}")]
    Graphs {
        /// What was found and expected.
        message: String,
    },
    /// A region does not fit its buffer.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// Sizes that hold another number of elements.
    #[error("cannot read {from:?} as {to:?}: the number of elements differs")]
    Reshape {
        /// Sizes of the buffer.
        from: Vec<usize>,
        /// Sizes asked for.
        to: Vec<usize>,
    },
    /// Elements that are not of the declared type.
    #[error("a buffer of {dtype} cannot be made from these elements")]
    Elements {
        /// The declared type.
        dtype: Dtype,
    },
    /// Storage of one backend given to another.
    #[error("the buffer belongs to another backend")]
    ForeignBuffer,
    /// The device has no room.
    #[error("backend `{backend}` has no room for {bytes} bytes; use a smaller batch or --max-tokens")]
    OutOfMemory {
        /// The backend.
        backend: &'static str,
        /// Size asked for.
        bytes: usize,
    },
    /// Something the backend needs is not there: a library, a device.
    #[error("backend `{backend}` is not available: {message}")]
    Unavailable {
        /// The backend.
        backend: &'static str,
        /// What is missing, where it was looked for, what to do.
        message: String,
    },
}

impl BackendError {
    /// The same error as that of another backend: what several stand on does not know their names.
    #[must_use]
    pub fn of(mut self, name: &'static str) -> Self {
        if let BackendError::NoGraph { backend, .. }
        | BackendError::Run { backend, .. }
        | BackendError::Device { backend, .. }
        | BackendError::OutOfMemory { backend, .. }
        | BackendError::Unavailable { backend, .. } = &mut self
        {
            *backend = name;
        }
        self
    }
}

/// Outputs of a run, in the order the graph declares them.
pub type Outputs = Vec<(String, Buffer)>;

/// A device that holds buffers and runs the graphs of one bundle.
pub trait Backend {
    /// Name in options and messages: `reference`, `tract`, ...
    fn name(&self) -> &'static str;

    /// A buffer `[shape]` whose elements are unspecified but finite: a mask multiplies what it hides by 0.
    ///
    /// # Errors
    /// No room.
    fn allocate(&mut self, dtype: Dtype, shape: &[usize]) -> Result<Buffer, BackendError>;

    /// A buffer of type `dtype` with the elements of `tensor`, rounded to the type.
    ///
    /// # Errors
    /// No room, or elements of another kind.
    fn upload(&mut self, tensor: &Tensor, dtype: Dtype) -> Result<Buffer, BackendError>;

    /// The elements, once everything that writes them is done.
    ///
    /// # Errors
    /// The buffer is not this backend's, or what writes it failed.
    fn download(&mut self, buffer: &Buffer) -> Result<Tensor, BackendError>;

    /// Writes row `b` of `source` in place into row `b` of `target` at entry `offsets[b]` of `axis >= 1`; the other
    /// axes agree. Appends to caches by per-row lengths and collects the reconstructions of a run-ahead.
    ///
    /// # Errors
    /// Sizes that do not agree or a region past the end.
    fn write(
        &mut self,
        target: &mut Buffer,
        source: &Buffer,
        axis: usize,
        offsets: &[usize],
    ) -> Result<(), BackendError>;

    /// Rows `rows[0], rows[1], ..` of axis 0 as a new buffer; a row may come several times. Hands one trajectory to
    /// several samples and drops finished rows.
    ///
    /// # Errors
    /// A row past the end or no room.
    fn gather(&mut self, source: &Buffer, rows: &[usize]) -> Result<Buffer, BackendError>;

    /// Entries `start .. start + len` of `axis` as a new buffer.
    ///
    /// # Errors
    /// A region past the end or no room.
    fn slice(
        &mut self,
        source: &Buffer,
        axis: usize,
        start: usize,
        len: usize,
    ) -> Result<Buffer, BackendError>;

    /// Runs `graph` on inputs by name, every one of them. No output shares memory with an input.
    ///
    /// # Errors
    /// No such graph, inputs that do not fit it, or a failure of the device.
    fn run(&mut self, graph: &str, inputs: &[(&str, &Buffer)]) -> Result<Outputs, BackendError>;

    /// Loads `graph` now, so that the first run does not pay for it.
    ///
    /// # Errors
    /// No such graph, or it cannot be loaded.
    fn prepare(&mut self, graph: &str) -> Result<(), BackendError>;

    /// Meta-contexts to which shorter prompts are padded, for backends that choose kernels by that number and are asked
    /// for the same bits alone and in batches.
    fn least_prompt(&self) -> usize {
        1
    }

    /// Whether it has a decoder of its own of that shape, which keeps generation on its device.
    fn decodes(&self, _program: &Program, _setup: DecoderSetup) -> bool {
        false
    }

    /// The decoder of that shape, where it `decodes`; `None` where its graphs are run one by one.
    fn decoder<'b>(
        &'b mut self,
        _program: &Program,
        _setup: DecoderSetup,
    ) -> Option<Result<Box<dyn Decoder + 'b>, BackendError>> {
        None
    }

    /// Waits until everything asked for so far is done.
    ///
    /// # Errors
    /// Something asked for has failed.
    fn synchronize(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
}
