//! Files that a user names for results, and standard output: what is not photonc's stays as it is, what is there is whole. Each
//! test runs the program.

mod speaking;

use serde_json::{Value, json};
use speaking::speaking_bundle;
use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

type TestResult = Result<(), Box<dyn Error>>;

const IDS: &str = "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31";
const PROMPT: &str = "It was so late in the evening that no one had thought of it.";

/// A folder with a bundle and a file of two prompts.
fn folder() -> Result<tempfile::TempDir, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    speaking_bundle(folder.path(), &[])?;
    let ids: Vec<i64> = (0..16).collect();
    let lines: Vec<String> =
        (1..3).map(|seed| json!({"prompt_ids": ids, "seed": seed}).to_string()).collect();
    fs::write(folder.path().join("p.jsonl"), lines.join("\n"))?;
    Ok(folder)
}

fn program() -> &'static str {
    env!("CARGO_BIN_EXE_photonc")
}

fn photonc(folder: &Path, arguments: &[&str]) -> Result<Output, Box<dyn Error>> {
    Ok(Command::new(program()).current_dir(folder).args(arguments).stdin(Stdio::null()).output()?)
}

/// A line for the shell, in which `$P` is the program.
fn shell(folder: &Path, line: &str) -> Result<Output, Box<dyn Error>> {
    let mut command = Command::new("sh");
    Ok(command.current_dir(folder).env("P", program()).args(["-c", line]).stdin(Stdio::null()).output()?)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn answers<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let common =
        ["generate", "bundle", "--backend", "reference", "-n", "2", "-q", "--prompts-file", "p.jsonl"];
    [&common[..], &["--out", out], more].concat()
}

fn logits(file: &str) -> [&str; 9] {
    ["score", "bundle", "--backend", "reference", "--ids", IDS, "--logits", file, "-q"]
}

#[test]
fn files_of_others_stay_as_they_are() -> TestResult {
    let folder = folder()?;
    let at = |name: &str| folder.path().join(name);
    for contents in ["my only notes, one line", "{\"a\": 1}", "{", "{\"index\": 1}\n", "a\nb\n{\"index\":1"] {
        fs::write(at("notes"), contents)?;
        for arguments in [&answers("notes", &[])[..], &logits("notes")] {
            let output = photonc(folder.path(), arguments)?;
            assert_eq!(output.status.code(), Some(1), "{contents}: {}", stderr(&output));
            assert_eq!(fs::read_to_string(at("notes"))?, contents);
        }
    }
    // Another's safetensors file, a picture, the prompts themselves.
    let weights = fs::read(at("model/model.safetensors"))?;
    let refused = photonc(folder.path(), &logits("model/model.safetensors"))?;
    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
    assert!(fs::read(at("model/model.safetensors"))? == weights);
    fs::write(at("own.svg"), "<svg/>")?;
    let bench = ["bench", "bundle", "--backend", "reference", "--regime", "16/16", "--plot", "own.svg"];
    assert_eq!(photonc(folder.path(), &bench)?.status.code(), Some(1));
    assert_eq!(fs::read_to_string(at("own.svg"))?, "<svg/>");
    let prompts = fs::read(at("p.jsonl"))?;
    symlink("p.jsonl", at("link.jsonl"))?;
    for out in ["p.jsonl", "link.jsonl", "./p.jsonl"] {
        let output = photonc(folder.path(), &answers(out, &[]))?;
        assert_eq!(output.status.code(), Some(2), "{out}: {}", stderr(&output));
        assert!(fs::read(at("p.jsonl"))? == prompts);
    }
    Ok(())
}

