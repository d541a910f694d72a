//! Text on the command line: prompts, stop strings, a checkpoint's own defaults, chat. Each test runs the program.

mod speaking;

use serde_json::{Value, json};
use speaking::{SIZE, speaking_bundle};
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Output;

type TestResult = Result<(), Box<dyn Error>>;

/// Shorter than a meta-context.
const SHORT: &str = "Too short.";

const PROMPT: &str = "It was so late in the evening that no one had thought of it.";

fn photonc(folder: &Path, arguments: &[&str], input: &str) -> Result<Output, Box<dyn Error>> {
    let mut command = assert_cmd::Command::cargo_bin("photonc")?;
    let command = command.current_dir(folder).args(arguments).env("NO_COLOR", "1").env("COLUMNS", "100");
    Ok(command.write_stdin(input).output()?)
}

fn document(folder: &Path, arguments: &[&str]) -> Result<Value, Box<dyn Error>> {
    let output = photonc(folder, &[arguments, &["--json"]].concat(), "")?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn generate<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["generate", "bundle", "--prompt", PROMPT, "--top-k", "40", "--seed", "5"], more].concat()
}

/// What is printed is the text of the tokens, whether it streams, comes at the end or as JSON.
#[test]
fn a_prompt_of_text_gives_text() -> TestResult {
    let folder = tempfile::tempdir()?;
    speaking_bundle(folder.path(), &[])?;
    let whole = document(folder.path(), &generate(&["-n", "40"]))?;
    let text = whole["text"].as_str().ok_or("no text")?.to_owned();
    assert!(!text.is_empty());
    let streamed = photonc(folder.path(), &generate(&["-n", "40", "--run-ahead", "1"]), "")?;
    assert_eq!(String::from_utf8(streamed.stdout)?.trim_end_matches('\n'), text.trim_end_matches('\n'));
    assert!(String::from_utf8_lossy(&streamed.stderr).contains("40 tokens in "));
    let piped = ["generate", "bundle", "--prompt", "-", "--top-k", "40", "--seed", "5", "-n", "40", "-q"];
    let piped = photonc(folder.path(), &piped, PROMPT)?;
    assert!(piped.status.success() && piped.stderr.is_empty());
    assert_eq!(String::from_utf8(piped.stdout)?.trim_end_matches('\n'), text.trim_end_matches('\n'));
    let ids = photonc(folder.path(), &generate(&["-n", "40", "--print", "ids"]), "")?;
    let ids: Result<Vec<i64>, _> =
        String::from_utf8(ids.stdout)?.split_whitespace().map(str::parse).collect();
    assert_eq!(json!(ids?), whole["tokens"]);
    let two = document(folder.path(), &generate(&["-n", "40", "--samples", "2"]))?;
    assert_eq!(two["samples"][0]["text"], text);
    let shown =
        String::from_utf8(photonc(folder.path(), &generate(&["-n", "40", "--samples", "2"]), "")?.stdout)?;
    assert!(shown.starts_with(&format!("--- prompt 0 sample 0, length\n{text}")), "{shown}");
    Ok(())
}

/// `--stop` cuts text and sequence at the same place, in every form.
#[test]
fn a_stop_string_is_never_printed() -> TestResult {
    let folder = tempfile::tempdir()?;
    speaking_bundle(folder.path(), &[])?;
    let text = document(folder.path(), &generate(&["-n", "64"]))?["text"].as_str().ok_or("text")?.to_owned();
    let characters: Vec<char> = text.chars().collect();
    let stop: String = characters[20..23].iter().collect();
    let expected = &text[..text.find(&stop).ok_or("stop")?];
    for ahead in ["1", "4"] {
        let stopped =
            document(folder.path(), &generate(&["-n", "64", "--run-ahead", ahead, "--stop", &stop]))?;
        assert_eq!((&stopped["text"], &stopped["finish"]), (&json!(expected), &json!("stop")));
        let streamed =
            generate(&["-n", "64", "--run-ahead", ahead, "--stop", "never!", "--stop", &stop, "-q"]);
        let streamed = String::from_utf8(photonc(folder.path(), &streamed, "")?.stdout)?;
        assert_eq!(
            streamed.strip_suffix('\n').unwrap_or(&streamed),
            expected.strip_suffix('\n').unwrap_or(expected)
        );
    }
    Ok(())
}

