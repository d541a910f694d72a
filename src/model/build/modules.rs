//! Chunker, converter, embeddings and head: the maps between levels, written once for streams, steps and windows.

use super::ops::{Builder, Built};
use crate::graph::{NodeId, Scope};
use crate::ir::attr::BinaryFn;
use crate::ir::dim::Dim;
use crate::model::config::{Chunker, ConverterLayout};

/// Scope of level `l`.
pub(super) fn level_scope(l: usize) -> Scope {
    Scope::new(&format!("level{l}"))
}

impl Builder<'_> {
    /// Chunker `C^l`: `[B, k*C_l, D_{l-1}] -> [B, k, D_l]`, the vectors of a chunk side by side, oldest first.
    pub fn chunker(&mut self, l: usize, x: NodeId) -> Built {
        let level = self.config.level(l);
        let scope = level_scope(l).child("chunker");
        let dims = self.graph.ty(x).shape.0.clone();
        let width = level.chunk_size * self.config.dim(l - 1);
        let Some(units) = dims[1].divided_by(&Dim::from(level.chunk_size)) else {
            // Shapes are the builder's own; this reshape reports the contradiction with its place.
            return self.reshape(x, &[dims[0].clone(), Dim::from(width)], &scope);
        };
        let joined = self.reshape(x, &[dims[0].clone(), units, Dim::from(width)], &scope)?;
        let Chunker::Linear { norm, bias } = level.chunker else { return Ok(joined) };
        let name = |part: &str| format!("levels.{}.chunker.{part}", l - 1);
        let normed = if norm { self.rms_norm(joined, &name("norm.weight"), width, &scope)? } else { joined };
        let w = self.weight(&name("proj.weight"), &[level.dim, width], &scope)?;
        let b = if bias { Some(self.weight(&name("proj.bias"), &[level.dim], &scope)?) } else { None };
        self.linear(normed, w, b, &scope)
    }

    /// Converter `U^l`: `[N, D_l] -> [N, R_l, W_l]`.
    pub fn converter(&mut self, l: usize, latent: NodeId) -> Built {
        let level = self.config.level(l);
        let scope = level_scope(l).child("converter");
        let (prefix, width) = (level.prefix, level.decoder_dim);
        let name = |part: &str| format!("levels.{}.converter.{part}", l - 1);
        let rows = self.graph.ty(latent).shape.0[0].clone();
        let dims = [rows, Dim::from(prefix), Dim::from(width)];
        match level.converter.layout {
            ConverterLayout::Linear => {
                let w = self.weight(&name("weight"), &[prefix * width, level.dim], &scope)?;
                let bias = match level.converter.bias {
                    true => Some(self.weight(&name("bias"), &[prefix * width], &scope)?),
                    false => None,
                };
                let flat = self.linear(latent, w, bias, &scope)?;
                self.reshape(flat, &dims, &scope)
            }
            ConverterLayout::ConvTranspose => {
                let stored = self.weight(&name("weight"), &[level.dim, width, prefix], &scope)?;
                let turned = self.transpose(stored, &[2, 1, 0], &scope)?;
                let w = self.reshape(turned, &[Dim::from(prefix * width), Dim::from(level.dim)], &scope)?;
                let flat = self.linear(latent, w, None, &scope)?;
                let rows = self.reshape(flat, &dims, &scope)?;
                if !level.converter.bias {
                    return Ok(rows);
                }
                let bias = self.weight(&name("bias"), &[width], &scope)?;
                self.binary(BinaryFn::Add, rows, bias, &scope)
            }
        }
    }

    /// Encoder-side embedding `X^0`: i64 `[B, n] -> [B, n, D_0]`.
    pub fn encoder_embedding(&mut self, ids: NodeId) -> Built {
        let scope = Scope::new("embed");
        let table = self.weight("embed.weight", &[self.config.vocab_size, self.config.embed_dim], &scope)?;
        self.gather(table, ids, &scope)
    }

    /// Decoder-side embedding of a drawn token: i64 `[..] -> [.., W_1]`.
    pub fn decoder_embedding(&mut self, ids: NodeId) -> Built {
        let scope = Scope::new("decoder_embed");
        let sizes = [self.config.vocab_size, self.config.level(1).decoder_dim];
        let table = self.weight("decoder_embed.weight", &sizes, &scope)?;
        self.gather(table, ids, &scope)
    }

    /// Head: `[.., W_1] -> [.., V]`.
    pub fn head(&mut self, x: NodeId) -> Built {
        let scope = Scope::new("lm_head");
        let sizes = [self.config.vocab_size, self.config.level(1).decoder_dim];
        let name = if self.config.tied_head { "embed.weight" } else { "lm_head.weight" };
        let w = self.weight(name, &sizes, &scope)?;
        self.linear(x, w, None, &scope)
    }

    /// The learned start latent of level `l`, `[D_l]`: what the first chunk of a stream is conditioned on.
    pub fn start(&mut self, l: usize) -> Built {
        let scope = level_scope(l).child("start");
        self.weight(&format!("levels.{}.start", l - 1), &[self.config.dim(l)], &scope)
    }
}
