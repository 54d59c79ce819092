//! Two ends over loopback, with real sockets and real handshakes.

use std::future::Future;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use karez_identity::{Authority, LINK_SERVER_NAME, Subject, TlsMaterial, Usage};
use karez_router_config::Congestion;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::link::transport::{Connection, Party, ReadError, ReadExactError, Settings, WriteError};

const DAY: Duration = Duration::from_secs(86_400);
const SETTINGS: Settings = Settings {
    congestion: Congestion::Auto,
    streams: 1024,
};
/// Nothing here takes nearly so long.
const DEADLINE: Duration = Duration::from_secs(60);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(DEADLINE, what).await.expect("it takes a moment")
}

struct Site(Authority);

impl Site {
    fn new() -> Self {
        Self(Authority::new("site", jiff::Timestamp::now(), DAY).expect("an authority"))
    }

    fn material(&self, name: &str, usage: Usage) -> TlsMaterial {
        let subject = Subject {
            common_name: name.to_owned(),
            dns_names: vec![name.to_owned()],
            usage,
            lifetime: DAY,
            uri: None,
        };
        let credential = self
            .0
            .issue(&subject, jiff::Timestamp::now())
            .expect("a certificate");
        TlsMaterial::from(&credential)
    }
}

struct Pair {
    here: Connection,
    there: Connection,
    listener: TlsListener,
}

async fn listen(site: &Site) -> TlsListener {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    TlsListener::new(socket, &site.material(LINK_SERVER_NAME, Usage::Server), SETTINGS).expect("usable")
}

async fn pair() -> Pair {
    let site = Site::new();
    let listener = listen(&site).await;
    let address = listener.local_address().expect("bound");
    let redial: Redial = Arc::new(move || Box::pin(TcpStream::connect(address)));
    let dialler = TlsDialler::new(&site.material("edge", Usage::Client), None, SETTINGS).expect("usable");
    let dial = async {
        let socket = TcpStream::connect(address).await.expect("it listens");
        dialler
            .connect(socket, Some(redial))
            .await
            .expect("they know each other")
    };
    let accept = async {
        let accepted = listener.accept().await.handshake().await;
        accepted.expect("they know each other").expect("it is a link")
    };
    let (here, there) = soon(async { tokio::join!(dial, accept) }).await;
    Pair {
        here,
        there,
        listener,
    }
}

/// Takes in lanes, as the accepting side does.
fn take_lanes(listener: TlsListener) {
    tokio::spawn(async move {
        loop {
            let bound = listener
                .accept()
                .await
                .handshake()
                .await
                .expect("they know each other");
            assert!(bound.is_none());
        }
    });
}

/// Sends back what comes on every stream.
fn echo(connection: Connection) {
    tokio::spawn(async move {
        while let Ok(stream) = connection.accept().await {
            tokio::spawn(echo_stream(stream));
        }
    });
}

async fn echo_stream(mut stream: Stream) {
    let mut chunks: [Bytes; 8] = Default::default();
    while let Ok(Some(filled)) = stream.receive.read_chunks(&mut chunks).await {
        if stream.send.write_chunks(&mut chunks[..filled]).await.is_err() {
            return;
        }
    }
    let _ = stream.send.finish();
}

async fn read_all(receive: &mut RecvStream) -> Result<Vec<u8>, ReadError> {
    let mut all = Vec::new();
    let mut chunks: [Bytes; 8] = Default::default();
    while let Some(filled) = receive.read_chunks(&mut chunks).await? {
        chunks[..filled]
            .iter()
            .for_each(|chunk| all.extend_from_slice(chunk));
    }
    Ok(all)
}

/// Bytes that say where they stand; made once, since tests are slow at making them.
fn pattern(from: usize, length: usize) -> Bytes {
    const PERIOD: usize = 1_000_003;
    static BYTES: LazyLock<Bytes> = LazyLock::new(|| {
        let at = |at: usize| ((at % PERIOD).wrapping_mul(2_654_435_761) >> 7) as u8;
        (0..3 * PERIOD).map(at).collect::<Vec<u8>>().into()
    });
    let start = from % PERIOD;
    BYTES.slice(start..start + length)
}

