//! The server over real sockets: every endpoint, refusals by name, streams, clients that go, full queues, and its ends.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed test panics")]

mod faults;
mod hostile;
mod http;
mod load;
mod openapi;
mod parameters;
mod prefill;
mod served;
#[path = "../speaking/mod.rs"]
mod speaking;
mod v2;

use http::{events, head, raw, send};
use rustix::process::Signal;
use serde_json::{Value, json};
use served::{Served, photonc};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const TEMPLATE: &str =
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}{{ tools }}";

/// A small model with a tokenizer and a chat template.
fn bundle() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let more = [("chat_template.jinja", TEMPLATE)];
    let bundle = speaking::speaking_bundle(folder.path(), &more).expect("exports");
    (folder, bundle)
}

fn tls(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve/tls").join(name).display().to_string()
}

fn ids(value: &Value) -> Vec<i64> {
    value.as_array().expect("ids").iter().map(|id| id.as_i64().expect("an id")).collect()
}

/// A request that goes on for long.
fn long() -> Value {
    json!({"token_ids": [1, 2, 3], "max_tokens": 400, "ignore_eos": true, "stream": true, "seed": 1})
}

#[test]
fn every_endpoint_answers() {
    let (_folder, bundle) = bundle();
    let served = Served::start(&bundle, &["--served-model-name", "small"]);
    let models = served.get("/v1/models").json();
    assert_eq!(models["data"][0]["id"], "small");
    assert_eq!(served.get("/v1/models/small").json()["object"], "model");
    assert_eq!(served.get("/health").json()["status"], "ready");
    assert_eq!(served.get("/version").json()["backend"], "cpu");
    assert!(served.get("/").text.contains("<html") && served.get("/app.js").status == 200);
    assert_eq!(served.get("/openapi.json").json()["openapi"], "3.1.0");
    let tokens = served.post("/tokenize", &json!({"prompt": "Hello there"})).json();
    let back = served.post("/detokenize", &json!({"tokens": tokens["tokens"]})).json();
    assert_eq!(back["prompt"], "Hello there");
    assert!(served.get("/tokenizer_info").json()["tokens"].as_u64() > Some(0));

    // The tokens are those of the command line.
    let out = photonc()
        .arg("generate")
        .arg(&bundle)
        .args(["--prompt-ids", "1,2,3,4,5", "--seed", "7", "-n", "24", "--ignore-eos", "--json"])
        .output();
    let told: Value = serde_json::from_slice(&out.expect("runs").stdout).expect("JSON");
    let expected = ids(&told["tokens"]);
    let asked =
        json!({"token_ids": [1, 2, 3, 4, 5], "max_tokens": 24, "seed": 7, "ignore_eos": true, "logprobs": 2});
    let found = served.post("/v1/generate", &asked).json();
    assert_eq!(ids(&found["outputs"][0]["token_ids"]), expected);
    assert_eq!(found["outputs"][0]["logprobs"].as_array().map(Vec::len), Some(24));
    // What was cut off goes on as if it had not been.
    let begun = [&[1, 2, 3, 4, 5], &expected[..10]].concat();
    let resumed = json!({
        "token_ids": begun, "prompt_length": 5, "max_tokens": 14, "seed": 7,
        "ignore_eos": true,
    });
    let found = served.post("/v1/generate", &resumed).json();
    assert_eq!(ids(&found["outputs"][0]["token_ids"]), expected[10..]);

    let asked =
        json!({"prompt": "Hello", "max_tokens": 8, "temperature": 0, "n": 2, "return_token_ids": true});
    let found = served.post("/v1/completions", &asked).json();
    assert_eq!(found["choices"].as_array().map(Vec::len), Some(2));
    assert_eq!(found["choices"][0]["text"], found["choices"][1]["text"], "both are greedy");
    let prompt = ids(&found["choices"][0]["prompt_token_ids"]);
    // Log-probabilities of a prompt: one for every token, those of `score`.
    let echo = json!({"prompt": prompt, "max_tokens": 0, "echo": true, "logprobs": 1});
    let found = served.post("/v1/completions", &echo).json();
    let told =
        found["choices"][0]["logprobs"]["token_logprobs"].as_array().expect("log-probabilities").clone();
    assert_eq!(told.len(), prompt.len());
    assert_eq!(found["usage"]["completion_tokens"], 0);
    let list = prompt.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let scored = photonc().arg("score").arg(&bundle).args(["--ids", &list, "--json"]).output().expect("runs");
    let scored: Value = serde_json::from_slice(&scored.stdout).expect("JSON");
    let sum: f64 = told.iter().map(|one| one.as_f64().expect("a number")).sum();
    assert!((sum + scored["negative_log_likelihood"].as_f64().expect("a number")).abs() < 1e-4);

    let asked = json!({"messages": [{"role": "user", "content": "Hi"}], "max_completion_tokens": 6, "logprobs": true,
        "top_logprobs": 3, "seed": 1});
    let found = served.post("/v1/chat/completions", &asked).json();
    assert_eq!(found["choices"][0]["message"]["role"], "assistant");
    assert_eq!(
        found["choices"][0]["logprobs"]["content"][0]["top_logprobs"].as_array().map(Vec::len),
        Some(3)
    );
    let found =
        served.post("/v1/responses", &json!({"input": "Hi", "max_output_tokens": 6, "seed": 1})).json();
    assert_eq!(found["output"][0]["role"], "assistant");

    // A range of a trajectory, with its own seed, is what was drawn; with another it is not.
    let asked = json!({"prompt": [1, 2, 3, 4], "max_tokens": 48, "seed": 5, "top_k": 8, "ignore_eos": true, "protocol": "recgen"});
    let made = served.post("/v1/trajectories", &asked);
    assert_eq!(made.status, 201, "{}", made.text);
    let made = made.json();
    let path = format!("/v1/trajectories/{}", made["id"].as_str().expect("an id"));
    let again = served.post(&format!("{path}/expand"), &json!({"from": 1, "to": 2, "seed": 5})).json();
    let meta = &again["meta_contexts"][0];
    let at = meta["position"].as_u64().expect("a position") as usize - 4;
    let drawn = ids(&made["drawn"]["token_ids"]);
    assert_eq!(ids(&meta["token_ids"]), drawn[at..at + ids(&meta["token_ids"]).len()]);
    assert_eq!(send(served.address, "DELETE", &path, "", None).read().status, 204);
    assert_eq!(served.get(&path).status, 404);
    assert!(
        served.counted("vllm:generation_tokens_total") > 0.0 && served.counted("photonc_bursts_total") > 0.0
    );
}

