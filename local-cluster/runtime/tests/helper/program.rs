//! The program that the tests' Pods run in the place of `karez`: serves a file over HTTP, or ends.

use std::path::{Path, PathBuf};

use karez_lifecycle::{Shutdown, volumes};
use karez_net::Net;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let shutdown = Shutdown::on_signals()?;
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["serve", port, file] => tokio::select! {
            result = serve(port, volumes::locate(Path::new(file))) => result,
            () = shutdown.triggered() => Ok(()),
        },
        ["exit", code] => {
            println!("ending with {code}");
            std::process::exit(code.parse().unwrap_or(99));
        }
        _ => Err(std::io::Error::other(format!("unknown arguments {args:?}"))),
    }
}

/// Answers every request with the file: 200, or 503 while there is none.
async fn serve(port: &str, file: PathBuf) -> std::io::Result<()> {
    let bound = Net::from_env().listen_tcp(&format!("0.0.0.0:{port}")).await;
    let mut listeners = bound.map_err(std::io::Error::other)?;
    println!(
        "{} serves {}",
        std::env::var("GREETER").unwrap_or_default(),
        file.display()
    );
    loop {
        let (mut stream, _) = listeners.accept().await?;
        let mut request = [0u8; 1024];
        let _ = stream.read(&mut request).await;
        let answer = match std::fs::read_to_string(&file) {
            Ok(text) => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()),
            Err(_) => "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".into(),
        };
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}
