//! Split = unsplit. On random small models the distributed graphs must compute what the step program computes, to
//! the bit in tokens; where a recurrence is tainted, distribution must decline with a path that exists.
#![allow(clippy::panic, reason = "a test fails by panicking")]

mod fixture;

use fixture::{Spread, assert_close, random_weights};
use indexmap::IndexMap;
use photonc::graph::Graph;
use photonc::graph::interp::{Interpreter, WeightSource};
use photonc::ir::op::Op;
use photonc::ir::tensor::Tensor;
use photonc::model::config::{
    Chunker, Converter, ConverterLayout, Feedback, LevelConfig, ModelConfig, Slot, StackConfig, StackOptions,
    Wiring,
};
use photonc::passes::choose_protocol::Protocol;
use photonc::passes::compile::{Compilation, PassOptions, Plan, compile_with, specialise_with};
use photonc::passes::opt_level::OptLevel;
use photonc::runtime::generator::Generator;
use photonc::runtime::plan::Program;
use photonc::runtime::reference::Reference;
use photonc::runtime::request::{Batch, Cancel, Request, RunAhead};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_oneof, proptest};
use std::collections::BTreeMap;
use std::sync::Arc;

type Values = IndexMap<String, Tensor>;

const STEPS: usize = 3;
const BATCH: usize = 2;

fn stack() -> impl Strategy<Value = StackConfig> {
    (1..3usize, 1..3usize, 1..3usize, prop_oneof![Just(2usize), Just(4), Just(6)], 3..9usize).prop_map(
        |(layers, kv_heads, share, head_dim, ffn)| StackConfig {
            layers,
            heads: kv_heads * share,
            kv_heads,
            head_dim,
            ffn,
            options: StackOptions::default(),
        },
    )
}

fn level() -> impl Strategy<Value = LevelConfig> {
    (1..4usize, 3..8usize, 1..4usize, any::<(bool, bool, bool, bool)>(), stack(), stack(), 3..8usize)
        .prop_map(
            |(chunk_size, dim, prefix, (norm, bias, conv, converter_bias), encoder, decoder, decoder_dim)| {
                LevelConfig {
                    chunk_size,
                    dim,
                    prefix,
                    chunker: Chunker::Linear { norm, bias },
                    encoder,
                    converter: Converter {
                        layout: if conv { ConverterLayout::ConvTranspose } else { ConverterLayout::Linear },
                        bias: converter_bias,
                    },
                    decoder,
                    decoder_dim,
                    slot: Slot::None,
                    projection: false,
                    feedback: Feedback::Latent,
                    stream: None,
                    encoder_window: None,
                }
            },
        )
}

/// Models of 1 to 4 levels, made consistent: decoders above level 1 are as wide as what they reconstruct.
fn model() -> impl Strategy<Value = ModelConfig> {
    let parts = (prop::collection::vec(level(), 1..5), 3..8usize, any::<(bool, bool, bool)>(), 5..12usize);
    parts.prop_map(|(mut levels, embed_dim, (token, tied, concat), vocab_size)| {
        let widths: Vec<usize> = levels.iter().map(|level| level.dim).collect();
        for l in 1..levels.len() {
            levels[l].decoder_dim = widths[l - 1];
        }
        levels[0].feedback = if token { Feedback::Token } else { Feedback::Latent };
        if levels.len() == 1 || tied {
            levels[0].decoder_dim = embed_dim;
        }
        if concat {
            levels[0].chunker = Chunker::Concat;
            levels[0].dim = levels[0].chunk_size * embed_dim;
            if levels.len() > 1 {
                levels[1].decoder_dim = levels[0].dim;
            }
        }
        ModelConfig {
            vocab_size,
            embed_dim,
            tied_head: tied,
            rms_norm_eps: 1e-5,
            rope_theta: 10000.0,
            max_position_embeddings: 64,
            levels,
            wiring: Wiring::default(),
        }
    })
}

struct LoadedModel<'w> {
    weights: &'w BTreeMap<String, Tensor>,
    /// Level of the graphs under test; the unsplit step that they are compared with is as it was built.
    level: OptLevel,
}

