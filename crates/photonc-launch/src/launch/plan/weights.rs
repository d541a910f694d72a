//! Which weights lie side by side on the device, so that one product serves several. Owns the grouping: linear maps of
//! the same value (q, k and v; gate and up) share a pack, in the order the graph has them.

use crate::launch::codes::CodeRows;
use photonc_graph::graph::{Graph, NodeId};
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::op::Op;
use photonc_graph::ir::shape::Type;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Alignment of the scales of a pack in bytes.
const ALIGN_BYTES: usize = 256;

/// A weight as a graph reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Canonical name.
    pub name: String,
    /// Number of elements.
    pub elements: usize,
    /// Its rows, if it is kept in few bits.
    pub codes: Option<CodeRows>,
}

/// Weights stored one after another along axis 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    /// Canonical names, in order.
    pub names: Vec<String>,
    /// Elements of each.
    pub elements: Vec<usize>,
    /// The rows of all of them, if they are kept in few bits: all codes, then all scales.
    pub codes: Option<CodeRows>,
    /// Type of whole weights where it is not the model's.
    pub dtype: Option<Dtype>,
}

/// Where a weight lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the pack.
    pub pack: usize,
    /// Elements before the weight.
    pub offset: usize,
    /// Elements of the weight.
    pub elements: usize,
}

impl Stored {
    /// What tells it from the same weight kept in another way.
    fn key(&self) -> String {
        self.codes.map_or_else(|| self.name.clone(), |rows| rows.scheme.key(&self.name))
    }
}

impl Pack {
    /// Bytes of the pack in a model of type `model`.
    #[must_use]
    pub fn bytes(&self, model: Dtype) -> usize {
        let elements: usize = self.elements.iter().sum();
        match self.codes {
            None => elements * self.dtype.unwrap_or(model).size_bytes(),
            Some(_) => self.scales_byte(elements),
        }
    }

    /// Bytes before the row that begins after `elements` elements.
    #[must_use]
    pub fn codes_byte(&self, elements: usize) -> usize {
        self.codes.map_or(0, |rows| self.rows_of(elements) * rows.code_bytes())
    }

    /// Bytes before the scales of that row.
    #[must_use]
    pub fn scales_byte(&self, elements: usize) -> usize {
        let codes = self.codes_byte(self.elements.iter().sum()).next_multiple_of(ALIGN_BYTES);
        codes + self.codes.map_or(0, |rows| self.rows_of(elements) * rows.scales() * 4)
    }

    fn rows_of(&self, elements: usize) -> usize {
        self.codes.map_or(0, |rows| elements / rows.columns.max(1))
    }
}

/// The packs of all graphs of a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WeightLayout {
    packs: Vec<Pack>,
    places: BTreeMap<String, Place>,
}

impl WeightLayout {
    /// The packs for `graphs`; weights that only some of them use are there once.
    #[must_use]
    pub fn of(graphs: &[&Graph]) -> Self {
        Self::with_stored(graphs, &|_| None)
    }

    /// The same where matrices that only products and tables read lie in the type that `stored` says; `None` is the
    /// model's.
    #[must_use]
    pub fn with_stored(graphs: &[&Graph], stored_as: &dyn Fn(&str) -> Option<Dtype>) -> Self {
        let mut layout = WeightLayout::default();
        let others = read_otherwise(graphs);
        let dtype = |name: &str| stored_as(name).filter(|_| !others.contains(name));
        // The longest joins first: shorter ones are usually part of them.
        let mut joins: Vec<_> = graphs.iter().flat_map(|graph| joins(graph)).collect();
        joins.sort_by_key(|join| std::cmp::Reverse(join.len()));
        joins.iter().for_each(|join| layout.add(join, &dtype));
        for graph in graphs {
            for group in gates(graph).into_iter().chain(groups(graph)) {
                layout.add(&group, &dtype);
            }
        }
        for graph in graphs {
            for id in graph.order() {
                layout.add(stored(graph, id).as_slice(), &dtype);
            }
        }
        layout
    }

    /// The same packs, codes in the order of their files.
    #[must_use]
    pub fn as_stored(mut self) -> Self {
        for codes in self.packs.iter_mut().filter_map(|pack| pack.codes.as_mut()) {
            codes.as_stored = true;
        }
        self
    }

    /// The packs, by index.
    #[must_use]
    pub fn packs(&self) -> &[Pack] {
        &self.packs
    }

