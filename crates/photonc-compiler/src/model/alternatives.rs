//! Other models that the same tensors could be: what a configuration or a dialect may have got wrong without a shape to tell.
//! Owns the choices that are tried; which of them fits is for others to measure.

use super::config::{Condition, Feedback, ModelConfig, Rotation, Slot, StackConfig};
use super::validate;
use photonc_graph::ir::attr::Real;

/// Epsilons of norms that are common.
const EPSILONS: [f64; 5] = [1e-5, 1e-6, 1e-8, 1e-12, 1.192_092_895_507_812_5e-7];
/// Bases of rotary frequencies that are common.
const THETAS: [f64; 5] = [1e4, 1e5, 5e5, 1e6, 1e7];

/// A model that differs by one choice.
#[derive(Clone, Debug, PartialEq)]
pub struct Alternative {
    /// The choice, as the canonical configuration names it: `rope_theta = 1000000`.
    pub choice: String,
    /// The model.
    pub config: ModelConfig,
}

/// Every model that differs from `config` by one choice which no tensor's shape decides.
#[must_use]
pub fn alternatives(config: &ModelConfig) -> Vec<Alternative> {
    let mut found = Vec::new();
    let mut add = |choice: String, change: &dyn Fn(&mut ModelConfig)| {
        let mut other = config.clone();
        change(&mut other);
        if other != *config && validate::problems(&other).is_empty() {
            found.push(Alternative { choice, config: other });
        }
    };
    wirings(config, &mut add);
    for eps in EPSILONS {
        add(format!("rms_norm_eps = {eps:e}"), &|model| {
            model.rms_norm_eps = eps;
            stacks(model, &|stack| stack.options.norm_eps = None);
        });
    }
    for theta in THETAS {
        add(format!("rope_theta = {theta}"), &|model| {
            model.rope_theta = theta;
            stacks(model, &|stack| stack.options.theta = None);
        });
    }
    add("rotated = every channel of a head".into(), &|model| {
        stacks(model, &|stack| stack.options.rotation = Rotation::All);
    });
    add("rotated = half the channels of a head".into(), &|model| {
        stacks(model, &|stack| stack.options.rotation = Rotation::First(stack.head_dim / 4 * 2));
    });
    add("position = nope".into(), &|model| {
        stacks(model, &|stack| stack.options.rotation = Rotation::None);
    });
    add("softmax_scale = 1 / head_dim".into(), &|model| {
        #[expect(clippy::cast_precision_loss, reason = "widths are far below 2^53")]
        stacks(model, &|stack| stack.options.softmax_scale = Some(Real::from(1.0 / stack.head_dim as f64)));
    });
    add("softmax_scale = 1".into(), &|model| {
        stacks(model, &|stack| stack.options.softmax_scale = Some(Real::from(1.0)));
    });
    add("window = none".into(), &|model| {
        stacks(model, &|stack| stack.options.window = None);
        model.levels.iter_mut().for_each(|level| level.encoder_window = None);
    });
    for normalize in [true, false] {
        add(format!("experts.normalize = {normalize}"), &|model| {
            experts(model, &|experts| experts.normalize = normalize);
        });
    }
    add("experts.factor = 1".into(), &|model| experts(model, &|experts| experts.factor = Real::from(1.0)));
    found
}

/// Choices of the whole model.
fn wirings(config: &ModelConfig, add: &mut impl FnMut(String, &dyn Fn(&mut ModelConfig))) {
    let (scaled, tied) = (!config.wiring.scaled_embedding, !config.tied_head);
    add(format!("scaled_embedding = {scaled}"), &|model| model.wiring.scaled_embedding = scaled);
    add(format!("tie_word_embeddings = {tied}"), &|model| model.tied_head = tied);
    add("softcap = none".into(), &|model| model.wiring.softcap = None);
    add("softcap = 30".into(), &|model| model.wiring.softcap = Some(Real::from(30.0)));
    let recon = |model: &mut ModelConfig, feedback: Feedback| {
        model.wiring.condition = Condition::Carried;
        model.levels.iter_mut().for_each(|level| {
            (level.slot, level.stream, level.feedback) = (Slot::None, None, Feedback::Latent);
        });
        model.levels[0].feedback = feedback;
    };
    add("condition = recon, decoder.feedback = latent".into(), &|model| recon(model, Feedback::Latent));
    add("condition = recon, decoder.feedback = token at level 1".into(), &|model| {
        recon(model, Feedback::Token);
    });
    let summary = |model: &mut ModelConfig, condition: Condition, slot: Slot| {
        model.wiring.condition = condition;
        model.levels.iter_mut().for_each(|level| {
            (level.slot, level.feedback) = (slot, Feedback::Summary);
            level.stream = level.stream.filter(|_| condition == Condition::Estimate);
        });
    };
    for (condition, slot, choice) in [
        (Condition::Estimate, Slot::None, "condition = estimate, decoder.feedback = summary"),
        (Condition::State, Slot::None, "condition = state, decoder.feedback = summary"),
        (
            Condition::State,
            Slot::Repeat,
            "condition = state, decoder.feedback = summary, decoder.slot = repeat",
        ),
    ] {
        add(choice.into(), &|model| summary(model, condition, slot));
    }
}

fn stacks(model: &mut ModelConfig, change: &dyn Fn(&mut StackConfig)) {
    for level in &mut model.levels {
        change(&mut level.encoder);
        change(&mut level.decoder);
    }
}

fn experts(model: &mut ModelConfig, change: &dyn Fn(&mut super::config::ExpertConfig)) {
    stacks(model, &|stack| stack.options.experts.iter_mut().for_each(change));
}

#[cfg(test)]
mod tests {
    use super::alternatives;
    use crate::model::preset::preset;
    use crate::model::validate::problems;

    #[test]
    fn every_alternative_is_another_sound_model() {
        let config = preset("tiny").expect("a preset");
        let found = alternatives(&config);
        assert!(found.len() > 10);
        for one in &found {
            assert_ne!(one.config, config, "{}", one.choice);
            assert!(problems(&one.config).is_empty(), "{}", one.choice);
        }
        let mut choices: Vec<&str> = found.iter().map(|one| one.choice.as_str()).collect();
        choices.sort_unstable();
        choices.dedup();
        assert_eq!(choices.len(), found.len());
    }
}
