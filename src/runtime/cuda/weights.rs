//! Weights on the device. Owns reading them in bounded pieces, conversion to the model's type and the packs' memory.

use super::device::{Allocation, Device, DeviceError, Stream};
use super::plan::weights::WeightLayout;
use crate::bundle::{Bundle, Piece};
use crate::graph::Graph;
use crate::graph::interp::WeightSource;
use crate::ir::bytes::bytes_of;
use crate::ir::dtype::Dtype;
use crate::ir::op::Op;
use crate::ir::tensor::Tensor;
use half::{bf16, f16};
use rayon::prelude::{IndexedParallelIterator, ParallelIterator, ParallelSlice, ParallelSliceMut};
use std::collections::HashMap;
use std::sync::Arc;

/// Bytes read and converted at once.
const PIECE_BYTES: usize = 32 << 20;

/// Where weights come from, piece by piece.
pub trait WeightBytes {
    /// Hands the elements of a weight to `piece` in order.
    ///
    /// # Errors
    /// No such weight, or it cannot be read.
    fn read(&self, name: &str, piece: &mut Piece<'_>) -> Result<(), String>;
}

impl WeightBytes for Arc<Bundle> {
    fn read(&self, name: &str, piece: &mut Piece<'_>) -> Result<(), String> {
        self.weight_pieces(name, PIECE_BYTES, piece).map(|_| ()).map_err(|source| source.to_string())
    }
}

/// Weights that are tensors in memory.
pub struct InMemory(pub Arc<dyn WeightSource>);

impl WeightBytes for InMemory {
    fn read(&self, name: &str, piece: &mut Piece<'_>) -> Result<(), String> {
        let Tensor { data, .. } = self.0.weight(name).map_err(|source| source.to_string())?;
        let crate::ir::tensor::Data::Float(values) = data else {
            return Err(format!("weight `{name}` is not of floats"));
        };
        piece(Dtype::F32, &bytes_of(Dtype::F32, &values))
    }
}

/// Why a graph that reads weights in few bits has no plan, with the first place that does; `None` for all others.
pub(super) fn refuse_codes(graph: &Graph) -> Option<String> {
    graph.order().into_iter().find_map(|id| match graph.op(id) {
        Op::QuantizedWeight { name, scheme, .. } => Some(format!(
            "{}: weight `{name}` is kept in {}, which no CUDA kernel reads; export without --quant, or take another \
             backend",
            graph.scope(id),
            scheme.name()
        )),
        _ => None,
    })
}

/// Packs of weights on a device, loaded when first asked for.
pub struct DeviceWeights {
    source: Box<dyn WeightBytes>,
    layout: WeightLayout,
    dtype: Dtype,
    packs: HashMap<usize, Allocation>,
}

impl DeviceWeights {
    /// No packs yet.
    #[must_use]
    pub fn new(source: Box<dyn WeightBytes>, layout: WeightLayout, dtype: Dtype) -> Self {
        DeviceWeights { source, layout, dtype, packs: HashMap::new() }
    }

    /// Which weights lie where.
    #[must_use]
    pub fn layout(&self) -> &WeightLayout {
        &self.layout
    }

    /// Whether a pack is loaded.
    #[must_use]
    pub fn has(&self, index: usize) -> bool {
        self.packs.contains_key(&index)
    }

    /// Bytes of the packs on the device.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let mut packs: Vec<&Allocation> = self.packs.values().collect();
        packs.sort_by_key(|pack| pack.address);
        packs.iter().map(|pack| pack.bytes).sum()
    }

    /// Address of a pack; it is loaded if need be.
    ///
    /// # Errors
    /// A weight cannot be read, or no room.
    pub fn pack(&mut self, device: &dyn Device, index: usize) -> Result<u64, DeviceError> {
        if let Some(pack) = self.packs.get(&index) {
            return Ok(pack.address);
        }
        let wrong = |message: String| DeviceError::Call { call: "loading weights", message };
        let Some(pack) = self.layout.packs().get(index) else {
            return Err(wrong(format!("pack {index} is not in the layout")));
        };
        let size = self.dtype.size_bytes();
        let bytes = pack.elements.iter().sum::<usize>() * size;
        let memory = device.allocate(bytes)?;
        let mut at = memory.address;
        for (name, elements) in pack.names.iter().zip(&pack.elements) {
            let end = at + (elements * size) as u64;
            let mut converted = Vec::new();
            let mut piece = |dtype: Dtype, bytes: &[u8]| -> Result<(), String> {
                let bytes = convert(dtype, self.dtype, bytes, &mut converted);
                if at + bytes.len() as u64 > end {
                    return Err(format!("weight `{name}` has more than {elements} elements"));
                }
                device.write(Stream(0), at, bytes).map_err(|source| source.to_string())?;
                at += bytes.len() as u64;
                Ok(())
            };
            self.source.read(name, &mut piece).map_err(wrong)?;
            if at != end {
                return Err(wrong(format!("weight `{name}` has fewer than {elements} elements")));
            }
        }
        let address = memory.address;
        self.packs.insert(index, memory);
        Ok(address)
    }
}

/// Elements of type `from` as elements of type `to`, rounded to nearest; the bytes themselves where the types agree.
fn convert<'b>(from: Dtype, to: Dtype, bytes: &'b [u8], converted: &'b mut Vec<u8>) -> &'b [u8] {
    if from == to {
        return bytes;
    }
    const BLOCK: usize = 4096;
    let (in_size, out_size) = (from.size_bytes(), to.size_bytes());
    converted.resize(bytes.len() / in_size * out_size, 0);
    let blocks = converted.par_chunks_mut(BLOCK * out_size).zip(bytes.par_chunks(BLOCK * in_size));
    blocks.for_each(|(out, bytes)| {
        for (out, bytes) in out.chunks_exact_mut(out_size).zip(bytes.chunks_exact(in_size)) {
            let value = match (from, bytes) {
                (Dtype::F16, [a, b]) => f16::from_le_bytes([*a, *b]).to_f32(),
                (Dtype::Bf16, [a, b]) => bf16::from_le_bytes([*a, *b]).to_f32(),
                (_, [a, b, c, d]) => f32::from_le_bytes([*a, *b, *c, *d]),
                _ => f32::NAN,
            };
            match to {
                Dtype::F16 => out.copy_from_slice(&f16::from_f32(value).to_le_bytes()),
                Dtype::Bf16 => out.copy_from_slice(&bf16::from_f32(value).to_le_bytes()),
                _ => out.copy_from_slice(&value.to_le_bytes()),
            }
        }
    });
    converted
}
