//! Entrances for `fuzz/`: each takes bytes as a peer may send them. What is accepted must also come back from what we
//! would write.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use karez_topology::{Event, Filter, LinkId, LinkKind, Local, Site, Topology, epoch};

use crate::trace::TraceParent;
use crate::wire::{
    Answer, Body, read_answer, read_control, read_open, said, write_answer, write_control, write_open,
};

/// Control messages, one after the other.
pub fn control(mut bytes: &[u8]) {
    while let Ok(Some(message)) = now_or_never(read_control(&mut bytes)) {
        match &message.body {
            Some(Body::Hello(hello)) => drop((hello.peer(), hello.router(), hello.version())),
            Some(Body::Renewal(renewal)) => drop(renewal.checked()),
            Some(body) => drop(said(body)),
            None => {}
        }
        let mut written = Vec::new();
        if now_or_never(write_control(&mut written, &message)).is_ok() {
            let back = now_or_never(read_control(&mut written.as_slice()));
            assert!(matches!(back, Ok(Some(back)) if back == message));
        }
    }
}

/// What peers of all three kinds tell of the network, one after the other, while time passes. All state stays bounded, and
/// what is told further comes to an end.
pub fn network(mut bytes: &[u8]) {
    let mut topology = Topology::new(epoch(1, 0), 0);
    let router = |name: &str| Local {
        router: name.into(),
        site: Site {
            id: name.to_owned(),
            ..Site::default()
        },
        ..Local::default()
    };
    topology.handle(Event::Local(router("here")), 0);
    let kinds = [
        LinkKind::Interior,
        LinkKind::Attached,
        LinkKind::Uplink,
        LinkKind::Interior,
    ];
    for (number, kind) in (1..).zip(kinds) {
        let peer = router(&format!("peer-{number}"));
        let up = Event::LinkUp {
            link: LinkId(number),
            kind,
            cost: 1,
            outgoing: kind == LinkKind::Uplink,
            router: peer.router,
            peer: peer.site,
            filter: Filter::default(),
        };
        topology.handle(up, 0);
    }
    let mut now = 0;
    while let Some((first, rest)) = bytes.split_first() {
        bytes = rest;
        let link = LinkId(u64::from(first % 4) + 1);
        now += u64::from(first / 4) * 50;
        let Ok(Some(message)) = now_or_never(read_control(&mut bytes)) else {
            return;
        };
        if let Some(Ok(Some(message))) = message.body.as_ref().map(said) {
            topology.handle(Event::Heard { link, message }, now);
        }
        let outcome = topology.tick(now);
        for link in outcome.wake {
            let told = std::iter::from_fn(|| topology.next(link)).count();
            assert!(told < 1_000, "no end of telling");
        }
        drop(topology.sites());
    }
}

/// Records of frames over TLS, with what a router does in between; nor may a greeting or a record's header harm.
pub fn frames(bytes: &[u8]) {
    crate::link::fuzz_frames(bytes);
}

/// The header of a carried stream.
pub fn open(mut bytes: &[u8]) {
    if let Ok(open) = now_or_never(read_open(&mut bytes)) {
        drop(open.address());
        let mut written = Vec::new();
        if now_or_never(write_open(&mut written, &open)).is_ok() {
            let back = now_or_never(read_open(&mut written.as_slice()));
            assert!(matches!(back, Ok(back) if back == open));
        }
    }
}

/// The answer to it, and that nothing behind it is consumed.
pub fn answer(bytes: &[u8]) {
    let mut rest = bytes;
    if let Ok(answer) = now_or_never(read_answer(&mut rest)) {
        let mut written = Vec::new();
        if now_or_never(write_answer(&mut written, &answer)).is_ok() && !matches!(answer, Answer::Refused(_))
        {
            let back = now_or_never(read_answer(&mut written.as_slice()));
            assert!(matches!(back, Ok(back) if back == answer));
        }
    }
}

/// A session's frames on a stream, in pieces of any size, and a datagram beside it.
pub fn datagrams(bytes: &[u8]) {
    crate::udp::fuzz(bytes);
}

/// What a caller says its trace is.
pub fn trace(text: &str) {
    if let Some(parent) = TraceParent::parse(text) {
        assert_eq!(TraceParent::parse(&parent.to_string()), Some(parent));
        let _ = parent.child();
    }
}

/// A proxy's URL, the hosts that are reached without it, and what it answers.
pub fn proxy(url: &str, except: &str, host: &str, port: u16, answer: &[u8]) {
    now_or_never(crate::link::fuzz_proxy(url, except, host, port, answer));
}

/// The result of what never waits: bytes in memory are there.
fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => unreachable!("reading and writing memory does not wait"),
    }
}
