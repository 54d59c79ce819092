//! Which addresses a site's Pods have: a /24 of 127.0.0.0/8, chosen from the state folder's path so that it stays the
//! same from start to start, and held by a lock file so that no other site on this machine takes it.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

/// How many /24s are tried before giving up.
const TRIES: u16 = 64;

/// Why a site has no addresses.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The machine has only 127.0.0.1.
    #[error(
        "{address} cannot be bound ({source}): this machine gives only 127.0.0.1, and a local site needs an address \
         for each Pod; on macOS add some with `sudo ifconfig lo0 alias {address}`, elsewhere run Karez on Linux"
    )]
    OnlyOneAddress {
        /// What was tried.
        address: Ipv4Addr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The lock file cannot be opened.
    #[error("the lock file {} cannot be opened: {source}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Other sites hold every network that was tried.
    #[error("{TRIES} networks of 127.0.0.0/8 are held by other sites (lock files in {}); stop some of them", folder.display())]
    AllHeld {
        /// Where the lock files are.
        folder: PathBuf,
    },
}

/// A /24 of 127.0.0.0/8 that is this site's while the pool, or an address from it, lives.
#[derive(Clone, Debug)]
pub struct AddressPool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    network: [u8; 3],
    taken: Mutex<BTreeSet<u8>>,
    /// Locked while open.
    _lock: File,
}

/// One Pod's address; free again when dropped.
#[derive(Debug)]
pub struct PodAddress {
    host: u8,
    pool: Arc<Inner>,
}

impl AddressPool {
    /// The /24 of the site whose state is in `state`: the one that its path's hash names, or the next that is free.
    ///
    /// # Errors
    /// When the machine has only 127.0.0.1, or no lock can be had.
    pub fn choose(state: &Path) -> Result<Self, PoolError> {
        let folder = lock_folder();
        fs::create_dir_all(&folder).map_err(|source| PoolError::Lock {
            path: folder.clone(),
            source,
        })?;
        let absolute = std::path::absolute(state).unwrap_or_else(|_| state.to_path_buf());
        for network in candidates(&absolute) {
            let path = folder.join(format!("127.{}.{}.lock", network[1], network[2]));
            let Some(lock) = lock(&path)? else { continue };
            let pool = Self::of(network, lock);
            let first = pool.first_v4();
            TcpListener::bind((first, 0)).map_err(|source| PoolError::OnlyOneAddress {
                address: first,
                source,
            })?;
            return Ok(pool);
        }
        Err(PoolError::AllHeld { folder })
    }

    fn of(network: [u8; 3], lock: File) -> Self {
        Self {
            inner: Arc::new(Inner {
                network,
                taken: Mutex::new(BTreeSet::new()),
                _lock: lock,
            }),
        }
    }

    /// The site's own address, `.1`: its API and what it offers to other sites.
    pub fn first(&self) -> IpAddr {
        self.first_v4().into()
    }

    fn first_v4(&self) -> Ipv4Addr {
        self.inner.address(1)
    }

    /// The network, as `127.x.y.0/24`.
    pub fn network(&self) -> String {
        format!("{}/24", self.inner.address(0))
    }

    /// An address for a Pod: `wanted` if it is of this network and free, else the lowest free one. None when all are
    /// taken.
    pub fn take(&self, wanted: Option<IpAddr>) -> Option<PodAddress> {
        let mut taken = self.inner.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = wanted.and_then(|address| self.inner.host_of(address));
        let mut hosts = wanted.into_iter().chain(2..=254);
        let host = hosts.find(|host| !taken.contains(host))?;
        taken.insert(host);
        Some(PodAddress {
            host,
            pool: Arc::clone(&self.inner),
        })
    }
}

impl Inner {
    fn address(&self, host: u8) -> Ipv4Addr {
        let [a, b, c] = self.network;
        Ipv4Addr::new(a, b, c, host)
    }

    fn host_of(&self, address: IpAddr) -> Option<u8> {
        let IpAddr::V4(address) = address else { return None };
        let [a, b, c, host] = address.octets();
        ([a, b, c] == self.network && (2..=254).contains(&host)).then_some(host)
    }
}

impl PodAddress {
    /// The address.
    pub fn ip(&self) -> IpAddr {
        self.pool.address(self.host).into()
    }
}

impl Drop for PodAddress {
    fn drop(&mut self) {
        self.pool
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.host);
    }
}

/// `$XDG_RUNTIME_DIR/karez`, or `karez` in the temporary folder.
fn lock_folder() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|path| path.is_dir());
    runtime.unwrap_or_else(std::env::temp_dir).join("karez")
}

/// The networks to try: the path's own first. 127.0 is left to the system and to other programs.
fn candidates(state: &Path) -> impl Iterator<Item = [u8; 3]> {
    use std::os::unix::ffi::OsStrExt;
    let digest = Sha256::digest(state.as_os_str().as_bytes());
    let start = u16::from_be_bytes([digest[0], digest[1]]);
    (0..TRIES).map(move |step| {
        // An odd stride visits every network before any comes twice.
        let [second, third] = start.wrapping_add(step.wrapping_mul(40_503)).to_be_bytes();
        [127, second.max(1), third]
    })
}

/// The lock, or none when another process has it.
fn lock(path: &Path) -> Result<Option<File>, PoolError> {
    let failed = |source| PoolError::Lock {
        path: path.to_path_buf(),
        source,
    };
    let file = File::options()
        .create(true)
        .write(true)
        .truncate(false)
        .open(path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> AddressPool {
        AddressPool::of([127, 9, 8], tempfile::tempfile().unwrap())
    }

    #[test]
    fn a_pod_keeps_its_address_where_it_can() {
        let pool = pool();
        let one = pool.take(Some("127.9.8.7".parse().unwrap())).unwrap();
        let two = pool.take(Some("127.9.8.7".parse().unwrap())).unwrap();
        let three = pool.take(Some("10.0.0.7".parse().unwrap())).unwrap();
        let texts = [one.ip(), two.ip(), three.ip()].map(|ip| ip.to_string());
        assert_eq!(texts, ["127.9.8.7", "127.9.8.2", "127.9.8.3"]);
        drop(two);
        assert_eq!(pool.take(None).unwrap().ip().to_string(), "127.9.8.2");
        assert_eq!(
            (pool.first().to_string(), pool.network()),
            ("127.9.8.1".into(), "127.9.8.0/24".into())
        );
    }

    #[test]
    fn a_full_network_gives_none() {
        let pool = pool();
        let all: Vec<PodAddress> = std::iter::from_fn(|| pool.take(None)).collect();
        assert_eq!(all.len(), 253);
        assert!(pool.take(None).is_none());
    }

    #[test]
    fn two_sites_have_two_networks_and_one_site_the_same_again() {
        let one = AddressPool::choose(Path::new("/some/state")).unwrap();
        let network = one.network();
        let two = AddressPool::choose(Path::new("/some/state")).unwrap();
        assert_ne!(network, two.network());
        assert!(candidates(Path::new("/x")).all(|network| network[1] > 0));
    }
}
