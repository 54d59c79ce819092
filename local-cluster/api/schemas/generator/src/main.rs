//! Writes the schemas of the kinds that the local API serves: `cargo run -- K8S_OPENAPI_SOURCE > ../builtin.json`.
//!
//! The shapes come from `k8s-openapi`'s `JsonSchema` implementations; the merge keys from the `DeepMerge`
//! implementations in its source (the argument: the folder `src/v1_34` of the crate). Descriptions are dropped.
use k8s_openapi::api::{
    admissionregistration::v1 as adm, apps::v1 as apps, authentication::v1 as authn, authorization::v1 as authz,
    autoscaling::v1 as scale, autoscaling::v2 as hpa, batch::v1 as batch, coordination::v1 as coord, core::v1 as core,
    discovery::v1 as disc, events::v1 as events, networking::v1 as net, policy::v1 as policy, rbac::v1 as rbac,
    scheduling::v1 as sched, storage::v1 as storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as ext;
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, fs, path::Path};

/// Rust field -> (strategy, keys) for each definition.
type Merge = BTreeMap<String, BTreeMap<String, (String, Vec<String>)>>;

fn main() {
    let source = std::env::args().nth(1).expect("usage: schema-generator K8S_OPENAPI/src/v1_34");
    let mut settings = SchemaSettings::openapi3();
    settings.definitions_path = "/components/schemas".into();
    let mut r#gen = SchemaGenerator::new(settings);
    macro_rules! kinds { ($($t:ty),* $(,)?) => { $( r#gen.subschema_for::<$t>(); )* } }
    kinds!(
        core::Pod, core::Service, core::ConfigMap, core::Secret, core::ServiceAccount, core::Namespace, core::Node,
        core::Event, core::Endpoints, core::PersistentVolumeClaim, core::PersistentVolume, core::ResourceQuota,
        core::LimitRange,
        apps::Deployment, apps::ReplicaSet, apps::StatefulSet, apps::DaemonSet, apps::ControllerRevision,
        batch::Job, batch::CronJob, disc::EndpointSlice, coord::Lease, rbac::Role, rbac::RoleBinding,
        rbac::ClusterRole, rbac::ClusterRoleBinding, net::Ingress, net::NetworkPolicy, net::IngressClass,
        policy::PodDisruptionBudget, policy::Eviction, hpa::HorizontalPodAutoscaler, scale::Scale, ext::CustomResourceDefinition,
        adm::MutatingWebhookConfiguration, adm::ValidatingWebhookConfiguration, events::Event,
        authz::SelfSubjectAccessReview, authz::SelfSubjectRulesReview, authz::SubjectAccessReview,
        authn::TokenRequest, authn::TokenReview, authn::SelfSubjectReview,
        sched::PriorityClass, storage::StorageClass,
        k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions,
    );
    let mut definitions: Map<String, Value> = r#gen.take_definitions(true);
    let mut merge = Merge::new();
    read_merges(Path::new(&source), &mut merge);
    for (name, schema) in &mut definitions {
        strip(schema);
        if let Some(fields) = merge.get(name) {
            annotate(schema, fields);
        }
    }
    amend(&mut definitions);
    println!("{{");
    let last = definitions.len() - 1;
    for (i, (name, schema)) in definitions.iter().enumerate() {
        println!("{}:{}{}", json!(name), schema, if i == last { "" } else { "," });
    }
    println!("}}");
}

/// Drops descriptions, turns `{$ref, siblings}` into a bare reference.
fn strip(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    object.remove("description");
    object.remove("title");
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(strip);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = object.get_mut(key) {
            strip(inner);
        }
    }
}

fn annotate(schema: &mut Value, fields: &BTreeMap<String, (String, Vec<String>)>) {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (field, (strategy, keys)) in fields {
        let Some(property) = properties.get_mut(field).and_then(Value::as_object_mut) else {
            eprintln!("no property {field}");
            continue;
        };
        match strategy.as_str() {
            "list::map" => {
                property.insert("x-kubernetes-list-type".into(), json!("map"));
                property.insert("x-kubernetes-list-map-keys".into(), json!(keys));
                property.insert("x-kubernetes-patch-strategy".into(), json!("merge"));
                property.insert("x-kubernetes-patch-merge-key".into(), json!(keys[0]));
            }
            "list::set" => {
                property.insert("x-kubernetes-list-type".into(), json!("set"));
                property.insert("x-kubernetes-patch-strategy".into(), json!("merge"));
            }
            "map::atomic" => {
                property.insert("x-kubernetes-map-type".into(), json!("atomic"));
            }
            _ => {}
        }
    }
}

/// What `DeepMerge` does not tell: second keys with their defaults, and the strategy `retainKeys`.
fn amend(definitions: &mut Map<String, Value>) {
    const CORE: &str = "io.k8s.api.core.v1.";
    let keys = [
        ("Container", "ports", json!(["containerPort", "protocol"])),
        ("EphemeralContainer", "ports", json!(["containerPort", "protocol"])),
        ("ServiceSpec", "ports", json!(["port", "protocol"])),
        ("PodSpec", "topologySpreadConstraints", json!(["topologyKey", "whenUnsatisfiable"])),
    ];
    for (name, field, keys) in keys {
        definitions[&format!("{CORE}{name}")]["properties"][field]["x-kubernetes-list-map-keys"] = keys;
    }
    for name in ["ContainerPort", "ServicePort"] {
        definitions[&format!("{CORE}{name}")]["properties"]["protocol"]["default"] = json!("TCP");
    }
    definitions[&format!("{CORE}PodSpec")]["properties"]["volumes"]["x-kubernetes-patch-strategy"] = json!("merge,retainKeys");
    let free = json!({"x-kubernetes-preserve-unknown-fields": true});
    definitions["io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON"] = free.clone();
    for name in ["apis.meta.v1.FieldsV1", "runtime.RawExtension"] {
        if let Some(schema) = definitions.get_mut(&format!("io.k8s.apimachinery.pkg.{name}")) {
            *schema = free.clone();
        }
    }
    // Structs that server-side apply takes as one value.
    const ATOMIC: &[&str] = &[
        "api.core.v1.ConfigMapKeySelector", "api.core.v1.EndpointAddress", "api.core.v1.EndpointPort", "api.core.v1.FileKeySelector",
        "api.core.v1.LocalObjectReference", "api.core.v1.NodeSelector", "api.core.v1.NodeSelectorTerm", "api.core.v1.ObjectFieldSelector",
        "api.core.v1.ObjectReference", "api.core.v1.ResourceFieldSelector", "api.core.v1.ScopeSelector", "api.core.v1.SecretKeySelector",
        "api.core.v1.SecretReference", "api.core.v1.TypedLocalObjectReference", "api.networking.v1.ServiceBackendPort",
        "api.rbac.v1.RoleRef", "api.rbac.v1.Subject", "apimachinery.pkg.apis.meta.v1.LabelSelector", "apimachinery.pkg.apis.meta.v1.OwnerReference",
        "api.discovery.v1.EndpointPort",
    ];
    for name in ATOMIC {
        if let Some(schema) = definitions.get_mut(&format!("io.k8s.{name}")) {
            schema["x-kubernetes-map-type"] = json!("atomic");
        }
    }
    definitions["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"]["x-kubernetes-patch-strategy"] =
        json!("retainKeys");
}

fn read_merges(folder: &Path, out: &mut Merge) {
    for entry in fs::read_dir(folder).expect("source folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_merges(&path, out);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let Some(name) = text.strip_prefix("// Generated from definition ").and_then(|t| t.lines().next()) else {
                continue;
            };
            let names = json_names(&text);
            let mut rest = text.as_str();
            while let Some(at) = rest.find("crate::merge_strategies::") {
                rest = &rest[at + "crate::merge_strategies::".len()..];
                let strategy = rest.split('(').next().unwrap_or_default().to_owned();
                let end = rest.find(";\n").unwrap_or(rest.len());
                let call = &rest[..end];
                let Some(field) = between(call, "&mut self.", ",") else { continue };
                let keys = call
                    .split("|lhs, rhs| lhs.")
                    .skip(1)
                    .filter_map(|k| k.split(" ==").next())
                    .map(camel)
                    .collect();
                let Some(json) = names.get(field) else { continue };
                out.entry(name.trim().to_owned()).or_default().insert(json.clone(), (strategy, keys));
            }
        }
    }
}

/// Rust field -> JSON name, as the `Deserialize` implementation spells both.
fn json_names(text: &str) -> BTreeMap<&str, String> {
    text.lines()
        .filter_map(|line| {
            let (json, rust) = line.trim().strip_prefix('"')?.split_once("\" => Field::Key_")?;
            Some((rust.trim_end_matches(','), json.to_owned()))
        })
        .collect()
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    text.split_once(from)?.1.split_once(to).map(|(field, _)| field.trim())
}

fn camel(snake: &str) -> String {
    let mut parts = snake.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |mut out, part| {
        if part == "ip" || part == "uid" {
            out.push_str(&part.to_uppercase());
        } else if let Some(c) = part.chars().next() {
            out.extend(c.to_uppercase());
            out.push_str(&part[c.len_utf8()..]);
        }
        out
    })
}
