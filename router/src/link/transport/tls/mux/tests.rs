//! Two cores on a virtual wire: whatever the order of events, what was sent arrives once, in order, in bounded memory.

use std::collections::{BTreeMap, VecDeque};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use super::super::frame::{HEADER, Output, PAYLOAD, ProtocolError};
use super::{End, LaneEvent, Limits, Mux, Read, Side, Write};

const LIMITS: Limits = Limits {
    stream_window: 4096,
    connection_window: 16_384,
    streams: 8,
};
const ROOM: usize = 8192;

/// Records that wait to be sent.
#[derive(Default)]
struct Wire {
    records: VecDeque<Vec<u8>>,
}

impl Wire {
    fn filled(&self) -> usize {
        self.records.iter().map(Vec::len).sum()
    }
}

impl Output for Wire {
    fn room(&self) -> usize {
        ROOM.saturating_sub(self.filled())
    }

    fn fit(&self) -> usize {
        let used = self.records.back().map_or(0, Vec::len);
        let left = (PAYLOAD + HEADER).saturating_sub(used + HEADER);
        if left < 64 { PAYLOAD } else { left }
    }

    fn reserve(&mut self, header: [u8; HEADER], payload: usize) -> &mut [u8] {
        let needed = HEADER + payload;
        if self
            .records
            .back()
            .is_none_or(|record| record.len() + needed > PAYLOAD + HEADER)
        {
            self.records.push_back(Vec::new());
        }
        let record = self.records.back_mut().expect("there is one now");
        record.extend_from_slice(&header);
        let start = record.len();
        record.resize(start + payload, 0);
        &mut record[start..]
    }
}

struct End2 {
    mux: Mux,
    out: Wire,
    streams: BTreeMap<u32, App>,
}

/// What an application does with a stream.
#[derive(Default)]
struct App {
    sent: u64,
    got: u64,
    finished: bool,
    reset: bool,
    stopped: bool,
    ended: Option<Read>,
    unwanted: bool,
}

/// The bytes of a stream's half: each says where it stands.
fn pattern(stream: u32, by: Side, from: u64, length: usize) -> Vec<u8> {
    let salt = u64::from(stream) * 31 + u64::from(by == Side::Dialler) * 7;
    (from..from + length as u64)
        .map(|at| ((at + salt) % 251) as u8)
        .collect()
}

fn other(side: Side) -> Side {
    match side {
        Side::Dialler => Side::Acceptor,
        Side::Acceptor => Side::Dialler,
    }
}

impl End2 {
    fn new(side: Side) -> Self {
        Self {
            mux: Mux::new(side, LIMITS, LIMITS),
            out: Wire::default(),
            streams: BTreeMap::new(),
        }
    }

    fn open(&mut self) {
        if let Poll::Ready(Ok(id)) = self.mux.poll_open(Waker::noop()) {
            self.streams.insert(id, App::default());
        }
    }

    fn accept(&mut self) {
        while let Poll::Ready(Ok(id)) = self.mux.poll_accept(Waker::noop()) {
            self.streams.insert(id, App::default());
        }
    }

    fn pick(&self, which: usize) -> Option<u32> {
        let ids: Vec<u32> = self.streams.keys().copied().collect();
        (!ids.is_empty()).then(|| ids[which % ids.len()])
    }

    fn write(&mut self, id: u32, length: usize) {
        let side = self.mux.side;
        let app = self.streams.get_mut(&id).expect("picked");
        if app.finished || app.reset {
            return;
        }
        let data = pattern(id, side, app.sent, length);
        let half = data.len() / 2;
        let mut chunks = [
            Bytes::copy_from_slice(&data[..half]),
            Bytes::copy_from_slice(&data[half..]),
        ];
        match self.mux.write(id, &mut chunks, &mut self.out, Waker::noop()) {
            Write::Wrote(wrote) => app.sent += wrote as u64,
            Write::Stopped(_) => app.unwanted = true,
            Write::Blocked => {}
            other => panic!("{other:?}"),
        }
    }

    fn read(&mut self, id: u32, chunks: usize) {
        let by = other(self.mux.side);
        let app = self.streams.get_mut(&id).expect("picked");
        let mut space = vec![Bytes::new(); chunks];
        match self.mux.read(id, &mut space, Instant::now(), Waker::noop()) {
            Read::Filled(filled) => {
                for chunk in &space[..filled] {
                    assert_eq!(chunk[..], pattern(id, by, app.got, chunk.len())[..]);
                    app.got += chunk.len() as u64;
                }
            }
            Read::Blocked => {}
            ended => app.ended = Some(ended),
        }
    }