/// The ends and the sampling that a checkpoint names hold unless the user says otherwise.
#[test]
fn a_checkpoint_names_its_ends_and_its_sampling() -> TestResult {
    let folder = tempfile::tempdir()?;
    speaking_bundle(folder.path(), &[])?;
    let arguments = ["generate", "bundle", "--prompt", PROMPT, "--seed", "5", "-n", "48"];
    let warm = [&arguments[..], &["--top-k", "40", "--temperature", "0.9"]].concat();
    let free = document(folder.path(), &warm)?;
    let tokens: Vec<i64> = serde_json::from_value(free["tokens"].clone())?;
    // Some token first drawn inside a meta-context is an end, beside one that is never drawn.
    let place = (17..31).find(|place| !tokens[..*place].contains(&tokens[*place])).ok_or("repeats")?;
    let never = (0..512).find(|id| !tokens.contains(id)).ok_or("draws everything")?;
    let config = json!({"eos_token_id": [never, tokens[place]], "top_k": 40, "temperature": 0.9, "max_new_tokens": 48});
    let folder = tempfile::tempdir()?;
    speaking_bundle(folder.path(), &[("generation_config.json", &config.to_string())])?;
    let ended = document(folder.path(), &arguments[..6])?;
    assert_eq!((&ended["tokens"], &ended["finish"]), (&json!(tokens[..place]), &json!("eos")));
    let told = photonc(folder.path(), &arguments, "")?;
    let told = String::from_utf8(told.stderr)?;
    assert!(told.contains("note: as generation_config.json says: temperature 0.9, top-k 40\n"), "{told}");
    let on = document(folder.path(), &[&arguments[..6], &["--ignore-eos"]].concat())?;
    assert_eq!((&on["tokens"], &on["finish"]), (&json!(tokens), &json!("length")));
    let greedy = document(folder.path(), &[&arguments[..], &["--greedy", "--ignore-eos"]].concat())?;
    assert!(greedy["tokens"] != on["tokens"]);
    Ok(())
}

/// `--chat` puts the template around the text; the end of a turn is the tokenizer's own mark.
#[test]
fn chat_goes_through_the_template() -> TestResult {
    let template = "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|stop|>\n{% endfor %}\
        {% if add_generation_prompt %}<|start|>assistant\n{% endif %}";
    let folder = tempfile::tempdir()?;
    let config = json!({"chat_template": template, "eos_token": {"content": "<|stop|>"}}).to_string();
    speaking_bundle(folder.path(), &[("tokenizer_config.json", &config)])?;
    let written =
        format!("<|start|>system\nBe brief.<|stop|>\n<|start|>user\n{PROMPT}<|stop|>\n<|start|>assistant\n");
    let more = ["--greedy", "-n", "32", "--ignore-eos"];
    let by_hand =
        document(folder.path(), &[&["generate", "bundle", "--prompt", &written], &more[..]].concat())?;
    let chat = ["generate", "bundle", "--chat", "--system", "Be brief.", "--prompt", PROMPT];
    let chat = document(folder.path(), &[&chat[..], &more].concat())?;
    assert_eq!((&chat["tokens"], &chat["dropped_left"]), (&by_hand["tokens"], &by_hand["dropped_left"]));
    Ok(())
}