impl LoadedModel<'_> {
    fn run(&self, graph: &Graph, values: &Values) -> Values {
        let inputs: Values = graph
            .inputs()
            .into_iter()
            .map(|id| match graph.op(id) {
                Op::Input { name, .. } => (name.to_string(), values[&**name].clone()),
                other => panic!("{other:?} is no input"),
            })
            .collect();
        let verified = graph.verify().expect("verifies");
        Interpreter::new(verified, self.weights).expect("prepares").run(&inputs).expect("runs")
    }
}

/// Prefilled state: caches of `capacity` meta-contexts whose slots past the length are poisoned.
fn prefill(
    machine: &LoadedModel<'_>,
    compiled: &Compilation,
    config: &ModelConfig,
    spread: &mut Spread,
) -> Values {
    let ids = spread.ints(&[BATCH, config.meta_tokens() * 3], config.vocab_size);
    prefill_with(machine, compiled, config, ids)
}

/// Prompts of three and one meta-contexts from the rows of `ids`.
fn prefill_with(
    machine: &LoadedModel<'_>,
    compiled: &Compilation,
    config: &ModelConfig,
    ids: Tensor,
) -> Values {
    let meta = 3;
    let lengths = Tensor::ints(&[BATCH], vec![3, 1]).expect("counts agree");
    let given = IndexMap::from([("ids".to_owned(), ids), ("lengths".to_owned(), lengths.clone())]);
    let mut state = machine.run(&compiled.graphs["encode"], &given);
    for l in 1..=config.depth() {
        let units = config.units(l);
        for layer in 0..config.level(l).encoder.layers {
            for kind in ["key", "value"] {
                let name = format!("level{l}.encoder.layer{layer}.{kind}");
                if let Some(slice) = state.get(&name) {
                    let cache = widen_cache(slice, (meta + STEPS) * units, units, &[3, 1]);
                    state.insert(name, cache);
                }
            }
        }
    }
    state.insert("lengths".to_owned(), lengths);
    state
}

fn widen_cache(slice: &Tensor, capacity: usize, units: usize, lengths: &[usize]) -> Tensor {
    let [batch, heads, slots, width] = slice.shape[..] else { panic!("cache of 4 axes") };
    let filled = slice.as_floats().expect("floats");
    let mut values = vec![f64::NAN; batch * heads * capacity * width];
    for b in 0..batch {
        for h in 0..heads {
            for slot in 0..(lengths[b] * units) {
                for d in 0..width {
                    values[((b * heads + h) * capacity + slot) * width + d] =
                        filled[((b * heads + h) * slots + slot) * width + d];
                }
            }
        }
    }
    Tensor::floats(&[batch, heads, capacity, width], values).expect("counts agree")
}

fn append(cache: &Tensor, new: &Tensor, at: &[usize]) -> Tensor {
    let [_, heads, capacity, width] = cache.shape[..] else { panic!("cache of 4 axes") };
    let count = new.shape[2];
    let mut values = cache.as_floats().expect("floats").to_vec();
    let slice = new.as_floats().expect("floats");
    for (b, start) in at.iter().enumerate() {
        for h in 0..heads {
            for i in 0..count {
                let to = ((b * heads + h) * capacity + start + i) * width;
                let from = ((b * heads + h) * count + i) * width;
                values[to..to + width].copy_from_slice(&slice[from..from + width]);
            }
        }
    }
    Tensor::floats(&cache.shape, values).expect("counts agree")
}

/// Takes `next.X` into the state as a runtime does: caches append, the rest is replaced.
fn advance(state: &mut Values, outputs: &Values, config: &ModelConfig) {
    let lengths: Vec<usize> = state["lengths"].as_ints().expect("ints").iter().map(|n| *n as usize).collect();
    for (name, value) in outputs {
        let Some(name) = name.strip_prefix("next.") else { continue };
        let next = match name.strip_prefix("level").and_then(|rest| rest.split_once('.')) {
            Some((l, _)) => {
                let units = config.units(l.parse().expect("level"));
                let at: Vec<usize> = lengths.iter().map(|n| n * units).collect();
                append(&state[name], value, &at)
            }
            None => value.clone(),
        };
        state.insert(name.to_owned(), next);
    }
}

fn count_step(state: &mut Values) {
    let longer = state["lengths"].as_ints().expect("ints").iter().map(|n| n + 1).collect();
    state.insert("lengths".to_owned(), Tensor::ints(&[BATCH], longer).expect("counts agree"));
}

