//! What is sealed, what goes in plain, and what goes nowhere.

use std::time::Duration;

use karez_identity::{Authority, SealScope, TlsMaterial};

use super::*;

mod between;
#[path = "../../tests/support/mod.rs"]
mod support;

const HOUR: Duration = Duration::from_secs(3600);

fn address(text: &str) -> Address {
    let (name, port) = text.rsplit_once(':').unwrap();
    Address {
        name: name.into(),
        port: port.parse().unwrap(),
    }
}

fn authority() -> Authority {
    Authority::new("seal", Timestamp::now(), 24 * HOUR).unwrap()
}

fn hold(authority: &Authority, serve: &[&str], reach: &[&str]) -> Hold {
    let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
    let scope = SealScope {
        serve: owned(serve),
        reach: owned(reach),
    };
    let issued = authority
        .issue_seal("here", &scope, HOUR, Timestamp::now())
        .unwrap();
    Hold::of(&Profile::Ready(TlsMaterial::from(&issued)))
}

/// `Some(true)`: sealed, `Some(false)`: in plain, `None`: refused.
fn way(decided: Result<Option<Arc<Material>>, String>) -> Option<bool> {
    decided.ok().map(|material| material.is_some())
}

#[test]
fn the_network_can_ask_for_more_and_never_for_less() {
    let authority = authority();
    let site = hold(&authority, &["db"], &["db", "shop-*:80"]);
    let vouched = site.vouches(&address("db:1")).unwrap();
    let go = |hold: &Hold, to: &str, only, offered: &[Fingerprint]| {
        way(hold.outgoing(&address(to), only, offered))
    };
    assert_eq!(go(&site, "db:1", false, &[vouched]), Some(true));
    assert_eq!(
        go(&site, "db:1", false, &[]),
        Some(true),
        "an offer that was stripped changes nothing"
    );
    assert_eq!(go(&site, "shop-7:80", false, &[]), Some(true));
    assert_eq!(
        go(&site, "shop-7:81", false, &[]),
        Some(false),
        "nobody asks for it"
    );
    assert_eq!(
        go(&site, "web:80", false, &[vouched]),
        None,
        "this site may not reach it"
    );
    assert_eq!(
        go(&site, "web:80", true, &[]),
        None,
        "the listener wants it sealed"
    );
    let other = Fingerprint([7; 32]);
    assert_eq!(go(&site, "db:1", false, &[other]), None, "of another authority");
    assert_eq!(go(&site, "db:1", false, &[other, vouched]), Some(true));
    for nothing in [Hold::Nothing, Hold::Waiting("x".into())] {
        assert_eq!(go(&nothing, "db:1", false, &[]), Some(false));
        assert_eq!(go(&nothing, "db:1", false, &[vouched]), None);
        assert_eq!(go(&nothing, "db:1", true, &[]), None);
    }
    assert_eq!(
        go(&site, "db/udp:1", false, &[]),
        Some(false),
        "datagrams are never sealed"
    );
    assert_eq!(go(&site, "db/udp:1", false, &[vouched]), None);
}

#[test]
fn a_sealed_target_takes_nothing_in_plain() {
    let authority = authority();
    let site = hold(&authority, &["db"], &["web"]);
    let take = |hold: &Hold, at: &str, only, asked| way(hold.incoming(&address(at), only, asked));
    assert_eq!(take(&site, "db:1", true, true), Some(true));
    assert_eq!(
        take(&site, "db:1", false, true),
        Some(true),
        "whoever asks gets it"
    );
    assert_eq!(take(&site, "db:1", true, false), None);
    assert_eq!(take(&site, "db:1", false, false), Some(false));
    assert_eq!(
        take(&site, "web:1", false, true),
        None,
        "it does not speak for it"
    );
    assert_eq!(take(&Hold::Nothing, "db:1", true, true), None);
    assert_eq!(site.vouches(&address("web:1")), None);
}

#[test]
fn a_certificate_that_ended_or_is_for_something_else_is_not_used() {
    let authority = authority();
    let past = Timestamp::now() - jiff::SignedDuration::from_hours(2);
    let scope = SealScope {
        serve: Vec::new(),
        reach: vec!["db".into()],
    };
    let ended = authority.issue_seal("here", &scope, HOUR, past).unwrap();
    let ended = Hold::of(&Profile::Ready(TlsMaterial::from(&ended)));
    let reason = ended.outgoing(&address("db:1"), false, &[]).err().unwrap();
    assert!(reason.contains("ended at"), "{reason}");
    let subject = karez_identity::Subject {
        common_name: "skupper-router".into(),
        dns_names: Vec::new(),
        usage: karez_identity::Usage::Both,
        lifetime: HOUR,
        uri: None,
    };
    let other = authority.issue(&subject, Timestamp::now()).unwrap();
    assert!(matches!(
        Hold::of(&Profile::Ready(TlsMaterial::from(&other))),
        Hold::Waiting(_)
    ));
}
