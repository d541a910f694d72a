//! Initialisers whose elements lie in a weight store. Owns the checks of their place and size; reads no element.

use super::emit::Emitter;
use super::{ExportError, WeightLocation, proto};
use photonc_graph::ir::shape::Type;

/// A stored tensor.
pub(super) struct Stored<'n> {
    /// Name of the initialiser.
    pub(super) name: &'n str,
    /// ONNX element type.
    pub(super) data_type: i32,
    /// Sizes of the axes.
    pub(super) sizes: Vec<usize>,
    /// Size of all elements.
    pub(super) bytes: u64,
    /// Its type in words.
    pub(super) ty: String,
}

impl Emitter<'_> {
    /// A weight as it is stored.
    pub(super) fn weight(&mut self, name: &str, ty: &Type) -> Result<String, ExportError> {
        let at = self.locate(name)?;
        self.stored_as(name, ty, &at)
    }

    /// Where a weight, or the codes or scales of one, lie.
    pub(super) fn locate(&self, name: &str) -> Result<WeightLocation, ExportError> {
        let unknown = || ExportError::UnknownWeight { scope: self.scope.clone(), name: name.to_owned() };
        (self.weights)(name).ok_or_else(unknown)
    }

    /// An initialiser of type `ty` whose elements lie at `at`.
    pub(super) fn stored_as(
        &mut self,
        name: &str,
        ty: &Type,
        at: &WeightLocation,
    ) -> Result<String, ExportError> {
        let unknown = || ExportError::UnknownDim { scope: self.scope.clone(), dim: ty.shape.to_string() };
        let sizes = ty.shape.as_const().ok_or_else(unknown)?;
        let bytes = (sizes.iter().product::<usize>() * ty.dtype.size_bytes()) as u64;
        let data_type = proto::data_type(ty.dtype);
        self.stored(&Stored { name, data_type, sizes, bytes, ty: ty.to_string() }, at)
    }

    /// An initialiser whose elements lie at `at`.
    pub(super) fn stored(&mut self, tensor: &Stored<'_>, at: &WeightLocation) -> Result<String, ExportError> {
        let name = tensor.name.to_owned();
        check_location(&name, at)?;
        if at.length_bytes != tensor.bytes {
            return Err(ExportError::WeightSize {
                scope: self.scope.clone(),
                name,
                ty: tensor.ty.clone(),
                found: at.length_bytes,
                expected: tensor.bytes,
            });
        }
        self.initialize(proto::external(&name, tensor.data_type, &tensor.sizes, at));
        Ok(name)
    }
}

fn check_location(name: &str, at: &WeightLocation) -> Result<(), ExportError> {
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', ':']);
    if at.file.split('/').all(plain) {
        Ok(())
    } else {
        Err(ExportError::WeightPath { name: name.to_owned(), file: at.file.clone() })
    }
}
