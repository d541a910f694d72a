//! Types of results from types of operands. Owns every shape rule; an operation without a rule does not compile.

mod experts;

use super::attr::Mask;
use super::dim::Dim;
use super::dtype::Dtype;
use super::op::Op;
use super::shape::{Shape, Type};

/// Why operands do not fit an operation, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InferError(pub String);

type Inferred = Result<Type, InferError>;

fn fail<T>(message: impl Into<String>) -> Result<T, InferError> {
    Err(InferError(message.into()))
}

/// The type of `op` applied to operands of these types.
///
/// # Errors
/// Says which rule the operands break, with the types found.
pub fn infer(op: &Op, operands: &[Type]) -> Inferred {
    let def = op.kind().def();
    if operands.len() < def.min_operands || operands.len() > def.max_operands {
        return fail(format!("{} takes {} operands, found {}", def.name, arity(&def), operands.len()));
    }
    match op {
        Op::Input { ty, .. } | Op::Weight { ty, .. } => Ok(ty.clone()),
        Op::QuantizedWeight { ty, scheme, .. } => {
            float(ty, "quantized_weight")?;
            match ty.shape.as_const().as_deref() {
                Some([rows, columns]) if scheme.scale_shape([*rows, *columns]).is_some() => Ok(ty.clone()),
                _ => fail(format!(
                    "{} of {ty}: a matrix expected, for int4 of columns in multiples of 32",
                    scheme.name()
                )),
            }
        }
        Op::Const { value } => Ok(value.ty()),
        Op::Delay { ty, name } => same(ty, &operands[0], || format!("next state of `{name}`")),
        Op::ProtocolSwitch => match operands {
            [one] => Ok(one.clone()),
            _ => same(&operands[0], &operands[1], || "both sources".to_owned()),
        },
        Op::Unary { function } => {
            float(&operands[0], function.name())?;
            Ok(operands[0].clone())
        }
        Op::Binary { function } => elementwise(function.name(), &operands[0], &operands[1]),
        Op::Compare { function } => {
            let ty = elementwise(function.name(), &operands[0], &operands[1])?;
            Ok(Type::new(Dtype::Bool, ty.shape))
        }
        Op::Where => select(operands),
        Op::Cast { dtype } => {
            float(&operands[0], "cast")?;
            if !dtype.is_float() {
                return fail(format!("cast to {dtype} is not defined"));
            }
            Ok(Type::new(*dtype, operands[0].shape.clone()))
        }
        Op::Reshape { shape } => {
            let (found, wanted) = (operands[0].shape.elements(), shape.elements());
            if found != wanted {
                return fail(format!(
                    "reshape of {} ({found} elements) to {shape} ({wanted})",
                    operands[0].shape
                ));
            }
            Ok(Type::new(operands[0].dtype, shape.clone()))
        }
        Op::Transpose { perm } => transpose(&operands[0], perm),
        Op::Concat { axis } => concat(operands, *axis),
        Op::Slice { axis, start, len, from_end } => slice(&operands[0], *axis, *start, *len, *from_end),
        Op::Iota { axis } => {
            let dim = axis_dim(&operands[0], *axis)?;
            Ok(Type::new(Dtype::I64, Shape(vec![dim])))
        }
        Op::Gather => gather(&operands[0], &operands[1]),
        Op::GatherRows => gather_rows(&operands[0], &operands[1]),
        Op::Linear => linear(operands),
        Op::RmsNorm { .. } => {
            float(&operands[0], "rms_norm")?;
            let last = axis_dim(&operands[0], operands[0].shape.rank().wrapping_sub(1))?;
            expect(&operands[1], "norm weight", &Shape(vec![last]))?;
            Ok(operands[0].clone())
        }
        Op::Rope { .. } => rope(&operands[0], &operands[1]),
        Op::Attention { mask, reach, .. } => attention(operands, *mask, reach.recent),
        Op::Route { top_k, groups, kept_groups, .. } => {
            experts::route(operands, *top_k, *groups, *kept_groups)
        }
        Op::Experts { top_k } => experts::experts(operands, *top_k),
        Op::SwiGlu => {
            float(&operands[0], "swiglu")?;
            same(&operands[0], &operands[1], || "gate and up".to_owned())
        }
        Op::CacheAppend => cache_append(operands),
        Op::Shift => shift(&operands[0], &operands[1]),
        Op::Sample { candidates } => sample(operands, *candidates),
    }
}

