//! Where the files of a Pod are on the host.
//!
//! A child process of the local cluster is told paths as its Pod would see them (`/conf/collector.yaml`); the files
//! that the runtime writes for it are in the state folder. `KAREZ_VOLUMES` says which is where: lines
//! `mountPath=hostPath`.

use std::path::{Component, Path, PathBuf};

/// The environment variable with the mapping.
pub const VARIABLE: &str = "KAREZ_VOLUMES";

/// The host's path for a path as the Pod sees it. The longest mount that contains it wins; a path outside every mount,
/// a relative one, or one that would leave its mount by `..` comes back unchanged.
pub fn locate(path: &Path) -> PathBuf {
    match std::env::var(VARIABLE) {
        Ok(mapping) => Volumes::parse(&mapping).locate(path),
        Err(_) => path.to_path_buf(),
    }
}

/// A mapping from mount paths to host paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volumes {
    /// Longest mount path first.
    mounts: Vec<(PathBuf, PathBuf)>,
}

impl Volumes {
    /// Reads the value of [`VARIABLE`]; lines without `=` or with a relative mount path are left out.
    pub fn parse(text: &str) -> Self {
        let mounts = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .filter(|(mount, host)| mount.starts_with('/') && !host.is_empty())
            .map(|(mount, host)| (PathBuf::from(mount), PathBuf::from(host)));
        Self::new(mounts)
    }

    /// A mapping from pairs of mount path and host path.
    pub fn new(mounts: impl IntoIterator<Item = (PathBuf, PathBuf)>) -> Self {
        let mut mounts: Vec<_> = mounts.into_iter().collect();
        mounts.sort_by_key(|(mount, _)| std::cmp::Reverse(mount.components().count()));
        Self { mounts }
    }

    /// The value of [`VARIABLE`] that [`Volumes::parse`] reads back.
    pub fn to_env(&self) -> String {
        let lines: Vec<String> = self
            .mounts
            .iter()
            .map(|(mount, host)| format!("{}={}", mount.display(), host.display()))
            .collect();
        lines.join("\n")
    }

    /// As [`locate`], with this mapping.
    pub fn locate(&self, path: &Path) -> PathBuf {
        let Some(wanted) = without_dots(path) else {
            return path.to_path_buf();
        };
        for (mount, host) in &self.mounts {
            if let Ok(rest) = wanted.strip_prefix(mount) {
                let inside = rest.as_os_str().is_empty();
                return if inside { host.clone() } else { host.join(rest) };
            }
        }
        path.to_path_buf()
    }
}

/// The absolute path without `.` and `..`; none when it is relative or climbs above the root.
fn without_dots(path: &Path) -> Option<PathBuf> {
    if !path.is_absolute() {
        return None;
    }
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                if !clean.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(path: &str) -> String {
        let volumes = Volumes::parse("/conf=/s/conf\n/conf/tls=/s/tls\nnonsense\nrelative=/x\n");
        volumes.locate(Path::new(path)).display().to_string()
    }

    #[test]
    fn the_longest_mount_wins() {
        assert_eq!(located("/conf/collector.yaml"), "/s/conf/collector.yaml");
        assert_eq!(located("/conf/tls/tls.crt"), "/s/tls/tls.crt");
        assert_eq!(located("/conf"), "/s/conf");
        assert_eq!(located("/config/collector.yaml"), "/config/collector.yaml");
        assert_eq!(located("collector.yaml"), "collector.yaml");
    }

    #[test]
    fn no_dots_leave_a_mount() {
        assert_eq!(located("/conf/../etc/passwd"), "/conf/../etc/passwd");
        assert_eq!(located("/conf/tls/../collector.yaml"), "/s/conf/collector.yaml");
        assert_eq!(located("/../../conf/x"), "/../../conf/x");
    }

    #[test]
    fn writes_what_it_reads() {
        let volumes = Volumes::new([("/a".into(), "/1".into()), ("/a/b".into(), "/2".into())]);
        assert_eq!(volumes.to_env(), "/a/b=/2\n/a=/1");
        assert_eq!(Volumes::parse(&volumes.to_env()), volumes);
    }
}
