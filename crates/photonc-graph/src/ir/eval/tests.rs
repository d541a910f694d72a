//! Every operation against numbers computed by hand, and the promises of the module header.

use super::{EvalError, eval};
use crate::ir::attr::{BinaryFn, CompareFn, Mask, Reach, UnaryFn};
use crate::ir::dtype::Dtype;
use crate::ir::op::Op;
use crate::ir::shape::Shape;
use crate::ir::tensor::{Data, Literal, Tensor};

fn f(shape: &[usize], values: &[f64]) -> Tensor {
    Tensor::floats(shape, values.to_vec()).expect("count fits")
}

fn i(shape: &[usize], values: &[i64]) -> Tensor {
    Tensor::ints(shape, values.to_vec()).expect("count fits")
}

fn b(values: &[bool]) -> Tensor {
    Tensor { shape: vec![values.len()], data: Data::bool(values.to_vec()) }
}

fn run(op: &Op, operands: &[&Tensor], shape: &[usize]) -> Tensor {
    eval(op, operands, shape).expect("evaluates")
}

fn message(op: &Op, operands: &[&Tensor], shape: &[usize]) -> String {
    eval(op, operands, shape).expect_err("is an error").to_string()
}

#[track_caller]
fn close(found: &Tensor, expected: &Tensor) {
    assert_eq!(found.shape, expected.shape);
    let pairs = found.as_floats().expect("floats").iter().zip(expected.as_floats().expect("floats"));
    for (index, (a, b)) in pairs.enumerate() {
        assert!((a - b).abs() < 1e-12, "element {index}: {a}, expected {b}");
    }
}

/// A deterministic tensor without structure, values in [-1, 1).
fn noise(shape: &[usize], seed: u64) -> Tensor {
    let count: usize = shape.iter().product();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    Tensor::floats(shape, (0..count).map(|_| next()).collect()).expect("count fits")
}

fn rows(tensor: &Tensor, range: std::ops::Range<usize>) -> Tensor {
    let inner: usize = tensor.shape[1..].iter().product();
    let mut shape = tensor.shape.clone();
    shape[0] = range.len();
    f(&shape, &tensor.as_floats().expect("floats")[range.start * inner..range.end * inner])
}

#[test]
fn values_from_outside_are_refused() {
    let x = f(&[1], &[0.0]);
    assert_eq!(eval(&Op::ProtocolSwitch, &[&x], &[1]), Err(EvalError::External("protocol_switch")));
}

#[test]
fn constants_are_themselves() {
    let value = Literal::ints(&[2], &[3, 4]).expect("count fits");
    assert_eq!(run(&Op::Const { value }, &[], &[2]), i(&[2], &[3, 4]));
}

#[test]
fn unary_functions() {
    let x = f(&[3], &[0.0, 1.0, -1.0]);
    assert_eq!(run(&Op::Unary { function: UnaryFn::Neg }, &[&x], &[3]), f(&[3], &[-0.0, -1.0, 1.0]));
    let silu = run(&Op::Unary { function: UnaryFn::Silu }, &[&x], &[3]);
    close(&silu, &f(&[3], &[0.0, 0.731_058_578_630_004_9, -0.268_941_421_369_995_1]));
}

#[test]
fn swiglu_gates() {
    let found = run(&Op::SwiGlu, &[&f(&[2], &[1.0, 0.0]), &f(&[2], &[2.0, 5.0])], &[2]);
    close(&found, &f(&[2], &[2.0 * 0.731_058_578_630_004_9, 0.0]));
}

#[test]
fn binary_functions_broadcast() {
    let (column, row) = (f(&[2, 1], &[1.0, 2.0]), f(&[3], &[10.0, 20.0, 30.0]));
    let op = |function| Op::Binary { function };
    let sum = run(&op(BinaryFn::Add), &[&column, &row], &[2, 3]);
    assert_eq!(sum, f(&[2, 3], &[11.0, 21.0, 31.0, 12.0, 22.0, 32.0]));
    let (a, b) = (i(&[2], &[7, i64::MAX]), i(&[2], &[3, 1]));
    assert_eq!(run(&op(BinaryFn::Add), &[&a, &b], &[2]), i(&[2], &[10, i64::MIN]));
    assert_eq!(run(&op(BinaryFn::Sub), &[&a, &b], &[2]), i(&[2], &[4, i64::MAX - 1]));
    assert_eq!(run(&op(BinaryFn::Mul), &[&a, &b], &[2]), i(&[2], &[21, i64::MAX]));
    assert_eq!(run(&op(BinaryFn::Max), &[&a, &b], &[2]), i(&[2], &[7, i64::MAX]));
    assert_eq!(run(&op(BinaryFn::Min), &[&a, &b], &[2]), i(&[2], &[3, 1]));
    let nan = run(&op(BinaryFn::Max), &[&f(&[1], &[f64::NAN]), &f(&[1], &[1.0])], &[1]);
    assert!(nan.as_floats().expect("floats")[0].is_nan());
}

