//! A server under load: clients that read, dawdle, leave, close one half, or send what is none, all at once. No token is lost or
//! mixed, and nothing grows.

use crate::http::{events, raw, send};
use crate::served::Served;
use crate::{bundle, ids};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Streams at once.
const CLIENTS: u64 = 64;

/// Requests with known answers.
const KINDS: u64 = 24;

/// Memory that a server may take beyond that of its first seconds under load, in MiB.
const GROWTH_MIB: u64 = 64;

fn duration() -> Duration {
    Duration::from_secs(if std::env::var_os("PHOTONC_FULL").is_some() { 300 } else { 6 })
}

/// A small generator of random numbers (Steele and others, "SplitMix"): tests say which seed failed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn asked(kind: u64, stream: bool) -> Value {
    let prompt: Vec<u64> = (0..kind % 11).map(|place| (kind * 37 + place * 5) % 500).collect();
    let protocol = if kind.is_multiple_of(3) { "hiergen" } else { "recgen" };
    json!({
        "token_ids": prompt, "max_tokens": 8 + kind % 30, "seed": kind, "ignore_eos": true, "protocol": protocol,
        "top_k": if kind.is_multiple_of(2) { 0 } else { 5 }, "stream": stream, "n": 1 + kind % 2,
    })
}

/// Tokens of each sequence of a stream; none where it has no end.
fn told(text: &str, kind: u64) -> Option<Vec<Vec<i64>>> {
    let (documents, done) = events(text);
    let mut all = vec![Vec::new(); 1 + (kind % 2) as usize];
    for document in documents.iter().filter(|document| document.get("token_ids").is_some()) {
        all[document["index"].as_u64()? as usize].extend(ids(&document["token_ids"]));
    }
    done.then_some(all)
}

/// What clients met.
#[derive(Debug, Default)]
struct Met {
    whole: AtomicU64,
    left: AtomicU64,
    refused: AtomicU64,
    malformed: AtomicU64,
}

struct Client<'c> {
    served: &'c Served,
    expected: &'c [Vec<Vec<i64>>],
    met: &'c Met,
    random: Random,
}

impl Client<'_> {
    fn act(&mut self) {
        let kind = self.random.below(KINDS);
        match self.random.below(10) {
            0 => self.leaves(kind),
            1 => self.half_closes(kind),
            2 => self.sends_what_is_none(),
            3 => self.reads(kind, true),
            4 => self.asks_for_the_whole(kind),
            _ => self.reads(kind, false),
        }
    }

    fn count(of: &AtomicU64) {
        of.fetch_add(1, Ordering::Relaxed);
    }

    fn reads(&mut self, kind: u64, slowly: bool) {
        let mut answer = self.served.begin_post("/v1/generate", &asked(kind, true));
        if answer.status == 429 {
            return Self::count(&self.met.refused);
        }
        assert_eq!(answer.status, 200, "{kind}");
        let mut text = Vec::new();
        while let Some(piece) = answer.chunk().expect("a whole stream") {
            text.extend(piece);
            if slowly {
                std::thread::sleep(Duration::from_millis(20 + self.random.below(60)));
            }
        }
        let text = String::from_utf8(text).expect("UTF-8");
        assert_eq!(told(&text, kind).as_ref(), Some(&self.expected[kind as usize]), "{kind}: {text}");
        Self::count(&self.met.whole);
    }

    fn asks_for_the_whole(&mut self, kind: u64) {
        let reply = self.served.post("/v1/generate", &asked(kind, false));
        if reply.status == 429 {
            assert_eq!(reply.header("retry-after"), Some("1"));
            return Self::count(&self.met.refused);
        }
        let outputs = reply.json()["outputs"].as_array().cloned().unwrap_or_default();
        let found: Vec<Vec<i64>> = outputs.iter().map(|output| ids(&output["token_ids"])).collect();
        assert_eq!(found, self.expected[kind as usize], "{kind}: {}", reply.text);
        Self::count(&self.met.whole);
    }

    fn leaves(&mut self, kind: u64) {
        let mut answer = self.served.begin_post("/v1/generate", &asked(kind, true));
        for _ in 0..self.random.below(3) {
            // It may have come to its end, or be refused.
            let Ok(Some(_)) = answer.chunk() else { break };
        }
        Self::count(&self.met.left);
    }

    fn half_closes(&mut self, kind: u64) {
        let body = asked(kind, true).to_string();
        let head = "POST /v1/generate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
        let text = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        let mut socket = raw(self.served.address, text.as_bytes());
        // Who has closed its half gets an answer or none, and holds nothing up.
        let _ = socket.shutdown(Shutdown::Write);
        let _ = socket.read_to_end(&mut Vec::new());
        Self::count(&self.met.left);
    }

    fn sends_what_is_none(&mut self) {
        let bodies =
            ["{", "[1", "{\"token_ids\": \"x\"}", "{\"token_ids\": [1], \"max_tokens\": -4}", "\u{7f}"];
        let body = bodies[self.random.below(bodies.len() as u64) as usize];
        let status = send(self.served.address, "POST", "/v1/generate", "", Some(body)).read().status;
        assert!([400, 422].contains(&status), "{body}: {status}");
        let mut socket =
            raw(self.served.address, b"POST /v1/generate HTTP/1.1\r\ncontent-length: 99\r\n\r\n{");
        let _ = socket.write_all(b"\xff");
        Self::count(&self.met.malformed);
    }
}

/// Memory in KiB and open descriptors of the server.
fn taken(served: &Served) -> (u64, usize) {
    let of = |file: &str| format!("/proc/{}/{file}", served.id());
    let status = std::fs::read_to_string(of("status")).expect("is there");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
    (kib, std::fs::read_dir(of("fd")).expect("is there").count())
}

#[test]
fn a_load_loses_and_mixes_nothing() {
    let (_folder, bundle) = bundle();
    let served = Served::start(&bundle, &["--batch", "8", "--max-queue", "48"]);
    let alone = |kind| {
        let reply = served.post("/v1/generate", &asked(kind, true));
        told(&reply.text, kind).unwrap_or_else(|| panic!("{}", reply.text))
    };
    let expected: Vec<Vec<Vec<i64>>> = (0..KINDS).map(alone).collect();
    let (met, begun, until) = (Met::default(), Instant::now(), duration());
    let (_, descriptors) = taken(&served);
    let first_memory = std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (served, expected, met) = (&served, &expected, &met);
            scope.spawn(move || {
                let mut client = Client { served, expected, met, random: Random(client) };
                while begun.elapsed() < until {
                    client.act();
                }
            });
        }
        // The first third is for whatever is made once.
        std::thread::sleep(until / 3);
        let (memory, _) = taken(&served);
        assert!(served.counted("vllm:num_requests_waiting") <= 48.0);
        memory
    });
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    assert!(count(&met.whole) > CLIENTS && count(&met.left) > 0 && count(&met.malformed) > 0, "{met:?}");
    served.wait("nothing runs", |served| served.get("/health").json()["under_way"] == 0);
    // The one that asks is open.
    served.wait("connections are closed", |served| served.counted("photonc_connections") <= 1.0);
    served.wait("descriptors are given back", |served| taken(served).1 <= descriptors + 2);
    let (memory, _) = taken(&served);
    assert!(memory <= first_memory + (GROWTH_MIB << 10), "{first_memory} KiB to {memory} KiB");
    for kind in 0..KINDS {
        let reply = served.post("/v1/generate", &asked(kind, true));
        assert_eq!(told(&reply.text, kind).as_ref(), Some(&expected[kind as usize]), "{kind}");
    }
    served.signal(Signal::TERM);
    assert!(served.ended().success());
}
