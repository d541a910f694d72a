//! The table of protocols: what each summarises a finished unit by, and whose caches its prompt leaves. Owns which rows a
//! model defines; refuses the others with the reason.

use crate::model::build::{KeptCaches, Summary};
use crate::model::config::{Condition, ModelConfig};
use photonc_bundle::program::{Protocol, Remainder};

/// A protocol as data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub protocol: Protocol,
    /// What stands for a finished unit below the top.
    pub summary: Summary,
    /// Caches that it reads of prefill.
    pub kept: KeptCaches,
}

/// Every protocol, in the order in which bundles list them.
pub const TABLE: [Row; 4] = [
    Row { protocol: Protocol::Recgen, summary: Summary::Reconstruction, kept: KeptCaches::Top },
    Row { protocol: Protocol::Hiergen, summary: Summary::State, kept: KeptCaches::All },
    Row { protocol: Protocol::Windowed, summary: Summary::TiledState, kept: KeptCaches::Tiled },
    Row { protocol: Protocol::Chunkgen, summary: Summary::Chunk, kept: KeptCaches::Top },
];

/// The row of a protocol.
#[must_use]
pub fn row(protocol: Protocol) -> Row {
    let [recgen, hiergen, windowed, chunkgen] = TABLE;
    match protocol {
        Protocol::Recgen => recgen,
        Protocol::Hiergen => hiergen,
        Protocol::Windowed => windowed,
        Protocol::Chunkgen => chunkgen,
    }
}

/// Whether `config` defines a protocol.
///
/// # Errors
/// Why not.
pub fn check(config: &ModelConfig, protocol: Protocol) -> Result<(), String> {
    match (protocol, config.wiring.condition) {
        (Protocol::Recgen, Condition::State) if !config.recgen_defined() => Err(format!(
            "its windows are conditioned on encoder states, which reconstructions stand for in a model of two levels \
                 alone; it has {}",
            config.depth()
        )),
        (Protocol::Recgen, _) if !config.recgen_defined() => {
            let (found, expected) =
                (config.level(config.depth()).decoder_dim, config.dim(config.depth() - 1));
            Err(format!(
                "its top chunker reads width {expected}, but the reconstruction below it has width {found}"
            ))
        }
        (
            Protocol::Windowed | Protocol::Chunkgen,
            Condition::Carried | Condition::State | Condition::Predicted,
        ) => {
            Err("its windows read nothing that a protocol summarises, so that only recgen and hiergen differ"
                .to_owned())
        }
        _ => Ok(()),
    }
}

/// Every protocol that `config` defines, in the order of the table.
#[must_use]
pub fn defined(config: &ModelConfig) -> Vec<Protocol> {
    Protocol::ALL.into_iter().filter(|protocol| check(config, *protocol).is_ok()).collect()
}

/// What stands for a meta-context that a prompt begins.
#[must_use]
pub fn remainder(config: &ModelConfig) -> Remainder {
    match config.wiring.condition {
        Condition::Carried | Condition::State | Condition::Predicted => Remainder::Encoded,
        Condition::Estimate => Remainder::Summarised,
    }
}

/// Which caches each prefill of these protocols leaves; the one that most share comes first.
#[must_use]
pub fn prefills(protocols: &[Protocol]) -> Vec<KeptCaches> {
    let kept: Vec<KeptCaches> = protocols.iter().map(|protocol| row(*protocol).kept).collect();
    let has = |wanted: KeptCaches| kept.contains(&wanted);
    let shared = match (has(KeptCaches::All), has(KeptCaches::Top)) {
        (true, _) => Some(KeptCaches::All),
        (false, true) => Some(KeptCaches::Top),
        (false, false) => None,
    };
    shared.into_iter().chain(has(KeptCaches::Tiled).then_some(KeptCaches::Tiled)).collect()
}

#[cfg(test)]
mod tests {
    use super::{TABLE, check, defined, row};
    use crate::model::preset::preset;
    use photonc_bundle::program::Protocol;

    #[test]
    fn the_table_has_every_protocol_in_its_place() {
        assert_eq!(TABLE.map(|row| row.protocol), Protocol::ALL);
        Protocol::ALL.into_iter().for_each(|protocol| assert_eq!(row(protocol).protocol, protocol));
    }

    #[test]
    fn a_model_of_carried_conditions_defines_two() {
        let config = preset("tiny").expect("a preset");
        assert_eq!(defined(&config), [Protocol::Recgen, Protocol::Hiergen]);
        assert!(check(&config, Protocol::Chunkgen).expect_err("is refused").contains("only recgen"));
    }
}
