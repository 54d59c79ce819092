//! A Pod's status from what its containers do: pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The reason that a container shows which Karez leaves alone.
pub(crate) const NOT_RUN: &str = "NotRunByKarez";

/// What one container does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Observed {
    pub(crate) state: State,
    /// How the run before this one ended.
    pub(crate) last: Option<Ended>,
    pub(crate) restarts: i32,
    pub(crate) ready: bool,
    pub(crate) started: bool,
}

/// The state of a container.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum State {
    /// Not one of ours; the message says why.
    NotRun(String),
    /// Not started, and why.
    Waiting { reason: String, message: String },
    /// Runs since then.
    Running { since: Timestamp, process: Option<u32> },
    /// Ended, and is not started again.
    Ended(Ended),
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
    pub(crate) reason: String,
    pub(crate) message: Option<String>,
    pub(crate) started: Timestamp,
    pub(crate) finished: Timestamp,
}

impl Observed {
    /// Not started yet.
    pub(crate) fn waiting(reason: &str, message: &str) -> Self {
        let state = State::Waiting {
            reason: reason.into(),
            message: message.into(),
        };
        Self {
            state,
            last: None,
            restarts: 0,
            ready: false,
            started: false,
        }
    }
}

/// What the runtime knows of a Pod beside its containers.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    /// None while there is no address for it.
    pub(crate) address: Option<IpAddr>,
    pub(crate) host: IpAddr,
    pub(crate) started: Timestamp,
    /// Whether the init containers have done their work.
    pub(crate) initialized: bool,
    /// Why the Pod as a whole waits, if it does.
    pub(crate) message: Option<String>,
}

/// The status to write.
pub(crate) fn status(
    pod: &Pod,
    given: &Given,
    containers: &BTreeMap<String, Observed>,
    now: Timestamp,
) -> PodStatus {
    let spec = pod.spec.clone().unwrap_or_default();
    let of = |list: &[Container]| -> Vec<ContainerStatus> {
        list.iter()
            .map(|one| container_status(one, containers.get(&one.name)))
            .collect()
    };
    let ours: Vec<&Observed> = spec
        .containers
        .iter()
        .filter_map(|one| containers.get(&one.name))
        .filter(|one| !matches!(one.state, State::NotRun(_)))
        .collect();
    let phase = phase(&ours, given.initialized);
    let ready = Readiness::of(&ours, given, phase);
    let left_alone = ours.is_empty().then(|| {
        spec.containers
            .iter()
            .find_map(|one| match &containers.get(&one.name)?.state {
                State::NotRun(message) => Some(message.clone()),
                _ => None,
            })
    });
    let left_alone = left_alone.flatten();
    let before = pod.status.as_ref();
    let conditions = [
        ("PodScheduled", true, None, None),
        ("Initialized", given.initialized, None, None),
        (
            "ContainersReady",
            ready.ready,
            ready.reason.clone(),
            ready.message.clone(),
        ),
        ("Ready", ready.ready, ready.reason, ready.message),
    ];
    let conditions = conditions.map(|(kind, holds, reason, message)| {
        let reason = if left_alone.is_some() && !holds {
            Some(NOT_RUN.to_owned())
        } else {
            reason
        };
        let message = if holds {
            None
        } else {
            left_alone.clone().or(message)
        };
        condition(before, kind, holds, reason, message, now)
    });
    let init = of(spec.init_containers.as_deref().unwrap_or_default());
    PodStatus {
        phase: Some(phase.into()),
        conditions: Some(conditions.into()),
        container_statuses: Some(of(&spec.containers)),
        init_container_statuses: (!init.is_empty()).then_some(init),
        host_ip: Some(given.host.to_string()),
        host_ips: Some(vec![HostIP {
            ip: given.host.to_string(),
        }]),
        pod_ip: given.address.map(|ip| ip.to_string()),
        pod_ips: given.address.map(|ip| vec![PodIP { ip: ip.to_string() }]),
        start_time: Some(Time(given.started)),
        reason: left_alone.as_ref().map(|_| NOT_RUN.to_owned()),
        message: left_alone.or_else(|| given.message.clone()),
        observed_generation: pod.metadata.generation,
        qos_class: before
            .and_then(|before| before.qos_class.clone())
            .or_else(|| Some("BestEffort".into())),
        ..PodStatus::default()
    }
}

