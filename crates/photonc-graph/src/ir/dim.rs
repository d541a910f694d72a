//! Symbolic dimensions: polynomials with non-negative integer coefficients in named symbols. Owns their arithmetic,
//! canonical form and text; refuses subtraction, which could leave the natural numbers.

use std::collections::BTreeMap;
use std::fmt;

/// A size known only when a graph is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Symbol {
    /// Independent rows: sequences, samples or windows.
    Batch,
    /// Meta-contexts: of a prompt, or of a run-ahead.
    Meta,
    /// Slots of a KV cache, counted in meta-contexts.
    Capacity,
}

impl Symbol {
    /// Every symbol.
    pub const ALL: [Symbol; 3] = [Symbol::Batch, Symbol::Meta, Symbol::Capacity];

    /// Name in graph text and ONNX `dim_param`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Symbol::Batch => "batch",
            Symbol::Meta => "meta",
            Symbol::Capacity => "capacity",
        }
    }

    /// The symbol of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|symbol| symbol.name() == name)
    }
}

/// A product of symbols, sorted, repeated for powers.
type Monomial = Vec<Symbol>;

/// A dimension: a sum of products of symbols with positive coefficients; the empty sum is 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Dim {
    terms: BTreeMap<Monomial, u64>,
}

impl From<usize> for Dim {
    fn from(size: usize) -> Self {
        let mut terms = BTreeMap::new();
        if size > 0 {
            terms.insert(Monomial::new(), size as u64);
        }
        Dim { terms }
    }
}

impl From<Symbol> for Dim {
    fn from(symbol: Symbol) -> Self {
        Dim { terms: BTreeMap::from([(vec![symbol], 1)]) }
    }
}

impl Dim {
    /// The size, if no symbol occurs.
    #[must_use]
    pub fn as_const(&self) -> Option<usize> {
        match self.terms.len() {
            0 => Some(0),
            1 => self.terms.get(&Monomial::new()).and_then(|size| usize::try_from(*size).ok()),
            _ => None,
        }
    }

    /// Sum of two dimensions.
    #[must_use]
    pub fn plus(&self, other: &Dim) -> Dim {
        let mut terms = self.terms.clone();
        for (monomial, coefficient) in &other.terms {
            let entry = terms.entry(monomial.clone()).or_insert(0);
            *entry = entry.saturating_add(*coefficient);
        }
        Dim { terms }
    }

    /// Product of two dimensions.
    #[must_use]
    pub fn times(&self, other: &Dim) -> Dim {
        let mut terms: BTreeMap<Monomial, u64> = BTreeMap::new();
        for (left, a) in &self.terms {
            for (right, b) in &other.terms {
                let mut monomial = left.clone();
                monomial.extend_from_slice(right);
                monomial.sort_unstable();
                let entry = terms.entry(monomial).or_insert(0);
                *entry = entry.saturating_add(a.saturating_mul(*b));
            }
        }
        Dim { terms }
    }

    /// Whether `symbol` occurs.
    #[must_use]
    pub fn contains(&self, symbol: Symbol) -> bool {
        self.terms.keys().any(|monomial| monomial.contains(&symbol))
    }

    /// `self / symbol`, if every term has `symbol` exactly once.
    #[must_use]
    pub fn without_factor(&self, symbol: Symbol) -> Option<Dim> {
        let mut terms = BTreeMap::new();
        for (monomial, coefficient) in &self.terms {
            if monomial.iter().filter(|s| **s == symbol).count() != 1 {
                return None;
            }
            let rest: Monomial = monomial.iter().copied().filter(|s| *s != symbol).collect();
            terms.insert(rest, *coefficient);
        }
        if terms.is_empty() { None } else { Some(Dim { terms }) }
    }

    /// `self / divisor` for a divisor of one term, if exact.
    #[must_use]
    pub fn divided_by(&self, divisor: &Dim) -> Option<Dim> {
        if divisor.terms.len() != 1 {
            return (self == divisor).then(|| Dim::from(1));
        }
        let (factors, scale) = divisor.terms.iter().next()?;
        let mut terms = BTreeMap::new();
        for (monomial, coefficient) in &self.terms {
            let mut rest = monomial.clone();
            for factor in factors {
                let at = rest.iter().position(|s| s == factor)?;
                rest.remove(at);
            }
            if coefficient % scale != 0 {
                return None;
            }
            terms.insert(rest, coefficient / scale);
        }
        Some(Dim { terms })
    }

    /// Replaces every occurrence of `symbol` by `value`.
    #[must_use]
    pub fn substitute(&self, symbol: Symbol, value: &Dim) -> Dim {
        let mut sum = Dim::default();
        for (monomial, coefficient) in &self.terms {
            let mut product = Dim { terms: BTreeMap::from([(Monomial::new(), *coefficient)]) };
            for factor in monomial {
                let factor = if *factor == symbol { value.clone() } else { Dim::from(*factor) };
                product = product.times(&factor);
            }
            sum = sum.plus(&product);
        }
        sum
    }

