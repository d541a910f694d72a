//! Binding of symbols: the one value of each that makes declared types and given shapes equal.

use super::{InterpError, Interpreter, Tensors};
use crate::ir::dim::{Bindings, Symbol};
use crate::ir::shape::{Shape, Type};
use crate::ir::tensor::{Data, Tensor};

/// A tensor given for a name, and the type the graph declares for it.
struct Given<'t> {
    what: &'static str,
    name: &'t str,
    ty: &'t Type,
    tensor: &'t Tensor,
}

impl Interpreter {
    /// The values of all symbols in inputs and states, each of which is given and fits.
    pub(super) fn bind(&self, state: &Tensors, inputs: &Tensors) -> Result<Bindings, InterpError> {
        let mut given = self.pair("input", inputs, &self.inputs)?;
        given.extend(self.pair("state", state, &self.states)?);
        let ports: Vec<(&Shape, &[usize])> =
            given.iter().map(|one| (&one.ty.shape, one.tensor.shape.as_slice())).collect();
        let bindings = Bindings::solve(&ports);
        match given.iter().find(|one| one.ty.shape.eval(&bindings).as_ref() != Some(&one.tensor.shape)) {
            Some(one) => Err(mismatch(one.what, one.name, one.tensor, one.ty, &bindings)),
            None => Ok(bindings),
        }
    }

    fn pair<'t>(
        &'t self,
        what: &'static str,
        tensors: &'t Tensors,
        declared: &'t [(String, Type)],
    ) -> Result<Vec<Given<'t>>, InterpError> {
        let stranger = tensors.keys().find(|name| !declared.iter().any(|(known, _)| known == *name));
        if let Some(name) = stranger {
            return Err(InterpError::Unknown {
                what,
                name: name.clone(),
                graph: self.graph.clone(),
                expected: declared.iter().map(|(name, _)| name.clone()).collect(),
            });
        }
        let mut given = Vec::new();
        for (name, ty) in declared {
            let Some(tensor) = tensors.get(name) else {
                let (name, graph) = (name.clone(), self.graph.clone());
                return Err(InterpError::Missing { what, name, graph, expected: ty.clone() });
            };
            if !tensor.holds(ty.dtype) || tensor.shape.len() != ty.shape.rank() {
                return Err(mismatch(what, name, tensor, ty, &Bindings::default()));
            }
            given.push(Given { what, name, ty, tensor });
        }
        Ok(given)
    }
}

pub(super) fn mismatch(
    what: &'static str,
    name: &str,
    tensor: &Tensor,
    ty: &Type,
    bindings: &Bindings,
) -> InterpError {
    let kind = match tensor.data {
        Data::Float(_) => "floats",
        Data::Int(_) => "integers",
        Data::Bool(_) => "truth values",
    };
    let found = format!("{kind}{:?}", tensor.shape);
    let known: Vec<String> = Symbol::ALL
        .into_iter()
        .filter_map(|symbol| bindings.get(symbol).map(|value| format!("{} = {value}", symbol.name())))
        .collect();
    let given = if known.is_empty() { String::new() } else { format!(" with {}", known.join(", ")) };
    InterpError::Mismatch { what, name: name.to_owned(), found, expected: ty.clone(), given }
}
