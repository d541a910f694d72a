//! Chunker, converter, embeddings and head: the maps between levels, written once for streams, steps and windows.

use super::ops::{Builder, Built};
use crate::model::config::{Chunker, ConverterLayout, Feedback, Slot};
use crate::model::parameters::resolve;
use photonc_graph::graph::{NodeId, Scope};
use photonc_graph::ir::attr::{BinaryFn, UnaryFn};
use photonc_graph::ir::dim::Dim;

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
        let tensors = self.config.tensors_of(l);
        let name = |part: &str| format!("levels.{tensors}.chunker.{part}");
        let each = level.chunker == Chunker::NormedEach;
        let x =
            if each { self.rms_norm(x, &name("norm.weight"), self.config.dim(l - 1), &scope)? } else { x };
        let joined = self.reshape(x, &[dims[0].clone(), units, Dim::from(width)], &scope)?;
        if each {
            let w = self.weight(&name("proj.weight"), &[level.dim, width], &scope)?;
            let mapped = self.linear(joined, w, None, &scope)?;
            return self.rms_norm(mapped, &name("out_norm.weight"), level.dim, &scope);
        }
        let Chunker::Linear { norm, bias } = level.chunker else { return Ok(joined) };
        let normed = if norm { self.rms_norm(joined, &name("norm.weight"), width, &scope)? } else { joined };
        let w = self.weight(&name("proj.weight"), &[level.dim, width], &scope)?;
        let b = if bias { Some(self.weight(&name("proj.bias"), &[level.dim], &scope)?) } else { None };
        self.linear(normed, w, b, &scope)
    }

    /// What a window begins with: the vectors of converter `U^l`, and the last of them again where a slot repeats it.
    pub fn converter(&mut self, l: usize, latent: NodeId) -> Built {
        let rows = self.prefix_rows(l, latent)?;
        if self.config.level(l).slot != Slot::Repeat {
            return Ok(rows);
        }
        let scope = level_scope(l).child("converter");
        let last = self.slice(rows, 1, self.config.level(l).prefix - 1, 1, &scope)?;
        self.concat(&[rows, last], 1, &scope)
    }

    /// Converter `U^l`: `[N, D_l] -> [N, R_l, W_l]`.
    fn prefix_rows(&mut self, l: usize, latent: NodeId) -> Built {
        let level = self.config.level(l);
        let scope = level_scope(l).child("converter");
        let (prefix, width) = (level.prefix, level.decoder_dim);
        let tensors = self.config.tensors_of(l);
        let name = |part: &str| format!("levels.{tensors}.converter.{part}");
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
            ConverterLayout::Convolved { kernel } => {
                let normed = self.rms_norm(latent, &name("norm.weight"), level.dim, &scope)?;
                let w = self.weight(&name("fanout.weight"), &[prefix * width, level.dim], &scope)?;
                let kernel = kernel.min(prefix);
                let conv = self.weight(&name("conv.weight"), &[width, 1, kernel], &scope)?;
                let w = self.convolved(w, conv, [prefix, width, kernel, level.dim], &scope)?;
                let flat = self.linear(normed, w, None, &scope)?;
                let rows = self.reshape(flat, &dims, &scope)?;
                self.rms_norm(rows, &name("out_norm.weight"), width, &scope)
            }
            ConverterLayout::Narrowed { inner } => {
                let w = self.weight(&name("proj_in.weight"), &[inner, level.dim], &scope)?;
                let narrow = self.linear(latent, w, None, &scope)?;
                let narrow = self.rms_norm(narrow, &name("norm.weight"), inner, &scope)?;
                let w = self.weight(&name("rows.weight"), &[prefix * inner, inner, 1], &scope)?;
                let w = self.reshape(w, &[prefix * inner, inner].map(Dim::from), &scope)?;
                let bias = self.weight(&name("rows.bias"), &[prefix * inner], &scope)?;
                let flat = self.linear(narrow, w, Some(bias), &scope)?;
                let [rows, ..] = dims;
                let split = self.reshape(flat, &[rows, Dim::from(prefix), Dim::from(inner)], &scope)?;
                let w = self.weight(&name("proj_out.weight"), &[width, inner], &scope)?;
                self.linear(split, w, None, &scope)
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

    /// The map `[R*W, D]` to rows, each row plus its convolution along the rows, as one map: row `r` is the sum over `i`
    /// of `conv[:, 0, i]`, and 1 where `i` is the kernel's middle, times row `r + i - kernel / 2` of the map.
    fn convolved(&mut self, map: NodeId, conv: NodeId, sizes: [usize; 4], scope: &Scope) -> Built {
        let [prefix, width, kernel, dim] = sizes;
        let middle = kernel / 2;
        let one = self.number(1.0, scope)?;
        let mut taps = Vec::with_capacity(kernel);
        for i in 0..kernel {
            let tap = self.slice(conv, 2, i, 1, scope)?;
            let tap = self.reshape(tap, &[Dim::from(width), Dim::from(1)], scope)?;
            taps.push(if i == middle { self.binary(BinaryFn::Add, tap, one, scope)? } else { tap });
        }
        let split = self.reshape(map, &[prefix, width, dim].map(Dim::from), scope)?;
        let mut rows = Vec::with_capacity(prefix);
        for r in 0..prefix {
            let row = self.slice(split, 0, r, 1, scope)?;
            rows.push(self.reshape(row, &[width, dim].map(Dim::from), scope)?);
        }
        let mut made = Vec::with_capacity(prefix);
        for r in 0..prefix {
            let mut sum = None;
            for (i, tap) in taps.iter().enumerate() {
                let Some(row) = (r + i).checked_sub(middle).and_then(|at| rows.get(at)) else { continue };
                let part = self.binary(BinaryFn::Mul, *row, *tap, scope)?;
                sum = Some(match sum {
                    Some(sum) => self.binary(BinaryFn::Add, sum, part, scope)?,
                    None => part,
                });
            }
            // The middle of the kernel always meets row `r`.
            made.push(sum.unwrap_or(rows[r]));
        }
        self.concat(&made, 0, scope)
    }

    /// Encoder-side embedding `X^0`: i64 `[B, n] -> [B, n, D_0]`.
    pub fn encoder_embedding(&mut self, ids: NodeId) -> Built {
        let scope = Scope::new("embed");
        let table = self.weight("embed.weight", &[self.config.vocab_size, self.config.embed_dim], &scope)?;
        let rows = self.gather(table, ids, &scope)?;
        if !self.config.wiring.scaled_embedding {
            return Ok(rows);
        }
        let scale = self.number((self.config.embed_dim as f64).sqrt(), &scope)?;
        self.binary(BinaryFn::Mul, rows, scale, &scope)
    }

    /// Decoder-side embedding of a drawn token: i64 `[..] -> [.., W_1]`.
    pub fn decoder_embedding(&mut self, ids: NodeId) -> Built {
        let scope = Scope::new("decoder_embed");
        let sizes = [self.config.vocab_size, self.config.level(1).decoder_dim];
        let table = self.weight("decoder_embed.weight", &sizes, &scope)?;
        self.gather(table, ids, &scope)
    }

    /// What a level-1 window reads of a token: from the table that its feedback says.
    pub fn token_feedback(&mut self, ids: NodeId) -> Built {
        match self.config.level(1).feedback {
            Feedback::Summary => self.encoder_embedding(ids),
            Feedback::Token | Feedback::Latent => self.decoder_embedding(ids),
        }
    }

    /// Head: `[.., W_1] -> [.., V]`.
    pub fn head(&mut self, x: NodeId) -> Built {
        let scope = Scope::new("lm_head");
        let sizes = [self.config.vocab_size, self.config.level(1).decoder_dim];
        let name = resolve(self.config, "lm_head.weight");
        let x = match self.config.wiring.final_norm {
            true => self.rms_norm(x, "final_norm.weight", sizes[1], &Scope::new("final_norm"))?,
            false => x,
        };
        let w = self.weight(name, &sizes, &scope)?;
        let logits = self.linear(x, w, None, &scope)?;
        let Some(cap) = self.config.wiring.softcap.map(|cap| cap.get()) else { return Ok(logits) };
        let (cap, inverse) = (self.number(cap, &scope)?, self.number(1.0 / cap, &scope)?);
        let small = self.binary(BinaryFn::Mul, logits, inverse, &scope)?;
        let small = self.unary(UnaryFn::Tanh, small, &scope)?;
        self.binary(BinaryFn::Mul, small, cap, &scope)
    }

    /// The learned start latent of level `l`, `[D_l]`: what the first chunk of a stream is conditioned on.
    pub fn start(&mut self, l: usize) -> Built {
        let scope = level_scope(l).child("start");
        self.weight(&format!("levels.{}.start", self.config.tensors_of(l)), &[self.config.dim(l)], &scope)
    }
}
