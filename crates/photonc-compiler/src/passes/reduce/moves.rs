//! The moves of a reduction, largest first. Owns what each does to a graph; whether the result is worth keeping is asked
//! elsewhere.

use super::rebuild::{Edit, Replacement};
use super::sizes::Resize;
use photonc_graph::graph::{Graph, NodeId};
use photonc_graph::ir::dim::Symbol;
use photonc_graph::ir::op::Op;
use photonc_graph::ir::tensor::{Literal, Tensor};
use std::collections::{BTreeSet, HashSet};
use std::fmt;

/// One way to make a graph smaller.
#[derive(Clone, Debug, PartialEq)]
pub enum Move {
    /// Keeps the last nodes in the graph's order; what they read of the others becomes inputs. The number goes.
    CutFront(usize),
    /// Keeps the first nodes in the graph's order; what nothing of them reads becomes the outputs. The number stays.
    CutBack(usize),
    /// Drops an output and what only it needs.
    DropOutput(usize),
    /// Makes an operand of its node the output.
    RaiseOutput(usize, usize),
    /// Makes a node an input.
    Give(NodeId),
    /// Makes an operand of the same type stand for a node.
    Bypass(NodeId, NodeId),
    /// Makes a symbol 1, or every axis of one size another.
    Resize(Resize),
    /// Makes a constant zero.
    Zero(NodeId),
    /// Drops the name of a value.
    Unlabel(NodeId),
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Move::CutFront(_) => "first nodes cut off",
            Move::CutBack(_) => "last nodes cut off",
            Move::DropOutput(_) => "output dropped",
            Move::RaiseOutput(..) => "output moved to an operand",
            Move::Give(_) => "node made an input",
            Move::Bypass(..) => "node bypassed",
            Move::Resize(_) => "size made smaller",
            Move::Zero(_) => "constant zeroed",
            Move::Unlabel(_) => "name dropped",
        })
    }
}

impl Move {
    /// Every move on `graph`, in the order they are tried.
    #[must_use]
    pub fn all(graph: &Graph) -> Vec<Move> {
        let order = graph.order();
        let parts = [7, 6, 4, 2, 1].map(|eighths| order.len() * eighths / 8);
        let mut moves: Vec<Move> = parts.into_iter().map(Move::CutFront).collect();
        moves.extend(parts.into_iter().rev().map(Move::CutBack));
        moves.extend((0..graph.outputs().len()).map(Move::DropOutput));
        for (at, output) in graph.outputs().iter().enumerate() {
            moves.extend((0..graph.operands(output.node).len()).map(|slot| Move::RaiseOutput(at, slot)));
        }
        let given = |id: &&NodeId| !matches!(graph.op(**id), Op::Input { .. });
        moves.extend(order.iter().rev().filter(given).map(|id| Move::Give(*id)));
        for id in order.iter().rev().filter(|id| !graph.op(**id).is_delay()) {
            let alike = graph.operands(*id).into_iter().filter(|operand| graph.ty(*operand) == graph.ty(*id));
            moves.extend(alike.map(|operand| Move::Bypass(*id, operand)));
        }
        moves.extend(resizes(graph).into_iter().map(Move::Resize));
        moves.extend(graph.select(|op| matches!(op, Op::Const { .. })).into_iter().map(Move::Zero));
        moves.extend(order.iter().filter(|id| graph.label(**id).is_some()).map(|id| Move::Unlabel(*id)));
        moves
    }

    /// The graph after the move, without what no output needs; `None` where it does not type.
    #[must_use]
    pub fn apply(&self, graph: &Graph) -> Option<Graph> {
        let mut edit = Edit::new(graph);
        match self {
            Move::CutFront(count) => {
                for id in graph.order().into_iter().take(*count) {
                    if !matches!(
                        graph.op(id),
                        Op::Weight { .. } | Op::QuantizedWeight { .. } | Op::Const { .. }
                    ) {
                        edit.replace.insert(id, Replacement::Input);
                    }
                }
            }
            Move::CutBack(count) => cut_back(&mut edit, graph, *count),
            Move::DropOutput(at) => {
                edit.outputs.remove(*at);
            }
            Move::RaiseOutput(at, slot) => {
                let output = edit.outputs.get_mut(*at)?;
                output.1 = *graph.operands(output.1).get(*slot)?;
            }
            Move::Give(id) => {
                edit.replace.insert(*id, Replacement::Input);
            }
            Move::Bypass(id, operand) => {
                edit.replace.insert(*id, Replacement::Value(*operand));
            }
            Move::Resize(resize) => edit.resize = Some(resize.clone()),
            Move::Zero(id) => {
                let Op::Const { value } = graph.op(*id) else { return None };
                let zeros =
                    Literal::from_tensor(value.dtype(), &Tensor::zeros(value.dtype(), value.shape()))?;
                edit.replace.insert(*id, Replacement::Op(Op::Const { value: zeros }));
            }
            Move::Unlabel(id) => edit.unlabel = Some(*id),
        }
        edit.build()
    }
}

fn cut_back(edit: &mut Edit<'_>, graph: &Graph, count: usize) {
    let kept: HashSet<NodeId> = graph.order().into_iter().take(count).collect();
    for delay in graph.delays() {
        if graph.operands(delay).iter().any(|next| !kept.contains(next)) {
            edit.replace.insert(delay, Replacement::Input);
        }
    }
    let read = |id: &NodeId| graph.users(*id).iter().any(|(user, _)| kept.contains(user));
    let last = graph.order().into_iter().take(count).filter(|id| !read(id) && !graph.op(*id).is_leaf());
    edit.outputs = last.enumerate().map(|(at, id)| (format!("last.{at}"), id)).collect();
}

/// Symbols and numbers that occur as axes.
fn resizes(graph: &Graph) -> Vec<Resize> {
    let mut numbers: BTreeSet<usize> = BTreeSet::new();
    let mut symbols: BTreeSet<Symbol> = BTreeSet::new();
    for id in graph.nodes() {
        let shape = &graph.ty(id).shape;
        numbers.extend(shape.0.iter().filter_map(photonc_graph::ir::dim::Dim::as_const));
        symbols.extend(Symbol::ALL.into_iter().filter(|symbol| shape.contains(*symbol)));
    }
    let bind = symbols.into_iter().map(Resize::Bind);
    let numbers = numbers.into_iter().rev().filter(|size| *size > 1);
    let shrink = numbers.flat_map(|from| {
        let to: BTreeSet<usize> =
            [1, 2, from / 2, from - 1].into_iter().filter(|to| (1..from).contains(to)).collect();
        to.into_iter().map(move |to| Resize::Shrink { from, to })
    });
    bind.chain(shrink).collect()
}