#[test]
fn comparison_and_choice() {
    let (a, b3) = (i(&[3], &[1, 2, 3]), i(&[1], &[2]));
    let less = run(&Op::Compare { function: CompareFn::Less }, &[&a, &b3], &[3]);
    assert_eq!(less, b(&[true, false, false]));
    let equal = run(&Op::Compare { function: CompareFn::Equal }, &[&a, &b3], &[3]);
    assert_eq!(equal, b(&[false, true, false]));
    assert_eq!(run(&Op::Where, &[&less, &a, &b3], &[3]), i(&[3], &[1, 2, 2]));
}

#[test]
fn casts_round_to_narrow_types_only() {
    let x = f(&[1], &[0.1]);
    assert_eq!(run(&Op::Cast { dtype: Dtype::F32 }, &[&x], &[1]), x);
    assert_eq!(run(&Op::Cast { dtype: Dtype::Bf16 }, &[&x], &[1]), f(&[1], &[205.0 / 2048.0]));
    assert_eq!(run(&Op::Cast { dtype: Dtype::F16 }, &[&x], &[1]), f(&[1], &[1638.0 / 16384.0]));
}

#[test]
fn reshape_and_transpose() {
    let x = i(&[2, 3], &[0, 1, 2, 3, 4, 5]);
    let reshape = Op::Reshape { shape: Shape::parse("batch, 2").expect("parses") };
    assert_eq!(run(&reshape, &[&x], &[3, 2]), i(&[3, 2], &[0, 1, 2, 3, 4, 5]));
    let transpose = Op::Transpose { perm: vec![1, 0] };
    assert_eq!(run(&transpose, &[&x], &[3, 2]), i(&[3, 2], &[0, 3, 1, 4, 2, 5]));
    let x = i(&[2, 2, 2], &[0, 1, 2, 3, 4, 5, 6, 7]);
    let outer = Op::Transpose { perm: vec![1, 0, 2] };
    assert_eq!(run(&outer, &[&x], &[2, 2, 2]), i(&[2, 2, 2], &[0, 1, 4, 5, 2, 3, 6, 7]));
    let all = Op::Transpose { perm: vec![2, 0, 1] };
    assert_eq!(run(&all, &[&x], &[2, 2, 2]), i(&[2, 2, 2], &[0, 2, 4, 6, 1, 3, 5, 7]));
}

#[test]
fn concat_and_slice() {
    let (a, c) = (i(&[2, 1], &[1, 2]), i(&[2, 2], &[3, 4, 5, 6]));
    let x = run(&Op::Concat { axis: 1 }, &[&a, &c], &[2, 3]);
    assert_eq!(x, i(&[2, 3], &[1, 3, 4, 2, 5, 6]));
    let slice = |start, len, from_end| Op::Slice { axis: 1, start, len, from_end };
    assert_eq!(run(&slice(1, 2, false), &[&x], &[2, 2]), c);
    assert_eq!(run(&slice(3, 1, true), &[&x], &[2, 1]), a);
    assert_eq!(run(&slice(1, 1, true), &[&x], &[2, 1]), i(&[2, 1], &[4, 6]));
    assert!(message(&slice(2, 2, false), &[&x], &[2, 2]).contains("slice of 2 at 2"));
}

#[test]
fn iota_counts_along_an_axis() {
    assert_eq!(run(&Op::Iota { axis: 1 }, &[&f(&[1, 3], &[9.0; 3])], &[3]), i(&[3], &[0, 1, 2]));
}

