//! Symbolic addresses of stored weights. Owns in which type a step reads a matrix: that of the model, the one in which it is
//! stored, or codes.

use super::emit::Emitter;
use super::view::{Element, View, int, symbolic};
use super::{Buffer, Contents, PlanError};
use crate::launch::codes::scheme_number;
use photonc_graph::graph::NodeId;
use photonc_graph::ir::dtype::Dtype;

/// A matrix of floats.
#[derive(Clone, Copy)]
pub(super) struct Whole {
    /// Symbolic address.
    pub address: u64,
    /// That of the model, or the one in which it is stored.
    pub dtype: Dtype,
}

/// Symbolic addresses of the weight of a product.
#[derive(Clone, Copy)]
pub(super) enum Matrix {
    /// Floats.
    Whole(Whole),
    /// In few bits.
    Coded { codes: u64, scales: u64, scheme: i32 },
}

impl Emitter<'_> {
    /// Symbolic address of a stored weight.
    pub(super) fn weight(&mut self, id: NodeId, weight: NodeId) -> Result<u64, PlanError> {
        let missing = || {
            self.demand.error(id, "needs stored weights that lie side by side; computed ones have no kernel")
        };
        let place = self.demand.layout.place_of(self.graph(), weight).ok_or_else(missing)?;
        if self.demand.layout.codes(place.pack).is_some() {
            return Err(self.demand.error(id, "reads a weight in few bits, which only products do"));
        }
        if self.demand.layout.packs()[place.pack].dtype.is_some() {
            return Err(self
                .demand
                .error(id, "reads a weight as it is stored, which only products and tables do"));
        }
        let buffer = self.pack(place.pack);
        let whole =
            View { offset: int(place.offset), ..View::whole(buffer, Element::Model, &[place.elements]) };
        Ok(whole.address(self.dtype))
    }

    /// A whole matrix that a product or a table reads, in the type in which it lies there.
    pub(super) fn whole(&mut self, id: NodeId, weight: NodeId) -> Result<Whole, PlanError> {
        let layout = self.demand.layout;
        let stored = layout
            .place_of(self.graph(), weight)
            .and_then(|place| Some((place, layout.packs()[place.pack].dtype?)));
        let Some((place, dtype)) = stored else {
            return Ok(Whole { address: self.weight(id, weight)?, dtype: self.dtype });
        };
        let buffer = self.pack(place.pack);
        Ok(Whole { address: symbolic(buffer, place.offset * dtype.size_bytes()), dtype })
    }

    /// The weight of a product.
    pub(super) fn matrix_of(&mut self, linear: NodeId) -> Result<Matrix, PlanError> {
        let weight = self.graph().operands(linear)[1];
        let layout = self.demand.layout;
        let coded = layout.place_of(self.graph(), weight).and_then(|place| {
            let pack = &layout.packs()[place.pack];
            Some((place, pack, pack.codes?))
        });
        let Some((place, pack, rows)) = coded else { return self.whole(linear, weight).map(Matrix::Whole) };
        let buffer = self.pack(place.pack);
        let at = |byte| symbolic(buffer, byte);
        let (codes, scales) = (at(pack.codes_byte(place.offset)), at(pack.scales_byte(place.offset)));
        Ok(Matrix::Coded { codes, scales, scheme: i32::from(scheme_number(rows.scheme)) })
    }

    /// The buffer of a pack of weights.
    fn pack(&mut self, index: usize) -> usize {
        if let Some(buffer) = self.weights.get(&index) {
            return *buffer;
        }
        let bytes = self.demand.layout.packs()[index].bytes(self.dtype);
        let contents = Contents::Weights { pack: index };
        self.buffers.push(Buffer { contents, element: Element::Model, bytes });
        self.weights.insert(index, self.buffers.len() - 1);
        self.buffers.len() - 1
    }
}
