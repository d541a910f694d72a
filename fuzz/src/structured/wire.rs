//! Changes of a protobuf message without its schema: one field somewhere inside lost, repeated, moved or changed.

use super::random::Random;

const NUMBER: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const BYTES: u64 = 2;
const FOUR_BYTES: u64 = 5;
const NUMBERS: [u64; 9] = [0, 1, 7, 16, 1 << 20, 1 << 31, (1 << 32) - 1, (1 << 63) - 1, u64::MAX];
const MOST_DEPTH: usize = 8;

/// Tag and value; the value of a number is how it is written.
type Field = (u64, Vec<u8>);

/// The message with one change, or none where it is no message.
pub fn changed(input: &[u8], words: &str, random: &mut Random) -> Option<Vec<u8>> {
    within(input, words, random, 0)
}

fn within(input: &[u8], words: &str, random: &mut Random, depth: usize) -> Option<Vec<u8>> {
    let mut fields = parsed(input).filter(|fields| !fields.is_empty())?;
    let at = random.below(fields.len());
    let (tag, value) = &fields[at];
    if *tag & 7 == BYTES && depth < MOST_DEPTH && !random.one_in(4) {
        let printable = value.iter().all(|byte| (32..127).contains(byte));
        if let Some(value) = (!printable).then(|| within(value, words, random, depth + 1)).flatten() {
            fields[at].1 = value;
            return Some(written(&fields));
        }
    }
    change(&mut fields, at, words, random);
    Some(written(&fields))
}

fn change(fields: &mut Vec<Field>, at: usize, words: &str, random: &mut Random) {
    match random.below(6) {
        0 => drop(fields.remove(at)),
        1 => {
            let times = random.one_of(&[1, 2, 40]);
            fields.splice(at..at, vec![fields[at].clone(); times]);
        }
        2 => {
            let other = random.below(fields.len());
            fields.swap(at, other);
        }
        // Another field of the same kind.
        3 => fields[at].0 = (1 + random.next() % 24) << 3 | (fields[at].0 & 7),
        4 => {
            let other = random.below(fields.len());
            if fields[other].0 & 7 == fields[at].0 & 7 {
                fields[at].1 = fields[other].1.clone();
            }
        }
        _ => fields[at].1 = value(fields[at].0, &fields[at].1, words, random),
    }
}

/// Another value for a field of that tag.
fn value(tag: u64, old: &[u8], words: &str, random: &mut Random) -> Vec<u8> {
    match tag & 7 {
        NUMBER => varint(random.one_of(&NUMBERS)),
        BYTES => match random.below(4) {
            0 => Vec::new(),
            1 => old[..random.below(old.len() + 1)].to_vec(),
            2 => old.repeat(random.one_of(&[2, 30])),
            _ => random.line(words).as_bytes().to_vec(),
        },
        _ => old.iter().map(|byte| byte ^ (random.next() & 0xff) as u8).collect(),
    }
}

fn parsed(mut input: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !input.is_empty() {
        let (tag, rest) = number(input)?;
        let length = match tag & 7 {
            _ if tag >> 3 == 0 => return None,
            NUMBER => rest.len() - number(rest)?.1.len(),
            EIGHT_BYTES => 8,
            FOUR_BYTES => 4,
            BYTES => {
                let (length, behind) = number(rest)?;
                let value = behind.get(..usize::try_from(length).ok()?)?;
                fields.push((tag, value.to_vec()));
                input = &behind[value.len()..];
                continue;
            }
            _ => return None,
        };
        fields.push((tag, rest.get(..length)?.to_vec()));
        input = &rest[length..];
    }
    Some(fields)
}

fn written(fields: &[Field]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (tag, value) in fields {
        bytes.extend(varint(*tag));
        if tag & 7 == BYTES {
            bytes.extend(varint(value.len() as u64));
        }
        bytes.extend_from_slice(value);
    }
    bytes
}

/// A number of up to ten bytes, and what stands behind it.
fn number(input: &[u8]) -> Option<(u64, &[u8])> {
    let end = input.iter().take(10).position(|byte| byte & 0x80 == 0)?;
    let bytes = input[..=end].iter().rev();
    Some((bytes.fold(0, |number: u64, byte| number << 7 | u64::from(byte & 0x7f)), &input[end + 1..]))
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}
