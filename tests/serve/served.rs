//! `photonc serve` as a process of its own, on a port that the system chose.

use crate::http::{Answer, Reply, send};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to load, and a wish to come true.
const PATIENCE: Duration = Duration::from_secs(120);

/// The program.
pub fn photonc() -> Command {
    Command::new(assert_cmd::cargo::cargo_bin("photonc"))
}

/// A server.
pub struct Served {
    child: Child,
    pub address: SocketAddr,
    /// What stands before every path.
    root: String,
}

impl Served {
    /// One that is ready.
    pub fn start(bundle: &Path, options: &[&str]) -> Self {
        let served = Served::begin(bundle, options);
        served.wait("the model is loaded", |served| {
            served.get(&format!("{}/ready", served.root)).status == 200
        });
        served
    }

    /// One that listens, and loads.
    pub fn begin(bundle: &Path, options: &[&str]) -> Self {
        Served::logging_to(Stdio::inherit(), bundle, &[&["--log-level", "warn"], options].concat())
    }

    /// The same with its log elsewhere.
    pub fn logging_to(log: Stdio, bundle: &Path, options: &[&str]) -> Self {
        let mut command = photonc();
        command.arg("serve").arg(bundle).args(["--port", "0", "--json"]).args(options);
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().expect("starts");
        let mut text = String::new();
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let line = loop {
            assert_ne!(lines.read_line(&mut text).expect("a line"), 0, "it ended: {text}");
            if let Ok(line) = serde_json::from_str::<Value>(&text) {
                break line;
            }
        };
        let at = line["listening"].as_str().expect("an address").split("://").nth(1).expect("an address");
        let (address, root) = at.split_once('/').unwrap_or((at, ""));
        let root = if root.is_empty() { String::new() } else { format!("/{root}") };
        Served { child, address: address.parse().expect("an address"), root }
    }

    pub fn wait(&self, what: &str, wish: impl Fn(&Self) -> bool) {
        let since = Instant::now();
        while !wish(self) {
            assert!(since.elapsed() < PATIENCE, "{what}: it does not come true");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn get(&self, path: &str) -> Reply {
        send(self.address, "GET", path, "", None).read()
    }

    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.begin_post(path, body).read()
    }

    pub fn begin_post(&self, path: &str, body: &Value) -> Answer {
        send(self.address, "POST", path, "", Some(&body.to_string()))
    }

    /// A counter of `/metrics`, summed over its labels.
    pub fn counted(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text;
        let own = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
        });
        own.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("is there");
    }

    /// Waits for its end.
    pub fn ended(mut self) -> ExitStatus {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(since.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
