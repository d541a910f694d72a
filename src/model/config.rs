//! A PHOTON model's shape: every choice that PHOTON.md leaves open, resolved. Owns the structures; parsing a
//! checkpoint's own `config.json` into them belongs to `dialect`.

/// Shape of one model, bottom level first (`levels[0]` is level 1).
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Number of token ids, `V`.
    pub vocab_size: usize,
    /// Width of encoder-side token embeddings, `D_0`.
    pub embed_dim: usize,
    /// Whether the head is the embedding table of width `W_1` (no tensor of its own).
    pub tied_head: bool,
    /// Epsilon of every RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Tokens the model was trained for; advisory, and 0 where the checkpoint does not say.
    pub max_position_embeddings: usize,
    /// Levels above the tokens, bottom first; never empty.
    pub levels: Vec<LevelConfig>,
}

/// Shape of one level: what folds `chunk_size` units of the level below into one, and back.
#[derive(Clone, Debug, PartialEq)]
pub struct LevelConfig {
    /// Units of the level below in one unit of this level, `C_l`.
    pub chunk_size: usize,
    /// Width of the encoder states, `D_l`.
    pub dim: usize,
    /// Prefix vectors made by the converter, `R_l`.
    pub prefix: usize,
    /// How a chunk becomes one vector.
    pub chunker: Chunker,
    /// Encoder stack, of width `dim`.
    pub encoder: StackConfig,
    /// How a latent becomes prefix vectors.
    pub converter: Converter,
    /// Decoder stack, of width `decoder_dim`.
    pub decoder: StackConfig,
    /// Width of the decoder, `W_l`.
    pub decoder_dim: usize,
    /// What a window position reads of the element before it.
    pub feedback: Feedback,
}

/// Chunker `C^l` (PHOTON.md section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunker {
    /// The concatenation itself; `D_l = C_l * D_{l-1}`.
    Concat,
    /// Optional RMSNorm over the concatenation, then a linear map with optional bias.
    Linear {
        /// RMSNorm over the concatenation.
        norm: bool,
        /// Bias of the linear map.
        bias: bool,
    },
}

/// Converter `U^l` (PHOTON.md section 4): one latent to `R_l` vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Converter {
    /// How the weight is stored.
    pub layout: ConverterLayout,
    /// Whether there is a bias.
    pub bias: bool,
}

/// Storage of a converter's weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConverterLayout {
    /// Weight `[R*W, D]`, bias `[R*W]`.
    Linear,
    /// `ConvTranspose1d` with kernel = stride = R: weight `[D, W, R]`, bias `[W]` shared by the rows.
    ConvTranspose,
}

/// What a window position reads of the element before it (PHOTON.md section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feedback {
    /// The decoder's own output.
    Latent,
    /// The embedding of the drawn token (level 1 only).
    Token,
}

/// Shape of one LLaMA-style stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackConfig {
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Hidden width of the MLP.
    pub ffn: usize,
}

impl ModelConfig {
    /// Number of levels above the tokens, `L`.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.levels.len()
    }

    /// Level `l` in `1..=L`.
    #[must_use]
    pub fn level(&self, l: usize) -> &LevelConfig {
        &self.levels[l - 1]
    }

    /// Width of encoder states at level `l` in `0..=L`, `D_l`.
    #[must_use]
    pub fn dim(&self, l: usize) -> usize {
        if l == 0 { self.embed_dim } else { self.level(l).dim }
    }

    /// Level-`l` units in a meta-context, `n_l = C_{l+1} ... C_L`; `n_0` is the tokens of a meta-context.
    #[must_use]
    pub fn units(&self, l: usize) -> usize {
        self.levels[l..].iter().map(|level| level.chunk_size).product()
    }

    /// Tokens in a meta-context, `C<=L`.
    #[must_use]
    pub fn meta_tokens(&self) -> usize {
        self.units(0)
    }

    /// Whether RecGen is defined: the top chunker must accept the reconstruction's width (PHOTON.md section 5).
    #[must_use]
    pub fn recgen_defined(&self) -> bool {
        let top = self.level(self.depth());
        top.decoder_dim == self.dim(self.depth() - 1)
    }
}
