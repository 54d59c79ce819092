//! Names of labels that occur by the million and are therefore held as a code: those that are well known, and those that
//! discovery makes of what objects carry, as they are met.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};

/// The code of a well-known name: its place in [`NAMES`], from 1.
pub(crate) fn code_of(name: &str) -> Option<u8> {
    let mut place = place(name);
    loop {
        let code = CODES[place];
        if code == 0 {
            return None;
        }
        if NAMES[usize::from(code) - 1] == name {
            return Some(code);
        }
        place = (place + 1) % PLACES;
    }
}

/// More than twice as many as there are names.
const PLACES: usize = 256;

/// Codes by a hash of their names; 0 is an empty place. Looked up for every label of every target, and the names have
/// long beginnings in common, which a search in order would compare again and again.
static CODES: LazyLock<[u8; PLACES]> = LazyLock::new(|| {
    let mut codes = [0; PLACES];
    for (code, name) in (1u8..).zip(NAMES) {
        let mut place = place(name);
        while codes[place] != 0 {
            place = (place + 1) % PLACES;
        }
        codes[place] = code;
    }
    codes
});

/// Where a name is looked for first: by its length and its last bytes, in which they differ.
fn place(name: &str) -> usize {
    (hash(name) >> 56) as usize
}

fn hash(name: &str) -> u64 {
    let last = name.as_bytes().last_chunk::<8>().copied().unwrap_or_default();
    let ends = u64::from_le_bytes(last).wrapping_add(name.len() as u64);
    ends.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// So many names are learned at most: whoever makes more of them has those written out in each set, as all others are.
const LEARNED: usize = 1 << 13;
/// A name that is longer is not learned.
const LONGEST: usize = 256;
/// Only these names are learned: they come from the labels and annotations of objects, which are alike in thousands.
const BEGINNING: &str = "__meta_";

/// The names that were learned, by number. They stay until the end.
static LEARNED_NAMES: [OnceLock<Box<str>>; LEARNED] = [const { OnceLock::new() }; LEARNED];
/// Numbers of learned names, from 1, by a hash of the name; 0 is an empty place.
static LEARNED_PLACES: [AtomicU16; 2 * LEARNED] = [const { AtomicU16::new(0) }; 2 * LEARNED];
/// How many there are; who has it may learn another.
static COUNT: Mutex<u16> = Mutex::new(0);

/// The name of a number that [`learn`] has given.
pub(crate) fn learned(number: u16) -> &'static str {
    LEARNED_NAMES
        .get(usize::from(number))
        .and_then(OnceLock::get)
        .map_or("", |name| name)
}

/// The number of a name, if it is one that is learned. The same name has the same number, or never one: sets with the
/// same labels are written the same.
pub(crate) fn learn(name: &str) -> Option<u16> {
    if !name.starts_with(BEGINNING) || name.len() > LONGEST {
        return None;
    }
    let mut at = first_place(name);
    match seek(name, &mut at) {
        Some(number) => Some(number),
        None => learn_new(name),
    }
}

fn first_place(name: &str) -> usize {
    // All of the name counts, so that nobody fills one part of the table by names that end alike.
    xxhash_rust::xxh64::xxh64(name.as_bytes(), 0) as usize % LEARNED_PLACES.len()
}

/// Looks for a name from a place on, up to an empty one.
fn seek(name: &str, at: &mut usize) -> Option<u16> {
    loop {
        // Half of the places are always empty, so this ends.
        let number = LEARNED_PLACES[*at].load(Ordering::Acquire).checked_sub(1)?;
        if learned(number) == name {
            return Some(number);
        }
        *at = (*at + 1) % LEARNED_PLACES.len();
    }
}

fn learn_new(name: &str) -> Option<u16> {
    let mut count = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
    let mut at = first_place(name);
    // Somebody may have been faster.
    if let Some(number) = seek(name, &mut at) {
        return Some(number);
    }
    let number = *count;
    // Full, it stays full: what has no number never gets one.
    LEARNED_NAMES.get(usize::from(number))?.set(name.into()).ok()?;
    *count = number + 1;
    LEARNED_PLACES[at].store(number + 1, Ordering::Release);
    Some(number)
}

