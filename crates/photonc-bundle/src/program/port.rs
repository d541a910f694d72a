//! What the values at the border of a graph are for. Owns the reading of roles off names and types, so that nobody else
//! guesses them; refuses nothing: a value that it does not know is an argument.

use super::signature::{NEXT, Signature};
use photonc_graph::ir::dim::{Bindings, Symbol};
use photonc_graph::ir::shape::Type;

/// An input or output of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Element type and shape.
    pub ty: Type,
    /// What it is for.
    pub role: PortRole,
}

/// What a value is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortRole {
    /// Token ids: given to a graph, or drawn by it.
    Ids,
    /// Meta-contexts in use, per row.
    Lengths,
    /// Uniform numbers, forced tokens, temperature, top-k or top-p of the graph's own sampler.
    Sampler,
    /// Unnormalised log-probabilities.
    Logits,
    /// Prefix vectors of the level-1 windows.
    Conditions,
    /// Replaced whole by the next step.
    State,
    /// Grows by what each step yields.
    Cache(CacheAxis),
    /// The next value of the input of this name: the whole of a state, or the new slice of a cache.
    Next(String),
    /// Any other value: cut values, a window's vector and position, states that prefill yields.
    Argument,
}

/// Where a cache grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheAxis {
    /// The axis of slots.
    pub axis: usize,
    /// Slots that one step adds: those of one meta-context, or one position of a window.
    pub units: usize,
}

impl Signature {
    /// Inputs with their roles, in the graph's order.
    #[must_use]
    pub fn input_ports(&self) -> Vec<Port> {
        let port = |(name, ty): (&String, &Type)| {
            let role = match (name.as_str(), self.cache(name)) {
                (_, Some(axis)) => PortRole::Cache(axis),
                ("ids", _) => PortRole::Ids,
                ("lengths", _) => PortRole::Lengths,
                ("uniforms" | "forced" | "temperature" | "top_k" | "top_p", _) => PortRole::Sampler,
                _ if self.next(name).is_some() => PortRole::State,
                _ => PortRole::Argument,
            };
            Port { name: name.clone(), ty: ty.clone(), role }
        };
        self.inputs.iter().map(port).collect()
    }

    /// Outputs with their roles, in the graph's order.
    #[must_use]
    pub fn output_ports(&self) -> Vec<Port> {
        let port = |(name, ty): (&String, &Type)| {
            let role = match (name.as_str(), name.strip_prefix(NEXT)) {
                (_, Some(input)) => PortRole::Next(input.to_owned()),
                ("ids", _) => PortRole::Ids,
                ("logits", _) => PortRole::Logits,
                ("conditions", _) => PortRole::Conditions,
                _ => PortRole::Argument,
            };
            Port { name: name.clone(), ty: ty.clone(), role }
        };
        self.outputs.iter().map(port).collect()
    }

    /// Type of the next value of input `name`, if the graph yields it.
    #[must_use]
    pub fn next(&self, name: &str) -> Option<&Type> {
        self.outputs.get(&format!("{NEXT}{name}"))
    }

    /// Where the input `name` grows, if it is a cache: the axis that grows with the capacity, or along which the graph
    /// yields fewer slots than it reads.
    #[must_use]
    pub fn cache(&self, name: &str) -> Option<CacheAxis> {
        let ty = self.inputs.get(name)?;
        let mut one = Bindings::default();
        one.bind(Symbol::Capacity, 1);
        if let Some(axis) = ty.shape.0.iter().position(|dim| dim.contains(Symbol::Capacity)) {
            return Some(CacheAxis { axis, units: ty.shape.0[axis].eval(&one)? });
        }
        let next = self.next(name)?;
        if next.shape.rank() != ty.shape.rank() {
            return None;
        }
        let mut differing = (0..ty.shape.rank()).filter(|axis| ty.shape.0[*axis] != next.shape.0[*axis]);
        match (differing.next(), differing.next()) {
            (Some(axis), None) => Some(CacheAxis { axis, units: next.shape.0[axis].as_const()? }),
            _ => None,
        }
    }
}

/// Sizes of the level-1 windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSizes {
    /// Prefix vectors, `R_1`.
    pub prefix: usize,
    /// Tokens of a window, `C_1`.
    pub chunk: usize,
    /// Width of the decoder, `W_1`.
    pub width: usize,
}

