//! The ONNX graph under construction. Owns names of nodes and values, initialisers (equal constants once), and the
//! memory of values that several operations share.

use super::pb::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto};
use super::proto;
use super::rules;
use super::scaled::scaled_by_tables;
use super::target::Target;
use super::{ExportError, Weights};
use photonc_graph::graph::{NodeId, Verified};
use photonc_graph::ir::attr::Real;
use photonc_graph::ir::dim::Dim;
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::op::Op;
use photonc_graph::ir::shape::{Shape, Type};
use photonc_graph::ir::tensor::{Data, Literal, Tensor};
use std::collections::{HashMap, HashSet};

/// A value that is computed once and shared; sizes are keyed by their dimension, equal wherever they are read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Shared {
    /// `i64 [1]`: a dimension.
    Size(Dim),
    /// `i64 []`: a dimension.
    ScalarSize(Dim),
    /// `i64 [d]`: 0, 1, ..
    Range(Dim),
    /// `i64 [3]`: a dimension, 1, 1.
    RowShape(Dim),
    /// `i64 [rank]`: entries of a reshape of which some are read at run time.
    Shape(String),
    /// The weight `[N, K]` as `[K, N]`.
    Transposed(String),
    /// A value in another float type.
    Cast(String, Dtype),
    /// Cosine or sine table of positions (a value name).
    Table(&'static str, String, Rotation, Dim),
    /// A value of all requests, `[B]` as `[B, 1, 1]` or what is made of it alone, by its use.
    Parameter(&'static str, String),
    /// What queries and values see: a part of a mask, by its description.
    Mask(String),
}

/// What the entries of a table of cosines or sines depend on beside the positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rotation {
    /// Base of the frequencies.
    pub(super) theta: Real,
    /// Head width.
    pub(super) width: usize,
    /// Factor of every entry.
    pub(super) factor: Real,
    /// Type of the entries.
    pub(super) dtype: Dtype,
}

/// An ONNX graph that grows node by node.
pub(super) struct Emitter<'a> {
    pub(super) graph: Verified<'a>,
    pub(super) target: Target,
    pub(super) weights: &'a Weights<'a>,
    /// Name of the ONNX value of every lowered node.
    pub(super) values: HashMap<NodeId, String>,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    initialized: HashSet<String>,
    value_info: Vec<ValueInfoProto>,
    counters: HashMap<String, usize>,
    shared: HashMap<Shared, String>,
    /// Values that must keep their name.
    fixed: HashSet<String>,
    /// Rotations and attentions whose scale is in the tables of the rotation.
    pub(super) scaled: HashMap<NodeId, Real>,
    /// What every reshaped value was before, with its shape then.
    pub(super) reshaped: HashMap<String, (String, Shape)>,
    /// Names of the parts of split values, by the slice that each is.
    pub(super) parts: HashMap<NodeId, String>,
    /// A value and axis for every dimension seen so far, first seen first.
    pub(super) sizes: Vec<(Dim, String, usize)>,
    /// Scope of the node being lowered.
    pub(super) scope: String,
}

impl<'a> Emitter<'a> {
    pub(super) fn new(graph: Verified<'a>, target: Target, weights: &'a Weights<'a>) -> Self {
        Emitter {
            graph,
            target,
            weights,
            values: HashMap::new(),
            nodes: Vec::new(),
            initializers: Vec::new(),
            initialized: HashSet::new(),
            value_info: Vec::new(),
            counters: HashMap::new(),
            shared: HashMap::new(),
            fixed: HashSet::new(),
            scaled: scaled_by_tables(graph.graph()),
            reshaped: HashMap::new(),
            parts: HashMap::new(),
            sizes: Vec::new(),
            scope: String::new(),
        }
    }

    /// Lowers every node that an output needs.
    pub(super) fn lower_graph(&mut self) -> Result<GraphProto, ExportError> {
        let graph = self.graph;
        let needed = graph.ancestors(graph.outputs().iter().map(|output| output.node));
        let inputs = graph.inputs();
        for id in &inputs {
            self.declare_input(*id);
        }
        for id in graph.order().into_iter().filter(|id| needed.contains(id)) {
            self.scope = graph.scope(id).to_string();
            let value = self.lower(id)?;
            let value = self.name_outputs(id, value);
            self.note_sizes(&value, graph.ty(id));
            self.values.insert(id, value);
        }
        self.drop_unread_nodes();
        self.check_inputs(&inputs)?;
        self.drop_unread_constants();
        let info = |id: &NodeId, name: &str| proto::value_info(name, graph.ty(*id));
        Ok(GraphProto {
            input: inputs.iter().map(|id| info(id, &self.values[id])).collect(),
            output: graph.outputs().iter().map(|output| info(&output.node, &output.name)).collect(),
            node: std::mem::take(&mut self.nodes),
            initializer: std::mem::take(&mut self.initializers),
            value_info: std::mem::take(&mut self.value_info),
            ..GraphProto::default()
        })
    }

