//! Text through tokens and back: Unicode, whole characters while tokens stream in, stop strings, ends inside
//! meta-contexts.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod speaking;

use photonc::bundle::Bundle;
use photonc::passes::choose_protocol::Protocol;
use photonc::runtime::generator::Generator;
use photonc::runtime::request::{Align, Batch, Burst, Cancel, Finish, Generation, Request, RunAhead};
use photonc::runtime::sampler::Sampling;
use photonc::runtime::tract::Tract;
use photonc::text::speech::{Speech, StopStrings};
use photonc::text::stream::CharStream;
use photonc::text::tokenizer::Tokenizer;
use proptest::prelude::{Strategy, any, prop};
use proptest::{prop_assert, prop_assert_eq, proptest};
use speaking::{SIZE, speaking_bundle, tokenizer};
use std::error::Error;
use std::sync::Arc;

const BOTH: [&str; 2] = ["byte_level.json", "byte_fallback.json"];

/// Everything a stream hands out, piece by piece.
fn pieces(tokenizer: &Arc<Tokenizer>, ids: &[i64]) -> Vec<String> {
    let mut stream = CharStream::new(Arc::clone(tokenizer));
    let mut pieces: Vec<String> = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
    pieces.push(stream.finish().unwrap());
    pieces
}

/// Text of every script, with what breaks careless decoders: combining marks, emoji joined by invisible characters, the
/// replacement character itself.
fn unicode() -> impl Strategy<Value = String> {
    const HARD: [&str; 10] = [
        "e\u{301}",
        "👩\u{200d}👩\u{200d}👧",
        "\u{fffd}",
        "\u{fffd}\u{fffd}",
        "日本語",
        "🇩🇪",
        "\0",
        " ",
        "\n\n",
        "<|en",
    ];
    let part =
        proptest::prop_oneof![any::<String>(), proptest::sample::select(&HARD[..]).prop_map(str::to_owned)];
    prop::collection::vec(part, 1..12).prop_map(|parts| parts.concat())
}

proptest! {
    /// Any text comes back from its tokens, at once and streamed.
    #[test]
    fn unicode_round_trips(text in unicode()) {
        // What stands for a blank in the second tokenizer cannot be told from one.
        let text = text.replace('\u{2581}', "-");
        for name in BOTH {
            let tokenizer = tokenizer(name);
            let ids = tokenizer.encode(&text, true).unwrap().ids;
            prop_assert_eq!(&tokenizer.decode(&ids).unwrap(), &text, "{}", name);
            prop_assert_eq!(&pieces(&tokenizer, &ids).concat(), &text, "{}", name);
        }
    }

    /// Models draw tokens that are no text at all; the pieces are still what all tokens at once give.
    #[test]
    fn any_tokens_stream_as_they_decode(ids in prop::collection::vec(0..SIZE as i64, 0..200)) {
        for name in BOTH {
            let tokenizer = tokenizer(name);
            prop_assert_eq!(pieces(&tokenizer, &ids).concat(), tokenizer.decode(&ids).unwrap(), "{}", name);
        }
    }

    /// The text of a sequence ends before the stop string that is complete first, whatever the tokens' borders.
    #[test]
    fn nothing_of_a_stop_string_comes_out(
        text in "[ab c]{0,40}", stops in prop::collection::vec("[ab ]{1,4}", 0..3),
    ) {
        let tokenizer = tokenizer("byte_level.json");
        let ids = tokenizer.encode(&text, true).unwrap().ids;
        let first = stops.iter().filter_map(|stop| text.find(stop.as_str()).map(|at| (at + stop.len(), at))).min();
        let expected = first.map_or(&text[..], |(_, start)| &text[..start]);
        let stops: Arc<[String]> = stops.into();
        prop_assert_eq!(Speech::of(&tokenizer, &stops, &ids).unwrap(), expected);
        // What is handed out early is never more than the whole.
        let mut speech = Speech::new(Arc::clone(&tokenizer), stops);
        let mut so_far = String::new();
        for id in ids {
            so_far.push_str(&speech.push(id).unwrap());
            prop_assert!(expected.starts_with(&so_far));
        }
    }
}