/// Links stay links, devices devices; a new file has the mode that the umask gives, an old one its own.
#[test]
fn results_go_where_a_path_leads() -> TestResult {
    let folder = folder()?;
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("far"))?;
    symlink("far/logits", at("link"))?;
    let line = format!("umask 027; $P {}", logits("link").join(" "));
    for _ in 0..2 {
        let output = shell(folder.path(), &line)?;
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(at("link").is_symlink());
        assert_eq!(fs::metadata(at("far/logits"))?.permissions().mode() & 0o777, 0o640);
    }
    fs::set_permissions(at("far/logits"), fs::Permissions::from_mode(0o604))?;
    assert!(photonc(folder.path(), &logits("far/logits"))?.status.success());
    assert_eq!(fs::metadata(at("far/logits"))?.permissions().mode() & 0o777, 0o604);
    let names: Vec<_> = fs::read_dir(at("far"))?.collect::<Result<_, _>>()?;
    assert_eq!(names.len(), 1, "{names:?}");
    let whole = fs::read(at("far/logits"))?;
    assert!(photonc(folder.path(), &logits("/dev/null"))?.status.success());
    assert!(fs::metadata("/dev/null")?.file_type().is_char_device());
    let line = format!("mkfifo pipe; cat pipe > piped & $P {}; wait", logits("pipe").join(" "));
    assert!(shell(folder.path(), &line)?.status.success());
    assert!(fs::read(at("piped"))? == whole && at("pipe").symlink_metadata()?.file_type().is_fifo());
    let alone = photonc(folder.path(), &logits("pipe"))?;
    assert_eq!(alone.status.code(), Some(1));
    assert!(stderr(&alone).contains("a pipe that nobody reads"), "{}", stderr(&alone));
    Ok(())
}

#[test]
fn standard_output_has_many_names() -> TestResult {
    let folder = folder()?;
    let without = &answers("x", &[])[..9];
    let plain = photonc(folder.path(), without)?.stdout;
    assert_eq!(plain.split(|byte| *byte == b'\n').count(), 3);
    let line = |out: &str, more: &str| format!("$P {} {more}", answers(out, &[]).join(" "));
    for more in ["| cat", "> f; cat f"] {
        assert!(shell(folder.path(), &line("/dev/stdout", more))?.stdout == plain, "{more}");
    }
    assert!(shell(folder.path(), &line("/dev/fd/3", "3>f; cat f"))?.stdout == plain);
    let two = shell(folder.path(), &line("/dev/stdout", "--json | cat"))?;
    assert!(stderr(&two).contains("--json prints one document"), "{}", stderr(&two));
    // Nobody is told that all is well when nothing arrived.
    for (line, reason) in [
        ("$P inspect bundle >&-", "standard output is closed"),
        ("$P --help >&-", "standard output is closed"),
        ("$P --version >/dev/full", "No space left"),
        ("$P inspect bundle >/dev/full", "No space left"),
    ] {
        let output = shell(folder.path(), line)?;
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(stderr(&output).contains(reason), "{line}: {}", stderr(&output));
    }
    assert!(shell(folder.path(), "$P inspect bundle >/dev/null")?.status.success());
    // A reader that went away is no error, and nobody works on for it.
    let many = "{\"prompt_ids\": [0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15]}\n".repeat(20_000);
    fs::write(folder.path().join("many.jsonl"), many)?;
    let line = "$P generate bundle --backend reference -n 64 -q --prompts-file many.jsonl | head -n 1";
    let first = shell(folder.path(), line)?;
    assert!(first.status.success() && first.stderr.is_empty(), "{}", stderr(&first));
    Ok(())
}

