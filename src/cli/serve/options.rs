//! Options of a server beside its models: where it listens, whom it lets in, its limits, its log. Owns their words and forms.

use crate::cli::rows::count;
use crate::cli::{Failure, Reporter};
use crate::server::options::StreamInterval;
use std::io::IsTerminal as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing_subscriber::filter::LevelFilter;

/// Where the server listens and whom it lets in.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Network")]
pub struct NetworkArgs {
    /// Address to listen at; 0.0.0.0 is every interface
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// Port to listen at; 0 takes any that is free
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    pub port: u16,
    /// Path before every route, for servers behind a proxy
    #[arg(long, value_name = "PATH", default_value = "", value_parser = root_path)]
    pub root_path: String,
    /// Key that clients must send; others on this machine can read it here, --api-key-file hides it
    #[arg(long, value_name = "KEY")]
    pub api_key: Vec<String>,
    /// File with one key a line
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// File of the certificate and its chain, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// File of the private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Origins of other pages that may ask, `https://example.org` or `*`
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',')]
    pub cors_origin: Vec<String>,
}

/// What a client may ask for.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// Requests that wait for a row at most; more get 429
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = count)]
    pub max_queue: usize,
    /// Sequences of one request at most: prompts times n
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = count)]
    pub max_sequences: usize,
    /// Tokens of a prompt at most [default: the longest sequence]
    #[arg(long, value_name = "N", value_parser = count)]
    pub max_prompt_tokens: Option<usize>,
    /// Bytes of a request's body at most
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20, value_parser = count)]
    pub max_body: usize,
    /// Streams at once; more get 429
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = count)]
    pub max_streams: usize,
    /// Connections at once; more wait
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = count)]
    pub max_connections: usize,
    /// Seconds that a request may take, waiting included [default: as long as it takes]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub request_timeout: Option<Duration>,
    /// Seconds that a request may take to come
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub read_timeout: Duration,
    /// Seconds that requests may go on once the server is told to end
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub shutdown_timeout: Duration,
    /// Seconds of silence behind which a stream gets a comment, so that proxies keep it open
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = seconds)]
    pub keep_alive: Duration,
    /// When the tokens of a burst are sent: evenly until the next, or all at once
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = IntervalName::Burst)]
    pub stream_interval: IntervalName,
    /// Seconds that a trajectory is kept behind its last use
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    pub trajectory_ttl: Duration,
    /// Trajectories that are kept at most
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = count)]
    pub max_trajectories: usize,
}

/// What is written of requests.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Log")]
pub struct LogArgs {
    /// Least important lines of the log on stderr
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = Level::Info)]
    pub log_level: Level,
    /// Form of the log [default: text on a terminal, otherwise JSON]
    #[arg(long, value_enum, value_name = "FORM")]
    pub log_format: Option<LogForm>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum IntervalName {
    Smooth,
    Burst,
}

impl From<IntervalName> for StreamInterval {
    fn from(name: IntervalName) -> Self {
        match name {
            IntervalName::Smooth => StreamInterval::Smooth,
            IntervalName::Burst => StreamInterval::Burst,
        }
    }
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogForm {
    Json,
    Text,
}

pub fn run_ahead(text: &str) -> Result<(usize, usize), String> {
    let (least, most) = text.split_once("..").unwrap_or((text, text));
    match (least.parse(), most.parse()) {
        (Ok(least), Ok(most)) if 0 < least && least <= most => Ok((least, most)),
        _ => Err("expected two numbers of meta-contexts such as 1..8, or one".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let parsed = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    parsed.filter(|time| !time.is_zero()).ok_or_else(|| "expected a number of seconds above 0".to_owned())
}

fn root_path(text: &str) -> Result<String, String> {
    let path = text.trim_end_matches('/');
    let known = |c: char| c.is_ascii_alphanumeric() || "/-_.~".contains(c);
    let whole = path.is_empty() || (path.starts_with('/') && !path.contains("//"));
    match whole && path.chars().all(known) {
        true => Ok(path.to_owned()),
        false => Err("expected a path such as /llm".to_owned()),
    }
}

impl NetworkArgs {
    /// Keys of clients, each of which opens something.
    pub fn keys(&self) -> Result<Vec<String>, Failure> {
        let mut keys = self.api_key.clone();
        if let Some(file) = &self.api_key_file {
            let text = text(file)?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            let before = keys.len();
            keys.extend(lines.map(str::to_owned));
            if keys.len() == before {
                return Err(Failure::usage(&format_args!("{}: has no key", file.display())));
            }
        }
        match keys.iter().any(|key| key.trim().is_empty()) {
            true => Err(Failure::usage(&"--api-key is empty, and everybody knows that")),
            false => Ok(keys),
        }
    }

    /// Origins of pages that may ask.
    pub fn origins(&self) -> Result<Vec<String>, Failure> {
        let known = |origin: &&String| {
            *origin == "*" || (origin.contains("://") && origin.chars().all(|c| c.is_ascii_graphic()))
        };
        match self.cors_origin.iter().find(|origin| !known(origin)) {
            Some(origin) => Err(Failure::usage(&format_args!(
                "--cors-origin is `{origin}`, expected one such as https://example.org, or *"
            ))),
            None => Ok(self.cors_origin.clone()),
        }
    }
}

/// A file that an option names.
pub fn text(path: &Path) -> Result<String, Failure> {
    crate::cli::prompts::text_file(path)
}

impl LogArgs {
    /// Writes what the server does to stderr from now on.
    pub fn start(&self, reporter: &Reporter) {
        let level = match self.log_level {
            Level::Off => LevelFilter::OFF,
            Level::Error => LevelFilter::ERROR,
            Level::Warn => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            Level::Debug => LevelFilter::DEBUG,
        };
        let terminal = std::io::stderr().is_terminal() && !reporter.json();
        let form = self.log_format.unwrap_or(if terminal { LogForm::Text } else { LogForm::Json });
        // A full disk behind stderr must not end the server: what cannot be written is lost.
        let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr);
        let log = log.log_internal_errors(false).with_ansi(false);
        // There is one server in a process; a second, in a test, keeps the first one's log.
        let _first = match form {
            LogForm::Json => log.json().flatten_event(true).try_init(),
            LogForm::Text => log.try_init(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::{root_path, run_ahead, seconds};

    #[test]
    fn options_have_their_forms() {
        assert_eq!(run_ahead("2..8"), Ok((2, 8)));
        assert_eq!(run_ahead("4"), Ok((4, 4)));
        assert!(["0..2", "8..2", "x", "..", ""].iter().all(|text| run_ahead(text).is_err()));
        assert_eq!(root_path("/llm/"), Ok("/llm".to_owned()));
        assert_eq!(root_path("/"), Ok(String::new()));
        assert!(["llm", "/{id}", "/a//b"].iter().all(|text| root_path(text).is_err()));
        assert!(["0", "-1", "NaN", "1e99"].iter().all(|text| seconds(text).is_err()));
    }
}
