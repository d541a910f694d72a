//! Tensors of the protocol: the two that hold a prompt, and the three that hold what was written. Owns their names, types and
//! shapes, which requests are held to and the model's description states.

use super::parameters::Names;
use crate::body::object;
use crate::error::ApiError;
use crate::flow::{Piece, finish_reason};
use crate::prompt::Prompt;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

const TEXT_INPUT: &str = "text_input";
const INPUT_IDS: &str = "input_ids";
const TEXT_OUTPUT: &str = "text_output";
const OUTPUT_IDS: &str = "output_ids";
const FINISH_REASON: &str = "finish_reason";

/// What the prompt is called where it is ids, and where it is a text.
const IDS_NAMES: Names = &[("prompt", INPUT_IDS)];
pub(super) const TEXT_NAMES: Names = &[("prompt", TEXT_INPUT)];

const BYTES: &str = "BYTES";
const INT64: &str = "INT64";

/// A tensor of a model: -1 stands for any size.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TensorMetadata {
    name: &'static str,
    datatype: &'static str,
    shape: Vec<i64>,
}

/// A tensor that comes in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestInput {
    /// `text_input` or `input_ids`.
    name: String,
    /// `[1]` for a text, `[n]` for ids; a batch of one may stand before it.
    shape: Vec<u64>,
    /// `BYTES` for a text, `INT64` for ids.
    datatype: String,
    /// Nothing that would change it.
    #[serde(default, deserialize_with = "object")]
    parameters: Option<TensorParameters>,
    /// Its elements, in a row or in rows.
    #[schema(value_type = Vec<Value>)]
    data: TensorData,
}

/// A tensor that is to come out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestOutput {
    /// `text_output`, `output_ids` or `finish_reason`.
    name: String,
    /// Nothing that would change it.
    #[serde(default, deserialize_with = "object")]
    parameters: Option<TensorParameters>,
}

/// What a tensor may ask for.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TensorParameters {
    /// Not done: tensors are JSON.
    binary_data: Option<bool>,
}

/// Elements of a tensor that comes in.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected texts or integers, in a list or in a list of lists")]
enum TensorData {
    Texts(Vec<String>),
    Ids(Vec<i64>),
    RowsOfTexts(Vec<Vec<String>>),
    RowsOfIds(Vec<Vec<i64>>),
}

/// A tensor that comes out.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ResponseOutput {
    name: &'static str,
    datatype: &'static str,
    shape: Vec<usize>,
    data: ResponseData,
}

/// Elements of a tensor that comes out.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ResponseData {
    /// Texts.
    Texts(Vec<String>),
    /// Ids of tokens.
    Ids(Vec<i64>),
}

/// Which tensors come out.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The text.
    pub text: bool,
    ids: bool,
    finish: bool,
}

/// Tensors that a model takes, one of them at a time, and those that it gives.
#[must_use]
pub fn described(has_tokenizer: bool) -> [Vec<TensorMetadata>; 2] {
    let text = |name: &'static str| TensorMetadata { name, datatype: BYTES, shape: vec![1] };
    let ids = |name: &'static str| TensorMetadata { name, datatype: INT64, shape: vec![-1] };
    match has_tokenizer {
        true => [
            vec![text(TEXT_INPUT), ids(INPUT_IDS)],
            vec![text(TEXT_OUTPUT), ids(OUTPUT_IDS), text(FINISH_REASON)],
        ],
        false => [vec![ids(INPUT_IDS)], vec![ids(OUTPUT_IDS), text(FINISH_REASON)]],
    }
}

/// The prompt that is in the tensors, and what its parameter is called.
///
/// # Errors
/// There is not one tensor, or not one of those that are known, or it is not what it says.
pub fn prompt(inputs: Vec<RequestInput>) -> Result<(Prompt, Names), ApiError> {
    let known = |input: &RequestInput| [TEXT_INPUT, INPUT_IDS].contains(&input.name.as_str());
    if let Some((at, other)) = inputs.iter().enumerate().find(|(_, input)| !known(input)) {
        let message = format!("the model has no input `{}`; it has {TEXT_INPUT} and {INPUT_IDS}", other.name);
        return Err(ApiError::unsupported(&format!("inputs[{at}].name"), message));
    }
    let count = inputs.len();
    let Ok([input]) = <[RequestInput; 1]>::try_from(inputs) else {
        let message = format!("`inputs` has {count} tensors, expected {TEXT_INPUT} or {INPUT_IDS} alone");
        return Err(ApiError::value("inputs", message));
    };
    check_parameters("inputs[0]", input.parameters)?;
    if input.name == INPUT_IDS {
        let size = size_of(&input, INT64, |_| true, "[n] or [1, n]")?;
        let ids = input.data.ids().filter(|ids| ids.len() as u64 == size);
        let ids = ids.ok_or_else(|| wrong_data(INPUT_IDS, size, "token ids"))?;
        return Ok((Prompt::ManyIds(vec![ids]), IDS_NAMES));
    }
    let size = size_of(&input, BYTES, |size| size == 1, "[1] or [1, 1]: a request has one prompt")?;
    let text = input.data.texts().and_then(|texts| <[String; 1]>::try_from(texts).ok());
    let [text] = text.ok_or_else(|| wrong_data(TEXT_INPUT, size, "text"))?;
    Ok((Prompt::Text(text), TEXT_NAMES))
}

