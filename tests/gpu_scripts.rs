//! The scripts that carry photonc to a machine with a GPU. There is none here, so what they would run is read instead: every
//! part has commands, options are those of `photonc`, and the tests that are named exist.
#![allow(clippy::panic, reason = "a failed test panics")]

use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn bash(arguments: &[&str]) -> (i32, String) {
    let output = Command::new("bash").current_dir(root()).args(arguments).output().expect("bash runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

fn dry_run(parts: &[&str]) -> String {
    let (code, text) = bash(&[&["scripts/gpu.sh", "--dry-run"], parts].concat());
    assert_eq!(code, 0, "{text}");
    text
}

#[test]
fn both_scripts_parse() {
    for script in ["scripts/gpu.sh", "scripts/pack-gpu.sh"] {
        assert_eq!(bash(&["-n", script]), (0, String::new()), "{script}");
    }
}

#[test]
fn every_part_has_commands_with_limits() {
    let parts = [
        "doctor",
        "kernels",
        "goldens",
        "memcheck",
        "racecheck",
        "ort",
        "first",
        "prompts",
        "workers",
        "invariant",
        "lengths",
        "peer",
        "steps",
        "codes",
        "profile",
        "paper",
        "curve",
        "stress",
        "stress:f32",
        "stress:bf16",
    ];
    for part in parts {
        let text = dry_run(&[part]);
        assert!(text.lines().count() > 0 && text.lines().all(|line| line.starts_with('[')), "{part}: {text}");
        for line in text.lines() {
            let limit = line.split("at most ").nth(1).and_then(|rest| rest.split(' ').next());
            let limit: u64 = limit.and_then(|limit| limit.parse().ok()).expect("a limit in seconds");
            assert!((1..=600).contains(&limit), "{line}");
        }
    }
    assert_eq!(
        dry_run(&["all"]).matches("photonc synth").count(),
        7,
        "each size is made once, two for the codes, one for ONNX Runtime and one that has words"
    );
    let one = dry_run(&["paper:900m:hiergen:de"]);
    assert!(one.contains("--protocol hiergen --regime de") && one.matches(" bench ").count() == 1, "{one}");
    assert!(!one.contains("600m"), "{one}");
    let both = dry_run(&["stress"]);
    for (dtype, other) in [("f32", "bf16"), ("bf16", "f32")] {
        let named = |text: &str, dtype: &str| text.contains(&format!("PHOTONC_STRESS_DTYPE={dtype} "));
        let one = dry_run(&[&format!("stress:{dtype}")]);
        assert!(named(&both, dtype) && named(&one, dtype) && !named(&one, other), "{one}");
    }
}

#[test]
fn unknown_words_are_refused() {
    for arguments in [&["--dry-run", "everything"][..], &["--dry-run"], &["--fast", "doctor"]] {
        let (code, text) = bash(&[&["scripts/gpu.sh"], arguments].concat());
        assert_eq!(code, 2, "{text}");
    }
    assert_eq!(bash(&["scripts/pack-gpu.sh", "--all"]).0, 2);
}

// `--help` at the end is answered only if everything before it parses.
#[test]
fn the_commands_are_those_of_photonc() {
    let mut commands = 0;
    // What Python starts by itself is not here to be read.
    for line in dry_run(&["all"]).lines().filter(|line| !line.contains("python3")) {
        let words: Vec<&str> = line.split(' ').collect();
        let Some(at) = words.iter().position(|word| word.ends_with("/bin/photonc")) else { continue };
        let mut command = assert_cmd::Command::cargo_bin("photonc").expect("built");
        let output = command.args(&words[at + 1..]).arg("--help").output().expect("runs");
        assert!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
        commands += 1;
    }
    assert!(commands >= 25, "{commands} commands");
}

#[test]
fn the_tests_it_names_exist() {
    let mut named = 0;
    for line in dry_run(&["all"]).lines().filter(|line| line.contains("/bin/cuda-tests")) {
        for word in line.split(' ').filter(|word| word.contains("::")) {
            let (module, name) = word.split_once("::").expect("has both");
            let path = root().join("tests/cuda").join(format!("{module}.rs"));
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{word}: {error}"));
            assert!(name.is_empty() || text.contains(&format!("fn {name}()")), "{word}");
            named += 1;
        }
    }
    assert!(named >= 6, "{named} names");
}

#[test]
fn the_tests_of_onnx_runtime_that_it_names_exist() {
    let text = std::fs::read_to_string(root().join("tests/ort.rs")).expect("reads");
    let run = dry_run(&["ort"]);
    let line = run.lines().find(|line| line.contains("/bin/ort-tests")).expect("runs them");
    let named = line.split("--exact ").nth(1).and_then(|rest| rest.split(" --").next()).expect("names");
    assert!(named.split(' ').count() >= 5, "{line}");
    for name in named.split(' ') {
        assert!(text.contains(&format!("fn {name}()")), "{name}");
    }
}

/// A repository with a pack as `pack-gpu.sh` makes it, with programs that only print what the real ones would.
fn packed(folder: &Path) {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(&path, text).expect("written");
        path
    };
    let program = |name: &str, text: &str| {
        let path = write(name, &format!("#!/usr/bin/env bash\n{text}\n"));
        let made = Command::new("chmod").arg("+x").arg(path).status().expect("runs");
        assert!(made.success());
    };
    program(
        ".carry/gpu/bin/photonc",
        r#"case "$1" in
doctor) [[ -z "${PHOTONC_ORT_LIB:-}" ]] || echo 'version  1.31.1 with providers CUDA, CPU' ;;
generate) echo '{"tokens": [1], "timing": {"first_token_seconds": 1.25}}' ;;
bench) echo '{"gpu": "x", "batch": 7, "tokens_per_second": 5000.0, "steady_tokens_per_second": 6500.0, "mbu": 0.5, "mfu": 0.25,
  "tokens_per_second_per_gib": {"top": 3000.0, "all": 2000.0}, "weight_bytes": 1073741824, "points": [{"batch": 1, "tokens_per_second": 1234.5, "steady_tokens_per_second": 2500.0, "mbu": 0.25},
  {"batch": 8, "tokens_per_second": 3000.0, "steady_tokens_per_second": 3500.0, "mbu": 0.75}],
  "graphs": {"coarse": {"runs": 4, "device_seconds": 0.002, "mbu": 0.625}, "encode": {"runs": 2, "device_seconds": 0.024, "mfu": 0.75}}}' ;;
