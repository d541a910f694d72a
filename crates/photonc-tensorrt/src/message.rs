//! A vendor's messages, led back to the model. Owns what is noise, and how names of ONNX nodes inside a message become the
//! scope and the operation that they were made from.

use photonc_graph::graph::Graph;
use std::collections::BTreeSet;
use std::fmt;

/// How much a message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something may be wrong.
    Warning,
    /// Anything else.
    Note,
}

/// What a vendor's library said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// How much it matters.
    pub level: Level,
    /// Its words.
    pub text: String,
}

/// What a message means for the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The graph.
    pub graph: String,
    /// Where in the model, if the message names a node.
    pub scope: Option<String>,
    /// ONNX operator of that node.
    pub op: Option<String>,
    /// The vendor's words.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.scope, &self.op) {
            (Some(scope), Some(op)) => write!(f, "{}: {scope}, {op}: {}", self.graph, self.text),
            (Some(scope), None) => write!(f, "{}: {scope}: {}", self.graph, self.text),
            _ => write!(f, "{}: {}", self.graph, self.text),
        }
    }
}

impl Finding {
    /// What stays the same of a message from one graph to a smaller one: its words without names and numbers.
    #[must_use]
    pub fn gist(&self) -> String {
        let mut gist = String::new();
        let mut quoted = false;
        for word in self.text.split_whitespace() {
            let quotes = word.matches('\'').count() + word.matches('"').count();
            let inside = quoted || quotes > 0;
            quoted ^= quotes % 2 == 1;
            let plain =
                !inside && !word.contains(['/', '_', '[', ':']) && !word.chars().any(|c| c.is_ascii_digit());
            if plain {
                gist.push_str(word);
                gist.push(' ');
            }
        }
        gist.trim_end().to_owned()
    }
}

/// What failed, in the order it was said, each thing once. `graph` is the one that was built.
#[must_use]
pub fn findings(graph: &Graph, messages: &[Message]) -> Vec<Finding> {
    let scopes: BTreeSet<&str> = graph.nodes().into_iter().map(|id| graph.scope(id).as_str()).collect();
    let mut found: Vec<Finding> = Vec::new();
    let mut node = None;
    for message in messages.iter().filter(|message| message.level == Level::Error) {
        if let Some(named) = parsed_node(&message.text) {
            node = Some(named);
            continue;
        }
        if is_noise(&message.text) {
            continue;
        }
        let inside = mentioned(&scopes, &message.text);
        let (scope, op) = match inside.or_else(|| node.as_deref().and_then(split)) {
            Some((scope, op)) => (Some(scope).filter(|scope| !scope.is_empty()), Some(op)),
            None => (None, None),
        };
        let finding = Finding { graph: graph.name().to_owned(), scope, op, text: words(&message.text) };
        if !found.contains(&finding) {
            found.push(finding);
        }
    }
    found
}

/// Lines that only frame others, and complaints about the missing GPU of a machine that only builds.
fn is_noise(text: &str) -> bool {
    let text = text.trim_start();
    let frames = ["--- Begin node", "--- End node", "Node name:", "In node "];
    let after_place = text.split_once(": ").map_or(text, |(_, rest)| rest);
    frames.iter().any(|frame| text.starts_with(frame) || after_place.starts_with(frame))
        || text.contains("catchCudaError")
        || text.contains("getCurrentCC")
}

/// `.. While parsing node number 15 [MatMul -> "level2.converter/MatMul"]:`, which announces an error of the parser.
fn parsed_node(text: &str) -> Option<String> {
    let rest = text.split_once("While parsing node number ")?.1;
    let name = rest.split_once("-> \"")?.1.split_once('"')?.0;
    Some(name.to_owned())
}

/// The first node that a message names: `scope/Operator_3`, whatever else is attached to it.
fn mentioned(scopes: &BTreeSet<&str>, text: &str) -> Option<(String, String)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/');
    let names = text.split(|c: char| !is_name(c)).filter_map(split);
    let mut known = names.filter(|(scope, _)| scopes.contains(scope.as_str()));
    known.next()
}

/// Scope and operator of the name of an ONNX node.
fn split(name: &str) -> Option<(String, String)> {
    let (scope, rest) = name.rsplit_once('/').unwrap_or(("", name));
    let op: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
    op.starts_with(|c: char| c.is_ascii_uppercase()).then(|| (scope.to_owned(), op))
}

