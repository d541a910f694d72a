//! Text on the command line: prompts, stop strings, a checkpoint's own defaults, chat. Each test runs the program.

mod speaking;

use serde_json::{Value, json};
use speaking::speaking_bundle;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Output;

type TestResult = Result<(), Box<dyn Error>>;

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
    let ids: Result<Vec<i64>, _> = String::from_utf8(ids.stdout)?.split_whitespace().map(str::parse).collect();
    assert_eq!(json!(ids?), whole["tokens"]);
    let two = document(folder.path(), &generate(&["-n", "40", "--samples", "2"]))?;
    assert_eq!(two["samples"][0]["text"], text);
    let shown = String::from_utf8(photonc(folder.path(), &generate(&["-n", "40", "--samples", "2"]), "")?.stdout)?;
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
        let streamed = generate(&["-n", "64", "--run-ahead", ahead, "--stop", "never!", "--stop", &stop, "-q"]);
        let streamed = String::from_utf8(photonc(folder.path(), &streamed, "")?.stdout)?;
        assert_eq!(streamed.strip_suffix('\n').unwrap_or(&streamed), expected.strip_suffix('\n').unwrap_or(expected));
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
    let written = format!("<|start|>system\nBe brief.<|stop|>\n<|start|>user\n{PROMPT}<|stop|>\n<|start|>assistant\n");
    let more = ["--greedy", "-n", "32", "--ignore-eos"];
    let by_hand = document(folder.path(), &[&["generate", "bundle", "--prompt", &written], &more[..]].concat())?;
    let chat = ["generate", "bundle", "--chat", "--system", "Be brief.", "--prompt", PROMPT];
    let chat = document(folder.path(), &[&chat[..], &more].concat())?;
    assert_eq!((&chat["tokens"], &chat["dropped_left"]), (&by_hand["tokens"], &by_hand["dropped_left"]));
    Ok(())
}

/// Without a tokenizer, with a broken one, with wrong arguments: what is wrong and what to do.
#[test]
fn what_text_lacks_is_told() -> TestResult {
    let folder = tempfile::tempdir()?;
    speaking_bundle(folder.path(), &[("tokenizer.json", "{}"), ("generation_config.json", "{\"top_k\": []}")])?;
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
        &["generate", "bundle", "--prompt", "Too short."],
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
