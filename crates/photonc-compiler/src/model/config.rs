//! A PHOTON model's shape: every choice that PHOTON.md leaves open, resolved. Owns the structures; parsing a
//! checkpoint's own `config.json` into them belongs to `dialect`.

use photonc_graph::ir::attr::{Real, Scores};

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
    /// What conditions what, and what stands around the levels.
    pub wiring: Wiring,
}

/// Choices of the whole model that have no size; the default is the paper's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wiring {
    /// What a decoder window is conditioned on.
    pub condition: Condition,
    /// Whether encoder-side embeddings are multiplied by the root of their width.
    pub scaled_embedding: bool,
    /// Whether an RMSNorm stands before the head.
    pub final_norm: bool,
    /// `c` of `c * tanh(logits / c)`.
    pub softcap: Option<Real>,
    /// Whether every level between the first and the last has the tensors of the second.
    pub tied_middle: bool,
    /// Whether the head is the table that the level-1 decoder reads tokens from.
    pub tied_decoder_head: bool,
    /// Whether the forward that a model is trained by yields the logits of a token where the token before it is read, over
    /// the border of windows too.
    pub shifted_labels: bool,
    /// Layers of the stack that predicts the top state of a unit from those before it, in the place of the encoder's under
    /// RecGen; otherwise of the form of the top encoder.
    pub predictor: Option<usize>,
}

impl Default for Wiring {
    fn default() -> Self {
        Wiring {
            condition: Condition::Carried,
            scaled_embedding: false,
            final_norm: false,
            softcap: None,
            tied_middle: false,
            tied_decoder_head: false,
            shifted_labels: false,
            predictor: None,
        }
    }
}

/// What the window of a chunk is conditioned on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// At every level the reconstruction of the unit *before* the chunk's own, carried over meta-contexts (PHOTON.md
    /// section 4).
    Carried,
    /// At the top the state before the chunk's own; below, the estimate of that very unit, made just before.
    Estimate,
    /// At every level the encoder's state of the unit before the chunk's own, so that tokens depend on level 1 alone. RecGen,
    /// which encodes none, carries reconstructions on.
    State,
    /// As `Carried` within a meta-context, whose first chunk is conditioned on the encoder's state of the one before. RecGen
    /// predicts top states by a stack of their own, and carries on what each will be spelled out as first.
    Predicted,
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
    /// What stands between the prefix of a window and its elements.
    pub slot: Slot,
    /// Whether elements are the decoder's outputs times a matrix.
    pub projection: bool,
    /// What a window position reads of the element before it.
    pub feedback: Feedback,
    /// Positions that every layer of the encoder sees, below the top; replaces the stack's own window.
    pub encoder_window: Option<usize>,
    /// Whether the decoder has one sequence over all chunks instead of windows, seen so many positions back.
    pub stream: Option<usize>,
}

/// Chunker `C^l` (PHOTON.md section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunker {
    /// The concatenation itself; `D_l = C_l * D_{l-1}`.
    Concat,
    /// RMSNorm of each vector by itself, the concatenation, a linear map without bias, RMSNorm of the result.
    NormedEach,
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
    /// RMSNorm, a linear map `[R*W, D]` read as R rows, plus their convolution along the rows, each channel by itself,
    /// RMSNorm of each row. The kernel is as long as this or as the rows, whichever is shorter.
    Convolved {
        /// Rows that a kernel spans at most.
        kernel: usize,
    },
    /// A linear map `[I, D]`, RMSNorm, a linear map `[R*I, I]` with bias read as R rows, and one `[W, I]` of each row.
    Narrowed {
        /// Width between the maps, `I`.
        inner: usize,
    },
}

/// What stands between the prefix of a window and its elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slot {
    /// Nothing: the first element is the output at the last prefix vector.
    #[default]
    None,
    /// The last prefix vector again.
    Repeat,
    /// Each element is the output at a place that reads zero; elements after it see the element there.
    Zero,
}

/// What a window position reads of the element before it (PHOTON.md section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feedback {
    /// The decoder's own output.
    Latent,
    /// The embedding of the drawn token (level 1 only), from a table of the decoder's own.
    Token,
    /// What the protocol makes of the finished unit; at level 1 the encoder-side embedding of the drawn token.
    Summary,
}

/// Shape of one stack of Transformer blocks.
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
    /// What differs from a LLaMA block.
    pub options: StackOptions,
}