/// What cannot be met is refused by its name, with the status of its kind; nothing brings the server down.
#[test]
fn what_cannot_be_met_is_refused_by_name() {
    let (_folder, bundle) = bundle();
    let served = Served::start(&bundle, &["--max-body", "4096", "--max-prompt-tokens", "64"]);
    let many = vec![1; 65];
    let completion = |more: Value| {
        let mut body = json!({"prompt": "a", "max_tokens": 2});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ("/v1/completions", body)
    };
    let chat = |more: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": "a"}], "max_tokens": 2});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ("/v1/chat/completions", body)
    };
    for ((path, body), status, param) in [
        (completion(json!({"suffix": "b"})), 400, "suffix"),
        (completion(json!({"best_of": 2})), 400, "best_of"),
        (completion(json!({"use_beam_search": true})), 400, "use_beam_search"),
        (completion(json!({"temperature": -1})), 400, "temperature"),
        (completion(json!({"temperature": "hot"})), 422, "temperature"),
        (completion(json!({"top_p": 2})), 400, "top_p"),
        (completion(json!({"min_p": -1})), 400, "min_p"),
        (completion(json!({"top_k": -2})), 400, "top_k"),
        (completion(json!({"presence_penalty": 9})), 400, "presence_penalty"),
        (completion(json!({"repetition_penalty": 0})), 400, "repetition_penalty"),
        (completion(json!({"logit_bias": {"x": 1}})), 400, "logit_bias"),
        (completion(json!({"logit_bias": {"99999": 1}})), 400, "logit_bias"),
        (completion(json!({"stop": ""})), 400, "stop"),
        (completion(json!({"stop_token_ids": [-1]})), 400, "stop_token_ids"),
        (completion(json!({"logprobs": 21})), 400, "logprobs"),
        (completion(json!({"n": 0})), 400, "n"),
        (completion(json!({"n": 1000})), 400, "n"),
        (completion(json!({"max_tokens": 0})), 400, "max_tokens"),
        (completion(json!({"max_tokens": 1_000_000})), 400, "max_tokens"),
        (completion(json!({"prompt": [99999]})), 400, "prompt"),
        (completion(json!({"prompt": []})), 400, "prompt"),
        (completion(json!({"prompt": {}})), 422, "prompt"),
        (completion(json!({"prompt": many})), 400, "prompt"),
        (completion(json!({"prompt_length": 999})), 400, "prompt_length"),
        (completion(json!({"protocol": "x"})), 400, "protocol"),
        (completion(json!({"model": "x"})), 404, "model"),
        (completion(json!({"stream_options": {"include_usage": true}})), 400, "stream_options"),
        (completion(json!({"stream": true, "echo": true, "logprobs": 1})), 400, "echo"),
        (chat(json!({"messages": []})), 400, "messages"),
        (chat(json!({"messages": [{"role": "user"}]})), 400, "messages[0].content"),
        (chat(json!({"response_format": {"type": "json_object"}})), 400, "response_format"),
        (chat(json!({"tool_choice": "required"})), 400, "tool_choice"),
        (chat(json!({"top_logprobs": 2})), 400, "top_logprobs"),
        (chat(json!({"functions": []})), 400, "functions"),
        (chat(json!({"store": true})), 400, "store"),
        (("/v1/responses", json!({"input": "a", "previous_response_id": "x"})), 400, "previous_response_id"),
        (("/tokenize", json!({})), 400, "prompt"),
        (("/detokenize", json!({"tokens": [99999]})), 400, "tokens"),
        (("/admin/load", json!({"path": "/no/such/place"})), 400, "path"),
    ] {
        let reply = served.post(path, &body);
        assert_eq!(
            (reply.status, reply.error().0.as_deref()),
            (status, Some(param)),
            "{body}: {}",
            reply.text
        );
    }
    for body in ["", "{", "[]", "null", "{\"prompt\": \"a\"} x", "\u{0}"] {
        let reply = send(served.address, "POST", "/v1/completions", "", Some(body)).read();
        assert!([400, 422].contains(&reply.status), "{body}: {}", reply.text);
        reply.error();
    }
    let letters = "a".repeat(5000);
    let large = json!({"prompt": letters});
    assert_eq!(served.post("/v1/completions", &large).error().1, "body_too_large");
    assert_eq!(served.get("/no/such/route").error().1, "not_found");
    assert_eq!(served.get("/v1/completions").error().1, "method_not_allowed");
    let form = "content-type: text/plain\r\ncontent-length: 2\r\n";
    assert_eq!(send(served.address, "POST", "/tokenize", form, None).status, 415);
    for broken in [
        &b"\x16\x03\x01 no HTTP"[..],
        b"GET / HTTP/9\r\n\r\n",
        b"POST /tokenize HTTP/1.1\r\ncontent-length: x\r\n\r\n",
    ] {
        let mut answer = Vec::new();
        let mut socket = raw(served.address, broken);
        let _ = socket.shutdown(Shutdown::Write);
        let _ = socket.read_to_end(&mut answer);
    }
    assert_eq!(served.get("/health").status, 200);
}

