//! The table of target rules and the check of written models: each rule does what it says, each kind of damage is found and
//! named, and docs/targets.md is the table.
#![allow(clippy::panic, reason = "a test fails by panicking")]

#[path = "harness/mod.rs"]
#[allow(dead_code, reason = "each test uses its part of the harness")]
mod harness;

use harness::{UPDATE, root};
use photonc::export::onnx::{self, Fault};
use photonc::export::rules::{self, Action, Forbidden, RULES, Rule};
use photonc::export::target::Target;
use photonc::graph::{Graph, text};
use photonc::onnx::pb::tensor_proto::DataType;
use photonc::onnx::pb::{GraphProto, ModelProto, type_proto};
use prost::Message as _;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Operations that rules speak of, in a type.
fn layer(dtype: &str) -> Graph {
    let source = format!(
        "graph layer {{
  %0 = input{{name=\"x\", ty={dtype}[batch, 2, 4], role=argument}}
  %1 = weight{{name=\"norm\", ty={dtype}[4]}}
  %2 = weight{{name=\"q\", ty={dtype}[4, 4]}}
  %3 = input{{name=\"uniforms\", ty=f32[batch, 2], role=argument}}
  %4 = input{{name=\"temperature\", ty=f32[batch], role=argument}}
  %5 = input{{name=\"top_k\", ty=i64[batch], role=argument}}
  %6 = input{{name=\"top_p\", ty=f32[batch], role=argument}}
  %7 = const{{value=i64[2](0 1)}}
  %8 = rms_norm{{eps=1e-5}} %0, %1 : {dtype}[batch, 2, 4]
  %9 = linear %8, %2 : {dtype}[batch, 2, 4]
  %10 = reshape{{shape=[batch, 1, 2, 4]}} %9 : {dtype}[batch, 1, 2, 4]
  %11 = rope{{theta=100.0}} %10, %7 : {dtype}[batch, 1, 2, 4]
  %12 = attention{{scale=0.5, mask=causal}} %11, %11, %10 : {dtype}[batch, 1, 2, 4]
  %13 = reshape{{shape=[batch, 2, 4]}} %12 : {dtype}[batch, 2, 4]
  %14 = swiglu %13, %0 : {dtype}[batch, 2, 4]
  %15 = sample{{candidates=4}} %14, %3, %4, %5, %6 : i64[batch, 2]

  output \"ids\" = %15
  output \"y\" = %14
}}
"
    );
    text::parse(&source).unwrap_or_else(|error| panic!("{error}"))
}

/// Weights in every scheme, as matrices and as a table.
fn coded() -> Graph {
    let source = "graph coded {
  %0 = input{name=\"ids\", ty=i64[batch], role=argument}
  %1 = quantized_weight{name=\"a\", ty=f16[3, 32], scheme=int8}
  %2 = gather %1, %0 : f16[batch, 32]
  %3 = quantized_weight{name=\"b\", ty=f16[3, 32], scheme=int4}
  %4 = linear %2, %3 : f16[batch, 3]
  %5 = quantized_weight{name=\"c\", ty=f16[3, 32], scheme=fp8}
  %6 = linear %2, %5 : f16[batch, 3]

  output \"b\" = %4
  output \"c\" = %6
}
";
    text::parse(source).unwrap_or_else(|error| panic!("{error}"))
}

// A table of codes becomes numbers whole, whatever few rows are read.
#[test]
fn tables_of_codes_are_refused() {
    let error = exported(&coded(), Target::TensorrtRtx).expect_err("refused");
    assert!(error.contains("refuse-quantized-tables") && error.contains("every row"), "{error}");
}

fn located(name: &str) -> Option<onnx::WeightLocation> {
    let elements = if name == "norm" { 4 } else { 16 };
    let file = "weights/model.safetensors".to_owned();
    Some(onnx::WeightLocation { file, offset_bytes: 8, length_bytes: elements * 2 })
}

fn exported(graph: &Graph, target: Target) -> Result<ModelProto, String> {
    let verified = graph.verify().expect("valid");
    onnx::export(verified, target, "", &located).map_err(|error| error.to_string())
}

fn rule(name: &str) -> &'static Rule {
    RULES.iter().find(|rule| rule.name == name).unwrap_or_else(|| panic!("no rule {name}"))
}

#[test]
fn refusals_name_the_place_the_reason_and_the_way_out() {
    let error = exported(&layer("bf16"), Target::Portable).expect_err("refused");
    insta::assert_snapshot!("portable_bf16", error);
    for target in [Target::TensorrtRtx, Target::Tensorrt] {
        exported(&layer("bf16"), target).expect("TensorRT takes bf16");
    }
    exported(&layer("f16"), Target::Portable).expect("portable takes f16");
}

#[test]
fn what_matters_is_wide_in_narrow_graphs() {
    let model = exported(&layer("f16"), Target::Portable).expect("exports");
    insta::assert_snapshot!("f16_layer", onnx::text::render(&model));
}

// A rule that never matches documents a construct that no operation needs.
#[test]
fn every_rule_matches_something_or_says_that_nothing_does() {
    let (narrow, refused, coded) = (layer("f16"), layer("bf16"), coded());
    for rule in RULES {
        let places = [&narrow, &refused, &coded]
            .map(|graph| graph.nodes().into_iter().filter(|id| rule.matches(graph, *id)).count());
        let never = rule.subject.starts_with("nothing") || rule.name == "refuse-open-state";
        assert_eq!(places == [0, 0, 0], never, "{}", rule.name);
        assert!(!rule.targets.is_empty() && !rule.reason.is_empty());
    }
    let names: BTreeSet<&str> = RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(names.len(), RULES.len(), "two rules of one name");
}

// The exporter asks the table: in f32, and for targets without the row, nothing is widened.
#[test]
fn rewrites_follow_the_table() {
    let (wide, narrow) = (layer("f32"), layer("f16"));
    let norm = |graph: &Graph| {
        graph.nodes().into_iter().find(|id| graph.op(*id).kind().def().name == "rms_norm").expect("norm")
    };
    assert!(rules::rewrites(Target::Portable, "widen-norms", &narrow, norm(&narrow)));
    assert!(!rules::rewrites(Target::Portable, "widen-norms", &wide, norm(&wide)));
    assert!(!rules::rewrites(Target::Cuda, "widen-norms", &narrow, norm(&narrow)));
    assert!(!rules::rewrites(Target::Portable, "refuse-bf16", &narrow, norm(&narrow)));
    assert!(rule("decompose-attention").forbids.contains(&Forbidden::Always("Attention")));
}

/// The fault of a model after `damage`.
fn fault(damage: impl FnOnce(&mut GraphProto)) -> Fault {
    let graph = layer("f16");
    let verified = graph.verify().expect("valid");
    let mut model = exported(&graph, Target::Portable).expect("exports");
    onnx::check(&onnx::to_bytes(&model), verified, Target::Portable).expect("whole");
    damage(model.graph.as_mut().expect("graph"));
    onnx::check(&model.encode_to_vec(), verified, Target::Portable).expect_err("was damaged").fault
}

fn set_type(info: &mut photonc::onnx::pb::ValueInfoProto, data_type: DataType) {
    let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_mut().and_then(|ty| ty.value.as_mut())
    else {
        panic!("a tensor")
    };
    tensor.elem_type = data_type as i32;
}

#[test]
fn an_input_that_a_parser_would_drop_is_named() {
    // Read by a node, but by none that an output needs.
    let found = fault(|graph| {
        for node in &mut graph.node {
            for input in node.input.iter_mut().filter(|input| *input == "uniforms") {
                *input = "const/f32[](0.0)".to_owned();
            }
        }
        let mut dead = graph.node[0].clone();
        (dead.name, dead.input, dead.output) = ("dead".into(), vec!["uniforms".into()], vec!["dead".into()]);
        dead.op_type = "Identity".into();
        dead.attribute.clear();
        graph.node.push(dead);
    });
    assert_eq!(found, Fault::Unread { name: "uniforms".to_owned() });
    let found = fault(|graph| graph.input.retain(|input| input.name != "top_p"));
    assert!(matches!(&found, Fault::Missing { what: "input", name, .. } if name == "top_p"), "{found}");
    let found = fault(|graph| graph.output.retain(|output| output.name != "y"));
    assert!(matches!(&found, Fault::Missing { what: "output", name, .. } if name == "y"), "{found}");
}

#[test]
fn a_type_that_does_not_arrive_is_named() {
    let found = fault(|graph| set_type(&mut graph.input[0], DataType::Float));
    assert!(matches!(&found, Fault::Type { name, .. } if name == "x"), "{found}");
    let found = fault(|graph| {
        let weight = graph.initializer.iter_mut().find(|tensor| tensor.name == "q").expect("weight");
        weight.data_type = DataType::Float as i32;
    });
    assert!(matches!(&found, Fault::Type { name, .. } if name == "q"), "{found}");
    // A cast left out: a product of two types.
    let found = fault(|graph| {
        let cast =
            graph.node.iter().position(|node| node.name.ends_with("attn/Cast") || node.op_type == "Cast");
        graph.node[cast.expect("a cast")].attribute[0].i = i64::from(DataType::Double as i32);
    });
    assert!(matches!(&found, Fault::Mixed { .. } | Fault::Type { .. }), "{found}");
    let found = fault(|graph| {
        let last = graph.output.iter_mut().find(|output| output.name == "y").expect("output");
        set_type(last, DataType::Float);
    });
    assert!(matches!(&found, Fault::Type { name, .. } if name == "y"), "{found}");
}

#[test]
fn forbidden_operators_and_damaged_files_are_found() {
    let found = fault(|graph| graph.node[0].op_type = "Loop".to_owned());
    assert!(matches!(&found, Fault::Forbidden { rule: "no-control-flow", .. }), "{found}");
    let graph = layer("f16");
    let error =
        onnx::check(&[0xff; 9], graph.verify().expect("valid"), Target::Portable).expect_err("no model");
    assert!(matches!(error.fault, Fault::Unreadable(_)) && error.to_string().contains("`layer`"), "{error}");
}

/// The targets' page, from the table.
fn page() -> String {
    let mut page = String::from(
        "# Targets\n\n\
         `photonc export --target NAMES` writes ONNX models for each of the names, which commas separate. Models that are the\n\
         same for several targets are one file. Before anything is written, the rules below are asked whether a target refuses\n\
         the graphs; after it is written, each model is read again: every input must reach an output, every declared type must be\n\
         what the operators yield, and no operator that a rule forbids may be in it.\n\n\
         Without `--target`, models are written for `portable`, unless that takes a second copy of the weights: a bundle keeps\n\
         them once, as the checkpoint has them. Graphs of f32 read weights of bf16 and f16 exactly, so these stay what they are;\n\
         `cpu` widens them in registers, which halves what it reads from memory, `cuda` and `reference` when they load them.\n\
         tract reads no bf16, so ONNX models of f32 graphs have a copy in f32 (`onnx/weights/f32-*.safetensors`) where the\n\
         weights are narrower; it is written only with a target that needs it. `--dtype bf16` and `f16` make everything narrow,\n\
         activations too.\n\n\
         Made from the tables in `crates/photonc-onnx/src/target.rs` and `crates/photonc-onnx/src/rules.rs`;\n\
         `PHOTONC_UPDATE=1 cargo test --test targets` writes it anew.\n\n\
         | target | read by | files |\n\
         |---|---|---|\n",
    );
    for target in Target::ALL {
        let files = if target.reads_onnx() {
            format!("`onnx/GRAPH.{target}.onnx`")
        } else {
            "none: `graphs/*.pho`".to_owned()
        };
        // Writing to a string cannot fail.
        let _ = writeln!(page, "| `{target}` | {} | {files} |", target.readers());
    }
    page.push_str("\n## Rules\n\n| rule | targets | matches | what is done | because | never written |\n|---|---|---|---|---|---|\n");
    for rule in RULES {
        let targets: Vec<&str> = rule.targets.iter().map(|target| target.name()).collect();
        let done = match rule.action {
            Action::Rewrite(how) => format!("rewritten: {how}"),
            Action::Refuse(instead) => format!("refused: {instead}"),
        };
        let forbids: Vec<String> = rule.forbids.iter().map(ToString::to_string).collect();
        let _ = writeln!(
            page,
            "| {} | {} | {} | {done} | {} | {} |",
            rule.name,
            targets.join(", "),
            rule.subject,
            rule.reason,
            forbids.join(", ")
        );
    }
    page.push_str(
        "\n\
         ## What was tried\n\n\
         Every model of the goldens is run in ONNX Runtime 1.32 and tract 0.23, and its engine built (not run) by TensorRT-RTX\n\
         1.7.1 for compute capability 8.9; `tests/python/onnx_check.py` lists what is not built. ONNX Runtime's CUDA provider ran\n\
         all of them on an H100, once ([onnxruntime.md](onnxruntime.md)). TensorRT itself was not at hand: its rows rest on\n\
         TensorRT-RTX, which fails with an internal error on\n\n\
         - f16 and bf16 attention over heads of no multiple of 8 components, in models of target `portable` (golden `lopsided`\n  \
           has 10 to 14, `paper-600m` 52); models of its own targets are padded (`pad-heads`) and build;\n\
         - int8 codes of several maps of one vector (query, key and value; gate and up) in unrolled windows, and int4 and fp8\n  \
           codes of them in an f32 graph. int8 of stacks without windows (`level2.encoder`), of chunkers and converters, and int4\n  \
           and fp8 in f16 and bf16 graphs build.\n",
    );
    page
}

#[test]
fn the_page_of_targets_is_current() {
    let path = root().join("docs/targets.md");
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, page()).expect("writable");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, page(), "docs/targets.md is not current; set {UPDATE}=1");
}
