//! KServe's protocol: what the other endpoints answer in tensors and texts, every parameter honoured or refused, and errors in
//! one form wherever they come from.

use crate::http::{Reply, events, send};
use crate::served::Served;
use crate::{bundle, ids};
use rustix::process::Signal;
use serde_json::{Value, json};

const INFER: &str = "/v2/models/small/infer";
const GENERATE: &str = "/v2/models/small/generate";
const STREAM: &str = "/v2/models/small/generate_stream";

/// A server that calls the model `small`.
fn small(bundle: &std::path::Path, options: &[&str]) -> Served {
    Served::start(bundle, &[&["--served-model-name", "small"], options].concat())
}

/// The text of an error, which has the protocol's form.
fn told(reply: &Reply) -> String {
    let error = reply.json();
    assert_eq!(error.as_object().map(serde_json::Map::len), Some(1), "{}", reply.text);
    error["error"].as_str().unwrap_or_else(|| panic!("{}", reply.text)).to_owned()
}

/// An output of an inference by its name: type, shape and data.
fn output(answer: &Value, name: &str) -> Option<(String, Value, Value)> {
    let outputs = answer["outputs"].as_array().expect("outputs");
    let found = outputs.iter().find(|output| output["name"] == name)?;
    Some((found["datatype"].as_str()?.to_owned(), found["shape"].clone(), found["data"].clone()))
}

fn text_tensor(text: &str) -> Value {
    json!([{"name": "text_input", "shape": [1], "datatype": "BYTES", "data": [text]}])
}

fn long() -> Value {
    json!({"text_input": "Hello", "parameters": {"max_tokens": 400, "ignore_eos": true, "seed": 1}})
}

