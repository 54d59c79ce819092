//! Where a server's connections come from: TCP, or with `transport: unix` a socket in the file system.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use karez_lifecycle::volumes;
use karez_net::TcpListeners;
use tokio::net::{TcpStream, UnixListener, UnixStream};

use crate::component::{ComponentContext, StartError};

/// What is listened on.
pub(super) enum Listeners {
    Tcp(TcpListeners),
    Unix(Unix),
}

/// A connection with what is known of its caller.
pub(super) enum Accepted {
    Tcp(TcpStream, IpAddr),
    Unix(UnixStream),
}

impl Accepted {
    /// The caller's address.
    pub(super) fn peer(&self) -> Option<IpAddr> {
        match self {
            Accepted::Tcp(_, peer) => Some(*peer),
            Accepted::Unix(_) => None,
        }
    }
}

impl Listeners {
    /// Binds an endpoint; `key` names it.
    pub(super) async fn bind(
        transport: &str,
        endpoint: &str,
        key: String,
        cx: &ComponentContext,
    ) -> Result<Self, StartError> {
        if transport == "unix" {
            let path = volumes::locate(Path::new(endpoint));
            return match Unix::bind(&path).await {
                Ok(unix) => {
                    tracing::info!(component = cx.key, path = %path.display(), "listening");
                    Ok(Listeners::Unix(unix))
                }
                Err(error) => {
                    let message = format!("cannot listen on {}: {error}", path.display());
                    let mend = "stop what holds it, or name a path in a folder that may be written";
                    Err(StartError::config(key, message, mend))
                }
            };
        }
        let bound = cx.net.listen_tcp(endpoint).await;
        bound
            .map(Listeners::Tcp)
            .map_err(|source| StartError::bind(key, source))
    }

    /// The addresses of TCP.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            Listeners::Tcp(listeners) => listeners.local_addrs(),
            Listeners::Unix(_) => Vec::new(),
        }
    }

    pub(super) async fn accept(&mut self) -> io::Result<Accepted> {
        match self {
            Listeners::Tcp(listeners) => {
                let (stream, peer) = listeners.accept().await?;
                Ok(Accepted::Tcp(stream, peer.ip()))
            }
            Listeners::Unix(unix) => Ok(Accepted::Unix(unix.listener.accept().await?.0)),
        }
    }
}

/// A socket in the file system; its file goes with it.
pub(super) struct Unix {
    listener: UnixListener,
    path: PathBuf,
    /// Device and number, so that what another has put there meanwhile stays.
    file: (u64, u64),
}

impl Unix {
    async fn bind(path: &Path) -> io::Result<Self> {
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_behind(path).await => {
                fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            bound => bound?,
        };
        let metadata = fs::symlink_metadata(path)?;
        Ok(Unix {
            listener,
            path: path.to_owned(),
            file: (metadata.dev(), metadata.ino()),
        })
    }
}

impl Drop for Unix {
    fn drop(&mut self) {
        let own = |found: fs::Metadata| (found.dev(), found.ino()) == self.file;
        if fs::symlink_metadata(&self.path).is_ok_and(own) {
            // It may be gone; whoever binds next finds out what is there.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether a path is a socket that nobody listens on: of a process that was killed.
async fn is_left_behind(path: &Path) -> bool {
    let socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    socket && UnixStream::connect(path).await.is_err_and(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_a_live_one_or_a_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        // What a killed process leaves: a socket without a listener.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let unix = Unix::bind(&path).await.unwrap();
        let error = Unix::bind(&path).await.err().expect("it is in use");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(unix);
        assert!(!path.exists(), "its file goes with it");
        fs::write(&path, "precious").unwrap();
        assert!(Unix::bind(&path).await.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