/// Whatever ends a run, a file of results holds whole lines, and the next run goes on.
#[test]
fn a_file_of_results_holds_whole_lines() -> TestResult {
    let folder = folder()?;
    let at = |name: &str| folder.path().join(name);
    assert!(photonc(folder.path(), &answers("whole", &[]))?.status.success());
    let whole = fs::read(at("whole"))?;
    for cut in [whole.len() - 5, whole.len() / 2 + 12, 12] {
        fs::write(at("cut"), &whole[..cut])?;
        assert!(photonc(folder.path(), &answers("cut", &[]))?.status.success(), "{cut}");
        assert!(fs::read(at("cut"))? == whole, "{cut}");
    }
    let held = File::options().append(true).open(at("whole"))?;
    held.lock()?;
    let second = photonc(folder.path(), &answers("whole", &[]))?;
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("another run is writing it"), "{}", stderr(&second));
    drop(held);
    // The limit lies in the middle of some line.
    let prompts = "{\"prompt_ids\": [0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15]}\n".repeat(40);
    fs::write(at("p.jsonl"), prompts)?;
    let line = format!("ulimit -f 4; $P {}", answers("grown", &["--batch", "1"]).join(" "));
    let limited = shell(folder.path(), &line)?;
    assert_eq!(limited.status.code(), Some(1), "{}", stderr(&limited));
    assert!(stderr(&limited).contains("File too large"), "{}", stderr(&limited));
    let lines = fs::read_to_string(at("grown"))?;
    assert!(lines.ends_with('\n') && lines.lines().count() > 5);
    assert!(photonc(folder.path(), &answers("grown", &[]))?.status.success());
    assert_eq!(fs::read_to_string(at("grown"))?.lines().count(), 40);
    assert!(fs::read_to_string(at("grown"))?.starts_with(&lines));
    Ok(())
}

/// What one line of a file of prompts is, or is not, matters to it alone.
#[test]
fn one_bad_line_is_one_bad_line() -> TestResult {
    let folder = folder()?;
    let good = json!({"prompt": PROMPT}).to_string();
    let ids = ["12345678901234567890123", "-0.10", "1e400", "[1, {\"b\":1,\"a\":2}]", "\"\\u0041\""];
    let mut lines: Vec<Vec<u8>> =
        ids.iter().map(|id| format!("{{\"id\": {id}, \"prompt\": \"{PROMPT}\"}}").into_bytes()).collect();
    let bad = [
        &b"not JSON"[..],
        b"{\"prompt\": \"\xff\"}",
        b"{\"prompt\": \"x\", \"temperature\": 1}",
        b"{\"prompt_ids\": [99999999999999999999]}",
        b"{\"messages\": [{\"role\": 1}]}",
        b"[]",
        b"{\"prompt\": \"x\", \"prompt_ids\": [1]}",
    ];
    lines.extend(bad.iter().map(|line| line.to_vec()));
    lines.push(good.into_bytes());
    lines.push(b"{\"id\": 7, \"prompt\": \"-\"}".to_vec());
    fs::write(folder.path().join("p.jsonl"), [b"\xef\xbb\xbf".to_vec(), lines.join(&b"\r\n"[..])].concat())?;
    let output = photonc(folder.path(), &answers("out", &[]))?;
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains(&format!("{} of {}", bad.len(), lines.len())), "{}", stderr(&output));
    let found = fs::read_to_string(folder.path().join("out"))?;
    let found: Vec<&str> = found.lines().collect();
    assert_eq!(found.len(), lines.len());
    for (at, line) in found.iter().enumerate() {
        let value: Value = serde_json::from_str(&line.replace("1e400", "1"))?;
        let is_bad = (ids.len()..ids.len() + bad.len()).contains(&at);
        assert_eq!(
            (value["index"].as_u64(), value.get("error").is_some()),
            (Some(at as u64), is_bad),
            "{line}"
        );
    }
    for (id, line) in ids.iter().zip(&found) {
        assert!(line.contains(&format!("\"id\":{id},\"key\":")), "{line}");
    }
    let last = found[found.len() - 1];
    assert!(last.contains("\"id\":7,") && last.contains("\"tokens\":["), "`-` is text: {last}");
    assert!(found[5].contains("line 6: "), "{}", found[5]);
    Ok(())
}

/// What a name does to a terminal is shown, not done.
#[test]
fn control_characters_are_shown() -> TestResult {
    let folder = tempfile::tempdir()?;
    for arguments in [
        &["inspect", "\u{1b}[31mx"][..],
        &["generate", "\u{1b}[31mx", "--prompt-ids", "1"],
        &["inspect", "x", "--\u{1b}[31mx"],
        &["score", "x", "--window", "\u{1b}[31mx"],
        &["synth", "--preset", "tiny", "-o", "a/\u{1b}[31mx"],
    ] {
        let output = photonc(folder.path(), arguments)?;
        assert!(matches!(output.status.code(), Some(1 | 2)));
        let told = stderr(&output);
        // What does not parse is told without them.
        let parses = output.status.code() == Some(1);
        assert!(!told.contains('\u{1b}') && (!parses || told.contains("\\u{1b}[31mx")), "{told}");
    }
    Ok(())
}

