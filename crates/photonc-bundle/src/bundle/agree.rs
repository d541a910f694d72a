//! Whether a manifest says what the files of its bundle say. Owns what is derived from graph texts and from the headers of
//! weights files: ports, sizes, plans, certificates, where weights stand. Hashes tell damage; this tells a manifest that was
//! never true.

use super::error::BundleError;
use super::folder::OpenFile;
use super::manifest::{GraphRecord, Manifest, PortRecord, QuantizedRecord, WeightRecord};
use super::read::ParsedGraph;
use super::stored::check_weight;
use super::tensors::{self, Tensors};
use crate::program::{ModelSizes, Plan, SCORE, Signature, WINDOW, certificate, signature};
use indexmap::IndexMap;
use photonc_graph::graph::Graph;
use photonc_graph::ir::attr::Scheme;
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::op::Op;
use photonc_graph::ir::shape::Type;
use std::collections::BTreeMap;
use std::path::Path;

/// Compares the record of the graph `name` with the graph.
///
/// # Errors
/// The graph is not valid, or has another name or other ports.
pub(super) fn graph(path: &Path, name: &str, record: &GraphRecord, graph: &Graph) -> Result<(), BundleError> {
    let differs = |message: String| BundleError::Differs {
        path: path.to_owned(),
        message: format!("graph `{name}`: {message}"),
    };
    if graph.name() != name {
        return Err(differs(format!("its text is that of graph `{}`", graph.name())));
    }
    let verified = graph.verify().map_err(|error| differs(error.to_string()))?;
    let derived = GraphRecord::new(verified, record.text.clone());
    for (what, found, expected) in
        [("input", &record.inputs, &derived.inputs), ("output", &record.outputs, &derived.outputs)]
    {
        if let Some(at) = (0..found.len().max(expected.len())).find(|at| found.get(*at) != expected.get(*at))
        {
            let [found, expected] =
                [found, expected].map(|ports| ports.get(at).map_or("none".to_owned(), shown));
            return Err(differs(format!("{what} {at} is {found}, its text has {expected}")));
        }
    }
    Ok(())
}

fn shown(port: &PortRecord) -> String {
    format!("`{}` {}[{}] ({})", port.name, port.dtype, port.shape.join(", "), port.meaning)
}

/// Compares sizes, plans and weights of the manifest with its graphs.
///
/// # Errors
/// The first that differs.
pub(super) fn manifest(
    path: &Path,
    manifest: &Manifest,
    graphs: &IndexMap<String, ParsedGraph>,
) -> Result<(), BundleError> {
    let differs = |message: String| BundleError::Differs { path: path.to_owned(), message };
    if !Dtype::from_name(&manifest.precision).is_some_and(Dtype::is_float) {
        return Err(differs(format!("`precision` is `{}`, expected f32, f16 or bf16", manifest.precision)));
    }
    let signatures: IndexMap<&str, Signature> =
        graphs.iter().map(|(name, parsed)| (name.as_str(), signature(&parsed.graph))).collect();
    let sizes = ModelSizes::of(signatures.iter().map(|(name, signature)| (*name, signature)));
    let sizes = sizes.map_err(differs)?;
    let model = &manifest.model;
    for (what, found, derived) in [
        ("vocab_size", model.vocab_size, sizes.vocab_size),
        ("meta_tokens", model.meta_tokens, sizes.meta_tokens),
    ] {
        if found == 0 || derived.is_some_and(|derived| derived != found) {
            let derived = derived.map_or("a positive number".to_owned(), |derived| derived.to_string());
            return Err(differs(format!("`{what}` is {found}, its graphs have {derived}")));
        }
    }
    if model.max_tokens < model.meta_tokens {
        let (found, least) = (model.max_tokens, model.meta_tokens);
        return Err(differs(format!("`max_tokens` is {found}, a meta-context alone has {least}")));
    }
    if let Some(unused) = graphs.keys().find(|name| !is_used(name, manifest)) {
        return Err(differs(format!("graph `{unused}` is used by none of its protocols")));
    }
    if !model.config.is_object() {
        return Err(differs("`model.config` is no object".to_owned()));
    }
    for (protocol, plan) in &manifest.protocols {
        let wrong = |message: String| differs(format!("protocol `{protocol}`: {message}"));
        plan.check(*protocol, |name| signatures.get(name)).map_err(wrong)?;
        if let Plan::Distributed { coarse, expand, certificate: found, .. } = plan {
            let parsed = |name: &str| graphs.get(name).map(|parsed| &parsed.graph);
            let derived = match (parsed(coarse), parsed(expand)) {
                (Some(coarse), Some(expand)) => certificate(coarse, expand, &found.state),
                _ => return Err(wrong("a graph of its certificate is missing".to_owned())),
            };
            if *found != derived || derived.tainted_coarse_nodes > 0 {
                return Err(wrong("its certificate is not that of its graphs".to_owned()));
            }
        }
    }
    graphs.values().try_for_each(|parsed| read_weights(&parsed.graph, manifest)).map_err(differs)
}

/// Whether a protocol runs the graph, or whoever scores texts and draws tokens outside the graphs.
fn is_used(name: &str, manifest: &Manifest) -> bool {
    [SCORE, WINDOW].contains(&name)
        || manifest.protocols.iter().any(|(protocol, plan)| {
            protocol.encode() == name || plan.parts().iter().any(|(_, graph)| *graph == name)
        })
}

