//! What an export is asked for in words, as keywords of other languages are. Owns what each word means and which there are.

use super::error::Error;
use crate::export::ExportOptions;
use crate::ir::attr::Scheme;
use crate::ir::dtype::Dtype;
use crate::model::checkpoint::Unexpected;
use crate::model::dialect::DialectChoice;
use crate::onnx::target::Target;
use crate::passes::quantize_weights::Choice;
use crate::program::Protocol;
use std::path::PathBuf;

/// Types that weights can be exported in.
const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::Bf16];

/// An export in words; what is empty or left out is as [`ExportOptions::new`] has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportNames {
    /// `f32`, `f16` or `bf16`.
    pub dtype: Option<String>,
    /// Stacks whose weights are quantized, each with its scheme.
    pub quant: Vec<(String, String)>,
    /// Whom ONNX models are written for.
    pub targets: Vec<String>,
    /// Protocols to compile for.
    pub protocols: Vec<String>,
    /// Longest sequence in tokens.
    pub max_tokens: Option<usize>,
    /// Layout of the checkpoint by name.
    pub dialect: Option<String>,
    /// Data file of the checkpoint's layout.
    pub weight_map: Option<PathBuf>,
    /// Takes a checkpoint with tensors that the model has not.
    pub ignore_unexpected: bool,
    /// Takes NaN and infinite weights as they are.
    pub allow_nonfinite: bool,
    /// Replaces a bundle that stands there.
    pub force: bool,
}

impl ExportNames {
    /// The export of `model` as a bundle at `out`.
    ///
    /// # Errors
    /// A word that means nothing here, or two that exclude each other.
    pub fn options(self, model: PathBuf, out: PathBuf) -> Result<ExportOptions, Error> {
        let mut options = ExportOptions::new(model, out);
        if let Some(name) = &self.dtype {
            options.precision = one_of("dtype", name, &DTYPES, Dtype::name)?;
        }
        if !self.targets.is_empty() {
            let target = |name: &String| one_of("target", name, &Target::ALL, Target::name);
            options.targets = Some(self.targets.iter().map(target).collect::<Result<_, Error>>()?);
        }
        if !self.protocols.is_empty() {
            let protocols = self.protocols.iter().map(|name| protocol_of(name));
            options.protocols = Some(protocols.collect::<Result<_, Error>>()?);
        }
        options.dialect = match (self.dialect, self.weight_map) {
            (Some(_), Some(_)) => return Err(Error::refused("give a dialect or a weight map, not both")),
            (Some(name), None) => DialectChoice::Named(name),
            (None, Some(file)) => DialectChoice::File(file),
            (None, None) => DialectChoice::Recognise,
        };
        let choice = |(stack, name): (String, String)| {
            let scheme = one_of("scheme", &name, Scheme::ALL, Scheme::name)?;
            Ok(Choice { stack: stack.into(), scheme })
        };
        options.quantized = self.quant.into_iter().map(choice).collect::<Result<_, Error>>()?;
        options.unexpected = if self.ignore_unexpected { Unexpected::Ignored } else { Unexpected::Refused };
        options.max_tokens = self.max_tokens;
        options.allow_nonfinite = self.allow_nonfinite;
        options.force = self.force;
        Ok(options)
    }
}

/// The protocol of a name.
///
/// # Errors
/// There is none.
pub fn protocol_of(name: &str) -> Result<Protocol, Error> {
    one_of("protocol", name, &Protocol::ALL, Protocol::name)
}

/// The one of `known` with a name.
pub(super) fn one_of<T: Copy, S: AsRef<str>>(
    what: &str,
    name: &str,
    known: &[T],
    name_of: impl Fn(T) -> S,
) -> Result<T, Error> {
    let found = known.iter().copied().find(|one| name_of(*one).as_ref() == name);
    found.ok_or_else(|| {
        let names: Vec<String> = known.iter().map(|one| name_of(*one).as_ref().to_owned()).collect();
        Error::refused(format!("there is no {what} `{name}`, expected one of {}", names.join(", ")))
    })
}