/// Without a tokenizer, with a broken one, with wrong arguments: what is wrong and what to do.
#[test]
fn what_text_lacks_is_told() -> TestResult {
    let folder = tempfile::tempdir()?;
    speaking_bundle(
        folder.path(),
        &[("tokenizer.json", "{}"), ("generation_config.json", "{\"top_k\": []}")],
    )?;
    fs::rename(folder.path().join("bundle"), folder.path().join("broken"))?;
    for name in ["tokenizer.json", "generation_config.json"] {
        fs::remove_file(folder.path().join("model").join(name))?;
    }
    photonc(folder.path(), &["export", "model", "-o", "mute"], "")?;
    fs::copy(speaking::file("byte_level.json"), folder.path().join("model/tokenizer.json"))?;
    photonc(folder.path(), &["export", "model", "-o", "bundle"], "")?;
    let ids = "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16";
    let mut text = String::new();
    for arguments in [
        &["generate", "mute", "--prompt", "x"][..],
        &["generate", "mute", "--prompt-ids", ids, "--stop", "x"],
        &["generate", "mute", "--prompt-ids", ids, "--print", "text"],
        &["generate", "broken", "--prompt", "x"],
        &["generate", "broken", "--prompt-ids", ids],
        &["generate", "bundle", "--prompt", SHORT, "--align", "drop-left", "--greedy"],
        &["generate", "bundle", "--prompt", PROMPT, "--chat"],
        &["generate", "bundle", "--prompt-ids", ids, "--chat"],
        &["generate", "bundle", "--prompt", PROMPT, "--stop", ""],
        &["generate", "bundle", "--prompt", PROMPT, "--system", "x"],
    ] {
        let output = photonc(folder.path(), arguments, "")?;
        text.push_str(&format!("$ photonc {}\n", arguments.join(" ")));
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        text.push_str(&format!("--- exit code {}\n", output.status.code().unwrap_or(-1)));
    }
    insta::assert_snapshot!("what_text_lacks", text);
    Ok(())
}

/// Lines of a file of results, without their keys.
fn results(path: &Path) -> Result<Vec<Value>, Box<dyn Error>> {
    let lines = fs::read_to_string(path)?;
    let mut results: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    results.iter_mut().for_each(|line| line["key"] = json!(".."));
    Ok(results)
}

/// A file of prompts: the results are those of each prompt alone, shorter than a meta-context or not, bad prompts say so in
/// their place, and the same command goes on after a kill in the middle of a line without doing anything twice.
#[test]
fn a_file_of_prompts_is_answered_once_whatever_happens() -> TestResult {
    let folder = tempfile::tempdir()?;
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:";
    speaking_bundle(folder.path(), &[("chat_template.jinja", template)])?;
    let lines = [
        json!({"id": "first", "prompt": PROMPT}),
        json!({"id": 2, "prompt_ids": (1..40).collect::<Vec<i64>>(), "seed": 9}),
        json!({"prompt_ids": [1, 2, SIZE]}),
        json!({"id": "chat", "messages": [{"role": "user", "content": PROMPT}], "max_new_tokens": 7}),
        json!({"id": "last", "prompt": PROMPT}),
        json!({"id": "short", "prompt": SHORT}),
    ];
    let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
    fs::write(folder.path().join("in.jsonl"), lines.join("\n"))?;
    let command = [
        "generate",
        "bundle",
        "--prompts-file",
        "in.jsonl",
        "--out",
        "out.jsonl",
        "-n",
        "20",
        "--top-k",
        "40",
        "--seed",
        "5",
        "--batch",
        "2",
    ];
    let output = photonc(folder.path(), &command, "")?;
    assert_eq!(output.status.code(), Some(1), "one prompt has an unknown token");
    let told = String::from_utf8(output.stderr)?;
    assert!(told.contains("some prompts have no result") && told.contains("1 of 6"), "{told}");
    let out = folder.path().join("out.jsonl");
    let whole = fs::read(&out)?;
    let found = results(&out)?;
    assert_eq!(found.len(), 6);
    assert!(found.iter().enumerate().all(|(at, line)| line["index"] == at));
    let alone = document(folder.path(), &generate(&["-n", "20"]))?;
    for at in [0, 4] {
        assert_eq!((&found[at]["tokens"], &found[at]["text"]), (&alone["tokens"], &alone["text"]), "{at}");
    }
    let short = ["generate", "bundle", "--prompt", SHORT, "--top-k", "40", "--seed", "5", "-n", "20"];
    let short = document(folder.path(), &short)?;
    assert_eq!((&found[5]["tokens"], &found[5]["text"]), (&short["tokens"], &short["text"]));
    assert!(found.iter().all(|line| line["error"].is_string() || line["dropped_left"] == 0));
    assert_eq!(
        (&found[0]["id"], &found[1]["id"], found[3]["tokens"].as_array().map(Vec::len)),
        (&json!("first"), &json!(2), Some(7))
    );
    assert!(found[2]["error"].as_str().is_some_and(|error| error.contains("prompt 2: ")), "{}", found[2]);
    // Killed in the middle of the third line.
    let ends: Vec<usize> =
        whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at).collect();
    fs::write(&out, &whole[..ends[1] + 9])?;
    let report = photonc(folder.path(), &[&command[..], &["--json"]].concat(), "")?;
    let report: Value = serde_json::from_slice(&report.stdout)?;
    assert_eq!(
        (&report["prompts"], &report["done_before"], &report["failed"]),
        (&json!(6), &json!(2), &json!(1))
    );
    assert!(fs::read(&out)? == whole, "the results of two runs are those of one");
    // Nothing is left to do, and the results of other options are not mixed in.
    assert_eq!(
        photonc(folder.path(), &command, "")?.status.code(),
        Some(1),
        "one still has an unknown token"
    );
    assert!(fs::read(&out)? == whole);
    let other = photonc(folder.path(), &[&command[..8], &["--top-k", "39"]].concat(), "")?;
    assert_eq!(other.status.code(), Some(1));
    assert!(String::from_utf8(other.stderr)?.contains("the result of prompt 0 was made of other input"));
    assert!(fs::read(&out)? == whole);
    // Without a file the lines go to standard output.
    let printed = photonc(folder.path(), &[&command[..4], &command[6..]].concat(), "")?;
    assert!(printed.stdout == whole);
    Ok(())
}