fn phase(ours: &[&Observed], initialized: bool) -> &'static str {
    let ended = |one: &&Observed| matches!(one.state, State::Ended(_));
    let begun =
        |one: &&Observed| ended(one) || one.last.is_some() || matches!(one.state, State::Running { .. });
    if ours.is_empty() || !initialized {
        return "Pending";
    }
    if ours.iter().all(ended) {
        let failed = ours
            .iter()
            .any(|one| matches!(&one.state, State::Ended(end) if end.code != 0));
        return if failed { "Failed" } else { "Succeeded" };
    }
    if ours.iter().all(begun) {
        "Running"
    } else {
        "Pending"
    }
}

struct Readiness {
    ready: bool,
    reason: Option<String>,
    message: Option<String>,
}

impl Readiness {
    fn of(ours: &[&Observed], given: &Given, phase: &str) -> Self {
        let ready = phase == "Running" && ours.iter().all(|one| one.ready);
        let reason = match phase {
            _ if ready => None,
            "Succeeded" => Some("PodCompleted"),
            "Failed" => Some("PodFailed"),
            _ => Some("ContainersNotReady"),
        };
        let waiting = ours.iter().find_map(|one| match &one.state {
            State::Waiting { message, .. } if !message.is_empty() => Some(message.clone()),
            _ => None,
        });
        let message = if ready {
            None
        } else {
            given.message.clone().or(waiting)
        };
        Self {
            ready,
            reason: reason.map(str::to_owned),
            message,
        }
    }
}

fn condition(
    before: Option<&PodStatus>,
    kind: &str,
    holds: bool,
    reason: Option<String>,
    message: Option<String>,
    now: Timestamp,
) -> PodCondition {
    let status = if holds { "True" } else { "False" };
    let known = before.and_then(|before| before.conditions.as_ref()?.iter().find(|one| one.type_ == kind));
    let since = known
        .filter(|one| one.status == status)
        .and_then(|one| one.last_transition_time.clone());
    PodCondition {
        type_: kind.into(),
        status: status.into(),
        reason: reason.filter(|_| !holds),
        message,
        last_transition_time: Some(since.unwrap_or(Time(now))),
        ..PodCondition::default()
    }
}

fn container_status(container: &Container, observed: Option<&Observed>) -> ContainerStatus {
    let waiting;
    let observed = match observed {
        Some(observed) => observed,
        None => {
            waiting = Observed::waiting("ContainerCreating", "");
            &waiting
        }
    };
    let image = container.image.clone().unwrap_or_default();
    let last = observed.last.as_ref();
    ContainerStatus {
        name: container.name.clone(),
        image_id: if matches!(observed.state, State::NotRun(_)) {
            String::new()
        } else {
            image.clone()
        },
        image,
        ready: observed.ready,
        started: Some(observed.started),
        restart_count: observed.restarts,
        state: Some(state(&observed.state)),
        last_state: last.map(|end| ContainerState {
            terminated: Some(terminated(end)),
            ..ContainerState::default()
        }),
        container_id: match observed.state {
            State::Running {
                process: Some(id), ..
            } => Some(format!("process://{id}")),
            _ => None,
        },
        ..ContainerStatus::default()
    }
}

fn state(state: &State) -> ContainerState {
    let waiting = |reason: &str, message: &str| ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()).filter(|text| !text.is_empty()),
        }),
        ..ContainerState::default()
    };
    match state {
        State::NotRun(message) => waiting(NOT_RUN, message),
        State::Waiting { reason, message } => waiting(reason, message),
        State::Running { since, .. } => ContainerState {
            running: Some(ContainerStateRunning {
                started_at: Some(Time(*since)),
            }),
            ..ContainerState::default()
        },
        State::Ended(end) => ContainerState {
            terminated: Some(terminated(end)),
            ..ContainerState::default()
        },
    }
}