/// The tokens of one character come out as one piece, with the last of them.
#[test]
fn a_character_of_several_tokens_comes_out_whole() {
    let tokenizer = tokenizer("byte_level.json");
    let ids = tokenizer.encode("🦀é", true).unwrap().ids;
    assert_eq!(ids.len(), 6, "bytes of their own");
    assert_eq!(pieces(&tokenizer, &ids), ["", "", "", "🦀", "", "é", ""]);
    // What never becomes a character is told at the end.
    assert_eq!(pieces(&tokenizer, &ids[..2]), ["", "", "\u{fffd}"]);
}

/// Decoders see nothing of special tokens, so one between two bytes does not part them.
#[test]
fn a_special_token_does_not_end_a_run_of_bytes() {
    let tokenizer = tokenizer("byte_fallback.json");
    let [zero, special, other] = ["<0x00>", "<unk>", "<0x80>"].map(|token| tokenizer.id(token).unwrap());
    assert_eq!(pieces(&tokenizer, &[zero, special, other]), ["", "", "", "\u{fffd}\u{fffd}"]);
    let known = tokenizer.encode("a", true).unwrap().ids;
    assert_eq!(pieces(&tokenizer, &[&[zero, special], &known[..]].concat()).concat(), "\0 a");
}

/// Where each token begins, so that bytes of a part of a text can be counted.
#[test]
fn tokens_know_where_they_begin() {
    let encoded = tokenizer("byte_level.json").encode("the 🦀 x", true).unwrap();
    assert_eq!(encoded.starts.first(), Some(&0));
    assert_eq!(encoded.starts.iter().filter(|start| **start == "the ".len()).count(), 4, "bytes of the crab");
    assert_eq!(encoded.starts.last(), Some(&"the 🦀 ".len()));
    assert_eq!(encoded.starts.len(), encoded.ids.len());
}

struct Speaking {
    _folder: tempfile::TempDir,
    generator: Generator,
    tokenizer: Arc<Tokenizer>,
}

fn speaking() -> Result<Speaking, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let bundle = Bundle::open(&speaking_bundle(folder.path(), &[])?)?;
    let generator = Generator::of_bundle(&bundle, Box::new(Tract::of_bundle(bundle.clone())))?;
    Ok(Speaking { _folder: folder, generator, tokenizer: Arc::new(Tokenizer::needed(&bundle)?) })
}

const TOKENS: usize = 100;
/// Protocols, and what becomes of the end of the prompt.
const WAYS: [(Protocol, Align); 4] = [
    (Protocol::Recgen, Align::DropLeft),
    (Protocol::Recgen, Align::Force),
    (Protocol::Hiergen, Align::DropLeft),
    (Protocol::Hiergen, Align::Force),
];

fn request(speaking: &Speaking, protocol: Protocol, align: Align) -> Request {
    let prompt = "It was so late in the evening that no one had thought of the carriage.";
    let prompt = speaking.tokenizer.encode(prompt, true).unwrap().ids;
    let sampling = Sampling { temperature: 1.0, top_k: 40, top_p: 1.0, min_p: 0.0, seed: 5 };
    Request { sampling, align, ..Request::greedy(protocol, prompt, TOKENS) }
}

/// The generation and what its bursts say, with their borders.
fn speak(
    speaking: &mut Speaking,
    request: &Request,
    run_ahead: RunAhead,
    stops: &Arc<[String]>,
) -> (Generation, String) {
    let mut speech = Speech::new(Arc::clone(&speaking.tokenizer), Arc::clone(stops));
    let mut text = String::new();
    let mut on_burst = |burst: &Burst<'_>| {
        for token in burst.tokens {
            text.push_str(&speech.push(*token).unwrap());
        }
        if burst.finish.is_some() {
            text.push_str(&speech.finish().unwrap());
        }
    };
    let batch = Batch { run_ahead, ..Batch::new(vec![request.clone()]) };
    let generation = speaking.generator.generate(&batch, &mut on_burst, &Cancel::default()).unwrap();
    (generation, text)
}

