//! Pipelines as data: which optional passes run at which level, in which stage, and why there. What a level leaves out
//! changes how much a graph costs, never what it computes; passes that a graph cannot do without are in `compile`.

use super::Pass;
use super::eliminate_common_subexpressions::EliminateCommonSubexpressions;
use super::eliminate_dead_code::EliminateDeadCode;
use super::flatten_rows::FlattenRows;
use super::fold_constants::FoldConstants;
use super::fuse_residuals::FuseResiduals;
use super::merge_gates::MergeGates;
use super::merge_projections::MergeProjections;
use super::simplify_casts::SimplifyCasts;
use super::simplify_shapes::SimplifyShapes;
use super::simplify_unit_transposes::SimplifyUnitTransposes;
use super::sink_reshapes::SinkReshapes;
use super::skip_unread_positions::SkipUnreadPositions;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How much work the compiler puts into small and fast graphs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OptLevel {
    /// Nothing but what makes graphs straight: the equations as they were built.
    O0,
    /// Canonical: equal things once, dead things gone, constants folded.
    O1,
    /// Less work and fewer nodes at the same numbers. The default.
    #[default]
    O2,
    /// As `O2`, and what pays on some machines only: gate and up projections merged.
    O3,
}

impl OptLevel {
    /// Every level, least first.
    pub const ALL: [OptLevel; 4] = [OptLevel::O0, OptLevel::O1, OptLevel::O2, OptLevel::O3];

    /// Name in options: `2` of `-O2`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            OptLevel::O0 => "0",
            OptLevel::O1 => "1",
            OptLevel::O2 => "2",
            OptLevel::O3 => "3",
        }
    }
}

impl fmt::Display for OptLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "O{}", self.name())
    }
}

/// Passes that run in rounds until none finds work. A stage starts when the one before has settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Before everything, and again in the rounds of every later stage.
    Canonical,
    /// Removes work.
    Narrow,
    /// Joins what is left.
    Merge,
    /// Settles the axes of values.
    Layout,
}

/// One optional pass and its place.
#[derive(Clone, Copy)]
pub struct Row {
    /// The pass.
    pub pass: fn() -> Box<dyn Pass>,
    /// Lowest level that runs it.
    pub from: OptLevel,
    /// When.
    pub stage: Stage,
    /// Why at that level and in that place.
    pub reason: &'static str,
}

const fn row(pass: fn() -> Box<dyn Pass>, from: OptLevel, stage: Stage, reason: &'static str) -> Row {
    Row { pass, from, stage, reason }
}

/// Every optional pass, in run order.
pub const TABLE: &[Row] = &[
    row(|| Box::new(SimplifyShapes), OptLevel::O1, Stage::Canonical, "first, so that equal nodes look equal"),
    row(
        || Box::new(SimplifyCasts),
        OptLevel::O1,
        Stage::Canonical,
        "before equal nodes merge, for the same reason",
    ),
    row(
        || Box::new(FoldConstants),
        OptLevel::O1,
        Stage::Canonical,
        "before equal nodes merge: folded ones are equal",
    ),
    row(
        || Box::new(EliminateCommonSubexpressions),
        OptLevel::O1,
        Stage::Canonical,
        "after all that makes nodes equal",
    ),
    row(|| Box::new(EliminateDeadCode), OptLevel::O1, Stage::Canonical, "last, for what the others left"),
    row(
        || Box::new(SkipUnreadPositions),
        OptLevel::O2,
        Stage::Narrow,
        "before maps merge: a merged map computes queries wherever it computes keys",
    ),
    row(
        || Box::new(SimplifyUnitTransposes),
        OptLevel::O2,
        Stage::Narrow,
        "after positions are skipped, which leaves single ones; before maps merge, so that their splits are one reshape",
    ),
    row(
        || Box::new(MergeProjections),
        OptLevel::O2,
        Stage::Merge,
        "a merged map hides which of its results are read, so all that narrows comes first",
    ),
    row(
        || Box::new(FlattenRows),
        OptLevel::O2,
        Stage::Layout,
        "after maps merge, which know heads by the axes that rows are made of",
    ),
    row(
        || Box::new(FuseResiduals),
        OptLevel::O2,
        Stage::Layout,
        "after rows are flat: only a product of two axes starts from another value in ONNX",
    ),
    row(
        || Box::new(SinkReshapes),
        OptLevel::O2,
        Stage::Layout,
        "after rows are flat: what is to be joined is flat then",
    ),
    row(
        || Box::new(MergeGates),
        OptLevel::O3,
        Stage::Layout,
        "after rows are flat, so that the wide result is sliced as it is; it trades a product for a split",
    ),
];

impl OptLevel {
    /// The stages of this level in order, each the passes of one round: its own, then the canonical ones.
    #[must_use]
    pub fn stages(self) -> Vec<Vec<Box<dyn Pass>>> {
        let of = |stage: Stage| TABLE.iter().filter(move |row| row.from <= self && row.stage == stage);
        let mut stages = Vec::new();
        for stage in [Stage::Canonical, Stage::Narrow, Stage::Merge, Stage::Layout] {
            let mut passes: Vec<Box<dyn Pass>> = of(stage).map(|row| (row.pass)()).collect();
            if passes.is_empty() {
                continue;
            }
            if stage != Stage::Canonical {
                passes.extend(of(Stage::Canonical).map(|row| (row.pass)()));
            }
            stages.push(passes);
        }
        stages
    }
}
