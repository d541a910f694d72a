//! Exact functions where tract approximates. Its `Sigmoid` is a rational function: off by 5e-7 (8 ulp) near 1 and without
//! one right digit below -18. Its `Exp` is right to 1 ulp. Its products of f16 add up in f16, where the meaning of a linear
//! map asks for f32 (docs/ir.md); in f32 they are right, and faster on machines without f16 arithmetic.

use half::f16;
use std::collections::HashSet;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, type_proto};

/// The number 1 in f32 and in f16.
const ONE: &str = "photonc.one";
const NARROW_ONE: &str = "photonc.one.f16";

/// Replaces every `Sigmoid` by `1 / (1 + exp(-x))`, and every `MatMul` of f16 by one of f32, rounded once.
pub(super) fn spell_out(model: &mut ModelProto) {
    let Some(graph) = &mut model.graph else { return };
    let narrow = narrow_values(graph);
    let mut nodes = Vec::with_capacity(graph.node.len());
    let mut ones = [false; 2];
    for node in std::mem::take(&mut graph.node) {
        match (node.op_type.as_str(), &node.input[..], &node.output[..]) {
            ("Sigmoid", [x], [y]) => {
                let is_narrow = narrow.contains(x);
                ones[usize::from(is_narrow)] = true;
                nodes.extend(sigmoid(x, y, if is_narrow { NARROW_ONE } else { ONE }));
            }
            ("MatMul", [a, b], [y]) if narrow.contains(a) => nodes.extend(wide_product(a, b, y)),
            _ => nodes.push(node),
        }
    }
    graph.node = nodes;
    let one = |name: &str, data_type: DataType, raw_data: Vec<u8>| TensorProto {
        name: name.to_owned(),
        data_type: data_type as i32,
        raw_data,
        ..TensorProto::default()
    };
    let both = [
        one(ONE, DataType::Float, 1f32.to_le_bytes().to_vec()),
        one(NARROW_ONE, DataType::Float16, f16::ONE.to_le_bytes().to_vec()),
    ];
    graph.initializer.extend(both.into_iter().zip(ones).filter_map(|(one, used)| used.then_some(one)));
}

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        name: format!("{output}.{op}"),
        op_type: op.to_owned(),
        input: inputs.iter().map(|input| (*input).to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

fn sigmoid(x: &str, y: &str, one: &str) -> [NodeProto; 4] {
    let [negated, power, sum] = ["neg", "exp", "sum"].map(|step| format!("{y}.{step}"));
    [
        node("Neg", &[x], &negated),
        node("Exp", &[&negated], &power),
        node("Add", &[&power, one], &sum),
        node("Reciprocal", &[&sum], y),
    ]
}

fn wide_product(a: &str, b: &str, y: &str) -> [NodeProto; 4] {
    let [left, right, product] = ["left", "right", "product"].map(|step| format!("{y}.{step}"));
    [
        cast(a, &left, DataType::Float),
        cast(b, &right, DataType::Float),
        node("MatMul", &[&left, &right], &product),
        cast(&product, y, DataType::Float16),
    ]
}

fn cast(x: &str, y: &str, to: DataType) -> NodeProto {
    let attribute = AttributeProto {
        name: "to".to_owned(),
        r#type: AttributeType::Int as i32,
        i: to as i64,
        ..AttributeProto::default()
    };
    NodeProto { attribute: vec![attribute], ..node("Cast", &[x], y) }
}

/// Values of type f16. Operators that yield another type than they read may be among them, where no product reads them.
fn narrow_values(graph: &GraphProto) -> HashSet<String> {
    let half = DataType::Float16 as i32;
    let inputs = graph.input.iter().filter(|info| {
        let ty = info.r#type.as_ref().and_then(|ty| ty.value.as_ref());
        matches!(ty, Some(type_proto::Value::TensorType(tensor)) if tensor.elem_type == half)
    });
    let weights = graph.initializer.iter().filter(|tensor| tensor.data_type == half);
    let mut narrow: HashSet<String> = inputs.map(|info| info.name.clone()).collect();
    narrow.extend(weights.map(|tensor| tensor.name.clone()));
    for node in &graph.node {
        let is_narrow = match node.op_type.as_str() {
            "Cast" => node.attribute.iter().any(|a| a.name == "to" && a.i == i64::from(half)),
            "Where" => node.input.get(1).is_some_and(|x| narrow.contains(x)),
            _ => node.input.first().is_some_and(|x| narrow.contains(x)),
        };
        if is_narrow {
            narrow.extend(node.output.iter().cloned());
        }
    }
    narrow
}

#[cfg(test)]
mod tests {
    use super::spell_out;
    use tract_onnx::pb::tensor_proto::DataType;
    use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto};

    fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
        NodeProto {
            op_type: op.to_owned(),
            input: inputs.iter().map(|input| (*input).to_owned()).collect(),
            output: vec![output.to_owned()],
            ..NodeProto::default()
        }
    }

    fn spelled(node: Vec<NodeProto>, weight: DataType) -> GraphProto {
        let weight = TensorProto { name: "w".to_owned(), data_type: weight as i32, ..TensorProto::default() };
        let graph = GraphProto { node, initializer: vec![weight], ..GraphProto::default() };
        let mut model = ModelProto { graph: Some(graph), ..ModelProto::default() };
        spell_out(&mut model);
        model.graph.expect("is there")
    }

    fn ops(graph: &GraphProto) -> Vec<&str> {
        graph.node.iter().map(|node| node.op_type.as_str()).collect()
    }

    #[test]
    fn only_sigmoids_change_in_f32() {
        let nodes = || {
            vec![node("Tanh", &["w"], "b"), node("Sigmoid", &["b"], "c"), node("MatMul", &["w", "c"], "d")]
        };
        let graph = spelled(nodes(), DataType::Float);
        assert_eq!(ops(&graph), ["Tanh", "Neg", "Exp", "Add", "Reciprocal", "MatMul"]);
        assert_eq!(graph.node[4].output, ["c"]);
        assert_eq!(graph.initializer[1].data_type, DataType::Float as i32);
    }

    #[test]
    fn products_of_f16_add_up_in_f32() {
        let graph =
            spelled(vec![node("MatMul", &["w", "w"], "d"), node("Sigmoid", &["d"], "e")], DataType::Float16);
        let expected = ["Cast", "Cast", "MatMul", "Cast", "Neg", "Exp", "Add", "Reciprocal"];
        assert_eq!(ops(&graph), expected);
        assert_eq!(graph.node[3].output, ["d"]);
        assert_eq!(graph.initializer[1].data_type, DataType::Float16 as i32);
    }
}
