//! Who the collectors are: a list, a file that is watched, or Pods.

mod file;
mod pods;

use std::time::Duration;

pub(crate) use karez_allocation::presence::Seen;
use kube::Client;
use tokio::sync::watch;

use crate::config::Collectors;

/// How often a file is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The collectors; nothing before it is known who there is.
pub(crate) type Known = Option<Vec<Seen>>;

/// Follows the collectors until nobody listens.
pub(crate) fn watch(collectors: &Collectors, client: Option<Client>) -> watch::Receiver<Known> {
    let (sender, receiver) = watch::channel(None);
    match collectors {
        Collectors::Fixed(fixed) => {
            sender.send_replace(Some(fixed.iter().cloned().map(seen).collect()));
            // A closed channel is never changed; the value stays.
        }
        Collectors::File(path) => {
            tokio::spawn(file::follow(path.clone(), sender, LOOK));
        }
        Collectors::Pods { namespace, selector } => {
            if let (Some(client), Some(selector)) = (client, selector.clone()) {
                tokio::spawn(pods::follow(client, namespace.clone(), selector, sender));
            } else {
                sender.send_replace(Some(Vec::new()));
                tracing::warn!(
                    "no `collector_selector`: no collector is found, and no target is given to any"
                );
            }
        }
    }
    receiver
}

/// A collector that is there as long as it is listed. What has no node is on one of its own name, so that it counts.
fn seen(collector: karez_allocation::Collector) -> Seen {
    let node = match collector.node.is_empty() {
        true => format!("host-of-{}", collector.name),
        false => collector.node,
    };
    Seen {
        name: collector.name,
        node,
        unready: None,
        runs: true,
        ending: false,
    }
}