/// A file of prompts, or of results, that is none is refused before anything is generated.
#[test]
fn files_that_are_none_are_refused() -> TestResult {
    let folder = tempfile::tempdir()?;
    speaking_bundle(folder.path(), &[])?;
    let mut text = String::new();
    for (input, out) in [
        ("{\"prompt\": \"x\"", ""),
        ("{\"prompt\": \"x\", \"prompt_ids\": [1]}", ""),
        ("\n{\"prompt\": \"x\", \"temperature\": 1}", ""),
        ("{\"prompt_ids\": [1]}", "not a result\n"),
        ("{\"prompt_ids\": [1]}", "{\"index\": 7, \"key\": \"\"}\n"),
    ] {
        fs::write(folder.path().join("in.jsonl"), input)?;
        fs::write(folder.path().join("out.jsonl"), out)?;
        let arguments = ["generate", "bundle", "--prompts-file", "in.jsonl", "--out", "out.jsonl"];
        let output = photonc(folder.path(), &arguments, "")?;
        text.push_str(&format!("# {input}\n{}", String::from_utf8_lossy(&output.stderr)));
        text.push_str(&format!("--- exit code {}\n", output.status.code().unwrap_or(-1)));
        assert_eq!(fs::read_to_string(folder.path().join("out.jsonl"))?, out);
    }
    insta::assert_snapshot!("files_that_are_none", text);
    Ok(())
}

/// Penalties change what is drawn and are told of; a checkpoint may ask for one.
#[test]
fn penalties_come_from_the_user_or_the_checkpoint() -> TestResult {
    let folder = tempfile::tempdir()?;
    speaking_bundle(folder.path(), &[("generation_config.json", "{\"repetition_penalty\": 1.5}")])?;
    let theirs = document(folder.path(), &generate(&[]))?;
    assert_eq!(theirs["host_sampled"], true);
    let asked = document(folder.path(), &generate(&["--no-defaults", "--repetition-penalty", "1.5"]))?;
    assert_eq!(theirs["tokens"], asked["tokens"]);
    let none = document(folder.path(), &generate(&["--repetition-penalty", "1"]))?;
    assert!(none["host_sampled"] == false && none["tokens"] != asked["tokens"]);
    let told = String::from_utf8(photonc(folder.path(), &generate(&[]), "")?.stderr)?;
    assert!(told.contains("as generation_config.json says: repetition-penalty 1.5"), "{told}");
    assert!(told.contains("drawn outside the graphs"), "{told}");
    let bad = photonc(folder.path(), &generate(&["--repetition-penalty", "0"]), "")?;
    assert_eq!(bad.status.code(), Some(2));
    Ok(())
}

