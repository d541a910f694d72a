//! Where an interpreter's weights come from. Owns the conversion of each to binary64, once for all graphs.

use super::{InterpError, Interpreter, bind};
use crate::graph::Scope;
use crate::ir::attr::Scheme;
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

    /// The matrix as its codes in `scheme` give it back. A source without codes makes them of the tensor.
    ///
    /// # Errors
    /// There is none of that name, it cannot be read, or the scheme does not fit it.
    fn quantized(&self, name: &str, scheme: Scheme) -> Result<Tensor, WeightError> {
        let weight = self.weight(name)?;
        let misfit = || WeightError::Unreadable(format!("{:?} does not fit {}", weight.shape, scheme.name()));
        let ([rows, columns], Some(values)) = (&weight.shape[..], weight.as_floats()) else {
            return Err(misfit());
        };
        let rounded = scheme.rounded([*rows, *columns], values).ok_or_else(misfit)?;
        Tensor::floats(&weight.shape, rounded).ok_or_else(misfit)
    }
}

impl<S: WeightSource + ?Sized> WeightSource for &S {
    fn weight(&self, name: &str) -> Result<Tensor, WeightError> {
        (**self).weight(name)
    }
    fn quantized(&self, name: &str, scheme: Scheme) -> Result<Tensor, WeightError> {
        (**self).quantized(name, scheme)
    }
}

impl<S: WeightSource + ?Sized> WeightSource for Arc<S> {
    fn weight(&self, name: &str) -> Result<Tensor, WeightError> {
        (**self).weight(name)
    }
    fn quantized(&self, name: &str, scheme: Scheme) -> Result<Tensor, WeightError> {
        (**self).quantized(name, scheme)
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
    read: Mutex<HashMap<(String, Option<Scheme>), Tensor>>,
}

impl<S: WeightSource> WeightCache<S> {
    /// An empty cache over `source`.
    pub fn new(source: S) -> Self {
        WeightCache { source, read: Mutex::new(HashMap::new()) }
    }
}

impl<S: WeightSource> WeightCache<S> {
    fn cached(
        &self,
        key: (String, Option<Scheme>),
        read: impl FnOnce(&S) -> Result<Tensor, WeightError>,
    ) -> Result<Tensor, WeightError> {
        // Entries are whole tensors, so a panic elsewhere leaves the map usable.
        let mut known = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tensor) = known.get(&key) {
            return Ok(tensor.clone());
        }
        let tensor = read(&self.source)?;
        known.insert(key, tensor.clone());
        Ok(tensor)
    }
}

impl<S: WeightSource> WeightSource for WeightCache<S> {
    fn weight(&self, name: &str) -> Result<Tensor, WeightError> {
        self.cached((name.to_owned(), None), |source| source.weight(name))
    }

    fn quantized(&self, name: &str, scheme: Scheme) -> Result<Tensor, WeightError> {
        self.cached((name.to_owned(), Some(scheme)), |source| source.quantized(name, scheme))
    }
}

impl Interpreter {
    /// Takes weight `name` from `source` unless it is here already, and checks it against `ty`.
    pub(super) fn fetch(
        &mut self,
        name: &Arc<str>,
        scheme: Option<Scheme>,
        ty: &Type,
        scope: &Scope,
        source: &dyn WeightSource,
    ) -> Result<(), InterpError> {
        let key = (name.clone(), scheme);
        if self.weights.contains_key(&key) {
            return Ok(());
        }
        let found = match scheme {
            None => source.weight(name),
            Some(scheme) => source.quantized(name, scheme),
        };
        let weight = found.map_err(|source| InterpError::Weight {
            scope: scope.to_string(),
            name: name.to_string(),
            source,
        })?;
        if !weight.holds(ty.dtype) || ty.shape.as_const().as_ref() != Some(&weight.shape) {
            return Err(bind::mismatch("weight", name, &weight, ty, &Bindings::default()));
        }
        self.weights.insert(key, weight.rounded(ty.dtype));
        Ok(())
    }
}