    fn declare_input(&mut self, id: NodeId) {
        let graph = self.graph;
        if let Op::Input { name, ty, .. } = graph.op(id) {
            self.note_sizes(name, ty);
            self.fixed.insert(name.to_string());
            self.values.insert(id, name.to_string());
        }
    }

    /// Whether the rule of that name rewrites a node for the target.
    pub(super) fn rewrites(&self, rule: &str, id: NodeId) -> bool {
        rules::rewrites(self.target, rule, self.graph.graph(), id)
    }

    /// A value of type `from` as type `to`.
    pub(super) fn cast(&mut self, value: &str, from: Dtype, to: Dtype) -> String {
        if from == to {
            return value.to_owned();
        }
        self.node("Cast", &[value], vec![proto::int("to", i64::from(proto::data_type(to)))])
    }

    /// [`Emitter::cast`] of a value that several nodes read, once for all of them.
    pub(super) fn cast_once(&mut self, value: &str, from: Dtype, to: Dtype) -> Result<String, ExportError> {
        if from == to {
            return Ok(value.to_owned());
        }
        self.shared(Shared::Cast(value.to_owned(), to), |emitter| Ok(emitter.cast(value, from, to)))
    }

    fn check_inputs(&self, inputs: &[NodeId]) -> Result<(), ExportError> {
        let read: HashSet<&str> =
            self.nodes.iter().flat_map(|node| node.input.iter().map(String::as_str)).collect();
        match inputs.iter().find(|id| !read.contains(self.values[id].as_str())) {
            None => Ok(()),
            Some(id) => Err(ExportError::UnusedInput {
                graph: self.graph.name().to_owned(),
                name: self.values[id].clone(),
            }),
        }
    }

    /// Values that were passed over, by a reshape of a reshape, are read by no node.
    fn drop_unread_nodes(&mut self) {
        let mut read: HashSet<String> =
            self.graph.outputs().iter().map(|output| output.name.to_string()).collect();
        let mut kept = Vec::with_capacity(self.nodes.len());
        for node in std::mem::take(&mut self.nodes).into_iter().rev() {
            if node.output.iter().any(|value| read.contains(value)) {
                read.extend(node.input.iter().cloned());
                kept.push(node);
            }
        }
        kept.reverse();
        self.nodes = kept;
        self.value_info.retain(|info| read.contains(&info.name));
    }

    /// Positions that became tables are read by no node.
    fn drop_unread_constants(&mut self) {
        let read: HashSet<&str> =
            self.nodes.iter().flat_map(|node| node.input.iter().map(String::as_str)).collect();
        self.initializers.retain(|tensor| read.contains(tensor.name.as_str()));
    }

    /// Gives a lowered value the names of the outputs it is; a value that has to keep its name is copied.
    fn name_outputs(&mut self, id: NodeId, value: String) -> String {
        let graph = self.graph;
        let mut value = value;
        for output in graph.outputs().iter().filter(|output| output.node == id) {
            if *output.name == value {
                self.fixed.insert(value.clone());
                continue;
            }
            let last = self.nodes.last_mut().and_then(|node| node.output.first_mut());
            match last {
                Some(last) if *last == value && !self.fixed.contains(&value) => {
                    *last = output.name.to_string();
                    value = output.name.to_string();
                }
                _ => {
                    let copy = self.node("Identity", &[&value], vec![]);
                    if let Some(node) = self.nodes.last_mut() {
                        node.output = vec![output.name.to_string()];
                    }
                    debug_assert!(!self.fixed.contains(&copy), "a fresh name is not fixed");
                }
            }
            self.fixed.insert(output.name.to_string());
        }
        let produced = self.nodes.last().is_some_and(|node| node.output.contains(&value));
        if produced && self.fixed.insert(value.clone()) {
            self.value_info.push(proto::value_info(&value, graph.ty(id)));
        }
        value
    }

    fn note_sizes(&mut self, value: &str, ty: &Type) {
        for (axis, dim) in ty.shape.0.iter().enumerate() {
            if dim.as_const().is_none() && self.sizes.iter().all(|(known, _, _)| known != dim) {
                self.sizes.push((dim.clone(), value.to_owned(), axis));
            }
        }
    }

    /// Adds a node with one result; returns the name of the result.
    pub(super) fn node(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let [value] = self.node_with(op, inputs, attributes);
        value
    }

    /// Adds a node with `N` results.
    pub(super) fn node_with<const N: usize>(
        &mut self,
        op: &str,
        inputs: &[&str],
        attribute: Vec<AttributeProto>,
    ) -> [String; N] {
        let mut results = self.node_of(op, inputs, attribute, N).into_iter();
        std::array::from_fn(|_| results.next().unwrap_or_default())
    }

