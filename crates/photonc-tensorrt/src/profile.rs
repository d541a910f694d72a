//! Optimisation profiles: for which sizes an engine is built, and for which it is made fast. Owns the choice of a small
//! set for a graph, the text form, and what is said of sizes that no profile covers.

use photonc_graph::ir::dim::{Bindings, Dim, Symbol};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Sizes of one symbol: the least, the one to be fast at, the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "[usize; 3]", try_from = "[usize; 3]")]
pub struct Range {
    least: usize,
    best: usize,
    most: usize,
}

impl Range {
    /// The range, if its numbers are positive and in order.
    #[must_use]
    pub fn new(least: usize, best: usize, most: usize) -> Option<Self> {
        (0 < least && least <= best && best <= most).then_some(Range { least, best, most })
    }

    /// `least..=most` with the best inside it.
    fn around(least: usize, best: usize, most: usize) -> Self {
        let (least, most) = (least.max(1), most.max(least).max(1));
        Range { least, best: best.clamp(least, most), most }
    }

    /// The three sizes.
    #[must_use]
    pub fn sizes(self) -> [usize; 3] {
        [self.least, self.best, self.most]
    }

    /// Whether a size is inside.
    #[must_use]
    pub fn contains(self, size: usize) -> bool {
        (self.least..=self.most).contains(&size)
    }
}

impl From<Range> for [usize; 3] {
    fn from(range: Range) -> Self {
        range.sizes()
    }
}

impl TryFrom<[usize; 3]> for Range {
    type Error = String;

    fn try_from([least, best, most]: [usize; 3]) -> Result<Self, String> {
        let range = Range::new(least, best, most);
        range.ok_or_else(|| format!("{least}, {best}, {most} are not sizes from least to most"))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { least, best, most } = self;
        if least == most { write!(f, "{most}") } else { write!(f, "{least} to {most} (best at {best})") }
    }
}

/// Sizes of every symbol of a graph's inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "BTreeMap<String, Range>", try_from = "BTreeMap<String, Range>")]
pub struct Profile(BTreeMap<Symbol, Range>);

impl From<Profile> for BTreeMap<String, Range> {
    fn from(profile: Profile) -> Self {
        profile.0.into_iter().map(|(symbol, range)| (symbol.name().to_owned(), range)).collect()
    }
}

impl TryFrom<BTreeMap<String, Range>> for Profile {
    type Error = String;

    fn try_from(named: BTreeMap<String, Range>) -> Result<Self, String> {
        let symbol = |name: String| Symbol::from_name(&name).ok_or(format!("`{name}` is no symbol"));
        let ranges = named.into_iter().map(|(name, range)| Ok((symbol(name)?, range)));
        Ok(Profile(ranges.collect::<Result<_, String>>()?))
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> =
            self.0.iter().map(|(symbol, range)| format!("{} {range}", symbol.name())).collect();
        f.write_str(&if parts.is_empty() { "fixed sizes".to_owned() } else { parts.join(", ") })
    }
}

/// Why a text is no profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no profile; expected sizes such as `batch=1:8:32,meta=1:4:8,capacity=128` (least:best:most, or one size)"
)]
pub struct ProfileError(String);

/// A size that no profile covers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {found} is outside of what the engine of `{graph}` was built for: {built}", .symbol.name())]
pub struct Outside {
    /// The graph.
    pub graph: String,
    /// The symbol.
    pub symbol: Symbol,
    /// The size asked for.
    pub found: usize,
    /// What the profiles cover.
    pub built: String,
}

impl Profile {
    /// Reads `batch=1:8:32,meta=1:4:8,capacity=128`.
    ///
    /// # Errors
    /// Another form, an unknown symbol, or sizes that are not in order.
    pub fn parse(text: &str) -> Result<Self, ProfileError> {
        let error = || ProfileError(text.to_owned());
        let mut ranges = BTreeMap::new();
        for part in text.split(',') {
            let (name, sizes) = part.split_once('=').ok_or_else(error)?;
            let symbol = Symbol::from_name(name.trim()).ok_or_else(error)?;
            let sizes: Option<Vec<usize>> = sizes.split(':').map(|size| size.trim().parse().ok()).collect();
            let range = match sizes.as_deref() {
                Some([size]) => Range::new(*size, *size, *size),
                Some([least, best, most]) => Range::new(*least, *best, *most),
                _ => None,
            };
            if ranges.insert(symbol, range.ok_or_else(error)?).is_some() {
                return Err(error());
            }
        }
        Ok(Profile(ranges))
    }

    /// A profile of these ranges.
    #[must_use]
    pub fn of(ranges: impl IntoIterator<Item = (Symbol, Range)>) -> Self {
        Profile(ranges.into_iter().collect())
    }

