//! Import of checkpoints, from files on disk: the golden ones open whole, and every kind of damage is a located error.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use photonc::ir::dtype::Dtype;
use photonc::model::checkpoint::{Checkpoint, CheckpointError};
use photonc::model::config::{Chunker, ConverterLayout, Feedback};
use photonc::model::config_json::config_json;
use photonc::model::dialect::{DialectChoice, built_in};
use photonc::model::parameters::parameters;
use proptest::prelude::{Strategy, any, prop, proptest};
use serde_json::{Value, json};

type TestResult = Result<(), Box<dyn Error>>;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn open(path: &Path) -> Result<Checkpoint, CheckpointError> {
    Checkpoint::open(path, &DialectChoice::Recognise)
}

/// The message of a checkpoint that does not open, its directory cut out.
fn refusal(path: &Path) -> String {
    let message = open(path).map(|_| ()).expect_err("a broken checkpoint").to_string();
    message.replace(&path.display().to_string(), "MODEL")
}

/// A copy of a golden checkpoint to damage.
fn copy(name: &str) -> Result<tempfile::TempDir, Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    for file in ["config.json", "model.safetensors"] {
        fs::copy(golden(name).join(file), directory.path().join(file))?;
    }
    Ok(directory)
}

fn edit_config(directory: &Path, edit: impl FnOnce(&mut Value)) -> TestResult {
    let path = directory.join("config.json");
    let mut json = serde_json::from_slice(&fs::read(&path)?)?;
    edit(&mut json);
    Ok(fs::write(path, json.to_string())?)
}

/// Splits a safetensors file into its header and its data.
fn split(bytes: &[u8]) -> Result<(Value, Vec<u8>), Box<dyn Error>> {
    let length = usize::try_from(u64::from_le_bytes(bytes[..8].try_into()?))?;
    Ok((serde_json::from_slice(&bytes[8..8 + length])?, bytes[8 + length..].to_vec()))
}

fn join(header: &Value, data: &[u8]) -> Vec<u8> {
    let text = header.to_string();
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes.extend_from_slice(data);
    bytes
}

fn edit_header(directory: &Path, edit: impl FnOnce(&mut Value)) -> TestResult {
    let path = directory.join("model.safetensors");
    let (mut header, data) = split(&fs::read(&path)?)?;
    edit(&mut header);
    Ok(fs::write(path, join(&header, &data))?)
}

fn rename(header: &mut Value, from: &str, to: &str) {
    if let Some(map) = header.as_object_mut() {
        let entry = map.shift_remove(from).expect("a stored tensor");
        map.insert(to.to_owned(), entry);
    }
}

#[test]
fn golden_checkpoints_open_whole() -> TestResult {
    for (name, dialect) in
        [("paper", "paper"), ("lopsided", "paper"), ("photon-experiment", "photon-experiment")]
    {
        let checkpoint = open(&golden(name))?;
        assert_eq!(checkpoint.dialect.name, dialect);
        let expected: Vec<String> =
            parameters(&checkpoint.config).into_iter().map(|parameter| parameter.name).collect();
        assert_eq!(checkpoint.tensors.keys().cloned().collect::<Vec<_>>(), expected, "{name}");
        checkpoint.check_finite()?;
    }
    Ok(())
}

#[test]
fn lopsided_keeps_every_difference_between_levels() -> TestResult {
    let config = open(&golden("lopsided"))?.config;
    let chunks: Vec<usize> = config.levels.iter().map(|level| level.chunk_size).collect();
    assert_eq!((chunks, config.meta_tokens()), (vec![3, 2, 4], 24));
    assert_eq!(config.level(1).chunker, Chunker::Concat);
    assert_eq!(config.level(2).chunker, Chunker::Linear { norm: true, bias: true });
    assert_eq!(config.level(3).chunker, Chunker::Linear { norm: false, bias: false });
    assert_eq!(config.level(1).feedback, Feedback::Token);
    assert_eq!(config.level(3).encoder.head_dim, 14);
    Ok(())
}

