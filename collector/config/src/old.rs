//! Old spellings, and what they are called now. Nothing else in the collector knows them: blocks are rewritten here,
//! with a warning, before they are read.

use karez_document::yaml::{Entry, Kind, Node, join_key};
use karez_document::{Diagnosis, Place};

/// Keys that stood at the top of a client before they moved below `tls:`.
const MOVED_BELOW_TLS: &[&str] = &[
    "insecure",
    "insecure_skip_verify",
    "ca_file",
    "ca_pem",
    "cert_file",
    "cert_pem",
    "key_file",
    "key_pem",
    "server_name_override",
    "min_version",
    "max_version",
    "reload_interval",
];

/// Keys with another name now: section, type (`*` for all), path of the block, old, new.
const RENAMED: &[(&str, &str, &[&str], &str, &str)] = &[
    ("receivers", "otlp", &["protocols", "grpc"], "tls_settings", "tls"),
    ("receivers", "otlp", &["protocols", "http"], "tls_settings", "tls"),
    (
        "receivers",
        "otlp",
        &["protocols", "http"],
        "cors_allowed_origins",
        "cors.allowed_origins",
    ),
    (
        "receivers",
        "otlp",
        &["protocols", "http"],
        "cors_allowed_headers",
        "cors.allowed_headers",
    ),
    (
        "receivers",
        "jaeger",
        &["protocols", "grpc"],
        "tls_settings",
        "tls",
    ),
    (
        "receivers",
        "jaeger",
        &["protocols", "thrift_http"],
        "tls_settings",
        "tls",
    ),
    ("exporters", "*", &[], "tls_settings", "tls"),
    ("extensions", "*", &[], "tls_settings", "tls"),
];

/// Keys that no longer do anything: section, type, key, why.
const GONE: &[(&str, &str, &str, &str)] = &[
    (
        "processors",
        "memory_limiter",
        "ballast_size_mib",
        "there is no ballast any more",
    ),
    (
        "receivers",
        "jaeger",
        "remote_sampling",
        "remote sampling is no longer part of this receiver",
    ),
    ("exporters", "logging", "sampling", "the log samples by itself"),
];

/// Rewrites one component's block.
pub(crate) fn modernise(
    section: &str,
    kind: &str,
    key: &str,
    node: &mut Node,
    diagnoses: &mut Vec<Diagnosis>,
) {
    for (of, kinds, path, old, new) in RENAMED {
        if *of == section && (*kinds == "*" || *kinds == kind) {
            rename(node, path, key, old, new, diagnoses);
        }
    }
    for (of, of_kind, old, why) in GONE {
        if *of == section
            && *of_kind == kind
            && let Some(entry) = remove(node, old)
        {
            diagnoses.push(warning(
                &entry,
                join_key(key, old),
                &format!("has no effect: {why}"),
                "remove it",
            ));
        }
    }
    match (section, kind) {
        ("exporters", "otlp" | "otlp_grpc" | "otlphttp" | "otlp_http" | "jaeger" | "zipkin") => {
            below_tls(node, key, diagnoses)
        }
        ("exporters", "logging") => loglevel(node, key, diagnoses),
        ("extensions", "health_check") => health_check_port(node, key, diagnoses),
        _ => {}
    }
}

/// `auth: {oidc: {…}}` inside of a receiver, as it was before authenticators were extensions: the block becomes an
/// extension that the receiver names and the service starts.
pub(crate) fn lift_oidc(root: &mut Node, diagnoses: &mut Vec<Diagnosis>) {
    let mut lifted: Vec<Entry> = Vec::new();
    if let Some(receivers) = entries(root).and_then(|all| all.iter_mut().find(|e| e.key == "receivers"))
        && let Some(receivers) = entries(&mut receivers.value)
    {
        for receiver in receivers {
            let (key, name) = (
                format!("receivers.{}", receiver.key),
                receiver.key.replace('/', "_"),
            );
            lift_from(&mut receiver.value, &key, &name, &mut lifted, diagnoses);
        }
    }
    if lifted.is_empty() {
        return;
    }
    let names: Vec<Node> = lifted
        .iter()
        .map(|entry| scalar(&entry.value, &entry.key))
        .collect();
    let extensions = child(root, "extensions", Kind::Mapping(Vec::new()));
    if let Some(extensions) = extensions.and_then(entries) {
        extensions.append(&mut lifted);
    }
    let service = child(root, "service", Kind::Mapping(Vec::new()));
    let list = service.and_then(|service| child(service, "extensions", Kind::Sequence(Vec::new())));
    if let Some(Kind::Sequence(items)) = list.map(|list| &mut list.kind) {
        items.extend(names);
    }
}

fn lift_from(
    node: &mut Node,
    key: &str,
    name: &str,
    lifted: &mut Vec<Entry>,
    diagnoses: &mut Vec<Diagnosis>,
) {
    for entry in entries(node).into_iter().flatten() {
        let at = join_key(key, &entry.key);
        if entry.key != "auth" {
            lift_from(&mut entry.value, &at, name, lifted, diagnoses);
            continue;
        }
        let Some(mut oidc) = remove(&mut entry.value, "oidc") else {
            continue;
        };
        if oidc.value.is_null() {
            oidc.value.kind = Kind::Mapping(Vec::new());
        }
        if let Some(attribute) = remove(&mut entry.value, "attribute") {
            put(&mut oidc.value, "attribute", attribute);
        }
        let id = match lifted.len() {
            0 => format!("oidc/{name}"),
            more => format!("oidc/{name}_{more}"),
        };
        let mend = format!("write the extension `{id}` with these keys, and `auth: {{authenticator: {id}}}`");
        diagnoses.push(warning(&oidc, join_key(&at, "oidc"), "is an old spelling", &mend));
        let named = Entry {
            key: "authenticator".to_owned(),
            line: oidc.line,
            value: scalar(&oidc.value, &id),
        };
        put(&mut entry.value, "authenticator", named);
        lifted.push(Entry { key: id, ..oidc });
    }
}

