//! A `TargetAllocator` resource: the allocator that it declares, for all collectors whose label names it.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use karez_kubernetes::{
    CollectorMode, IMAGE, OpenTelemetryCollector, TargetAllocator as Declared, VERSION, labels,
};
use serde_json::{Value, json};

use super::{TargetAllocator, config_of, named, prometheus, selector_of};
use crate::object::reference;
use crate::plan::collector::{Surroundings, dns_name};
use crate::plan::{Note, Plan};

const API_VERSION: &str = "opentelemetry.io/v1alpha1";
const KIND: &str = "TargetAllocator";

/// Plans one resource.
pub(crate) fn plan(declared: &Declared, around: &Surroundings<'_>) -> Plan {
    let mut plan = Plan::default();
    if declared.metadata.deletion_timestamp.is_some() || declared.is_unmanaged() {
        return plan;
    }
    let allocator = TargetAllocator::of_resource(declared, around.collectors);
    if allocator.collectors.is_empty() {
        let name = declared.metadata.name.as_deref().unwrap_or_default();
        let message = format!(
            "no OpenTelemetryCollector of this namespace has the label {}: {name}, so that targets are given to nobody",
            labels::TARGET_ALLOCATOR
        );
        plan.notes.push(note(declared, "NoCollector", message));
    }
    allocator.issue(around.issuing, &mut plan);
    plan.objects = allocator.objects();
    plan.statuses.push(json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": allocator.base, "namespace": allocator.namespace},
        "status": {"version": VERSION, "image": allocator.image().unwrap_or(IMAGE)},
    }));
    let instance = allocator.instance();
    let own = around.managed.iter().filter(|(object, labels)| {
        object.namespace == allocator.namespace
            && labels.get(labels::MANAGED).map(String::as_str) == Some(allocator.managed)
            && labels.get(labels::APP_INSTANCE) == Some(&instance)
    });
    plan.prune(own.map(|(object, _)| object));
    plan
}

fn note(declared: &Declared, reason: &'static str, message: String) -> Note {
    Note {
        about: reference(API_VERSION, KIND, &declared.metadata),
        warning: true,
        reason,
        message,
    }
}

/// The collectors that are to ask an allocator.
fn asking<'a>(
    declared: &'a Declared,
    collectors: &'a [Arc<OpenTelemetryCollector>],
) -> impl Iterator<Item = &'a OpenTelemetryCollector> {
    let ask = |collector: &&OpenTelemetryCollector| {
        let inside = collector
            .spec
            .target_allocator
            .as_ref()
            .is_some_and(|own| own["enabled"] == true);
        !inside
            && collector.mode() != CollectorMode::Sidecar
            && collector.metadata.deletion_timestamp.is_none()
            && named(collector) == declared.metadata.name.as_deref()
    };
    collectors.iter().map(|collector| &**collector).filter(ask)
}

impl TargetAllocator {
    /// The one that a resource declares. Its own jobs come before those that its collectors' receivers hold; of two with
    /// one name the first counts.
    pub(super) fn of_resource(declared: &Declared, collectors: &[Arc<OpenTelemetryCollector>]) -> Self {
        let base = declared.metadata.name.clone().unwrap_or_default();
        let spec = Value::Object(declared.spec.fields.clone());
        let mut global = spec["global"].clone();
        let mut scrape_configs = spec["scrapeConfigs"].as_array().cloned().unwrap_or_default();
        let (mut per_node, mut foreign, mut selectors) = (false, false, Vec::new());
        for collector in asking(declared, collectors) {
            let (theirs, jobs) = prometheus(&config_of(collector));
            if global.is_null() {
                global = theirs;
            }
            for job in jobs {
                if !scrape_configs
                    .iter()
                    .any(|known| known["job_name"] == job["job_name"])
                {
                    scrape_configs.push(job);
                }
            }
            per_node |= collector.mode() == CollectorMode::DaemonSet;
            foreign |= collector.spec.image.iter().any(|image| !image.is_empty());
            selectors.push(selector_of(collector));
        }
        let annotations = serde_json::from_value(spec["podAnnotations"].clone()).unwrap_or_default();
        let mut allocator = TargetAllocator {
            name: dns_name(&format!("{base}-targetallocator")),
            namespace: declared.metadata.namespace.clone().unwrap_or_default(),
            owner: OwnerReference {
                api_version: API_VERSION.to_owned(),
                kind: KIND.to_owned(),
                name: base.clone(),
                uid: declared.metadata.uid.clone().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            },
            managed: "allocator",
            collectors: selectors,
            spec,
            base,
            per_node,
            annotations,
            global,
            scrape_configs,
            tls: false,
        };
        allocator.tls = allocator.wants_tls(declared.metadata.annotations.as_ref(), foreign);
        allocator
    }
}
