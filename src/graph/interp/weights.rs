//! Where an interpreter's weights come from. Owns the conversion of each to binary64, once for all graphs.

use super::{InterpError, Interpreter, bind};
use crate::graph::Scope;
use crate::ir::dim::Bindings;
use crate::ir::shape::Type;
use crate::ir::tensor::Tensor;
use indexmap::IndexMap;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// Why a source has no tensor of a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeightError {
    /// No such tensor.
    #[error("not found")]
    Missing,
    /// There is one, but it cannot be read.
    #[error("{0}")]
    Unreadable(String),
}

/// Stored tensors by canonical name.
pub trait WeightSource {
    /// The tensor, floats as binary64.
    ///
    /// # Errors
    /// There is none of that name, or it cannot be read.
    fn weight(&self, name: &str) -> Result<Tensor, WeightError>;
}

impl<S: WeightSource + ?Sized> WeightSource for &S {
    fn weight(&self, name: &str) -> Result<Tensor, WeightError> {
        (**self).weight(name)
    }
}

impl<S: WeightSource + ?Sized> WeightSource for Arc<S> {
    fn weight(&self, name: &str) -> Result<Tensor, WeightError> {
        (**self).weight(name)
    }
}

/// A source without weights.
impl WeightSource for () {
    fn weight(&self, _: &str) -> Result<Tensor, WeightError> {
        Err(WeightError::Missing)
    }
}

impl WeightSource for IndexMap<String, Tensor> {
    fn weight(&self, name: &str) -> Result<Tensor, WeightError> {
        self.get(name).cloned().ok_or(WeightError::Missing)
    }
}

impl WeightSource for BTreeMap<String, Tensor> {
    fn weight(&self, name: &str) -> Result<Tensor, WeightError> {
        self.get(name).cloned().ok_or(WeightError::Missing)
    }
}

/// A source that reads each tensor once and shares its elements with every graph that asks again.
#[derive(Debug)]
pub struct WeightCache<S> {
    source: S,
    read: Mutex<HashMap<String, Tensor>>,
}

impl<S: WeightSource> WeightCache<S> {
    /// An empty cache over `source`.
    pub fn new(source: S) -> Self {
        WeightCache { source, read: Mutex::new(HashMap::new()) }
    }
}

impl<S: WeightSource> WeightSource for WeightCache<S> {
    fn weight(&self, name: &str) -> Result<Tensor, WeightError> {
        // Entries are whole tensors, so a panic elsewhere leaves the map usable.
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tensor) = read.get(name) {
            return Ok(tensor.clone());
        }
        let tensor = self.source.weight(name)?;
        read.insert(name.to_owned(), tensor.clone());
        Ok(tensor)
    }
}

impl Interpreter {
    /// Takes weight `name` from `source` unless it is here already, and checks it against `ty`.
    pub(super) fn fetch(
        &mut self,
        name: &Arc<str>,
        ty: &Type,
        scope: &Scope,
        source: &dyn WeightSource,
    ) -> Result<(), InterpError> {
        if self.weights.contains_key(name) {
            return Ok(());
        }
        let weight = source.weight(name).map_err(|source| InterpError::Weight {
            scope: scope.to_string(),
            name: name.to_string(),
            source,
        })?;
        if !weight.holds(ty.dtype) || ty.shape.as_const().as_ref() != Some(&weight.shape) {
            return Err(bind::mismatch("weight", name, &weight, ty, &Bindings::default()));
        }
        self.weights.insert(name.clone(), weight.rounded(ty.dtype));
        Ok(())
    }
}