    /// The range of a symbol.
    #[must_use]
    pub fn range(&self, symbol: Symbol) -> Option<Range> {
        self.0.get(&symbol).copied()
    }

    /// Least, best and most of a dimension; `None` if it has a symbol that the profile lacks.
    #[must_use]
    pub fn sizes(&self, dim: &Dim) -> Option<[usize; 3]> {
        let mut sizes = [0; 3];
        for (at, size) in sizes.iter_mut().enumerate() {
            let mut bindings = Bindings::default();
            for (symbol, range) in &self.0 {
                bindings.bind(*symbol, range.sizes()[at]);
            }
            *size = dim.eval(&bindings)?;
        }
        Some(sizes)
    }

    /// The first symbol whose size lies outside.
    fn first_outside(&self, sizes: &Bindings) -> Option<(Symbol, usize)> {
        let outside = |(symbol, range): (&Symbol, &Range)| {
            let size = sizes.get(*symbol).filter(|size| !range.contains(*size))?;
            Some((*symbol, size))
        };
        self.0.iter().find_map(outside)
    }

    /// The first of `profiles` that covers `sizes`.
    ///
    /// # Errors
    /// None does: the symbol at fault and what is covered.
    pub fn covering(profiles: &[Profile], graph: &str, sizes: &Bindings) -> Result<usize, Outside> {
        let mut fault = None;
        for (at, profile) in profiles.iter().enumerate() {
            match profile.first_outside(sizes) {
                None => return Ok(at),
                Some(outside) => fault = Some(outside),
            }
        }
        let (symbol, found) = fault.unwrap_or((Symbol::Batch, 0));
        let built: Vec<String> = profiles.iter().map(ToString::to_string).collect();
        Err(Outside { graph: graph.to_owned(), symbol, found, built: built.join("; or ") })
    }

    /// This profile for a graph with `symbols`: those that it lacks from `chosen`, those that the graph lacks left out.
    #[must_use]
    pub fn completed(&self, symbols: &[Symbol], chosen: &[Profile]) -> Self {
        let widest = |symbol: Symbol| {
            let ranges: Vec<Range> = chosen.iter().filter_map(|profile| profile.range(symbol)).collect();
            let last = ranges.last()?;
            let least = ranges.iter().map(|range| range.least).min()?;
            Some(Range::around(least, last.best, ranges.iter().map(|range| range.most).max()?))
        };
        let range = |symbol: &Symbol| self.range(*symbol).or_else(|| widest(*symbol));
        Profile(symbols.iter().filter_map(|symbol| Some((*symbol, range(symbol)?))).collect())
    }
}

/// How a graph is used, which tells how many meta-contexts it sees at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// On whole sequences: `meta` goes up to the longest.
    Sequence,
    /// On a run-ahead: `meta` is small, the batch large.
    RunAhead,
}

/// What bounds the sizes of a model's graphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Meta-contexts of the longest sequence; the most slots of a cache.
    pub meta_contexts: usize,
}

/// Rows that an engine is built for at once.
const MOST_ROWS: usize = 64;
/// Rows that the batched profile is fastest at.
const BEST_ROWS: usize = 8;
/// Meta-contexts of a run-ahead that a single row is built for.
const MOST_AHEAD: usize = 64;
/// Meta-contexts of a run-ahead to be fast at.
const BEST_AHEAD: usize = 8;
/// Meta-contexts of all rows together: bounds the memory of activations, which is that of the largest sizes.
const MOST_UNITS: usize = 1024;
/// Slots of a cache that one profile covers; more are a second profile, so that short sequences do not pay for long ones.
const SLOTS_OF_A_PROFILE: usize = 512;

/// The profiles of a graph whose inputs have `symbols`: one row for the least latency, and many rows; each for short caches
/// and, where the model has them, long ones.
#[must_use]
pub fn choose(symbols: &[Symbol], usage: Use, limits: Limits) -> Vec<Profile> {
    let longest = limits.meta_contexts.max(1);
    let mut profiles = Vec::new();
    let has = |symbol: Symbol| symbols.contains(&symbol);
    let single = Range::around(1, 1, 1);
    for slots in slot_ranges(longest) {
        for alone in [true, false] {
            let mut ranges = BTreeMap::new();
            let metas = match (usage, alone) {
                (Use::Sequence, _) => Range::around(1, longest.div_ceil(2), longest),
                (Use::RunAhead, true) => Range::around(1, BEST_AHEAD, MOST_AHEAD),
                (Use::RunAhead, false) => Range::around(1, BEST_AHEAD, MOST_UNITS / MOST_ROWS),
            };
            let most_rows = if has(Symbol::Meta) { MOST_UNITS / metas.most } else { MOST_ROWS };
            let rows = Range::around(2, BEST_ROWS, most_rows.clamp(2, MOST_ROWS));
            for symbol in symbols {
                let range = match symbol {
                    Symbol::Batch if alone => single,
                    Symbol::Batch => rows,
                    Symbol::Meta => metas,
                    Symbol::Capacity => slots,
                };
                ranges.insert(*symbol, range);
            }
            let profile = Profile(ranges);
            if !profiles.contains(&profile) {
                profiles.push(profile);
            }
        }
    }
    profiles
}

