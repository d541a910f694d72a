//! The parts that graphs play in a plan. Owns the names of their graphs and what a graph must read and yield to play one.

use super::plan::Plan;
use super::protocol::Protocol;
use super::signature::{NEXT, Signature};

/// A part of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// One step of the recurrence that runs ahead.
    Coarse,
    /// Cut values to what the loop of the expansion reads.
    Lead,
    /// Cut values to ids, with in-graph sampling.
    Expand,
    /// The same, with logits.
    ExpandLogits,
    /// Cut values down to the level-1 windows.
    ExpandPrepare,
    /// State to ids, with in-graph sampling.
    Decode,
    /// The same, with logits.
    DecodeLogits,
    /// State down to the level-1 windows.
    DecodePrepare,
    /// Ids to the next state.
    Reencode,
}

impl Part {
    /// Name of the graph that plays this part in `protocol`.
    #[must_use]
    pub fn graph(self, protocol: Protocol) -> String {
        let (base, own) = match self {
            Part::Coarse => ("coarse", false),
            Part::Lead => ("expand_lead", false),
            Part::Expand => ("expand", false),
            Part::ExpandLogits => ("expand_logits", false),
            Part::ExpandPrepare => ("expand_prepare", false),
            Part::Decode => ("decode", true),
            Part::DecodeLogits => ("decode_logits", true),
            Part::DecodePrepare => ("decode_prepare", true),
            Part::Reencode => ("reencode", true),
        };
        match (own, protocol) {
            (false, _) | (true, Protocol::Hiergen) => base.to_owned(),
            (true, _) => format!("{base}_{protocol}"),
        }
    }

    /// Inputs and outputs that a graph must have to play the part, and outputs that it must not have.
    fn ports(self) -> (&'static [&'static str], &'static [&'static str], &'static [&'static str]) {
        match self {
            Part::Coarse => (&[], &["next.top_state"], &["ids", "logits", "conditions"]),
            Part::Lead => (&[], &[], &["ids", "logits"]),
            Part::Expand | Part::Decode => (&["uniforms"], &["ids"], &["logits", "conditions"]),
            Part::ExpandLogits | Part::DecodeLogits => (&["uniforms"], &["ids", "logits"], &["conditions"]),
            Part::ExpandPrepare | Part::DecodePrepare => (&[], &["conditions"], &["ids", "logits"]),
            // Which states it yields is the wiring's.
            Part::Reencode => (&["ids"], &[], &["ids", "logits", "conditions"]),
        }
    }

    /// Whether a graph of this signature can play the part.
    ///
    /// # Errors
    /// What it lacks or must not have.
    pub fn check(self, signature: &Signature) -> Result<(), String> {
        let (inputs, outputs, refused) = self.ports();
        let lacks = |what, name| Err(format!("has no {what} `{name}`"));
        if let Some(name) = inputs.iter().find(|name| !signature.inputs.contains_key(**name)) {
            return lacks("input", name);
        }
        if let Some(name) = outputs.iter().find(|name| !signature.outputs.contains_key(**name)) {
            return lacks("output", name);
        }
        if self == Part::Reencode && !signature.outputs.keys().any(|name| name.starts_with(NEXT)) {
            return Err("yields no next state".to_owned());
        }
        match refused.iter().find(|name| signature.outputs.contains_key(**name)) {
            Some(name) => Err(format!("has an output `{name}`")),
            None => Ok(()),
        }
    }
}

impl Plan {
    /// Every part with the name of its graph.
    #[must_use]
    pub fn parts(&self) -> Vec<(Part, &str)> {
        match self {
            Plan::Distributed { coarse, lead, expand, logits, prepare, .. } => {
                let mut parts = vec![(Part::Coarse, coarse.as_str())];
                parts.extend(lead.as_deref().map(|graph| (Part::Lead, graph)));
                parts.extend([(Part::Expand, expand.as_str()), (Part::ExpandLogits, logits)]);
                parts.extend(prepare.as_deref().map(|graph| (Part::ExpandPrepare, graph)));
                parts
            }
            Plan::Undistributed { decode, logits, prepare, reencode, .. } => {
                let mut parts = vec![(Part::Decode, decode.as_str()), (Part::DecodeLogits, logits)];
                parts.extend(prepare.as_deref().map(|graph| (Part::DecodePrepare, graph)));
                parts.extend(reencode.as_deref().map(|graph| (Part::Reencode, graph)));
                parts
            }
        }
    }

    /// Whether the plan of `protocol` is what the graphs make of it: every part is played by the graph of its name, which
    /// reads and yields what the part needs. `signature` gives that of a graph by name.
    ///
    /// # Errors
    /// The part and what is wrong with its graph.
    pub fn check<'s>(
        &self,
        protocol: Protocol,
        signature: impl Fn(&str) -> Option<&'s Signature>,
    ) -> Result<(), String> {
        if matches!(self, Plan::Distributed { .. }) && !protocol.may_run_ahead() {
            return Err("is split, which no model is under it".to_owned());
        }
        for (part, found) in self.parts() {
            let expected = part.graph(protocol);
            if found != expected {
                return Err(format!("{part:?} is graph `{found}`, expected `{expected}`"));
            }
            let played = signature(found).ok_or_else(|| "is not there".to_owned());
            let played = played.and_then(|signature| part.check(signature));
            played.map_err(|message| format!("{part:?}: graph `{found}` {message}"))?;
        }
        Ok(())
    }
}