impl WindowSizes {
    /// The windows whose positions the graph `step` computes, and whose prefix vectors stand in values of type
    /// `conditions`; a meta-context has `meta_tokens` tokens.
    #[must_use]
    pub fn of(step: &Signature, conditions: &Type, meta_tokens: usize) -> Option<Self> {
        let [_, _, width] = &conditions.shape.0[..] else { return None };
        let width = width.as_const().filter(|width| *width > 0)?;
        let mut one = Bindings::default();
        one.bind(Symbol::Batch, 1);
        one.bind(Symbol::Meta, 1);
        let elements = conditions.shape.eval(&one)?.into_iter().try_fold(1usize, usize::checked_mul)?;
        // Prefix vectors of one meta-context.
        let vectors = elements / width;
        let slots = step.inputs.keys().find_map(|name| {
            let CacheAxis { axis, .. } = step.cache(name)?;
            step.inputs.get(name)?.shape.0[axis].as_const()
        });
        let windows = match slots {
            // A window of `R + C - 1` slots has `R` vectors and `C` tokens.
            Some(slots) => (vectors + meta_tokens) / (slots + 1),
            // A stack without layers has no cache: windows are the outer axis then.
            None => conditions.shape.0[0].eval(&one)?,
        };
        let each =
            |count: usize| count.checked_div(windows).filter(|each| *each > 0 && each * windows == count);
        let (prefix, chunk) = (each(vectors)?, each(meta_tokens)?);
        let fits = slots.is_none_or(|slots| slots + 1 == prefix + chunk);
        fits.then_some(WindowSizes { prefix, chunk, width })
    }
}

#[cfg(test)]
mod tests {
    use super::{CacheAxis, PortRole, WindowSizes};
    use crate::program::Signature;
    use photonc_graph::ir::shape::Type;

    fn signature(inputs: &[(&str, &str)], outputs: &[(&str, &str)]) -> Signature {
        let ports = |ports: &[(&str, &str)]| {
            ports.iter().map(|(name, ty)| ((*name).to_owned(), Type::parse(ty).expect("a type"))).collect()
        };
        Signature { inputs: ports(inputs), outputs: ports(outputs) }
    }

    #[test]
    fn a_cache_is_what_grows_and_a_state_what_is_replaced() {
        let inputs = [
            ("top_state", "f32[batch, 1, 8]"),
            ("a.key", "f32[batch, 1, 2*capacity, 4]"),
            ("any", "f32[batch, 1, 6, 4]"),
            ("lengths", "i64[batch]"),
        ];
        let outputs = [
            ("reconstruction", "f32[batch, 2, 8]"),
            ("next.top_state", "f32[batch, 1, 8]"),
            ("next.a.key", "f32[batch, 1, 2, 4]"),
            ("next.any", "f32[batch, 1, 1, 4]"),
        ];
        let signature = signature(&inputs, &outputs);
        let roles: Vec<PortRole> = signature.input_ports().into_iter().map(|port| port.role).collect();
        let expected = [
            PortRole::State,
            PortRole::Cache(CacheAxis { axis: 2, units: 2 }),
            PortRole::Cache(CacheAxis { axis: 2, units: 1 }),
            PortRole::Lengths,
        ];
        assert_eq!(roles, expected);
        assert_eq!(signature.output_ports()[1].role, PortRole::Next("top_state".to_owned()));
    }

    // Windows lie along the batch, or, where a meta-context is one window, beside the prefix: both are the same windows.
    #[test]
    fn sizes_of_windows_follow_from_types() {
        let step = signature(
            &[("level1.decoder.layer0.key", "f32[batch, 1, 5, 4]")],
            &[("next.level1.decoder.layer0.key", "f32[batch, 1, 1, 4]")],
        );
        let of = |text: &str, meta| WindowSizes::of(&step, &Type::parse(text).expect("a type"), meta);
        let expected = Some(WindowSizes { prefix: 2, chunk: 4, width: 8 });
        assert_eq!(of("f32[4*batch*meta, 2, 8]", 16), expected);
        assert_eq!(of("f32[batch, 2*meta, 8]", 4), expected);
        assert_eq!(of("f32[batch, 3*meta, 8]", 4), None);
    }
}