/// A text that stands where another node does.
fn scalar(beside: &Node, text: &str) -> Node {
    beside.sibling(Kind::Scalar {
        text: text.to_owned(),
        plain: false,
    })
}

/// The value of a key, made if it is not there.
fn child<'a>(node: &'a mut Node, key: &str, empty: Kind) -> Option<&'a mut Node> {
    let value = node.sibling(empty);
    let entries = entries(node)?;
    let index = match entries.iter().position(|entry| entry.key == key) {
        Some(index) => index,
        None => {
            entries.push(Entry {
                key: key.to_owned(),
                line: 0,
                value: value.clone(),
            });
            entries.len() - 1
        }
    };
    let found = &mut entries[index].value;
    if found.is_null() {
        found.kind = value.kind;
    }
    Some(found)
}

fn warning(entry: &Entry, key: String, message: &str, mend: &str) -> Diagnosis {
    let place = Place {
        line: Some(entry.line).filter(|l| *l > 0),
        column: None,
        ..entry.value.place()
    };
    Diagnosis::warning(place, key, message, mend)
}

fn entries(node: &mut Node) -> Option<&mut Vec<Entry>> {
    match &mut node.kind {
        Kind::Mapping(entries) => Some(entries),
        _ => None,
    }
}

fn remove(node: &mut Node, key: &str) -> Option<Entry> {
    let entries = entries(node)?;
    let index = entries.iter().position(|e| e.key == key)?;
    Some(entries.remove(index))
}

fn rename(node: &mut Node, path: &[&str], key: &str, old: &str, new: &str, diagnoses: &mut Vec<Diagnosis>) {
    if let [first, rest @ ..] = path {
        let Some(entry) = entries(node).and_then(|all| all.iter_mut().find(|e| e.key == *first)) else {
            return;
        };
        return rename(&mut entry.value, rest, &join_key(key, first), old, new, diagnoses);
    }
    let Some(entry) = remove(node, old) else { return };
    diagnoses.push(warning(
        &entry,
        join_key(key, old),
        "is an old spelling",
        &format!("write `{new}`"),
    ));
    put(node, new, entry);
}

/// Puts a value at a dotted path, unless something stands there: the new spelling wins.
fn put(node: &mut Node, path: &str, entry: Entry) {
    let (first, rest) = path
        .split_once('.')
        .map_or((path, None), |(first, rest)| (first, Some(rest)));
    let empty = node.sibling(Kind::Mapping(Vec::new()));
    let Some(entries) = entries(node) else { return };
    let index = match entries.iter().position(|e| e.key == first) {
        Some(index) => index,
        None if rest.is_none() => {
            entries.push(Entry {
                key: first.to_owned(),
                ..entry
            });
            return;
        }
        None => {
            entries.push(Entry {
                key: first.to_owned(),
                line: entry.line,
                value: empty,
            });
            entries.len() - 1
        }
    };
    if let Some(rest) = rest {
        let value = &mut entries[index].value;
        if value.is_null() {
            value.kind = Kind::Mapping(Vec::new());
        }
        put(value, rest, entry);
    }
}

fn below_tls(node: &mut Node, key: &str, diagnoses: &mut Vec<Diagnosis>) {
    for old in MOVED_BELOW_TLS {
        let Some(entry) = remove(node, old) else { continue };
        let mend = format!("write it below `tls:`, as `tls: {{{old}: …}}`");
        diagnoses.push(warning(&entry, join_key(key, old), "is an old spelling", &mend));
        put(node, &format!("tls.{old}"), entry);
    }
}

fn loglevel(node: &mut Node, key: &str, diagnoses: &mut Vec<Diagnosis>) {
    let Some(mut entry) = remove(node, "loglevel") else {
        return;
    };
    let verbosity = match entry
        .value
        .as_str()
        .unwrap_or_default()
        .to_ascii_lowercase()
        .as_str()
    {
        "debug" => "detailed",
        "warn" | "error" => "basic",
        _ => "normal",
    };
    let mend = format!("write `verbosity: {verbosity}`");
    diagnoses.push(warning(
        &entry,
        join_key(key, "loglevel"),
        "is an old spelling",
        &mend,
    ));
    entry.value.kind = Kind::Scalar {
        text: verbosity.to_owned(),
        plain: true,
    };
    put(node, "verbosity", entry);
}

fn health_check_port(node: &mut Node, key: &str, diagnoses: &mut Vec<Diagnosis>) {
    let Some(mut entry) = remove(node, "port") else {
        return;
    };
    let endpoint = format!("0.0.0.0:{}", entry.value.as_str().unwrap_or_default());
    let mend = format!("write `endpoint: {endpoint}`");
    diagnoses.push(warning(
        &entry,
        join_key(key, "port"),
        "is an old spelling",
        &mend,
    ));
    entry.value.kind = Kind::Scalar {
        text: endpoint,
        plain: false,
    };
    put(node, "endpoint", entry);
}