#[test]
fn gathers_read_rows_by_id() {
    let table = f(&[3, 2], &[0.0, 1.0, 10.0, 11.0, 20.0, 21.0]);
    let found = run(&Op::Gather, &[&table, &i(&[1, 2], &[2, 0])], &[1, 2, 2]);
    assert_eq!(found, f(&[1, 2, 2], &[20.0, 21.0, 0.0, 1.0]));
    let x = f(&[2, 2, 1], &[0.0, 1.0, 2.0, 3.0]);
    let found = run(&Op::GatherRows, &[&x, &i(&[2, 1], &[1, 0])], &[2, 1, 1]);
    assert_eq!(found, f(&[2, 1, 1], &[1.0, 2.0]));
    let error = message(&Op::Gather, &[&table, &i(&[1, 2], &[2, 3])], &[1, 2, 2]);
    assert_eq!(error, "row id 3 at [0, 1], expected at least 0 and less than 3");
    assert!(message(&Op::GatherRows, &[&x, &i(&[2, 1], &[1, -1])], &[2, 1, 1]).contains("-1 at [1, 0]"));
}

#[test]
fn linear_is_x_times_w_transposed_plus_b() {
    let x = f(&[1, 2], &[1.0, 2.0]);
    let w = f(&[3, 2], &[1.0, 0.0, 0.0, 1.0, 3.0, 4.0]);
    assert_eq!(run(&Op::Linear, &[&x, &w], &[1, 3]), f(&[1, 3], &[1.0, 2.0, 11.0]));
    let bias = f(&[3], &[10.0, 20.0, 30.0]);
    assert_eq!(run(&Op::Linear, &[&x, &w, &bias], &[1, 3]), f(&[1, 3], &[11.0, 22.0, 41.0]));
}

// Batches and padding must not move a bit: the threaded path and the small one sum alike.
#[test]
fn linear_rows_do_not_depend_on_the_batch() {
    let (x, w) = (noise(&[40, 77], 1), noise(&[50, 77], 2));
    let all = run(&Op::Linear, &[&x, &w], &[40, 50]);
    for row in 0..40 {
        let alone = run(&Op::Linear, &[&rows(&x, row..row + 1), &w], &[1, 50]);
        assert_eq!(alone, rows(&all, row..row + 1));
    }
}

#[test]
fn rms_norm_scales_by_the_root_mean_square() {
    let op = Op::RmsNorm { eps: 0.5.into() };
    let found = run(&op, &[&f(&[1, 2], &[1.0, 2.0]), &f(&[2], &[3.0, 5.0])], &[1, 2]);
    let scale = 1.0 / 3.0f64.sqrt();
    close(&found, &f(&[1, 2], &[3.0 * scale, 10.0 * scale]));
}

#[test]
fn rope_rotates_halves() {
    let x = f(&[1, 1, 2, 4], &[1.0, 2.0, 3.0, 4.0, 1.0, 0.0, 0.0, 1.0]);
    let op = Op::Rope { theta: 100.0.into() };
    let found = run(&op, &[&x, &i(&[2], &[0, 2])], &[1, 1, 2, 4]);
    let ((s0, c0), (s1, c1)) = (2.0f64.sin_cos(), 0.2f64.sin_cos());
    close(&found, &f(&[1, 1, 2, 4], &[1.0, 2.0, 3.0, 4.0, c0, -s1, s0, c1]));
    let per_row = run(&op, &[&x, &i(&[1, 2], &[0, 2])], &[1, 1, 2, 4]);
    assert_eq!(per_row, found);
}

#[test]
fn causal_attention_sees_no_later_key() {
    let q = f(&[1, 1, 2, 1], &[0.0, 1.0]);
    let k = f(&[1, 1, 2, 1], &[0.0, 3.0f64.ln()]);
    let v = f(&[1, 1, 2, 1], &[10.0, 20.0]);
    let op = Op::Attention { scale: 1.0.into(), mask: Mask::Causal, reach: Reach::ALL };
    // Query 1 weighs the keys 1 : 3.
    close(&run(&op, &[&q, &k, &v], &[1, 1, 2, 1]), &f(&[1, 1, 2, 1], &[10.0, 17.5]));
    assert!(
        message(&op, &[&q, &rows(&f(&[1, 1, 1, 1], &[0.0]), 0..1), &f(&[1, 1, 1, 1], &[0.0])], &[1, 1, 2, 1])
            .contains("number of keys 1")
    );
}

#[test]
fn grouped_heads_share_keys() {
    let q = f(&[1, 4, 1, 1], &[1.0, -1.0, 1.0, 0.0]);
    let k = f(&[1, 2, 1, 1], &[1.0, 1.0]);
    let v = f(&[1, 2, 1, 1], &[5.0, 7.0]);
    let op = Op::Attention { scale: 0.5.into(), mask: Mask::Causal, reach: Reach::ALL };
    assert_eq!(run(&op, &[&q, &k, &v], &[1, 4, 1, 1]), f(&[1, 4, 1, 1], &[5.0, 5.0, 7.0, 7.0]));
}