    /// Gives the results of the last node these names.
    pub(super) fn rename_results(&mut self, names: &[String]) {
        if let Some(node) = self.nodes.last_mut() {
            node.output = names.to_vec();
        }
    }

    /// Adds a node with `results` results.
    pub(super) fn node_of(
        &mut self,
        op: &str,
        inputs: &[&str],
        attribute: Vec<AttributeProto>,
        results: usize,
    ) -> Vec<String> {
        let path = if self.scope.is_empty() { op.to_owned() } else { format!("{}/{op}", self.scope) };
        let count = self.counters.entry(path.clone()).or_insert(0);
        let name = if *count == 0 { path } else { format!("{path}_{count}") };
        *count += 1;
        let result = |slot: usize| if slot == 0 { name.clone() } else { format!("{name}:{slot}") };
        let outputs: Vec<String> = (0..results).map(result).collect();
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|input| (*input).to_owned()).collect(),
            output: outputs.clone(),
            name,
            op_type: op.to_owned(),
            attribute,
            ..NodeProto::default()
        });
        outputs
    }

    /// The shared value of that key, made on first use.
    pub(super) fn shared(
        &mut self,
        key: Shared,
        make: impl FnOnce(&mut Self) -> Result<String, ExportError>,
    ) -> Result<String, ExportError> {
        if let Some(value) = self.shared.get(&key) {
            return Ok(value.clone());
        }
        let value = make(self)?;
        self.fixed.insert(value.clone());
        self.shared.insert(key, value.clone());
        Ok(value)
    }

    /// Adds an initialiser that nothing renames; one of its name may be there already.
    pub(super) fn initialize(&mut self, tensor: TensorProto) {
        if self.initialized.insert(tensor.name.clone()) {
            self.fixed.insert(tensor.name.clone());
            self.initializers.push(tensor);
        }
    }

    /// An initialiser with these elements; equal ones share a name made of type, shape and elements.
    pub(super) fn literal(&mut self, value: &Literal) -> String {
        let mut tensor = proto::constant(value);
        tensor.name = constant_name(value, &tensor.raw_data);
        let name = tensor.name.clone();
        self.initialize(tensor);
        name
    }

    /// An initialiser `i64 [values]`.
    pub(super) fn ints(&mut self, values: &[i64]) -> String {
        self.int_tensor(&[values.len()], values)
    }

    /// An initialiser `i64 []`.
    pub(super) fn int(&mut self, value: i64) -> String {
        self.int_tensor(&[], &[value])
    }

    /// An initialiser `i64 [shape]`; the values are as many as the shape says.
    pub(super) fn int_tensor(&mut self, shape: &[usize], values: &[i64]) -> String {
        let zeros = || Literal::from_tensor(Dtype::I64, &Tensor::zeros(Dtype::I64, shape));
        Literal::ints(shape, values).or_else(zeros).map_or_else(String::new, |value| self.literal(&value))
    }

    /// An initialiser `dtype [shape]`; the values are as many as the shape says.
    pub(super) fn float_tensor(&mut self, dtype: Dtype, shape: &[usize], values: &[f64]) -> String {
        let zeros = || Literal::from_tensor(dtype, &Tensor::zeros(dtype, shape));
        Literal::floats(dtype, shape, values)
            .or_else(zeros)
            .map_or_else(String::new, |value| self.literal(&value))
    }

    /// An initialiser `bool [shape]`; the values are as many as the shape says.
    pub(super) fn bool_tensor(&mut self, shape: &[usize], values: &[bool]) -> String {
        let zeros = || Literal::from_tensor(Dtype::Bool, &Tensor::zeros(Dtype::Bool, shape));
        Literal::bools(shape, values).or_else(zeros).map_or_else(String::new, |value| self.literal(&value))
    }

    /// An initialiser `f32 []`.
    pub(super) fn float(&mut self, value: f64) -> String {
        self.float_of(Dtype::F32, value)
    }

    /// An initialiser `dtype []`.
    pub(super) fn float_of(&mut self, dtype: Dtype, value: f64) -> String {
        self.float_tensor(dtype, &[], &[value])
    }
}

/// Type, shape and elements: short ones in words, long ones by their hash.
fn constant_name(value: &Literal, bytes: &[u8]) -> String {
    let sizes: Vec<String> = value.shape().iter().map(usize::to_string).collect();
    let head = format!("const/{}[{}]", value.dtype(), sizes.join(","));
    if value.len() > 8 {
        return format!("{head}#{}", &blake3::hash(bytes).to_hex()[..16]);
    }
    let items: Vec<String> = match value.to_tensor().data {
        #[expect(clippy::cast_possible_truncation, reason = "no ONNX model computes in more than f32")]
        Data::Float(values) => values.iter().map(|value| format!("{:?}", *value as f32)).collect(),
        Data::Int(values) => values.iter().map(i64::to_string).collect(),
        Data::Bool(values) => values.iter().map(bool::to_string).collect(),
    };
    format!("{head}({})", items.join(","))
}
