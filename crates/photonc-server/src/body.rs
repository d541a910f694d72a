//! Bodies of requests: bounded in bytes and time, JSON, and every key known. Owns the errors of those that are not.

use super::ServerState;
use super::error::{ApiError, shown};
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::StreamExt as _;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// Longest key that an error shows whole, in bytes.
const MAX_KEY_BYTES: usize = 64;

/// A body may have one value for so many of the bytes that it may have.
const VALUE_BYTES: usize = 32;

/// Values that any body may have.
const FEWEST_VALUES: usize = 1024;

/// What a list or an object counts as, beside what is in it: even where that is little, it takes as much memory.
const VALUES_OF_A_LIST: usize = 8;

/// Longest body that is read in no time, in bytes.
const MAX_QUICK_BYTES: usize = 64 << 10;

/// A body of JSON.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<ServerState>> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<ServerState>) -> Result<Self, ApiError> {
        let body = JsonBytes::from_request(request, state).await?;
        body.read(parse).map(Json)
    }
}

/// A body that is said to be JSON, as bytes within the limits: for those that are read in several steps.
#[derive(Debug)]
pub struct JsonBytes(Bytes);

impl JsonBytes {
    /// What `parse` makes of it.
    ///
    /// # Errors
    /// Those of `parse`.
    pub fn read<T>(&self, parse: impl FnOnce(&[u8]) -> Result<T, ApiError>) -> Result<T, ApiError> {
        match self.0.len() > MAX_QUICK_BYTES {
            // Others are answered meanwhile.
            true => tokio::task::block_in_place(|| parse(&self.0)),
            false => parse(&self.0),
        }
    }
}

impl FromRequest<Arc<ServerState>> for JsonBytes {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<ServerState>) -> Result<Self, ApiError> {
        check_type(request.headers())?;
        let limits = &state.options.limits;
        let reading = read(request.into_body(), limits.body_bytes);
        let bytes = tokio::time::timeout(limits.read_timeout, reading).await.map_err(|_| {
            let seconds = limits.read_timeout.as_secs();
            let message = format!("the body did not come within {seconds} s");
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "read_timeout", message)
        })??;
        check_values(&bytes, limits.body_bytes)?;
        Ok(JsonBytes(bytes))
    }
}

/// A browser sends other pages' JSON only where the server has allowed it; anything else it sends without asking.
fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let found = headers.get(header::CONTENT_TYPE).and_then(|found| found.to_str().ok()).unwrap_or("none");
    let essence = found.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let refused = |message: String| {
        Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message))
    };
    if essence != "application/json" {
        return refused(format!("the content type is {found}, expected application/json"));
    }
    match headers.get(header::CONTENT_ENCODING).map(|coding| coding.as_bytes()) {
        None | Some(b"identity") => Ok(()),
        Some(coding) => {
            let coding = String::from_utf8_lossy(coding);
            refused(format!("the content encoding is {coding}; send the body as it is"))
        }
    }
}

/// The whole body, of `limit` bytes at most.
async fn read(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let mut pieces = body.into_data_stream();
    let mut all = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| {
            let message = format!("the body did not come whole: {error}");
            ApiError::new(StatusCode::BAD_REQUEST, "incomplete_body", message)
        })?;
        if all.len() + piece.len() > limit {
            let message = format!("the body is longer than {limit} bytes");
            return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message));
        }
        all.extend_from_slice(&piece);
    }
    Ok(all.into())
}

/// Refuses a body of too many values: each takes a hundred bytes of memory and more, however short its text is.
fn check_values(bytes: &[u8], limit: usize) -> Result<(), ApiError> {
    let (found, most) = (values(bytes), (limit / VALUE_BYTES).max(FEWEST_VALUES));
    if found <= most {
        return Ok(());
    }
    let message = format!(
        "the body has {found} values, of which lists and objects count more; expected {most} at most"
    );
    Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message))
}

/// Values and keys of a document, about, by what stands between them outside of texts; lists and objects count more.
fn values(bytes: &[u8]) -> usize {
    let (mut count, mut in_text, mut escaped) = (0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => count += VALUES_OF_A_LIST,
            b',' | b':' if !in_text => count += 1,
            _ => {}
        }
    }
    count
}

/// Parameters of other servers at the values that ask for nothing: what a client sends to say so is taken.
const NEUTRAL: [(&str, &str); 18] = [
    ("add_generation_prompt", "true"),
    ("background", "false"),
    ("best_of", "1"),
    ("continue_final_message", "false"),
    ("echo", "false"),
    ("include", "[]"),
    ("include_stop_str_in_output", "false"),
    ("length_penalty", "1.0"),
    ("logprobs", "false"),
    ("metadata", "{}"),
    ("modalities", "[\"text\"]"),
    ("service_tier", "\"auto\""),
    ("skip_special_tokens", "true"),
    ("spaces_between_special_tokens", "true"),
    ("tools", "[]"),
    ("top_logprobs", "0"),
    ("truncation", "\"disabled\""),
    ("use_beam_search", "false"),
];