// The split moves the append out of the graph, so both forms must agree to the bit; masked slots may hold anything.
#[test]
fn past_over_new_slices_equals_cache_after_append() {
    let [batch, heads, groups, slots, new, width] = [2, 4, 2, 6, 2, 10];
    let q = noise(&[batch, heads, new, width], 3);
    let (k_new, v_new) = (noise(&[batch, groups, new, width], 4), noise(&[batch, groups, new, width], 5));
    let poison = |tensor: &Tensor, lengths: [usize; 2]| {
        let mut values = tensor.as_floats().expect("floats").to_vec();
        for (at, value) in values.iter_mut().enumerate() {
            if at / width % slots >= lengths[at / width / slots / groups] {
                *value = f64::NAN;
            }
        }
        f(&tensor.shape, &values)
    };
    let k_past = poison(&noise(&[batch, groups, slots, width], 6), [3, 0]);
    let v_past = poison(&noise(&[batch, groups, slots, width], 7), [3, 0]);
    let lengths = i(&[2], &[3, 0]);
    let past_shape = [batch, groups, slots + new, width];
    let k = run(&Op::Concat { axis: 2 }, &[&k_past, &k_new], &past_shape);
    let v = run(&Op::Concat { axis: 2 }, &[&v_past, &v_new], &past_shape);
    let op = |mask| Op::Attention { scale: 0.3.into(), mask, reach: Reach::ALL };
    let past = run(&op(Mask::Past), &[&q, &k, &v, &lengths], &q.shape);
    let k = run(&Op::CacheAppend, &[&k_past, &k_new, &lengths], &k_past.shape);
    let v = run(&Op::CacheAppend, &[&v_past, &v_new, &lengths], &v_past.shape);
    let cache = run(&op(Mask::Cache), &[&q, &k, &v, &lengths], &q.shape);
    assert_eq!(past, cache);
    let second = run(
        &op(Mask::Causal),
        &[&rows(&q, 1..2), &rows(&k_new, 1..2), &rows(&v_new, 1..2)],
        &[1, heads, new, width],
    );
    assert_eq!(second, rows(&cache, 1..2));
}

#[test]
fn cache_append_writes_at_each_rows_length() {
    let cache = i(&[2, 1, 3, 1], &[1, 2, 3, 4, 5, 6]);
    let new = i(&[2, 1, 1, 1], &[8, 9]);
    let found = run(&Op::CacheAppend, &[&cache, &new, &i(&[2], &[0, 2])], &[2, 1, 3, 1]);
    assert_eq!(found, i(&[2, 1, 3, 1], &[8, 2, 3, 4, 5, 9]));
    let error = message(&Op::CacheAppend, &[&cache, &new, &i(&[2], &[0, 3])], &[2, 1, 3, 1]);
    assert_eq!(error, "cache length 3 at [1], expected 0 to 2, which leaves room for the new entries");
}

#[test]
fn shift_moves_entries_one_later() {
    let x = i(&[2, 3, 1], &[1, 2, 3, 4, 5, 6]);
    let found = run(&Op::Shift, &[&x, &i(&[2, 1, 1], &[7, 8])], &[2, 3, 1]);
    assert_eq!(found, i(&[2, 3, 1], &[7, 1, 2, 8, 4, 5]));
}

/// Draws one token per logit row `[rows, 1, V]`.
fn draw(logits: &Tensor, uniforms: &[f64], request: (f64, i64, f64), candidates: usize) -> Vec<i64> {
    let (temperature, top_k, top_p) = request;
    let shape = [logits.shape[0], 1];
    let operands =
        [logits, &f(&shape, uniforms), &f(&[1], &[temperature]), &i(&[1], &[top_k]), &f(&[1], &[top_p])];
    run(&Op::Sample { candidates }, &operands, &shape).as_ints().expect("ints").to_vec()
}

