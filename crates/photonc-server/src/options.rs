//! What a server is told at its start: where it listens, whom it lets in, and its limits. Owns the values; their words on the
//! command line are `cli`'s.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How a server runs.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Bundles by the names that clients ask for; the first answers requests that name none.
    pub bundles: Vec<(String, PathBuf)>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Path before every route, without a slash at its end: empty, or `/llm`.
    pub root_path: String,
    /// Keys of clients; without any, nobody is asked for one.
    pub api_keys: Vec<String>,
    /// Files of the certificates and of the private key, PEM.
    pub tls: Option<TlsFiles>,
    /// Origins of pages that may ask; `*` is all.
    pub cors_origins: Vec<String>,
    /// How decoders are made.
    pub engine: EngineOptions,
    /// Bounds of requests.
    pub limits: RequestLimits,
    /// How streams come.
    pub streams: StreamOptions,
    /// How long requests may go on once the server is to end.
    pub shutdown_timeout: Duration,
    /// A chat template in place of the bundles' own: its path and its text.
    pub chat_template: Option<(PathBuf, String)>,
}

/// Where a certificate is.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The chain, the server's own first.
    pub certificates: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// How decoders are made.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Fewest and most meta-contexts of a burst: few come soon, many cost less.
    pub run_ahead: (usize, usize),
    /// Most tokens of a sequence, prompt included; `None` is what the bundle has room for.
    pub max_tokens: Option<usize>,
    /// Requests that wait at most.
    pub waiting: usize,
    /// Tokens of prompts that are encoded from one burst to the next; a longer prompt goes alone.
    pub prefill_tokens: usize,
}

/// Bounds of one request and of all.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Bytes of a body.
    pub body_bytes: usize,
    /// Tokens of a prompt; `None` is what the model has room for.
    pub prompt_tokens: Option<usize>,
    /// Sequences of a request: prompts times `n`.
    pub sequences: usize,
    /// How long a request may take, waiting included.
    pub request_timeout: Option<Duration>,
    /// How long a head or a body may take to come.
    pub read_timeout: Duration,
    /// Streams at once.
    pub streams: usize,
    /// Connections at once.
    pub connections: usize,
    /// How long a trajectory is kept after it was last used.
    pub trajectory_ttl: Duration,
    /// Trajectories that are kept at most.
    pub trajectories: usize,
}

/// When the tokens of a burst are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamInterval {
    /// Evenly until the next burst is expected.
    Smooth,
    /// All at once.
    Burst,
}

/// How streams come.
#[derive(Clone, Copy, Debug)]
pub struct StreamOptions {
    /// When the tokens of a burst are sent.
    pub interval: StreamInterval,
    /// Time after which a comment is sent where there is nothing else.
    pub keep_alive: Duration,
}
