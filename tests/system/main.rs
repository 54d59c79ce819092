//! Whole-system tests: they drive the built `karez` binary from outside, as a user does, with real peers.
//!
//! Each test has a folder of its own (`Stage`), starts sites whose state lies there, waits for conditions with
//! deadlines, and ends every process that it started. What a test needs beyond the repository (the acceptance
//! input, programs that `tests/peers/build` makes) it names as [`Need`]s: where one is missing the test is counted
//! as ignored with the reason, or fails if `KAREZ_REQUIRE_PEERS=1` (as in CI).
//!
//! `cargo test -p karez --test system -- PART_OF_A_NAME` runs some of them.

mod acceptance;
mod allocator;
mod blog;
mod change;
mod datagrams;
mod demo;
mod divided;
mod found;
mod granted;
mod input;
mod interop;
mod kubectl;
mod nothing_lost;
mod patterns;
mod real_cluster;
mod support;
mod survival;
mod telemetry;
mod trust;

use support::stage::trial;

fn main() {
    let arguments = libtest_mimic::Arguments::from_args();
    let trials = [
        demo::trials(),
        acceptance::trials(),
        telemetry::trials(),
        datagrams::trials(),
        kubectl::trials(),
        survival::trials(),
        trust::trials(),
        input::trials(),
        change::trials(),
        real_cluster::trials(),
        nothing_lost::trials(),
        interop::trials(),
        patterns::trials(),
        blog::trials(),
        found::trials(),
        granted::trials(),
        divided::trials(),
        allocator::trials(),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit();
}
