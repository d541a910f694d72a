//! Parts of ONNX messages from values of the IR. Owns the spelling of types, dimensions and attributes.

use super::pb::attribute_proto::AttributeType;
use super::pb::tensor_proto::{DataLocation, DataType};
use super::pb::tensor_shape_proto::{Dimension, dimension};
use super::pb::{AttributeProto, StringStringEntryProto, TensorProto, TensorShapeProto, TypeProto};
use super::pb::{ValueInfoProto, type_proto};
use half::{bf16, f16};
use photonc_graph::ir::dim::Dim;
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::shape::Type;
use photonc_graph::ir::tensor::{Data, Literal};

use super::WeightLocation;

/// ONNX element type.
pub(super) fn data_type(dtype: Dtype) -> i32 {
    (match dtype {
        Dtype::F32 => DataType::Float,
        Dtype::F16 => DataType::Float16,
        Dtype::Bf16 => DataType::Bfloat16,
        Dtype::I64 => DataType::Int64,
        Dtype::Bool => DataType::Bool,
    }) as i32
}

/// `dim_param` of a dimension: its text without spaces, which tract parses as an expression.
pub(super) fn dim_param(dim: &Dim) -> String {
    dim.to_string().replace(' ', "")
}

/// Name and type of a value.
pub(super) fn value_info(name: &str, ty: &Type) -> ValueInfoProto {
    let dim = ty
        .shape
        .0
        .iter()
        .map(|dim| Dimension {
            value: Some(match dim.as_const() {
                Some(size) => dimension::Value::DimValue(to_i64(size)),
                None => dimension::Value::DimParam(dim_param(dim)),
            }),
            ..Dimension::default()
        })
        .collect();
    let tensor = type_proto::Tensor { elem_type: data_type(ty.dtype), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

/// A size as ONNX writes it; sizes of tensors that exist fit.
pub(super) fn to_i64(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// An integer attribute.
pub(super) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Int as i32,
        i: value,
        ..AttributeProto::default()
    }
}

/// A float attribute.
pub(super) fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Float as i32,
        f: value,
        ..AttributeProto::default()
    }
}

/// A list of integers as attribute.
pub(super) fn ints(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Ints as i32,
        ints: values.iter().map(|value| to_i64(*value)).collect(),
        ..AttributeProto::default()
    }
}

/// An initialiser whose elements are inside the model, without its name.
pub(super) fn constant(value: &Literal) -> TensorProto {
    let raw_data = match value.to_tensor().data {
        Data::Float(values) => match value.dtype() {
            Dtype::F16 => values.iter().flat_map(|value| f16::from_f64(*value).to_le_bytes()).collect(),
            Dtype::Bf16 => values.iter().flat_map(|value| bf16::from_f64(*value).to_le_bytes()).collect(),
            #[expect(clippy::cast_possible_truncation, reason = "f32 is the constant's type")]
            Dtype::F32 | Dtype::I64 | Dtype::Bool => {
                values.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect()
            }
        },
        Data::Int(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Data::Bool(values) => values.iter().map(|value| u8::from(*value)).collect(),
    };
    TensorProto {
        dims: value.shape().iter().map(|size| to_i64(*size)).collect(),
        data_type: data_type(value.dtype()),
        raw_data,
        ..TensorProto::default()
    }
}

/// An initialiser whose elements lie in a weight store.
pub(super) fn external(name: &str, data_type: i32, sizes: &[usize], at: &WeightLocation) -> TensorProto {
    let entry = |key: &str, value: String| StringStringEntryProto { key: key.to_owned(), value };
    TensorProto {
        name: name.to_owned(),
        dims: sizes.iter().map(|size| to_i64(*size)).collect(),
        data_type,
        data_location: Some(DataLocation::External as i32),
        external_data: vec![
            entry("location", at.file.clone()),
            entry("offset", at.offset_bytes.to_string()),
            entry("length", at.length_bytes.to_string()),
        ],
        ..TensorProto::default()
    }
}