fn sampling(state: &mut Values, spread: &mut Spread, config: &ModelConfig) {
    let candidates = config.vocab_size.min(64) as i64;
    let floats = |values: Vec<f64>| Tensor::floats(&[BATCH], values).expect("counts agree");
    state.insert("temperature".to_owned(), floats(vec![0.0, 0.5 + spread.unit()]));
    state.insert("top_p".to_owned(), floats(vec![1.0, 0.6 + 0.4 * spread.unit()]));
    let top_k = Tensor::ints(&[BATCH], vec![candidates, 1 + spread.below(candidates as usize) as i64]);
    state.insert("top_k".to_owned(), top_k.expect("counts agree"));
}

/// What the tokens of a step are drawn with.
#[derive(Clone)]
struct Drawn {
    /// `[BATCH, M]`.
    uniforms: Tensor,
    /// `[BATCH, M]`: ids to take in place of drawn ones, or negative.
    forced: Tensor,
}

impl Drawn {
    /// Every token is drawn.
    fn free(spread: &mut Spread, tokens: usize) -> Self {
        let forced = Tensor::ints(&[BATCH, tokens], vec![-1; BATCH * tokens]).expect("counts agree");
        Drawn { uniforms: spread.floats(&[BATCH, tokens], 0.0, 1.0), forced }
    }

    /// One token in three is forced.
    fn random(spread: &mut Spread, tokens: usize, vocab_size: usize) -> Self {
        let one = |_| if spread.below(3) == 0 { spread.below(vocab_size) as i64 } else { -1 };
        let forced: Vec<i64> = (0..BATCH * tokens).map(one).collect();
        let forced = Tensor::ints(&[BATCH, tokens], forced).expect("counts agree");
        Drawn { forced, ..Drawn::free(spread, tokens) }
    }

    fn put(&self, values: &mut Values) {
        values.insert("uniforms".to_owned(), self.uniforms.clone());
        values.insert("forced".to_owned(), self.forced.clone());
    }
}

/// The unsplit step program, `STEPS` times: ids and logits of each step, and the state after the last.
fn unsplit(
    machine: &LoadedModel<'_>,
    config: &ModelConfig,
    protocol: Protocol,
    start: &Values,
    draws: &[Drawn],
) -> (Vec<Values>, Values) {
    let step = specialise_with(config, protocol, PassOptions::at(OptLevel::O0)).expect("specialises");
    let mut given = start.clone();
    let mut state: Values = step
        .delays()
        .into_iter()
        .map(|id| match step.op(id) {
            Op::Delay { name, .. } => (name.to_string(), start[&**name].clone()),
            other => panic!("{other:?} is no delay"),
        })
        .collect();
    let mut outputs = Vec::new();
    for draw in draws {
        draw.put(&mut given);
        let inputs: Values = step
            .inputs()
            .into_iter()
            .map(|id| match step.op(id) {
                Op::Input { name, .. } => (name.to_string(), given[&**name].clone()),
                other => panic!("{other:?} is no input"),
            })
            .collect();
        let verified = step.verify().expect("verifies");
        outputs.push(
            Interpreter::new(verified, machine.weights)
                .expect("prepares")
                .step(&mut state, &inputs)
                .expect("steps"),
        );
        count_step(&mut given);
    }
    (outputs, state)
}

/// Values of `parts` side by side along axis 1.
fn joined(parts: &[&Tensor]) -> Tensor {
    let rest: Vec<usize> = parts[0].shape[2..].to_vec();
    let width: usize = rest.iter().product();
    let total: usize = parts.iter().map(|part| part.shape[1]).sum();
    let shape: Vec<usize> = [parts[0].shape[0], total].into_iter().chain(rest).collect();
    let mut values = Vec::new();
    let mut ints = Vec::new();
    for b in 0..parts[0].shape[0] {
        for part in parts {
            let row = part.shape[1] * width;
            match (part.as_floats(), part.as_ints()) {
                (Some(floats), _) => values.extend_from_slice(&floats[b * row..(b + 1) * row]),
                (_, Some(items)) => ints.extend_from_slice(&items[b * row..(b + 1) * row]),
                _ => panic!("numbers expected"),
            }
        }
    }
    if ints.is_empty() { Tensor::floats(&shape, values) } else { Tensor::ints(&shape, ints) }
        .expect("counts agree")
}

