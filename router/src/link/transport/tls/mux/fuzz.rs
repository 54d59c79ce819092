//! Sequences of foreign records and of what a router does meanwhile, made of arbitrary bytes.

use std::task::{Poll, Waker};
use std::time::Instant;

use bytes::Bytes;

use super::super::frame::{HEADER, Output};
use super::{Limits, Mux, Side};

const LIMITS: Limits = Limits {
    stream_window: 512,
    connection_window: 2048,
    streams: 4,
};

/// Takes everything and keeps nothing.
#[derive(Default)]
struct Nowhere(Vec<u8>);

impl Output for Nowhere {
    fn room(&self) -> usize {
        4096
    }

    fn fit(&self) -> usize {
        256
    }

    fn reserve(&mut self, _: [u8; HEADER], payload: usize) -> &mut [u8] {
        self.0.resize(payload, 0);
        &mut self.0
    }
}

/// The first byte is the side; then come a record's length, its bytes, and what is done after it.
pub(in super::super) fn fuzz(bytes: &[u8]) {
    let Some((side, mut rest)) = bytes.split_first() else {
        return;
    };
    let side = if side % 2 == 0 {
        Side::Dialler
    } else {
        Side::Acceptor
    };
    let mut mux = Mux::new(side, LIMITS, LIMITS);
    mux.add_lane(1);
    let mut out = Nowhere::default();
    while let Some(([length, action], tail)) = rest.split_first_chunk() {
        let (record, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        if mux.receive(record, Bytes::copy_from_slice).is_err() {
            mux.close(3, "the peer broke the protocol");
        }
        act(&mut mux, &mut out, *action);
        assert!(mux.buffered <= LIMITS.connection_window, "memory is bounded");
        assert!(mux.streams.len() <= 64, "streams are bounded");
    }
}

fn act(mux: &mut Mux, out: &mut Nowhere, action: u8) {
    let (waker, id) = (Waker::noop(), u32::from(action >> 4));
    match action % 16 {
        0 => mux.pump(out),
        1 if mux.streams.len() < 32 => drop(mux.poll_open(waker)),
        2 => drop(mux.poll_accept(waker)),
        3 => drop(mux.write(id, &mut [Bytes::from_static(&[1; 300])], out, waker)),
        4 => drop(mux.read(id, &mut [Bytes::new(), Bytes::new()], Instant::now(), waker)),
        5 => drop(mux.finish_stream(id)),
        6 => mux.reset_stream(id, 1),
        7 => mux.stop_stream(id, 1),
        8 => mux.drop_sender(id, 1),
        9 => mux.drop_receiver(id, 1),
        10 => mux.want_lane(id),
        11 => drop(mux.assign_lane(id, 1)),
        12 => mux.move_stream(id),
        13 => mux.lane_got_end(id),
        14 => mux.lane_sent_end(id),
        _ => while let Poll::Ready(Some(_)) = mux.poll_lanes(waker) {},
    }
    drop(mux.take_wakes());
}
