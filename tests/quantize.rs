//! Weights in few bits from an exported bundle: what is stored is what the scheme says, whole copies are left out, targets
//! refuse what they cannot read, and the table of errors in docs/numerics.md is what is measured here.
#![allow(clippy::panic, reason = "a test fails by panicking")]

mod fixture;

use fixture::{Expected, Spread, golden_checkpoint, golden_path};
use photonc::bundle::Bundle;
use photonc::export::target::Target;
use photonc::export::{ExportOptions, ExportReport, export};
use photonc::ir::attr::Scheme;
use photonc::passes::quantize_weights::Choice;
use photonc::runtime::backend::Backend;
use photonc::runtime::generator::Generator;
use photonc::runtime::reference::Reference;
use photonc::runtime::tract::Tract;
use std::fmt::Write as _;
use std::path::Path;

const GOLDEN: &str = "paper";
/// Set to write the table anew.
const UPDATE: &str = "PHOTONC_UPDATE";
const STACKS: [&str; 7] = [
    "level1.encoder",
    "level1.converter",
    "level1.decoder",
    "level2.chunker",
    "level2.encoder",
    "level2.decoder",
    "lm_head",
];

fn choices(stacks: &[&str], scheme: Scheme) -> Vec<Choice> {
    stacks.iter().map(|stack| Choice { stack: (*stack).to_owned().into(), scheme }).collect()
}

struct Exported {
    bundle: Bundle,
    report: ExportReport,
    _directory: tempfile::TempDir,
}

fn exported(quantized: Vec<Choice>, target: Target) -> Result<Exported, String> {
    let directory = tempfile::tempdir().expect("directory");
    let out = directory.path().join("bundle");
    let options = ExportOptions {
        quantized,
        targets: Some(vec![target]),
        ..ExportOptions::new(golden_path(GOLDEN), &out)
    };
    let report = export(&options, &|_| {}).map_err(|error| error.to_string())?;
    let bundle = Bundle::open(&out).expect("opens");
    bundle.verify_weights().expect("weights are whole");
    Ok(Exported { bundle, report, _directory: directory })
}

/// Golden prompts and as many random ones.
fn prompts() -> Vec<Vec<i64>> {
    let expected = Expected::of(GOLDEN);
    let mut prompts: Vec<Vec<i64>> =
        (0..expected.prompts()).map(|k| expected.ints(k, "prompt").to_vec()).collect();
    let vocab = golden_checkpoint(GOLDEN).config.vocab_size;
    let mut spread = Spread(5);
    for _ in 0..prompts.len() {
        prompts.push(spread.ints(&[64], vocab).as_ints().expect("ints").to_vec());
    }
    prompts
}

/// Logits of the teacher-forced forward, one vocabulary after the other.
fn logits(bundle: &Bundle, backend: Box<dyn Backend>) -> Vec<f64> {
    let mut generator = Generator::of_bundle(bundle, backend).expect("signatures parse");
    let (scored, _) = generator.score(&prompts()).expect("scores");
    scored.into_iter().flat_map(|scored| scored.logits).collect()
}

fn reference(bundle: &Bundle) -> Vec<f64> {
    logits(bundle, Box::new(Reference::of_bundle(bundle.clone())))
}

/// How far logits are from those of f32 weights.
struct Distance {
    largest: f64,
    /// Mean divergence of the distributions, in nats.
    divergence: f64,
    /// Share of places whose greatest logit is the same.
    greedy: f64,
}

impl Distance {
    fn of(found: &[f64], exact: &[f64], vocab: usize) -> Self {
        let places = (found.len() / vocab) as f64;
        let rows = || found.chunks_exact(vocab).zip(exact.chunks_exact(vocab));
        let largest = found.iter().zip(exact).fold(0f64, |most, (a, b)| most.max((a - b).abs()));
        let divergence: f64 = rows().map(|(found, exact)| divergence(exact, found)).sum();
        let same = rows().filter(|(found, exact)| argmax(found) == argmax(exact)).count();
        Distance { largest, divergence: divergence / places, greedy: same as f64 / places }
    }
}

fn log_probabilities(logits: &[f64]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mass = logits.iter().map(|logit| (logit - most).exp()).sum::<f64>().ln();
    logits.iter().map(|logit| logit - most - mass).collect()
}

fn divergence(of: &[f64], from: &[f64]) -> f64 {
    let (p, q) = (log_probabilities(of), log_probabilities(from));
    p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum()
}

fn argmax(values: &[f64]) -> usize {
    (0..values.len()).fold(0, |best, at| if values[at] > values[best] { at } else { best })
}

