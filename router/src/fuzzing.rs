//! Entrances for `fuzz/`: each takes bytes as a peer may send them. What is accepted must also come back from what we
//! would write.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::wire::{
    Answer, Body, read_answer, read_control, read_open, said, write_answer, write_control, write_open,
};

/// Control messages, one after the other.
pub fn control(mut bytes: &[u8]) {
    while let Ok(Some(message)) = now(read_control(&mut bytes)) {
        match &message.body {
            Some(Body::Hello(hello)) => drop(hello.peer()),
            Some(body) => drop(said(body)),
            None => {}
        }
        let mut written = Vec::new();
        if now(write_control(&mut written, &message)).is_ok() {
            let back = now(read_control(&mut written.as_slice()));
            assert!(matches!(back, Ok(Some(back)) if back == message));
        }
    }
}

/// Records of frames over TLS, with what a router does in between; nor may a greeting or a record's header harm.
pub fn frames(bytes: &[u8]) {
    crate::link::fuzz_frames(bytes);
}

/// The header of a carried stream.
pub fn open(mut bytes: &[u8]) {
    if let Ok(open) = now(read_open(&mut bytes)) {
        drop(open.address());
        let mut written = Vec::new();
        if now(write_open(&mut written, &open)).is_ok() {
            let back = now(read_open(&mut written.as_slice()));
            assert!(matches!(back, Ok(back) if back == open));
        }
    }
}

/// The answer to it, and that nothing behind it is consumed.
pub fn answer(bytes: &[u8]) {
    let mut rest = bytes;
    if let Ok(answer) = now(read_answer(&mut rest)) {
        let mut written = Vec::new();
        if now(write_answer(&mut written, &answer)).is_ok() && !matches!(answer, Answer::Refused(_)) {
            let back = now(read_answer(&mut written.as_slice()));
            assert!(matches!(back, Ok(back) if back == answer));
        }
    }
}

/// The result of what never waits: bytes in memory are there.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => unreachable!("reading and writing memory does not wait"),
    }
}
