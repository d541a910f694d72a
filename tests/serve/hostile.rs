//! What requests that mean harm once brought about; `tests/hostile` sends thousands of others.

use crate::bundle;
use crate::http::{raw, send};
use crate::served::Served;
use serde_json::json;
use std::io::{ErrorKind, Read as _};

/// What was sent and is shown may be as long as a body, and hold what steers a terminal.
#[test]
fn errors_show_little_of_a_request() {
    let (_folder, bundle) = bundle();
    let served = Served::start(&bundle, &[]);
    let harm = format!("\u{1b}]0;owned\u{7}\u{202e}{}", "y".repeat(100_000));
    for (path, body) in [
        ("/v1/completions", json!({"prompt": "a", "model": harm})),
        ("/v1/completions", json!({"prompt": "a", "protocol": harm})),
        ("/v1/completions", json!({"prompt": "a", "max_tokens": harm})),
        ("/v1/completions", json!({"prompt": "a", (harm.clone()): 1})),
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": {"a": harm}}]})),
        ("/admin/load", json!({"path": harm})),
    ] {
        let reply = served.post(path, &body);
        let (param, _) = reply.error();
        let message = reply.json()["error"]["message"].as_str().expect("a text").to_owned();
        for text in [message, param.expect("a parameter")] {
            assert!(text.len() < 4096, "{path}: {} bytes", text.len());
            assert!(
                !text.contains(|character: char| character.is_control() || character == '\u{202e}'),
                "{text}"
            );
        }
    }
}

/// A list was taken for the values of the parameters in the order in which the program declares them; and behind a key that
/// asks for nothing, others could be given twice.
#[test]
fn bodies_are_objects_whose_keys_stand_once() {
    let (_folder, bundle) = bundle();
    let served = Served::start(&bundle, &[]);
    for (path, body, status, param) in [
        ("/detokenize", "[null, [1, 2]]", 422, None),
        ("/admin/load", " [null, null]", 422, None),
        (
            "/v1/completions",
            r#"{"prompt": "a", "stream": true, "stream_options": [true, true]}"#,
            422,
            Some("stream_options"),
        ),
        ("/detokenize", r#"{"none": null, "tokens": [1], "tokens": [2]}"#, 400, Some("tokens")),
        ("/detokenize", r#"{"tokens": [1], "none": 5, "none": null}"#, 400, Some("none")),
        ("/detokenize", r#"{"tokens": [1], "none": null, "echo": false, "none": null}"#, 200, None),
    ] {
        let reply = send(served.address, "POST", path, "", Some(body)).read();
        assert_eq!(reply.status, status, "{body}: {}", reply.text);
        if status != 200 {
            assert_eq!(reply.error().0.as_deref(), param, "{}", reply.text);
        }
    }
    // Thousands of such keys once took a reading of the whole body each.
    let nulls: String = (0..100_000).map(|at| format!(", \"k{at}\": null")).collect();
    let reply =
        send(served.address, "POST", "/detokenize", "", Some(&format!("{{\"tokens\": [1]{nulls}}}"))).read();
    assert_eq!(reply.status, 200, "{}", reply.text);
}

/// Names in paths that are no UTF-8 are refused in the form of all errors.
#[test]
fn paths_that_are_no_text_are_errors_too() {
    let (_folder, bundle) = bundle();
    let served = Served::start(&bundle, &[]);
    for (method, path) in [
        ("GET", "/v1/models/%ff"),
        ("GET", "/v1/trajectories/%ff"),
        ("DELETE", "/v1/trajectories/%ff"),
        ("POST", "/v1/trajectories/%ff/expand"),
    ] {
        let reply = send(served.address, method, path, "", Some("{}")).read();
        assert_eq!((reply.status, reply.error().1.as_str()), (400, "invalid_path"), "{method} {path}");
    }
}

/// An endpoint's own names for what others call otherwise.
#[test]
fn refusals_name_parameters_as_the_endpoint_does() {
    let (_folder, bundle) = bundle();
    let served = Served::start(&bundle, &[]);
    let said = json!([{"role": "user", "content": "a"}]);
    let long = json!([{"role": "user", "content": "a ".repeat(10_000)}]);
    for (path, body, param) in [
        ("/v1/chat/completions", json!({"messages": long}), "messages"),
        ("/v1/chat/completions", json!({"messages": said, "max_tokens": 1_000_000}), "max_tokens"),
        (
            "/v1/chat/completions",
            json!({"messages": said, "max_completion_tokens": 1_000_000}),
            "max_completion_tokens",
        ),
        (
            "/v1/chat/completions",
            json!({"messages": said, "max_completion_tokens": 0}),
            "max_completion_tokens",
        ),
        (
            "/v1/chat/completions",
            json!({"messages": said, "logprobs": true, "top_logprobs": 21}),
            "top_logprobs",
        ),
        ("/v1/responses", json!({"input": "a ".repeat(10_000)}), "input"),
        ("/v1/responses", json!({"input": "a", "max_output_tokens": 1_000_000}), "max_output_tokens"),
        ("/v1/responses", json!({"input": "a", "max_output_tokens": 0}), "max_output_tokens"),
        ("/v1/generate", json!({"token_ids": [99999]}), "token_ids"),
        ("/v1/generate", json!({"token_ids": [1], "prompt_logprobs": 21}), "prompt_logprobs"),
        ("/v1/generate", json!({"token_ids": [1], "logprobs": 21}), "logprobs"),
        ("/v1/generate", json!({"token_ids": [1], "prompt_length": 2}), "prompt_length"),
    ] {
        let reply = served.post(path, &body);
        assert_eq!((reply.status, reply.error().0.as_deref()), (400, Some(param)), "{}", reply.text);
    }
}

/// What a client asks for is never the server's fault: penalties that make logits infinite, ends that bar every token, and
/// a protocol without trajectories ended as 500 and 501.
#[test]
fn parameters_alone_bring_no_5xx_about() {
    let (_folder, bundle) = bundle();
    let served = Served::start(&bundle, &[]);
    let all: Vec<u64> =
        (0..served.get("/tokenizer_info").json()["vocab_size"].as_u64().expect("a number")).collect();
    assert!(all.len() <= 1024, "so many ids may end a sequence");
    for (path, body, param) in [
        ("/v1/completions", json!({"prompt": "a", "repetition_penalty": 5e-324}), "repetition_penalty"),
        ("/v1/completions", json!({"prompt": "a", "stop_token_ids": all, "min_tokens": 1}), "min_tokens"),
        ("/v1/trajectories", json!({"prompt": "a", "protocol": "hiergen"}), "protocol"),
    ] {
        let reply = served.post(path, &body);
        assert_eq!((reply.status, reply.error().0.as_deref()), (400, Some(param)), "{}", reply.text);
    }
    let ended = served.post("/v1/completions", &json!({"prompt": "a", "stop_token_ids": all}));
    assert_eq!(ended.json()["choices"][0]["finish_reason"], "stop", "{}", ended.text);
}

/// Prompts are counted before they are read: a megabyte has room for 300 000 empty ones, which took minutes and gigabytes.
#[test]
fn too_many_prompts_are_not_read() {
    let (_folder, bundle) = bundle();
    let served = Served::start(&bundle, &["--max-sequences", "8"]);
    let many = vec![""; 300_000];
    for path in ["/v1/completions", "/v1/trajectories"] {
        let reply = served.post(path, &json!({"prompt": many}));
        assert_eq!(
            (reply.status, reply.error().0.as_deref()),
            (400, Some("prompt")),
            "{path}: {}",
            reply.text
        );
    }
}

/// What is kept for each sequence is made when it is known that there may be so many: one request of 4 billion ended the
/// server.
#[test]
fn too_many_sequences_are_refused_before_they_take_memory() {
    let (_folder, bundle) = bundle();
    let served = Served::start(&bundle, &["--max-sequences", "8"]);
    for (path, body) in [
        ("/v1/completions", json!({"prompt": "a", "n": u32::MAX})),
        ("/v1/completions", json!({"prompt": "a", "n": u32::MAX, "best_of": u32::MAX, "stream": true})),
        ("/v1/completions", json!({"prompt": "a", "n": 0})),
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "a"}], "n": u32::MAX})),
        ("/v1/generate", json!({"token_ids": [1], "n": u32::MAX})),
    ] {
        let reply = served.post(path, &body);
        assert_eq!((reply.status, reply.error().0.as_deref()), (400, Some("n")), "{path}: {}", reply.text);
    }
    assert_eq!(served.post("/v1/completions", &json!({"prompt": "a", "max_tokens": 1, "n": 8})).status, 200);
}