/// A stop string that begins in one burst and ends in the next ends the sequence at the same place for every run-ahead,
/// and what was computed after it is counted, not handed out.
#[test]
fn a_stop_string_across_bursts_ends_the_sequence() -> Result<(), Box<dyn Error>> {
    let mut speaking = speaking()?;
    let none: Arc<[String]> = Arc::new([]);
    for (protocol, align) in WAYS {
        let free = request(&speaking, protocol, align);
        let (generation, whole) = speak(&mut speaking, &free, RunAhead::MetaContexts(1), &none);
        let tokens = generation.sequences[0].tokens.clone();
        assert_eq!(whole, speaking.tokenizer.decode(&tokens)?);
        // Tokens of the prompt that are forced in the first meta-context.
        let forced = (free.prompt.len() - generation.sequences[0].dropped_left) % 16;
        // Four characters around the border of the second burst of one meta-context.
        let before = speaking.tokenizer.decode(&tokens[..32 - forced])?.trim_end_matches('\u{fffd}').len();
        let characters: Vec<usize> = whole.char_indices().map(|(at, _)| at).collect();
        let at = characters.iter().position(|at| *at >= before).unwrap();
        let stop = whole[characters[at - 2]..characters[at + 2]].to_owned();
        let stops: Arc<[String]> = Arc::new([stop.clone()]);
        let expected = &whole[..whole.find(&stop).unwrap()];
        let mut ended = Vec::new();
        for run_ahead in [RunAhead::MetaContexts(1), RunAhead::MetaContexts(3), RunAhead::All] {
            let stop = StopStrings { tokenizer: Arc::clone(&speaking.tokenizer), stops: Arc::clone(&stops) };
            let stopping = Request { stop_condition: Some(Arc::new(stop)), ..free.clone() };
            let (generation, text) = speak(&mut speaking, &stopping, run_ahead, &stops);
            let sequence = &generation.sequences[0];
            assert_eq!(
                (text.as_str(), sequence.finish),
                (expected, Finish::Stop),
                "{protocol} {align:?} {run_ahead:?}"
            );
            assert_eq!(sequence.tokens, tokens[..sequence.tokens.len()]);
            let computed = forced + sequence.tokens.len() + sequence.wasted_tokens;
            assert!(sequence.tokens.len() < TOKENS && computed.is_multiple_of(16));
            ended.push(sequence.tokens.len());
        }
        assert!(ended.iter().all(|length| *length == ended[0]), "{ended:?}");
    }
    Ok(())
}

/// Any of several ids ends a sequence wherever it stands in a meta-context, under both protocols.
#[test]
fn an_end_inside_a_meta_context_ends_the_sequence() -> Result<(), Box<dyn Error>> {
    let mut speaking = speaking()?;
    let none: Arc<[String]> = Arc::new([]);
    let run_ahead = RunAhead::MetaContexts(2);
    for (protocol, align) in WAYS {
        let free = request(&speaking, protocol, align);
        let (generation, _) = speak(&mut speaking, &free, run_ahead, &none);
        let tokens = generation.sequences[0].tokens.clone();
        for place in [0, 5, 15, 16, 37] {
            let eos = vec![-1, tokens[place], 100_000];
            let first = tokens.iter().position(|token| *token == tokens[place]).unwrap();
            let (generation, text) = speak(&mut speaking, &Request { eos, ..free.clone() }, run_ahead, &none);
            let sequence = &generation.sequences[0];
            assert_eq!((&sequence.tokens[..], sequence.finish), (&tokens[..first], Finish::Eos));
            assert_eq!(text, speaking.tokenizer.decode(&tokens[..first])?);
        }
    }
    Ok(())
}