/// A stream is the whole, in whole characters; stop strings are not told, however bursts cut them.
#[test]
fn streams_are_the_whole_in_pieces() {
    let (_folder, bundle) = bundle();
    let served = Served::start(&bundle, &["--stream-interval", "smooth"]);
    let asked = json!({"prompt": "Hello", "max_tokens": 64, "seed": 3, "ignore_eos": true});
    let whole =
        served.post("/v1/completions", &asked).json()["choices"][0]["text"].as_str().unwrap().to_owned();
    let stop: String = whole.chars().skip(20).take(3).collect();
    for (more, expected, reason) in [
        (json!({}), &whole[..], "length"),
        (json!({"stop": [stop]}), whole.split(&stop).next().unwrap(), "stop"),
    ] {
        let mut body = asked.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(served.post("/v1/completions", &body).json()["choices"][0]["text"], expected);
        body["stream"] = true.into();
        body["stream_options"] = json!({"include_usage": true});
        let reply = served.post("/v1/completions", &body);
        assert_eq!(reply.header("content-type"), Some("text/event-stream"));
        let (documents, done) = events(&reply.text);
        assert!(done, "{}", reply.text);
        let choices = documents.iter().filter_map(|document| document["choices"].get(0));
        let text: String = choices.clone().filter_map(|choice| choice["text"].as_str()).collect();
        assert_eq!(text, expected);
        let last = choices.filter_map(|choice| choice["finish_reason"].as_str()).collect::<Vec<_>>();
        assert_eq!(last, [reason]);
        assert!(documents.last().unwrap()["usage"]["completion_tokens"].as_u64() > Some(0));
    }
}