/// Whether every weight that a graph reads is stored as the graph reads it.
fn read_weights(graph: &Graph, manifest: &Manifest) -> Result<(), String> {
    let stored = |name: &str, record: Option<&WeightRecord>, ty: &Type| {
        let scope = graph.name();
        let Some(record) = record else {
            return Err(format!("graph `{scope}` reads the weight `{name}`, which is not stored"));
        };
        match ty.shape.as_const() {
            Some(shape) if shape == record.shape => Ok(()),
            _ => Err(format!("weight `{name}` has the shape {:?}, graph `{scope}` reads {ty}", record.shape)),
        }
    };
    for id in graph.nodes() {
        match graph.op(id) {
            Op::Weight { name, ty } => {
                stored(name, manifest.weights.get(&**name), ty)?;
                if ty.dtype.name() != manifest.precision {
                    let (scope, precision) = (graph.name(), &manifest.precision);
                    return Err(format!(
                        "`precision` is `{precision}`, graph `{scope}` reads `{name}` as {ty}"
                    ));
                }
            }
            Op::QuantizedWeight { name, ty, scheme } => {
                let record = manifest.quantized.get(&scheme.key(name));
                stored(name, record.map(|record| &record.codes), ty)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Compares where weights stand with the headers of the weights files.
///
/// # Errors
/// A file that is no safetensors file, or a weight that is not where the manifest says.
pub(super) fn weights(
    path: &Path,
    manifest: &Manifest,
    files: &BTreeMap<String, OpenFile>,
) -> Result<(), BundleError> {
    let mut headers: BTreeMap<&str, Tensors> = BTreeMap::new();
    for file in manifest.weight_files.keys() {
        let open = files.get(file).expect("invariant: every file of the manifest is open");
        headers.insert(file, tensors::read(open)?);
    }
    let wrong = |message: String| BundleError::Differs { path: path.to_owned(), message };
    let compare = |name: &str, record: &WeightRecord, (dtype, shape): (&str, &[usize])| {
        let found = headers.get(record.file.as_str()).and_then(|tensors| tensors.get(&record.tensor));
        let Some(found) = found else {
            let WeightRecord { tensor, file, .. } = record;
            return Err(wrong(format!(
                "weight `{name}`: no tensor `{tensor}` in `{file}` of the weights files"
            )));
        };
        if (found.offset_bytes, found.length_bytes) != (record.offset_bytes, record.length_bytes) {
            return Err(wrong(format!(
                "weight `{name}`: {} bytes at {}, `{}` has it in {} bytes at {}",
                record.length_bytes, record.offset_bytes, record.file, found.length_bytes, found.offset_bytes
            )));
        }
        if found.shape != shape || !found.dtype.eq_ignore_ascii_case(dtype) {
            return Err(wrong(format!(
                "weight `{name}`: {dtype}{shape:?}, `{}` has {}{:?}",
                record.file, found.dtype, found.shape
            )));
        }
        Ok(())
    };
    for (name, record) in manifest.weights.iter().chain(&manifest.widened) {
        let dtype = check_weight(name, record).map_err(wrong)?;
        if !dtype.widens_to(manifest.dtype()) {
            let message =
                format!("`precision` is `{}`, weight `{name}` {}", manifest.precision, record.dtype);
            return Err(wrong(message));
        }
        compare(name, record, (&record.dtype, &record.shape))?;
    }
    for (name, copy) in &manifest.widened {
        let own = manifest.weights.get(name).filter(|own| own.shape == copy.shape);
        if own.is_none() || copy.dtype != manifest.dtype().name() {
            return Err(wrong(format!(
                "the copy of weight `{name}` for ONNX models is not of its shape, or not of the graphs' type"
            )));
        }
    }
    for (name, record) in &manifest.quantized {
        let (dtype, sizes) = coded(name, record).map_err(wrong)?;
        compare(name, &record.codes, (dtype, &sizes))?;
        compare(name, &record.scales, (&record.scales.dtype, &record.scales.shape))?;
    }
    Ok(())
}

/// Type and sizes by which a file has the codes of a record that is consistent; an error says what contradicts what.
fn coded(name: &str, record: &QuantizedRecord) -> Result<(&'static str, [usize; 2]), String> {
    let QuantizedRecord { weight, scheme, codes, scales } = record;
    let known = Scheme::ALL.iter().find(|known| known.name() == scheme && known.key(weight) == name);
    let Some(scheme) = known else {
        return Err(format!("codes `{name}` are recorded as those of `{weight}` by the scheme `{scheme}`"));
    };
    let misfit = |what: &str, found: &WeightRecord, expected: String| {
        let WeightRecord { dtype, shape, length_bytes, .. } = found;
        Err(format!(
            "codes `{name}`: {what} are {dtype}{shape:?} in {length_bytes} bytes, expected {expected}"
        ))
    };
    let [rows, columns] = codes.shape[..] else {
        return misfit("they", codes, "a matrix".to_owned());
    };
    let bytes = rows.checked_mul(columns).map(|elements| scheme.code_bytes(elements) as u64);
    if codes.dtype != scheme.name() || bytes != Some(codes.length_bytes) {
        return misfit("they", codes, format!("one `{}` an element", scheme.name()));
    }
    let sizes = scheme.scale_shape([rows, columns]).filter(|sizes| *sizes == scales.shape);
    let bytes = sizes.map(|sizes| 4 * sizes.iter().product::<usize>() as u64);
    if scales.dtype != "f32" || bytes != Some(scales.length_bytes) {
        return misfit("scales", scales, format!("those of {rows} rows and {columns} columns in f32"));
    }
    Ok(scheme.stored_as([rows, columns]))
}