/// Tensors, texts and streams are what `/v1/completions` gives of the same parameters.
#[test]
fn the_protocol_gives_what_completions_give() {
    let (_folder, bundle) = bundle();
    let served = small(&bundle, &[]);
    let metadata = served.get("/v2").json();
    assert_eq!((&metadata["name"], &metadata["extensions"]), (&json!("photonc"), &json!(["generate"])));
    assert_eq!(served.get("/v2/health/live").json(), json!({"live": true}));
    assert_eq!(served.get("/v2/health/ready").json(), json!({"ready": true}));
    assert_eq!(served.get("/v2/models/small/ready").json(), json!({"name": "small", "ready": true}));
    let model = served.get("/v2/models/small").json();
    let input = |at: usize| (model["inputs"][at]["name"].clone(), model["inputs"][at]["shape"].clone());
    assert_eq!((input(0), input(1)), ((json!("text_input"), json!([1])), (json!("input_ids"), json!([-1]))));
    assert!(model.get("versions").is_none(), "{model}");

    let drawn = json!({"max_tokens": 24, "seed": 3, "temperature": 0.8, "ignore_eos": true});
    let mut asked = json!({"prompt": "Hello", "return_token_ids": true});
    asked.as_object_mut().unwrap().extend(drawn.as_object().unwrap().clone());
    let expected = served.post("/v1/completions", &asked).json()["choices"][0].clone();
    let prompt = ids(&expected["prompt_token_ids"]);

    let body = json!({"id": "7", "inputs": text_tensor("Hello"), "parameters": drawn});
    let answer = served.post(INFER, &body).json();
    assert_eq!((&answer["id"], &answer["model_name"]), (&json!("7"), &json!("small")), "{answer}");
    assert!(answer.get("model_version").is_none(), "{answer}");
    let text = ("BYTES".to_owned(), json!([1]), json!([expected["text"]]));
    let tokens = ("INT64".to_owned(), json!([24]), expected["token_ids"].clone());
    let reason = ("BYTES".to_owned(), json!([1]), json!(["length"]));
    assert_eq!(output(&answer, "text_output").as_ref(), Some(&text));
    assert_eq!(output(&answer, "output_ids").as_ref(), Some(&tokens));
    assert_eq!(output(&answer, "finish_reason"), Some(reason));

    // Ids in a row or in rows of a batch of one; only the outputs that are asked for.
    for (shape, data) in [(json!([prompt.len()]), json!(prompt)), (json!([1, prompt.len()]), json!([prompt]))]
    {
        let tensor = json!({"name": "input_ids", "shape": shape, "datatype": "INT64", "data": data});
        let wanted = json!([{"name": "output_ids", "parameters": {"binary_data": false}}]);
        let body = json!({"model_name": "small", "inputs": [tensor], "outputs": wanted, "parameters": drawn});
        let answer = served.post(INFER, &body).json();
        assert_eq!(output(&answer, "output_ids").as_ref(), Some(&tokens), "{answer}");
        assert_eq!((output(&answer, "text_output"), answer.get("id")), (None, None), "{answer}");
    }
    let empty = json!({"name": "input_ids", "shape": [0], "datatype": "INT64", "data": []});
    let answer = served.post(INFER, &json!({"inputs": [empty], "parameters": {"max_tokens": 2}})).json();
    assert!(output(&answer, "output_ids").is_some(), "{answer}");

    // Parameters in their object, beside it, and in both places; what asks for nothing changes nothing.
    let mut beside = json!({"text_input": "Hello", "stream": false});
    beside.as_object_mut().unwrap().extend(drawn.as_object().unwrap().clone());
    let both = json!({"text_input": "Hello", "seed": 3, "ignore_eos": true, "best_of": 1,
        "parameters": {"max_tokens": 24, "temperature": 0.8, "use_beam_search": false, "stop": null}});
    for body in [json!({"text_input": "Hello", "parameters": drawn}), beside, both] {
        let answer = served.post(GENERATE, &body).json();
        let expected =
            json!({"model_name": "small", "text_output": expected["text"], "finish_reason": "length"});
        assert_eq!(answer, expected, "{body}");
    }
    let stop: String = expected["text"].as_str().unwrap().chars().skip(6).take(2).collect();
    let mut stopped = json!({"id": "s", "text_input": "Hello", "parameters": drawn});
    stopped["parameters"]["stop"] = json!([stop]);
    let expected = expected["text"].as_str().unwrap().split(&stop).next().unwrap();
    let answer = served.post(GENERATE, &stopped).json();
    assert_eq!((&answer["text_output"], &answer["finish_reason"]), (&json!(expected), &json!("stop")));
    let reply = served.post(STREAM, &stopped);
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    let (documents, has_mark) = events(&reply.text);
    assert!(!has_mark, "every event is JSON: {}", reply.text);
    let text: String = documents.iter().filter_map(|document| document["text_output"].as_str()).collect();
    assert_eq!(text, expected);
    let done: Vec<bool> = documents.iter().map(|document| document["done"].as_bool().unwrap()).collect();
    assert!(done.iter().rev().skip(1).all(|done| !done) && done.last() == Some(&true), "{}", reply.text);
    assert!(documents.iter().all(|document| document["id"] == "s"), "{}", reply.text);

    let document = served.get("/openapi.json").json();
    for path in ["infer", "generate", "generate_stream"] {
        let operation = &document["paths"][format!("/v2/models/{{model}}/{path}")]["post"];
        let schema = &operation["responses"]["400"]["content"]["application/json"]["schema"]["$ref"];
        assert_eq!(schema, "#/components/schemas/ProtocolError", "{operation}");
    }
    let parameters = &document["components"]["schemas"]["InferenceParameters"]["properties"];
    assert!(parameters["max_tokens"].is_object() && parameters["temperature"].is_object(), "{parameters}");
}

