//! Who holds a port: read from /proc, as far as it may be read.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::net::{IpAddr, SocketAddr};

/// The transport of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// A process that holds a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub pid: u32,
    /// Its command's name.
    pub command: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {})", self.command, self.pid)
    }
}

/// A socket table of /proc is read up to this size; a machine with more sockets gets no name.
const MAX_TABLE: usize = 8 << 20;
/// TCP's state LISTEN, as /proc writes it.
const LISTEN: &str = "0A";

/// The process whose socket keeps this address from being bound. None where /proc does not tell.
pub(crate) fn find(protocol: Protocol, address: SocketAddr) -> Option<Holder> {
    let name = match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let mut inodes = BTreeSet::new();
    for table in [format!("/proc/net/{name}"), format!("/proc/net/{name}6")] {
        match fs::read_to_string(&table) {
            Ok(text) if text.len() <= MAX_TABLE => inodes.extend(inodes_of(&text, protocol, address)),
            _ => {}
        }
    }
    if inodes.is_empty() {
        None
    } else {
        process_with(&inodes)
    }
}

/// The inodes of the sockets in a table that stand in the way of binding `address`.
fn inodes_of(table: &str, protocol: Protocol, address: SocketAddr) -> Vec<u64> {
    let mut found = Vec::new();
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, local, _, state, _, _, _, _, _, inode, ..] = fields.as_slice() else {
            continue;
        };
        if protocol == Protocol::Tcp && *state != LISTEN {
            continue;
        }
        let (Some(held), Ok(inode)) = (local_address(local), inode.parse()) else {
            continue;
        };
        let overlaps =
            held.ip() == address.ip() || held.ip().is_unspecified() || address.ip().is_unspecified();
        if held.port() == address.port() && overlaps {
            found.push(inode);
        }
    }
    found
}

/// Reads `0100007F:10DD`: the address in groups of four bytes, each in the machine's order, then the port.
fn local_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    if !address.is_ascii() {
        return None;
    }
    let mut bytes = Vec::with_capacity(16);
    for start in (0..address.len()).step_by(8) {
        let word = u32::from_str_radix(address.get(start..start + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip: IpAddr = match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok()?.into(),
        16 => std::net::Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn process_with(inodes: &BTreeSet<u64>) -> Option<Holder> {
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(entry.path().join("fd")) else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else {
                continue;
            };
            let inode = target
                .to_str()
                .and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if inode.is_some_and(|inode| inodes.contains(&inode)) {
                let command = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                return Some(Holder {
                    pid,
                    command: command.trim().to_owned(),
                });
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_socket_table() {
        let word = u32::from_ne_bytes([127, 0, 0, 1]);
        let table = format!(
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: {word:08X}:10DD 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100\n   \
             1: {word:08X}:10DD {word:08X}:9999 01 00000000:00000000 00:00000000 00000000     0        0 7 1 0 100\n"
        );
        let address = "127.0.0.1:4317".parse().unwrap();
        assert_eq!(inodes_of(&table, Protocol::Tcp, address), [4242]);
        assert!(inodes_of(&table, Protocol::Tcp, "127.0.0.2:4317".parse().unwrap()).is_empty());
        assert!(inodes_of("\n x : ä:y", Protocol::Udp, address).is_empty());
    }

    #[test]
    fn names_the_process_that_listens() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = find(Protocol::Tcp, listener.local_addr().unwrap());
        assert_eq!(holder.map(|holder| holder.pid), Some(std::process::id()));
    }
}