export) mkdir -p "$4" && touch "$4/photon.json"; echo '{"quantized": [{"relative_error": 0.025}, {"relative_error": 0.01}],
  "logits": {"largest_error": 0.25, "largest_logit": 8.5, "kl_nats": 0.001, "greedy_agreement": 0.984}}' ;;
synth) mkdir -p "$7" ;;
esac"#,
    );
    program(
        ".carry/gpu/bin/cuda-tests",
        r#"echo running; echo '{"requests": 9, "free_mib": {"end": 1}}'; echo 'test result: ok'"#,
    );
    program(".carry/gpu/bin/ort-tests", "echo 'test result: ok'");
    let programs = ["photonc", "cuda-tests", "ort-tests"];
    let packed = Command::new("gzip").current_dir(folder.join(".carry/gpu/bin")).args(programs).status();
    assert!(packed.expect("runs").success());
    program(
        "stubs/nvidia-smi",
        r#"if [[ "$1" == --list-gpus ]]; then printf 'a\nb\n'; else echo 'A GPU, 1.2'; fi"#,
    );
    write(
        "scripts/bench_fleet.py",
        r#"import json, sys
names = ["one worker", "two workers", "one worker behind smg", "two workers behind smg", "one process with both"]
if "--words" not in sys.argv:
    for place, name in enumerate(names):
        print(json.dumps({"set_up": name, "tokens_per_s": 1000.4 + place}))
    print(json.dumps({"set_up": "ratios", "two workers / one worker": 1.9}))"#,
    );
    program("stubs/compute-sanitizer", "exit 3");
    write("tests/gpu/kernels.py", "print('0 wrong')");
    write(
        ".carry/gpu/peer_bench.py",
        r#"import json
print(json.dumps(dict(model="p", B=1, interleaved_compiled_tok_s=5000, split_G8_compiled_tok_s=3250)))
print(json.dumps(dict(model="p", B=8, split_G8_compiled_tok_s=4000)))
print(json.dumps(dict(model="p", B=64, split_G4_compiled_tok_s=6500)))
print(json.dumps(dict(model="p", B=2048, interleaved_compiled_tok_s=13000)))"#,
    );
    write("scripts/gpu.sh", &std::fs::read_to_string(root().join("scripts/gpu.sh")).expect("reads"));
}

