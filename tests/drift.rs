//! The drift of RecGen from HierGen, measured on the golden models and compared with what independent implementations say
//! of their states and logits.

mod fixture;

use fixture::model::{Model, run};
use fixture::{GOLDENS, assert_close, golden_checkpoint};
use photonc::ir::dtype::Dtype;
use photonc::model::config::ModelConfig;
use photonc::passes::choose_protocol::Protocol;
use photonc::passes::compile;
use photonc::runtime::drift::{Drift, DriftOptions, Levels, States, measure};
use photonc::runtime::reference::Reference;
use photonc::runtime::request::{Batch, Keep, Request};
use photonc::runtime::score::Windows;

/// The reference with the graph of states.
fn with_states(model: &Model, config: &ModelConfig) -> Reference {
    let graph = compile::states(config, Dtype::F32, Vec::new()).expect("compiles");
    let mut reference = model.reference();
    reference.insert(graph.verify().expect("is valid")).expect("has its weights");
    reference
}

fn levels(config: &ModelConfig) -> Levels {
    Levels {
        units: (1..=config.depth()).map(|l| config.units(l)).collect(),
        dims: (1..=config.depth()).map(|l| config.dim(l)).collect(),
    }
}

const ALL: DriftOptions =
    DriftOptions { prompt_tokens: 1, new_tokens: 1, prompts: 99, batch: 2, free_running: true };

fn drift(model: &Model, tokens: &[i64], options: DriftOptions) -> Drift {
    let config = golden_checkpoint(model.name).config;
    let mut reference = with_states(model, &config);
    let mut states = States { backend: &mut reference, graph: "states", levels: levels(&config) };
    let mut generator = model.generator(Box::new(model.reference()));
    measure(&mut generator, &mut states, tokens, options, &|_, _| {}).expect("measures")
}

/// The states that a drift is measured against are those of the independent implementations.
#[test]
fn encoder_states_and_reconstructions_are_the_goldens() {
    use photonc::ir::tensor::{Data, Tensor};
    use photonc::runtime::backend::Backend;
    for name in GOLDENS {
        let model = Model::of(name);
        let config = golden_checkpoint(name).config;
        let mut reference = with_states(&model, &config);
        for k in 0..model.expected.prompts() {
            let prompt = model.expected.ints(k, "prompt_aligned");
            let ids = Tensor { shape: vec![1, prompt.len()], data: Data::int(prompt.to_vec()) };
            let length = (prompt.len() / model.meta_tokens) as i64;
            let lengths = Tensor { shape: vec![1], data: Data::int(vec![length]) };
            let ids = reference.upload(&ids, Dtype::I64).expect("uploads");
            let lengths = reference.upload(&lengths, Dtype::I64).expect("uploads");
            let outputs = reference.run("states", &[("ids", &ids), ("lengths", &lengths)]).expect("runs");
            let found = |output: &str| reference_floats(&mut model.reference(), &outputs, output);
            for l in 1..=config.depth() {
                let expected = model.expected.floats(k, &format!("fwd_X{l}"));
                assert_close(name, &found(&format!("encoded.{l}")), expected, model.tolerance());
                if l < config.depth() {
                    let expected = model.expected.floats(k, &format!("fwd_Xhat{l}"));
                    assert_close(name, &found(&format!("reconstructed.{l}")), expected, model.tolerance());
                }
            }
            let expected = model.expected.floats(k, "fwd_logits");
            assert_close(name, &found("logits"), expected, model.tolerance());
        }
    }
}

fn reference_floats(
    reference: &mut Reference,
    outputs: &[(String, photonc::runtime::backend::Buffer)],
    name: &str,
) -> Vec<f64> {
    use photonc::runtime::backend::Backend;
    let (_, buffer) = outputs.iter().find(|(output, _)| output == name).expect("an output");
    reference.download(buffer).expect("downloads").as_floats().expect("floats").to_vec()
}

fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let mass: f64 = logits.iter().map(|logit| logit.exp()).sum();
    logits.iter().map(|logit| logit - mass.ln()).collect()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt())
}