fn arity(def: &super::op::OpDef) -> String {
    match (def.min_operands, def.max_operands) {
        (min, max) if min == max => min.to_string(),
        (min, usize::MAX) => format!("{min} or more"),
        (min, max) => format!("{min} to {max}"),
    }
}

fn same(wanted: &Type, found: &Type, what: impl Fn() -> String) -> Inferred {
    if wanted == found { Ok(wanted.clone()) } else { fail(format!("{}: {found}, expected {wanted}", what())) }
}

fn float(ty: &Type, what: &str) -> Result<(), InferError> {
    if ty.dtype.is_float() { Ok(()) } else { fail(format!("{what} needs floats, found {ty}")) }
}

fn int(ty: &Type, what: &str) -> Result<(), InferError> {
    if ty.dtype == Dtype::I64 { Ok(()) } else { fail(format!("{what} must be i64, found {ty}")) }
}

fn rank(ty: &Type, rank: usize, what: &str) -> Result<(), InferError> {
    if ty.shape.rank() == rank { Ok(()) } else { fail(format!("{what} must have {rank} axes, found {ty}")) }
}

fn expect(ty: &Type, what: &str, shape: &Shape) -> Result<(), InferError> {
    if &ty.shape == shape { Ok(()) } else { fail(format!("{what} is {ty}, expected shape {shape}")) }
}

fn axis_dim(ty: &Type, axis: usize) -> Result<Dim, InferError> {
    match ty.shape.0.get(axis) {
        Some(dim) => Ok(dim.clone()),
        None => fail(format!("axis {axis} of {ty} does not exist")),
    }
}

fn elementwise(name: &str, left: &Type, right: &Type) -> Inferred {
    if left.dtype != right.dtype || left.dtype == Dtype::Bool {
        return fail(format!("{name} of {left} and {right}: numbers of one type expected"));
    }
    match left.shape.broadcast(&right.shape) {
        Some(shape) => Ok(Type::new(left.dtype, shape)),
        None => fail(format!("{name} of {left} and {right}: shapes do not broadcast")),
    }
}

fn select(operands: &[Type]) -> Inferred {
    if operands[0].dtype != Dtype::Bool || operands[1].dtype != operands[2].dtype {
        return fail(format!(
            "where of {}, {}, {}: bool and two of one type expected",
            operands[0], operands[1], operands[2]
        ));
    }
    let shape = operands[0].shape.broadcast(&operands[1].shape).and_then(|s| s.broadcast(&operands[2].shape));
    match shape {
        Some(shape) => Ok(Type::new(operands[1].dtype, shape)),
        None => fail(format!(
            "where of {}, {}, {}: shapes do not broadcast",
            operands[0], operands[1], operands[2]
        )),
    }
}

fn transpose(ty: &Type, perm: &[usize]) -> Inferred {
    let mut sorted = perm.to_vec();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..ty.shape.rank()) {
        return fail(format!("{perm:?} is no permutation of the axes of {ty}"));
    }
    Ok(Type::new(ty.dtype, Shape(perm.iter().map(|axis| ty.shape.0[*axis].clone()).collect())))
}

fn concat(operands: &[Type], axis: usize) -> Inferred {
    let mut result = operands[0].clone();
    axis_dim(&result, axis)?;
    for operand in &operands[1..] {
        let sum = result.shape.0[axis].plus(&axis_dim(operand, axis)?);
        let mut rest = operand.shape.clone();
        rest.0[axis] = result.shape.0[axis].clone();
        if rest != result.shape || operand.dtype != result.dtype {
            return fail(format!("concat of {} and {operand} along axis {axis}", operands[0]));
        }
        result.shape.0[axis] = sum;
    }
    Ok(result)
}

