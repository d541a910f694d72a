//! Clients that people have, unmodified, against `photonc serve` on the trained example: each runs a script of
//! `tests/clients`. One server answers all of them, because loading takes longer than most of them. They are installed by
//! `scripts/setup-test-deps.sh --clients`; what is not there is skipped by name.
#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod clients;

use clients::{MODEL, bundle, deps, root, skipped};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// tract optimises windows of 32 tokens for most of a minute in an unoptimised build, for every way of drawing and every
/// protocol, longer on a busy machine.
const LOADING: Duration = Duration::from_secs(600);

/// A server on a port of its own.
struct Server {
    process: Child,
    port: u16,
    log: tempfile::NamedTempFile,
}

impl Server {
    /// One that has loaded its model.
    fn start() -> Server {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_photonc"));
        command.arg("serve").arg(&bundle("serve-clients").0).args(["--port", "0"]);
        let mut process = command.stdout(Stdio::piped()).stderr(log.reopen().unwrap()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let port = said.trim_end().rsplit(':').next().and_then(|port| port.parse().ok());
        let mut server = Server { process, port: port.unwrap_or(0), log };
        assert!(server.port != 0, "{said}: {}", server.log());
        let started = Instant::now();
        while server.get("/health").is_none_or(|(status, _)| status != 200) {
            assert!(server.process.try_wait().unwrap().is_none(), "the server ended: {}", server.log());
            assert!(started.elapsed() < LOADING, "not ready after {LOADING:?}: {}", server.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Status and body; none where nobody listens.
    fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    /// Runs a client and gives what it printed. The server must have outlived it.
    fn used_by(&mut self, client: &mut Command) -> String {
        let done = client.output().unwrap();
        let [said, told] =
            [&done.stdout, &done.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
        assert!(done.status.success(), "{client:?}: {}\n{said}\n{told}\n{}", done.status, self.log());
        assert!(self.process.try_wait().unwrap().is_none(), "the server ended: {}", self.log());
        said
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Runs a script of `tests/clients` in the Python environment `environment` of the dependencies.
fn python(server: &mut Server, test: &str, [environment, package, script]: [&str; 3], more: &[&Path]) {
    let Some(python) = clients::python(environment, package) else {
        return skipped(test, &format!("needs {package}: scripts/setup-test-deps.sh --clients"));
    };
    let mut client = Command::new(python);
    client.arg(root().join("tests/clients").join(script)).args([&server.url(), MODEL]).args(more);
    server.used_by(&mut client);
}

fn node(server: &mut Server, test: &str, package: &str, script: &str) {
    let home = deps().join("node");
    let has_node = Command::new("node").arg("--version").output().is_ok_and(|done| done.status.success());
    if !has_node || !home.join("node_modules").join(package).is_dir() {
        return skipped(test, &format!("needs node and {package}: scripts/setup-test-deps.sh --clients"));
    }
    let mut client = Command::new("node");
    client.arg(root().join("tests/clients").join(script)).args([&server.url(), MODEL]).env("NODE_HOME", home);
    server.used_by(&mut client);
}

/// Each by its name, so that what is skipped is told by it.
#[test]
fn clients_work_unmodified() {
    let mut server = Server::start();
    let at = &mut server;
    let (bundle, tokenizer) = bundle("serve-clients");
    let photonc = Path::new(env!("CARGO_BIN_EXE_photonc"));
    python(at, "openai_for_python", ["clients", "openai", "openai_client.py"], &[]);
    python(at, "langchain", ["clients", "langchain_openai", "langchain_client.py"], &[]);
    python(at, "triton_client_for_kserve", ["clients", "tritonclient", "triton_client.py"], &[]);
    let lm_eval = ["clients", "lm_eval", "lm_eval_client.py"];
    python(at, "lm_eval_finds_what_score_finds", lm_eval, &[photonc, bundle]);
    node(at, "openai_for_node", "openai", "openai_node.mjs");
    node(at, "vercel_ai", "ai", "vercel_ai.mjs");
    python(at, "aiperf_measures_it", ["load", "aiperf", "aiperf_client.py"], &[tokenizer]);
    let schemathesis = ["clients", "schemathesis", "schemathesis_client.py"];
    python(at, "schemathesis_finds_no_forbidden_answer", schemathesis, &[]);
    the_page_works_in_a_browser(at);
    the_dashboard_asks_for_what_is_counted(at);
}

/// A reader's session with the page at `/`, light and dark.
fn the_page_works_in_a_browser(server: &mut Server) {
    let picture = Path::new(env!("CARGO_TARGET_TMPDIR")).join("serve-page.png");
    for more in [&["--dark"][..], &["--screenshot", picture.to_str().unwrap()]] {
        let mut client = Command::new("python3");
        client.arg(root().join("tests/clients/page.py")).arg(server.url()).args(more);
        let done = client.output().expect("python3 runs");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        match done.status.code() {
            Some(0) => {}
            Some(77) => return skipped("the_page_works_in_a_browser", said.trim_end()),
            code => panic!("{more:?}: exit code {code:?}: {said}\n{}", server.log()),
        }
    }
    assert!(server.process.try_wait().unwrap().is_none(), "the server ended: {}", server.log());
}

/// Words of a query of Prometheus that name what is counted.
fn counted(query: &str) -> Vec<&str> {
    let words = query.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    words.filter(|word| word.starts_with("vllm:") || word.starts_with("photonc_")).collect()
}

/// `examples/serve` shows what the server counts, under the names that it has.
fn the_dashboard_asks_for_what_is_counted(server: &Server) {
    let path = root().join("examples/serve/grafana/dashboards/photonc.json");
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let asked = json!({"prompt": "In the beginning", "max_tokens": 80}).to_string();
    let mut socket = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json";
    write!(socket, "{head}\r\nContent-Length: {}\r\n\r\n{asked}", asked.len()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (_, metrics) = server.get("/metrics").unwrap();
    let mut names = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            for name in counted(target["expr"].as_str().unwrap()) {
                names += 1;
                let there = metrics.lines().any(|line| {
                    line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
                });
                assert!(there, "{}: no `{name}` in\n{metrics}", panel["title"]);
            }
        }
    }
    assert!(names > 20, "{names}");
}
