//! The way from the collector to its backend: a relay that can be cut, as a cable is. What is under way then is not
//! lost on an open connection, and comes when the link is back, unless the connection ends meanwhile.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::support::Outcome;

/// The relay.
#[derive(Clone)]
pub(super) struct Link {
    shared: Arc<Shared>,
    address: SocketAddr,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    cut: bool,
    /// Both ends of each connection.
    open: Vec<[TcpStream; 2]>,
}

impl Link {
    /// Relays from a free port.
    pub(super) fn start(to: SocketAddr) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let link = Link {
            shared: Arc::default(),
            address: listener.local_addr()?,
        };
        let shared = link.shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || {
                    // A connection that ends badly is the ends' to mend.
                    let _ = shared.relay(stream, to);
                });
            }
        });
        Ok(link)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on nothing passes, and nobody is told.
    pub(super) fn cut(&self) {
        self.shared.lock().cut = true;
    }

    /// It is back: with the connections that it had, or (the router between having forgotten them) without.
    pub(super) fn restore(&self, forget: bool) {
        let mut state = self.shared.lock();
        state.cut = false;
        let open = std::mem::take(&mut state.open);
        if forget {
            for end in open.iter().flatten() {
                let _ = end.shutdown(Shutdown::Both);
            }
        } else {
            state.open = open;
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns while the link is not cut.
    fn passes(&self) -> MutexGuard<'_, State> {
        let guard = self.lock();
        self.changed
            .wait_while(guard, |state| state.cut)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn relay(self: Arc<Self>, near: TcpStream, to: SocketAddr) -> Outcome {
        drop(self.passes());
        let far = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let kept = [near.try_clone()?, far.try_clone()?];
        let (back_in, back_out) = (far.try_clone()?, near.try_clone()?);
        let mut state = self.lock();
        state.open.retain(|ends| ends[0].peer_addr().is_ok());
        state.open.push(kept);
        drop(state);
        let back = self.clone();
        std::thread::spawn(move || back.copy(back_in, back_out));
        self.copy(near, far);
        Ok(())
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let read = from.read(&mut buffer).unwrap_or(0);
            drop(self.passes());
            if read == 0 || to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
        let _ = from.shutdown(Shutdown::Read);
    }
}
