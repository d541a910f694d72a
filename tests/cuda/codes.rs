//! Weights in few bits: every graph within what rounding explains, by the kernels that read codes and by those that make
//! the weight first; the same tokens as the reference from prompt to end.

use crate::backend;
use crate::emulated::Order;
use crate::fixture::model::{Model, PROTOCOLS, golden_batch, run, tokens};
use crate::goldens::tokens_alone;
use crate::precision::{compared, elsewhere, shrinking};
use photonc::ir::attr::Scheme;
use photonc::ir::dtype::Dtype;
use photonc::passes::compile::PassOptions;
use photonc::passes::quantize_weights::Choice;
use photonc::runtime::request::RunAhead;

/// The golden with weights of stacks in few bits.
pub fn coded(choices: &[(&'static str, Scheme)]) -> Model {
    let quantized =
        choices.iter().map(|(stack, scheme)| Choice { stack: (*stack).into(), scheme: *scheme }).collect();
    Model::compiled("paper", PassOptions { quantized, ..PassOptions::default() })
}

/// Every scheme, and a map that stays whole beside such that do not.
pub const MIXED: [(&str, Scheme); 7] = [
    ("level1.encoder", Scheme::Int8),
    ("level1.converter", Scheme::Int4),
    ("level1.decoder.layer0", Scheme::Fp8),
    ("level2.chunker", Scheme::Int8),
    ("level2.encoder", Scheme::Int4),
    ("level2.decoder", Scheme::Fp8),
    ("lm_head", Scheme::Int8),
];

/// One scheme for everything.
fn all(scheme: Scheme) -> [(&'static str, Scheme); 3] {
    [("level1", scheme), ("level2", scheme), ("lm_head", scheme)]
}

/// Every graph against the reference: as few rows go, and with each weight made whole for cuBLASLt.
fn check(model: &Model, dtype: Dtype) {
    for rows in [16, 0] {
        let mut candidate = backend(model, Order::Immediate, dtype);
        let tuning = &mut candidate.loaded().tuning;
        (tuning.skinny_rows, tuning.code_rows) = (rows, rows);
        let (useful, all) = compared(model, &mut candidate, dtype);
        assert!(2 * useful > all, "{}: only {useful} of {all} outputs say anything", model.name);
    }
}

#[test]
fn every_graph_of_codes_in_f32_is_within_what_rounding_explains() {
    if elsewhere("codes::every_graph_of_codes_in_f32_is_within_what_rounding_explains") {
        return;
    }
    check(&coded(&MIXED), Dtype::F32);
}

#[test]
fn every_graph_of_codes_in_f16_is_within_what_rounding_explains() {
    if elsewhere("codes::every_graph_of_codes_in_f16_is_within_what_rounding_explains") {
        return;
    }
    for scheme in Scheme::ALL {
        check(&coded(&all(*scheme)), Dtype::F16);
    }
}

#[test]
fn every_graph_of_codes_in_bf16_is_within_what_rounding_explains() {
    if elsewhere("codes::every_graph_of_codes_in_bf16_is_within_what_rounding_explains") {
        return;
    }
    check(&shrinking(coded(&MIXED)), Dtype::Bf16);
}

// From prompt to tokens, work as late and as mixed as streams and events allow, and rows enough for cuBLASLt.
#[test]
fn tokens_of_codes_are_those_of_the_reference() {
    let model = coded(&MIXED);
    let mut reference = model.generator(Box::new(model.reference()));
    let mut generator = model.generator(Box::new(backend(&model, Order::Mixed(11), Dtype::F32)));
    for protocol in PROTOCOLS {
        let batch = tokens_alone(golden_batch(&model, protocol, &[0, 1], RunAhead::MetaContexts(2)));
        let expected = tokens(&run(&mut reference, &batch));
        assert_eq!(tokens(&run(&mut generator, &batch)), expected, "{protocol}");
    }
}
