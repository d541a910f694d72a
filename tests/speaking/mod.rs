//! The tokenizers that `make.py` made, and a small model that speaks through one of them.
#![allow(dead_code, reason = "each test binary uses its own part")]

use photonc::export::{ExportOptions, export};
use photonc::ir::dtype::Dtype;
use photonc::model::config::ModelConfig;
use photonc::model::preset::preset;
use photonc::model::synth::synth;
use photonc::text::tokenizer::Tokenizer;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Ids of each tokenizer.
pub const SIZE: usize = 512;

pub fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/speaking").join(name)
}

/// A tokenizer by the name of its file.
pub fn tokenizer(name: &str) -> Arc<Tokenizer> {
    let path = file(name);
    let bytes = std::fs::read(&path).expect("is there");
    Arc::new(Tokenizer::parse(path, &bytes).expect("a tokenizer"))
}

/// Two levels of random weights, as many ids as the tokenizers have.
pub fn config() -> ModelConfig {
    ModelConfig { vocab_size: SIZE, ..preset("tiny").expect("a preset") }
}

/// Writes `folder/model`, with the byte-level tokenizer and `more` files, and exports it to `folder/bundle`.
pub fn speaking_bundle(folder: &Path, more: &[(&str, &str)]) -> Result<PathBuf, Box<dyn Error>> {
    let model = folder.join("model");
    synth(&config(), Dtype::F32, 0, &model, &|_, _| {})?;
    std::fs::copy(file("byte_level.json"), model.join("tokenizer.json"))?;
    for (name, text) in more {
        std::fs::write(model.join(name), text)?;
    }
    let bundle = folder.join("bundle");
    export(&ExportOptions::new(&model, &bundle), &|_| {})?;
    Ok(bundle)
}
