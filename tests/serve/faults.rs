//! What breaks: the server in mid-stream, and its device. Nobody takes what came for the whole, and nothing hangs.

use crate::http::{events, send};
use crate::served::Served;
use crate::{bundle, ids, long};
use photonc::bundle::Bundle;
use photonc::ir::dtype::Dtype;
use photonc::ir::tensor::Tensor;
use photonc::runtime::backend::{Backend, BackendError, Buffer, Outputs};
use photonc::runtime::decoder::DecoderSetup;
use photonc::runtime::generator::Generator;
use photonc::runtime::reference::Reference;
use photonc::server::engine::{Backends, Opened};
use photonc::server::options::{EngineOptions, RequestLimits, ServeOptions, StreamInterval, StreamOptions};
use photonc::server::{Server, ServerError};
use rustix::process::Signal;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A stream of a server that is killed breaks off: no end, no error that looks like one.
#[test]
fn a_killed_server_breaks_its_streams() {
    let (_folder, bundle) = bundle();
    let served = Served::start(&bundle, &["--run-ahead", "1"]);
    let mut answer = served.begin_post("/v1/generate", &long());
    let mut text = String::from_utf8(answer.chunk().expect("a piece").expect("a piece")).expect("UTF-8");
    served.signal(Signal::KILL);
    let broken = loop {
        match answer.chunk() {
            Ok(Some(piece)) => text.push_str(&String::from_utf8(piece).expect("UTF-8")),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    let whole = text.rfind("\n\n").map_or("", |end| &text[..end]);
    assert!(broken && !events(whole).1, "{text}");
    assert!(ids(&events(whole).0[0]["token_ids"]).len() > 1);
}

/// A disk that is full under the log stops nothing.
#[test]
fn a_log_without_room_stops_nothing() {
    let (_folder, bundle) = bundle();
    let full = File::options().write(true).open("/dev/full").expect("a device");
    let served = Served::logging_to(full.into(), &bundle, &["--log-level", "debug"]);
    served.wait("the model is loaded", |served| served.get("/ready").status == 200);
    assert!(events(&served.post("/v1/generate", &long()).text).1);
    served.signal(Signal::TERM);
    assert!(served.ended().success());
}

/// A device that works until it is told to fail.
struct Failing {
    device: Reference,
    fails: Arc<AtomicBool>,
}

impl Backend for Failing {
    fn name(&self) -> &'static str {
        self.device.name()
    }

    fn allocate(&mut self, dtype: Dtype, shape: &[usize]) -> Result<Buffer, BackendError> {
        self.device.allocate(dtype, shape)
    }

    fn upload(&mut self, tensor: &Tensor, dtype: Dtype) -> Result<Buffer, BackendError> {
        self.device.upload(tensor, dtype)
    }

    fn download(&mut self, buffer: &Buffer) -> Result<Tensor, BackendError> {
        self.device.download(buffer)
    }

    fn write(
        &mut self,
        target: &mut Buffer,
        source: &Buffer,
        axis: usize,
        offsets: &[usize],
    ) -> Result<(), BackendError> {
        self.device.write(target, source, axis, offsets)
    }

    fn gather(&mut self, source: &Buffer, rows: &[usize]) -> Result<Buffer, BackendError> {
        self.device.gather(source, rows)
    }

    fn slice(
        &mut self,
        source: &Buffer,
        axis: usize,
        start: usize,
        len: usize,
    ) -> Result<Buffer, BackendError> {
        self.device.slice(source, axis, start, len)
    }

    fn run(&mut self, graph: &str, inputs: &[(&str, &Buffer)]) -> Result<Outputs, BackendError> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(BackendError::Unavailable {
                backend: "reference",
                message: "it fell off the bus".to_owned(),
            });
        }
        self.device.run(graph, inputs)
    }

    fn prepare(&mut self, graph: &str) -> Result<(), BackendError> {
        self.device.prepare(graph)
    }
}

struct Opening(Arc<AtomicBool>);

impl Backends for Opening {
    fn bundle(&self, path: &Path) -> Result<Bundle, String> {
        Bundle::open(path).map_err(|error| error.to_string())
    }

    fn replicas(&self) -> usize {
        1
    }

    fn name(&self) -> &'static str {
        "reference"
    }

    fn open(&self, bundle: &Bundle, _: usize, _: &[DecoderSetup]) -> Result<Opened, String> {
        let device = Failing { device: Reference::of_bundle(bundle.clone()), fails: Arc::clone(&self.0) };
        let generator = Generator::of_bundle(bundle, Box::new(device)).map_err(|error| error.to_string())?;
        Ok(Opened { generator, rows: 4 })
    }
}

fn options(bundle: PathBuf) -> ServeOptions {
    let seconds = Duration::from_secs;
    ServeOptions {
        bundles: vec![("small".to_owned(), bundle)],
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        root_path: String::new(),
        api_keys: Vec::new(),
        tls: None,
        cors_origins: Vec::new(),
        engine: EngineOptions { run_ahead: (1, 1), max_tokens: None, waiting: 8, prefill_tokens: usize::MAX },
        limits: RequestLimits {
            body_bytes: 1 << 20,
            prompt_tokens: None,
            sequences: 8,
            request_timeout: None,
            read_timeout: seconds(30),
            streams: 8,
            connections: 8,
            trajectory_ttl: seconds(30),
            trajectories: 2,
        },
        streams: StreamOptions { interval: StreamInterval::Burst, keep_alive: seconds(5) },
        shutdown_timeout: seconds(30),
        chat_template: None,
    }
}

/// Every request is told, streams in their last event; nothing more is taken, and the server ends with the reason.
#[test]
fn a_failed_device_is_told_to_everyone() {
    let (_folder, bundle) = bundle();
    let fails = Arc::new(AtomicBool::new(false));
    let server = Server::bind(options(bundle), Arc::new(Opening(Arc::clone(&fails)))).expect("a socket");
    let address = server.address().expect("an address");
    let running = std::thread::spawn(move || server.run());
    while send(address, "GET", "/ready", "", None).status != 200 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let post = |body: &serde_json::Value| send(address, "POST", "/v1/generate", "", Some(&body.to_string()));
    let mut streams: Vec<_> = (0..3).map(|_| post(&long())).collect();
    let first = streams[0].chunk().expect("a piece").expect("a piece");
    assert!(String::from_utf8(first).expect("UTF-8").contains("token_ids"));
    let mut whole = long();
    whole["stream"] = false.into();
    let waiting = std::thread::spawn(move || {
        send(address, "POST", "/v1/generate", "", Some(&whole.to_string())).read()
    });
    fails.store(true, Ordering::Relaxed);
    for stream in streams {
        let text = stream.read().text;
        let (documents, done) = events(&text);
        let last = &documents.last().expect("an event")["error"];
        assert!(!done && last["code"] == "engine_failed" && last["type"] == "server_error", "{text}");
        assert!(
            last["message"].as_str().is_some_and(|message| message.contains("fell off the bus")),
            "{text}"
        );
    }
    let refused = waiting.join().expect("no panic");
    assert_eq!(refused.error().1, "engine_failed", "{}", refused.text);
    let ended = running.join().expect("no panic");
    assert!(
        matches!(&ended, Err(ServerError::Engine(message)) if message.contains("fell off the bus")),
        "{ended:?}"
    );
}