/// On prompt and RecGen continuation of a golden, RecGen's logits and states are the golden's own; HierGen's are those of
/// the forward. Every measure follows from them by its definition.
#[test]
fn every_measure_is_what_its_definition_says() {
    for name in ["paper", "lopsided"] {
        let model = Model::of(name);
        let config = golden_checkpoint(name).config;
        let (meta, vocab, depth) = (model.meta_tokens, model.vocab_size, config.depth());
        let prompt = model.expected.ints(0, "prompt_aligned");
        let new = model.expected.ints(0, "recgen_tokens");
        let new = &new[..new.len() / meta * meta];
        let text = [prompt, new].concat();
        let found =
            drift(&model, &text, DriftOptions { prompt_tokens: prompt.len(), new_tokens: new.len(), ..ALL });
        assert_eq!((found.prompts, found.prompt_tokens, found.new_tokens), (1, prompt.len(), new.len()));
        let (scored, _) =
            model.generator(Box::new(model.reference())).score(std::slice::from_ref(&text)).expect("scores");
        let hiergen = scored[0].logits[prompt.len() * vocab..].chunks_exact(vocab).map(log_softmax);
        let recgen = model.expected.floats(0, "recgen_logits").chunks_exact(vocab).map(log_softmax);
        let best = |logs: &[f64]| (0..vocab).reduce(|best, id| if logs[id] > logs[best] { id } else { best });
        let (mut agree, mut kl, mut losses) = (0.0, 0.0, (0.0, 0.0));
        for ((p, q), token) in hiergen.zip(recgen).zip(new) {
            agree += f64::from(u8::from(best(&p) == best(&q)));
            kl += p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
            losses.0 -= p[*token as usize];
            losses.1 -= q[*token as usize];
        }
        let count = new.len() as f64;
        let whole = found.range(0, new.len());
        let close = |what: &str, found: f64, expected: f64| {
            assert!((found - expected).abs() < 1e-6, "{name} {what}: {found}, expected {expected}");
        };
        assert_eq!(whole.tokens, new.len());
        close("agreement", whole.greedy_agreement, agree / count);
        close("divergence", whole.kl, kl / count);
        close("HierGen", whole.perplexity_hiergen, (losses.0 / count).exp());
        close("RecGen", whole.perplexity_recgen, (losses.1 / count).exp());
        assert!(whole.kl > 0.01 && whole.greedy_agreement < 1.0, "{name}: random weights must drift");

        // Cosines from the golden's own open-loop states and the encoder's states of the text.
        let mut generator = model.generator(Box::new(model.reference()));
        let request = Request {
            forced: new.to_vec(),
            keep: Keep { states: true, ..Keep::default() },
            ..Request::greedy(Protocol::Hiergen, prompt.to_vec(), new.len())
        };
        let truth = run(&mut generator, &Batch::new(vec![request])).states;
        let dim = config.dim(depth);
        let top = model.expected.floats(0, "recgen_XL");
        let mut cosines = Vec::new();
        for (at, state) in top.chunks_exact(dim).take(new.len() / meta).enumerate() {
            let own = truth.iter().find(|state| state.name == "top_state" && state.meta == at).expect("kept");
            cosines.push(cosine(&own.values, state));
        }
        let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
        close("top cosine", whole.levels[depth - 1].recgen.expect("measured"), mean);
        close("first cosine", found.range(0, meta).levels[depth - 1].recgen.expect("measured"), 1.0);
        assert!(mean < 0.999, "{name}: random weights must drift");
        assert!(whole.levels[depth - 1].hiergen.is_none());
        for level in &whole.levels[..depth - 1] {
            assert!(level.hiergen.is_some_and(|cosine| cosine.abs() <= 1.0 + 1e-12));
            assert!(level.recgen.is_some_and(|cosine| cosine.abs() <= 1.0 + 1e-12));
        }
    }
}

/// The golden knows the reconstructions that RecGen conditions its tokens on: their cosine with the encoder's states.
#[test]
fn reconstructions_are_compared_with_the_states_they_stand_for() {
    let model = Model::of("paper");
    let config = golden_checkpoint("paper").config;
    let meta = model.meta_tokens;
    let prompt = model.expected.ints(0, "prompt_aligned");
    let new = &model.expected.ints(0, "recgen_tokens")[..2 * meta];
    let text = [prompt, new].concat();
    let found =
        drift(&model, &text, DriftOptions { prompt_tokens: prompt.len(), new_tokens: 2 * meta, ..ALL });
    let mut reference = with_states(&model, &config);
    let encoded = {
        use photonc::ir::tensor::{Data, Tensor};
        use photonc::runtime::backend::Backend;
        let ids = Tensor { shape: vec![1, text.len()], data: Data::int(text.clone()) };
        let lengths = Tensor { shape: vec![1], data: Data::int(vec![(text.len() / meta) as i64]) };
        let ids = reference.upload(&ids, Dtype::I64).expect("uploads");
        let lengths = reference.upload(&lengths, Dtype::I64).expect("uploads");
        let outputs = reference.run("states", &[("ids", &ids), ("lengths", &lengths)]).expect("runs");
        reference_floats(&mut model.reference(), &outputs, "encoded.1")
    };
    let (dim, units) = (config.dim(1), config.units(1));
    let ours = model.expected.floats(0, "recgen_XhatLm1").chunks_exact(dim);
    let theirs = encoded.chunks_exact(dim).skip(prompt.len() / meta * units);
    let cosines: Vec<f64> = ours.zip(theirs).map(|(a, b)| cosine(a, b)).take(2 * units).collect();
    for (at, cosines) in cosines.chunks_exact(units).enumerate() {
        let mean = cosines.iter().sum::<f64>() / units as f64;
        let found = found.range(at * meta, (at + 1) * meta).levels[0].recgen.expect("measured");
        assert!((found - mean).abs() < 1e-6, "meta-context {at}: {found}, expected {mean}");
    }
}