#[test]
fn sampling_inverts_the_cumulative_mass() {
    // Probabilities 0.1, 0.4, 0.2, 0.3: ordered 1, 3, 2, 0 with cumulative mass 0.4, 0.7, 0.9, 1.
    let row = [0.1f64.ln(), 0.4f64.ln(), 0.2f64.ln(), 0.3f64.ln()];
    let logits = f(&[4, 1, 4], &row.repeat(4));
    let uniforms = [0.39, 0.41, 0.89, 0.91];
    assert_eq!(draw(&logits, &uniforms, (1.0, 4, 1.0), 4), [1, 3, 2, 0]);
    // Temperature 0 is greedy.
    assert_eq!(draw(&logits, &uniforms, (0.0, 4, 1.0), 4), [1, 1, 1, 1]);
    // Two kept: 4/7 and 3/7. The table's candidates cap a larger top-k.
    assert_eq!(draw(&logits, &[0.57, 0.58, 0.0, 1.0], (1.0, 2, 1.0), 4), [1, 3, 1, 3]);
    assert_eq!(draw(&logits, &[0.57, 0.58, 0.0, 1.0], (1.0, 9, 1.0), 2), [1, 3, 1, 3]);
    // Top-p 0.6 keeps 0.4 + 0.3, 0.3 keeps only the first, and so does 0.
    assert_eq!(draw(&logits, &[0.57, 0.58, 0.0, 1.0], (1.0, 4, 0.6), 4), [1, 3, 1, 3]);
    assert_eq!(draw(&logits, &[0.99; 4], (1.0, 4, 0.3), 4), [1; 4]);
    assert_eq!(draw(&logits, &[0.99; 4], (1.0, 4, 0.0), 4), [1; 4]);
    // Temperature 0.5 squares: 16 : 9 : 4 : 1 of 30.
    assert_eq!(draw(&logits, &[0.53, 0.54, 0.84, 0.97], (0.5, 4, 1.0), 4), [1, 3, 2, 0]);
}

#[test]
fn equal_logits_go_to_the_lowest_id() {
    let logits = f(&[2, 1, 5], &[0.0, 7.0, 7.0, 7.0, 0.0, 0.0, 7.0, 7.0, 7.0, 0.0]);
    assert_eq!(draw(&logits, &[0.9, 0.9], (0.0, 1, 1.0), 3), [1, 1]);
    assert_eq!(draw(&logits, &[0.49, 0.51], (1.0, 2, 1.0), 3), [1, 2]);
}

#[test]
fn rows_take_the_parameters_of_their_request() {
    let logits = f(&[4, 1, 2], &[0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
    let operands =
        [&logits, &f(&[4, 1], &[0.99; 4]), &f(&[2], &[0.0, 1.0]), &i(&[2], &[2, 2]), &f(&[2], &[1.0, 1.0])];
    assert_eq!(run(&Op::Sample { candidates: 2 }, &operands, &[4, 1]), i(&[4, 1], &[1, 1, 0, 0]));
}

#[test]
fn sampling_from_bad_numbers_says_where() {
    let operands = |logit: f64, temperature: f64, top_k: i64| {
        let op = Op::Sample { candidates: 2 };
        let logits = f(&[1, 2, 2], &[0.0, 1.0, 0.0, logit]);
        let [u, t] = [f(&[1, 2], &[0.5, 0.5]), f(&[1], &[temperature])];
        message(&op, &[&logits, &u, &t, &i(&[1], &[top_k]), &f(&[1], &[1.0])], &[1, 2])
    };
    assert_eq!(operands(f64::NAN, 1.0, 1), "logit NaN at [0, 1, 1], expected a number");
    assert_eq!(operands(f64::INFINITY, 1.0, 2), "largest logit inf at [0, 1], expected a finite number");
    assert_eq!(operands(1.0, -1.0, 1), "temperature -1 at [0], expected 0 or more");
    assert_eq!(operands(1.0, 1.0, 0), "top-k 0 at [0], expected 1 or more");
}

#[test]
fn misfits_are_errors() {
    let torn = Tensor { shape: vec![usize::MAX, 2], data: Data::float(vec![0.0]) };
    assert!(message(&Op::Unary { function: UnaryFn::Neg }, &[&torn], &[1]).contains("holds 1 elements"));
    let x = f(&[2], &[1.0, 2.0]);
    assert!(message(&Op::Cast { dtype: Dtype::F16 }, &[&x], &[3]).contains("yields shape [2]"));
    assert!(message(&Op::SwiGlu, &[&x], &[2]).contains("swiglu takes 2 operands, found 1"));
    assert!(message(&Op::SwiGlu, &[&x, &i(&[2], &[1, 2])], &[2]).contains("i64[2]"));
}
