//! Sizes, and operations that move elements without computing. Owns how a symbolic size is obtained at run time:
//! from `Shape` of a value that has it, so that no runtime needs to know a symbol.

use super::emit::{Emitter, Shared};
use super::{ExportError, proto};
use photonc_graph::ir::dim::{Dim, Symbol};
use photonc_graph::ir::shape::Shape;

/// Beyond any size: a slice that ends here runs to the end.
const TO_END: i64 = i64::MAX;

impl Emitter<'_> {
    /// `i64 [1]`: the size of a dimension.
    pub(super) fn size(&mut self, dim: &Dim) -> Result<String, ExportError> {
        if let Some(size) = dim.as_const() {
            return Ok(self.ints(&[proto::to_i64(size)]));
        }
        self.shared(Shared::Size(dim.clone()), |emitter| {
            let known = emitter.sizes.iter().find(|(known, _, _)| known == dim).cloned();
            if let Some((_, value, axis)) = known {
                let axis = proto::to_i64(axis);
                let attributes = vec![proto::int("start", axis), proto::int("end", axis + 1)];
                return Ok(emitter.node("Shape", &[&value], attributes));
            }
            emitter.derived_size(dim)
        })
    }

    /// A size that no value has: a multiple or a fraction of one that has, or a product with a symbol.
    fn derived_size(&mut self, dim: &Dim) -> Result<String, ExportError> {
        let known: Vec<Dim> = self.sizes.iter().map(|(known, _, _)| known.clone()).collect();
        for other in &known {
            if let Some(times) = dim.divided_by(other).and_then(|times| times.as_const()) {
                let (size, times) = (self.size(other)?, self.ints(&[proto::to_i64(times)]));
                return Ok(self.node("Mul", &[&size, &times], vec![]));
            }
            if let Some(parts) = other.divided_by(dim).and_then(|parts| parts.as_const()) {
                let (size, parts) = (self.size(other)?, self.ints(&[proto::to_i64(parts)]));
                return Ok(self.node("Div", &[&size, &parts], vec![]));
            }
        }
        for symbol in Symbol::ALL {
            if let Some(rest) = dim.without_factor(symbol).filter(|rest| rest != &Dim::from(1)) {
                let (symbol, rest) = (self.size(&symbol.into())?, self.size(&rest)?);
                return Ok(self.node("Mul", &[&symbol, &rest], vec![]));
            }
        }
        Err(ExportError::UnknownDim { scope: self.scope.clone(), dim: dim.to_string() })
    }

    /// `i64 []`: the size of a dimension.
    pub(super) fn scalar_size(&mut self, dim: &Dim) -> Result<String, ExportError> {
        if let Some(size) = dim.as_const() {
            return Ok(self.int(proto::to_i64(size)));
        }
        self.shared(Shared::ScalarSize(dim.clone()), |emitter| {
            let (size, axes) = (emitter.size(dim)?, emitter.ints(&[0]));
            Ok(emitter.node("Squeeze", &[&size, &axes], vec![]))
        })
    }

    /// `i64 [dim]`: 0, 1, ..
    pub(super) fn range(&mut self, dim: &Dim) -> Result<String, ExportError> {
        if let Some(size) = dim.as_const() {
            let values: Vec<i64> = (0..proto::to_i64(size)).collect();
            return Ok(self.ints(&values));
        }
        self.shared(Shared::Range(dim.clone()), |emitter| {
            let (zero, size, one) = (emitter.int(0), emitter.scalar_size(dim)?, emitter.int(1));
            Ok(emitter.node("Range", &[&zero, &size, &one], vec![]))
        })
    }

    /// The same elements in another shape. Symbolic sizes are copied (0) or inferred (-1) where ONNX can, else read.
    pub(super) fn reshape(&mut self, x: &str, from: &Shape, to: &Shape) -> Result<String, ExportError> {
        let (x, from) = match self.reshaped.get(x) {
            Some((source, shape)) => (source.clone(), shape.clone()),
            None => (x.to_owned(), from.clone()),
        };
        if from == *to {
            return Ok(x);
        }
        let sizes = self.target_shape(&from, to)?;
        let value = self.node("Reshape", &[&x, &sizes], vec![]);
        self.reshaped.insert(value.clone(), (x, from));
        Ok(value)
    }

    fn target_shape(&mut self, from: &Shape, to: &Shape) -> Result<String, ExportError> {
        let copied = |axis: usize, dim: &Dim| from.0.get(axis) == Some(dim);
        let open: Vec<usize> = (0..to.rank())
            .filter(|axis| to.0[*axis].as_const().is_none() && !copied(*axis, &to.0[*axis]))
            .collect();
        // The size that no value has yet is the one to infer.
        let is_known =
            |emitter: &Self, axis: usize| emitter.sizes.iter().any(|(dim, _, _)| dim == &to.0[axis]);
        let inferred = open.iter().copied().find(|axis| !is_known(self, *axis)).or(open.last().copied());
        let entry = |axis: usize, dim: &Dim| match dim.as_const() {
            Some(size) => proto::to_i64(size),
            None if Some(axis) == inferred => -1,
            None => 0,
        };
        let entries: Vec<i64> = to.0.iter().enumerate().map(|(axis, dim)| entry(axis, dim)).collect();
        if open.len() < 2 {
            return Ok(self.ints(&entries));
        }
        // `None` is read at run time.
        let entry = |axis: usize| (!open.contains(&axis) || Some(axis) == inferred).then_some(entries[axis]);
        let entries: Vec<(&Dim, Option<i64>)> =
            to.0.iter().enumerate().map(|(axis, dim)| (dim, entry(axis))).collect();
        let texts: Vec<String> = entries
            .iter()
            .map(|(dim, entry)| entry.map_or_else(|| dim.to_string(), |entry| entry.to_string()))
            .collect();
        self.shared(Shared::Shape(texts.join(", ")), |emitter| {
            let mut parts = Vec::with_capacity(entries.len());
            for (dim, entry) in &entries {
                parts.push(match entry {
                    Some(entry) => emitter.ints(&[*entry]),
                    None => emitter.size(dim)?,
                });
            }
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            Ok(emitter.concat(&parts, 0))
        })
    }

    pub(super) fn transpose(&mut self, x: &str, perm: &[usize]) -> String {
        self.node("Transpose", &[x], vec![proto::ints("perm", perm)])
    }

    pub(super) fn unsqueeze(&mut self, x: &str, axes: &[i64]) -> String {
        let axes = self.ints(axes);
        self.node("Unsqueeze", &[x, &axes], vec![])
    }

    pub(super) fn concat(&mut self, parts: &[&str], axis: usize) -> String {
        self.node("Concat", parts, vec![proto::int("axis", proto::to_i64(axis))])
    }

    /// `len` entries of `axis` from `start`, or from the entry at distance `start` from the end.
    pub(super) fn slice(&mut self, x: &str, axis: usize, start: usize, len: usize, from_end: bool) -> String {
        let (start, len) = (proto::to_i64(start), proto::to_i64(len));
        let (first, end) = match (from_end, start == len) {
            (false, _) => (start, start + len),
            (true, true) => (-start, TO_END),
            (true, false) => (-start, len - start),
        };
        self.slice_range(x, axis, first, end)
    }

    fn slice_range(&mut self, x: &str, axis: usize, first: i64, end: i64) -> String {
        let (first, end) = (self.ints(&[first]), self.ints(&[end]));
        let axis = self.ints(&[proto::to_i64(axis)]);
        self.node("Slice", &[x, &first, &end, &axis], vec![])
    }

    /// One place later along axis 1. Concatenation first: a slice of the operand alone could be empty.
    pub(super) fn shift(&mut self, x: &str, init: &str) -> String {
        let longer = self.concat(&[init, x], 1);
        self.slice_range(&longer, 1, 0, -1)
    }

    /// `[B, M, D], i64 [B, k] -> [B, k, D]`.
    pub(super) fn gather_rows(&mut self, x: &str, index: &str) -> String {
        let index = self.unsqueeze(index, &[2]);
        self.node("GatherND", &[x, &index], vec![proto::int("batch_dims", 1)])
    }
}