/// A model has no drift from itself: prompts are averaged whatever the batch, and ranges add up to the whole.
#[test]
fn ranges_and_batches_add_up() {
    let model = Model::of("photon-experiment");
    let meta = model.meta_tokens;
    let text: Vec<i64> = (0..10 * meta).map(|at| ((at * 31 + 7) % model.vocab_size) as i64).collect();
    let options = DriftOptions { prompt_tokens: meta, new_tokens: 2 * meta, ..ALL };
    let (one, three) = (
        drift(&model, &text, DriftOptions { batch: 1, ..options }),
        drift(&model, &text, DriftOptions { batch: 3, ..options }),
    );
    assert_eq!(one.prompts, 3);
    let ranges = one.ranges(&[meta, 5 * meta]);
    assert_eq!(
        ranges.parts.iter().map(|part| (part.first, part.last)).collect::<Vec<_>>(),
        [(0, meta), (meta, 2 * meta)]
    );
    let mean = |value: fn(&photonc::runtime::drift::Range) -> f64| {
        ranges.parts.iter().map(value).sum::<f64>() / ranges.parts.len() as f64
    };
    assert!((mean(|range| range.kl) - ranges.whole.kl).abs() < 1e-12);
    assert!((mean(|range| range.greedy_agreement) - ranges.whole.greedy_agreement).abs() < 1e-12);
    assert_eq!(ranges.whole.tokens, 6 * meta);
    let (a, b) = (one.ranges(&[]).whole, three.ranges(&[]).whole);
    assert!(
        (a.kl - b.kl).abs() < 1e-9
            && a.greedy_agreement == b.greedy_agreement
            && a.free_agreement == b.free_agreement
    );
    assert_eq!(one.by_meta_context().len(), 2);
}

#[test]
fn a_text_without_a_continuation_is_refused() {
    let model = Model::of("paper");
    let config = golden_checkpoint("paper").config;
    let mut reference = with_states(&model, &config);
    let mut states = States { backend: &mut reference, graph: "states", levels: levels(&config) };
    let mut generator = model.generator(Box::new(model.reference()));
    let error = measure(&mut generator, &mut states, &[1; 31], ALL, &|_, _| {}).expect_err("refused");
    assert!(error.to_string().contains("has 31 tokens, expected at least 32"), "{error}");
}

/// A text in windows: one window is the plain score, and further ones score each token once, with the context that their
/// window has.
#[test]
fn long_texts_are_scored_in_windows() {
    for name in GOLDENS {
        let model = Model::of(name);
        let mut generator = model.generator(Box::new(model.reference()));
        let (meta, vocab) = (model.meta_tokens, model.vocab_size);
        let text: Vec<i64> = (0..7 * meta).map(|at| ((at * 29 + 3) % vocab) as i64).collect();
        let (whole, _) = generator.score(std::slice::from_ref(&text)).expect("scores");
        let mut long = |tokens, stride| {
            generator.score_long(&text, Windows { tokens, stride }, &|_, _| {}).expect("scores").0
        };
        let one = long(usize::MAX / 2, 1);
        assert_eq!((one.tokens, one.windows), (7 * meta, 1));
        assert_eq!(one.negative_log_likelihood, whole[0].negative_log_likelihood);
        let bits = one.bits_per_byte(10);
        assert!((bits * 10.0 * 2f64.ln() - one.negative_log_likelihood).abs() < 1e-9);
        let found = long(3 * meta, 2 * meta);
        assert_eq!((found.tokens, found.windows), (7 * meta, 3));
        let mut expected = 0.0;
        for (start, end, skip) in [(0, 3, 0), (2, 5, 1), (4, 7, 1)] {
            let window = text[start * meta..end * meta].to_vec();
            let (scored, _) = model.generator(Box::new(model.reference())).score(&[window]).expect("scores");
            let logits = scored[0].logits.chunks_exact(vocab).zip(&scored[0].tokens).skip(skip * meta);
            expected -= logits.map(|(logits, token)| log_softmax(logits)[*token as usize]).sum::<f64>();
        }
        assert!((found.negative_log_likelihood - expected).abs() < 1e-6, "{name}");
    }
}