/// The table, one row a stack and scheme.
fn table() -> String {
    let vocab = golden_checkpoint(GOLDEN).config.vocab_size;
    let exact = reference(&exported(Vec::new(), Target::Portable).expect("exports").bundle);
    let scale = exact.iter().fold(0f64, |most, logit| most.max(logit.abs()));
    let mut text = format!(
        "| stack | scheme | weights off by | largest logit error (of {scale:.1}) | KL, nats | same greedy token |\n\
         |---|---|---|---|---|---|\n"
    );
    let mut rows: Vec<Vec<&str>> = STACKS.iter().map(|stack| vec![*stack]).collect();
    rows.push(STACKS.to_vec());
    for stacks in rows {
        for scheme in Scheme::ALL {
            let found = exported(choices(&stacks, *scheme), Target::Tensorrt).expect("exports");
            let distance = Distance::of(&reference(&found.bundle), &exact, vocab);
            let parts = &found.report.quantized;
            assert_eq!(parts.len(), stacks.len(), "{stacks:?} {}", scheme.name());
            let weights = parts.iter().map(|part| part.relative).fold(0f64, f64::max);
            let name = if stacks.len() == 1 { stacks[0] } else { "all of them" };
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| `{name}` | {} | {:.2} % | {:.2} | {:.1e} | {:.1} % |",
                scheme.name(),
                100.0 * weights,
                distance.largest,
                distance.divergence,
                100.0 * distance.greedy
            );
        }
    }
    text
}

#[test]
fn the_table_of_errors_is_current() {
    const BEGIN: &str = "<!-- quantisation errors: tests/quantize.rs -->\n";
    const END: &str = "<!-- end -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/numerics.md");
    let page = std::fs::read_to_string(&path).expect("reads");
    let (before, rest) = page.split_once(BEGIN).expect("has the table");
    let (found, after) = rest.split_once(END).expect("ends the table");
    let expected = table();
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).expect("writes");
    } else {
        assert_eq!(found, expected, "docs/numerics.md is not current; set {UPDATE}=1");
    }
}

#[test]
fn fewer_bits_are_farther_off() {
    let exact = reference(&exported(Vec::new(), Target::Portable).expect("exports").bundle);
    let distance = |scheme| {
        let found = exported(choices(&["lm_head"], scheme), Target::Tensorrt).expect("exports");
        let vocab = golden_checkpoint(GOLDEN).config.vocab_size;
        (
            found.report.quantized[0].relative,
            Distance::of(&reference(&found.bundle), &exact, vocab).divergence,
        )
    };
    let [int8, int4, fp8] = [Scheme::Int8, Scheme::Int4, Scheme::Fp8].map(distance);
    assert!(int8.0 < fp8.0 && fp8.0 < int4.0, "{int8:?} {fp8:?} {int4:?}");
    let measured = |scheme| {
        let report = exported(choices(&["lm_head"], scheme), Target::Tensorrt).expect("exports").report;
        report.logits.expect("is small")
    };
    let (int8_logits, int4_logits) = (measured(Scheme::Int8), measured(Scheme::Int4));
    assert!(
        int8_logits.largest < int4_logits.largest && int8_logits.greedy > 0.9 && int8_logits.places == 128
    );
    assert!(0.0 < int8.1 && int8.1 < int4.1, "{int8:?} {int4:?}");
}

// Codes on disk give what the scheme gives in memory, and tract computes with the same numbers.
#[test]
fn stored_codes_are_what_graphs_read() {
    let checkpoint = golden_checkpoint(GOLDEN);
    for scheme in Scheme::ALL {
        let found =
            exported(choices(&["level1.decoder", "lm_head"], *scheme), Target::Tensorrt).expect("exports");
        let manifest = found.bundle.manifest();
        assert!(manifest.quantized.len() > 1);
        for record in manifest.quantized.values() {
            let stored = found.bundle.quantized_weight(&record.weight, *scheme).expect("reads");
            let values = checkpoint.read_f64(&record.weight).expect("reads");
            let shape = [record.codes.shape[0], record.codes.shape[1]];
            assert_eq!(stored.as_floats(), scheme.rounded(shape, &values).as_deref(), "{}", record.weight);
            assert!(!manifest.weights.contains_key(&record.weight), "{} is stored whole too", record.weight);
        }
    }
    let int8 =
        exported(choices(&["level1.decoder", "lm_head"], Scheme::Int8), Target::Portable).expect("exports");
    let tract = logits(&int8.bundle, Box::new(Tract::of_bundle(int8.bundle.clone())));
    fixture::assert_close("tract", &tract, &reference(&int8.bundle), 1e-3);
    let bytes = |exported: &Exported| {
        exported.bundle.manifest().weight_files.values().map(|file| file.bytes).sum::<u64>()
    };
    let whole = exported(Vec::new(), Target::Portable).expect("exports");
    // Four bytes an element before; one, a scale for each row and names after.
    let coded: u64 = int8.bundle.manifest().quantized.values().map(|record| record.codes.length_bytes).sum();
    assert!(bytes(&int8) + 2 * coded < bytes(&whole), "{} of {}", bytes(&int8), bytes(&whole));
}

#[test]
fn what_cannot_be_is_refused_with_its_reason() {
    let refused = |stack: &str, scheme, target| {
        exported(choices(&[stack], scheme), target).err().unwrap_or_else(|| panic!("{stack} was taken"))
    };
    let error = refused("lm_head", Scheme::Int4, Target::Portable);
    assert!(error.contains("lm_head") && error.contains("tract reads no int4"), "{error}");
    let error = refused("level1", Scheme::Fp8, Target::Portable);
    assert!(error.contains("tract reads no fp8") && error.contains("choose int8"), "{error}");
    let error = refused("level3.decoder", Scheme::Int8, Target::Portable);
    assert!(
        error.contains("`level3.decoder`") && STACKS.iter().all(|stack| error.contains(stack)),
        "{error}"
    );
}