    /// Where a whole weight lies; `None` if no graph has it.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<Place> {
        self.places.get(name).copied()
    }

    /// The rows of the weights of a pack, if they are kept in few bits.
    #[must_use]
    pub fn codes(&self, pack: usize) -> Option<CodeRows> {
        self.packs.get(pack).and_then(|pack| pack.codes)
    }

    /// Where the weight `id` of a product lies: a stored one, or several along axis 0 whose places follow each other.
    #[must_use]
    pub fn place_of(&self, graph: &Graph, id: NodeId) -> Option<Place> {
        let mut parts = joined(graph, id)?.into_iter();
        let mut whole = self.place(&parts.next()?.key())?;
        for part in parts {
            let next = self.place(&part.key())?;
            if next.pack != whole.pack || next.offset != whole.offset + whole.elements {
                return None;
            }
            whole.elements += next.elements;
        }
        Some(whole)
    }

    /// Adds the new ones of weights that are kept in one way.
    fn add(&mut self, group: &[Stored], dtype: &dyn Fn(&str) -> Option<Dtype>) {
        let new: Vec<&Stored> =
            group.iter().filter(|stored| !self.places.contains_key(&stored.key())).collect();
        let Some(first) = new.first() else { return };
        // What lies side by side is read as one.
        let stored_as = dtype(&first.name).filter(|_| first.codes.is_none());
        let dtype = stored_as.filter(|_| new.iter().all(|stored| dtype(&stored.name) == stored_as));
        let mut pack = Pack { names: Vec::new(), elements: Vec::new(), codes: first.codes, dtype };
        let mut offset = 0;
        for stored in new {
            let place = Place { pack: self.packs.len(), offset, elements: stored.elements };
            self.places.insert(stored.key(), place);
            pack.names.push(stored.name.clone());
            pack.elements.push(stored.elements);
            offset += stored.elements;
        }
        self.packs.push(pack);
    }
}

/// Names of weights that something else than a product, a table or an expert reads whole.
fn read_otherwise(graphs: &[&Graph]) -> HashSet<String> {
    fn is_matrix(graph: &Graph, id: NodeId) -> bool {
        graph.users(id).iter().all(|(user, operand)| match (graph.op(*user), operand) {
            (Op::Linear, 1) | (Op::Gather, 0) | (Op::Experts { .. }, 2 | 3) => true,
            (Op::Concat { axis: 0 }, _) => is_matrix(graph, *user),
            _ => false,
        }) && graph.outputs().iter().all(|output| output.node != id)
    }
    let mut names = HashSet::new();
    for graph in graphs {
        for id in graph.order() {
            if let Op::Weight { name, .. } = graph.op(id)
                && !is_matrix(graph, id)
            {
                names.insert(name.to_string());
            }
        }
    }
    names
}

/// The weight that a node is; `None` for any other node.
fn stored(graph: &Graph, id: NodeId) -> Option<Stored> {
    match graph.op(id) {
        Op::Weight { name, ty } => {
            Some(Stored { name: name.to_string(), elements: elements(ty), codes: None })
        }
        Op::QuantizedWeight { name, ty, scheme } => {
            let codes = Some(CodeRows { scheme: *scheme, columns: columns(ty), as_stored: false });
            Some(Stored { name: name.to_string(), elements: elements(ty), codes })
        }
        _ => None,
    }
}

fn columns(ty: &Type) -> usize {
    ty.shape.as_const().and_then(|dims| dims.last().copied()).unwrap_or(0)
}

fn elements(ty: &Type) -> usize {
    ty.shape.as_const().map_or(0, |dims| dims.iter().product())
}

/// The stored weights that `id` is, in order: itself, or those it joins along axis 0, all kept in one way.
#[must_use]
pub fn joined(graph: &Graph, id: NodeId) -> Option<Vec<Stored>> {
    let Op::Concat { axis: 0 } = graph.op(id) else { return stored(graph, id).map(|stored| vec![stored]) };
    let parts: Option<Vec<_>> = graph.operands(id).into_iter().map(|part| joined(graph, part)).collect();
    Some(parts?.concat()).filter(|parts| alike(parts))
}

/// Whether weights are kept in one way.
fn alike(weights: &[Stored]) -> bool {
    weights.windows(2).all(|pair| pair[0].codes == pair[1].codes)
}