fn check_parameters(place: &str, given: Option<TensorParameters>) -> Result<(), ApiError> {
    match given.and_then(|given| given.binary_data) {
        Some(true) => {
            let message = "`binary_data` is not done: tensors are JSON";
            Err(ApiError::unsupported(&format!("{place}.parameters.binary_data"), message))
        }
        _ => Ok(()),
    }
}

/// Number of elements that a tensor says it has.
fn size_of(
    input: &RequestInput,
    datatype: &str,
    may_be: impl Fn(u64) -> bool,
    expected: &str,
) -> Result<u64, ApiError> {
    let RequestInput { name, shape, datatype: found, .. } = input;
    if found != datatype {
        let message = format!("`{name}` is {found}, expected {datatype}");
        return Err(ApiError::value("inputs[0].datatype", message));
    }
    match shape.as_slice() {
        [size] | [1, size] if may_be(*size) => Ok(*size),
        _ => {
            let message = format!("the shape of `{name}` is {shape:?}, expected {expected}");
            Err(ApiError::value("inputs[0].shape", message))
        }
    }
}

fn wrong_data(name: &str, size: u64, what: &str) -> ApiError {
    let message = format!("the data of `{name}` is not what its shape says, expected {size} {what}");
    ApiError::value("inputs[0].data", message)
}

impl TensorData {
    /// The texts of one row.
    fn texts(self) -> Option<Vec<String>> {
        match self {
            TensorData::Texts(texts) => Some(texts),
            TensorData::RowsOfTexts(rows) => one_row(rows),
            TensorData::Ids(_) | TensorData::RowsOfIds(_) => None,
        }
    }

    /// The ids of one row. Where there is none, it may be read as one of texts.
    fn ids(self) -> Option<Vec<i64>> {
        match self {
            TensorData::Ids(ids) => Some(ids),
            TensorData::RowsOfIds(rows) => one_row(rows),
            TensorData::Texts(texts) => texts.is_empty().then(Vec::new),
            TensorData::RowsOfTexts(rows) => one_row(rows)?.is_empty().then(Vec::new),
        }
    }
}

fn one_row<T>(rows: Vec<Vec<T>>) -> Option<Vec<T>> {
    let [row] = <[Vec<T>; 1]>::try_from(rows).ok()?;
    Some(row)
}

impl Wanted {
    /// Those that are asked for; all that the model has where none is.
    ///
    /// # Errors
    /// The model has no such tensor, or it is wanted in a form that is not done.
    pub fn of(outputs: &[RequestOutput], has_tokenizer: bool) -> Result<Self, ApiError> {
        if outputs.is_empty() {
            return Ok(Wanted { text: has_tokenizer, ids: true, finish: true });
        }
        let mut wanted = Wanted { text: false, ids: false, finish: false };
        for (at, RequestOutput { name, parameters }) in outputs.iter().enumerate() {
            match name.as_str() {
                TEXT_OUTPUT if has_tokenizer => wanted.text = true,
                OUTPUT_IDS => wanted.ids = true,
                FINISH_REASON => wanted.finish = true,
                _ => {
                    let [_, all] = described(has_tokenizer);
                    let names: Vec<&str> = all.iter().map(|tensor| tensor.name).collect();
                    let message = format!("the model has no output `{name}`; it has {}", names.join(", "));
                    return Err(ApiError::unsupported(&format!("outputs[{at}].name"), message));
                }
            }
            check_parameters(&format!("outputs[{at}]"), *parameters)?;
        }
        Ok(wanted)
    }

    /// The tensors of what was written.
    #[must_use]
    pub fn tensors(self, piece: Piece) -> Vec<ResponseOutput> {
        let texts = |name: &'static str, texts: Vec<String>| ResponseOutput {
            name,
            datatype: BYTES,
            shape: vec![texts.len()],
            data: ResponseData::Texts(texts),
        };
        let reason = finish_reason(piece.finish).into_iter().map(str::to_owned).collect();
        let ids = ResponseOutput {
            name: OUTPUT_IDS,
            datatype: INT64,
            shape: vec![piece.tokens.len()],
            data: ResponseData::Ids(piece.tokens),
        };
        let all = [
            (self.text, texts(TEXT_OUTPUT, vec![piece.text])),
            (self.ids, ids),
            (self.finish, texts(FINISH_REASON, reason)),
        ];
        all.into_iter().filter_map(|(wanted, tensor)| wanted.then_some(tensor)).collect()
    }
}
