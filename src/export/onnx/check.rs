//! Reads a written model again and compares it with the graph it was made from: every input reaches an output, every
//! declared type is the one that the operators yield, nothing is in it that the target's rules forbid. Owns no opinion
//! on values: a parser that takes a model proves nothing about what it dropped, so this is checked before any parser.

use super::super::rules;
use super::super::target::Target;
use super::proto;
use super::quantized::code_type;
use crate::graph::Verified;
use crate::ir::op::Op;
use prost::Message as _;
use std::collections::{HashMap, HashSet};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, ValueInfoProto, type_proto};

/// What is wrong with a written model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ONNX model of graph `{graph}` for target {target}: {fault}")]
pub struct CheckError {
    /// Name of the graph.
    pub graph: String,
    /// The target.
    pub target: Target,
    /// The first fault found.
    pub fault: Fault,
}

/// A fault of a written model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Bytes that are no model.
    #[error("not readable as a model: {0}")]
    Unreadable(String),
    /// An input or output of the graph that the model does not have.
    #[error("has no {what} `{name}`, expected {ty}")]
    Missing {
        /// `input` or `output`.
        what: &'static str,
        /// Its name.
        name: String,
        /// Its type in the graph.
        ty: String,
    },
    /// An input that no output depends on.
    #[error("input `{name}` reaches no output, so a parser may drop it")]
    Unread {
        /// Its name.
        name: String,
    },
    /// A value of another type than declared.
    #[error("`{name}` is {found}, expected {expected}")]
    Type {
        /// Name of the value.
        name: String,
        /// What the operators yield, or the model declares.
        found: &'static str,
        /// What the graph declares.
        expected: &'static str,
    },
    /// An operator whose operands have different types.
    #[error("node `{node}`: `{op}` of {first} and {second}")]
    Mixed {
        /// Name of the node.
        node: String,
        /// Its operator.
        op: String,
        /// Type of its first operand.
        first: &'static str,
        /// Another type among its operands.
        second: &'static str,
    },
    /// An operator that the target's rules forbid.
    #[error("node `{node}` is `{op}`, which rule {rule} forbids: {reason}")]
    Forbidden {
        /// Name of the node.
        node: String,
        /// Its operator.
        op: String,
        /// The rule.
        rule: &'static str,
        /// Why.
        reason: &'static str,
    },
}

/// Checks the bytes of a model against the graph it was exported from.
///
/// # Errors
/// The first fault.
pub fn check(bytes: &[u8], graph: Verified<'_>, target: Target) -> Result<(), CheckError> {
    let fault = |fault| CheckError { graph: graph.name().to_owned(), target, fault };
    let model = ModelProto::decode(bytes).map_err(|error| fault(Fault::Unreadable(error.to_string())))?;
    let written = model.graph.unwrap_or_default();
    check_operators(&written, target)
        .and_then(|()| check_inputs(&written, graph))
        .and_then(|()| check_types(&written, graph))
        .map_err(fault)
}

fn check_operators(written: &GraphProto, target: Target) -> Result<(), Fault> {
    for rule in rules::rules(target) {
        if let Some(node) = written.node.iter().find(|node| rule.forbids.contains(&node.op_type.as_str())) {
            return Err(Fault::Forbidden {
                node: node.name.clone(),
                op: node.op_type.clone(),
                rule: rule.name,
                reason: rule.reason,
            });
        }
    }
    Ok(())
}

fn check_inputs(written: &GraphProto, graph: Verified<'_>) -> Result<(), Fault> {
    let mut reaching: HashSet<&str> = written.output.iter().map(|output| output.name.as_str()).collect();
    // Nodes stand in an order in which operands come first.
    for node in written.node.iter().rev() {
        if node.output.iter().any(|output| reaching.contains(output.as_str())) {
            reaching.extend(node.input.iter().map(String::as_str));
        }
    }
    for id in graph.inputs() {
        let Op::Input { name, ty, .. } = graph.op(id) else { continue };
        if !written.input.iter().any(|input| *input.name == **name) {
            return Err(Fault::Missing { what: "input", name: name.to_string(), ty: ty.to_string() });
        }
        if !reaching.contains(&**name) {
            return Err(Fault::Unread { name: name.to_string() });
        }
    }
    Ok(())
}

