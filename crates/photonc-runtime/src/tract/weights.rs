//! Weights of a bundle for tract, which looks for external data at paths. Owns the one address space in which the weights
//! files of a bundle stand one after the other: models are given addresses in it, and reads of them go to the open files.
//! No path is followed, so it does not matter what stands there by now, nor whether files are links.

use photonc_bundle::bundle::{Bundle, Layout};
use std::path::Path;
use tract_onnx::data_resolver::ModelDataResolver;
use tract_onnx::pb::tensor_proto::DataLocation;
use tract_onnx::pb::{ModelProto, TensorProto};
use tract_onnx::prelude::{TractError, TractResult};

/// A folder that is always there: tract asks for the real path of the data, and is told of this one.
pub(super) const ANY_FOLDER: &str = "/";
/// What stands in it for the weights.
const ANY_FILE: &str = ".";

/// The weights files of a bundle.
pub(super) struct Weights {
    bundle: Bundle,
    /// Each with the address of its first byte and its size.
    files: Vec<File>,
}

struct File {
    /// Path inside the bundle.
    name: String,
    /// As ONNX models name it.
    location: String,
    start: usize,
    bytes: usize,
}

impl Weights {
    pub(super) fn of(bundle: &Bundle) -> TractResult<Self> {
        let mut start = 0usize;
        let mut files = Vec::new();
        for (name, record) in &bundle.manifest().weight_files {
            let bytes = usize::try_from(record.bytes)?;
            files.push(File { name: name.clone(), location: Layout::beside_onnx(name), start, bytes });
            start = start.checked_add(bytes).ok_or_else(|| TractError::msg("weights larger than memory"))?;
        }
        Ok(Weights { bundle: bundle.clone(), files })
    }

    /// Gives every external tensor of a model its address.
    pub(super) fn address(&self, model: &mut ModelProto) -> TractResult<()> {
        let tensors = model.graph.iter_mut().flat_map(|graph| &mut graph.initializer);
        let external = Some(DataLocation::External as i32);
        tensors
            .filter(|tensor| tensor.data_location == external)
            .try_for_each(|tensor| self.address_of(tensor))
    }

    fn address_of(&self, tensor: &mut TensorProto) -> TractResult<()> {
        let entry = |key: &str| tensor.external_data.iter().position(|entry| entry.key == key);
        let (Some(location), Some(offset)) = (entry("location"), entry("offset")) else {
            return Err(TractError::msg(format!("{}: external data without a place", tensor.name)));
        };
        let place = &tensor.external_data[location].value;
        let file = self.files.iter().find(|file| file.location == *place);
        let file =
            file.ok_or_else(|| TractError::msg(format!("{}: no weights file `{place}`", tensor.name)))?;
        let address = tensor.external_data[offset].value.parse::<usize>()?.checked_add(file.start);
        let address = address.ok_or_else(|| TractError::msg(format!("{}: offset too large", tensor.name)))?;
        tensor.external_data[offset].value = address.to_string();
        tensor.external_data[location].value = ANY_FILE.to_owned();
        Ok(())
    }
}

impl ModelDataResolver for Weights {
    fn read_bytes_from_path(
        &self,
        buffer: &mut Vec<u8>,
        _path: &Path,
        address: usize,
        length: Option<usize>,
    ) -> TractResult<()> {
        let outside = || TractError::msg(format!("{length:?} bytes at address {address} of the weights"));
        let file = self.files.iter().find(|file| address >= file.start && address - file.start < file.bytes);
        // Nothing of no file: the weights of an empty tensor.
        let Some((file, length)) = file.zip(length) else {
            return if length == Some(0) { Ok(()) } else { Err(outside()) };
        };
        let offset = address - file.start;
        if length > file.bytes - offset {
            return Err(outside());
        }
        let start = buffer.len();
        buffer.resize(start + length, 0);
        let read = self.bundle.read_weights(&file.name, offset as u64, &mut buffer[start..]);
        read.map_err(|error| TractError::msg(error.to_string()))
    }
}