// The whole run with programs that only print: figures reach the table, what fails is named and fails the run.
#[test]
fn the_table_has_every_part_and_figure() {
    let folder = tempfile::tempdir().expect("a folder");
    packed(folder.path());
    let path = format!("{}/stubs:{}", folder.path().display(), std::env::var("PATH").unwrap_or_default());
    let run = |library: &str, parts: &[&str]| {
        let output = Command::new("bash")
            .current_dir(folder.path())
            .env("PATH", &path)
            .env("PHOTONC_ORT_LIB", library)
            .args(["scripts/gpu.sh", "--work", "work", "--out", "out"])
            .args(parts)
            .output()
            .expect("runs");
        let table = std::fs::read_to_string(folder.path().join("out/table.txt")).unwrap_or_default();
        (output.status.code(), table, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let parts = [
        "doctor",
        "kernels",
        "goldens",
        "first",
        "peer",
        "steps",
        "codes",
        "workers",
        "paper:900m:recgen:pf",
        "curve",
        "stress",
    ];
    let (code, table, complaints) = run("", &parts);
    assert_eq!((code, complaints.as_str()), (Some(0), ""), "{table}");
    for figure in [
        "A GPU, 1.2",
        "first token 1.250 s",
        "6,500, 6,500 tokens/s, PyTorch 5,000: 1.30x",
        "6,500, 6,500 tokens/s, PyTorch 3,250: 2.00x",
        "6,500, 6,500 tokens/s, PyTorch 4,000: 1.62x",
        "6,500, 6,500 tokens/s, PyTorch 6,500: 1.00x",
        "6,500, 6,500 tokens/s, PyTorch 13,000: 0.50x",
        "0.500 ms, MBU 62%",
        "12.00 ms, MFU 75%",
        "6,500 tokens/s, MBU 50%, 1,024 MiB",
        "2,500 tokens/s, MBU 25%, 3,500 tokens/s, MBU 75%",
        "2.50 % at most",
        "two workers behind smg     1,003 tokens/s",
        "two workers / one worker: 1.90x",
        "off by 0.25 of 8.5, KL 1.0e-03 nats, same greedy token 98.4%",
        "batch 7: 5.00 K tokens/s, per GiB of KV 3.0 K (top), 2.0 K (all), MBU 50%, MFU 25%",
        "1: 1,234",
        "'requests': 9",
    ] {
        assert!(table.contains(figure), "{figure}\n{table}");
    }
    assert!(!table.contains("no figure"), "{table}");
    let (code, table, _) = run("", &["ort"]);
    assert_eq!(code, Some(0), "{table}");
    assert!(table.contains("SKIPPED ort: no ONNX Runtime with the CUDA provider"), "{table}");
    let (code, table, _) = run("a folder", &["ort"]);
    assert_eq!(code, Some(0), "{table}");
    assert!(table.contains("ort-verify-paper-f16"), "{table}");
    assert!(table.contains("first 1 of 1") && table.contains("batch 1: ort 1,234, cuda 1,234"), "{table}");
    let (code, table, _) = run("", &["memcheck", "doctor"]);
    assert_eq!(code, Some(1));
    assert!(table.contains("exit 3") && table.contains("ok"), "{table}");
}