/// What cannot be met is refused by its name, in tensors and around them.
#[test]
fn the_protocol_refuses_by_name() {
    let (_folder, bundle) = bundle();
    let served = small(&bundle, &[]);
    let tensor = |name: &str, shape: Value, datatype: &str, data: Value| {
        (INFER, json!({"inputs": [{"name": name, "shape": shape, "datatype": datatype, "data": data}]}))
    };
    let with = |parameters: Value| (INFER, json!({"inputs": text_tensor("a"), "parameters": parameters}));
    let asked = |parameters: Value| (GENERATE, json!({"text_input": "a", "parameters": parameters}));
    let outputs = |outputs: Value| (INFER, json!({"inputs": text_tensor("a"), "outputs": outputs}));
    let mut binary = json!({"inputs": text_tensor("a")});
    binary["inputs"][0]["parameters"] = json!({"binary_data_size": 5});
    for ((path, body), status, name) in [
        ((INFER, json!({})), 400, "inputs"),
        ((INFER, json!({"inputs": []})), 400, "inputs"),
        ((INFER, json!({"inputs": {}})), 422, "inputs"),
        ((INFER, json!({"inputs": [["text_input", [1], "BYTES", null, ["a"]]]})), 422, "inputs[0]"),
        ((INFER, json!({"inputs": text_tensor("a"), "more": 1})), 400, "more"),
        ((INFER, json!({"inputs": text_tensor("a"), "model_name": "x"})), 400, "model_name"),
        ((INFER, binary), 400, "binary_data_size"),
        (tensor("x", json!([1]), "BYTES", json!(["a"])), 400, "inputs[0].name"),
        (tensor("text_input", json!([1]), "INT64", json!([1])), 400, "inputs[0].datatype"),
        (tensor("text_input", json!([2]), "BYTES", json!(["a", "b"])), 400, "inputs[0].shape"),
        (tensor("text_input", json!([-1]), "BYTES", json!(["a"])), 422, "inputs[0].shape"),
        (tensor("text_input", json!([1]), "BYTES", json!([])), 400, "inputs[0].data"),
        (tensor("text_input", json!([1]), "BYTES", json!([1])), 400, "inputs[0].data"),
        (tensor("input_ids", json!([2]), "INT32", json!([1, 2])), 400, "inputs[0].datatype"),
        (tensor("input_ids", json!([1, 1, 2]), "INT64", json!([1, 2])), 400, "inputs[0].shape"),
        (tensor("input_ids", json!([3]), "INT64", json!([1, 2])), 400, "inputs[0].data"),
        (tensor("input_ids", json!([1, 2]), "INT64", json!([[1], [2]])), 400, "inputs[0].data"),
        (tensor("input_ids", json!([2]), "INT64", json!([1, "a"])), 422, "inputs[0].data"),
        (tensor("input_ids", json!([1]), "INT64", json!([99999])), 400, "input_ids"),
        (outputs(json!([{"name": "logits"}])), 400, "outputs[0].name"),
        (outputs(json!([{"name": "output_ids", "parameters": {"binary_data": true}}])), 400, "binary_data"),
        (
            outputs(json!([{"name": "output_ids", "parameters": {"classification": 2}}])),
            400,
            "classification",
        ),
        (with(json!([1])), 422, "parameters"),
        (with(json!({"temperature": -1})), 400, "temperature"),
        (with(json!({"temperature": "hot"})), 422, "temperature"),
        (with(json!({"n": 2})), 400, "n"),
        (with(json!({"max_tokens": 0})), 400, "max_tokens"),
        (with(json!({"binary_data_output": true})), 400, "binary_data_output"),
        (with(json!({"stream": true})), 400, "stream"),
        (with(json!({"model": "x"})), 400, "model"),
        ((GENERATE, json!({})), 400, "text_input"),
        ((GENERATE, json!({"text_input": ["a"]})), 422, "text_input"),
        ((GENERATE, json!({"text_input": "a", "seed": 1, "parameters": {"seed": 1}})), 400, "seed"),
        ((GENERATE, json!({"text_input": "a", "beams": 2})), 400, "beams"),
        (asked(json!({"best_of": 2})), 400, "best_of"),
        (asked(json!({"stop": ""})), 400, "stop"),
        (asked(json!({"min_tokens": 9, "max_tokens": 8})), 400, "min_tokens"),
        (asked(json!({"max_tokens": 1_000_000})), 400, "max_tokens"),
        (asked(json!({"protocol": "x"})), 400, "protocol"),
        (asked(json!({"prompt_length": 99})), 400, "prompt_length"),
        ((STREAM, json!({"text_input": "a", "parameters": {"stream": false}})), 400, "stream"),
        (("/v2/models/x/infer", json!({"inputs": text_tensor("a")})), 404, "x"),
        (("/v2/models/small/versions/1/infer", json!({"inputs": text_tensor("a")})), 404, "versions"),
    ] {
        let reply = served.post(path, &body);
        assert_eq!(reply.status, status, "{body}: {}", reply.text);
        assert!(told(&reply).contains(name), "{body}: {}", reply.text);
    }
    let twice = r#"{"text_input": "a", "text_input": "b", "seed": 1}"#;
    let reply = send(served.address, "POST", GENERATE, "", Some(twice)).read();
    assert!(reply.status == 400 && told(&reply).contains("given twice"), "{}", reply.text);
    assert_eq!(served.get("/v2/health/ready").status, 200);
}