    fn finish(&mut self, id: u32) {
        let app = self.streams.get_mut(&id).expect("picked");
        app.finished |= !app.reset;
        self.mux.finish_stream(id);
    }

    fn check_bounds(&self) {
        let mux = &self.mux;
        assert!(self.out.filled() <= ROOM);
        assert!(mux.buffered <= LIMITS.connection_window);
        let buffered: u32 = mux.streams.values().map(|stream| stream.buffered).sum();
        assert_eq!(mux.buffered, buffered);
        for stream in mux.streams.values() {
            let queued: usize = stream.queue.iter().map(Bytes::len).sum();
            assert_eq!(stream.buffered as usize, queued);
            assert!(stream.buffered + stream.outstanding <= stream.window);
        }
        assert!(mux.streams.len() <= 2 * LIMITS.streams as usize);
        assert!(mux.due.len() <= mux.streams.len());
    }
}

struct World {
    ends: [End2; 2],
}

impl World {
    fn new() -> Self {
        Self {
            ends: [End2::new(Side::Dialler), End2::new(Side::Acceptor)],
        }
    }

    /// Pumps one side and delivers one record. False when there was none.
    fn deliver(&mut self, from: usize) -> bool {
        let sender = &mut self.ends[from];
        sender.mux.pump(&mut sender.out);
        let Some(record) = sender.out.records.pop_front() else {
            return false;
        };
        sender.mux.room_made();
        let receiver = &mut self.ends[1 - from];
        let keep = |part: &[u8]| Bytes::copy_from_slice(part);
        receiver
            .mux
            .receive(&record, keep)
            .expect("both keep the protocol");
        receiver.accept();
        true
    }

    fn act(&mut self, (what, side, which, amount): Action) {
        let end = &mut self.ends[usize::from(side)];
        let picked = end.pick(which);
        match (what, picked) {
            (0, _) => end.open(),
            (1..=4, Some(id)) => end.write(id, amount),
            (5..=8, Some(id)) => end.read(id, amount % 7 + 1),
            (9, Some(id)) => end.finish(id),
            (10, Some(id)) if amount < 1500 => {
                let app = end.streams.get_mut(&id).expect("picked");
                app.reset |= !app.finished;
                end.mux.reset_stream(id, 7);
            }
            (11, Some(id)) if amount < 1500 => {
                end.streams.get_mut(&id).expect("picked").stopped = true;
                end.mux.stop_stream(id, 9);
            }
            (12, _) => end.mux.ping(which as u64),
            _ => drop(self.deliver(usize::from(side))),
        }
        for end in &self.ends {
            end.check_bounds();
        }
    }

    /// Lets everything come to its end: all halves are finished, everything is read.
    fn settle(&mut self) {
        for end in &mut self.ends {
            for id in end.streams.keys().copied().collect::<Vec<_>>() {
                end.finish(id);
            }
        }
        for _ in 0..10_000 {
            let mut moved = self.deliver(0) | self.deliver(1);
            for end in &mut self.ends {
                for id in end.streams.keys().copied().collect::<Vec<_>>() {
                    let before = end.streams[&id].got;
                    end.read(id, 4);
                    moved |= end.streams[&id].got != before;
                    if !end.streams[&id].finished && !end.streams[&id].reset {
                        end.finish(id);
                        moved = true;
                    }
                }
                end.check_bounds();
            }
            if !moved {
                return;
            }
        }
        panic!("no end in sight");
    }
}

type Action = (u8, bool, usize, usize);