/// The third-party layout: tied head stored twice, shared converter bias, widths that its configuration only implies.
#[test]
fn photon_experiment_maps_to_canonical_names() -> TestResult {
    let checkpoint = open(&golden("photon-experiment"))?;
    let level = checkpoint.config.level(1);
    assert_eq!(level.converter.layout, ConverterLayout::ConvTranspose);
    assert_eq!(
        (level.prefix, level.decoder_dim, level.decoder.head_dim, level.feedback),
        (4, 32, 8, Feedback::Latent)
    );
    assert_eq!(checkpoint.tensor("levels.1.converter.weight")?.shape, [32, 32, 4]);
    assert_eq!(
        checkpoint.tensor("levels.0.decoder.layers.1.mlp.up_proj.weight")?.native,
        "decoders.0.layers.1.mlp.w3.weight"
    );
    assert_eq!(checkpoint.tensor("lm_head.weight")?.native, "embed.weight");
    assert_eq!(
        checkpoint.notes,
        ["`lm_head.weight` is stored beside the table it is tied to (`embed.weight`) and was ignored"]
    );
    Ok(())
}

/// What is written as canonical configuration reads back the same, whatever layout it came from.
#[test]
fn canonical_configuration_round_trips() -> TestResult {
    let dialects = built_in()?;
    for name in ["paper", "lopsided", "photon-experiment"] {
        let config = open(&golden(name))?.config;
        let parsed = dialects[0].read_config("config.json", &config_json(&config))?;
        assert_eq!((parsed.config, parsed.notes), (config, Vec::new()), "{name}");
    }
    let stored: Value = serde_json::from_slice(&fs::read(golden("lopsided").join("config.json"))?)?;
    assert_eq!(config_json(&open(&golden("lopsided"))?.config), stored);
    Ok(())
}

#[test]
fn pieces_join_to_the_tensor_and_respect_their_size() -> TestResult {
    let checkpoint = open(&golden("paper"))?;
    let name = "levels.0.encoder.layers.0.mlp.up_proj.weight";
    let mut joined = Vec::new();
    checkpoint.for_each_piece(name, 1001, |piece| {
        assert!(piece.len() <= 1001 && piece.len().is_multiple_of(4));
        joined.extend_from_slice(piece);
        Ok::<(), CheckpointError>(())
    })?;
    let (header, data) = split(&fs::read(golden("paper").join("model.safetensors"))?)?;
    let offsets = &header[name]["data_offsets"];
    let at = |index: usize| usize::try_from(offsets[index].as_u64().expect("an offset")).expect("fits");
    assert_eq!(joined, data[at(0)..at(1)]);
    let values = checkpoint.read(name)?;
    assert_eq!(values[0].to_le_bytes(), joined[..4]);
    assert_eq!(checkpoint.read_f64(name)?[0], f64::from(values[0]));
    Ok(())
}

#[test]
fn a_direct_path_opens_like_its_directory() -> TestResult {
    let directory = copy("paper")?;
    fs::rename(directory.path().join("model.safetensors"), directory.path().join("weights.safetensors"))?;
    assert_eq!(
        open(directory.path())?.tensors.len(),
        open(&directory.path().join("weights.safetensors"))?.tensors.len()
    );
    Ok(())
}

#[test]
fn one_report_of_every_tensor_that_does_not_fit() -> TestResult {
    let directory = copy("paper")?;
    edit_header(directory.path(), |header| {
        rename(
            header,
            "levels.0.encoder.layers.1.mlp.up_proj.weight",
            "levels.0.encoder.layers.1.mlp.up.weight",
        );
        rename(header, "levels.1.start", "zzz");
        header["levels.0.encoder.layers.0.self_attn.q_proj.weight"]["shape"] = json!([16, 64]);
        header["lm_head.weight"]["dtype"] = json!("I32");
    })?;
    assert_eq!(
        refusal(directory.path()),
        "MODEL: the tensors do not fit config.json (dialect paper): 2 missing, 2 unexpected, 2 of wrong shape or type
  missing `levels.0.encoder.layers.1.mlp.up_proj.weight`: expected [64, 32] (ffn 64, dim 32); did you mean the stored `levels.0.encoder.layers.1.mlp.up.weight`
  missing `levels.1.start`: expected [32] (dim 32)
  unexpected `levels.0.encoder.layers.1.mlp.up.weight`: f32[64, 32]
  unexpected `zzz`: f32[32]
  `levels.0.encoder.layers.0.self_attn.q_proj.weight`: found f32[16, 64], expected [32, 32] (heads 4 x head_dim 8, dim 32)
  `lm_head.weight`: found i32[101, 32], expected type f32, f16 or bf16"
    );
    Ok(())
}