    /// The size under `bindings`; `None` if a symbol is unbound or the size does not fit.
    #[must_use]
    pub fn eval(&self, bindings: &Bindings) -> Option<usize> {
        let mut sum = 0usize;
        for (monomial, coefficient) in &self.terms {
            let mut product = usize::try_from(*coefficient).ok()?;
            for symbol in monomial {
                product = product.checked_mul(bindings.get(*symbol)?)?;
            }
            sum = sum.checked_add(product)?;
        }
        Some(sum)
    }

    /// The value of the one symbol that makes `self` equal `size`, for a dimension `c * symbol` or
    /// `c * symbol * bound symbols`.
    #[must_use]
    pub fn solve(&self, size: usize, bindings: &Bindings) -> Option<(Symbol, usize)> {
        if self.terms.len() != 1 {
            return None;
        }
        let (monomial, coefficient) = self.terms.iter().next()?;
        let mut known = usize::try_from(*coefficient).ok()?;
        let mut unknown = None;
        for symbol in monomial {
            match bindings.get(*symbol) {
                Some(value) => known = known.checked_mul(value)?,
                None if unknown.is_none() => unknown = Some(*symbol),
                None => return None,
            }
        }
        let symbol = unknown?;
        (known > 0 && size.is_multiple_of(known)).then(|| (symbol, size / known))
    }

    /// Parses the text form, e.g. `batch*meta*4 + 2`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Dim> {
        let mut sum = Dim::default();
        for term in text.split('+') {
            let mut product = Dim::from(1);
            for factor in term.split('*') {
                let factor = factor.trim();
                let value = match Symbol::from_name(factor) {
                    Some(symbol) => Dim::from(symbol),
                    None => Dim::from(factor.parse::<usize>().ok()?),
                };
                product = product.times(&value);
            }
            sum = sum.plus(&product);
        }
        Some(sum)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.terms.is_empty() {
            return f.write_str("0");
        }
        // Longest products first: `batch*meta + 1` reads better than `1 + batch*meta`.
        let mut terms: Vec<(&Monomial, &u64)> = self.terms.iter().collect();
        terms.sort_by_key(|(monomial, _)| std::cmp::Reverse(monomial.len()));
        for (index, (monomial, coefficient)) in terms.into_iter().enumerate() {
            if index > 0 {
                f.write_str(" + ")?;
            }
            let mut first = true;
            if *coefficient != 1 || monomial.is_empty() {
                write!(f, "{coefficient}")?;
                first = false;
            }
            for symbol in monomial {
                if !first {
                    f.write_str("*")?;
                }
                f.write_str(symbol.name())?;
                first = false;
            }
        }
        Ok(())
    }
}

/// Values of symbols in one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bindings {
    values: [Option<usize>; Symbol::ALL.len()],
}

impl Bindings {
    /// The value bound to `symbol`.
    #[must_use]
    pub fn get(&self, symbol: Symbol) -> Option<usize> {
        self.values[symbol as usize]
    }

    /// Binds `symbol`; returns the value it had.
    pub fn bind(&mut self, symbol: Symbol, value: usize) -> Option<usize> {
        self.values[symbol as usize].replace(value)
    }
}

#[cfg(test)]
mod tests {
    use super::{Bindings, Dim, Symbol};

    // The meta axis folds into the batch, so products of symbols must cancel exactly.
    #[test]
    fn products_divide_exactly() {
        let dim = Dim::from(4).times(&Symbol::Batch.into()).times(&Symbol::Meta.into());
        assert_eq!(dim.to_string(), "4*batch*meta");
        assert_eq!(dim.divided_by(&Dim::from(2)).map(|d| d.to_string()).as_deref(), Some("2*batch*meta"));
        assert_eq!(dim.divided_by(&Dim::from(3)), None);
        assert_eq!(dim.without_factor(Symbol::Batch).map(|d| d.to_string()).as_deref(), Some("4*meta"));
    }

    #[test]
    fn text_round_trips() {
        for text in ["0", "7", "batch", "4*batch*meta", "2*capacity + 1", "batch*batch + 3*meta + 2"] {
            let dim = Dim::parse(text).expect("parses");
            assert_eq!(dim.to_string(), text);
        }
        assert_eq!(Dim::parse("rows"), None);
    }

    #[test]
    fn solving_inverts_evaluation() {
        let dim = Dim::parse("4*batch*meta").expect("parses");
        let mut bindings = Bindings::default();
        bindings.bind(Symbol::Batch, 3);
        assert_eq!(dim.solve(24, &bindings), Some((Symbol::Meta, 2)));
        assert_eq!(dim.solve(23, &bindings), None);
        bindings.bind(Symbol::Meta, 2);
        assert_eq!(dim.eval(&bindings), Some(24));
    }
}