fn slot_ranges(longest: usize) -> Vec<Range> {
    let short = longest.min(SLOTS_OF_A_PROFILE);
    let mut ranges = vec![Range::around(1, short, short)];
    if longest > short {
        ranges.push(Range::around(short + 1, longest, longest));
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::{Limits, Profile, Range, Use, choose};
    use photonc_graph::ir::dim::{Bindings, Dim, Symbol};

    fn limits(meta_contexts: usize) -> Limits {
        Limits { meta_contexts }
    }

    fn sizes(batch: usize, capacity: usize) -> Bindings {
        let mut sizes = Bindings::default();
        sizes.bind(Symbol::Batch, batch);
        sizes.bind(Symbol::Capacity, capacity);
        sizes
    }

    // Each profile costs build time and space in the engine: a small set, and one row must have its own.
    #[test]
    fn a_coarse_graph_gets_one_row_and_many() {
        let profiles = choose(&[Symbol::Batch, Symbol::Capacity], Use::RunAhead, limits(128));
        let texts: Vec<String> = profiles.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "batch 1, capacity 1 to 128 (best at 128)",
                "batch 2 to 64 (best at 8), capacity 1 to 128 (best at 128)"
            ]
        );
    }

    #[test]
    fn long_caches_are_a_profile_of_their_own() {
        let profiles = choose(&[Symbol::Batch, Symbol::Capacity], Use::RunAhead, limits(2048));
        assert_eq!(profiles.len(), 4);
        assert_eq!(Profile::covering(&profiles, "coarse", &sizes(1, 512)), Ok(0));
        assert_eq!(Profile::covering(&profiles, "coarse", &sizes(1, 513)), Ok(2));
        assert_eq!(Profile::covering(&profiles, "coarse", &sizes(64, 2048)), Ok(3));
    }

    // The largest sizes set the memory of activations, so rows times meta-contexts stay bounded.
    #[test]
    fn rows_times_meta_contexts_stay_bounded() {
        for usage in [Use::Sequence, Use::RunAhead] {
            for profile in choose(&[Symbol::Batch, Symbol::Meta], usage, limits(128)) {
                let most = profile.sizes(&Dim::parse("batch*meta").expect("a dimension")).expect("bound")[2];
                assert!(most <= 1024, "{usage:?}: {profile}");
            }
        }
    }

    #[test]
    fn sizes_outside_are_explained() {
        let profiles = choose(&[Symbol::Batch, Symbol::Capacity], Use::RunAhead, limits(128));
        let error = Profile::covering(&profiles, "coarse", &sizes(65, 128)).expect_err("outside");
        assert_eq!(
            error.to_string(),
            "batch 65 is outside of what the engine of `coarse` was built for: batch 1, capacity 1 to 128 (best at \
             128); or batch 2 to 64 (best at 8), capacity 1 to 128 (best at 128)"
        );
    }

    #[test]
    fn a_given_profile_is_completed_from_the_chosen_ones() {
        let symbols = [Symbol::Batch, Symbol::Meta];
        let chosen = choose(&symbols, Use::RunAhead, limits(128));
        let given = Profile::parse("batch=1:2:4,capacity=64").expect("a profile");
        let completed = given.completed(&symbols, &chosen);
        assert_eq!(completed.to_string(), "batch 1 to 4 (best at 2), meta 1 to 64 (best at 8)");
    }

    #[test]
    fn texts_that_are_no_profile_are_refused() {
        for text in ["", "batch", "batch=0", "batch=2:1:3", "rows=1", "batch=1,batch=2", "batch=1:2"] {
            assert!(Profile::parse(text).is_err(), "{text}");
        }
        let range = Profile::parse("meta=3").expect("a profile").range(Symbol::Meta);
        assert_eq!(range, Range::new(3, 3, 3));
    }

    #[test]
    fn records_read_back() {
        let profile = Profile::parse("batch=1:2:4,capacity=64").expect("a profile");
        let text = serde_json::to_string(&profile).expect("JSON");
        assert_eq!(text, r#"{"batch":[1,2,4],"capacity":[64,64,64]}"#);
        assert_eq!(serde_json::from_str::<Profile>(&text).expect("reads"), profile);
        assert!(serde_json::from_str::<Profile>(r#"{"batch":[4,2,1]}"#).is_err());
    }
}