#[test]
fn one_report_of_every_fault_of_the_configuration() -> TestResult {
    let directory = copy("paper")?;
    edit_config(directory.path(), |json| {
        json["vocab_size"] = json!("many");
        json["decoder_embed_dim"] = json!(33);
        json["levels"][0]["dim"] = json!(48);
        json["levels"][0]["encoder"]["kv_heads"] = json!(3);
        json["levels"][1]["chunk_size"] = json!(0);
        json["levels"][1]["encoder"] = json!(7);
        json["levels"][1]["decoder"]["feedback"] = json!("both");
        json.as_object_mut().expect("an object").shift_remove("rope_theta");
    })?;
    let message = refusal(directory.path());
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(
        lines,
        [
            "MODEL/config.json: 9 problems in the model configuration (dialect paper)",
            "  vocab_size: found \"many\", expected a whole number",
            "  rope_theta: missing",
            "  levels[1].encoder: found 7, expected an object",
            "  levels[1].decoder.feedback: found \"both\", expected \"latent\" or \"token\" or \"summary\"",
            "  decoder_embed_dim: found 33, expected 32: the width of the level-1 decoder (levels[0].decoder.dim)",
            "  levels[0].dim: found 48, expected 32 for a concat chunker (chunk_size 4 x width below 8)",
            "  levels[0].encoder.kv_heads: found 3, expected a divisor of heads 4",
            "  levels[1].chunk_size: found 0, expected at least 1",
            "  levels[1].decoder.dim: found 32, expected 48: above level 1 a decoder is as wide as the states of the level below",
        ]
    );
    Ok(())
}

/// Findings carry the checkpoint's own keys, not the canonical ones.
#[test]
fn third_party_faults_name_their_own_keys() -> TestResult {
    let directory = copy("photon-experiment")?;
    edit_config(directory.path(), |json| {
        json["variant"] = json!("v3");
        json["levels"][0]["prefix_len"] = json!(0);
        json["levels"][1]["enc_heads"] = json!(5);
    })?;
    let message = refusal(directory.path());
    let lines: Vec<&str> = message.lines().skip(1).collect();
    assert_eq!(
        lines,
        [
            "  variant: found \"v3\", expected \"v2\" (`v2` names latent feedback, the only kind this dialect describes)",
            "  levels[1].encoder.head_dim (= dim / encoder.heads): dim 32 is not a multiple of encoder.heads 5",
            "  levels[0].prefix_len: found 0, expected at least 1",
        ]
    );
    Ok(())
}

#[test]
fn unknown_keys_of_a_canonical_configuration_are_notes() -> TestResult {
    let directory = copy("paper")?;
    edit_config(directory.path(), |json| {
        json["levels"][1]["encoder"]["dropout"] = json!(0.1);
        json["torch_dtype"] = json!("float32");
    })?;
    assert_eq!(
        open(directory.path())?.notes,
        ["config.json: `levels[1].encoder.dropout` is not read by dialect paper and was ignored"]
    );
    // No configuration has a key that a terminal takes as a command.
    edit_config(directory.path(), |json| json["levels"][0]["encoder"]["a\u{1b}[2J"] = json!(1))?;
    let expected = "levels[0].encoder.a\u{1b}[2J: a key with control characters, expected none";
    assert!(refusal(directory.path()).ends_with(expected), "{}", refusal(directory.path()));
    Ok(())
}

