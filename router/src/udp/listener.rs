//! A virtual address of protocol UDP, offered on this site: one session for each client's address.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use bytes::Bytes;
use karez_router_config::ListenerConfig;
use karez_topology::Address;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::kernel::Kernel;
use super::relay::{Activity, Held, Port, relay};
use super::table::{Active, Table};
use crate::caller::Caller;
use crate::connector::{Counted, Opens};
use crate::listener::{BIND_AGAIN, endpoint, offered, set_bound};
use crate::metrics::{Dropped, Ending, Fault};
use crate::proxy_protocol::Ends;
use crate::record::{Client, ConnectionRecord};
use crate::shared::{BoundState, Shared};
use crate::way::{self, Origin};
use crate::wire::Answer;

/// Datagrams of one client that wait for their session.
const WAITING: usize = 2048;
/// Bytes of all clients of a listener that wait.
const BUDGET: usize = 8 << 20;
/// Sessions of a listener, where the document says nothing else.
const SESSIONS: u32 = 4096;
/// What a listener's socket holds before we read it: bursts come at once.
const SOCKET_BUFFER: usize = 4 << 20;
/// How often the kernel is asked what it dropped, while datagrams come.
const KERNEL: Duration = Duration::from_secs(1);
/// A session that found no way drops what its client sends for this long, before another one is tried.
const NO_WAY: Duration = Duration::from_secs(1);

/// Offers one virtual address until `stop`.
pub(crate) async fn listen(
    shared: Arc<Shared>,
    name: String,
    config: ListenerConfig,
    stop: CancellationToken,
) {
    let (address, opens) = offered(&shared, &name, &config);
    tokio::select! {
        () = stop.cancelled() => {}
        () = shared.shutdown.triggered() => {}
        () = run(&shared, &name, &config, address, opens) => {}
    }
    shared.change(|all| all.listeners.remove(&name));
}

async fn run(
    shared: &Arc<Shared>,
    name: &str,
    config: &ListenerConfig,
    address: Address,
    opens: Arc<AtomicU64>,
) {
    let sockets = bind(shared, name, &endpoint(&config.host, config.port)).await;
    let budget = Arc::<AtomicUsize>::default();
    let sessions = config.max_connections.unwrap_or(SESSIONS);
    // Ends with this task: sessions notice that nobody feeds them any more.
    let mut serving = JoinSet::new();
    for socket in sockets {
        let listener = Listener {
            shared: shared.clone(),
            socket: Arc::new(socket),
            address: address.clone(),
            idle: config.idle,
            opens: opens.clone(),
            budget: budget.clone(),
            began: Instant::now(),
        };
        serving.spawn(listener.serve(usize::try_from(sessions).unwrap_or(usize::MAX)));
    }
    while serving.join_next().await.is_some() {}
}

async fn bind(shared: &Shared, name: &str, endpoint: &str) -> Vec<UdpSocket> {
    loop {
        let error = match shared.net.bind_udp(endpoint) {
            Ok(sockets) => {
                let addresses = sockets.iter().filter_map(|socket| socket.local_addr().ok());
                let addresses = addresses.collect();
                set_bound(
                    shared,
                    name,
                    BoundState {
                        addresses,
                        error: None,
                    },
                );
                for socket in &sockets {
                    // Best effort: without it the system's default stays.
                    let _ = socket2::SockRef::from(socket).set_recv_buffer_size(SOCKET_BUFFER);
                }
                return sockets;
            }
            Err(error) => error.to_string(),
        };
        let bound = BoundState {
            addresses: Vec::new(),
            error: Some(error.clone()),
        };
        if set_bound(shared, name, bound) {
            shared.metrics.fault(Fault::Bind);
            tracing::error!(
                listener = name,
                error,
                "the listener cannot be bound; trying again"
            );
        }
        tokio::time::sleep(BIND_AGAIN).await;
    }
}

struct Listener {
    shared: Arc<Shared>,
    socket: Arc<UdpSocket>,
    address: Address,
    idle: Duration,
    opens: Arc<AtomicU64>,
    budget: Arc<AtomicUsize>,
    began: Instant,
}

/// A client's session, as the table has it.
struct Session {
    serial: u64,
    queue: mpsc::Sender<Held>,
    activity: Arc<Activity>,
}

impl Active for Session {
    fn last(&self) -> u64 {
        self.activity.last()
    }
}

