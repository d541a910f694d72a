//! Parameters at their edges: what is honoured shows in the answer, what asks for nothing changes nothing.

use crate::http::{events, raw, send};
use crate::served::Served;
use crate::{bundle, ids};
use serde_json::{Value, json};
use std::io::Read as _;

fn with(base: &Value, more: Value) -> Value {
    let mut body = base.clone();
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[test]
fn edges_of_parameters() {
    let (_folder, bundle) = bundle();
    let served = Served::start(&bundle, &[]);
    let base = json!({"prompt": "Hello", "max_tokens": 8, "temperature": 0});
    let text = |more: Value| {
        let reply = served.post("/v1/completions", &with(&base, more));
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.json()
    };
    let plain = text(json!({}))["choices"].clone();
    // What asks for nothing is as if it were not there; so is what is null, known here or not.
    for more in [
        json!({"stop": null, "n": null, "suffix": null, "logprobs": null, "stream": null, "stream_options": null}),
        json!({"functions": null, "guided_json": null}),
        json!({"use_beam_search": false, "length_penalty": 1, "skip_special_tokens": true, "best_of": 1}),
    ] {
        assert_eq!(text(more.clone())["choices"], plain, "{more}");
    }
    let sampled = json!({"temperature": 1, "seed": -9, "n": 3, "best_of": 3});
    let (first, second) = (text(sampled.clone()), text(sampled));
    assert_eq!(first["choices"], second["choices"]);
    assert_eq!(first["usage"]["completion_tokens"], 24);
    assert_ne!(first["choices"][0]["text"], first["choices"][1]["text"]);

    // Log-probabilities of nothing, of a prompt alone, and of the tokens themselves.
    let empty = text(json!({"prompt": "", "echo": true, "logprobs": 1, "max_tokens": 0}));
    assert_eq!(empty["choices"][0]["logprobs"]["tokens"], json!([]));
    let told = text(json!({"logprobs": 0}))["choices"][0]["logprobs"].clone();
    for (token, top) in
        told["tokens"].as_array().unwrap().iter().zip(told["top_logprobs"].as_array().unwrap())
    {
        assert_eq!(top.as_object().unwrap().keys().collect::<Vec<_>>(), [token.as_str().unwrap()]);
    }
    let echoed = text(json!({"echo": true, "logprobs": 2}))["choices"][0].clone();
    assert!(echoed["text"].as_str().unwrap().starts_with("Hello"));
    let offsets: Vec<i64> = ids(&echoed["logprobs"]["text_offset"]);
    assert_eq!(offsets[0], 0);
    assert!(offsets.windows(2).all(|pair| pair[0] <= pair[1]));

    // Every chunk says how much was used so far, the last as much as all.
    let body = with(
        &base,
        json!({"max_tokens": 100, "ignore_eos": true, "n": 2, "stream": true,
               "stream_options": {"include_usage": true, "continuous_usage_stats": true}}),
    );
    let (documents, done) = events(&served.post("/v1/completions", &body).text);
    let used: Vec<u64> =
        documents.iter().map(|document| document["usage"]["completion_tokens"].as_u64().unwrap()).collect();
    assert!(done && used.len() > 3 && used.is_sorted() && used.last() == Some(&200), "{used:?}");
    let chat = json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "temperature": 0, "stream": true,
        "stream_options": {"include_usage": true, "continuous_usage_stats": true}});
    let (documents, _) = events(&served.post("/v1/chat/completions", &chat).text);
    assert!(
        documents.iter().all(|document| document["usage"]["prompt_tokens"].as_u64() > Some(0)),
        "{documents:?}"
    );

    let info = served.get("/tokenizer_info").json();
    assert_eq!(info["tokenizer_class"], "PreTrainedTokenizerFast");
    assert!(info["chat_template"].as_str().is_some_and(|template| template.contains("messages")), "{info}");
}

#[test]
fn edges_are_refused_by_name() {
    let (_folder, bundle) = bundle();
    let served = Served::start(&bundle, &[]);
    let many: Vec<i64> = vec![1; 5000];
    for (path, body, status, param) in [
        ("/v1/completions", json!({"prompt": "a", "best_of": 3, "n": 2}), 400, "best_of"),
        ("/v1/completions", json!({"prompt": "a", "min_tokens": 9, "max_tokens": 8}), 400, "min_tokens"),
        ("/v1/completions", json!({"prompt": many}), 400, "prompt"),
        ("/v1/completions", json!({"prompt": "a", "length_penalty": 2}), 400, "length_penalty"),
        ("/v1/completions", json!({"prompt": "a", "skip_special_tokens": false}), 400, "skip_special_tokens"),
        ("/v1/completions", json!({"prompt": null}), 422, "prompt"),
        ("/v1/completions", json!({"prompt": ["a", 5]}), 422, "prompt"),
        ("/v1/completions", json!({"prompt": "a", "max_tokens": 1e20}), 422, "max_tokens"),
        (
            "/v1/completions",
            json!({"prompt": "a", "stream": true, "stream_options": {"x": 1}}),
            400,
            "stream_options.x",
        ),
        (
            "/v1/completions",
            json!({"prompt": "a", "stream": true, "stream_options": {"continuous_usage_stats": true}}),
            400,
            "stream_options.continuous_usage_stats",
        ),
        ("/v1/responses", json!({"input": []}), 400, "input"),
        ("/v1/responses", json!({"input": [{"role": "user"}], "instructions": "x"}), 400, "input[0].content"),
        ("/v1/chat/completions", json!({"messages": [{"content": "x"}]}), 400, "messages[0].role"),
    ] {
        let reply = served.post(path, &body);
        assert_eq!((reply.status, reply.error().0.as_deref()), (status, Some(param)), "{}", reply.text);
    }
    let twice =
        send(served.address, "POST", "/tokenize", "", Some("{\"prompt\": \"a\", \"prompt\": \"b\"}")).read();
    assert_eq!((twice.status, twice.error()), (400, (Some("prompt".into()), "duplicate_parameter".into())));
    let packed = "content-encoding: gzip\r\n";
    assert_eq!(send(served.address, "POST", "/tokenize", packed, Some("{}")).read().status, 415);
    for (method, path, status) in [
        ("HEAD", "/v1/models", 200),
        ("OPTIONS", "/v1/completions", 200),
        ("PUT", "/v1/completions", 405),
        ("GET", "/v1/none", 404),
    ] {
        assert_eq!(send(served.address, method, path, "", None).status, status, "{method} {path}");
    }
    let mut answer = String::new();
    let letters = b"POST /tokenize HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n{\"prompt\":\"\xff\xfe\"}";
    raw(served.address, letters).read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}