fn terminated(end: &Ended) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: end.code,
        signal: end.signal,
        reason: Some(end.reason.clone()),
        message: end.message.clone(),
        started_at: Some(Time(end.started)),
        finished_at: Some(Time(end.finished)),
        container_id: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn made(containers: &[(&str, Observed)]) -> PodStatus {
        let list: Vec<_> = containers
            .iter()
            .map(|(name, _)| json!({"name": name, "image": "i"}))
            .collect();
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": list}})).unwrap();
        let given = Given {
            address: "127.9.8.2".parse().ok(),
            host: "127.9.8.1".parse().unwrap(),
            started: Timestamp::UNIX_EPOCH,
            initialized: true,
            message: None,
        };
        let map = containers
            .iter()
            .map(|(name, observed)| ((*name).to_owned(), observed.clone()))
            .collect();
        status(&pod, &given, &map, Timestamp::UNIX_EPOCH)
    }

    fn running(ready: bool) -> Observed {
        let state = State::Running {
            since: Timestamp::UNIX_EPOCH,
            process: Some(1),
        };
        Observed {
            state,
            last: None,
            restarts: 0,
            ready,
            started: true,
        }
    }

    fn not_run() -> Observed {
        Observed {
            state: State::NotRun("image \"i\" is not one Karez runs".into()),
            ..running(false)
        }
    }

    fn ended(code: i32) -> Observed {
        let end = Ended {
            code,
            signal: None,
            reason: "Completed".into(),
            message: None,
            started: Timestamp::UNIX_EPOCH,
            finished: Timestamp::UNIX_EPOCH,
        };
        Observed {
            state: State::Ended(end),
            ..running(false)
        }
    }

    fn ready(status: &PodStatus) -> (String, String, Option<String>) {
        let one = status
            .conditions
            .iter()
            .flatten()
            .find(|one| one.type_ == "Ready")
            .unwrap()
            .clone();
        (status.phase.clone().unwrap(), one.status, one.reason)
    }

    #[test]
    fn phases_follow_the_containers() {
        let of = |containers: &[(&str, Observed)]| ready(&made(containers));
        let texts = |phase: &str, holds: &str, reason: Option<&str>| {
            (phase.to_owned(), holds.to_owned(), reason.map(str::to_owned))
        };
        assert_eq!(of(&[("a", running(true))]), texts("Running", "True", None));
        assert_eq!(
            of(&[("a", running(false))]),
            texts("Running", "False", Some("ContainersNotReady"))
        );
        assert_eq!(
            of(&[("a", ended(0))]),
            texts("Succeeded", "False", Some("PodCompleted"))
        );
        assert_eq!(
            of(&[("a", ended(0)), ("b", ended(1))]),
            texts("Failed", "False", Some("PodFailed"))
        );
        let creating = Observed::waiting("ContainerCreating", "");
        assert_eq!(of(&[("a", creating.clone()), ("b", running(true))]).0, "Pending");
    }

    #[test]
    fn a_sidecar_beside_a_foreign_image_makes_the_pod_run() {
        let status = made(&[("app", not_run()), ("otc-container", running(true))]);
        assert_eq!(ready(&status), ("Running".into(), "True".into(), None));
        let app = &status.container_statuses.as_ref().unwrap()[0];
        let waiting = app.state.clone().unwrap().waiting.unwrap();
        assert_eq!((waiting.reason.as_deref(), app.ready), (Some(NOT_RUN), false));
    }

    #[test]
    fn a_pod_without_any_of_ours_says_so() {
        let status = made(&[("app", not_run())]);
        assert_eq!(
            ready(&status),
            ("Pending".into(), "False".into(), Some(NOT_RUN.into()))
        );
        assert_eq!(
            status.message.as_deref(),
            Some("image \"i\" is not one Karez runs")
        );
    }
}
