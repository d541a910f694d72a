//! Whether the patterns of a tokenizer can be followed to the end of a text. The `tokenizers` library takes a search that
//! backtracks too often for one that finds nothing, and would leave the rest of the text in one piece; here that is an error.

use tokenizers::pre_tokenizers::split::SplitPattern;
use tokenizers::utils::SysRegex;
use tokenizers::{
    NormalizedString, Normalizer as _, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _,
    PreTokenizerWrapper, Tokenizer,
};

/// The pattern of the pre-tokenizer `ByteLevel`, which no file says.
const BYTE_LEVEL: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Fails where a pattern of the pre-tokenizer gives up before the end of a piece of `text`.
///
/// # Errors
/// The pattern, or what the library says of the text.
pub fn check(tokenizer: &Tokenizer, text: &str) -> Result<(), tokenizers::Error> {
    let Some(cutter) = tokenizer.get_pre_tokenizer() else { return Ok(()) };
    if !searches(cutter) {
        return Ok(());
    }
    let mut normalized = NormalizedString::from(text);
    if let Some(normalizer) = tokenizer.get_normalizer() {
        normalizer.normalize(&mut normalized)?;
    }
    cut(cutter, &mut PreTokenizedString::from(normalized))
}

/// The pattern that backtracks, if there is one.
fn pattern(cutter: &PreTokenizerWrapper) -> Option<&str> {
    let pattern = match cutter {
        PreTokenizerWrapper::Split(split) => match &split.pattern {
            SplitPattern::Regex(pattern) => pattern,
            SplitPattern::String(_) => return None,
        },
        PreTokenizerWrapper::ByteLevel(bytes) if bytes.use_regex => BYTE_LEVEL,
        _ => return None,
    };
    // Others are searched for without backtracking.
    let hard = ["(?=", "(?!", "(?<", "(?>", "++", "*+", "?+", "}+"];
    hard.iter().any(|sign| pattern.contains(sign)).then_some(pattern)
}

fn searches(cutter: &PreTokenizerWrapper) -> bool {
    match cutter {
        PreTokenizerWrapper::Sequence(parts) => parts.as_ref().iter().any(searches),
        other => pattern(other).is_some(),
    }
}

fn cut(cutter: &PreTokenizerWrapper, text: &mut PreTokenizedString) -> Result<(), tokenizers::Error> {
    if let PreTokenizerWrapper::Sequence(parts) = cutter {
        return parts.as_ref().iter().try_for_each(|part| cut(part, text));
    }
    if let Some(pattern) = pattern(cutter) {
        // A search that comes to the end matches there at last; one that gives up does not.
        let ending = SysRegex::new(&format!(r"(?:{pattern})|\z"))?;
        for (piece, ..) in text.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
            let reached = ending.find_iter(piece).last().map_or(0, |(_, end)| end);
            if reached < piece.len() {
                let shown: String = pattern.chars().take(200).collect();
                return Err(format!(
                    "the pattern `{shown}` backtracks too often at byte {reached} of a piece of {} bytes",
                    piece.len()
                )
                .into());
            }
        }
    }
    cutter.pre_tokenize(text)
}

#[cfg(test)]
mod tests {
    use super::check;
    use tokenizers::Tokenizer;

    fn tokenizer(pattern: &str) -> Tokenizer {
        let file = serde_json::json!({"version": "1.0", "added_tokens": [],
            "pre_tokenizer": {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
            "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}});
        Tokenizer::from_bytes(file.to_string()).expect("a tokenizer")
    }

    /// The library would go on in silence, with other tokens.
    #[test]
    fn a_search_that_gives_up_is_an_error_with_its_pattern() {
        let deep = tokenizer(r"(?:a+)+(?=b)");
        let text = "a".repeat(40) + "c";
        assert!(check(&deep, &text).is_err_and(|error| error.to_string().contains("(?:a+)+(?=b)")));
        assert!(check(&deep, "aaab aab").is_ok() && check(&deep, "").is_ok());
        let plain = tokenizer(r"\s+(?!\S)|\s+|\S+");
        assert!(check(&plain, "  a  b \n ").is_ok());
    }
}
