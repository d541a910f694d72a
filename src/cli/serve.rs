//! `photonc serve`: bundles behind OpenAI's interfaces. Owns the options, the signals that end or reload the server, the log,
//! and how a bundle comes to run on the backend that was asked for.

mod options;

use super::backends::BackendArgs;
use super::rows::{Batch, DEFAULT_RESERVE_MIB, count};
use super::{Failure, Reporter, signals};
use crate::api::{GPU_ROWS, HOST_ROWS};
use crate::bundle::Bundle;
use crate::inspect::source::subject_title;
use crate::runtime::decoder::DecoderSetup;
use crate::runtime::generator::Generator;
use crate::runtime::plan::Program;
use crate::server::engine::{Backends, Opened};
use crate::server::options::{EngineOptions, RequestLimits, ServeOptions, StreamOptions, TlsFiles};
use crate::server::{Server, ServerError};
use options::{LimitArgs, LogArgs, NetworkArgs, run_ahead, text};
use serde_json::json;
use std::error::Error as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Tokens of prompts that are encoded from one burst to the next where `--max-prefill-tokens` does not say: on a GPU as many
/// as one run of the encoder takes.
const GPU_PREFILL_TOKENS: usize = 1 << 16;
/// The same on the host: a fraction of a second for a small model.
const HOST_PREFILL_TOKENS: usize = 1 << 12;

/// Serve bundles over HTTP, as OpenAI's clients ask
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directories of the bundles; the first answers requests that name no model
    #[arg(required = true)]
    bundles: Vec<PathBuf>,
    #[command(flatten)]
    backend: BackendArgs,
    /// Sequences side by side on each GPU, or in all on the host; `max`: as many as fit a GPU [default: 128 on GPUs, 16 on
    /// the host]
    #[arg(long, visible_alias = "max-rows", value_name = "N")]
    batch: Option<Batch>,
    /// Device memory to leave free under `--batch max`, in MiB
    #[arg(long, value_name = "MIB", default_value_t = DEFAULT_RESERVE_MIB)]
    reserve: usize,
    /// Meta-contexts of a burst: the fewest while little is to do, the most where requests wait; one number for both
    #[arg(long, value_name = "MIN..MAX", default_value = "1..8", value_parser = run_ahead)]
    run_ahead: (usize, usize),
    /// Most tokens of prompts that are encoded from one burst to the next, so that streams go on between the prompts of others;
    /// a longer prompt goes alone [default: 65536 on GPUs, 4096 on the host]
    #[arg(long, value_name = "N", value_parser = count)]
    max_prefill_tokens: Option<usize>,
    /// Most tokens of a sequence, prompt included [default: the bundle's longest]
    #[arg(long, value_name = "N", value_parser = count)]
    max_tokens: Option<usize>,
    /// Names of the models, in the order of the bundles [default: the names of their directories]
    #[arg(long, value_name = "NAME")]
    served_model_name: Vec<String>,
    /// Jinja file in place of the bundles' chat templates
    #[arg(long, value_name = "FILE")]
    chat_template: Option<PathBuf>,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    log: LogArgs,
}

pub fn run(args: &Args, reporter: &Reporter) -> Result<(), Failure> {
    args.backend.check()?;
    args.log.start(reporter);
    let options = args.options()?;
    if !args.network.host.is_loopback() && options.api_keys.is_empty() {
        reporter.note("whoever reaches this address may use the server; --api-key-file asks for a key");
    }
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    let root_path = options.root_path.clone();
    let loading = Loading {
        backend: args.backend.clone(),
        rows: args.batch,
        reserve: args.reserve,
        reporter: *reporter,
    };
    let server = Server::bind(options, Arc::new(loading))?;
    let at = format!("{scheme}://{}{root_path}", server.address()?);
    signals::drain(server.control());
    // A program that waits for this line knows the port.
    match reporter.json() {
        true => reporter.document(&json!({"listening": at}))?,
        false => reporter.text(&format!("listening at {at}\n"))?,
    }
    Ok(server.run()?)
}