fn actions() -> impl Strategy<Value = Vec<Action>> {
    proptest::collection::vec((0_u8..24, any::<bool>(), 0_usize..32, 1_usize..6000), 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_byte_arrives_once_in_order_and_nothing_is_left(actions in actions()) {
        let mut world = World::new();
        for action in actions {
            world.act(action);
        }
        world.settle();
        let [dialler, acceptor] = &world.ends;
        for (sender, receiver) in [(dialler, acceptor), (acceptor, dialler)] {
            for (id, app) in &sender.streams {
                let peer = &receiver.streams[id];
                prop_assert!(peer.got <= app.sent);
                if !app.reset && !peer.stopped {
                    prop_assert_eq!(peer.got, app.sent, "stream {}", id);
                    prop_assert_eq!(peer.ended.clone(), Some(Read::Finished));
                } else if app.reset && !peer.stopped {
                    prop_assert_eq!(peer.ended.clone(), Some(Read::Reset(7)));
                }
            }
        }
        for end in &mut world.ends {
            for id in std::mem::take(&mut end.streams).into_keys() {
                end.mux.drop_sender(id, 0);
                end.mux.drop_receiver(id, 0);
            }
        }
        while world.deliver(0) | world.deliver(1) {}
        for end in &world.ends {
            prop_assert_eq!(end.mux.open_streams(), 0);
            prop_assert_eq!(end.mux.buffered, 0);
        }
    }

    #[test]
    fn arbitrary_sequences_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        super::fuzz(&bytes);
    }

    #[test]
    fn foreign_frames_never_panic(
        records in proptest::collection::vec(proptest::collection::vec((1_u8..16, 0_u32..9, 0_u32..70_000), 0..8), 0..40),
        side in any::<bool>(),
    ) {
        let side = if side { Side::Dialler } else { Side::Acceptor };
        let mut mux = Mux::new(side, LIMITS, LIMITS);
        let mut out = Wire::default();
        for record in records {
            let mut bytes = Vec::new();
            for (kind, stream, number) in record {
                let payload: &[u8] = match kind {
                    1 | 4 | 11 => &[],
                    2 => &vec![1; number as usize % 300],
                    7 | 8 => &[0; 8],
                    _ => &number.to_be_bytes(),
                };
                let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
                bytes.extend_from_slice(&[kind, a, b, c]);
                bytes.extend_from_slice(&stream.to_be_bytes());
                bytes.extend_from_slice(payload);
            }
            let _ = mux.receive(&bytes, Bytes::copy_from_slice);
            if let Poll::Ready(Ok(id)) = mux.poll_open(Waker::noop()) {
                let _ = mux.write(id, &mut [Bytes::from_static(&[1; 100])], &mut out, Waker::noop());
            }
            mux.pump(&mut out);
            out.records.clear();
            let _ = mux.poll_lanes(Waker::noop());
        }
    }
}

#[test]
fn a_slow_reader_holds_back_its_own_stream_only() {
    let mut world = World::new();
    for _ in 0..2 {
        world.ends[0].open();
    }
    for _ in 0..40 {
        for id in [1, 3] {
            world.ends[0].write(id, 1000);
        }
        while world.deliver(0) {}
        world.ends[1].read(3, 8);
        while world.deliver(1) {}
    }
    assert_eq!(world.ends[0].streams[&1].sent, u64::from(LIMITS.stream_window));
    assert!(world.ends[1].streams[&3].got > 30_000);
}

#[test]
fn refuses_more_data_than_was_granted() {
    let mut mux = Mux::new(
        Side::Acceptor,
        LIMITS,
        Limits {
            stream_window: 1,
            ..LIMITS
        },
    );
    let mut cheat = Mux::new(
        Side::Dialler,
        LIMITS,
        Limits {
            stream_window: 10_000,
            ..LIMITS
        },
    );
    let mut out = Wire::default();
    let Poll::Ready(Ok(id)) = cheat.poll_open(Waker::noop()) else {
        panic!("there is room for a stream")
    };
    let mut chunks = [Bytes::from(vec![0; 5000])];
    assert_eq!(
        cheat.write(id, &mut chunks, &mut out, Waker::noop()),
        Write::Wrote(5000)
    );
    let record: Vec<u8> = out.records.into_iter().flatten().collect();
    assert_eq!(
        mux.receive(&record, Bytes::copy_from_slice),
        Err(ProtocolError::Overrun(id))
    );
}

#[test]
fn refuses_a_stream_out_of_order_and_more_than_granted() {
    let mut mux = Mux::new(Side::Acceptor, LIMITS, LIMITS);
    let open = |id: u32| [&[1, 0, 0, 0][..], &id.to_be_bytes()].concat();
    let take = |mux: &mut Mux, id| mux.receive(&open(id), Bytes::copy_from_slice);
    for id in 0..LIMITS.streams {
        assert_eq!(take(&mut mux, id * 2 + 1), Ok(()));
    }
    assert_eq!(take(&mut mux, 99), Err(ProtocolError::OutOfOrder(99)));
    assert_eq!(take(&mut mux, 17), Err(ProtocolError::TooManyStreams));
}

