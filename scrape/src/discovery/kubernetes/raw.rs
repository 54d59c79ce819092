//! Objects of the API as their JSON has them, borrowed from it: only what labels are made of. A cluster has a hundred
//! thousand Pods of some kilobytes each, of which a few hundred bytes are ever read.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// A text; empty where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Text<'a>(Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_unit<E>(self) -> Result<Text<'de>, E> {
                Ok(Text::default())
            }
        }
        deserializer.deserialize_any(Read)
    }
}

/// Texts by name, in the order of names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Map<'a>(pub(super) Vec<(Text<'a>, Text<'a>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Map<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Map<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("texts by name")
            }

            fn visit_unit<E>(self) -> Result<Map<'de>, E> {
                Ok(Map::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Map<'de>, A::Error> {
                let mut all: Vec<(Text<'de>, Text<'de>)> = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    all.push(entry);
                }
                all.sort_by(|(a, _), (b, _)| a.0.cmp(&b.0));
                Ok(Map(all))
            }
        }
        deserializer.deserialize_any(Read)
    }
}

/// What may be `null` is then as if it were not there.
fn null<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Declares objects with the fields that are read.
macro_rules! objects {
    ($($(#[$about:meta])* $name:ident { $($(#[$how:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$about])*
            #[derive(Debug, Default, serde::Deserialize)]
            #[serde(default, rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
            pub(super) struct $name<'a> {
                $($(#[$how])* #[serde(deserialize_with = "null")] pub(super) $field: $type,)*
                #[serde(skip)]
                borrowed: std::marker::PhantomData<&'a ()>,
            }
        )*
    };
}

objects! {
    /// What every object has.
    Meta {
        name: Text<'a>,
        namespace: Text<'a>,
        uid: Text<'a>,
        resource_version: Text<'a>,
        labels: Map<'a>,
        annotations: Map<'a>,
        owner_references: Vec<Owner<'a>>,
    }
    /// What an object belongs to.
    Owner { kind: Text<'a>, name: Text<'a>, controller: bool, }
    /// An object that another speaks of.
    Reference { kind: Text<'a>, namespace: Text<'a>, name: Text<'a>, }
    /// A Pod.
    Pod { metadata: Meta<'a>, spec: PodSpec<'a>, status: PodStatus<'a>, }
    /// What it is to be.
    PodSpec { node_name: Text<'a>, containers: Vec<Container<'a>>, init_containers: Vec<Container<'a>>, }
    /// A container.
    Container { name: Text<'a>, image: Text<'a>, ports: Vec<ContainerPort<'a>>, }
    /// One of its ports.
    ContainerPort { name: Text<'a>, container_port: i32, protocol: Text<'a>, }
    /// What it is.
    PodStatus {
        #[serde(rename = "podIP")]
        pod_ip: Text<'a>,
        #[serde(rename = "hostIP")]
        host_ip: Text<'a>,
        phase: Text<'a>,
        conditions: Vec<Condition<'a>>,
        container_statuses: Vec<ContainerStatus<'a>>,
        init_container_statuses: Vec<ContainerStatus<'a>>,
    }
    /// Something that holds of an object, or does not.
    Condition { #[serde(rename = "type")] kind: Text<'a>, status: Text<'a>, }
    /// What a container is.
    ContainerStatus { name: Text<'a>, #[serde(rename = "containerID")] container_id: Text<'a>, }
    /// A Service.
    Service { metadata: Meta<'a>, spec: ServiceSpec<'a>, }
    /// What it is to be.
    ServiceSpec {
        #[serde(rename = "type")]
        kind: Text<'a>,
        #[serde(rename = "clusterIP")]
        cluster_ip: Text<'a>,
        #[serde(rename = "loadBalancerIP")]
        load_balancer_ip: Text<'a>,
        external_name: Text<'a>,
        ports: Vec<ServicePort<'a>>,
    }
    /// One of its ports.
    ServicePort { name: Text<'a>, port: i32, protocol: Text<'a>, }
    /// A Node.
    Node { metadata: Meta<'a>, spec: NodeSpec<'a>, status: NodeStatus<'a>, }
    /// What it is to be.
    NodeSpec { #[serde(rename = "providerID")] provider_id: Text<'a>, }
    /// What it is.
    NodeStatus { addresses: Vec<NodeAddress<'a>>, conditions: Vec<Condition<'a>>, daemon_endpoints: Daemons<'a>, }
    /// One of its addresses.
    NodeAddress { #[serde(rename = "type")] kind: Text<'a>, address: Text<'a>, }
    /// Where its programs listen.
    Daemons { kubelet_endpoint: Daemon<'a>, }
    /// Where one listens.
    Daemon { #[serde(rename = "Port")] port: i32, }
    /// A Namespace.
    Namespace { metadata: Meta<'a>, }
    /// Endpoints.
    Endpoints { metadata: Meta<'a>, subsets: Vec<Subset<'a>>, }
    /// Addresses with the same ports.
    Subset { addresses: Vec<Address<'a>>, not_ready_addresses: Vec<Address<'a>>, ports: Vec<EndpointPort<'a>>, }
    /// One of them.
    Address { ip: Text<'a>, hostname: Text<'a>, node_name: Text<'a>, target_ref: Reference<'a>, }
    /// A port of endpoints.
    EndpointPort { name: Text<'a>, port: Option<i32>, protocol: Text<'a>, app_protocol: Text<'a>, }
    /// An EndpointSlice.
    EndpointSlice {
        metadata: Meta<'a>,
        address_type: Text<'a>,
        endpoints: Vec<Endpoint<'a>>,
        ports: Vec<EndpointPort<'a>>,
    }
    /// One of its endpoints.
    Endpoint {
        addresses: Vec<Text<'a>>,
        conditions: EndpointConditions<'a>,
        hostname: Text<'a>,
        node_name: Text<'a>,
        zone: Text<'a>,
        target_ref: Reference<'a>,
        deprecated_topology: Map<'a>,
    }
    /// What holds of it.
    EndpointConditions { ready: Option<bool>, serving: Option<bool>, terminating: Option<bool>, }
    /// An Ingress.
    Ingress { metadata: Meta<'a>, spec: IngressSpec<'a>, }
    /// What it is to be.
    IngressSpec { ingress_class_name: Text<'a>, tls: Vec<IngressTls<'a>>, rules: Vec<IngressRule<'a>>, }
    /// Hosts with a certificate.
    IngressTls { hosts: Vec<Text<'a>>, }
    /// A host.
    IngressRule { host: Text<'a>, http: IngressHttp<'a>, }
    /// What is asked there.
    IngressHttp { paths: Vec<IngressPath<'a>>, }
    /// A path.
    IngressPath { path: Text<'a>, }
    /// What a page of a list says of the list.
    ListMeta { resource_version: Text<'a>, #[serde(rename = "continue")] more: Text<'a>, }
    /// What the API says when it does not do what it was asked.
    Status { message: Text<'a>, code: u16, }
}

/// What has a name.
pub(super) trait Object<'a> {
    /// Its name and what belongs to every object.
    fn meta(&self) -> &Meta<'a>;
}

macro_rules! named {
    ($($name:ident)*) => {
        $(impl<'a> Object<'a> for $name<'a> {
            fn meta(&self) -> &Meta<'a> {
                &self.metadata
            }
        })*
    };
}

named!(Pod Service Node Namespace Endpoints EndpointSlice Ingress);

/// A page of a list.
#[derive(serde::Deserialize)]
#[serde(bound(deserialize = "T: serde::Deserialize<'de>"))]
pub(super) struct Page<T> {
    #[serde(default, deserialize_with = "null")]
    pub(super) items: Vec<T>,
}

/// What a watch tells of an object.
#[derive(serde::Deserialize)]
#[serde(bound(deserialize = "'de: 'a, T: serde::Deserialize<'de>"))]
pub(super) struct Line<'a, T> {
    #[serde(rename = "type")]
    pub(super) kind: Text<'a>,
    pub(super) object: T,
}

/// What a page says of its list: it comes before the objects, which are not looked at.
pub(super) fn head(page: &[u8]) -> Option<ListMeta<'_>> {
    struct Head<'s, 'a>(&'s mut Option<ListMeta<'a>>);
    impl<'de: 'a, 'a> Visitor<'de> for Head<'_, 'a> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(name) = map.next_key::<Text<'de>>()? {
                if &*name == "metadata" {
                    *self.0 = Some(map.next_value()?);
                    // The rest is left, which the reader takes for an error that nobody looks at.
                    return Ok(());
                }
                map.next_value::<serde::de::IgnoredAny>()?;
            }
            Ok(())
        }
    }
    let mut found = None;
    let _ = serde_json::Deserializer::from_slice(page).deserialize_map(Head(&mut found));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_null_or_missing_is_empty_and_texts_may_be_escaped() {
        let text = r#"{"kind":"PodList","metadata":{"resourceVersion":"7","continue":"x"},"items":[
            {"metadata":{"name":"a","labels":null,"annotations":{"b":"\"q\"","a":"1"},"ownerReferences":[{"kind":"R","name":"r"}]},
             "spec":{"containers":null,"other":[{"x":1}]},"status":{"podIP":null}},{"status":null}]}"#;
        let page: Page<Pod<'_>> = serde_json::from_str(text).unwrap();
        let meta = &page.items[0].metadata;
        let all: Vec<(&str, &str)> = meta.annotations.0.iter().map(|(a, b)| (&**a, &**b)).collect();
        assert_eq!(all, [("a", "1"), ("b", "\"q\"")]);
        assert!(!meta.owner_references[0].controller && meta.labels.0.is_empty());
        assert_eq!(&*page.items[1].status.pod_ip, "");
        let head = head(text.as_bytes()).unwrap();
        assert_eq!((&*head.resource_version, &*head.more), ("7", "x"));
        assert!(super::head(b"{\"items\":[").is_none());
    }
}
