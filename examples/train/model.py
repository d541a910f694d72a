"""PHOTON's equations and a vanilla Transformer of the same blocks, in PyTorch.

Owns: the forward passes; parameters are named as in the canonical checkpoint, so a state dict *is* a checkpoint.
Refuses: chunkers other than `concat` and `linear`, and streams that are not whole meta-contexts.
Shapes: B rows, T tokens, M_l = T / (C_1 .. C_l) units of level l. Vectors are rows.
"""

import dataclasses
import functools
import math

import torch
import torch.nn.functional as F
from torch import nn


# The first logits are near zero: training starts at the uniform distribution.
HEAD_GAIN = 0.1


@dataclasses.dataclass
class Stack:
    """Sizes of one Transformer stack; `dim` is its width."""

    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int


class RmsNorm(nn.Module):
    """x * rsqrt(mean(x^2) + eps) * w, statistics in f32 or wider."""

    def __init__(self, dim, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        wide = torch.promote_types(x.dtype, torch.float32)
        return F.rms_norm(x.to(wide), x.shape[-1:], self.weight.to(wide), self.eps).to(x.dtype)


def linear(inputs, outputs, bias=False, gain=1.0):
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.normal_(layer.weight, std=gain * inputs**-0.5)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class Attention(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size = size
        self.q_proj = linear(size.dim, size.heads * size.head_dim)
        self.k_proj = linear(size.dim, size.kv_heads * size.head_dim)
        self.v_proj = linear(size.dim, size.kv_heads * size.head_dim)
        self.o_proj = linear(size.heads * size.head_dim, size.dim)

    def forward(self, x, rope):
        """x [N, S, dim] -> [N, S, dim]; causal."""
        n, s, _ = x.shape
        size = self.size
        q = rotate(self.q_proj(x).view(n, s, size.heads, size.head_dim).transpose(1, 2), rope)
        k = rotate(self.k_proj(x).view(n, s, size.kv_heads, size.head_dim).transpose(1, 2), rope)
        v = self.v_proj(x).view(n, s, size.kv_heads, size.head_dim).transpose(1, 2)
        grouped = size.heads != size.kv_heads
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        return self.o_proj(out.transpose(1, 2).reshape(n, s, -1))


@functools.lru_cache(maxsize=64)
def rope_table(positions, head_dim, theta, device):
    """(cos, sin), each [positions, head_dim / 2], in f64."""
    half = head_dim // 2
    angle = torch.arange(positions, device=device, dtype=torch.float64)[:, None] * theta ** (
        -torch.arange(half, device=device, dtype=torch.float64) / half
    )
    return angle.cos(), angle.sin()


def rotate(x, rope):
    cos, sin = (t.to(x.dtype) for t in rope)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Mlp(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.gate_proj = linear(size.dim, size.ffn)
        self.up_proj = linear(size.dim, size.ffn)
        self.down_proj = linear(size.ffn, size.dim)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, size, eps, dropout):
        super().__init__()
        self.input_layernorm = RmsNorm(size.dim, eps)
        self.self_attn = Attention(size)
        self.post_attention_layernorm = RmsNorm(size.dim, eps)
        self.mlp = Mlp(size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, rope):
        x = x + self.dropout(self.self_attn(self.input_layernorm(x), rope))
        return x + self.dropout(self.mlp(self.post_attention_layernorm(x)))


class Transformer(nn.Module):
    """A stack: layers and one final norm. Its output is after that norm."""

    def __init__(self, size, eps, theta, dropout):
        super().__init__()
        self.layers = nn.ModuleList(Layer(size, eps, dropout) for _ in range(size.layers))
        self.norm = RmsNorm(size.dim, eps)
        self.head_dim, self.theta = size.head_dim, theta
        for layer in self.layers:
            # Residual branches start small, so the depth does not set the scale of the sum.
            for out in (layer.self_attn.o_proj, layer.mlp.down_proj):
                out.weight.data.mul_((2 * size.layers) ** -0.5)

    def forward(self, x):
        # Under autocast a linear map before the stack gives bf16; the residual stream stays wide.
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        rope = rope_table(x.shape[1], self.head_dim, self.theta, x.device)
        for layer in self.layers:
            x = layer(x, rope)
        return self.norm(x)


class Chunker(nn.Module):
    """C units side by side, oldest first; `linear` then maps them to the level's width."""

    def __init__(self, spec, chunk, below, dim, eps):
        super().__init__()
        self.chunk, self.kind = chunk, spec["kind"]
        if self.kind == "linear":
            if spec["norm"]:
                self.norm = RmsNorm(chunk * below, eps)
            self.proj = linear(chunk * below, dim, spec["bias"])
        elif self.kind != "concat" or dim != chunk * below:
            raise ValueError(f"chunker {spec}: `concat` gives {chunk * below}, the level's width is {dim}")

    def forward(self, x):
        n, s, d = x.shape
        x = x.reshape(n, s // self.chunk, self.chunk * d)
        if self.kind == "concat":
            return x
        return self.proj(self.norm(x) if hasattr(self, "norm") else x)


class Converter(nn.Module):
    def __init__(self, latent, prefix, width, bias):
        super().__init__()
        self.prefix, self.width = prefix, width
        self.weight = nn.Parameter(torch.randn(prefix * width, latent) * latent**-0.5)
        if bias:
            self.bias = nn.Parameter(torch.zeros(prefix * width))

    def forward(self, x):
        """[N, latent] -> [N, R, width]"""
        return F.linear(x, self.weight, getattr(self, "bias", None)).view(-1, self.prefix, self.width)


class Level(nn.Module):
    """One level: `E = F . C` upwards and `D = G . U` downwards."""

    def __init__(self, spec, below, config, dropout):
        super().__init__()
        eps, theta = config["rms_norm_eps"], config["rope_theta"]
        names = ("layers", "heads", "kv_heads", "head_dim", "ffn")
        encoder = Stack(spec["dim"], *(spec["encoder"][n] for n in names))
        decoder = Stack(spec["decoder"]["dim"], *(spec["decoder"][n] for n in names))
        self.chunk, self.feedback = spec["chunk_size"], spec["decoder"]["feedback"]
        self.chunker = Chunker(spec["chunker"], self.chunk, below, spec["dim"], eps)
        self.encoder = Transformer(encoder, eps, theta, dropout)
        self.converter = Converter(spec["dim"], spec["prefix"], decoder.dim, spec["converter"]["bias"])
        self.decoder = Transformer(decoder, eps, theta, dropout)
        self.start = nn.Parameter(torch.randn(spec["dim"]))

    def windows(self, condition, elements=None):
        """Decodes windows: condition [N, D_l], fed-back elements [N, C-1, W] or none (latent) -> [N, C, W]."""
        prefix = self.converter(condition)
        first = prefix.shape[1] - 1
        if elements is not None:
            return self.decoder(torch.cat((prefix, elements), 1))[:, first:]
        fed = prefix
        for _ in range(self.chunk - 1):
            fed = torch.cat((fed, self.decoder(fed)[:, -1:]), 1)
        return self.decoder(fed)[:, first:]

    def shifted(self, latents):
        """Conditions of every chunk of a stream: the latent before it, the start latent first. [B, M, D] -> same."""
        start = self.start.to(latents.dtype).expand(latents.shape[0], 1, -1)
        return torch.cat((start, latents[:, :-1]), 1)


class Photon(nn.Module):
    """The model of a canonical `config.json`."""

    def __init__(self, config, dropout=0.0):
        super().__init__()
        self.config = config
        vocabulary, below = config["vocab_size"], config["embed_dim"]
        self.embed = nn.Embedding(vocabulary, below)
        self.levels = nn.ModuleList()
        for spec in config["levels"]:
            self.levels.append(Level(spec, below, config, dropout))
            below = spec["dim"]
        if any(level.feedback == "token" for level in self.levels):
            self.decoder_embed = nn.Embedding(vocabulary, config["decoder_embed_dim"])
        self.lm_head = linear(config["levels"][0]["decoder"]["dim"], vocabulary, gain=HEAD_GAIN)
        self.meta = math.prod(level.chunk for level in self.levels)

    def encode(self, tokens):
        """tokens [B, T] -> [X^0, .., X^L], X^l [B, M_l, D_l]"""
        states = [self.embed(tokens)]
        for level in self.levels:
            states.append(level.encoder(level.chunker(states[-1])))
        return states

    def reconstruct(self, top):
        """The decoder-side cascade of a whole stream above the tokens: X^L [B, M_L, D_L] -> [.., Xhat^{L-1}, Xhat^L],
        index l holds Xhat^l and index 0 nothing."""
        states = [None] * len(self.levels) + [top]
        for i in range(len(self.levels) - 1, 0, -1):
            level = self.levels[i]
            condition = level.shifted(states[i + 1])
            out = level.windows(condition.flatten(0, 1))
            states[i] = out.reshape(top.shape[0], -1, out.shape[-1])
        return states

    def read_out(self, condition, tokens):
        """Logits of whole chunks: level-1 conditions [N, D_1], their true tokens [N, C_1] -> Xhat^0 [N, C_1, W]."""
        level = self.levels[0]
        fed = self.decoder_embed(tokens[:, :-1]) if level.feedback == "token" else None
        return level.windows(condition, fed)

    def forward(self, tokens):
        """Teacher-forced forward: tokens [B, T] -> (logits [B, T, V], X, Xhat)."""
        if tokens.shape[1] % self.meta:
            raise ValueError(f"{tokens.shape[1]} tokens are not whole meta-contexts of {self.meta}")
        states = self.encode(tokens)
        recon = self.reconstruct(states[-1])
        recon[0] = self.bottom(recon[1], tokens)
        return self.lm_head(recon[0]), states, recon

    def bottom(self, latents, tokens):
        """Xhat^0 [B, T, W] of a stream from Xhat^1 [B, M_1, D_1]."""
        level = self.levels[0]
        condition = level.shifted(latents).flatten(0, 1)
        out = self.read_out(condition, tokens.reshape(-1, level.chunk))
        return out.reshape(tokens.shape[0], -1, out.shape[-1])

    def advance_open_loop(self, units, carries, steps):
        """The coarse recurrence of RecGen: no token is read.

        units: chunker outputs of the top level so far [B, m, .]; carries: Xhat^l of the last meta-context's end for
        1 <= l < L, index l. Returns (conditions of level 1 [B, steps * n_1, D_1], top states [B, steps, D_L],
        Xhat^{L-1} [B, steps, C_L, .]).
        """
        top, carries = self.levels[-1], list(carries)
        conditions, tops, coarse = [], [], []
        for _ in range(steps):
            state = top.encoder(units)[:, -1]
            tops.append(state)
            condition, latents = self.expand(state, carries)
            conditions.append(condition)
            coarse.append(latents)
            units = torch.cat((units, top.chunker(latents)), 1)
        return torch.cat(conditions, 1), torch.stack(tops, 1), torch.stack(coarse, 1)

    def expand(self, state, carries):
        """One meta-context from its top state [B, D_L]: level-1 conditions [B, n_1, D_1] and Xhat^{L-1} [B, C_L, .].
        Writes the new carries."""
        condition, coarse = state[:, None], None
        for i in range(len(self.levels) - 1, 0, -1):
            out = self.levels[i].windows(condition.flatten(0, 1))
            latents = out.reshape(state.shape[0], -1, out.shape[-1])
            coarse = latents if coarse is None else coarse
            condition = torch.cat((carries[i][:, None], latents[:, :-1]), 1)
            carries[i] = latents[:, -1]
        return condition, coarse

    def prefill(self, tokens):
        """Aligned prompt [B, T] -> (states X^l, carries by level)."""
        states = self.encode(tokens)
        recon = self.reconstruct(states[-1])
        return states, [None] + [recon[i][:, -1] for i in range(1, len(self.levels))]


class Vanilla(nn.Module):
    """The yardstick: a decoder-only Transformer of the same blocks, untied head."""

    def __init__(self, config, dropout=0.0):
        super().__init__()
        self.config = config
        size = Stack(config["dim"], config["layers"], config["heads"], config["heads"], config["head_dim"], config["ffn"])
        self.embed = nn.Embedding(config["vocab_size"], size.dim)
        self.stack = Transformer(size, config["rms_norm_eps"], config["rope_theta"], dropout)
        self.lm_head = linear(size.dim, config["vocab_size"], gain=HEAD_GAIN)
        self.meta = 1

    def forward(self, tokens):
        """tokens [B, T] -> logits [B, T, V]; position t predicts token t + 1."""
        return self.lm_head(self.stack(self.embed(tokens)))