/// A document, or what is wrong with it and where. Unknown keys that ask for nothing are as if they were not there.
///
/// # Errors
/// No JSON, or none of this shape; the parameter is named.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut bytes = Cow::Borrowed(bytes);
    loop {
        match document(&bytes) {
            Ok(parsed) => return Ok(parsed),
            Err(Unread { error, known }) => match known.and_then(|known| without(&bytes, &known)) {
                Some(rest) => bytes = Cow::Owned(rest),
                None => return Err(*error),
            },
        }
    }
}

/// The document without those of its keys that are not `known` and ask for nothing, all at once: there may be many. None
/// where it has none.
fn without(bytes: &[u8], known: &[String]) -> Option<Vec<u8>> {
    let Members(mut members) = serde_json::from_slice(bytes).ok()?;
    let before = members.len();
    members.retain(|(key, value)| known.contains(key) || !asks_for_nothing(key, value.get()));
    (members.len() < before).then(|| serde_json::to_vec(&Members(members)).ok()).flatten()
}

/// Whether a parameter that is not known here may be left out.
fn asks_for_nothing(key: &str, value: &str) -> bool {
    let neutral = NEUTRAL.iter().find(|(known, _)| *known == key);
    let read = |text: &str| serde_json::from_str::<Value>(text).ok();
    value == "null"
        || neutral.and_then(|(_, text)| Some((read(text)?, read(value)?))).is_some_and(|(neutral, value)| {
            neutral == value || value.as_f64().is_some_and(|value| neutral.as_f64() == Some(value))
        })
}

/// Reads an object for a parameter that may be left out: a list would be read as its values in the order of declaration.
///
/// # Errors
/// It is something else, or what the object says.
pub fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(reader: D) -> Result<Option<T>, D::Error> {
    struct Reading<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Reading<T> {
        type Value = Option<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_none<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
            reader.deserialize_map(self)
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
    }

    reader.deserialize_option(Reading(PhantomData))
}

/// Reads a list of objects, or none where there is `null`; as [`object`], it takes no list for an object.
///
/// # Errors
/// It is something else, or what an object says.
pub fn objects<'de, T: Deserialize<'de>, D: Deserializer<'de>>(reader: D) -> Result<Vec<T>, D::Error> {
    struct Element<T>(T);

    impl<'de, T: Deserialize<'de>> Deserialize<'de> for Element<T> {
        fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
            let found = object(reader)?;
            found.map(Element).ok_or_else(|| D::Error::custom("invalid type: null, expected an object"))
        }
    }

    let elements = Option::<Vec<Element<T>>>::deserialize(reader)?;
    Ok(elements.into_iter().flatten().map(|Element(element)| element).collect())
}

/// A document in which the members that are not `beside` stand in the object `under`, with those that it has. `None` where
/// nothing is to be moved or cannot be: errors are then those of the document as it is.
#[must_use]
pub fn gathered(bytes: &[u8], beside: &[&str], under: &str) -> Option<Vec<u8>> {
    let Members(members) = serde_json::from_slice(bytes).ok()?;
    let (objects, rest): (Vec<_>, Vec<_>) = members.into_iter().partition(|(key, _)| key == under);
    let (mut own, moved): (Vec<_>, Vec<_>) =
        rest.into_iter().partition(|(key, _)| beside.contains(&key.as_str()));
    if moved.is_empty() {
        return None;
    }
    let mut inside = match objects.as_slice() {
        [] => Vec::new(),
        [(_, value)] if value.get() == "null" => Vec::new(),
        [(_, value)] => serde_json::from_str::<Members>(value.get()).ok()?.0,
        _ => return None,
    };
    inside.extend(moved);
    own.push((under.to_owned(), serde_json::value::to_raw_value(&Members(inside)).ok()?));
    serde_json::to_vec(&Members(own)).ok()
}

/// The members of an object in their order, those that are given twice included.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Listing;

        impl<'de> Visitor<'de> for Listing {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        reader.deserialize_map(Listing)
    }
}

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, writer: S) -> Result<S::Ok, S::Error> {
        writer.collect_map(self.0.iter().map(|member| (&member.0, &member.1)))
    }
}

/// Why a document cannot be used; where it is a key at its top that is not known, those that are.
struct Unread {
    error: Box<ApiError>,
    known: Option<Vec<String>>,
}

impl From<ApiError> for Unread {
    fn from(error: ApiError) -> Self {
        Unread { error: Box::new(error), known: None }
    }
}