#[test]
fn a_truncated_or_padded_file_is_refused() -> TestResult {
    let directory = copy("paper")?;
    let path = directory.path().join("model.safetensors");
    let bytes = fs::read(&path)?;
    fs::write(&path, &bytes[..bytes.len() - 1])?;
    assert!(refusal(directory.path()).starts_with("MODEL/model.safetensors: truncated: the tensors need "));
    fs::write(&path, &bytes[..100])?;
    assert!(refusal(directory.path()).contains("truncated or not a safetensors file: the header claims"));
    fs::write(&path, [bytes.as_slice(), &[0; 8]].concat())?;
    assert!(refusal(directory.path()).contains("8 bytes after the last tensor belong to no tensor"));
    fs::write(&path, b"")?;
    assert!(refusal(directory.path()).contains("0 bytes, a header needs at least 8"));
    Ok(())
}

/// A file may be cut between opening and reading: that is an error of the read, never a fault of the process.
#[test]
fn a_file_cut_after_opening_is_an_error() -> TestResult {
    let directory = copy("paper")?;
    let checkpoint = open(directory.path())?;
    fs::OpenOptions::new().write(true).open(directory.path().join("model.safetensors"))?.set_len(20_000)?;
    let error = checkpoint.read("lm_head.weight").expect_err("the bytes are gone");
    assert!(
        error.to_string().ends_with("`lm_head.weight`: the file has become shorter since it was opened"),
        "{error}"
    );
    Ok(())
}

#[test]
fn a_nonfinite_weight_is_named_with_its_place() -> TestResult {
    let directory = copy("paper")?;
    let path = directory.path().join("model.safetensors");
    let (header, mut data) = split(&fs::read(&path)?)?;
    let start = usize::try_from(
        header["levels.1.chunker.proj.weight"]["data_offsets"][0].as_u64().expect("an offset"),
    )?;
    let at = start + 4 * (3 * 128 + 5);
    data[at..at + 4].copy_from_slice(&f32::NEG_INFINITY.to_le_bytes());
    fs::write(&path, join(&header, &data))?;
    let error = open(directory.path())?.check_finite().expect_err("an infinite weight");
    let said = error.to_string().replace(&path.display().to_string(), "FILE");
    assert_eq!(
        said,
        "FILE: `levels.1.chunker.proj.weight`: element 389 at [3, 5] is -inf, expected finite weights; --allow-nonfinite takes them as they are"
    );
    Ok(())
}

/// Writes `paper` as two shards; `place` may move a tensor to another shard than the index says, or out of all.
fn sharded(
    listed: impl Fn(&str) -> String,
    stored: impl Fn(&str) -> Vec<usize>,
) -> Result<tempfile::TempDir, Box<dyn Error>> {
    let directory = copy("paper")?;
    let path = directory.path().join("model.safetensors");
    let (header, data) = split(&fs::read(&path)?)?;
    fs::remove_file(path)?;
    let mut shards = [(json!({}), Vec::new()), (json!({}), Vec::new())];
    let mut index = json!({"metadata": {}, "weight_map": {}});
    for (name, info) in
        header.as_object().expect("an object").iter().filter(|(name, _)| *name != "__metadata__")
    {
        let at = |bound: usize| {
            usize::try_from(info["data_offsets"][bound].as_u64().expect("an offset")).expect("fits")
        };
        index["weight_map"][name] = json!(listed(name));
        for shard in stored(name) {
            let (header, bytes) = &mut shards[shard];
            let from = bytes.len();
            bytes.extend_from_slice(&data[at(0)..at(1)]);
            header[name] =
                json!({"dtype": info["dtype"], "shape": info["shape"], "data_offsets": [from, bytes.len()]});
        }
    }
    for (at, (header, bytes)) in shards.iter().enumerate() {
        fs::write(directory.path().join(format!("part-{at}.safetensors")), join(header, bytes))?;
    }
    fs::write(directory.path().join("model.safetensors.index.json"), index.to_string())?;
    Ok(directory)
}

fn half(name: &str) -> usize {
    usize::from(name.starts_with("levels.1"))
}

