//! Synthesised checkpoints: they open, repeat byte for byte, and nothing is left where one could not be written.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use photonc::ir::dtype::Dtype;
use photonc::model::checkpoint::Checkpoint;
use photonc::model::config::{ConverterLayout, ModelConfig};
use photonc::model::dialect::DialectChoice;
use photonc::model::preset::preset;
use photonc::model::synth::{SynthError, synth};

type TestResult = Result<(), Box<dyn Error>>;

fn tiny() -> ModelConfig {
    preset("tiny").expect("`tiny` is a preset")
}

fn write(config: &ModelConfig, dtype: Dtype, seed: u64, directory: &Path) -> Result<u64, SynthError> {
    synth(config, dtype, seed, directory, &|_, _| {})
}

fn entries(directory: &Path) -> Result<usize, std::io::Error> {
    Ok(fs::read_dir(directory)?.count())
}

#[test]
fn every_type_opens_with_its_configuration_and_finite_weights() -> TestResult {
    let parent = tempfile::tempdir()?;
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        let directory = parent.path().join(dtype.name());
        let bytes = write(&tiny(), dtype, 0, &directory)?;
        let checkpoint = Checkpoint::open(&directory, &DialectChoice::Recognise)?;
        assert_eq!((&checkpoint.config, checkpoint.notes.len()), (&tiny(), 0));
        assert_eq!(checkpoint.files[0].size_bytes, bytes);
        assert!(checkpoint.tensors.values().all(|entry| entry.dtype == dtype));
        checkpoint.check_finite()?;
    }
    Ok(())
}

/// What the compiler can import it can also synthesise: tied heads, convolutional converters.
#[test]
fn other_dialects_shapes_can_be_synthesised() -> TestResult {
    let parent = tempfile::tempdir()?;
    let mut config = tiny();
    config.tied_head = true;
    config.embed_dim = 64;
    config.levels[0].dim = 256;
    config.levels[1].decoder_dim = 256;
    config.levels[0].converter.layout = ConverterLayout::ConvTranspose;
    let directory = parent.path().join("model");
    write(&config, Dtype::F32, 0, &directory)?;
    assert_eq!(Checkpoint::open(&directory, &DialectChoice::Recognise)?.config, config);
    Ok(())
}

#[test]
fn bytes_follow_the_seed_and_not_the_threads() -> TestResult {
    let parent = tempfile::tempdir()?;
    let mut wide = tiny();
    wide.vocab_size = 20_000;
    let weights = |name: &str, threads: usize, seed: u64| -> Result<Vec<u8>, Box<dyn Error>> {
        let directory = parent.path().join(name);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        pool.install(|| write(&wide, Dtype::F32, seed, &directory))?;
        Ok(fs::read(directory.join("model.safetensors"))?)
    };
    let one = weights("one", 1, 5)?;
    assert!(one == weights("four", 4, 5)?);
    assert!(one != weights("other", 2, 6)?);
    Ok(())
}

#[test]
fn progress_ends_at_the_total() -> TestResult {
    let parent = tempfile::tempdir()?;
    let (most, whole) = (AtomicU64::new(0), AtomicU64::new(0));
    synth(&tiny(), Dtype::Bf16, 0, &parent.path().join("model"), &|done, total| {
        most.fetch_max(done, Ordering::Relaxed);
        whole.store(total, Ordering::Relaxed);
    })?;
    assert!(
        most.load(Ordering::Relaxed) == whole.load(Ordering::Relaxed) && whole.load(Ordering::Relaxed) > 0
    );
    Ok(())
}

#[test]
fn an_occupied_target_is_refused_and_untouched() -> TestResult {
    let parent = tempfile::tempdir()?;
    let directory = parent.path().join("model");
    fs::create_dir(&directory)?;
    write(&tiny(), Dtype::F32, 0, &directory)?;
    let before = fs::read(directory.join("model.safetensors"))?;
    let error = write(&tiny(), Dtype::F32, 1, &directory).expect_err("the directory is not empty");
    assert!(
        error
            .to_string()
            .ends_with("model: exists and is not an empty directory; name another one or remove it"),
        "{error}"
    );
    assert!(before == fs::read(directory.join("model.safetensors"))?);
    assert_eq!(entries(parent.path())?, 1);
    Ok(())
}

/// Faults before and while writing leave the parent directory as it was.
#[test]
fn a_refused_model_leaves_nothing() -> TestResult {
    let parent = tempfile::tempdir()?;
    let directory = parent.path().join("model");
    let mut config = tiny();
    config.levels[1].chunk_size = 0;
    let error = write(&config, Dtype::F32, 0, &directory).expect_err("chunks of size 0");
    assert_eq!(
        error.to_string(),
        "the configuration contradicts itself\n  levels[1].chunk_size: found 0, expected at least 1"
    );
    assert!(matches!(write(&tiny(), Dtype::I64, 0, &directory), Err(SynthError::Dtype { .. })));
    assert!(matches!(write(&tiny(), Dtype::F32, 0, &directory.join("deep")), Err(SynthError::Write { .. })));
    assert_eq!(entries(parent.path())?, 0);
    Ok(())
}
