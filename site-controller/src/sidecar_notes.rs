//! What to tell the owner of a Deployment whose pods ask for a sidecar.

use k8s_openapi::api::apps::v1::Deployment;
use karez_kubernetes::{CollectorMode, OpenTelemetryCollector, labels};

use crate::inject::{annotation, select};
use crate::object::reference;
use crate::plan::Note;

/// A note when a Deployment's pods ask for a sidecar: who it is, or why there is none.
pub(crate) fn note(deployment: &Deployment, collectors: &[OpenTelemetryCollector]) -> Option<Note> {
    let template = deployment.spec.as_ref()?.template.metadata.as_ref()?;
    let wanted = annotation(template.annotations.as_ref())?;
    if wanted.is_empty() || wanted.eq_ignore_ascii_case("false") {
        return None;
    }
    let namespace = deployment.metadata.namespace.as_deref()?;
    let place = place(deployment);
    let note = |warning, reason, message| {
        Some(Note {
            about: reference("apps/v1", "Deployment", &deployment.metadata),
            warning,
            reason,
            message,
        })
    };
    if let Some(collector) = select(wanted, collectors, namespace) {
        let name = collector.metadata.name.as_deref().unwrap_or_default();
        return note(
            false,
            "SidecarSelected",
            format!(
                "{place}: its pods get OpenTelemetryCollector {name} as a sidecar: what they send to localhost \
                 reaches that collector, and nothing without it"
            ),
        );
    }
    let sidecars = collectors
        .iter()
        .filter(|one| one.mode() == CollectorMode::Sidecar)
        .count();
    let why = match (wanted.eq_ignore_ascii_case("true"), sidecars) {
        (true, 0) => "no OpenTelemetryCollector with mode: sidecar is in this namespace; add one".to_owned(),
        (true, count) => {
            format!("{count} collectors with mode: sidecar are in this namespace; name one in the annotation")
        }
        // A collector of another namespace is not seen here; the admission step sees it.
        (false, _) if wanted.contains('/') => return None,
        (false, _) => format!("no OpenTelemetryCollector \"{wanted}\" with mode: sidecar is there; add it"),
    };
    note(
        true,
        "SidecarMissing",
        format!(
            "{place}: warning: spec.template.metadata.annotations.{}: the pods run without a sidecar: {why}",
            labels::SIDECAR_INJECT
        ),
    )
}

fn place(deployment: &Deployment) -> String {
    let annotations = deployment.metadata.annotations.as_ref();
    let file = annotations.and_then(|all| all.get(labels::SOURCE_FILE));
    match (file, annotations.and_then(|all| all.get(labels::SOURCE_LINE))) {
        (Some(file), Some(line)) => format!("{file}:{line}"),
        (Some(file), None) => file.clone(),
        _ => format!(
            "Deployment {}/{}",
            deployment.metadata.namespace.as_deref().unwrap_or_default(),
            deployment.metadata.name.as_deref().unwrap_or_default()
        ),
    }
}