#[test]
fn shards_open_like_one_file() -> TestResult {
    let directory = sharded(|name| format!("part-{}.safetensors", half(name)), |name| vec![half(name)])?;
    let (shards, whole) = (open(directory.path())?, open(&golden("paper"))?);
    assert_eq!(shards.files.len(), 2);
    for name in whole.tensors.keys() {
        assert_eq!(shards.read(name)?, whole.read(name)?, "{name}");
    }
    Ok(())
}

#[test]
fn an_index_that_lies_is_one_report() -> TestResult {
    let moved = |name: &str| {
        if name == "embed.weight" { 1 } else { half(name) }
    };
    let stored = |name: &str| match name {
        "lm_head.weight" => vec![],
        "levels.0.start" => vec![0, 1],
        _ => vec![half(name)],
    };
    let directory = sharded(|name| format!("part-{}.safetensors", moved(name)), stored)?;
    let message = refusal(directory.path());
    for line in [
        "`embed.weight` is stored in `part-0.safetensors` and listed in another shard",
        "`levels.0.start` is stored in `part-1.safetensors` and in a shard before it",
        "`lm_head.weight` is listed in `part-0.safetensors` and not stored there",
    ] {
        assert!(message.contains(line), "{message}");
    }
    Ok(())
}

#[test]
fn shards_outside_the_directory_or_absent_are_refused() -> TestResult {
    let listed = |name: &str| match name {
        "embed.weight" => "../part-0.safetensors".to_owned(),
        "lm_head.weight" => "/etc/hosts".to_owned(),
        "levels.0.start" => "part-9.safetensors".to_owned(),
        _ => format!("part-{}.safetensors", half(name)),
    };
    let directory = sharded(listed, |name| vec![half(name)])?;
    let message = refusal(directory.path());
    for line in [
        "shard `../part-0.safetensors` leads out of the checkpoint's directory",
        "shard `/etc/hosts` leads out of the checkpoint's directory",
        "shard `part-9.safetensors` is not there",
    ] {
        assert!(message.contains(line), "{message}");
    }
    Ok(())
}

#[test]
fn a_directory_that_is_no_checkpoint_says_what_is_missing() -> TestResult {
    let directory = tempfile::tempdir()?;
    assert_eq!(
        refusal(directory.path()),
        "MODEL: no model.safetensors, model.safetensors.index.json or other *.safetensors file"
    );
    fs::write(directory.path().join("b.safetensors"), b"")?;
    assert_eq!(refusal(directory.path()), "MODEL: no config.json or model_config.json beside the weights");
    fs::write(directory.path().join("a.safetensors"), b"")?;
    assert!(refusal(directory.path()).contains(
        "several weights files and no model.safetensors.index.json: `a.safetensors`, `b.safetensors`"
    ));
    assert_eq!(refusal(&directory.path().join("x")), "MODEL: no such file or directory");
    fs::remove_file(directory.path().join("a.safetensors"))?;
    fs::write(directory.path().join("config.json"), "{")?;
    assert!(refusal(directory.path()).starts_with("MODEL/config.json: not JSON: "));
    Ok(())
}

/// A user's data file maps a layout that no built-in dialect knows.
#[test]
fn a_weight_map_brings_a_new_layout() -> TestResult {
    let directory = copy("paper")?;
    let text = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/photonc-compiler/src/model/dialects/paper.toml"),
    )?;
    let text = text
        .replace("name = \"paper\"", "name = \"mine\"")
        .replace("= \"levels.{i}.encoder.", "= \"enc{i+1}.")
        .replace("values = [\"paper\"]", "values = [\"mine\"]");
    let map = directory.path().join("mine.toml");
    fs::write(&map, &text)?;
    edit_config(directory.path(), |json| json["dialect"] = json!("mine"))?;
    edit_header(directory.path(), |header| {
        let names: Vec<String> = header.as_object().expect("an object").keys().cloned().collect();
        for name in names {
            for level in 0..2 {
                if let Some(rest) = name.strip_prefix(&format!("levels.{level}.encoder.")) {
                    rename(header, &name, &format!("enc{}.{rest}", level + 1));
                }
            }
        }
    })?;
    let checkpoint = Checkpoint::open(directory.path(), &DialectChoice::File(map.clone()))?;
    assert_eq!(checkpoint.dialect.name, "mine");
    let name = "levels.1.encoder.layers.1.self_attn.v_proj.weight";
    assert_eq!(checkpoint.tensor(name)?.native, "enc2.layers.1.self_attn.v_proj.weight");
    assert_eq!(checkpoint.read(name)?, open(&golden("paper"))?.read(name)?);
    fs::write(
        &map,
        text.replace("vocab_size = {", "vocab = {").replace("\"lm_head.weight\" =", "\"lm_heads.weight\" ="),
    )?;
    let error = Checkpoint::open(directory.path(), &DialectChoice::File(map))
        .expect_err("a broken data file")
        .to_string();
    for part in [
        "model.\"vocab_size\": missing",
        "model.\"vocab\": no such field",
        "`lm_heads.weight` is no canonical name; did you mean `lm_head.weight`",
    ] {
        assert!(error.contains(part), "{error}");
    }
    Ok(())
}

