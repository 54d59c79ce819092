//! Bad networks: two linked routers in network namespaces with a relay of our own between them that loses, delays,
//! reorders, duplicates and throttles packets, or takes the network away.
//!
//! ```text
//!  namespace near                                  namespace far
//!  probe ──▶ edge router ── tun ── relay.rs ── tun ── interior router ──▶ echo
//! ```
//!
//! What is carried must come back byte for byte, and the link must be back once the network is. How soon and how fast is
//! printed as a table at the end; `docs/benchmarks.md` has one. `KAREZ_NETWORK=full` runs the long set: minutes of
//! outage, megabytes. Where no namespaces can be made everything is counted as ignored.

mod echo;
#[path = "../pair.rs"]
mod pair;
mod relay;
mod scenarios;
mod table;
mod traffic;
mod tun;
mod world;

use libtest_mimic::Arguments;

fn main() {
    if std::env::args().nth(1).as_deref() == Some(echo::COMMAND) {
        return echo::serve();
    }
    let mut arguments = Arguments::from_args();
    let outside = if world::inside() {
        None
    } else {
        // On success this does not come back: the program runs again, inside.
        Some(world::enter())
    };
    // They wait far more than they work.
    arguments.test_threads.get_or_insert(6);
    let conclusion = libtest_mimic::run(&arguments, scenarios::trials(outside));
    table::print();
    conclusion.exit();
}