/// Routing, keys and bodies have errors of the protocol too, and probes need no key.
#[test]
fn errors_around_the_protocol_have_its_form() {
    let (_folder, bundle) = bundle();
    let served = small(&bundle, &["--api-key", "secret", "--root-path", "/llm"]);
    let key = "authorization: Bearer secret\r\n";
    for (method, path, more, status) in [
        ("GET", "/llm/v2/models/small", "", 401),
        ("POST", "/llm/v2/models/small/generate", "", 401),
        ("GET", "/llm/v2/models/small/generate", key, 405),
        ("GET", "/llm/v2/models/small/versions/1", key, 404),
        ("GET", "/llm/v2/models/small/versions/1/ready", key, 404),
        ("GET", "/llm/v2/models/other/ready", key, 404),
        ("GET", "/llm/v2/models/%ff", key, 400),
        ("GET", "/llm/v2/repository/index", key, 404),
        ("POST", "/llm/v2/models/small/infer", key, 415),
    ] {
        let reply = send(served.address, method, path, more, None).read();
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text);
        told(&reply);
    }
    let refused = send(served.address, "GET", "/llm/v2/models/small", "", None).read();
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    for path in ["/llm/v2", "/llm/v2/health/live", "/llm/v2/health/ready"] {
        assert_eq!(served.get(path).status, 200, "{path}");
    }
    // Other paths keep their own form.
    assert_eq!(served.get("/llm/v1/models").error().1, "invalid_api_key");
}

/// A full queue says when to come again; a server that drains is not ready, and its streams are whole.
#[test]
fn the_protocol_says_what_cannot_be_now() {
    let (_folder, bundle) = bundle();
    let served = small(&bundle, &["--batch", "1", "--max-queue", "1", "--run-ahead", "1"]);
    let mut streams = Vec::new();
    let refused = loop {
        let begun = served.begin_post(STREAM, &long());
        if begun.status != 200 {
            break begun.read();
        }
        streams.push(begun);
        assert!(streams.len() < 32, "one row and room for one that waits have taken all of them");
    };
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")), "{}", refused.text);
    told(&refused);
    served.signal(Signal::TERM);
    served.wait("it drains", |served| served.get("/v2/health/ready").json() == json!({"ready": false}));
    for stream in streams {
        let (documents, _) = events(&stream.read().text);
        assert_eq!(documents.last().expect("an event")["done"], true);
    }
    assert!(served.ended().success());
}

/// Streams that are cut off end with an error in the protocol's form, not as if they were whole.
#[test]
fn streams_that_break_off_say_so() {
    let (_folder, bundle) = bundle();
    let served = small(&bundle, &["--run-ahead", "1", "--request-timeout", "0.001"]);
    let (documents, _) = events(&served.post(STREAM, &long()).text);
    let last = documents.last().expect("an event");
    assert!(last["error"].is_string() && last.get("done").is_none(), "{last}");
}