/// Sends so much and ends.
async fn send_pattern(send: &mut SendStream, total: usize) {
    let mut sent = 0;
    while sent < total {
        let length = (total - sent).min(100_000);
        send.write_chunks(&mut [pattern(sent, length)])
            .await
            .expect("wanted");
        sent += length;
    }
    send.finish().expect("not ended before");
}

/// Checks that exactly so much comes.
async fn check_pattern(receive: &mut RecvStream, total: usize) {
    let mut got = 0;
    let mut chunks: [Bytes; 16] = std::array::from_fn(|_| Bytes::new());
    while let Some(filled) = receive.read_chunks(&mut chunks).await.expect("whole") {
        for chunk in &chunks[..filled] {
            assert!(*chunk == pattern(got, chunk.len()), "wrong bytes after {got}");
            got += chunk.len();
        }
    }
    assert_eq!(got, total);
}

fn lanes(connection: &Connection) -> usize {
    match connection {
        Connection::Tls(connection) => connection.0.shared.with(|state| state.lanes.len()),
        Connection::Quic(_) => 0,
    }
}

fn streams(connection: &Connection) -> usize {
    match connection {
        Connection::Tls(connection) => connection.0.shared.with(|state| state.mux.open_streams()),
        Connection::Quic(_) => 0,
    }
}