/// Rows of clients that have gone, streaming or not, are free again; half-closed sockets count as gone.
#[test]
fn clients_that_go_end_their_requests() {
    let (_folder, bundle) = bundle();
    let served = Served::start(&bundle, &["--batch", "2", "--run-ahead", "1"]);
    let mut whole = long();
    whole["stream"] = false.into();
    let text = |body: &Value| {
        let body = body.to_string();
        let length = body.len();
        format!(
            "POST /v1/generate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    let sockets: Vec<_> = [long(), whole.clone(), whole]
        .iter()
        .map(|body| raw(served.address, text(body).as_bytes()))
        .collect();
    let busy = |served: &Served| {
        served.counted("vllm:num_requests_running") + served.counted("vllm:num_requests_waiting")
    };
    served.wait("they are taken", |served| served.counted("vllm:num_requests_running") >= 1.0);
    sockets[2].shutdown(Shutdown::Write).expect("half-closes");
    drop(sockets);
    served.wait("nothing runs", |served| busy(served) == 0.0);
    assert_eq!(served.get("/health").json()["under_way"], 0);
}

/// A queue is bounded: who comes too many is told when to come again, and what was taken goes on.
#[test]
fn a_full_queue_says_so() {
    let (_folder, bundle) = bundle();
    let served = Served::start(&bundle, &["--batch", "1", "--max-queue", "1", "--run-ahead", "1"]);
    let first = served.begin_post("/v1/generate", &long());
    served.wait("it runs", |served| served.counted("vllm:num_requests_running") == 1.0);
    let second = served.begin_post("/v1/generate", &long());
    served.wait("it waits", |served| served.counted("vllm:num_requests_waiting") == 1.0);
    let third = served.post("/v1/generate", &long());
    assert_eq!((third.status, third.error().1.as_str()), (429, "queue_full"));
    assert_eq!(third.header("retry-after"), Some("1"));
    let (first, second) = (first.read(), second.read());
    assert!(events(&first.text).1, "{}", first.text);
    assert_eq!(events(&first.text).0.len(), events(&second.text).0.len());
}

/// SIGTERM: what runs goes on to its end, nothing more is taken, and the process ends well.
#[test]
fn a_drain_loses_nothing() {
    let (_folder, bundle) = bundle();
    let served = Served::start(&bundle, &["--run-ahead", "1"]);
    let stream = served.begin_post("/v1/generate", &long());
    served.wait("it runs", |served| served.counted("vllm:num_requests_running") == 1.0);
    served.signal(Signal::TERM);
    served.wait("it drains", |served| served.get("/ready").json()["status"] == "draining");
    assert_eq!(served.post("/v1/generate", &long()).error().1, "draining");
    assert!(events(&stream.read().text).1, "the stream is whole");
    assert!(served.ended().success());
}

/// Where a drain takes too long, streams are told, and do not look like whole ones.
#[test]
fn what_takes_too_long_is_told() {
    let (_folder, bundle) = bundle();
    let served = Served::start(&bundle, &["--run-ahead", "1", "--shutdown-timeout", "0.05"]);
    let stream = served.begin_post("/v1/generate", &long());
    served.wait("it runs", |served| served.counted("vllm:num_requests_running") == 1.0);
    served.signal(Signal::TERM);
    let (documents, done) = events(&stream.read().text);
    let last = documents.last().expect("an event");
    assert!(done || last["error"]["code"] == "shutting_down", "{last}");
    assert!(served.ended().success());
}

#[test]
fn only_keys_open() {
    let (_folder, bundle) = bundle();
    let served = Served::start(
        &bundle,
        &["--api-key", "secret", "--root-path", "/llm", "--cors-origin", "https://a.b"],
    );
    let with = |more: &str| send(served.address, "GET", "/llm/v1/models", more, None).read();
    assert_eq!((with("").status, with("").error().1.as_str()), (401, "invalid_api_key"));
    assert_eq!(with("authorization: Bearer wrong\r\n").status, 401);
    assert_eq!(with("authorization: Bearer secret\r\n").status, 200);
    let id = with("authorization: Bearer secret\r\nx-request-id: mine\r\norigin: https://a.b\r\n");
    assert_eq!(id.header("x-request-id"), Some("mine"));
    assert_eq!(id.header("access-control-allow-origin"), Some("https://a.b"));
    assert_eq!(served.get("/llm/health").status, 200);
    assert_eq!((served.get("/llm/").status, served.get("/llm").status), (200, 308));
    assert_eq!(served.get("/v1/models").status, 401);
}

/// What is wrong at the start is said, and ends it.
#[test]
fn a_wrong_start_is_said() {
    let (_folder, bundle) = bundle();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let [cert, key, other] = ["cert.pem", "key.pem", "other_key.pem"].map(tls);
    for (options, expected) in [
        (vec!["--port", &port], "cannot listen"),
        (vec!["--port", "0", "--tls-cert", &cert, "--tls-key", &other], "does not go with the key"),
        (vec!["--port", "0", "--tls-cert", &key, "--tls-key", &key], "holds no certificate"),
        (vec!["--port", "0", "--tls-cert", "/no/such/file", "--tls-key", &key], "/no/such/file"),
    ] {
        let out = photonc().arg("serve").arg(&bundle).args(&options).output().expect("runs");
        let told = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(told.contains(expected), "{options:?}: {told}");
        assert_eq!(out.status.code(), Some(1), "{told}");
    }
    let out = photonc().args(["serve", "/no/such/bundle", "--port", "0"]).output().expect("runs");
    assert_eq!(out.status.code(), Some(1), "{}", String::from_utf8_lossy(&out.stderr));
}

/// Streams side by side, some of whose readers are slow and some of whom go: each text is that of the request alone.
#[test]
fn many_streams_do_not_mix() {
    let (_folder, bundle) = bundle();
    let served = Served::start(&bundle, &["--batch", "8"]);
    let asked = |k: usize| {
        let (prompt, length): (Vec<i64>, usize) = ((0..k as i64 % 13).collect(), 16 + k % 40);
        let top_k = if k.is_multiple_of(2) { 0 } else { 5 };
        json!({"token_ids": prompt, "max_tokens": length, "seed": k, "ignore_eos": true, "top_k": top_k, "stream": true})
    };
    let told = |text: &str| -> Vec<i64> {
        let (documents, done) = events(text);
        assert!(done, "{text}");
        documents.iter().filter_map(|document| document.get("token_ids")).flat_map(ids).collect()
    };
    let together: Vec<Option<Vec<i64>>> = std::thread::scope(|scope| {
        let run = |k: usize| {
            let served = &served;
            scope.spawn(move || {
                let mut answer = served.begin_post("/v1/generate", &asked(k));
                assert_eq!(answer.status, 200);
                if k.is_multiple_of(7) {
                    drop(answer.chunk());
                    return None;
                }
                if k.is_multiple_of(5) {
                    std::thread::sleep(std::time::Duration::from_millis(300));
                }
                Some(told(&answer.read().text))
            })
        };
        let threads: Vec<_> = (0..64).map(run).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    for (k, found) in together.into_iter().enumerate().filter(|(k, _)| k % 8 == 3) {
        let alone = told(&served.post("/v1/generate", &asked(k)).text);
        assert!(found.is_none_or(|found| found == alone), "request {k}");
    }
    served.wait("nothing runs", |served| served.get("/health").json()["under_way"] == 0);
}

/// A body that never comes does not hold a connection for ever, and another bundle takes over while requests run.
#[test]
fn bundles_change_and_slow_heads_end() {
    let (_folder, bundle) = bundle();
    let served = Served::start(&bundle, &["--read-timeout", "0.3", "--run-ahead", "1"]);
    let mut slow = raw(
        served.address,
        b"POST /tokenize HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
    );
    slow.flush().expect("a socket");
    assert_eq!(head(slow).status, 408);
    let stream = served.begin_post("/v1/generate", &long());
    let loaded = served.post("/admin/load", &json!({}));
    assert_eq!(loaded.status, 200, "{}", loaded.text);
    assert_eq!(loaded.json()["status"], "ready");
    assert!(events(&stream.read().text).1, "the stream of the old model is whole");
    assert_eq!(served.post("/v1/generate", &json!({"token_ids": [1], "max_tokens": 2})).status, 200);
}