impl Args {
    fn options(&self) -> Result<ServeOptions, Failure> {
        let NetworkArgs { host, port, root_path, tls_cert, tls_key, .. } = &self.network;
        let tls = tls_cert.clone().zip(tls_key.clone());
        let limits = &self.limits;
        let chat_template = match &self.chat_template {
            Some(path) => Some((path.clone(), text(path)?)),
            None => None,
        };
        Ok(ServeOptions {
            bundles: self.named()?,
            address: SocketAddr::new(*host, *port),
            root_path: root_path.clone(),
            api_keys: self.network.keys()?,
            tls: tls.map(|(certificates, key)| TlsFiles { certificates, key }),
            cors_origins: self.network.origins()?,
            engine: EngineOptions {
                run_ahead: self.run_ahead,
                max_tokens: self.max_tokens,
                waiting: limits.max_queue,
                prefill_tokens: self.prefill_tokens(),
            },
            limits: RequestLimits {
                body_bytes: limits.max_body,
                prompt_tokens: limits.max_prompt_tokens,
                sequences: limits.max_sequences,
                request_timeout: limits.request_timeout,
                read_timeout: limits.read_timeout,
                streams: limits.max_streams,
                connections: limits.max_connections,
                trajectory_ttl: limits.trajectory_ttl,
                trajectories: limits.max_trajectories,
            },
            streams: StreamOptions { interval: limits.stream_interval.into(), keep_alive: limits.keep_alive },
            shutdown_timeout: limits.shutdown_timeout,
            chat_template,
        })
    }

    fn prefill_tokens(&self) -> usize {
        let default = if self.backend.is_cuda() { GPU_PREFILL_TOKENS } else { HOST_PREFILL_TOKENS };
        self.max_prefill_tokens.unwrap_or(default)
    }

    /// The bundles with their names, each of which is there once.
    fn named(&self) -> Result<Vec<(String, PathBuf)>, Failure> {
        let names = &self.served_model_name;
        if names.len() > self.bundles.len() {
            let found = format!("{} names for {} bundles", names.len(), self.bundles.len());
            return Err(Failure::usage(&format_args!("--served-model-name gives {found}")));
        }
        let mut named: Vec<(String, PathBuf)> = Vec::new();
        for (at, path) in self.bundles.iter().enumerate() {
            let name = names.get(at).cloned().unwrap_or_else(|| subject_title(path));
            if named.iter().any(|(known, _)| *known == name) {
                return Err(Failure::usage(&format_args!("two models are called `{name}`"))
                    .help("tell them apart with --served-model-name"));
            }
            named.push((name, path.clone()));
        }
        Ok(named)
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        match error {
            ServerError::Bind { .. } => Failure::input("the server cannot listen", &error).help(
                "name another --port, or 0 for any that is free; --host names an address of this machine",
            ),
            ServerError::Certificate { .. } => Failure::input("the certificate cannot be used", &error).help(
                "--tls-cert names PEM with the server's own certificate first, --tls-key its private key",
            ),
            ServerError::Engine(_) => Failure::input("the model cannot be served", &error),
            ServerError::System(_) => Failure::input("the server cannot run", &error),
            ServerError::Metrics(_) => Failure::bug(&error),
        }
    }
}

/// How bundles are opened.
struct Loading {
    backend: BackendArgs,
    rows: Option<Batch>,
    reserve: usize,
    reporter: Reporter,
}

/// A failure on one line.
fn words(failure: &Failure) -> String {
    failure.source().map_or_else(|| failure.to_string(), |cause| format!("{failure}: {cause}"))
}

impl Loading {
    fn opened(&self, bundle: &Bundle, replica: usize, setups: &[DecoderSetup]) -> Result<Opened, Failure> {
        if !self.backend.is_cuda() {
            let generator = self.backend.generator(bundle, &self.reporter)?;
            let rows = match self.rows {
                Some(Batch::Rows(rows)) => rows,
                Some(Batch::Max) | None => HOST_ROWS,
            };
            return Ok(Opened { generator, rows });
        }
        let program = Program::from_bundle(bundle)?;
        let device = self.backend.gpu(replica)?;
        let failed = crate::runtime::error::RuntimeError::from;
        let mut cuda = self.backend.load(bundle, device).map_err(failed)?;
        let wanted = self.rows.unwrap_or(Batch::Rows(GPU_ROWS)).rows(self.reserve, usize::from(u16::MAX));
        let mut rows: Option<usize> = None;
        for setup in setups {
            let fitting = cuda.rows(&program, *setup, wanted).map_err(failed)?;
            rows = Some(rows.map_or(fitting, |rows| rows.min(fitting)));
        }
        Ok(Opened { generator: Generator::of_bundle(bundle, Box::new(cuda))?, rows: rows.unwrap_or(1) })
    }
}

impl Backends for Loading {
    fn bundle(&self, path: &Path) -> Result<Bundle, String> {
        self.backend.bundle.open(path).map_err(|failure| words(&failure))
    }

    fn replicas(&self) -> usize {
        self.backend.replicas()
    }

    fn name(&self) -> &'static str {
        self.backend.name.name()
    }

    fn open(&self, bundle: &Bundle, replica: usize, setups: &[DecoderSetup]) -> Result<Opened, String> {
        self.opened(bundle, replica, setups).map_err(|failure| words(&failure))
    }
}
