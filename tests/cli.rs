//! The command line as its users meet it: help, results, JSON, errors and exit codes. Each test runs the program.

mod fixture;

use fixture::hollow;
use photonc::ir::dtype::Dtype;
use photonc::model::preset::preset;
use photonc::model::synth::synth;
use serde_json::{Value, json};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

type TestResult = Result<(), Box<dyn Error>>;

const PROMPT: &str = "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16";

const COMMANDS: [&str; 15] = [
    "export",
    "build",
    "refit",
    "inspect",
    "diff",
    "verify",
    "reduce",
    "generate",
    "score",
    "serve",
    "package",
    "bench",
    "synth",
    "doctor",
    "completions",
];

/// Runs `photonc` in `folder`, whose name is then cut out of what is compared.
fn photonc(folder: &Path, arguments: &[&str]) -> Result<Output, Box<dyn Error>> {
    let mut command = assert_cmd::Command::cargo_bin("photonc")?;
    Ok(command.current_dir(folder).args(arguments).env("NO_COLOR", "1").env("COLUMNS", "100").output()?)
}

/// Exit code, stdout and stderr as one text.
fn transcript(folder: &Path, arguments: &[&str]) -> Result<String, Box<dyn Error>> {
    let output = photonc(folder, arguments)?;
    let mut text = format!("$ photonc {}\n", arguments.join(" "));
    text.push_str(&String::from_utf8_lossy(&output.stdout));
    if !output.stderr.is_empty() {
        text.push_str(&format!("--- stderr\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    text.push_str(&format!("--- exit code {}\n", output.status.code().unwrap_or(-1)));
    Ok(text.replace(&folder.display().to_string(), "FOLDER"))
}

fn document(folder: &Path, arguments: &[&str]) -> Result<Value, Box<dyn Error>> {
    let output = photonc(folder, arguments)?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A folder with a copy of a golden checkpoint, `model`.
fn with_model(name: &str) -> Result<tempfile::TempDir, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    fs::create_dir(folder.path().join("model"))?;
    for file in ["config.json", "model.safetensors"] {
        fs::copy(golden(name).join(file), folder.path().join("model").join(file))?;
    }
    Ok(folder)
}

/// A folder with `model` and its `bundle`.
fn with_bundle(name: &str) -> Result<tempfile::TempDir, Box<dyn Error>> {
    let folder = with_model(name)?;
    let output = photonc(folder.path(), &["export", "model", "-o", "bundle"])?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(folder)
}

fn edit_config(folder: &Path, edit: impl FnOnce(&mut Value)) -> TestResult {
    let path = folder.join("model/config.json");
    let mut config = serde_json::from_slice(&fs::read(&path)?)?;
    edit(&mut config);
    Ok(fs::write(path, config.to_string())?)
}

/// Replaces the header of the weights, `edit`ed as text of the same length, or the data behind it.
fn edit_weights(folder: &Path, edit: impl FnOnce(&mut Vec<u8>)) -> TestResult {
    let path = folder.join("model/model.safetensors");
    let mut bytes = fs::read(&path)?;
    edit(&mut bytes);
    Ok(fs::write(path, bytes)?)
}

fn replace(bytes: &mut [u8], from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).expect("is there");
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
}

/// Names in a folder, hidden ones included.
fn names(folder: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[test]
fn every_command_has_help() -> TestResult {
    let folder = tempfile::tempdir()?;
    insta::assert_snapshot!("help", transcript(folder.path(), &["--help"])?);
    for command in COMMANDS {
        insta::assert_snapshot!(format!("help_{command}"), transcript(folder.path(), &[command, "--help"])?);
    }
    Ok(())
}

/// A command that is not in the list above would have no snapshot of its help.
#[test]
fn every_command_is_in_the_list() -> TestResult {
    let folder = tempfile::tempdir()?;
    let help = String::from_utf8(photonc(folder.path(), &["--help"])?.stdout)?;
    let listed = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("a list");
    // A description that goes on in the next line is indented further.
    let names = listed.lines().filter_map(|line| line.strip_prefix("  "));
    let found: Vec<&str> = names
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(found, [&COMMANDS[..], &["help"]].concat());
    Ok(())
}

/// PHOTON paper (arXiv 2512.20687), tables 10-12, module by module.
#[test]
fn inspect_counts_parameters_as_the_paper_does() -> TestResult {
    for (name, total) in
        [("paper-600m", 646_399_104), ("paper-900m", 907_162_368), ("paper-1.2b", 1_229_531_520_u64)]
    {
        let folder = tempfile::tempdir()?;
        hollow(folder.path(), name)?;
        let text = transcript(folder.path(), &["inspect", ".", "--params"])?;
        insta::assert_snapshot!(format!("params_{name}"), text);
        assert_eq!(document(folder.path(), &["inspect", ".", "--params", "--json"])?["total"], total);
    }
    Ok(())
}

#[test]
fn inspect_shows_a_checkpoint_and_its_bundle() -> TestResult {
    let folder = with_bundle("paper")?;
    insta::assert_snapshot!("inspect_model", transcript(folder.path(), &["inspect", "model"])?);
    insta::assert_snapshot!("inspect_bundle", transcript(folder.path(), &["inspect", "bundle"])?);
    let params = |path| document(folder.path(), &["inspect", path, "--params", "--json"]);
    assert_eq!(params("model")?, params("bundle")?);
    let model = document(folder.path(), &["inspect", "model", "--json"])?;
    let bundle = document(folder.path(), &["inspect", "bundle", "--json"])?;
    assert_eq!(model["plans"], bundle["manifest"]["protocols"]);
    Ok(())
}

/// The graph that a checkpoint compiles to is the one in its bundle, in every form.
#[test]
fn inspect_prints_graphs_in_three_forms() -> TestResult {
    let folder = with_bundle("paper")?;
    for format in ["text", "dot", "json"] {
        let show = |path| photonc(folder.path(), &["inspect", path, "--graph", "coarse", "--format", format]);
        let (model, bundle) = (show("model")?, show("bundle")?);
        assert!(model.status.success() && bundle.status.success());
        let count = |text: &[u8]| String::from_utf8_lossy(text).lines().count();
        assert_eq!(count(&model.stdout), count(&bundle.stdout), "{format}");
    }
    let json = document(folder.path(), &["inspect", "model", "--graph", "step", "--json"])?;
    let nodes = json["nodes"].as_array().ok_or("nodes")?;
    assert!(nodes.iter().any(|node| node["op"] == "delay"));
    for node in nodes {
        for operand in node["operands"].as_array().ok_or("operands")? {
            assert!(operand.as_u64().is_some_and(|operand| operand < nodes.len() as u64));
        }
    }
    insta::assert_snapshot!(
        "unknown_graph",
        transcript(folder.path(), &["inspect", "model", "--graph", "course"])?
    );
    Ok(())
}

/// Both backends and both protocols draw the golden's tokens; what varies from run to run is left out.
#[test]
fn generate_prints_tokens_and_json() -> TestResult {
    let folder = with_bundle("paper")?;
    let text = |more: &[&str]| -> Result<String, Box<dyn Error>> {
        let arguments = ["generate", "bundle", "--prompt-ids", PROMPT, "-n", "20", "--greedy", "-q"];
        transcript(folder.path(), &[&arguments[..], more].concat())
    };
    insta::assert_snapshot!("generate", text(&[])?);
    insta::assert_snapshot!(
        "generate_samples",
        text(&["--samples", "2", "--prompt-ids", "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17"])?
    );
    let arguments = ["generate", "bundle", "--prompt-ids", PROMPT, "-n", "20", "--greedy", "--json"];
    let mut tract = document(folder.path(), &arguments)?;
    let reference = document(folder.path(), &[&arguments[..], &["--backend", "reference"]].concat())?;
    assert_eq!(tract["tokens"], reference["tokens"]);
    assert_eq!((&tract["backend"], &reference["backend"]), (&json!("cpu"), &json!("reference")));
    for field in ["total_seconds", "first_token_seconds", "tokens_per_second"] {
        assert!(tract["timing"][field].is_f64(), "{field}");
    }
    tract["timing"] = json!("..");
    insta::assert_json_snapshot!("generate_json", tract);
    Ok(())
}

#[test]
fn prompts_come_from_a_file_and_stop_ids_end_them() -> TestResult {
    let folder = with_bundle("paper")?;
    fs::write(folder.path().join("prompts"), format!("{PROMPT}\n\n{}\n", PROMPT.replace(',', " ")))?;
    let arguments = ["generate", "bundle", "--prompt-file", "prompts", "-n", "32", "--greedy", "--json"];
    let both = document(folder.path(), &arguments)?;
    let samples = both["samples"].as_array().ok_or("samples")?;
    assert_eq!((samples.len(), &samples[0]["tokens"]), (2, &samples[1]["tokens"]));
    let stop = &samples[0]["tokens"][5];
    let first = samples[0]["tokens"].as_array().ok_or("tokens")?.iter().position(|token| token == stop);
    let stopped = document(folder.path(), &[&arguments[..], &["--stop-ids", &stop.to_string()]].concat())?;
    assert_eq!(stopped["samples"][0]["finish"], "stop");
    assert_eq!(stopped["samples"][0]["tokens"].as_array().map(Vec::len), first);
    Ok(())
}

#[test]
fn score_writes_logits_and_tells_the_perplexity() -> TestResult {
    let folder = with_bundle("paper")?;
    let arguments = ["score", "bundle", "--ids", PROMPT, "--logits", "logits.safetensors", "--json"];
    let scored = document(folder.path(), &arguments)?;
    let bytes = fs::read(folder.path().join("logits.safetensors"))?;
    let file = safetensors::SafeTensors::deserialize(&bytes)?;
    assert_eq!(file.tensor("logits")?.shape(), [16, 101]);
    assert_eq!(scored["tokens"], 16);
    assert!(scored["perplexity"].as_f64().is_some_and(|value| value > 1.0));
    Ok(())
}

#[test]
fn bench_reports_speed_memory_and_graphs() -> TestResult {
    let folder = with_bundle("paper")?;
    let arguments = ["bench", "bundle", "--regime", "16/32", "--repetitions", "2", "--batch", "2", "--json"];
    let report = document(folder.path(), &arguments)?;
    assert!(report["tokens_per_second"].as_f64().is_some_and(|rate| rate > 0.0));
    assert!(report["first_token_seconds"].as_f64().is_some_and(|time| time > 0.0));
    assert_eq!(report["total_seconds"].as_array().map(Vec::len), Some(2));
    assert!(report["peak_memory_bytes"].as_u64().is_some_and(|bytes| bytes > 0));
    for ceiling in ["read_bytes_per_second", "product_flops"] {
        assert!(report["ceilings"][ceiling].as_f64().is_some_and(|rate| rate > 0.0), "{ceiling}");
    }
    for graph in ["encode", "coarse", "expand"] {
        let timed = &report["graphs"][graph];
        assert!(timed["device_seconds"].is_f64(), "{graph}");
        let share = |name: &str| timed[name].as_f64().ok_or_else(|| format!("{graph}: {name}"));
        assert_eq!(share("floor")?, share("mbu")? + share("mfu")?, "{graph}");
    }
    // Prompts that fill no meta-context are forced, as in every generation; other backends time graph by graph.
    let short = ["bench", "bundle", "--regime", "3/5", "--repetitions", "1", "--json"];
    assert!(document(folder.path(), &short)?["tokens_per_second"].is_f64());
    let report = document(folder.path(), &[&arguments[..], &["--backend", "reference"]].concat())?;
    assert!(report["median"]["graphs"]["coarse"]["seconds"].is_f64());
    Ok(())
}

// Several batches make a list and a curve; what only a GPU can do says so.
#[test]
fn bench_takes_several_batches_and_plots_them() -> TestResult {
    let folder = with_bundle("paper")?;
    let regime = ["bench", "bundle", "--regime", "16/16", "--repetitions", "1"];
    let more = ["--batch", "1,2", "--plot", "speed.svg", "--json"];
    let report = document(folder.path(), &[&regime[..], &more].concat())?;
    let points = report["points"].as_array().ok_or("a list")?;
    assert_eq!(points.iter().map(|point| &point["batch"]).collect::<Vec<_>>(), [&1, &2]);
    assert_eq!(report["prompt_tokens"], 16);
    let plot = fs::read_to_string(folder.path().join("speed.svg"))?;
    assert_eq!(plot.matches("<circle").count(), 2);
    insta::assert_snapshot!(
        "bench_max_needs_a_gpu",
        transcript(folder.path(), &[&regime[..], &["--batch", "max"]].concat())?
    );
    let generate = ["generate", "bundle", "--prompt-ids", "1,2,3", "--batch", "4"];
    insta::assert_snapshot!("batch_needs_a_gpu", transcript(folder.path(), &generate)?);
    Ok(())
}

#[test]
fn synth_repeats_and_replaces_only_a_checkpoint() -> TestResult {
    let folder = tempfile::tempdir()?;
    let out = folder.path();
    let synth =
        |more: &[&str]| transcript(out, &[&["synth", "--preset", "tiny", "-o", "model"], more].concat());
    insta::assert_snapshot!("synth", synth(&[])?);
    insta::assert_snapshot!("synth_exists", synth(&[])?);
    let before = fs::read(out.join("model/model.safetensors"))?;
    assert!(synth(&["--force", "--seed", "1"])?.ends_with("exit code 0\n"));
    assert!(before != fs::read(out.join("model/model.safetensors"))?);
    fs::write(out.join("model/notes.txt"), "mine")?;
    assert!(synth(&["--force"])?.ends_with("exit code 1\n"));
    assert_eq!(names(out)?, ["model"]);
    assert_eq!(names(&out.join("model"))?, ["config.json", "model.safetensors", "notes.txt"]);
    Ok(())
}

#[test]
fn doctor_lists_every_backend() -> TestResult {
    let folder = tempfile::tempdir()?;
    let report = document(folder.path(), &["doctor", "--json"])?;
    let backends = report["backends"].as_array().ok_or("backends")?;
    let names: Vec<&str> = backends.iter().filter_map(|backend| backend["name"].as_str()).collect();
    assert_eq!(names, ["cpu", "tract", "ort", "reference", "cuda", "tensorrt"]);
    // A backend is there, with its version and place, or each thing it lacks says what to do.
    for backend in backends {
        let missing = backend["missing"].as_array().ok_or("missing")?;
        assert_eq!(backend["found"], missing.is_empty());
        assert!(!missing.is_empty() || backend["version"].is_string() && backend["place"].is_string());
        for part in missing {
            let said = ["part", "reason", "install"].map(|key| part[key].as_str().unwrap_or_default());
            assert!(said.iter().all(|said| !said.is_empty()), "{part}");
        }
    }
    let text = String::from_utf8(photonc(folder.path(), &["doctor"])?.stdout)?;
    assert!(names.iter().all(|name| text.contains(&format!("\n{name} "))), "{text}");
    Ok(())
}

#[test]
fn completions_are_made_for_every_shell() -> TestResult {
    let folder = tempfile::tempdir()?;
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = String::from_utf8(photonc(folder.path(), &["completions", shell])?.stdout)?;
        assert!(script.contains("photonc") && script.contains("generate"), "{shell}");
    }
    Ok(())
}

/// Wrong arguments are exit code 2, in text and in JSON.
#[test]
fn usage_errors_say_what_would_do() -> TestResult {
    let folder = tempfile::tempdir()?;
    let mut text = String::new();
    for arguments in [
        &["exprot"][..],
        &["synth", "--preset", "paper-600", "-o", "x"],
        &["generate", "bundle", "-n", "4"],
        &["generate", "bundle", "--prompt-ids", "1,two"],
        &["generate", "bundle", "--prompt-ids", "1", "--greedy", "--temperature", "2"],
        &["bench", "bundle", "--regime", "fast"],
        &["generate", "bundle", "--prompt-ids", "1", "--run-ahead", "0"],
        &["generate", "bundle", "--prompt-ids", "1", "--backend", "tract", "--batch-invariant"],
        &["verify", "model", "--against", "theirs.safetensors", "--graph", "step"],
        &["verify", "model", "--against", "theirs.safetensors", "--backend", "reference"],
        &["--json", "doctor", "--frobnicate"],
    ] {
        text.push_str(&transcript(folder.path(), arguments)?);
    }
    insta::assert_snapshot!("usage_errors", text);
    assert_eq!(text.matches("exit code 2").count(), text.matches("$ photonc").count());
    Ok(())
}

/// A way to spoil a checkpoint.
type Spoil = fn(&Path) -> TestResult;

const SPOILS: [(&str, Spoil); 12] = [
    ("missing tensor", |folder| {
        edit_weights(folder, |bytes| replace(bytes, "\"levels.0.start\"", "\"levels.0.strat\""))
    }),
    ("wrong shape", |folder| edit_weights(folder, |bytes| replace(bytes, "[101,32]", "[32,101]"))),
    ("truncated", |folder| edit_weights(folder, |bytes| bytes.truncate(bytes.len() - 4))),
    ("header longer than the file", |folder| edit_weights(folder, |bytes| bytes[6] = 1)),
    ("not a number", |folder| {
        edit_weights(folder, |bytes| {
            let end = bytes.len();
            bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        })
    }),
    ("concat width", |folder| edit_config(folder, |config| config["levels"][0]["dim"] = json!(31))),
    ("heads", |folder| edit_config(folder, |config| config["levels"][0]["encoder"]["kv_heads"] = json!(3))),
    ("chunk of 0", |folder| edit_config(folder, |config| config["levels"][1]["chunk_size"] = json!(0))),
    ("prefix of 0", |folder| edit_config(folder, |config| config["levels"][1]["prefix"] = json!(0))),
    ("vocabulary", |folder| edit_config(folder, |config| config["vocab_size"] = json!(100))),
    ("no levels", |folder| edit_config(folder, |config| config["levels"] = json!([]))),
    ("not JSON", |folder| Ok(fs::write(folder.join("model/config.json"), "{")?)),
];

/// Whatever is wrong with a checkpoint, the error is clear, the exit code 1, and nothing is written.
#[test]
fn a_bad_checkpoint_is_explained_and_nothing_is_written() -> TestResult {
    let mut text = String::new();
    for (what, spoil) in SPOILS {
        let folder = with_model("paper")?;
        spoil(folder.path())?;
        let told = transcript(folder.path(), &["export", "model", "-o", "bundle"])?;
        assert!(told.ends_with("exit code 1\n"), "{what}: {told}");
        assert_eq!(names(folder.path())?, ["model"], "{what}");
        text.push_str(&format!("# {what}\n{told}\n"));
    }
    insta::assert_snapshot!("bad_checkpoints", text);
    Ok(())
}

/// One level whose reconstruction is wider than what its chunker reads.
#[test]
fn recgen_is_refused_where_it_is_not_defined() -> TestResult {
    let folder = tempfile::tempdir()?;
    let mut config = preset("tiny").ok_or("a preset")?;
    config.levels.truncate(1);
    synth(&config, Dtype::F32, 0, &folder.path().join("model"), &|_, _| {})?;
    let export = ["export", "model", "-o", "bundle", "--protocol", "recgen"];
    insta::assert_snapshot!("recgen_undefined", transcript(folder.path(), &export)?);
    assert_eq!(names(folder.path())?, ["model"]);
    Ok(())
}

#[test]
fn an_export_replaces_nothing_but_a_bundle_given_up() -> TestResult {
    let folder = with_bundle("paper")?;
    let manifest = fs::read(folder.path().join("bundle/photon.json"))?;
    fs::write(folder.path().join("notes.txt"), "mine")?;
    let mut text = String::new();
    for arguments in [&["bundle"][..], &["model", "--force"], &["notes.txt", "--force"]] {
        text.push_str(&transcript(folder.path(), &[&["export", "model", "-o"], arguments].concat())?);
    }
    edit_weights(folder.path(), |bytes| bytes.truncate(bytes.len() - 4))?;
    text.push_str(&transcript(folder.path(), &["export", "model", "-o", "bundle", "--force"])?);
    assert!(manifest == fs::read(folder.path().join("bundle/photon.json"))?);
    insta::assert_snapshot!("export_onto_something", text);
    assert_eq!(names(folder.path())?, ["bundle", "model", "notes.txt"]);
    Ok(())
}

#[test]
fn nonfinite_weights_are_taken_only_when_asked() -> TestResult {
    let folder = with_model("paper")?;
    edit_weights(folder.path(), |bytes| {
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    })?;
    let export = transcript(folder.path(), &["export", "model", "-o", "bundle", "--allow-nonfinite"])?;
    assert!(export.ends_with("exit code 0\n"), "{export}");
    Ok(())
}

#[test]
fn a_bad_prompt_or_bundle_is_explained() -> TestResult {
    let folder = with_bundle("paper")?;
    fs::write(folder.path().join("prompts"), "1 2 3\n4 five\n")?;
    let mut text = String::new();
    for arguments in [
        &["generate", "bundle", "--greedy", "--prompt-ids", "1,2,3", "--align", "drop-left"][..],
        &["generate", "bundle", "--greedy", "--prompt-ids", &PROMPT.replace("16", "101")],
        &["generate", "bundle", "--greedy", "--prompt-ids", PROMPT, "-n", "4000"],
        &["generate", "bundle", "--prompt-file", "prompts"],
        &["generate", "bundle", "--prompt-file", "absent"],
        &["generate", "model", "--prompt-ids", PROMPT],
        &["generate", "bundle", "--prompt-ids", PROMPT, "--top-k", "8", "--top-p", "1.5"],
        &["score", "bundle", "--ids", "1,2,101", "--json"],
    ] {
        text.push_str(&transcript(folder.path(), arguments)?);
    }
    let graph = folder.path().join("bundle/graphs/coarse.pho");
    let spoilt = fs::read_to_string(&graph)?.replace("linear", "linaer");
    fs::write(graph, spoilt)?;
    let told = transcript(folder.path(), &["generate", "bundle", "--prompt-ids", PROMPT])?;
    assert!(told.contains("bundle/graphs/coarse.pho: contents differ from the manifest"), "{told}");
    insta::assert_snapshot!("bad_prompts", text);
    Ok(())
}

/// The words of a command; double quotes hold spaces.
fn words(command: &str) -> Vec<&str> {
    let quoted = command.split('"').enumerate();
    quoted
        .flat_map(|(at, part)| match at % 2 {
            0 => part.split_whitespace().collect(),
            _ => vec![part],
        })
        .collect()
}

/// What README.md and docs/start.md show is what users get: every `$ photonc` line of a page's console blocks is run, in
/// order, in one folder with the examples, and its standard output compared.
#[test]
fn pages_show_real_output() -> TestResult {
    ["README.md", "docs/start.md"].into_iter().try_for_each(shows_real_output)
}

fn shows_real_output(page: &str) -> TestResult {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join(page))?;
    let folder = tempfile::tempdir()?;
    std::os::unix::fs::symlink(root.join("examples"), folder.path().join("examples"))?;
    let mut shown = String::new();
    let mut found = String::new();
    for block in text.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        for step in block.split("$ photonc ").skip(1) {
            let (command, _) = step.split_once('\n').ok_or("a command without its line")?;
            let output = photonc(folder.path(), &words(command))?;
            assert!(
                output.status.success(),
                "{page}: {command}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            shown.push_str(&format!("$ photonc {step}"));
            found.push_str(&format!("$ photonc {command}\n{}\n", String::from_utf8_lossy(&output.stdout)));
        }
    }
    let lines = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    };
    assert!(lines(&shown).len() > 4, "{page} shows no commands");
    assert_eq!(lines(&shown), lines(&found), "{page}");
    Ok(())
}
