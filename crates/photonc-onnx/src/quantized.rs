//! Weights in few bits: codes and scales as initialisers, numbers by `DequantizeLinear`. Scales are f32 and so is what
//! they yield; a narrow graph casts it, because tract takes no scales of f16.

use super::emit::Emitter;
use super::pb::tensor_proto::DataType;
use super::stored::Stored;
use super::{ExportError, WeightLocation, proto};
use photonc_graph::ir::attr::Scheme;
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::quant::BLOCK;
use photonc_graph::ir::shape::Type;

/// ONNX element type of codes.
pub(super) fn code_type(scheme: Scheme) -> i32 {
    (match scheme {
        Scheme::Int8 => DataType::Int8,
        Scheme::Int4 => DataType::Int4,
        Scheme::Fp8 => DataType::Float8e4m3fn,
    }) as i32
}

impl Emitter<'_> {
    /// `[N, K]` of the graph's float type.
    pub(super) fn quantized(&mut self, name: &str, ty: &Type, scheme: Scheme) -> Result<String, ExportError> {
        let key = scheme.key(name);
        let (codes, scales) = (self.locate(&key)?, self.locate(&format!("{key}.scale"))?);
        self.dequantized(&key, ty, scheme, [&codes, &scales])
    }

    /// `[N, K]` of codes called `key` and scales that lie at `places`.
    pub(super) fn dequantized(
        &mut self,
        key: &str,
        ty: &Type,
        scheme: Scheme,
        places: [&WeightLocation; 2],
    ) -> Result<String, ExportError> {
        let sizes = match ty.shape.as_const().as_deref() {
            Some([rows, columns]) => [*rows, *columns],
            _ => {
                return Err(ExportError::UnknownDim { scope: self.scope.clone(), dim: ty.shape.to_string() });
            }
        };
        let codes = Stored {
            name: key,
            data_type: code_type(scheme),
            sizes: sizes.to_vec(),
            bytes: scheme.code_bytes(sizes[0] * sizes[1]) as u64,
            ty: format!("{}{sizes:?}", scheme.name()),
        };
        let codes = self.stored(&codes, places[0])?;
        let scale_sizes = scheme.scale_shape(sizes).unwrap_or_default();
        let scales = Stored {
            name: &format!("{key}.scale"),
            data_type: proto::data_type(Dtype::F32),
            bytes: 4 * scale_sizes.iter().product::<usize>() as u64,
            ty: format!("f32{scale_sizes:?}"),
            sizes: scale_sizes,
        };
        let scales = self.stored(&scales, places[1])?;
        let attributes = match scheme {
            Scheme::Int8 => vec![proto::int("axis", 0)],
            Scheme::Int4 => vec![proto::int("axis", 1), proto::int("block_size", proto::to_i64(BLOCK))],
            Scheme::Fp8 => Vec::new(),
        };
        let numbers = self.node("DequantizeLinear", &[&codes, &scales], attributes);
        Ok(self.cast(&numbers, Dtype::F32, ty.dtype))
    }
}
