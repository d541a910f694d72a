//! Changes of a text of words and lines: words lost, repeated, exchanged for others of the text or of its language.

use super::MOST_BYTES;
use super::random::Random;

/// Numbers that are more than anyone has, or wrap.
const NUMBERS: [&str; 10] = [
    "0",
    "-1",
    "1",
    "65536",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "1e308",
    "nan",
];
const TIMES: [usize; 4] = [2, 3, 20, 500];

/// The text with one change.
pub fn changed(text: &str, words: &str, random: &mut Random) -> String {
    if random.one_in(3) {
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        rearranged(&lines, random)
    } else {
        let found = tokens(text);
        if random.one_in(3) { rearranged(&found, random) } else { exchanged(&found, words, random) }
    }
}

/// Runs of letters, digits and underscores, and everything else by itself.
fn tokens(text: &str) -> Vec<&str> {
    let inside = |character: char| character.is_alphanumeric() || character == '_';
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = if inside(first) {
            rest.find(|next| !inside(next)).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (token, behind) = rest.split_at(end);
        found.push(token);
        rest = behind;
    }
    found
}

/// Loses, repeats, moves or exchanges some of the pieces.
fn rearranged(pieces: &[&str], random: &mut Random) -> String {
    let mut pieces = pieces.to_vec();
    let Some(at) = random.index(pieces.len()) else { return String::new() };
    let end = (at + 1 + random.below(8)).min(pieces.len());
    match random.below(5) {
        0 => drop(pieces.drain(at..end)),
        1 => {
            let span = pieces[at..end].to_vec();
            let to = random.below(pieces.len() + 1);
            pieces.splice(to..to, span);
        }
        2 => {
            let other = random.below(pieces.len());
            pieces.swap(at, other);
        }
        3 => {
            let span: Vec<&str> = pieces.drain(at..end).collect();
            let to = random.below(pieces.len() + 1);
            pieces.splice(to..to, span);
        }
        _ => {
            let span = &pieces[at..end];
            let bytes: usize = 1 + span.iter().map(|piece| piece.len()).sum::<usize>();
            let span = span.repeat(random.one_of(&TIMES).min(MOST_BYTES / bytes + 1));
            pieces.splice(at..end, span);
        }
    }
    pieces.concat()
}

/// Puts a word for another, or beside it.
fn exchanged(pieces: &[&str], words: &str, random: &mut Random) -> String {
    let mut pieces = pieces.to_vec();
    let alike = |piece: &&str| piece.chars().all(char::is_alphanumeric) && !piece.is_empty();
    let named: Vec<usize> = (0..pieces.len()).filter(|at| alike(&pieces[*at])).collect();
    let at = random.index(named.len()).map_or(0, |index| named[index]);
    let word = match random.below(4) {
        0 if !named.is_empty() => pieces[random.one_of(&named)],
        1 => random.one_of(&NUMBERS),
        _ => random.line(words),
    };
    let numbers: Vec<usize> =
        named.into_iter().filter(|at| pieces[*at].starts_with(|c: char| c.is_ascii_digit())).collect();
    match random.below(3) {
        0 => pieces.insert(at, word),
        1 if !numbers.is_empty() => pieces[random.one_of(&numbers)] = random.one_of(&NUMBERS),
        _ if at < pieces.len() => pieces[at] = word,
        _ => pieces.push(word),
    }
    pieces.concat()
}