impl Listener {
    async fn serve(self, sessions: usize) {
        let mut table = Table::new(sessions);
        let (over, mut ended) = mpsc::unbounded_channel();
        let mut serial = 0;
        let (mut kernel, mut counted) = (Kernel::of(&self.socket), serial);
        let mut look = tokio::time::interval(KERNEL);
        loop {
            tokio::select! {
                _ = look.tick() => if counted != serial {
                    counted = serial;
                    self.shared.metrics.dropped_many(Dropped::SocketFull, kernel.dropped());
                },
                Some((from, serial)) = ended.recv() => {
                    if table.find(&from).is_some_and(|session: &Session| session.serial == serial) {
                        table.remove(&from);
                    }
                }
                received = receive(&self.socket) => match received {
                    Ok((datagram, from)) => {
                        serial += 1;
                        self.take(&mut table, datagram, from, serial, &over);
                    }
                    Err(error) => {
                        tracing::warn!(address = %self.address, %error, "cannot receive datagrams");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
            }
        }
    }

    /// Gives a datagram to its client's session, a new one if there is none.
    fn take(
        &self,
        table: &mut Table<Session>,
        datagram: Bytes,
        from: SocketAddr,
        serial: u64,
        over: &mpsc::UnboundedSender<(SocketAddr, u64)>,
    ) {
        let metrics = &self.shared.metrics;
        let Some(held) = Held::new(datagram, &self.budget, BUDGET) else {
            return metrics.dropped(Dropped::QueueFull);
        };
        let held = match table.find(&from) {
            None => held,
            Some(session) => match session.queue.try_send(held) {
                Ok(()) => return,
                Err(TrySendError::Full(_)) => return metrics.dropped(Dropped::QueueFull),
                // It has just ended.
                Err(TrySendError::Closed(held)) => held,
            },
        };
        let Some(slot) = self.shared.slots.try_take() else {
            return metrics.dropped(Dropped::TooManySessions);
        };
        let (queue, waiting) = mpsc::channel(WAITING);
        let activity = Arc::new(Activity::since(self.began));
        if queue.try_send(held).is_err() {
            return metrics.dropped(Dropped::QueueFull);
        }
        let session = Session {
            serial,
            queue,
            activity: activity.clone(),
        };
        if table
            .insert(from, session)
            .is_some_and(|gone| !gone.queue.is_closed())
        {
            metrics.udp_evicted.inc();
        }
        let carried = self.carry(from, waiting, activity);
        let over = over.clone();
        self.shared.carried.spawn(async move {
            carried.await;
            drop(slot);
            let _ = over.send((from, serial));
        });
    }

    /// One session from its first datagram to its end.
    fn carry(
        &self,
        from: SocketAddr,
        mut waiting: mpsc::Receiver<Held>,
        activity: Arc<Activity>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (shared, socket) = (self.shared.clone(), self.socket.clone());
        let (address, idle) = (self.address.clone(), self.idle);
        let counted = Counted::new(Opens(self.opens.clone()));
        async move {
            let destination = socket.local_addr().ok();
            let caller = Caller::here(destination.map(|destination| Ends {
                source: from,
                destination,
            }));
            let mut record = ConnectionRecord::new(&shared, Client::Socket(from), address.clone(), caller);
            match way::find(&shared, &address, &Origin::Client { sealed: false }, &caller).await {
                Ok(way) => {
                    record.set_route(way.route);
                    let near = Port::client(waiting, socket, from);
                    relay(&shared, near, way.far, &activity, idle, record).await;
                    drop(way.counted);
                }
                Err(answer) => {
                    let (ending, reason) = match answer {
                        Answer::NoRoute => (Ending::NoRoute, Dropped::NoRoute),
                        _ => (Ending::Refused, Dropped::Unreachable),
                    };
                    tracing::debug!(%address, %from, ?answer, "the datagrams have nowhere to go");
                    record.end(ending, Some(format!("{answer:?}")));
                    drop_for(NO_WAY, &mut waiting, || shared.metrics.dropped(reason)).await;
                }
            }
            drop(counted);
        }
    }
}

/// Drops what comes for a while.
async fn drop_for(time: Duration, waiting: &mut mpsc::Receiver<Held>, count: impl Fn()) {
    let dropping = async {
        while waiting.recv().await.is_some() {
            count();
        }
    };
    let _ = timeout(time, dropping).await;
    waiting.close();
    while waiting.try_recv().is_ok() {
        count();
    }
}

async fn receive(socket: &UdpSocket) -> io::Result<(Bytes, SocketAddr)> {
    loop {
        socket.readable().await?;
        match super::read(|buffer| socket.try_recv_from(buffer)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            received => return received,
        }
    }
}