/// What a stack has beside, or instead of, the parts of a LLaMA block (PHOTON.md section 2); the default is none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct StackOptions {
    /// Epsilon of the norms around layers and of the last one, where it is not the model's.
    pub norm_eps: Option<Real>,
    /// Base of the rotary frequencies, where it is not the model's.
    pub theta: Option<Real>,
    /// Which channels of a head are rotated.
    pub rotation: Rotation,
    /// RMSNorm of every head of queries and keys before rotation.
    pub qk_norm: bool,
    /// Positions that attention sees, its own among them.
    pub window: Option<usize>,
    /// Of so many layers the last sees everything; 0: none does.
    pub full_every: usize,
    /// A logit of each head that joins the softmax without a value.
    pub sinks: bool,
    /// A gate of each head, `2 * sigmoid` of a linear map of the layer's normed input.
    pub output_gate: bool,
    /// Factor of scores, where it is not the inverse root of the head's width.
    pub softmax_scale: Option<Real>,
    /// Learned factors of the residual and of what is added to it, each channel by itself.
    pub residual_scales: bool,
    /// Keys and values made of a latent.
    pub latent: Option<LatentAttention>,
    /// Experts in the place of the MLP.
    pub experts: Option<ExpertConfig>,
}

/// Which channels of a head RoPE rotates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Rotation {
    /// All of them.
    #[default]
    All,
    /// So many, an even number, from the first on.
    First(usize),
    /// None: attention knows no positions.
    None,
}

/// Attention whose keys and values are made of one latent a position (MLA). A head of queries and keys is `nope` channels
/// that are not rotated, then `rope` that are; those of keys are shared by all heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatentAttention {
    /// Width that queries are made from; `None`: from the layer's input.
    pub query_rank: Option<usize>,
    /// Width of the latent.
    pub kv_rank: usize,
    /// Channels of a head that are not rotated.
    pub nope: usize,
    /// Channels of a head that are rotated; even.
    pub rope: usize,
    /// Width of a head of values.
    pub value: usize,
}

/// Expert feed-forward layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertConfig {
    /// First layer that has experts; those before it have an MLP.
    pub first_layer: usize,
    /// Number of experts.
    pub count: usize,
    /// Experts that a position chooses.
    pub top_k: usize,
    /// Hidden width of an expert.
    pub inner: usize,
    /// Hidden width of the expert that every position has; 0: there is none.
    pub shared: usize,
    /// Scores of a router's logits.
    pub scores: Scores,
    /// Whether a bias is added for the choice.
    pub bias: bool,
    /// Whether gates are divided by their sum.
    pub normalize: bool,
    /// Factor of gates.
    pub factor: Real,
    /// Groups of experts.
    pub groups: usize,
    /// Groups that stand to choice.
    pub kept_groups: usize,
}

impl StackConfig {
    /// Width of a head of values.
    #[must_use]
    pub fn value_dim(&self) -> usize {
        self.options.latent.map_or(self.head_dim, |latent| latent.value)
    }

    /// Channels of a head that are rotated, from the first on; those of a latent's keys stand last.
    #[must_use]
    pub fn rotated(&self) -> usize {
        match (self.options.rotation, self.options.latent) {
            (Rotation::None, _) => 0,
            (_, Some(latent)) => latent.rope,
            (Rotation::All, None) => self.head_dim,
            (Rotation::First(count), None) => count,
        }
    }

    /// Experts of a layer, if it has them.
    #[must_use]
    pub fn experts_of(&self, layer: usize) -> Option<ExpertConfig> {
        self.options.experts.filter(|experts| layer >= experts.first_layer)
    }

    /// Positions that a layer sees; `None`: all.
    #[must_use]
    pub fn window_of(&self, layer: usize) -> Option<usize> {
        let every = self.options.full_every;
        let is_full = every > 0 && (layer + 1).is_multiple_of(every);
        self.options.window.filter(|_| !is_full)
    }
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

    /// Index of the level whose tensors level `l` has, from 0.
    #[must_use]
    pub fn tensors_of(&self, l: usize) -> usize {
        let is_middle = l > 1 && l < self.depth();
        if self.wiring.tied_middle && is_middle { 1 } else { l - 1 }
    }

    /// Whether level `l` has a start latent that is read.
    #[must_use]
    pub fn has_start(&self, l: usize) -> bool {
        self.wiring.condition != Condition::Estimate || l == self.depth()
    }

    /// Rows of a window before the place whose output is its first element, that place included.
    #[must_use]
    pub fn opening(&self, l: usize) -> usize {
        let level = self.level(l);
        level.prefix + usize::from(level.slot == Slot::Repeat)
    }

    /// The stack that predicts top states, if there is one.
    #[must_use]
    pub fn predictor(&self) -> Option<StackConfig> {
        let layers = self.wiring.predictor?;
        Some(StackConfig { layers, ..self.level(self.depth()).encoder })
    }

    /// Whether RecGen is defined: the top chunker must accept the reconstruction's width (PHOTON.md section 5).
    #[must_use]
    pub fn recgen_defined(&self) -> bool {
        let top = self.level(self.depth());
        match self.wiring.condition {
            // Its reconstructions stand for states of level 1 alone.
            Condition::State => self.depth() == 2,
            Condition::Predicted => true,
            Condition::Carried | Condition::Estimate => top.decoder_dim == self.dim(self.depth() - 1),
        }
    }
}