/// The message on one line, without places in the vendor's sources.
fn words(text: &str) -> String {
    let line: Vec<&str> = text.split_whitespace().collect();
    let line = line.join(" ");
    let start = match line.split_once(": ") {
        Some((place, rest)) if is_source(place) => rest,
        _ => &line,
    };
    let start = start.strip_prefix("ERROR: ").unwrap_or(start);
    let end = [". In ", " In "].iter().filter_map(|cut| source_tail(start, cut)).min().unwrap_or(start.len());
    start[..end].trim_end_matches(['(', ' ']).to_owned()
}

/// `ModelImporter.cpp:140`.
fn is_source(place: &str) -> bool {
    place.split_once(".cpp:").is_some_and(|(_, line)| line.chars().all(|c| c.is_ascii_digit()))
}

/// Where ` In compileGraph at /_src/..` begins.
fn source_tail(line: &str, cut: &str) -> Option<usize> {
    let places = line.match_indices(cut);
    places.filter(|(at, _)| line[*at..].contains(" at /_src/")).map(|(at, _)| at).last()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "a failed test panics")]
    use super::{Finding, Level, Message, findings};
    use photonc_graph::graph::{Graph, Scope};
    use photonc_graph::ir::op::Op;
    use photonc_graph::ir::tensor::Literal;

    /// A graph with a node in each scope that the messages name.
    fn graph() -> Graph {
        let mut graph = Graph::new("coarse");
        for scope in ["level2.decoder.layer0.attn", "level2.converter"] {
            let value = Literal::ints(&[1], &[1]).expect("a constant");
            graph.add(Op::Const { value }, &[], &Scope::new(scope)).expect("types");
        }
        graph
    }

    fn error(text: &str) -> Message {
        Message { level: Level::Error, text: text.to_owned() }
    }

    // As TensorRT-RTX 1.7.1 says it: six messages, one of which is the error.
    #[test]
    fn an_error_of_the_parser_is_led_back_to_its_node() {
        let messages = [
            "ModelImporter.cpp:140: While parsing node number 15 [Frobnicate -> \"level2.decoder.layer0.attn/MatMul_2\"]:",
            "ModelImporter.cpp:142: --- Begin node ---\nNode name: level2.decoder.layer0.attn/MatMul_2",
            "ModelImporter.cpp:143: --- End node ---",
            "ModelImporter.cpp:151: ERROR: onnxOpImporters.cpp:3914 In function importLoop:\n[6] Assertion failed: (inputs.size() >= 2)",
        ];
        let messages: Vec<Message> = messages.into_iter().map(error).collect();
        let found = findings(&graph(), &messages);
        let texts: Vec<String> = found.iter().map(Finding::to_string).collect();
        assert_eq!(
            texts,
            [
                "coarse: level2.decoder.layer0.attn, MatMul: onnxOpImporters.cpp:3914 In function importLoop: [6] Assertion failed: (inputs.size() >= 2)"
            ]
        );
    }

    #[test]
    fn an_error_of_the_builder_is_led_back_to_its_node() {
        let text = "IBuilder::buildSerializedNetwork: Error Code 1: Myelin ([pass.cpp:337: check_turing_op_compatibility] \
                    Cannot compile operation 'level2.converter/MatMul_U75' for Turing (SM75): FP32 GEMM is not supported. \
                    In compileGraph at /_src/optimizer/myelin/codeGenerator.cpp:2012)";
        let found = findings(&graph(), &[error(text)]);
        let [finding] = found.as_slice() else { panic!("one finding: {found:?}") };
        assert_eq!(
            (finding.scope.as_deref(), finding.op.as_deref()),
            (Some("level2.converter"), Some("MatMul"))
        );
        assert!(finding.text.ends_with("FP32 GEMM is not supported"), "{}", finding.text);
        assert!(finding.gist().contains("GEMM is not supported"), "{}", finding.gist());
    }

    // A machine that builds and has no GPU says so many times over; it is no failure.
    #[test]
    fn complaints_about_a_missing_gpu_are_no_findings() {
        let text = "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at \
                    /_src/common/dispatch/checkMacros.cpp:250 (cudaError 35: ..))";
        assert_eq!(findings(&graph(), &[error(text)]), []);
    }

    // A name is only a place where the graph has it.
    #[test]
    fn unknown_names_are_no_places() {
        let found = findings(&graph(), &[error("tensor other.scope/MatMul_1 is odd")]);
        assert_eq!(found[0].scope, None);
    }
}
