//! A model as text for people and snapshots. Owns its layout; equal models give equal text. Not a format: nothing
//! reads it back.

use super::pb::attribute_proto::AttributeType;
use super::pb::tensor_proto::{DataLocation, DataType};
use super::pb::tensor_shape_proto::{Dimension, dimension};
use super::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, type_proto};
use half::{bf16, f16};
use std::collections::HashMap;
use std::fmt::Write as _;

/// Elements printed of a constant; longer ones show their count.
const SHOWN_ELEMENTS: usize = 8;

/// Inputs, outputs, initialisers and nodes, one a line.
#[must_use]
pub fn render(model: &ModelProto) -> String {
    let mut text = String::new();
    let opsets: Vec<String> = model.opset_import.iter().map(|opset| opset.version.to_string()).collect();
    line(&mut text, format_args!("onnx ir {} opset {}", model.ir_version, opsets.join(" ")));
    if let Some(graph) = &model.graph {
        line(&mut text, format_args!("graph {}", graph.name));
        if !graph.doc_string.is_empty() {
            line(&mut text, format_args!("doc {}", graph.doc_string));
        }
        render_graph(&mut text, graph);
    }
    text
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{content}");
}

fn render_graph(text: &mut String, graph: &GraphProto) {
    for input in &graph.input {
        line(text, format_args!("input {} {}", input.name, type_text(input.r#type.as_ref())));
    }
    for output in &graph.output {
        line(text, format_args!("output {} {}", output.name, type_text(output.r#type.as_ref())));
    }
    for tensor in &graph.initializer {
        line(text, format_args!("initializer {}", tensor_text(tensor)));
    }
    let types: HashMap<&str, String> = graph
        .value_info
        .iter()
        .chain(&graph.output)
        .map(|info| (info.name.as_str(), type_text(info.r#type.as_ref())))
        .collect();
    for node in &graph.node {
        line(text, format_args!("{}", node_text(node, &types)));
    }
}

fn node_text(node: &NodeProto, types: &HashMap<&str, String>) -> String {
    let outputs: Vec<String> = node
        .output
        .iter()
        .map(|name| match types.get(name.as_str()) {
            Some(ty) => format!("{name} {ty}"),
            None => name.clone(),
        })
        .collect();
    let attributes: Vec<String> = node.attribute.iter().map(attribute_text).collect();
    let attributes =
        if attributes.is_empty() { String::new() } else { format!("{{{}}}", attributes.join(", ")) };
    format!("{} = {}{attributes}({})", outputs.join(", "), node.op_type, node.input.join(", "))
}

fn attribute_text(attribute: &AttributeProto) -> String {
    let value = match AttributeType::try_from(attribute.r#type) {
        Ok(AttributeType::Int) => attribute.i.to_string(),
        Ok(AttributeType::Float) => format!("{:?}", attribute.f),
        Ok(AttributeType::Ints) => format!("{:?}", attribute.ints),
        Ok(AttributeType::Floats) => format!("{:?}", attribute.floats),
        Ok(AttributeType::String) => format!("{:?}", String::from_utf8_lossy(&attribute.s)),
        Ok(other) => other.as_str_name().to_owned(),
        Err(_) => "?".to_owned(),
    };
    format!("{}={value}", attribute.name)
}

fn type_text(ty: Option<&TypeProto>) -> String {
    let Some(type_proto::Value::TensorType(tensor)) = ty.and_then(|ty| ty.value.as_ref()) else {
        return "?".to_owned();
    };
    let dims = tensor.shape.as_ref().map(|shape| shape.dim.iter().map(dim_text).collect::<Vec<_>>());
    format!("{}[{}]", dtype_text(tensor.elem_type), dims.map_or("?".to_owned(), |dims| dims.join(", ")))
}

fn dim_text(dim: &Dimension) -> String {
    match &dim.value {
        Some(dimension::Value::DimValue(size)) => size.to_string(),
        Some(dimension::Value::DimParam(name)) => name.clone(),
        None => "?".to_owned(),
    }
}

fn dtype_text(data_type: i32) -> &'static str {
    match DataType::try_from(data_type) {
        Ok(DataType::Float) => "f32",
        Ok(DataType::Float16) => "f16",
        Ok(DataType::Bfloat16) => "bf16",
        Ok(DataType::Int8) => "int8",
        Ok(DataType::Int4) => "int4",
        Ok(DataType::Float8e4m3fn) => "fp8",
        Ok(DataType::Int64) => "i64",
        Ok(DataType::Bool) => "bool",
        Ok(other) => other.as_str_name(),
        Err(_) => "?",
    }
}

fn tensor_text(tensor: &TensorProto) -> String {
    let dims: Vec<String> = tensor.dims.iter().map(i64::to_string).collect();
    let head = format!("{} {}[{}]", tensor.name, dtype_text(tensor.data_type), dims.join(", "));
    if tensor.data_location == Some(DataLocation::External as i32) {
        let at: HashMap<&str, &str> =
            tensor.external_data.iter().map(|entry| (entry.key.as_str(), entry.value.as_str())).collect();
        let get = |key: &str| at.get(key).copied().unwrap_or("?");
        return format!("{head} at {}+{}, {} bytes", get("location"), get("offset"), get("length"));
    }
    match elements(tensor) {
        Some(items) if items.len() <= SHOWN_ELEMENTS => format!("{head} = {}", items.join(" ")),
        _ => format!("{head}, {} bytes inside", tensor.raw_data.len()),
    }
}

fn elements(tensor: &TensorProto) -> Option<Vec<String>> {
    let raw = &tensor.raw_data;
    Some(match DataType::try_from(tensor.data_type).ok()? {
        DataType::Float => {
            raw.as_chunks().0.iter().map(|b| format!("{:?}", f32::from_le_bytes(*b))).collect()
        }
        DataType::Float16 => {
            raw.as_chunks().0.iter().map(|b| format!("{:?}", f16::from_le_bytes(*b))).collect()
        }
        DataType::Bfloat16 => {
            raw.as_chunks().0.iter().map(|b| format!("{:?}", bf16::from_le_bytes(*b))).collect()
        }
        DataType::Int64 => raw.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b).to_string()).collect(),
        DataType::Bool => raw.iter().map(|byte| (*byte != 0).to_string()).collect(),
        _ => return None,
    })
}
