use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use karez_document::{Origin, yaml};
use karez_scrape_config::{Options, read};

use super::*;

fn configs(text: &str) -> Vec<ScrapeConfig> {
    let node = yaml::parse(text, &Origin::file("p.yaml")).unwrap().remove(0);
    let mut diagnoses = Vec::new();
    let configs = read(&node, "", Options::default(), &mut diagnoses);
    assert_eq!(diagnoses, []);
    configs
}

fn start(text: &str) -> Discovery {
    let cx = Context {
        net: Net::system(),
        kubernetes: None,
    };
    Discovery::start(&configs(text), &cx)
}

/// Follows changes until what is known is as it should be.
async fn until(
    discovery: &Discovery,
    known: &mut BTreeMap<String, Vec<String>>,
    expected: &[(&str, &[&str])],
) {
    let expected: BTreeMap<String, Vec<String>> = expected
        .iter()
        .map(|(source, targets)| {
            (
                (*source).to_owned(),
                targets.iter().map(|t| (*t).to_owned()).collect(),
            )
        })
        .collect();
    let follow = async {
        while *known != expected {
            for change in discovery.changes().await {
                let source = change.source.rsplit('/').next().unwrap().to_owned();
                match change.group {
                    Some(group) => {
                        let targets = group.targets.iter().map(|t| t.get("__address__").to_owned());
                        known.insert(source, targets.collect());
                    }
                    None => drop(known.remove(&source)),
                }
            }
        }
    };
    let followed = tokio::time::timeout(Duration::from_secs(30), follow).await;
    assert!(followed.is_ok(), "{known:?} is not {expected:?}");
}

#[tokio::test]
async fn jobs_that_say_the_same_share_a_provider() {
    let discovery = start(
        "scrape_configs: [{job_name: a, static_configs: [{targets: ['h:1']}]},
          {job_name: b, static_configs: [{targets: ['h:1']}]}, {job_name: c, static_configs: [{targets: ['h:2']}]}]",
    );
    assert_eq!(
        (discovery.jobs_of(0), discovery.jobs_of(1)),
        (&[0, 1][..], &[2][..])
    );
    assert_eq!(discovery.changes().await.len(), 2);
}

#[tokio::test]
async fn what_stays_is_not_started_again() {
    let yaml = |more: &str| {
        format!("scrape_configs: [{{job_name: a, static_configs: [{{targets: ['h:1']}}]}}{more}]")
    };
    let mut discovery = start(&yaml(""));
    assert_eq!(discovery.changes().await.len(), 1);
    let cx = Context {
        net: Net::system(),
        kubernetes: None,
    };
    let more = ", {job_name: b, static_configs: [{targets: ['h:1']}]}, {job_name: c, static_configs: [{targets: ['h:2']}]}";
    discovery.update(&configs(&yaml(more)), &cx);
    let changes = discovery.changes().await;
    assert_eq!(
        (changes.len(), changes[0].provider),
        (1, 1),
        "only what is new tells"
    );
    assert_eq!(
        (discovery.providers_of(1), discovery.providers_of(2)),
        (vec![0], vec![1])
    );
    discovery.update(&configs(&yaml("")), &cx);
    assert_eq!((discovery.jobs_of(0), discovery.jobs_of(1)), (&[0][..], &[][..]));
}

#[tokio::test]
async fn files_are_followed_and_bad_ones_keep_what_they_gave() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("a.json"), r#"[{"targets": ["h:1"], "labels": {"x": "y"}}]"#).unwrap();
    std::fs::write(path("b.yaml"), "- targets: ['h:2', 'h:3']\n").unwrap();
    let discovery = start(&format!(
        "scrape_configs: [{{job_name: a, file_sd_configs: [{{files: ['{0}/*.json', '{0}/b.yaml']}}]}}]",
        folder.path().display()
    ));
    let mut known = BTreeMap::new();
    until(
        &discovery,
        &mut known,
        &[("a.json:0", &["h:1"]), ("b.yaml:0", &["h:2", "h:3"])],
    )
    .await;
    std::fs::write(path("a.json"), "[{").unwrap();
    std::fs::write(path("c.json"), r#"[{"targets": ["h:4"]}]"#).unwrap();
    until(
        &discovery,
        &mut known,
        &[
            ("a.json:0", &["h:1"]),
            ("b.yaml:0", &["h:2", "h:3"]),
            ("c.json:0", &["h:4"]),
        ],
    )
    .await;
    std::fs::remove_file(path("b.yaml")).unwrap();
    std::fs::write(path("a.json"), r#"[{"targets": ["h:5", "h:6"]}]"#).unwrap();
    until(
        &discovery,
        &mut known,
        &[("a.json:0", &["h:5", "h:6"]), ("c.json:0", &["h:4"])],
    )
    .await;
}

#[tokio::test]
async fn http_discovery_asks_again_and_keeps_the_last_good_answer() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let answer = move || async move {
        match count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => (
                http_status(200),
                [("content-type", "application/json")],
                r#"[{"targets": ["h:1"]}]"#,
            ),
            1 => (http_status(500), [("content-type", "application/json")], "[]"),
            _ => (
                http_status(200),
                [("content-type", "application/json; charset=utf-8")],
                r#"[{"targets": ["h:2"]}, {"targets": ["h:3"]}]"#,
            ),
        }
    };
    let router = Router::new().route("/sd", get(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let discovery = start(&format!(
        "scrape_configs: [{{job_name: a, http_sd_configs: [{{url: 'http://{address}/sd', refresh_interval: 1s}}]}}]"
    ));
    let mut known = BTreeMap::new();
    until(&discovery, &mut known, &[("sd:0", &["h:1"])]).await;
    until(&discovery, &mut known, &[("sd:0", &["h:2"]), ("sd:1", &["h:3"])]).await;
}

fn http_status(code: u16) -> ::http::StatusCode {
    ::http::StatusCode::from_u16(code).unwrap()
}