async fn until(what: impl Fn() -> bool) {
    soon(async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn echoes_and_knows_its_peer() {
    let Pair { here, there, .. } = pair().await;
    echo(there);
    let mut stream = soon(here.open()).await.expect("open");
    stream.send.write_all(b"hello").await.expect("wanted");
    let mut answer = [0; 5];
    soon(stream.receive.read_exact(&mut answer))
        .await
        .expect("an echo");
    assert_eq!(&answer, b"hello");
    stream.send.finish().expect("not ended before");
    let more = soon(stream.receive.read_exact(&mut answer)).await;
    assert_eq!(more, Err(ReadExactError::Ended(0)));
    assert!(here.peer_certificate().is_some());
    assert!(here.statistics().bytes_received > 0);
    assert_eq!(here.max_datagram_size(), None);
}

#[tokio::test]
async fn each_half_ends_on_its_own() {
    let Pair { here, there, .. } = pair().await;
    let mut near = here.open().await.expect("open");
    near.send.write_all(b"question").await.expect("wanted");
    near.send.finish().expect("not ended before");
    let mut far = soon(there.accept()).await.expect("opened");
    assert_eq!(soon(read_all(&mut far.receive)).await, Ok(b"question".to_vec()));
    far.send
        .write_all(b"a long answer")
        .await
        .expect("the other half is open");
    far.send.finish().expect("not ended before");
    assert_eq!(
        soon(read_all(&mut near.receive)).await,
        Ok(b"a long answer".to_vec())
    );
    drop((near, far));
    until(|| streams(&here) + streams(&there) == 0).await;
}

#[tokio::test]
async fn a_reset_and_a_stop_are_told_with_their_codes() {
    let Pair { here, there, .. } = pair().await;
    let mut near = here.open().await.expect("open");
    near.send.write_all(b"x").await.expect("wanted");
    let mut far = soon(there.accept()).await.expect("opened");
    far.receive.stop(7);
    soon(near.send.stopped()).await;
    assert_eq!(near.send.write_all(b"y").await, Err(WriteError::Stopped(7)));
    far.send.reset(9);
    assert_eq!(soon(read_all(&mut near.receive)).await, Err(ReadError::Reset(9)));
    drop((near, far));
    until(|| streams(&here) + streams(&there) == 0).await;
}

#[tokio::test]
async fn what_is_dropped_unfinished_is_reset() {
    let Pair { here, there, .. } = pair().await;
    let mut near = here.open().await.expect("open");
    near.send.write_all(b"x").await.expect("wanted");
    let mut far = soon(there.accept()).await.expect("opened");
    drop(near);
    soon(far.send.stopped()).await;
    assert!(matches!(
        soon(read_all(&mut far.receive)).await,
        Err(ReadError::Reset(_))
    ));
}

#[tokio::test]
async fn a_thousand_streams_at_once() {
    let Pair { here, there, .. } = pair().await;
    echo(there.clone());
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..1000_usize {
        let here = here.clone();
        tasks.spawn(async move {
            let Stream {
                mut send,
                mut receive,
            } = here.open().await.expect("open");
            let length = number * 17 % 9000;
            let (_, got) = tokio::join!(send_pattern(&mut send, length), read_all(&mut receive));
            assert!(got.expect("whole") == pattern(0, length));
        });
    }
    soon(async { while tasks.join_next().await.transpose().expect("no panic").is_some() {} }).await;
    until(|| streams(&here) + streams(&there) == 0).await;
}

#[tokio::test]
async fn bulk_moves_to_a_lane_each_way_whole_and_the_lane_serves_again() {
    const BULK: usize = 8 << 20;
    let Pair {
        here,
        there,
        listener,
    } = pair().await;
    take_lanes(listener);
    for _ in 0..3 {
        let mut near = here.open().await.expect("open");
        near.send.write_all(b"").await.expect("nothing to wait for");
        let far = async {
            let mut far = there.accept().await.expect("opened");
            tokio::join!(
                send_pattern(&mut far.send, BULK / 2),
                check_pattern(&mut far.receive, BULK)
            );
        };
        let near = async move {
            tokio::join!(
                send_pattern(&mut near.send, BULK),
                check_pattern(&mut near.receive, BULK / 2)
            );
        };
        soon(async { tokio::join!(near, far) }).await;
        until(|| streams(&here) + streams(&there) == 0).await;
    }
    // One for each stream in turn, and one to spare.
    assert!((1..=2).contains(&lanes(&here)), "{}", lanes(&here));
    until(|| lanes(&there) == lanes(&here)).await;
    let Connection::Tls(connection) = &here else {
        unreachable!("a pair speaks TLS")
    };
    let multiplexed = connection.0.shared.sent.load(Ordering::Relaxed);
    assert!(multiplexed < 12 << 20, "most went over the lane");
    assert!(
        here.statistics().bytes_sent >= 24 << 20,
        "and counts all the same"
    );
}

#[tokio::test]
async fn bulk_that_is_reset_or_stopped_breaks_its_lane_only() {
    let Pair {
        here,
        there,
        listener,
    } = pair().await;
    take_lanes(listener);
    for stop in [false, true] {
        let mut near = here.open().await.expect("open");
        let sending = tokio::spawn(async move {
            loop {
                if let Err(error) = near.send.write_chunks(&mut [pattern(0, 100_000)]).await {
                    return (near, error);
                }
                if !stop && matches!(&near.send, SendStream::Tls(send) if send.is_on_a_lane()) {
                    near.send
                        .write_chunks(&mut [pattern(0, 1 << 20)])
                        .await
                        .expect("wanted");
                    near.send.reset(5);
                }
            }
        });
        let mut far = soon(there.accept()).await.expect("opened");
        let mut chunks: [Bytes; 8] = Default::default();
        let mut got = 0;
        let ended = soon(async {
            loop {
                match far.receive.read_chunks(&mut chunks).await {
                    Ok(Some(filled)) => got += chunks[..filled].iter().map(Bytes::len).sum::<usize>(),
                    other => return other,
                }
                if stop && matches!(&far.receive, RecvStream::Tls(receive) if receive.is_on_a_lane()) {
                    far.receive.stop(6);
                }
            }
        })
        .await;
        let (near, error) = soon(sending).await.expect("no panic");
        if stop {
            assert_eq!(ended, Err(ReadError::Closed));
            assert!(matches!(error, WriteError::Stopped(_)), "{error:?}");
        } else {
            assert!(matches!(ended, Err(ReadError::Reset(_))), "{ended:?}");
        }
        drop((near, far));
        until(|| streams(&here) + streams(&there) == 0).await;
    }
    echo(there);
    let mut stream = here.open().await.expect("the link is as it was");
    stream.send.write_all(b"hello").await.expect("wanted");
    soon(stream.receive.read_exact(&mut [0; 5]))
        .await
        .expect("an echo");
}

#[tokio::test]
async fn a_closed_link_stops_its_lanes_too() {
    let Pair {
        here,
        there,
        listener,
    } = pair().await;
    take_lanes(listener);
    let mut near = here.open().await.expect("open");
    let sending = tokio::spawn(async move {
        loop {
            if let Err(error) = near.send.write_chunks(&mut [pattern(0, 100_000)]).await {
                return error;
            }
        }
    });
    let mut far = soon(there.accept()).await.expect("opened");
    let mut chunks: [Bytes; 8] = Default::default();
    let ended = soon(async {
        loop {
            if let Err(error) = far.receive.read_chunks(&mut chunks).await {
                return error;
            }
            if matches!(&far.receive, RecvStream::Tls(receive) if receive.is_on_a_lane()) {
                there.close(2, "token revoked or unknown");
            }
        }
    });
    assert_eq!(ended.await, ReadError::Lost(ConnectionError::Local));
    let sending = soon(sending).await.expect("no panic");
    // The lane may break just before the peer's word is heard.
    assert!(
        matches!(sending, WriteError::Lost(_) | WriteError::Stopped(_)),
        "{sending:?}"
    );
}

#[tokio::test]
async fn a_slow_reader_holds_back_nobody_else() {
    let Pair { here, there, .. } = pair().await;
    let mut slow = here.open().await.expect("open");
    let stuck = tokio::spawn(async move {
        let written = slow.send.write_chunks(&mut [pattern(0, 2_000_000)]).await;
        (slow, written)
    });
    let kept = soon(there.accept()).await.expect("opened");
    echo(there);
    for _ in 0..20 {
        let Stream {
            mut send,
            mut receive,
        } = here.open().await.expect("open");
        soon(async {
            tokio::join!(
                send_pattern(&mut send, 500_000),
                check_pattern(&mut receive, 500_000)
            )
        })
        .await;
    }
    assert!(!stuck.is_finished());
    drop(kept);
    let (_, written) = soon(stuck).await.expect("no panic");
    assert!(matches!(written, Err(WriteError::Stopped(_))));
}

#[tokio::test]
async fn a_close_is_told_with_its_reason() {
    let Pair { here, there, .. } = pair().await;
    let mut stream = here.open().await.expect("open");
    there.close(2, "token revoked or unknown");
    let closed = ConnectionError::Closed {
        code: 2,
        reason: "token revoked or unknown".to_owned(),
    };
    assert_eq!(soon(here.closed()).await, closed);
    assert_eq!(here.close_reason(), Some(closed.clone()));
    assert_eq!(soon(there.closed()).await, ConnectionError::Local);
    assert_eq!(
        soon(read_all(&mut stream.receive)).await,
        Err(ReadError::Lost(closed.clone()))
    );
    assert_eq!(soon(here.open()).await.map(drop), Err(closed));
}

#[tokio::test]
async fn the_last_user_closes_the_connection() {
    let Pair { here, there, .. } = pair().await;
    let stream = here.open().await.expect("open");
    drop(here);
    assert_eq!(there.close_reason(), None);
    drop(stream);
    assert!(matches!(
        soon(there.closed()).await,
        ConnectionError::Closed { code: 0, .. }
    ));
}

/// Hands bytes on between two sockets, until told to stop or to add garbage.
async fn between(
    there: TlsListener,
    garbage: bool,
    when: tokio::sync::oneshot::Receiver<()>,
) -> std::net::SocketAddr {
    let middle = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = middle.local_addr().expect("bound");
    tokio::spawn(async move {
        let (mut near, _) = middle.accept().await.expect("dialled");
        let target = there.local_address().expect("bound");
        let mut far = TcpStream::connect(target).await.expect("it listens");
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            _ = when => {}
        }
        if garbage {
            let _ = near.write_all(&[23, 3, 3, 0, 40]).await;
            let _ = near.write_all(&[7; 40]).await;
            let _ = near.read(&mut [0; 64]).await;
        }
    });
    address
}

async fn broken(garbage: bool) -> (ConnectionError, ConnectionError) {
    let site = Site::new();
    let listener = listen(&site).await;
    let (tell, when) = tokio::sync::oneshot::channel();
    let address = between(listener.clone(), garbage, when).await;
    let dialler = TlsDialler::new(&site.material("edge", Usage::Client), None, SETTINGS).expect("usable");
    let dial = async {
        let socket = TcpStream::connect(address).await.expect("it listens");
        dialler.connect(socket, None).await.expect("they know each other")
    };
    let accept = async { listener.accept().await.handshake().await };
    let (here, there) = soon(async { tokio::join!(dial, accept) }).await;
    let there = there.expect("they know each other").expect("it is a link");
    tell.send(()).expect("somebody listens");
    soon(async { tokio::join!(here.closed(), there.closed()) }).await
}

#[tokio::test]
async fn a_killed_peer_is_noticed() {
    let (here, there) = broken(false).await;
    assert!(matches!(here, ConnectionError::Lost(_)), "{here:?}");
    assert!(matches!(there, ConnectionError::Lost(_)), "{there:?}");
}

#[tokio::test]
async fn garbage_after_the_handshake_ends_the_connection() {
    let (here, _) = broken(true).await;
    assert_eq!(
        here,
        ConnectionError::Lost("a record was damaged on its way".to_owned())
    );
}

async fn refused(ours: &Site, theirs: &Site, name: &str) -> (ConnectionError, ConnectionError) {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut material = theirs.material(name, Usage::Server);
    material.ca = theirs.material("x", Usage::Client).ca;
    let listener = TlsListener::new(socket, &material, SETTINGS).expect("usable");
    let address = listener.local_address().expect("bound");
    let mut mine = ours.material("edge", Usage::Client);
    if name == LINK_SERVER_NAME {
        mine.ca = theirs.material("x", Usage::Client).ca;
    }
    let dialler = TlsDialler::new(&mine, None, SETTINGS).expect("usable");
    let dial = async {
        let socket = TcpStream::connect(address).await.expect("it listens");
        dialler.connect(socket, None).await.map(drop)
    };
    let accept = async { listener.accept().await.handshake().await.map(drop) };
    let (here, there) = soon(async { tokio::join!(dial, accept) }).await;
    (here.expect_err("refused"), there.expect_err("refused"))
}

#[tokio::test]
async fn a_refused_certificate_is_told_to_both_sides() {
    let (ours, theirs) = (Site::new(), Site::new());
    let (here, there) = refused(&ours, &theirs, LINK_SERVER_NAME).await;
    let ConnectionError::Tls {
        by: Party::Peer,
        alert,
        ..
    } = here
    else {
        panic!("{here:?}")
    };
    assert!(karez_identity::alert_reason(alert).is_some_and(|reason| reason.contains("authority")));
    assert!(
        matches!(there, ConnectionError::Tls { by: Party::Here, .. }),
        "{there:?}"
    );
    let (here, there) = refused(&theirs, &theirs, "another-name").await;
    let ConnectionError::Tls {
        by: Party::Here,
        detail,
        ..
    } = here
    else {
        panic!("{here:?}")
    };
    assert!(detail.contains("not valid for name"), "{detail}");
    assert!(
        matches!(there, ConnectionError::Tls { by: Party::Peer, .. }),
        "{there:?}"
    );
}

#[tokio::test]
async fn a_peer_that_speaks_no_tls_is_refused() {
    let site = Site::new();
    let listener = listen(&site).await;
    let mut socket = TcpStream::connect(listener.local_address().expect("bound"))
        .await
        .expect("it listens");
    socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("sent");
    let error = soon(async { listener.accept().await.handshake().await })
        .await
        .map(drop);
    assert!(error.is_err());
}
