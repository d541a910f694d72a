//! Bodies of requests, read as far as that needs no model: for the fuzz targets. Owns which body each path has.

use super::admin::LoadBody;
use super::body::parse;
use super::chat::ChatBody;
use super::completions::CompletionBody;
use super::error::ApiError;
use super::fields::Common;
use super::generate::GenerateBody;
use super::messages::messages;
use super::responses::ResponsesBody;
use super::tokens::{DetokenizeBody, TokenizeBody};
use super::trajectories::{ExpandBody, TrajectoryBody};
use super::v2;

/// Reads a body as the endpoint at `path` does; other paths take none.
///
/// # Errors
/// What its client is told.
pub fn read_body(path: &str, bytes: &[u8]) -> Result<(), String> {
    let read = match path {
        "/v1/completions" => parse::<CompletionBody>(bytes).and_then(|body| check(&body.common())),
        "/v1/chat/completions" => parse::<ChatBody>(bytes).and_then(|body| {
            body.check()?;
            messages(&body.messages, "messages")?;
            check(&body.common())
        }),
        "/v1/responses" => parse::<ResponsesBody>(bytes).and_then(|body| check(&body.common())),
        "/v1/generate" => parse::<GenerateBody>(bytes).and_then(|body| check(&body.common())),
        "/v1/trajectories" => parse::<TrajectoryBody>(bytes).and_then(|body| check(&body.common())),
        "/v1/trajectories/1/expand" => parse::<ExpandBody>(bytes).map(drop),
        "/tokenize" => parse::<TokenizeBody>(bytes).map(drop),
        "/detokenize" => parse::<DetokenizeBody>(bytes).map(drop),
        "/admin/load" => parse::<LoadBody>(bytes).map(drop),
        "/v2/models/1/infer" => v2::infer::read(bytes).and_then(|body| check(&body.common())),
        "/v2/models/1/generate" => v2::generate::read(bytes).and_then(|(_, body)| check(&body.common())),
        _ => Ok(()),
    };
    read.map_err(|error| error.response().error.message)
}

fn check(common: &Common) -> Result<(), ApiError> {
    common.sampling()?;
    common.penalties()?;
    Ok(())
}
