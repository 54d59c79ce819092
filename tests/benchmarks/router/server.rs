//! The server at the far end, a process of its own: a first byte `b` asks for an endless stream, any other for an echo.

use std::io::Write;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::load::Aligned;

/// The hidden first argument that makes this program the server.
pub(crate) const COMMAND: &str = "serve";
/// The first byte of a connection that asks for an endless stream.
pub(crate) const BULK: u8 = b'b';
/// A larger write gains nothing.
const BLOCK: usize = 256 << 10;

/// Serves until it is ended; says its port on standard output.
pub(crate) fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&std::net::SocketAddr::from(([0, 0, 0, 0], 0)).into())?;
        socket.listen(4096)?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(socket.into())?;
        println!("{}", listener.local_addr()?.port());
        std::io::stdout().flush()?;
        loop {
            let (stream, _) = listener.accept().await?;
            // A client that leaves ends its connection: that is how each measurement stops.
            tokio::spawn(async move { drop(answer(stream).await) });
        }
    })
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 512];
    let mut read = stream.read(&mut buffer).await?;
    if buffer[0] == BULK && read > 0 {
        let block = Aligned::new(BLOCK);
        loop {
            stream.write_all(&block).await?;
        }
    }
    while read > 0 {
        stream.write_all(&buffer[..read]).await?;
        read = stream.read(&mut buffer).await?;
    }
    Ok(())
}