/// Perplexity of a text is that of its tokens; bits per byte count the bytes of what was scored.
#[test]
fn a_text_is_scored_as_its_tokens() -> TestResult {
    let folder = tempfile::tempdir()?;
    speaking_bundle(folder.path(), &[])?;
    let text = fs::read_to_string(speaking::file("text.txt"))?;
    let text = &text[..600];
    fs::write(folder.path().join("text.txt"), text)?;
    let encoded = speaking::tokenizer("byte_level.json").encode(text, false)?;
    let ids: Vec<String> = encoded.ids.iter().map(ToString::to_string).collect();
    fs::write(folder.path().join("ids.txt"), ids.join(" "))?;
    let scored = document(folder.path(), &["score", "bundle", "--text-file", "text.txt"])?;
    let by_ids = document(folder.path(), &["score", "bundle", "--ids-file", "ids.txt"])?;
    assert_eq!(scored["perplexity"], by_ids["perplexity"]);
    assert!(by_ids["bytes"].is_null() && by_ids["bits_per_byte"].is_null());
    assert!(!encoded.ids.len().is_multiple_of(16), "no whole number of meta-contexts");
    assert_eq!((&scored["tokens"], &scored["windows"]), (&json!(encoded.ids.len()), &json!(1)));
    let bytes = text.len() - encoded.starts[0];
    assert_eq!((&scored["bytes"], scored.get("dropped_left")), (&json!(bytes), None));
    let loss = scored["negative_log_likelihood"].as_f64().ok_or("a number")?;
    let bits = scored["bits_per_byte"].as_f64().ok_or("a number")?;
    assert!((bits - loss / 2f64.ln() / bytes as f64).abs() < 1e-12);
    // Not even one meta-context.
    let few = document(folder.path(), &["score", "bundle", "--ids", &ids[..5].join(",")])?;
    let fewer = document(folder.path(), &["score", "bundle", "--ids", &ids[..4].join(",")])?;
    let loss = |report: &Value| report["negative_log_likelihood"].as_f64().unwrap_or(f64::NAN);
    assert!(few["tokens"] == 5 && fewer["tokens"] == 4 && loss(&few) > loss(&fewer) && loss(&fewer) > 0.0);
    let short = ["score", "bundle", "--text-file", "text.txt", "--window", "64", "--stride", "32"];
    let windows = document(folder.path(), &short)?;
    let (tokens, count) =
        (windows["tokens"].as_u64().ok_or("tokens")?, windows["windows"].as_u64().ok_or("windows")?);
    assert_eq!((tokens, count), (scored["tokens"].as_u64().ok_or("tokens")?, (tokens - 64).div_ceil(32) + 1));
    let reference = document(folder.path(), &[&short[..], &["--backend", "reference"]].concat())?;
    let of = |report: &Value| report["perplexity"].as_f64().unwrap_or(f64::NAN);
    assert!((of(&windows) / of(&reference) - 1.0).abs() < 1e-3);
    assert_eq!(photonc(folder.path(), &["score", "bundle"], "")?.status.code(), Some(2));
    Ok(())
}

