//! Series that are one point together: a histogram's buckets, sum and count, a summary's quantiles.

/// What was heard of such a point. Kept from scrape to scrape, so that its memory is used again.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) metric: u32,
    /// Of its attributes, with which it is found.
    pub(super) identity: u64,
    /// Encoded.
    pub(super) attributes: Box<[u8]>,
    /// The scrape in which it was seen last.
    pub(super) scrape: u32,
    /// The scrape in which it was seen first.
    pub(super) born: u32,
    pub(super) tracked: bool,
    pub(super) time: i64,
    pub(super) created: Option<i64>,
    pub(super) count: Option<f64>,
    pub(super) sum: Option<f64>,
    pub(super) buckets: Vec<(f64, f64)>,
    pub(super) quantiles: Vec<(f64, f64)>,
    pub(super) exemplars: Vec<u8>,
}

impl Group {
    /// A series of it is heard; the first of a scrape clears what was before.
    pub(super) fn seen(&mut self, scrape: u32, time: i64, tracked: bool, created: Option<i64>) {
        if self.scrape != scrape {
            self.scrape = scrape;
            self.created = None;
            self.count = None;
            self.sum = None;
            self.buckets.clear();
            self.quantiles.clear();
            self.exemplars.clear();
        }
        self.time = time;
        self.tracked = tracked;
        self.created = created.or(self.created);
    }

    pub(super) fn bucket(&mut self, bound: f64, cumulative: f64) {
        self.buckets.push((bound, cumulative));
    }
}