/// More than there can be is refused before it is tried, with figures.
#[test]
fn what_cannot_be_in_memory_is_refused() -> TestResult {
    let folder = folder()?;
    let generate = ["generate", "bundle", "--prompt-ids", IDS, "-n", "16"];
    let bench = ["bench", "bundle", "--backend", "reference"];
    for arguments in [
        [&generate[..], &["--samples", "1000000000000"]].concat(),
        [&generate[..], &["--samples", "18446744073709551615"]].concat(),
        [&bench[..], &["--regime", "16/16", "--batch", "1000000000000"]].concat(),
        [&bench[..], &["--regime", "16/16", "--batch", "18446744073709551615"]].concat(),
        [&bench[..], &["--regime", "18446744073709551615/1"]].concat(),
    ] {
        let output = photonc(folder.path(), &arguments)?;
        assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments:?}: {}", stderr(&output));
    }
    let line = format!("ulimit -v 300000; $P {} --samples 4000000", generate.join(" "));
    let limited = shell(folder.path(), &line)?;
    assert_eq!(limited.status.code(), Some(1), "{}", stderr(&limited));
    assert!(
        stderr(&limited).contains("ulimit -v") && stderr(&limited).contains("MiB"),
        "{}",
        stderr(&limited)
    );
    // Wherever it runs out, nothing is left behind. The least of these limits may be too small to start at all.
    for limit in (110_000..200_000).step_by(10_000) {
        let output = shell(folder.path(), &format!("ulimit -v {limit}; $P export model -o limited --force"))?;
        let told = stderr(&output);
        let fits = output.status.success();
        assert!(fits || output.status.code() == Some(1) && told.contains("memory"), "{limit}: {told}");
        let hidden = fs::read_dir(folder.path())?
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with('.'));
        assert_eq!(hidden.count(), 0, "{limit}");
    }
    Ok(())
}

/// No more tokens at once than the bundle was exported for, and at least one of everything.
#[test]
fn lengths_and_counts_are_checked() -> TestResult {
    let folder = folder()?;
    assert!(
        photonc(folder.path(), &["export", "model", "-o", "short", "--max-tokens", "64"])?.status.success()
    );
    let ids: Vec<String> = (0..640).map(|at| (at % 512).to_string()).collect();
    fs::write(folder.path().join("ids"), ids.join(","))?;
    let score = ["score", "short", "--backend", "reference", "--ids-file", "ids"];
    let drift = ["verify", "short", "--backend", "reference", "--drift", "--ids-file", "ids"];
    let drift = [&drift[..], &["--prompt-tokens", "16", "--new-tokens", "16"]].concat();
    for (arguments, reason) in [
        ([&score[..], &["--window", "640"]].concat(), "has 64"),
        ([&score[..], &["--logits", "l"]].concat(), "has 64"),
        ([&score[..], &["--window", "0"]].concat(), "from 1"),
        ([&score[..], &["--stride", "0"]].concat(), "from 1"),
        ([&drift[..], &["--prompts", "0"]].concat(), "from 1"),
        ([&drift[..], &["--batch", "0"]].concat(), "from 1"),
        ([&drift[..5], &["--ids-file", "ids", "--new-tokens", "0"]].concat(), "from 1"),
        ([&drift[..5], &["--ids-file", "ids", "--prompt-tokens", "256"]].concat(), "has 64 tokens"),
    ] {
        let output = photonc(folder.path(), &arguments)?;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(reason), "{}", stderr(&output));
    }
    assert!(!folder.path().join("l").exists());
    Ok(())
}
