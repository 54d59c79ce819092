//! The collector beside programs that others wrote: what they send, receive, scrape and store, compared item by item.

mod chain;
mod data;
mod jaeger;
mod prometheus;
mod senders;

use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    [
        chain::trials(),
        senders::trials(),
        prometheus::trials(),
        jaeger::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