/// Weights that graphs join themselves, for one product.
fn joins(graph: &Graph) -> Vec<Vec<Stored>> {
    let linears = graph.order().into_iter().filter(|id| matches!(graph.op(*id), Op::Linear));
    let weights = linears.filter_map(|id| joined(graph, *graph.operands(id).get(1)?));
    weights.filter(|weights| weights.len() > 1).collect()
}

/// Gate and up weights of every SwiGLU: the order its kernel wants.
fn gates(graph: &Graph) -> Vec<Vec<Stored>> {
    let swiglus = graph.order().into_iter().filter(|id| matches!(graph.op(*id), Op::SwiGlu));
    let weight = |linear: NodeId| match (graph.op(linear), graph.operands(linear).get(1)) {
        (Op::Linear, Some(weight)) => stored(graph, *weight),
        _ => None,
    };
    let both =
        swiglus.filter_map(|id| graph.operands(id).into_iter().map(weight).collect::<Option<Vec<_>>>());
    both.filter(|weights| alike(weights)).collect()
}

/// Weights of the bias-free linear maps of one value that are kept in one way, several each.
fn groups(graph: &Graph) -> Vec<Vec<Stored>> {
    let mut order = Vec::new();
    let mut members: HashMap<(NodeId, Option<CodeRows>), Vec<Stored>> = HashMap::new();
    for id in graph.order() {
        let operands = graph.operands(id);
        let (Op::Linear, [x, weight]) = (graph.op(id), operands.as_slice()) else { continue };
        let Some(weight) = stored(graph, *weight) else { continue };
        let key = (unsliced(graph, *x), weight.codes);
        let group = members.entry(key).or_insert_with(|| {
            order.push(key);
            Vec::new()
        });
        if group.iter().all(|known| known.name != weight.name) {
            group.push(weight);
        }
    }
    order.into_iter().filter_map(|key| members.remove(&key)).filter(|group| group.len() > 1).collect()
}

/// The value that `id` is a slice of.
#[must_use]
pub fn unsliced(graph: &Graph, id: NodeId) -> NodeId {
    match (graph.op(id), graph.operands(id).as_slice()) {
        (Op::Slice { .. }, [of]) => unsliced(graph, *of),
        _ => id,
    }
}

#[cfg(test)]
mod tests {
    use super::{CodeRows, Pack, WeightLayout};
    use photonc_graph::graph::text;
    use photonc_graph::ir::attr::Scheme;
    use photonc_graph::ir::dtype::Dtype;

    fn packs(choices: [&str; 3]) -> Vec<Pack> {
        let [q, k, v] = choices;
        let source = format!(
            "graph qkv {{
  %0 = input{{name=\"x\", ty=bf16[batch, 32], role=argument}}
  %1 = {q}
  %2 = {k}
  %3 = {v}
  %4 = linear %0, %1 : bf16[batch, 4]
  %5 = linear %0, %2 : bf16[batch, 4]
  %6 = linear %0, %3 : bf16[batch, 4]

  output \"q\" = %4
  output \"k\" = %5
  output \"v\" = %6
}}
"
        );
        let graph = text::parse(&source).expect("parses");
        WeightLayout::of(&[&graph]).packs().to_vec()
    }

    const WHOLE: &str = "weight{name=\"NAME\", ty=bf16[4, 32]}";
    const INT4: &str = "quantized_weight{name=\"NAME\", ty=bf16[4, 32], scheme=int4}";

    // Codes lie beside codes of their kind only; one product then serves them.
    #[test]
    fn weights_of_a_value_share_a_pack_where_they_are_kept_alike() {
        let named = |ops: [&str; 3]| {
            let [q, k, v] = ["q", "k", "v"];
            packs([&ops[0].replace("NAME", q), &ops[1].replace("NAME", k), &ops[2].replace("NAME", v)])
        };
        let found = named([INT4, WHOLE, INT4]);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].names.join(" "), found[1].names.join(" ")), ("q v".to_owned(), "k".to_owned()));
        assert_eq!(found[0].codes, Some(CodeRows { scheme: Scheme::Int4, columns: 32, as_stored: false }));
        // Eight rows of a stretch each, then four scales a row.
        assert_eq!((found[0].bytes(Dtype::Bf16), found[0].scales_byte(128)), (512 + 8 * 16, 512 + 4 * 16));
        assert_eq!((found[1].codes, found[1].bytes(Dtype::Bf16)), (None, 256));
    }
}
