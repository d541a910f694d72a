//! Weights on the device. Owns reading them in bounded pieces, conversion to the model's type and the packs' memory.

use super::codes::CodeRows;
use super::device::{Allocation, Device, DeviceError, Stream};
use super::plan::weights::{Pack, WeightLayout};
use half::{bf16, f16};
use photonc_bundle::bundle::{Bundle, CodePiece, Piece};
use photonc_graph::graph::interp::WeightSource;
use photonc_graph::ir::attr::Scheme;
use photonc_graph::ir::bytes::bytes_of;
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::tensor::Tensor;
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

    /// Type in which a weight is stored; `None` where it is computed or not there.
    fn dtype(&self, _name: &str) -> Option<Dtype> {
        None
    }

    /// Hands the codes of a matrix to `piece`, whole rows at a time and in order, each time with the scales of those rows:
    /// as they are stored.
    ///
    /// # Errors
    /// No such codes, or they cannot be read.
    fn codes(&self, name: &str, scheme: Scheme, piece: &mut CodePiece<'_>) -> Result<(), String>;
}

impl WeightBytes for Arc<Bundle> {
    fn read(&self, name: &str, piece: &mut Piece<'_>) -> Result<(), String> {
        self.weight_pieces(name, PIECE_BYTES, piece).map(|_| ()).map_err(|source| source.to_string())
    }

    fn dtype(&self, name: &str) -> Option<Dtype> {
        Dtype::from_name(&self.manifest().weights.get(name)?.dtype)
    }

    fn codes(&self, name: &str, scheme: Scheme, piece: &mut CodePiece<'_>) -> Result<(), String> {
        self.code_pieces(name, scheme, PIECE_BYTES, piece).map_err(|source| source.to_string())
    }
}

/// Weights that are tensors in memory.
pub struct InMemory(pub Arc<dyn WeightSource>);

impl WeightBytes for InMemory {
    fn read(&self, name: &str, piece: &mut Piece<'_>) -> Result<(), String> {
        let Tensor { data, .. } = self.0.weight(name).map_err(|source| source.to_string())?;
        let photonc_graph::ir::tensor::Data::Float(values) = data else {
            return Err(format!("weight `{name}` is not of floats"));
        };
        piece(Dtype::F32, &bytes_of(Dtype::F32, &values))
    }

    fn codes(&self, name: &str, scheme: Scheme, piece: &mut CodePiece<'_>) -> Result<(), String> {
        let weight = self.0.weight(name).map_err(|source| source.to_string())?;
        let coded = match (&weight.shape[..], weight.as_floats()) {
            ([rows, columns], Some(values)) => scheme.coded([*rows, *columns], values),
            _ => None,
        };
        let misfit = || format!("weight `{name}` of shape {:?} does not fit {}", weight.shape, scheme.name());
        let (codes, scales) = coded.ok_or_else(misfit)?;
        piece(&codes, &scales)
    }
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
        let memory = device.allocate(pack.bytes(self.dtype))?;
        let loaded = match pack.codes {
            None => self.load_whole(device, pack, memory.address),
            Some(rows) => self.load_codes(device, pack, rows, memory.address),
        };
        loaded.map_err(wrong)?;
        let address = memory.address;
        self.packs.insert(index, memory);
        Ok(address)
    }

    fn load_whole(&self, device: &dyn Device, pack: &Pack, address: u64) -> Result<(), String> {
        let own = pack.dtype.unwrap_or(self.dtype);
        let size = own.size_bytes();
        let mut at = address;
        for (name, elements) in pack.names.iter().zip(&pack.elements) {
            let end = at + (elements * size) as u64;
            let mut converted = Vec::new();
            let mut piece = |dtype: Dtype, bytes: &[u8]| -> Result<(), String> {
                let bytes = convert(dtype, own, bytes, &mut converted);
                if at + bytes.len() as u64 > end {
                    return Err(format!("weight `{name}` has more than {elements} elements"));
                }
                device.write(Stream(0), at, bytes).map_err(|source| source.to_string())?;
                at += bytes.len() as u64;
                Ok(())
            };
            self.source.read(name, &mut piece)?;
            if at != end {
                return Err(format!("weight `{name}` has fewer than {elements} elements"));
            }
        }
        Ok(())
    }

    fn load_codes(&self, device: &dyn Device, pack: &Pack, of: CodeRows, address: u64) -> Result<(), String> {
        let (mut first, mut arranged) = (0, Vec::new());
        for (name, elements) in pack.names.iter().zip(&pack.elements) {
            let end = first + elements;
            let mut piece = |codes: &[u8], scales: &[f32]| -> Result<(), String> {
                let rows = codes.len() / of.scheme.code_bytes(of.columns).max(1);
                if first + rows * of.columns > end {
                    return Err(format!("codes of `{name}`: more than {elements}"));
                }
                arranged.clear();
                of.arrange(codes, &mut arranged);
                let write = |byte: usize, bytes: &[u8]| {
                    let at = address + byte as u64;
                    device.write(Stream(0), at, bytes).map_err(|source| source.to_string())
                };
                write(pack.codes_byte(first), &arranged)?;
                arranged.clear();
                of.arrange_scales(rows, scales, &mut arranged);
                write(pack.scales_byte(first), &arranged)?;
                first += rows * of.columns;
                Ok(())
            };
            self.source.codes(name, of.scheme, &mut piece)?;
            if first != end {
                return Err(format!("codes of `{name}`: fewer than {elements}"));
            }
        }
        Ok(())
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
