//! The names file: which Services and Pods a local cluster has, and where they are ready. The runtime writes it, whole
//! and atomically, on every change; `NamesFile` reads it again when it has changed.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// A larger file is not the runtime's.
const MAX_FILE: u64 = 32 << 20;

/// What the file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Names {
    /// Where a bare name is looked up by a process that has no namespace of its own.
    pub namespace: String,
    /// The suffix of full names.
    pub cluster_domain: String,
    /// The Services, of all namespaces.
    pub services: Vec<Service>,
    /// The Pods that have a name of their own (`hostname` and `subdomain`).
    pub pods: Vec<Pod>,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            namespace: "default".into(),
            cluster_domain: "cluster.local".into(),
            services: Vec::new(),
            pods: Vec::new(),
        }
    }
}

/// A Service and where it is ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Whether a look-up gives the Pods themselves, each with whatever port is asked for.
    pub headless: bool,
    /// Its virtual address, where the cluster gives one: answered as the Service is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_ip: Option<IpAddr>,
    /// The name it stands for (type ExternalName).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_name: Option<String>,
}

/// One port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Port {
    /// Its name, empty where it has none.
    pub name: String,
    /// Its number.
    pub port: u16,
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// The ready Pods' addresses, with the target port.
    pub endpoints: Vec<SocketAddr>,
}

/// A Pod with a name of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its host name.
    pub hostname: String,
    /// The headless Service that it is named under.
    pub subdomain: String,
    /// Its address.
    pub address: IpAddr,
}

/// What a host name means in the cluster.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning<'a> {
    Service(&'a Service),
    Pod(&'a Pod),
    /// It has a Service's form with the cluster's suffix, and there is none: no use asking the system.
    Absent,
    /// Not a name of the cluster.
    Foreign,
}

impl Names {
    /// What `host` means to a process in `namespace`.
    pub(crate) fn meaning(&self, host: &str, namespace: &str) -> Meaning<'_> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if let Ok(address) = host.parse::<IpAddr>() {
            let service = self
                .services
                .iter()
                .find(|service| service.cluster_ip == Some(address));
            return service.map_or(Meaning::Foreign, Meaning::Service);
        }
        let full = format!(".svc.{}", self.cluster_domain);
        let (short, ours) = match host.strip_suffix(&full).or_else(|| host.strip_suffix(".svc")) {
            Some(short) => (short, true),
            None => (host.as_str(), false),
        };
        let parts: Vec<&str> = short.split('.').collect();
        let found = match parts.as_slice() {
            [name] if !ours => self.service(namespace, name).map(Meaning::Service),
            [name, space] => self.service(space, name).map(Meaning::Service).or_else(|| {
                self.pod(namespace, name, space)
                    .filter(|_| !ours)
                    .map(Meaning::Pod)
            }),
            [pod, service, space] => self.pod(space, pod, service).map(Meaning::Pod),
            _ => None,
        };
        found.unwrap_or(if ours { Meaning::Absent } else { Meaning::Foreign })
    }

    fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.services
            .iter()
            .find(|service| service.namespace == namespace && service.name == name)
    }

    fn pod(&self, namespace: &str, hostname: &str, subdomain: &str) -> Option<&Pod> {
        let wanted = (namespace, hostname, subdomain);
        self.pods.iter().find(|pod| {
            (
                pod.namespace.as_str(),
                pod.hostname.as_str(),
                pod.subdomain.as_str(),
            ) == wanted
        })
    }
}

/// A names file that is read again when it has changed.
#[derive(Debug)]
pub(crate) struct NamesFile {
    path: PathBuf,
    known: Mutex<Option<(Stamp, Arc<Names>)>>,
}

/// What tells one content from the next: the file is replaced, never written in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl NamesFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            known: Mutex::new(None),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The current content. A file that cannot be read leaves what was known before.
    pub(crate) fn current(&self) -> io::Result<Arc<Names>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match self.read(known.as_ref().map(|(stamp, _)| *stamp)) {
            Ok(None) => {}
            Ok(Some(fresh)) => *known = Some(fresh),
            Err(error) if known.is_none() => return Err(error),
            Err(error) => {
                tracing::warn!(file = %self.path.display(), %error, "names file not read: using the last")
            }
        }
        known
            .as_ref()
            .map(|(_, names)| Arc::clone(names))
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn read(&self, known: Option<Stamp>) -> io::Result<Option<(Stamp, Arc<Names>)>> {
        let about = fs::metadata(&self.path)?;
        let stamp = Stamp {
            inode: about.ino(),
            length: about.len(),
            changed: (about.mtime(), about.mtime_nsec()),
        };
        if known == Some(stamp) {
            return Ok(None);
        }
        if stamp.length > MAX_FILE {
            return Err(io::Error::other(format!(
                "{} bytes are more than a names file has",
                stamp.length
            )));
        }
        let names = serde_json::from_slice(&fs::read(&self.path)?)?;
        Ok(Some((stamp, Arc::new(names))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let text = r#"{"namespace":"default","clusterDomain":"cluster.local","services":[
            {"namespace":"default","name":"a","ports":[{"name":"otlp","port":4317,"protocol":"TCP","endpoints":["127.9.8.5:1024"]}],"headless":false},
            {"namespace":"other","name":"b","ports":[],"headless":true,"clusterIp":"10.0.0.7"}],
            "pods":[{"namespace":"other","hostname":"b-0","subdomain":"b","address":"127.9.8.6"}]}"#;
        serde_json::from_str(text).unwrap()
    }

    fn service(meaning: &Meaning<'_>) -> Option<String> {
        match meaning {
            Meaning::Service(service) => Some(service.name.clone()),
            _ => None,
        }
    }

    #[test]
    fn all_forms_of_a_services_name() {
        let names = names();
        for host in [
            "a",
            "A",
            "a.default",
            "a.default.svc",
            "a.default.svc.cluster.local",
            "a.default.svc.cluster.local.",
        ] {
            assert_eq!(
                service(&names.meaning(host, "default")).as_deref(),
                Some("a"),
                "{host}"
            );
        }
        assert_eq!(
            service(&names.meaning("10.0.0.7", "default")).as_deref(),
            Some("b")
        );
        assert_eq!(names.meaning("a", "other"), Meaning::Foreign);
        assert_eq!(names.meaning("a.other.svc", "default"), Meaning::Absent);
        assert_eq!(names.meaning("example.com", "default"), Meaning::Foreign);
        assert!(matches!(
            names.meaning("b-0.b.other.svc", "default"),
            Meaning::Pod(_)
        ));
        assert!(matches!(names.meaning("b-0.b", "other"), Meaning::Pod(_)));
    }

    #[test]
    fn reads_the_file_again_when_it_was_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("names.json");
        let file = NamesFile::new(path.clone());
        assert!(file.current().is_err());
        let replace = |text: &str| {
            fs::write(folder.path().join("new"), text).unwrap();
            fs::rename(folder.path().join("new"), &path).unwrap();
        };
        replace(&serde_json::to_string(&names()).unwrap());
        assert_eq!(file.current().unwrap().services.len(), 2);
        replace("{}");
        assert_eq!(*file.current().unwrap(), Names::default());
        replace("not JSON");
        assert_eq!(*file.current().unwrap(), Names::default());
    }
}
