//! What the kernel dropped before it was read, as it counts them itself (Linux).

use std::os::fd::AsRawFd;

use tokio::net::UdpSocket;

/// Follows one socket's count.
pub(super) struct Kernel {
    inode: Option<String>,
    seen: u64,
}

impl Kernel {
    /// Of this socket.
    pub(super) fn of(socket: &UdpSocket) -> Self {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok();
        let inode = link.and_then(|link| {
            let link = link.to_str()?;
            Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        });
        Self { inode, seen: 0 }
    }

    /// How many it dropped since the last call; 0 where the kernel does not say.
    pub(super) fn dropped(&mut self) -> u64 {
        let Some(inode) = &self.inode else { return 0 };
        let tables = ["/proc/self/net/udp", "/proc/self/net/udp6"];
        let found = tables.iter().find_map(|table| {
            let text = std::fs::read_to_string(table).ok()?;
            text.lines().find_map(|line| count(line, inode))
        });
        let now = found.unwrap_or(self.seen);
        now.saturating_sub(std::mem::replace(&mut self.seen, now))
    }
}

/// The last column of the line of this inode.
fn count(line: &str, inode: &str) -> Option<u64> {
    let mut columns = line.split_ascii_whitespace();
    (columns.nth(9)? == inode).then(|| columns.next_back()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_line_of_its_socket() {
        let line = "  305: 0100007F:1F90 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 18911 2 0000000000000000 42";
        assert_eq!(count(line, "18911"), Some(42));
        assert_eq!(count(line, "18912"), None);
        assert_eq!(count("sl local_address", "18911"), None);
    }
}