fn slice(ty: &Type, axis: usize, start: usize, len: usize, from_end: bool) -> Inferred {
    let dim = axis_dim(ty, axis)?;
    let fits = match dim.as_const() {
        Some(size) if from_end => start <= size && len <= start,
        Some(size) => start.checked_add(len).is_some_and(|end| end <= size),
        // A symbolic axis has at least one entry per unit of its symbols; more cannot be promised here.
        None => {
            if from_end {
                start == 1 && len == 1
            } else {
                start == 0 && len == 1
            }
        }
    };
    if !fits {
        let side = if from_end { "the end" } else { "the start" };
        return fail(format!("slice of {len} at {start} from {side} of axis {axis} of {ty}"));
    }
    let mut shape = ty.shape.clone();
    shape.0[axis] = Dim::from(len);
    Ok(Type::new(ty.dtype, shape))
}

fn gather(table: &Type, index: &Type) -> Inferred {
    rank(table, 2, "table")?;
    int(index, "row ids")?;
    let mut shape = index.shape.clone();
    shape.0.push(table.shape.0[1].clone());
    Ok(Type::new(table.dtype, shape))
}

fn gather_rows(x: &Type, index: &Type) -> Inferred {
    rank(x, 3, "gather_rows operand")?;
    rank(index, 2, "row index")?;
    int(index, "row index")?;
    if x.shape.0[0] != index.shape.0[0] {
        return fail(format!("gather_rows of {x} by {index}: first axes differ"));
    }
    let shape = Shape(vec![index.shape.0[0].clone(), index.shape.0[1].clone(), x.shape.0[2].clone()]);
    Ok(Type::new(x.dtype, shape))
}

fn linear(operands: &[Type]) -> Inferred {
    let (x, w) = (&operands[0], &operands[1]);
    float(x, "linear")?;
    rank(w, 2, "linear weight")?;
    let inner = axis_dim(x, x.shape.rank().wrapping_sub(1))?;
    if inner != w.shape.0[1] || operands.iter().any(|operand| operand.dtype != x.dtype) {
        return fail(format!("linear of {x} by weight {w}"));
    }
    let mut shape = x.shape.clone();
    if let Some(last) = shape.0.last_mut() {
        *last = w.shape.0[0].clone();
    }
    if let Some(addend) = operands.get(2).filter(|addend| addend.shape != shape) {
        expect(addend, "linear bias", &Shape(vec![w.shape.0[0].clone()]))?;
    }
    Ok(Type::new(x.dtype, shape))
}

fn rope(x: &Type, positions: &Type) -> Inferred {
    float(x, "rope")?;
    rank(x, 4, "rope operand")?;
    int(positions, "positions")?;
    let [batch, _, n, head_dim] = &x.shape.0[..] else { return fail("rope operand must have 4 axes") };
    let flat = Shape(vec![n.clone()]);
    let rows = Shape(vec![batch.clone(), n.clone()]);
    if positions.shape != flat && positions.shape != rows {
        return fail(format!("positions are {positions}, expected shape {flat} or {rows}"));
    }
    if head_dim.as_const().is_none_or(|size| size % 2 != 0) {
        return fail(format!("head width {head_dim} of rope must be even"));
    }
    Ok(x.clone())
}

