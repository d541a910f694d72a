//! How much a configuration will compile to, before anything is built. Owns the forecast that hopeless models are refused by.

use super::config::{Condition, ModelConfig};

/// Nodes of one layer of a stack at one position of a window.
const NODES_PER_LAYER: u128 = 28;
/// Nodes of a level beside its layers, for each position.
const NODES_PER_POSITION: u128 = 10;
/// Nodes beside the levels.
const NODES_BESIDE: u128 = 60;

/// Nodes of the step program of a model, about: encoders read a chunk at once, decoders are unrolled over the positions of
/// their window. Where windows read summaries of units, every window of a meta-context is unrolled, and every unit below the
/// top.
#[must_use]
pub fn step_nodes(config: &ModelConfig) -> u128 {
    let unrolls = matches!(config.wiring.condition, Condition::Estimate | Condition::State);
    let levels = config.levels.iter().enumerate().map(|(index, level)| {
        let units = if unrolls {
            config.levels[index + 1..]
                .iter()
                .map(|above| above.chunk_size as u128)
                .fold(1, u128::saturating_mul)
        } else {
            1
        };
        let (encoder, decoder) = (level.encoder.layers as u128, level.decoder.layers as u128);
        let positions = (level.chunk_size as u128 + u128::from(unrolls)).saturating_mul(units);
        let unrolled = decoder.saturating_mul(positions);
        let encoder = encoder.saturating_mul(units);
        let layers = encoder.saturating_add(unrolled).saturating_mul(NODES_PER_LAYER);
        layers.saturating_add(positions.saturating_add(1).saturating_mul(NODES_PER_POSITION))
    });
    levels.fold(NODES_BESIDE, u128::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::step_nodes;
    use crate::model::build::step_program;
    use crate::model::preset::preset;

    #[test]
    fn the_forecast_is_near_what_is_built() {
        for name in ["tiny", "paper-30m", "paper-600m"] {
            let config = preset(name).expect("a preset");
            let (forecast, built) =
                (step_nodes(&config), step_program(&config).expect("builds").len() as u128);
            assert!(
                forecast < 2 * built && built < 2 * forecast,
                "{name}: {forecast} forecast, {built} built"
            );
        }
    }
}
