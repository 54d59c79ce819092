//! What `fieldRef` and `resourceFieldRef` mean: facts about a Pod, as text.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use kube::ResourceExt;

/// A Pod and what the runtime gave it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) address: IpAddr,
    pub(crate) host: IpAddr,
}

impl View<'_> {
    /// The namespace.
    pub(crate) fn namespace(&self) -> String {
        self.pod.namespace().unwrap_or_else(|| "default".into())
    }

    /// The value of a field path; none when there is no such field.
    pub(crate) fn field(&self, path: &str) -> Option<String> {
        let spec = self.pod.spec.as_ref();
        let value = match path {
            "metadata.name" => self.pod.name_any(),
            "metadata.namespace" => self.namespace(),
            "metadata.uid" => self.pod.uid().unwrap_or_default(),
            "metadata.labels" => lines(self.pod.labels()),
            "metadata.annotations" => lines(self.pod.annotations()),
            "spec.nodeName" => spec?.node_name.clone().unwrap_or_default(),
            "spec.serviceAccountName" => service_account(self.pod).to_owned(),
            "status.podIP" | "status.podIPs" => self.address.to_string(),
            "status.hostIP" | "status.hostIPs" => self.host.to_string(),
            _ => return self.one_of(path),
        };
        Some(value)
    }

    /// `metadata.labels['key']`; a missing key is empty, as in Kubernetes.
    fn one_of(&self, path: &str) -> Option<String> {
        let (map, rest) = if let Some(rest) = path.strip_prefix("metadata.labels[") {
            (self.pod.labels(), rest)
        } else {
            (
                self.pod.annotations(),
                path.strip_prefix("metadata.annotations[")?,
            )
        };
        let key = rest.strip_suffix(']')?.trim_matches(['\'', '"']);
        Some(map.get(key).cloned().unwrap_or_default())
    }

    /// The value of a resource of `container`, or of the one that the selector names.
    pub(crate) fn resource(&self, container: &Container, selector: &ResourceFieldSelector) -> Option<String> {
        let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
        let containers = self.pod.spec.as_ref().map_or(&[][..], |spec| &spec.containers);
        let container = match named {
            Some(name) => containers.iter().find(|one| one.name == name)?,
            None => container,
        };
        let (kind, resource) = selector.resource.split_once('.')?;
        let resources = container.resources.as_ref();
        let given = match kind {
            "limits" => resources.and_then(|all| all.limits.as_ref()),
            "requests" => resources.and_then(|all| all.requests.as_ref()),
            _ => return None,
        };
        let given = given
            .and_then(|all| all.get(resource))
            .and_then(|quantity| millis(&quantity.0));
        let value = given
            .or_else(|| (kind == "limits").then(|| machine(resource)).flatten())
            .unwrap_or(0);
        let divisor = selector
            .divisor
            .as_ref()
            .and_then(|divisor| millis(&divisor.0))
            .filter(|one| *one > 0);
        let divisor = divisor.unwrap_or(1000);
        Some(((value + divisor - 1) / divisor).to_string())
    }
}

/// The service account a Pod runs under.
pub(crate) fn service_account(pod: &Pod) -> &str {
    let spec = pod.spec.as_ref();
    let given = spec.and_then(|spec| {
        spec.service_account_name
            .as_deref()
            .or(spec.service_account.as_deref())
    });
    given.filter(|name| !name.is_empty()).unwrap_or("default")
}

fn lines(map: &BTreeMap<String, String>) -> String {
    map.iter()
        .map(|(key, value)| format!("{key}={value:?}\n"))
        .collect()
}

/// What a container without a limit may use: the machine's.
fn machine(resource: &str) -> Option<i128> {
    match resource {
        "cpu" => std::thread::available_parallelism()
            .ok()
            .and_then(|n| i128::try_from(n.get()).ok())
            .map(|n| n * 1000),
        "memory" => memory_of(&std::fs::read_to_string("/proc/meminfo").ok()?).map(|bytes| bytes * 1000),
        _ => None,
    }
}

/// The bytes of `MemTotal` in /proc/meminfo.
pub(crate) fn memory_of(meminfo: &str) -> Option<i128> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: i128 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// A quantity in thousandths: `500m`, `2`, `1.5Gi`, `1e3`.
fn millis(text: &str) -> Option<i128> {
    const SUFFIXES: [(&str, f64); 13] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("m", 0.001),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let text = text.trim();
    let with_suffix = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)));
    let (number, factor) = with_suffix.unwrap_or((text, 1.0));
    let value = number.parse::<f64>().ok()? * factor * 1000.0;
    // Beyond this no quantity of a machine lies; the conversion below is exact enough and cannot overflow.
    (value.is_finite() && value.abs() < 1e30).then(|| value.ceil() as i128)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_and_resources() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "labels": {"a": "b\n"}},
            "spec": {"nodeName": "here", "containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}}]}
        }))
        .unwrap();
        let view = View {
            pod: &pod,
            address: "127.9.8.2".parse().unwrap(),
            host: "127.9.8.1".parse().unwrap(),
        };
        let field = |path: &str| view.field(path).unwrap();
        assert_eq!(field("spec.nodeName"), "here");
        assert_eq!(field("status.podIP"), "127.9.8.2");
        assert_eq!(field("metadata.labels['a']"), "b\n");
        assert_eq!(field("metadata.labels"), "a=\"b\\n\"\n");
        assert_eq!(field("metadata.annotations['x']"), "");
        assert_eq!(view.field("spec.x"), None);
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let resource = |resource: &str, divisor: &str| {
            let selector = json!({"resource": resource, "divisor": divisor});
            view.resource(container, &serde_json::from_value(selector).unwrap())
        };
        assert_eq!(resource("limits.cpu", "1").as_deref(), Some("2"));
        assert_eq!(resource("limits.cpu", "1m").as_deref(), Some("1500"));
        assert_eq!(resource("limits.memory", "1Mi").as_deref(), Some("64"));
        assert_eq!(resource("requests.memory", "1Mi").as_deref(), Some("0"));
        assert_eq!(resource("nothing", "1"), None);
    }
}