fn assert_same_states(found: &Values, expected: &Values) {
    for (name, value) in expected {
        let other = &found[name];
        let (found, expected) = (other.as_floats().expect("floats"), value.as_floats().expect("floats"));
        for (index, (a, b)) in found.iter().zip(expected).enumerate() {
            // Slots nothing wrote keep their poison on both sides.
            assert!((a - b).abs() <= 1e-12 || (a.is_nan() && b.is_nan()), "{name}[{index}]: {a} and {b}");
        }
    }
}

fn check_distributed(
    machine: &LoadedModel<'_>,
    config: &ModelConfig,
    compiled: &Compilation,
    spread: &mut Spread,
) {
    let mut state = prefill(machine, compiled, config, spread);
    sampling(&mut state, spread, config);
    let tokens = config.meta_tokens();
    let draws: Vec<Drawn> = (0..STEPS).map(|_| Drawn::random(spread, tokens, config.vocab_size)).collect();
    let (expected, last) = unsplit(machine, config, Protocol::Recgen, &state, &draws);

    let mut cuts = Vec::new();
    for _ in 0..STEPS {
        let outputs = machine.run(&compiled.graphs["coarse"], &state);
        cuts.push(outputs["reconstruction"].clone());
        advance(&mut state, &outputs, config);
        count_step(&mut state);
    }
    state.insert("reconstruction".to_owned(), joined(&cuts.iter().collect::<Vec<_>>()));
    let uniforms = joined(&draws.iter().map(|draw| &draw.uniforms).collect::<Vec<_>>());
    let forced = joined(&draws.iter().map(|draw| &draw.forced).collect::<Vec<_>>());
    Drawn { uniforms, forced }.put(&mut state);
    let wide = machine.run(&compiled.graphs["expand_logits"], &state);
    let short = machine.run(&compiled.graphs["expand"], &state);
    let ids = joined(&expected.iter().map(|step| &step["ids"]).collect::<Vec<_>>());
    assert_eq!(wide["ids"], ids);
    assert_eq!(short["ids"], ids);
    let logits = joined(&expected.iter().map(|step| &step["logits"]).collect::<Vec<_>>());
    let (found, wanted) = (wide["logits"].as_floats().expect("floats"), logits.as_floats().expect("floats"));
    assert_close("logits", found, wanted, 1e-12);
    advance(&mut state, &short, config);
    assert_same_states(&state, &last);
}

fn check_undistributed(
    machine: &LoadedModel<'_>,
    config: &ModelConfig,
    compiled: &Compilation,
    protocol: Protocol,
    spread: &mut Spread,
) {
    let Plan::Undistributed { decode, logits, reencode, declined, .. } = &compiled.plans[&protocol] else {
        panic!("{protocol} was distributed although samples are fed back")
    };
    walk(&specialise_with(config, protocol, PassOptions::at(machine.level)).expect("specialises"), declined);
    let mut state = prefill(machine, compiled, config, spread);
    sampling(&mut state, spread, config);
    let tokens = config.meta_tokens();
    let draws: Vec<Drawn> = (0..STEPS).map(|_| Drawn::random(spread, tokens, config.vocab_size)).collect();
    let (expected, last) = unsplit(machine, config, protocol, &state, &draws);
    for (step, draw) in expected.iter().zip(draws) {
        draw.put(&mut state);
        let scored = machine.run(&compiled.graphs[logits], &state);
        let outputs = machine.run(&compiled.graphs[decode], &state);
        assert_eq!(outputs["ids"], step["ids"]);
        let (found, wanted) =
            (scored["logits"].as_floats().expect("f"), step["logits"].as_floats().expect("f"));
        assert_close("logits", found, wanted, 1e-12);
        state.insert("ids".to_owned(), outputs["ids"].clone());
        let update = reencode.as_ref().map(|name| machine.run(&compiled.graphs[name], &state));
        advance(&mut state, &outputs, config);
        if let Some(update) = update {
            advance(&mut state, &update, config);
        }
        count_step(&mut state);
    }
    assert_same_states(&state, &last);
}

