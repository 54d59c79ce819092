//! The target in the far namespace, whose process also holds that namespace: it sends back what it gets, and ends a
//! connection when the client has.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// The hidden first argument that makes this program the target.
pub(crate) const COMMAND: &str = "serve-echo";

/// Serves until it is ended; says its port on standard output.
pub(crate) fn serve() {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port is free in a new namespace");
    let port = listener.local_addr().expect("the socket is bound").port();
    println!("{port}");
    let _ = std::io::stdout().flush();
    for stream in listener.incoming().flatten() {
        // A connection that breaks is what these tests are about.
        thread::spawn(move || drop(echo(stream)));
    }
}

fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => stream.write_all(&buffer[..read])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