fn attention(operands: &[Type], mask: Mask, recent: usize) -> Inferred {
    let (q, k, v) = (&operands[0], &operands[1], &operands[2]);
    float(q, "attention")?;
    rank(q, 4, "queries")?;
    rank(k, 4, "keys")?;
    rank(v, 4, "values")?;
    let (qs, ks, vs) = (&q.shape.0, &k.shape.0, &v.shape.0);
    if k.dtype != v.dtype || ks[..3] != vs[..3] {
        return fail(format!("values: {v}, expected {k} but for the width"));
    }
    if q.dtype != k.dtype || qs[0] != ks[0] || qs[3] != ks[3] {
        return fail(format!("attention of queries {q} and keys {k}"));
    }
    match (qs[1].as_const(), ks[1].as_const()) {
        (Some(heads), Some(groups)) if groups > 0 && heads % groups == 0 => {}
        _ => return fail(format!("{} query heads cannot share {} key heads", qs[1], ks[1])),
    }
    let wants_lengths = match mask {
        Mask::Causal => false,
        Mask::Cache | Mask::Past => true,
    };
    if recent > 0 && mask != Mask::Past {
        return fail(format!("mask {} knows no recent keys", mask.name()));
    }
    let mut rest = operands[3..].iter();
    match (wants_lengths, rest.clone().next()) {
        (true, Some(lengths)) => {
            int(lengths, "lengths")?;
            expect(lengths, "lengths", &Shape(vec![qs[0].clone()]))?;
            rest.next();
        }
        (false, Some(first)) if first.dtype == Dtype::I64 => {
            return fail(format!("mask {} takes no lengths", mask.name()));
        }
        (true, None) => return fail(format!("mask {} needs lengths", mask.name())),
        (false, _) => {}
    }
    if let Some(sinks) = rest.next() {
        same(&Type::new(q.dtype, Shape(vec![qs[1].clone()])), sinks, || "sinks".to_owned())?;
    }
    if let Some(more) = rest.next() {
        return fail(format!("mask {} leaves no place for a fifth operand {more}", mask.name()));
    }
    let mut shape = q.shape.clone();
    shape.0[3] = vs[3].clone();
    Ok(Type::new(q.dtype, shape))
}

fn cache_append(operands: &[Type]) -> Inferred {
    let (cache, new, lengths) = (&operands[0], &operands[1], &operands[2]);
    rank(cache, 4, "cache")?;
    rank(new, 4, "new slice")?;
    int(lengths, "lengths")?;
    let fits = [0, 1, 3].iter().all(|axis| cache.shape.0[*axis] == new.shape.0[*axis]);
    if !fits || cache.dtype != new.dtype || lengths.shape.0 != [cache.shape.0[0].clone()] {
        return fail(format!("cache_append of {new} to {cache} at {lengths}"));
    }
    Ok(cache.clone())
}

fn shift(x: &Type, init: &Type) -> Inferred {
    let mut wanted = x.shape.clone();
    match wanted.0.get_mut(1) {
        Some(dim) => *dim = Dim::from(1),
        None => return fail(format!("shift needs 2 axes or more, found {x}")),
    }
    if init.dtype != x.dtype {
        return fail(format!("shift of {x} with first entry {init}"));
    }
    expect(init, "first entry", &wanted)?;
    Ok(x.clone())
}

fn sample(operands: &[Type], candidates: usize) -> Inferred {
    let (logits, uniforms) = (&operands[0], &operands[1]);
    float(logits, "sample")?;
    rank(logits, 3, "logits")?;
    let rows = Shape(logits.shape.0[..2].to_vec());
    float(uniforms, "uniforms")?;
    expect(uniforms, "uniforms", &rows)?;
    float(&operands[2], "temperature")?;
    float(&operands[4], "top-p")?;
    int(&operands[3], "top-k")?;
    let requests = operands[2].shape.clone();
    rank(&operands[2], 1, "temperature")?;
    expect(&operands[3], "top-k", &requests)?;
    expect(&operands[4], "top-p", &requests)?;
    if logits.shape.0[0].divided_by(&requests.0[0]).is_none() {
        return fail(format!("parameters of {requests} rows do not divide logits {logits}"));
    }
    if candidates == 0 || logits.shape.0[2].as_const().is_none_or(|vocab| candidates > vocab) {
        return fail(format!("{candidates} candidates of logits {logits}"));
    }
    Ok(Type::new(Dtype::I64, rows))
}
