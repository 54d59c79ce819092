//! Large networks, simulated. The quick sizes run with the tests; the full ones, and what they cost, by
//! `cargo bench -p karez-topology --bench scale`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod networks;
mod simulation;

use networks::{Size, edges, mesh};

#[test]
fn many_edges_are_told_within_a_second_and_a_change_concerns_only_whom_it_must() {
    let measured = edges(Size {
        interior: 5,
        edges: 200,
        degree: 4,
    });
    assert!(measured.all_reached, "{measured:#?}");
    assert!(measured.converged < 1_000, "{measured:#?}");
    let flap = measured.edge_flap;
    // Each of the other routers hears of the edge's going and coming; no edge does.
    assert!(flap.messages < 80, "{measured:#?}");
}

#[test]
fn a_mesh_agrees_within_a_second_and_so_after_a_link_has_died() {
    let measured = mesh(Size {
        interior: 40,
        edges: 0,
        degree: 6,
    });
    assert!(measured.all_reached, "{measured:#?}");
    assert!(measured.converged < 1_000, "{measured:#?}");
    assert!(measured.after_loss < 1_000, "{measured:#?}");
}
