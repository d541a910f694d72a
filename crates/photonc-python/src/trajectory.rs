//! Coarse trajectories that are kept.

use crate::errors::Raised;
use pyo3::prelude::{PyResult, Python, pyclass, pymethods};

/// The trajectory of a prompt.
#[pyclass(frozen, module = "photonc._photonc")]
pub struct Trajectory(photonc::api::Trajectory);

impl Trajectory {
    pub fn new(trajectory: photonc::api::Trajectory) -> Self {
        Trajectory(trajectory)
    }
}

#[pymethods]
impl Trajectory {
    #[getter]
    fn meta_contexts(&self) -> usize {
        self.0.meta_contexts()
    }

    #[getter]
    fn first_position(&self) -> usize {
        self.0.first_position()
    }

    #[getter]
    fn token_ids(&self) -> Vec<i64> {
        self.0.tokens()
    }

    fn advance(&self, py: Python<'_>, meta_contexts: usize) -> PyResult<usize> {
        Ok(py.detach(|| self.0.advance(meta_contexts)).map_err(Raised::from)?)
    }

    fn expand(
        &self,
        py: Python<'_>,
        start: usize,
        stop: usize,
        seed: Option<u64>,
        sample: u64,
    ) -> PyResult<Vec<Vec<i64>>> {
        Ok(py.detach(|| self.0.expand(start..stop, seed, sample)).map_err(Raised::from)?)
    }
}
