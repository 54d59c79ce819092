//! QUIC over UDP (quinn).

mod burst;
mod congestion;
mod connection;
mod driver;
mod endpoint;
mod listener;
mod runtime;

pub(crate) use connection::{QuicConnection, QuicReceive, QuicSend};
pub(crate) use endpoint::{ClientEndpoints, dial};
pub(crate) use listener::{QuicIncoming, QuicListener};