/// Bodies and texts take many times their bytes of memory where they have many values or tokens.
#[test]
fn bodies_and_texts_are_bounded_by_what_they_become() {
    let (_folder, bundle) = bundle();
    let served = Served::start(&bundle, &[]);
    let values = format!("[{}0]", "0,".repeat(1 << 20));
    let content = format!(r#"{{"messages": [{{"role": "user", "content": {values}}}]}}"#);
    for (path, body) in
        [("/v1/chat/completions", content), ("/detokenize", format!(r#"{{"tokens": {values}}}"#))]
    {
        let reply = send(served.address, "POST", path, "", Some(&body)).read();
        assert_eq!(
            (reply.status, reply.error().1.as_str()),
            (413, "body_too_large"),
            "{path}: {}",
            reply.text
        );
    }
    let text = "a".repeat((512 << 10) + 1);
    for (path, body, param) in [
        ("/v1/completions", json!({"prompt": text}), "prompt"),
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": text}]}), "messages"),
        ("/v1/responses", json!({"input": text}), "input"),
        ("/tokenize", json!({"prompt": text}), "prompt"),
    ] {
        let reply = served.post(path, &body);
        assert_eq!((reply.status, reply.error().0.as_deref()), (400, Some(param)), "{path}: {}", reply.text);
    }
}

/// Each method that somebody made up had counters of its own for good.
#[test]
fn methods_that_are_none_are_counted_as_one() {
    let (_folder, bundle) = bundle();
    let served = Served::start(&bundle, &[]);
    for method in ["BREW", "WHEN"] {
        assert_eq!(send(served.address, method, "/health", "", None).read().status, 405);
    }
    let told = served.get("/metrics").text;
    assert!(!told.contains("BREW") && !told.contains("WHEN"), "{told}");
    assert!(told.contains("method=\"other\""), "{told}");
}

/// hyper waits for the version of HTTP without end, and a connection that sends nothing holds one of those that may be.
#[test]
fn connections_that_ask_nothing_are_closed() {
    let (_folder, bundle) = bundle();
    let served = Served::start(&bundle, &["--read-timeout", "0.3"]);
    for begun in [&b""[..], b"PRI * HT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HT"] {
        let mut socket = raw(served.address, begun);
        let mut answer = Vec::new();
        // Closed or reset: no longer than a test has patience.
        let ended = socket.read_to_end(&mut answer);
        assert!(!ended.is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "{begun:?}");
    }
    assert_eq!(served.get("/health").status, 200);
}
