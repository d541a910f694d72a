//! Which requests a scheduler admitted together and into which rows, and the same admission once more into an empty decoder.
//! Both run the same kernels on the same sizes, so their tokens are the same to the last one in every type, unless something
//! else that was going on got into a row.

use super::requests::Asked;
use photonc::runtime::backend::BackendError;
use photonc::runtime::decoder::{Admission, Collected, Decoder, DecoderSetup};
use photonc::runtime::draws::Draws;
use photonc::runtime::launch::decode::RecordedDecoder;
use photonc::runtime::plan::Program;
use photonc::runtime::request::Keep;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// Requests that were admitted together: the row and the aligned prompt of each, in the order of their numbers.
pub struct Group {
    admission: usize,
    prompts: Vec<(usize, Vec<i64>)>,
}

/// A spread of all admissions of a run, by the number of the first request.
pub struct Groups {
    kept: BTreeMap<usize, Group>,
    at_most: usize,
    admissions: usize,
    requests: usize,
    /// One of so many admissions is kept.
    stride: usize,
}

impl Groups {
    /// Keeps from half of `at_most` to all of them, spread over the run.
    pub fn new(at_most: usize) -> Rc<RefCell<Self>> {
        let kept = BTreeMap::new();
        Rc::new(RefCell::new(Groups { kept, at_most, admissions: 0, requests: 0, stride: 1 }))
    }

    fn note(&mut self, admissions: &[Admission<'_>]) {
        if self.admissions.is_multiple_of(self.stride) {
            let prompts = admissions.iter().map(|one| (one.row, one.prompt.to_vec())).collect();
            self.kept.insert(self.requests, Group { admission: self.admissions, prompts });
        }
        self.admissions += 1;
        self.requests += admissions.len();
        if self.kept.len() > self.at_most {
            self.stride *= 2;
            let stride = self.stride;
            self.kept.retain(|_, group| group.admission.is_multiple_of(stride));
        }
    }

    /// Whether the admission of this request is kept.
    pub fn keep(&self, number: usize) -> bool {
        let group = self.kept.range(..=number).next_back();
        group.is_some_and(|(first, group)| number < first + group.prompts.len())
    }

    /// Admissions that are kept, with the number of their first request.
    pub fn kept(&self) -> impl Iterator<Item = (usize, &Group)> {
        self.kept.iter().map(|(first, group)| (*first, group))
    }
}

impl Group {
    /// The tokens of every request, by its number, where the group has an empty decoder for itself; nobody cancels.
    pub fn again(
        &self,
        first: usize,
        decoder: &mut RecordedDecoder<'_>,
        program: &Program,
    ) -> BTreeMap<usize, Vec<i64>> {
        let setup = decoder.setup();
        let asked: Vec<Asked> =
            (0..self.prompts.len()).map(|at| Asked::of(first + at, program, setup)).collect();
        let draws: Vec<Arc<Draws>> = asked.iter().map(|asked| Arc::new(Draws::of(asked.sampling))).collect();
        let together =
            self.prompts.iter().zip(asked.iter().zip(&draws)).map(|((row, prompt), (asked, draws))| {
                assert!(
                    asked.prompt.ends_with(prompt),
                    "requests are admitted in the order of their numbers"
                );
                Admission {
                    row: *row,
                    sequences: std::slice::from_ref(row),
                    prompt,
                    forced: &[],
                    only_first: false,
                    meta_contexts: asked.new_tokens.div_ceil(program.meta_tokens),
                    draws,
                    first_sample: 0,
                    keep: Keep::default(),
                }
            });
        decoder.admit(&together.collect::<Vec<_>>()).expect("fits");
        let burst = setup.run_ahead * program.meta_tokens;
        let mut tokens = vec![Vec::new(); asked.len()];
        for bursts in 1.. {
            let is_over = |asked: &Asked| bursts > asked.new_tokens.div_ceil(burst);
            if asked.iter().all(is_over) {
                break;
            }
            decoder.start().expect("starts");
            for (asked, (row, _)) in asked.iter().zip(&self.prompts) {
                if bursts == asked.new_tokens.div_ceil(burst) {
                    decoder.retire(*row);
                }
            }
            let ids = decoder.collect().expect("is done").ids;
            for ((tokens, asked), (row, _)) in tokens.iter_mut().zip(&asked).zip(&self.prompts) {
                if !is_over(asked) {
                    tokens.extend_from_slice(&ids[row * burst..(row + 1) * burst]);
                    tokens.truncate(asked.new_tokens);
                }
            }
        }
        (first..).zip(tokens).collect()
    }
}

/// A decoder whose admissions are noted.
pub struct Watched<'d, 'm> {
    pub decoder: &'d mut RecordedDecoder<'m>,
    pub groups: Rc<RefCell<Groups>>,
}

impl Decoder for Watched<'_, '_> {
    fn setup(&self) -> DecoderSetup {
        self.decoder.setup()
    }

    fn depth(&self) -> usize {
        self.decoder.depth()
    }

    fn draws_on_host(&self, draws: &Draws) -> Result<bool, BackendError> {
        self.decoder.draws_on_host(draws)
    }

    fn admit(&mut self, admissions: &[Admission<'_>]) -> Result<(), BackendError> {
        self.groups.borrow_mut().note(admissions);
        self.decoder.admit(admissions)
    }

    fn retire(&mut self, row: usize) {
        self.decoder.retire(row);
    }

    fn start(&mut self) -> Result<usize, BackendError> {
        self.decoder.start()
    }

    fn pending(&self) -> usize {
        self.decoder.pending()
    }

    fn collect(&mut self) -> Result<Collected<'_>, BackendError> {
        self.decoder.collect()
    }

    fn score(&mut self, tokens: &[i64]) -> Result<Vec<f64>, BackendError> {
        self.decoder.score(tokens)
    }
}