/// The generator, whatever graphs its plan names, draws what the unsplit step program draws.
fn check_generator(
    machine: &LoadedModel<'_>,
    config: &ModelConfig,
    compiled: &Compilation,
    protocol: Protocol,
    spread: &mut Spread,
) {
    let tokens = config.meta_tokens();
    let prompts = spread.ints(&[BATCH, 3 * tokens], config.vocab_size);
    let rows = prompts.as_ints().expect("ints");
    let requested = vec![rows[..3 * tokens].to_vec(), rows[3 * tokens..4 * tokens].to_vec()];
    let mut state = prefill_with(machine, compiled, config, prompts);
    let floats = |value: f64| Tensor::floats(&[BATCH], vec![value; BATCH]).expect("counts agree");
    state.insert("temperature".to_owned(), floats(0.0));
    state.insert("top_p".to_owned(), floats(1.0));
    state.insert("top_k".to_owned(), Tensor::ints(&[BATCH], vec![1; BATCH]).expect("counts agree"));
    let draws = vec![Drawn::free(spread, tokens); STEPS];
    let (expected, _) = unsplit(machine, config, protocol, &state, &draws);
    let ids = joined(&expected.iter().map(|step| &step["ids"]).collect::<Vec<_>>());

    let weights: Arc<dyn WeightSource> = Arc::new(machine.weights.clone());
    let backend = Reference::of_graphs(compiled.graphs.clone(), weights);
    let program = Program::from_compilation(compiled, config.vocab_size, tokens, 4096);
    let mut generator = Generator::new(program, Box::new(backend));
    for run_ahead in [RunAhead::MetaContexts(1), RunAhead::All] {
        let request = Request::greedy(protocol, Vec::new(), STEPS * tokens);
        let batch = Batch::alike(&request, &requested, run_ahead);
        let found = generator.generate(&batch, &mut |_| {}, &Cancel::default()).expect("generates");
        let found: Vec<i64> = found.sequences.into_iter().flat_map(|sequence| sequence.tokens).collect();
        assert_eq!(found, ids.as_ints().expect("ints"), "{protocol} {run_ahead:?}");
    }
}

/// Follows a declined path edge by edge: from a sample to the state, as claimed.
fn walk(step: &Graph, declined: &photonc::passes::distribute::Declined) {
    let path: Vec<_> = declined
        .path
        .iter()
        .map(|node| step.nodes().into_iter().find(|id| step.serial(*id) == node.serial).expect("node exists"))
        .collect();
    assert!(matches!(step.op(path[0]), Op::Sample { .. }));
    for pair in path.windows(2) {
        assert!(step.users(pair[0]).iter().any(|(user, _)| *user == pair[1]), "no edge");
    }
    let last = path.last().expect("path is not empty");
    assert!(matches!(step.op(*last), Op::Delay { name, .. } if **name == declined.state));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn split_equals_unsplit(
        config in model(),
        seed in any::<u64>(),
        level in prop::sample::select(OptLevel::ALL.to_vec()),
    ) {
        let problems = photonc::model::validate::problems(&config);
        assert!(problems.is_empty(), "{problems:?}");
        let weights = random_weights(&config, seed);
        let machine = LoadedModel { weights: &weights, level };
        let protocols = [Protocol::Recgen, Protocol::Hiergen];
        let compiled = compile_with(&config, &protocols, PassOptions::at(level)).expect("compiles");
        let mut spread = Spread(seed ^ 1);
        // A chunk of one feeds nothing back, so even token feedback at one level leaves the recurrence clean.
        let fed_back = config.level(1).feedback == Feedback::Token && config.level(1).chunk_size > 1;
        let tainted = config.depth() == 1 && fed_back;
        if tainted {
            check_undistributed(&machine, &config, &compiled, Protocol::Recgen, &mut spread);
        } else {
            assert!(matches!(compiled.plans[&Protocol::Recgen], Plan::Distributed { .. }));
            check_distributed(&machine, &config, &compiled, &mut spread);
        }
        check_undistributed(&machine, &config, &compiled, Protocol::Hiergen, &mut spread);
        for protocol in [Protocol::Recgen, Protocol::Hiergen] {
            check_generator(&machine, &config, &compiled, protocol, &mut spread);
        }
    }
}

/// Cases per run, unless the long run asks for more.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(48)
}
