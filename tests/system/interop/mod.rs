//! The collector beside programs that others wrote: what they send, receive, scrape and store, compared item by item.

mod chain;
mod data;
mod prometheus;
mod senders;

use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    [chain::trials(), senders::trials(), prometheus::trials()]
        .into_iter()
        .flatten()
        .collect()
}
