//! Exact functions where tract approximates. Its `Sigmoid` is a rational function: off by 5e-7 (8 ulp) near 1 and without
//! one right digit below -18. Its `Exp` is right to 1 ulp.

use tract_onnx::pb::{ModelProto, NodeProto, TensorProto};

const ONE: &str = "photonc.one";

/// Replaces every `Sigmoid` by `1 / (1 + exp(-x))`.
pub(super) fn spell_out_sigmoid(model: &mut ModelProto) {
    let Some(graph) = &mut model.graph else { return };
    let mut nodes = Vec::with_capacity(graph.node.len());
    let mut found = false;
    for node in std::mem::take(&mut graph.node) {
        match (node.op_type.as_str(), &node.input[..], &node.output[..]) {
            ("Sigmoid", [x], [y]) => {
                found = true;
                let part = |op: &str, inputs: &[&str], output: &str| NodeProto {
                    name: format!("{}.{op}", node.name),
                    op_type: op.to_owned(),
                    input: inputs.iter().map(|input| (*input).to_owned()).collect(),
                    output: vec![output.to_owned()],
                    ..NodeProto::default()
                };
                let [negated, power, sum] = ["neg", "exp", "sum"].map(|step| format!("{y}.{step}"));
                nodes.push(part("Neg", &[x], &negated));
                nodes.push(part("Exp", &[&negated], &power));
                nodes.push(part("Add", &[&power, ONE], &sum));
                nodes.push(part("Reciprocal", &[&sum], y));
            }
            _ => nodes.push(node),
        }
    }
    graph.node = nodes;
    if found {
        let float = tract_onnx::pb::tensor_proto::DataType::Float as i32;
        let one = TensorProto {
            name: ONE.to_owned(),
            data_type: float,
            float_data: vec![1.0],
            ..TensorProto::default()
        };
        graph.initializer.push(one);
    }
}

#[cfg(test)]
mod tests {
    use super::spell_out_sigmoid;
    use tract_onnx::pb::{GraphProto, ModelProto, NodeProto};

    #[test]
    fn only_sigmoids_change() {
        let node = |op: &str, input: &str, output: &str| NodeProto {
            op_type: op.to_owned(),
            input: vec![input.to_owned()],
            output: vec![output.to_owned()],
            ..NodeProto::default()
        };
        let graph = GraphProto {
            node: vec![node("Tanh", "a", "b"), node("Sigmoid", "b", "c")],
            ..GraphProto::default()
        };
        let mut model = ModelProto { graph: Some(graph), ..ModelProto::default() };
        spell_out_sigmoid(&mut model);
        let graph = model.graph.expect("is there");
        let ops: Vec<&str> = graph.node.iter().map(|node| node.op_type.as_str()).collect();
        assert_eq!(ops, ["Tanh", "Neg", "Exp", "Add", "Reciprocal"]);
        assert_eq!(graph.node[4].output, ["c"]);
        assert_eq!(graph.initializer.len(), 1);
    }
}
