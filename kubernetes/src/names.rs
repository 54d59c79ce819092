//! Names that objects of a Skupper site carry, so that tools which look for them find them.

/// ConfigMap that declares a site.
pub const SITE: &str = "skupper-site";
/// ConfigMap with the router's document.
pub const INTERNAL: &str = "skupper-internal";
/// Key of the router's document in [`INTERNAL`].
pub const ROUTER_DOCUMENT_KEY: &str = "karez-router.yaml";
/// ConfigMap with one service definition an address.
pub const SERVICES: &str = "skupper-services";
/// ConfigMap with what the site knows of the network.
pub const NETWORK_STATUS: &str = "skupper-network-status";
/// Key of the network's status in [`NETWORK_STATUS`].
pub const NETWORK_STATUS_KEY: &str = "NetworkStatus";
/// ConfigMap with settings of the router console's authentication.
pub const SASL_CONFIG: &str = "skupper-sasl-config";

/// Deployment, ServiceAccount, Role, RoleBinding and Service of the router.
pub const ROUTER: &str = "skupper-router";
/// Service of the router's local API.
pub const ROUTER_LOCAL: &str = "skupper-router-local";
/// Headless Service through which the routers of one site find each other, when there are several.
pub const ROUTER_PEERS: &str = "skupper-router-peers";
/// Service of the router's console, when asked for.
pub const ROUTER_CONSOLE: &str = "skupper-router-console";
/// Deployment, ServiceAccount, Role and RoleBinding of the service-level controller.
pub const SERVICE_CONTROLLER: &str = "skupper-service-controller";
/// Service of console and claims.
pub const CONTROLLER_SERVICE: &str = "skupper";

/// Secret with the authority of the site's own 5671 access.
pub const LOCAL_CA: &str = "skupper-local-ca";
/// Secret with the authority that links are made under.
pub const SITE_CA: &str = "skupper-site-ca";
/// Secret with the authority of TLS services.
pub const SERVICE_CA: &str = "skupper-service-ca";
/// Secret with the router's certificate for 5671.
pub const LOCAL_SERVER: &str = "skupper-local-server";
/// Secret with the client certificate for 5671.
pub const LOCAL_CLIENT: &str = "skupper-local-client";
/// Secret with the router's certificate for links.
pub const SITE_SERVER: &str = "skupper-site-server";
/// Secret with the certificate of the claims server.
pub const CLAIMS_SERVER: &str = "skupper-claims-server";
/// Secret with the authority that clients of TLS services trust.
pub const SERVICE_CLIENT: &str = "skupper-service-client";
/// Secret with what the site proves itself with at the ends of sealed connections, as the command names it.
pub const SEAL: &str = "karez-seal";
/// Secret with the console's certificate.
pub const CONSOLE_CERTS: &str = "skupper-console-certs";
/// Secret with the console's users, one key each.
pub const CONSOLE_USERS: &str = "skupper-console-users";

/// Port of links between routers.
pub const INTER_ROUTER_PORT: u16 = 55671;
/// Port of links from edges.
pub const EDGE_PORT: u16 = 45671;
/// Port of the router's local API.
pub const LOCAL_PORT: u16 = 5671;
/// Port of the router's metrics and health.
pub const ADMIN_PORT: u16 = 9090;
/// Port of claims.
pub const CLAIMS_PORT: u16 = 8081;
/// Port of the console.
pub const CONSOLE_PORT: u16 = 8080;
/// First port that an address's listener may get.
pub const FIRST_LISTENER_PORT: u16 = 1024;

/// ConfigMap key of a collector's configuration.
pub const COLLECTOR_CONFIG_KEY: &str = "collector.yaml";
/// Name of the collector's container.
pub const COLLECTOR_CONTAINER: &str = "otc-container";
