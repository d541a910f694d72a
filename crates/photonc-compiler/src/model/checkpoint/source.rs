//! A checkpoint as a source of weights for graphs: tensors by canonical name, read when they are asked for.

use super::Checkpoint;
use photonc_graph::graph::interp::{WeightError, WeightSource};
use photonc_graph::ir::tensor::Tensor;

impl WeightSource for Checkpoint {
    fn weight(&self, name: &str) -> Result<Tensor, WeightError> {
        let entry = self.tensors.get(name).ok_or(WeightError::Missing)?;
        let values = self.read_f64(name).map_err(|error| WeightError::Unreadable(error.to_string()))?;
        Tensor::floats(&entry.shape, values).ok_or(WeightError::Missing)
    }
}
