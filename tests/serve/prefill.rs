//! Prompts of many requests: encoded between the bursts of others, equal ones once, and counted.

use crate::served::Served;
use crate::{bundle, ids};
use serde_json::{Value, json};

/// Tokens of the requests of these prompts, all at once.
fn outputs(served: &Served, bodies: &[Value]) -> Vec<Vec<i64>> {
    let ask = |body: &Value| ids(&served.post("/v1/generate", body).json()["outputs"][0]["token_ids"]);
    std::thread::scope(|scope| {
        let asked: Vec<_> = bodies.iter().map(|body| scope.spawn(move || ask(body))).collect();
        asked.into_iter().map(|answer| answer.join().expect("an answer")).collect()
    })
}

fn asked(prompt: usize, seed: usize) -> Value {
    let prompt: Vec<usize> = (0..64 + 16 * prompt).map(|at| (prompt * 31 + at * 7) % 500).collect();
    json!({"token_ids": prompt, "max_tokens": 24, "seed": seed, "ignore_eos": true, "top_k": 0})
}

#[test]
fn prompts_are_encoded_in_turns_and_counted() {
    let (_folder, bundle) = bundle();
    let bodies: Vec<Value> = (0..12).map(|number| asked(number % 4, number)).collect();
    let free = Served::start(&bundle, &["--batch", "12"]);
    let bounded = Served::start(&bundle, &["--batch", "12", "--max-prefill-tokens", "100"]);
    let before = bounded.counted("photonc_prefill_tokens_total");
    assert!(before > 0.0, "first tokens are generated while it loads");
    let expected: Vec<Vec<i64>> =
        bodies.iter().flat_map(|body| outputs(&free, std::slice::from_ref(body))).collect();
    assert_eq!(outputs(&bounded, &bodies), expected);
    assert_eq!(outputs(&free, &bodies), expected);
    for served in [&free, &bounded] {
        let prompts: usize = bodies.iter().map(|body| body["token_ids"].as_array().map_or(0, Vec::len)).sum();
        let runs = if std::ptr::eq(served, &free) { 2 } else { 1 };
        let told = ["photonc_prefill_tokens_total", "photonc_shared_prompt_tokens_total"];
        let counted: f64 = told.iter().map(|name| served.counted(name)).sum();
        assert_eq!(counted - before, (runs * prompts) as f64, "every token is encoded or shared");
    }
}