fn document<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unread> {
    // A list would be read as the values of the parameters in the order in which they are declared.
    if bytes.trim_ascii_start().starts_with(b"[") {
        let message = "the body is a list, expected an object";
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_type", message).into());
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut reader);
    let parsed = parsed.map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        let message = inner.to_string();
        let quoted = |start: &str| message.strip_prefix(start)?.split('`').next().map(str::to_owned);
        if !inner.is_data() {
            return no_json(&message).into();
        }
        if let Some(key) = quoted("unknown field `") {
            let at_top = path == "." || path == key;
            let short = shown(&key, MAX_KEY_BYTES);
            // "unknown field `x`, expected one of `a`, `b`"
            let expected = message.rsplit_once(", expected").map_or("", |(_, names)| names);
            let known = expected.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            let message = format!("`{short}` is not known here; {}", message.replace(&key, &short));
            let error = ApiError::unsupported(if at_top { &short } else { &path }, message);
            return Unread { error: Box::new(error), known: at_top.then_some(known) };
        }
        if let Some(key) = quoted("missing field `") {
            let message = format!("`{key}` is missing");
            return ApiError::new(StatusCode::BAD_REQUEST, "missing_parameter", message).of(&key).into();
        }
        if let Some(key) = quoted("duplicate field `") {
            let message = format!("`{key}` is given twice");
            return ApiError::new(StatusCode::BAD_REQUEST, "duplicate_parameter", message).of(&key).into();
        }
        let error = ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_type", &message);
        Unread::from(if path == "." { error } else { error.of(&path) })
    })?;
    reader.end().map_err(|error| no_json(&error.to_string()))?;
    Ok(parsed)
}

fn no_json(message: &str) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", format!("the body is no JSON: {message}"))
}

#[cfg(test)]
mod tests {
    use super::{check_values, gathered, parse, values};
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        #[expect(dead_code, reason = "it is only read")]
        count: u32,
    }

    /// The parameter is named, whatever is wrong with it.
    #[test]
    fn errors_name_the_parameter() {
        let cases = [
            ("{\"count\": \"x\"}", 422, "count"),
            ("{\"count\": 1, \"best\": 2}", 400, "best"),
            ("{}", 400, "count"),
            ("{\"count\": 1, \"count\": 2}", 400, "count"),
            ("{\"count\": 1, \"length_penalty\": 2}", 400, "length_penalty"),
            ("{\"best\": null, \"count\": 1, \"count\": 2}", 400, "count"),
            ("{\"count\": 1, \"best\": 2, \"best\": null}", 400, "best"),
        ];
        for (text, status, param) in cases {
            let error = parse::<Asked>(text.as_bytes()).expect_err("is refused");
            assert_eq!(error.status.as_u16(), status, "{text}");
            assert_eq!(error.response().error.param.as_deref(), Some(param), "{text}");
        }
        for text in ["{\"count\": 1, \"best\": null, \"length_penalty\": 1}", "{\"count\": 1, \"tools\": []}"]
        {
            assert!(parse::<Asked>(text.as_bytes()).is_ok(), "{text}");
        }
        for text in ["", "{", "{\"count\": 1} 2", "{\"count\": 1e999}", "[1]", " [1]"] {
            assert!(parse::<Asked>(text.as_bytes()).is_err(), "{text}");
        }
    }

    /// Members keep their values and their number: what is given twice is still refused.
    #[test]
    fn members_are_gathered_in_one_object() {
        for (text, expected) in [
            (r#"{"a": 1, "p": {"b": 2}}"#, None),
            (r#"{"a": 1, "b": 2}"#, Some(r#"{"a":1,"p":{"b":2}}"#)),
            (r#"{"b": 2, "p": {"b": 3}, "a": 1}"#, Some(r#"{"a":1,"p":{"b":3,"b":2}}"#)),
            (r#"{"b": 1e400, "p": null}"#, Some(r#"{"p":{"b":1e400}}"#)),
            (r#"{"a": 1, "a": 2, "b": 3}"#, Some(r#"{"a":1,"a":2,"p":{"b":3}}"#)),
            (r#"{"b": 2, "p": [1]}"#, None),
            (r#"{"b": 2, "p": {}, "p": {}}"#, None),
            ("[1]", None),
        ] {
            let found = gathered(text.as_bytes(), &["a"], "p");
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{text}");
        }
    }

    /// Texts hold what they like.
    #[test]
    fn values_are_counted_outside_of_texts() {
        for (text, expected) in [
            ("", 0),
            ("{}", 8),
            (r#"{"a": [1, 2]}"#, 18),
            (r#"{"a,:[{\"": "\\", "b": ",,,"}"#, 11),
            (r#"{"open: [,,,"#, 8),
        ] {
            assert_eq!(values(text.as_bytes()), expected, "{text}");
        }
        let many = format!("[{}0]", "0,".repeat(2000));
        assert!(check_values(many.as_bytes(), 64 << 10).is_ok());
        let error = check_values(many.as_bytes(), 32 << 10).expect_err("is refused");
        assert_eq!(error.status.as_u16(), 413);
    }
}