fn check_types(written: &GraphProto, graph: Verified<'_>) -> Result<(), Fault> {
    let mut types: HashMap<&str, i32> = HashMap::new();
    types.extend(written.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor.data_type)));
    types.extend(written.input.iter().map(|input| (input.name.as_str(), element_type(input))));
    for id in graph.nodes() {
        if let Op::QuantizedWeight { name, scheme, .. } = graph.op(id)
            && let Some(found) = types.get(scheme.key(name).as_str())
        {
            expect(&scheme.key(name), Some(*found), code_type(*scheme))?;
        }
        let (name, ty, stored) = match graph.op(id) {
            Op::Input { name, ty, .. } => (name, ty, true),
            // A weight that no output needs is not written.
            Op::Weight { name, ty } => (name, ty, types.contains_key(&**name)),
            _ => continue,
        };
        if stored {
            expect(name, types.get(&**name).copied(), proto::data_type(ty.dtype))?;
        }
    }
    for node in &written.node {
        check_operands(node, &types)?;
        for (slot, output) in node.output.iter().enumerate() {
            types.insert(output, result_type(node, slot, &types));
        }
    }
    for info in &written.value_info {
        expect(&info.name, types.get(info.name.as_str()).copied(), element_type(info))?;
    }
    for output in graph.outputs() {
        let ty = graph.ty(output.node);
        let Some(declared) = written.output.iter().find(|info| *info.name == *output.name) else {
            let (name, ty) = (output.name.to_string(), ty.to_string());
            return Err(Fault::Missing { what: "output", name, ty });
        };
        expect(&output.name, Some(element_type(declared)), proto::data_type(ty.dtype))?;
        expect(&output.name, types.get(&*output.name).copied(), proto::data_type(ty.dtype))?;
    }
    Ok(())
}

fn expect(name: &str, found: Option<i32>, expected: i32) -> Result<(), Fault> {
    match found {
        Some(found) if found == expected => Ok(()),
        found => Err(Fault::Type {
            name: name.to_owned(),
            found: found.map_or("made by no node", type_name),
            expected: type_name(expected),
        }),
    }
}

/// Operators that take operands of one type only.
const UNIFORM: &[&str] =
    &["Add", "Sub", "Mul", "Div", "Max", "Min", "MatMul", "Concat", "RMSNormalization", "RotaryEmbedding"];

fn check_operands(node: &NodeProto, types: &HashMap<&str, i32>) -> Result<(), Fault> {
    let known: Vec<i32> = node.input.iter().filter_map(|input| types.get(input.as_str()).copied()).collect();
    let Some(first) = known.first().filter(|_| UNIFORM.contains(&node.op_type.as_str())) else {
        return Ok(());
    };
    match known.iter().find(|ty| *ty != first) {
        None => Ok(()),
        Some(other) => Err(Fault::Mixed {
            node: node.name.clone(),
            op: node.op_type.clone(),
            first: type_name(*first),
            second: type_name(*other),
        }),
    }
}

/// Element type of a result, by the operators' definitions.
fn result_type(node: &NodeProto, slot: usize, types: &HashMap<&str, i32>) -> i32 {
    let operand = |slot: usize| {
        node.input.get(slot).and_then(|input| types.get(input.as_str())).copied().unwrap_or_default()
    };
    match node.op_type.as_str() {
        "Cast" => {
            let to = node.attribute.iter().find(|attribute| attribute.name == "to");
            to.and_then(|to| i32::try_from(to.i).ok()).unwrap_or_default()
        }
        "Shape" => DataType::Int64 as i32,
        "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "Equal" | "And" | "Or" | "Not" => {
            DataType::Bool as i32
        }
        "TopK" if slot == 1 => DataType::Int64 as i32,
        "Where" | "DequantizeLinear" => operand(1),
        _ => operand(0),
    }
}

fn element_type(info: &ValueInfoProto) -> i32 {
    match info.r#type.as_ref().and_then(|ty| ty.value.as_ref()) {
        Some(type_proto::Value::TensorType(tensor)) => tensor.elem_type,
        _ => DataType::Undefined as i32,
    }
}

fn type_name(data_type: i32) -> &'static str {
    DataType::try_from(data_type).map_or("an unknown type", |known| known.as_str_name())
}