#[test]
fn a_close_comes_after_what_was_written_before() {
    let mut world = World::new();
    world.ends[0].open();
    world.ends[0].write(1, 100);
    world.ends[0].mux.close(3, "done");
    while world.deliver(0) {}
    let end = End::ByPeer {
        code: 3,
        reason: "done".to_owned(),
    };
    world.ends[1].read(1, 8);
    assert_eq!(world.ends[1].streams[&1].got, 100);
    assert_eq!(world.ends[1].mux.end(), Some(&end));
    world.ends[1].read(1, 8);
    assert_eq!(world.ends[1].streams[&1].ended, Some(Read::Over(end)));
}

#[test]
fn a_half_moves_to_a_lane_in_order_and_the_lane_comes_back() {
    let mut world = World::new();
    world.ends[0].open();
    world.ends[0].write(1, 10);
    while world.deliver(0) {}
    for end in &mut world.ends {
        end.mux.add_lane(5);
    }
    world.ends[1].write(1, 1000);
    world.ends[1].mux.want_lane(1);
    while world.deliver(1) {}
    let [dialler, acceptor] = &mut world.ends;
    let wanted = LaneEvent::Wanted { stream: 1 };
    assert_eq!(dialler.mux.poll_lanes(Waker::noop()), Poll::Ready(Some(wanted)));
    assert!(dialler.mux.assign_lane(1, 5));
    assert_eq!(acceptor.mux.lane_of(1), None);
    while world.deliver(0) {}
    let [_, acceptor] = &mut world.ends;
    assert_eq!(acceptor.mux.lane_of(1), Some(5));
    acceptor.mux.move_stream(1);
    let mut chunks = [Bytes::from_static(b"x")];
    assert_eq!(
        acceptor
            .mux
            .write(1, &mut chunks, &mut acceptor.out, Waker::noop()),
        Write::Moved
    );
    while world.deliver(1) {}
    let [dialler, acceptor] = &mut world.ends;
    dialler.read(1, 100);
    assert_eq!(dialler.streams[&1].got, 1000);
    dialler.read(1, 1);
    assert_eq!(dialler.streams[&1].ended, Some(Read::Moved(5)));
    acceptor.mux.lane_sent_end(1);
    dialler.mux.lane_got_end(1);
    dialler.finish(1);
    for end in [dialler, acceptor] {
        end.mux.drop_sender(1, 0);
        end.mux.drop_receiver(1, 0);
    }
    while world.deliver(0) | world.deliver(1) {}
    let [dialler, acceptor] = &mut world.ends;
    let retired = LaneEvent::Retired { lane: 5 };
    assert_eq!(acceptor.mux.poll_lanes(Waker::noop()), Poll::Ready(Some(retired)));
    assert_eq!(dialler.mux.poll_lanes(Waker::noop()), Poll::Ready(Some(retired)));
    acceptor.mux.return_lane(5);
    while world.deliver(1) {}
    let returned = LaneEvent::Returned { lane: 5 };
    assert_eq!(
        world.ends[0].mux.poll_lanes(Waker::noop()),
        Poll::Ready(Some(returned))
    );
}

#[test]
fn a_window_grows_for_a_reader_that_keeps_up_over_a_long_way_too() {
    const FAR: Duration = Duration::from_millis(300);
    let limits = Limits {
        connection_window: 1 << 20,
        ..LIMITS
    };
    for (round_trip, grows) in [(FAR, true), (Duration::ZERO, false)] {
        let mut writer = Mux::new(Side::Dialler, limits, limits);
        let mut reader = Mux::new(Side::Acceptor, limits, limits);
        reader.set_round_trip(round_trip);
        let (mut there, mut back) = (Wire::default(), Wire::default());
        assert_eq!(writer.poll_open(Waker::noop()), Poll::Ready(Ok(1)));
        let start = Instant::now();
        for step in 0..4 {
            writer.pump(&mut there);
            let mut chunks = [Bytes::from(vec![7; 4096])];
            writer.write(1, &mut chunks, &mut there, Waker::noop());
            for record in there.records.drain(..) {
                assert_eq!(reader.receive(&record, Bytes::copy_from_slice), Ok(()));
            }
            let mut chunks = [Bytes::new()];
            let now = start + FAR * step;
            while let Read::Filled(_) = reader.read(1, &mut chunks, now, Waker::noop()) {}
            reader.pump(&mut back);
            for record in back.records.drain(..) {
                assert_eq!(writer.receive(&record, Bytes::copy_from_slice), Ok(()));
            }
        }
        let window = reader.streams.get(&1).map(|stream| stream.window);
        assert_eq!(window > Some(limits.stream_window), grows, "{window:?}");
    }
}