#[test]
fn half_precision_reads_exactly() -> TestResult {
    let directory = copy("paper")?;
    let path = directory.path().join("model.safetensors");
    let (mut header, data) = split(&fs::read(&path)?)?;
    let mut bytes = Vec::new();
    for (name, info) in
        header.as_object_mut().expect("an object").iter_mut().filter(|(name, _)| *name != "__metadata__")
    {
        let at = |bound: usize| {
            usize::try_from(info["data_offsets"][bound].as_u64().expect("an offset")).expect("fits")
        };
        let (from, short) = (bytes.len(), name.starts_with("levels.0"));
        for element in data[at(0)..at(1)].as_chunks::<4>().0 {
            let value = f32::from_le_bytes(*element);
            bytes.extend(if short {
                half::f16::from_f32(value).to_le_bytes()
            } else {
                half::bf16::from_f32(value).to_le_bytes()
            });
        }
        *info = json!({"dtype": if short { "F16" } else { "BF16" }, "shape": info["shape"], "data_offsets": [from, bytes.len()]});
    }
    fs::write(&path, join(&header, &bytes))?;
    let (checkpoint, whole) = (open(directory.path())?, open(&golden("paper"))?);
    assert_eq!(checkpoint.tensor("levels.0.start")?.dtype, Dtype::F16);
    assert_eq!(checkpoint.tensor("embed.weight")?.dtype, Dtype::Bf16);
    let rounded: Vec<f32> =
        whole.read("embed.weight")?.iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect();
    assert_eq!(checkpoint.read("embed.weight")?, rounded);
    Ok(checkpoint.check_finite()?)
}

/// Damage inside the header and around it.
fn damage() -> impl Strategy<Value = Vec<(usize, u8)>> {
    prop::collection::vec((0usize..6_000, any::<u8>()), 1..6)
}

proptest! {
    /// No damage to a header is a panic, an endless read or a huge allocation; whatever still opens reads within the file.
    #[test]
    fn a_damaged_header_never_panics(changes in damage(), cut in 0usize..40_000) {
        let directory = copy("paper").expect("a copy");
        let path = directory.path().join("model.safetensors");
        let mut bytes = fs::read(&path).expect("a copy");
        for (at, value) in changes {
            bytes[at] = value;
        }
        if cut < 20_000 {
            bytes.truncate(cut);
        }
        fs::write(&path, bytes).expect("a copy");
        if let Ok(checkpoint) = open(directory.path()) {
            for name in checkpoint.tensors.keys() {
                checkpoint.read(name).expect("headers that open describe bytes that are there");
            }
        }
    }

    /// Any value at any key is a configuration or an error, never a panic or an overflow.
    #[test]
    fn a_damaged_configuration_never_panics(field in 0usize..5, level in 0usize..3, value in prop::sample::select(vec![
        json!(0), json!(-1), json!(u64::MAX), json!(i64::MAX), json!(1.5), json!(null), json!("x"), json!([]), json!({}), json!(1_000_000_007), json!(1e300),
    ]), part in prop::sample::select(vec!["layers", "heads", "kv_heads", "head_dim", "ffn", "dim"])) {
        let mut json: Value = serde_json::from_slice(&fs::read(golden("lopsided").join("config.json")).expect("a golden")).expect("JSON");
        match field {
            0 => json["vocab_size"] = value,
            1 => json["levels"] = value,
            2 => json["levels"][level]["chunk_size"] = value,
            3 => json["levels"][level]["decoder"][part] = value,
            _ => json["levels"][level]["encoder"] = value,
        }
        let dialects = built_in().expect("built-in dialects parse");
        for dialect in &dialects {
            let _ = dialect.read_config("config.json", &json);
        }
    }
}

