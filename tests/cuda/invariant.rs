//! With `batch_invariant` a prompt has the same bits whatever stands beside it.

use crate::codes::{MIXED, coded};
use crate::emulated::Order;
use crate::fixture::model::{Model, PROTOCOLS, run, tokens};
use crate::precision::{elsewhere, shrinking};
use crate::{cuda_on, device_of};
use photonc::ir::dtype::Dtype;
use photonc::passes::choose_protocol::Protocol;
use photonc::runtime::generator::Generator;
use photonc::runtime::request::{Batch, Generation, Keep, Request, RunAhead};
use photonc::runtime::sampler::Sampling;

/// More than the kernels of small batches are chosen for without the option.
const ROWS: usize = 20;

/// Prompts of unlike lengths, some of them with a remainder.
fn prompts(model: &Model) -> Vec<Vec<i64>> {
    let prompt = |row: usize| {
        let tokens = model.meta_tokens * (row % 5) + row % 3;
        (0..tokens).map(|at| ((at * 11 + row * 7) % model.vocab_size) as i64).collect()
    };
    (0..ROWS).map(prompt).collect()
}

fn drawn(generator: &mut Generator, request: &Request, prompts: &[Vec<i64>]) -> Generation {
    run(generator, &Batch::alike(request, prompts, RunAhead::MetaContexts(2)))
}

/// Prompts that are drawn alone, too: all in the long version of the tests, else the empty one and one of each length.
fn rows_alone() -> Vec<usize> {
    let all = std::env::var_os("PHOTONC_FULL").is_some();
    if all { (0..ROWS).collect() } else { vec![0, 1, 7, 13, 18, 19] }
}

fn check(model: &Model, dtype: Dtype, protocols: &[Protocol]) {
    let all = prompts(model);
    let backend = cuda_on(model, device_of(Order::Immediate, true), dtype);
    let mut generator = model.generator(Box::new(backend));
    for protocol in protocols.iter().copied() {
        let request = |sampling: Sampling, logits: bool| Request {
            sampling,
            keep: Keep { logits, ..Keep::default() },
            ..Request::greedy(protocol, Vec::new(), 2 * model.meta_tokens)
        };
        logits_agree(&mut generator, &request(Sampling::greedy(), true), &all, &rows_alone());
        // The recorded decoder, whose rows are as many as the prompts.
        let sampling = Sampling { temperature: 1.5, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 3 };
        let together = tokens(&drawn(&mut generator, &request(sampling, false), &all));
        for row in rows_alone() {
            let alone = tokens(&drawn(&mut generator, &request(sampling, false), &all[row..=row]));
            assert_eq!(alone[0].len(), 2 * model.meta_tokens);
            // Draws are keyed by seed, sample and position, and a prompt's number among others is no part of that.
            assert_eq!(together[row], alone[0], "{dtype} {protocol} row {row}");
        }
    }
}

/// Two meta-contexts beside more than any kernel of short prompts takes: how long the padding is must not matter.
fn padding_is_nothing(model: &Model, dtype: Dtype) {
    let backend = cuda_on(model, device_of(Order::Immediate, true), dtype);
    let mut generator = model.generator(Box::new(backend));
    let prompt = |meta_contexts: usize| -> Vec<i64> {
        (0..meta_contexts * model.meta_tokens).map(|at| ((at * 13 + 5) % model.vocab_size) as i64).collect()
    };
    let keep = Keep { logits: true, ..Keep::default() };
    let request = Request { keep, ..Request::greedy(Protocol::Recgen, Vec::new(), model.meta_tokens) };
    logits_agree(&mut generator, &request, &[prompt(2), prompt(20)], &[0, 1]);
}

fn logits_agree(generator: &mut Generator, request: &Request, prompts: &[Vec<i64>], rows: &[usize]) {
    let together = drawn(generator, request, prompts);
    for row in rows.iter().copied() {
        let alone = drawn(generator, request, &prompts[row..=row]);
        let [found, expected] = [&together.sequences[row].logits, &alone.sequences[0].logits];
        assert!(!expected.is_empty());
        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<u64>>();
        assert!(
            bits(found) == bits(expected),
            "{}: logits of row {row} are not those of its own",
            request.protocol
        );
    }
}

#[test]
fn a_prompt_has_the_same_bits_beside_longer_ones() {
    padding_is_nothing(&shrinking(Model::of("lopsided")), Dtype::F32);
}

#[test]
fn a_prompt_has_the_same_bits_in_bf16_beside_longer_ones() {
    if !elsewhere("invariant::a_prompt_has_the_same_bits_in_bf16_beside_longer_ones") {
        padding_is_nothing(&shrinking(Model::of("lopsided")), Dtype::Bf16);
    }
}

#[test]
fn a_prompt_has_the_same_bits_in_f32_whatever_stands_beside_it() {
    check(&shrinking(Model::of("lopsided")), Dtype::F32, &PROTOCOLS);
}

#[test]
fn a_prompt_has_the_same_bits_in_bf16_whatever_stands_beside_it() {
    if !elsewhere("invariant::a_prompt_has_the_same_bits_in_bf16_whatever_stands_beside_it") {
        check(&shrinking(Model::of("lopsided")), Dtype::Bf16, &PROTOCOLS);
    }
}

#[test]
fn a_prompt_has_the_same_bits_with_quantized_weights_whatever_stands_beside_it() {
    if !elsewhere("invariant::a_prompt_has_the_same_bits_with_quantized_weights_whatever_stands_beside_it") {
        check(&shrinking(coded(&MIXED)), Dtype::Bf16, &[Protocol::Recgen]);
    }
}
