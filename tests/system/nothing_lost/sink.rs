//! A backend that counts how often each number arrives, and is as it is told to be.

use std::io::{BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::wire;
use crate::support::Outcome;

/// How the backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Up,
    /// Takes connections and ends them.
    Down,
    /// Takes its time.
    Slow,
    /// Answers 503.
    Refusing,
    /// Takes the data and ends the connection without an answer.
    Forgetful,
}

#[derive(Clone)]
pub(super) struct Sink {
    shared: Arc<Mutex<Shared>>,
    address: SocketAddr,
}

struct Shared {
    mode: Mode,
    seen: Vec<u16>,
    arrivals: u64,
}

impl Sink {
    /// Listens on a free port.
    pub(super) fn start() -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let sink = Sink {
            shared: Arc::new(Mutex::new(Shared {
                mode: Mode::Up,
                seen: Vec::new(),
                arrivals: 0,
            })),
            address: listener.local_addr()?,
        };
        let serving = sink.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sink = serving.clone();
                std::thread::spawn(move || {
                    // A connection that ends badly is the other side's to mend.
                    let _ = sink.serve(stream);
                });
            }
        });
        Ok(sink)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, mode: Mode) {
        self.lock().mode = mode;
    }

    fn mode(&self) -> Mode {
        self.lock().mode
    }

    fn serve(&self, stream: TcpStream) -> Outcome {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        loop {
            if self.mode() == Mode::Down {
                return Ok(reader.get_ref().shutdown(Shutdown::Both)?);
            }
            let Some((_, body)) = wire::read(&mut reader)? else {
                return Ok(());
            };
            let mode = self.mode();
            let status = match mode {
                Mode::Down => return Ok(()),
                Mode::Refusing => "503 Service Unavailable",
                Mode::Up | Mode::Slow | Mode::Forgetful => "200 OK",
            };
            if mode == Mode::Slow {
                std::thread::sleep(Duration::from_millis(200));
            }
            if mode != Mode::Refusing {
                self.count(&wire::numbers(&body));
            }
            if mode == Mode::Forgetful {
                return Ok(());
            }
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            reader.get_mut().write_all(answer.as_bytes())?;
        }
    }

    fn count(&self, numbers: &[u64]) {
        let mut shared = self.lock();
        for number in numbers {
            let index = *number as usize;
            if shared.seen.len() <= index {
                shared.seen.resize(index + 1, 0);
            }
            shared.seen[index] = shared.seen[index].saturating_add(1);
        }
        shared.arrivals += numbers.len() as u64;
    }

    /// Which of these have not arrived.
    pub(super) fn missing(&self, numbers: &[u64]) -> Vec<u64> {
        let shared = self.lock();
        let absent = |number: &&u64| shared.seen.get(**number as usize).is_none_or(|count| *count == 0);
        numbers.iter().filter(absent).copied().collect()
    }

    /// How many items arrived, each as often as it did.
    pub(super) fn arrivals(&self) -> u64 {
        self.lock().arrivals
    }

    /// How many arrivals were of items that had arrived before.
    pub(super) fn duplicates(&self) -> u64 {
        let shared = self.lock();
        shared.arrivals - shared.seen.iter().filter(|count| **count > 0).count() as u64
    }
}
