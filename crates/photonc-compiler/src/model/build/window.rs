//! Decoder windows (PHOTON section 3.3): `[U_0 .. U_{R-1}, y_1 .. y_{C-1}]`, unrolled, because element `j+1` reads
//! what element `j` became. Positions are constants, restarting at 0 in every window. What a slot adds to the prefix is part
//! of it here: see `Builder::converter`.

use super::ops::{Builder, Built};
use super::stack::{KeyValue, Past, Stack};
use crate::model::config::Slot;
use photonc_graph::graph::{BuildError, NodeId, Scope};
use photonc_graph::ir::attr::BinaryFn;
use photonc_graph::ir::dim::Dim;

impl Builder<'_> {
    /// Windows of level `l` from prefix vectors `[N, R, W]` to their elements `[N, C, W]`. `feed` turns element `j`
    /// (from 0, `[N, 1, W]`) into the vector the next position reads; what it returns for the last is not used.
    pub fn window(
        &mut self,
        l: usize,
        prefix: NodeId,
        mut feed: impl FnMut(&mut Self, usize, NodeId) -> Built,
    ) -> Built {
        let (level, opening, stack) = (self.config.level(l), self.config.opening(l), self.decoder(l));
        let (mut element, mut kv) = self.opened(l, &stack, prefix)?;
        let mut elements = vec![element];
        let mut next = feed(self, 0, element)?;
        for j in 1..level.chunk_size {
            let position = self.positions(opening + j - 1, 1, &stack.scope)?;
            let hidden;
            (hidden, kv) = self.stack(&stack, next, position, Past::Window(&kv))?;
            element = self.element(l, &stack, [prefix, hidden], opening + j, &kv)?;
            elements.push(element);
            next = feed(self, j, element)?;
        }
        self.concat(&elements, 1, &stack.scope)
    }

    /// The first element of windows, and what later places see of their opening.
    fn opened(
        &mut self,
        l: usize,
        stack: &Stack,
        prefix: NodeId,
    ) -> Result<(NodeId, Vec<KeyValue>), BuildError> {
        let opening = self.config.opening(l);
        let positions = self.positions(0, opening, &stack.scope)?;
        let (hidden, kv) = self.stack(stack, prefix, positions, Past::None)?;
        let last = self.slice(hidden, 1, opening - 1, 1, &stack.scope)?;
        Ok((self.element(l, stack, [prefix, last], opening, &kv)?, kv))
    }

    /// The element that follows `places` places, of whose last `hidden` is the output; `prefix` is any vectors of the window.
    fn element(
        &mut self,
        l: usize,
        stack: &Stack,
        [prefix, hidden]: [NodeId; 2],
        places: usize,
        kv: &[KeyValue],
    ) -> Built {
        let level = self.config.level(l);
        let out = match level.slot {
            Slot::None | Slot::Repeat => hidden,
            Slot::Zero => {
                let zeros = self.zero_vectors(prefix, &stack.scope)?;
                let position = self.positions(places, 1, &stack.scope)?;
                self.stack(stack, zeros, position, Past::Window(kv))?.0
            }
        };
        self.projected_element(l, stack, out)
    }

    /// A vector of zeros for each window, `[N, 1, W]`; `prefix` is any vectors of theirs.
    pub fn zero_vectors(&mut self, prefix: NodeId, scope: &Scope) -> Built {
        let any = self.slice(prefix, 1, 0, 1, scope)?;
        let zero = self.number(0.0, scope)?;
        self.binary(BinaryFn::Mul, any, zero, scope)
    }

    fn projected_element(&mut self, l: usize, stack: &Stack, out: NodeId) -> Built {
        let level = self.config.level(l);
        if !level.projection {
            return Ok(out);
        }
        let name = format!("{}.proj.weight", stack.tensors);
        let w = self.weight(&name, &[level.decoder_dim, level.decoder_dim], &stack.scope)?;
        self.linear(out, w, None, &stack.scope)
    }

    /// The first elements of windows `[N, D_l] -> [N, 1, W_l]`.
    pub fn first_element(&mut self, l: usize, latent: NodeId) -> Built {
        let prefix = self.converter(l, latent)?;
        Ok(self.opened(l, &self.decoder(l), prefix)?.0)
    }

    /// Windows that read their own outputs: latents `[N, D_l]` to elements `[N, C_l, W_l]`.
    pub fn latent_window(&mut self, l: usize, latent: NodeId) -> Built {
        let prefix = self.converter(l, latent)?;
        self.window(l, prefix, |_, _, element| Ok(element))
    }

    /// Windows whose fed-back vectors are all known: one causal pass instead of `C`. They are `[N, C-1, W]`, and `[N, C, W]` of
    /// a window whose outputs are read a place later: where a slot is zero, or labels are shifted.
    pub fn known_window(
        &mut self,
        l: usize,
        prefix: NodeId,
        known: Option<NodeId>,
    ) -> Result<NodeId, BuildError> {
        let (level, opening) = (self.config.level(l), self.config.opening(l));
        let stack: Stack = self.decoder(l);
        let parts: Vec<NodeId> = [prefix].into_iter().chain(known).collect();
        let all = self.concat(&parts, 1, &stack.scope)?;
        let places =
            self.graph.ty(all).shape.0[1].as_const().expect("invariant: windows have constant sizes");
        let positions = self.positions(0, places, &stack.scope)?;
        let (hidden, _) = self.stack(&stack, all, positions, Past::None)?;
        let first = places - level.chunk_size;
        debug_assert!(first == opening || first + 1 == opening, "outputs follow the opening");
        let elements = self.slice(hidden, 1, first, level.chunk_size, &stack.scope)?;
        self.projected_element(l, &stack, elements)
    }

    /// `[B, k, D] -> [B*k, D]`: the rows a batch of windows is conditioned on.
    pub fn window_rows(&mut self, l: usize, latents: NodeId) -> Built {
        let scope = super::modules::level_scope(l);
        let dims = self.graph.ty(latents).shape.0.clone();
        self.reshape(latents, &[dims[0].times(&dims[1]), dims[2].clone()], &scope)
    }

    /// `[B*k, C, W] -> [B, k*C, W]`: elements of consecutive windows as one stream per row; `rows` is `B`.
    pub fn window_stream(&mut self, l: usize, elements: NodeId, rows: &Dim) -> Built {
        let scope = super::modules::level_scope(l);
        let dims = self.graph.ty(elements).shape.0.clone();
        let windows = dims[0].divided_by(rows).unwrap_or_else(|| Dim::from(1));
        self.reshape(elements, &[rows.clone(), windows.times(&dims[1]), dims[2].clone()], &scope)
    }
}