// What a checkpoint has beside its weights is carried or named; a model without its tokenizer would be found out too late.
#[test]
fn files_that_cannot_be_carried_end_the_export() -> TestResult {
    use photonc::export::{ExportOptions, export};
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    for (kind, expected) in [
        ("link", "a link to a file that is not there"),
        ("folder", "a folder, not a regular file"),
        ("pipe", "a pipe, not a regular file"),
        ("pointer", "a pointer of Git LFS"),
    ] {
        let model = copy("paper")?;
        let path = model.path().join("generation_config.json");
        match kind {
            "link" => std::os::unix::fs::symlink("nowhere", &path)?,
            "folder" => fs::create_dir(&path)?,
            "pipe" => mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0)?,
            _ => fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")?,
        }
        let out = model.path().join("bundle");
        let error =
            export(&ExportOptions::new(model.path(), &out), &|_| {}).map(|_| ()).expect_err("is refused");
        let error = error.to_string();
        assert!(error.contains("generation_config.json") && error.contains(expected), "{kind}: {error}");
        assert!(!out.exists());
    }
    Ok(())
}

#[test]
fn what_users_have_in_place_of_a_checkpoint_is_called_by_its_name() -> TestResult {
    let model = copy("paper")?;
    let weights = model.path().join("model.safetensors");
    fs::write(&weights, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")?;
    assert!(
        refusal(model.path())
            .contains("a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`")
    );
    fs::remove_file(&weights)?;
    std::os::unix::fs::symlink("nowhere", &weights)?;
    assert!(refusal(model.path()).contains("MODEL/model.safetensors: a link to a file that is not there"));
    fs::remove_file(&weights)?;
    fs::write(model.path().join("pytorch_model.bin"), b"PK\x03\x04")?;
    let found = refusal(model.path());
    assert!(
        found.contains("`pytorch_model.bin`, which is PyTorch's") && found.contains("save_pretrained"),
        "{found}"
    );
    assert!(refusal(&model.path().join("pytorch_model.bin")).contains("a PyTorch file"));

    let hub = tempfile::tempdir()?;
    let root = hub.path().join("models--owner--name");
    fs::create_dir_all(root.join("blobs"))?;
    fs::create_dir_all(root.join("snapshots/0123abc"))?;
    for folder in [root.clone(), root.join("snapshots")] {
        let found = refusal(&folder);
        assert!(found.contains("Hugging Face cache") && found.contains("/0123abc"), "{found}");
    }
    Ok(())
}

// Made-up sizes are refused by counting, not by trying.
#[test]
fn hopeless_sizes_are_refused_before_any_work() -> TestResult {
    let model = copy("paper")?;
    edit_config(model.path(), |config| config["levels"] = Value::Array(vec![json!({}); 100_000]))?;
    let found = refusal(model.path());
    assert!(found.contains("found 100000 levels, at most 64 are supported") && found.len() < 1000, "{found}");
    let model = copy("paper")?;
    edit_config(model.path(), |config| {
        for at in 0..100_000 {
            config[format!("unknown{at}")] = json!(at);
        }
    })?;
    assert!(refusal(model.path()).contains("longer than 1048576 bytes"));
    let model = copy("paper")?;
    fs::write(
        model.path().join("model.safetensors"),
        [&(17u64 << 20).to_le_bytes()[..], &vec![b' '; 17 << 20]].concat(),
    )?;
    assert!(refusal(model.path()).contains("the header claims 17825792 bytes, at most 16777216 are read"));
    Ok(())
}
