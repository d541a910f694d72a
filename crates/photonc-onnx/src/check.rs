//! Reads a written model again and compares it with the graph it was made from: every input reaches an output, every
//! declared type is the one that the operators yield, nothing is in it that the target's rules forbid. Owns no opinion
//! on values: a parser that takes a model proves nothing about what it dropped, so this is checked before any parser.

use super::joined::joined_weights;
use super::pb::tensor_proto::DataType;
use super::pb::{GraphProto, ModelProto, NodeProto, ValueInfoProto, type_proto};
use super::proto;
use super::quantized::code_type;
use super::rules::{self, Forbidden};
use super::target::Target;
use photonc_graph::graph::{Graph, NodeId, Verified};
use photonc_graph::ir::op::Op;
use prost::Message as _;
use std::collections::{HashMap, HashSet};

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
    let types = types(&written);
    check_operators(&written, &types, target)
        .and_then(|()| check_inputs(&written, graph))
        .and_then(|()| check_types(&written, &types, graph))
        .map_err(fault)
}

fn check_operators(written: &GraphProto, types: &Types<'_>, target: Target) -> Result<(), Fault> {
    let is_narrow = |node: &NodeProto| {
        let first = node.input.first().and_then(|input| types.get(input.as_str()));
        first.is_some_and(|ty| [DataType::Float16 as i32, DataType::Bfloat16 as i32].contains(ty))
    };
    for rule in rules::rules(target) {
        let is_forbidden = |node: &&NodeProto| {
            rule.forbids.iter().any(|forbidden| match forbidden {
                Forbidden::Always(op) => node.op_type == *op,
                Forbidden::Narrow(op) => node.op_type == *op && is_narrow(node),
            })
        };
        if let Some(node) = written.node.iter().find(is_forbidden) {
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

/// Element types by name of the value.
type Types<'w> = HashMap<&'w str, i32>;

/// Those of initialisers and inputs as declared, of all others as the operators yield them.
fn types(written: &GraphProto) -> Types<'_> {
    let mut types = Types::new();
    types.extend(written.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor.data_type)));
    types.extend(written.input.iter().map(|input| (input.name.as_str(), element_type(input))));
    for node in &written.node {
        for (slot, output) in node.output.iter().enumerate() {
            types.insert(output, result_type(node, slot, &types));
        }
    }
    types
}

/// Name and element type of the initialiser that a node of the graph is, if it is one.
fn stored(graph: &Graph, id: NodeId) -> Option<(String, i32)> {
    let ty = proto::data_type(graph.ty(id).dtype);
    match graph.op(id) {
        Op::Weight { name, .. } => Some((name.to_string(), ty)),
        Op::QuantizedWeight { name, scheme, .. } => Some((scheme.key(name), code_type(*scheme))),
        _ => joined_weights(graph, id).map(|joined| (joined.name(), joined.scheme.map_or(ty, code_type))),
    }
}

fn check_types(written: &GraphProto, types: &Types<'_>, graph: Verified<'_>) -> Result<(), Fault> {
    for id in graph.nodes() {
        if let Op::Input { name, ty, .. } = graph.op(id) {
            expect(name, types.get(&**name).copied(), proto::data_type(ty.dtype))?;
        }
        // What no output needs is not written, nor are the parts of weights that are joined.
        if let Some((name, expected)) = stored(graph.graph(), id)
            && let Some(found) = types.get(name.as_str())
        {
            expect(&name, Some(*found), expected)?;
        }
    }
    for node in &written.node {
        check_operands(node, types)?;
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
const UNIFORM: &[&str] = &[
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Max",
    "Min",
    "MatMul",
    "Gemm",
    "Concat",
    "RMSNormalization",
    "RotaryEmbedding",
];

fn check_operands(node: &NodeProto, types: &Types<'_>) -> Result<(), Fault> {
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
fn result_type(node: &NodeProto, slot: usize, types: &Types<'_>) -> i32 {
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
