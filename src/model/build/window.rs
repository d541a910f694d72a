//! Decoder windows (PHOTON section 3.3): `[U_0 .. U_{R-1}, y_1 .. y_{C-1}]`, unrolled, because element `j+1` reads
//! what element `j` became. Positions are constants, restarting at 0 in every window.

use super::ops::{Builder, Built};
use super::stack::{Past, Stack};
use crate::graph::{BuildError, NodeId};
use crate::ir::dim::Dim;

impl Builder<'_> {
    /// Windows of level `l` from prefix vectors `[N, R, W]` to their elements `[N, C, W]`. `feed` turns element `j`
    /// (from 0, `[N, 1, W]`) into the vector the next position reads; what it returns for the last is not used.
    pub fn window(
        &mut self,
        l: usize,
        prefix: NodeId,
        mut feed: impl FnMut(&mut Self, usize, NodeId) -> Built,
    ) -> Built {
        let level = self.config.level(l);
        let stack = self.decoder(l);
        let positions = self.positions(0, level.prefix, &stack.scope)?;
        let (hidden, mut kv) = self.stack(&stack, prefix, positions, Past::None)?;
        let mut element = self.slice(hidden, 1, level.prefix - 1, 1, &stack.scope)?;
        let mut elements = vec![element];
        let mut next = feed(self, 0, element)?;
        for j in 1..level.chunk_size {
            let position = self.positions(level.prefix + j - 1, 1, &stack.scope)?;
            (element, kv) = self.stack(&stack, next, position, Past::Window(&kv))?;
            elements.push(element);
            next = feed(self, j, element)?;
        }
        self.concat(&elements, 1, &stack.scope)
    }

    /// Windows that read their own outputs: latents `[N, D_l]` to elements `[N, C_l, W_l]`.
    pub fn latent_window(&mut self, l: usize, latent: NodeId) -> Built {
        let prefix = self.converter(l, latent)?;
        self.window(l, prefix, |_, _, element| Ok(element))
    }

    /// Windows whose fed-back vectors `[N, C-1, W]` are all known: one causal pass instead of `C`.
    pub fn known_window(
        &mut self,
        l: usize,
        prefix: NodeId,
        known: Option<NodeId>,
    ) -> Result<NodeId, BuildError> {
        let level = self.config.level(l);
        let stack: Stack = self.decoder(l);
        let parts: Vec<NodeId> = [prefix].into_iter().chain(known).collect();
        let all = self.concat(&parts, 1, &stack.scope)?;
        let positions = self.positions(0, level.prefix + level.chunk_size - 1, &stack.scope)?;
        let (hidden, _) = self.stack(&stack, all, positions, Past::None)?;
        self.slice(hidden, 1, level.prefix - 1, level.chunk_size, &stack.scope)
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