/// The names, sorted; fewer than 127, as codes are bytes of ASCII.
pub(crate) const NAMES: &[&str] = &[
    "__address__",
    "__meta_consul_address",
    "__meta_consul_dc",
    "__meta_consul_health",
    "__meta_consul_node",
    "__meta_consul_service",
    "__meta_consul_service_address",
    "__meta_consul_service_id",
    "__meta_consul_service_port",
    "__meta_consul_tagged_address_lan",
    "__meta_consul_tagged_address_wan",
    "__meta_consul_tags",
    "__meta_dns_name",
    "__meta_dns_srv_record_port",
    "__meta_dns_srv_record_target",
    "__meta_filepath",
    "__meta_kubernetes_endpoint_address_target_kind",
    "__meta_kubernetes_endpoint_address_target_name",
    "__meta_kubernetes_endpoint_node_name",
    "__meta_kubernetes_endpoint_port_name",
    "__meta_kubernetes_endpoint_port_protocol",
    "__meta_kubernetes_endpoint_ready",
    "__meta_kubernetes_endpoints_name",
    "__meta_kubernetes_endpointslice_address_target_kind",
    "__meta_kubernetes_endpointslice_address_target_name",
    "__meta_kubernetes_endpointslice_address_type",
    "__meta_kubernetes_endpointslice_endpoint_conditions_ready",
    "__meta_kubernetes_endpointslice_endpoint_conditions_serving",
    "__meta_kubernetes_endpointslice_endpoint_conditions_terminating",
    "__meta_kubernetes_endpointslice_endpoint_node_name",
    "__meta_kubernetes_endpointslice_endpoint_zone",
    "__meta_kubernetes_endpointslice_name",
    "__meta_kubernetes_endpointslice_port",
    "__meta_kubernetes_endpointslice_port_name",
    "__meta_kubernetes_endpointslice_port_protocol",
    "__meta_kubernetes_ingress_class_name",
    "__meta_kubernetes_ingress_host",
    "__meta_kubernetes_ingress_name",
    "__meta_kubernetes_ingress_path",
    "__meta_kubernetes_ingress_scheme",
    "__meta_kubernetes_namespace",
    "__meta_kubernetes_node_name",
    "__meta_kubernetes_node_provider_id",
    "__meta_kubernetes_pod_container_id",
    "__meta_kubernetes_pod_container_image",
    "__meta_kubernetes_pod_container_init",
    "__meta_kubernetes_pod_container_name",
    "__meta_kubernetes_pod_container_port_name",
    "__meta_kubernetes_pod_container_port_number",
    "__meta_kubernetes_pod_container_port_protocol",
    "__meta_kubernetes_pod_controller_kind",
    "__meta_kubernetes_pod_controller_name",
    "__meta_kubernetes_pod_host_ip",
    "__meta_kubernetes_pod_ip",
    "__meta_kubernetes_pod_label_app",
    "__meta_kubernetes_pod_label_app_kubernetes_io_instance",
    "__meta_kubernetes_pod_label_app_kubernetes_io_name",
    "__meta_kubernetes_pod_label_controller_revision_hash",
    "__meta_kubernetes_pod_label_pod_template_hash",
    "__meta_kubernetes_pod_labelpresent_app",
    "__meta_kubernetes_pod_labelpresent_app_kubernetes_io_instance",
    "__meta_kubernetes_pod_labelpresent_app_kubernetes_io_name",
    "__meta_kubernetes_pod_labelpresent_controller_revision_hash",
    "__meta_kubernetes_pod_labelpresent_pod_template_hash",
    "__meta_kubernetes_pod_name",
    "__meta_kubernetes_pod_node_name",
    "__meta_kubernetes_pod_phase",
    "__meta_kubernetes_pod_ready",
    "__meta_kubernetes_pod_uid",
    "__meta_kubernetes_service_cluster_ip",
    "__meta_kubernetes_service_external_name",
    "__meta_kubernetes_service_label_app",
    "__meta_kubernetes_service_labelpresent_app",
    "__meta_kubernetes_service_loadbalancer_ip",
    "__meta_kubernetes_service_name",
    "__meta_kubernetes_service_port_name",
    "__meta_kubernetes_service_port_number",
    "__meta_kubernetes_service_port_protocol",
    "__meta_kubernetes_service_type",
    "__meta_url",
    "__metrics_path__",
    "__name__",
    "__param_module",
    "__param_target",
    "__scheme__",
    "__scrape_interval__",
    "__scrape_timeout__",
    "__tmp_hash",
    "__tmp_prometheus_job_name",
    "container",
    "endpoint",
    "instance",
    "job",
    "namespace",
    "node",
    "pod",
    "service",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_have_codes() {
        assert!(NAMES.is_sorted());
        assert!(NAMES.len() < 127);
        for (index, name) in NAMES.iter().enumerate() {
            assert_eq!(code_of(name), Some(u8::try_from(index + 1).unwrap()), "{name}");
        }
        assert_eq!(code_of("other"), None);
    }

    #[test]
    fn names_are_learned_once_by_whoever_meets_them() {
        let name = |number: usize| format!("__meta_test_of_names_{number}");
        let learn_all = || (0..500).map(|number| learn(&name(number))).collect::<Vec<_>>();
        let several: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(learn_all)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(several.iter().all(|numbers| *numbers == several[0]));
        for (index, number) in several[0].iter().enumerate() {
            assert_eq!(learned(number.unwrap()), name(index));
        }
        assert_eq!(learn("test"), None);
        assert_eq!(learn(&format!("__meta_{}", "x".repeat(300))), None);
        // Who comes when there is no room never gets any.
        for number in 0..2 * LEARNED {
            learn(&name(number));
        }
        let (first, last) = (learn(&name(0)), learn(&name(2 * LEARNED - 1)));
        assert_eq!((first, last), (several[0][0], None));
    }
}