/// Of weights in few bits too: both protocols read the same ones, so that nothing parts them in the first meta-context.
#[test]
fn a_drift_of_weights_in_few_bits_is_measured() -> TestResult {
    let folder = tempfile::tempdir()?;
    speaking_bundle(folder.path(), &[])?;
    fs::copy(speaking::file("text.txt"), folder.path().join("text.txt"))?;
    let quant = ["export", "model", "-o", "few-bits", "--quant", "level1=int8,lm_head=int8"];
    assert!(photonc(folder.path(), &quant, "")?.status.success());
    let measured = |bundle: &str, backend: &str| {
        let command = ["verify", bundle, "--drift", "--backend", backend, "--text-file", "text.txt"];
        let sizes = ["--prompt-tokens", "32", "-n", "32", "--prompts", "2", "--distances", "16,32"];
        document(folder.path(), &[&command[..], &sizes].concat())
    };
    let kl = |document: &Value, range: usize| document["ranges"][range]["kl"].as_f64().unwrap_or(f64::NAN);
    let perplexity = |document: &Value| document["whole"]["perplexity_hiergen"].as_f64().unwrap_or(f64::NAN);
    let whole = measured("bundle", "reference")?;
    for backend in ["reference", "tract"] {
        let few = measured("few-bits", backend)?;
        assert!(kl(&few, 0) < 1e-9 && kl(&few, 1) > 1e-4, "{backend}: {few}");
        let change = (perplexity(&few) / perplexity(&whole) - 1.0).abs();
        assert!((1e-5..0.2).contains(&change), "{backend}: {change}");
    }
    Ok(())
}

/// The drift of a model on a text: the same on tract as on the reference, with limits that decide the exit code, and a
/// plot.
#[test]
fn a_drift_is_measured_and_limited() -> TestResult {
    let folder = tempfile::tempdir()?;
    speaking_bundle(folder.path(), &[])?;
    fs::copy(speaking::file("text.txt"), folder.path().join("text.txt"))?;
    let command = [
        "verify",
        "bundle",
        "--drift",
        "--text-file",
        "text.txt",
        "--prompt-tokens",
        "32",
        "-n",
        "48",
        "--prompts",
        "3",
        "--batch",
        "2",
        "--distances",
        "16,32",
    ];
    let tract = document(folder.path(), &[&command[..], &["--plot", "drift.svg"]].concat())?;
    let reference = document(folder.path(), &[&command[..], &["--backend", "reference"]].concat())?;
    assert_eq!(tract["ranges"].as_array().map(Vec::len), Some(3));
    for measure in ["kl", "perplexity_hiergen", "perplexity_recgen"] {
        let of = |report: &Value| report["whole"][measure].as_f64().unwrap_or(f64::NAN);
        assert!(
            (of(&tract) / of(&reference) - 1.0).abs() < 1e-2,
            "{measure}: {} {}",
            of(&tract),
            of(&reference)
        );
    }
    let svg = fs::read_to_string(folder.path().join("drift.svg"))?;
    assert!(
        svg.starts_with("<svg ") && svg.matches("<polyline ").count() == 8 && !svg.contains("NaN"),
        "{svg}"
    );
    let holds = [
        &command[..],
        &["--min-agreement", "0", "--max-kl", "99", "--max-perplexity-ratio", "99", "--min-cosine", "-1"],
    ]
    .concat();
    let table = photonc(folder.path(), &holds, "")?;
    assert!(table.status.success());
    let table = String::from_utf8(table.stdout)?;
    assert!(table.starts_with("3 prompts of 32 tokens and the 48 after each\n\ntokens "), "{table}");
    for line in ["1-16 ", "17-32 ", "33-48 ", "all "] {
        assert!(table.contains(&format!("\n{line}")), "{table}");
    }
    let quick =
        ["verify", "bundle", "--drift", "--text-file", "text.txt", "--prompt-tokens", "16", "-n", "16"];
    let quick = [&quick[..], &["--prompts", "1"]].concat();
    for (limit, name) in [
        ("--min-agreement=1.1", "greedy agreement"),
        ("--max-kl=0", "the mean divergence"),
        ("--max-perplexity-ratio=0", "the ratio of perplexities"),
        ("--min-cosine=1.1", "the smallest cosine"),
    ] {
        let broken = photonc(folder.path(), &[&quick[..], &["--no-free-running", limit]].concat(), "")?;
        assert_eq!(broken.status.code(), Some(1), "{limit}");
        assert!(String::from_utf8(broken.stdout)?.contains(&format!("\n{name} is ")), "{limit}");
    }
    for wrong in [
        &["verify", "bundle", "--drift"][..],
        &["verify", "bundle", "--text-file", "text.txt", "--max-kl", "1"],
    ] {
        assert_eq!(photonc(folder.path(), wrong, "")?.status.code(), Some(2), "{wrong:?}");
    }
    Ok(())
}
