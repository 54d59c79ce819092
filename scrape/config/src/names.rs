//! Names of labels that occur by the million and are therefore held as a code.

/// The code of a well-known name: its place in [`NAMES`], from 1.
pub(crate) fn code_of(name: &str) -> Option<u8> {
    let index = NAMES.binary_search(&name).ok()?;
    u8::try_from(index + 1).ok()
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
}
