//! An authority that nears its end is followed by another, without anyone having to exchange a token.
//!
//! ```text
//!  begin ──────────── a third ──────────── switch ─────────── two thirds ─────────── leave
//!  a successor is made                     the successor takes its place             the old one is no longer believed
//!  both are believed; links are told       servers' certificates are issued anew
//!  what links hold by is renewed under the successor, over the link
//! ```
//!
//! All of it stands in the authority's own Secret: `tls.*` issues for servers, `next.*` is the successor, and
//! `previous.crt` the predecessor. The time between begin and switch is for peers to learn of the successor before they
//! meet a server that it vouches for; a peer that was off all that time needs a new token.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use karez_identity::CertificateFacts;
use karez_kubernetes::labels;

use super::certificates::{annotation, bytes};
use super::{Note, RolloverOrder};
use crate::object::reference;

/// Data keys of an authority's successor.
pub(crate) const NEXT: (&str, &str) = ("next.crt", "next.key");
/// Data key of an authority's predecessor.
pub(crate) const PREVIOUS: &str = "previous.crt";

/// What is to be done about an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make a successor.
    Begin,
    /// Put the successor in its place; the predecessor is believed until then.
    Switch(Timestamp),
    /// Believe the predecessor no longer.
    Leave,
}

/// What is due by now, and when to look again.
pub(crate) fn due(secret: &Secret, overlap: Duration, now: Timestamp) -> (Option<Step>, Option<Timestamp>) {
    let facts = |key| bytes(secret, key).and_then(|pem| CertificateFacts::from_pem(pem).ok());
    let Some(current) = facts("tls.crt") else {
        return (None, None);
    };
    let overlap = of_its_life(&current, overlap);
    if let Some(previous) = facts(PREVIOUS) {
        let until = time(secret, labels::PREVIOUS_UNTIL).unwrap_or(previous.not_after);
        return at(until, Step::Leave, now);
    }
    if let Some(next) = facts(NEXT.0) {
        let since = time(secret, labels::NEXT_SINCE).unwrap_or(next.not_before);
        let switch = later(since, overlap / 3).min(current.not_after);
        let leave = later(since, overlap).min(current.not_after);
        return at(switch, Step::Switch(leave), now);
    }
    if annotation(secret, labels::ROLLOVER).is_some_and(|value| value == "true") {
        return (Some(Step::Begin), None);
    }
    let begin = current
        .not_after
        .checked_sub(overlap)
        .unwrap_or(current.not_before);
    at(begin, Step::Begin, now)
}

fn at(time: Timestamp, step: Step, now: Timestamp) -> (Option<Step>, Option<Timestamp>) {
    if time <= now {
        (Some(step), None)
    } else {
        (None, Some(time))
    }
}

/// Not more than a third of the authority's life.
fn of_its_life(facts: &CertificateFacts, wanted: Duration) -> SignedDuration {
    let life = facts.not_after.duration_since(facts.not_before);
    let wanted = SignedDuration::try_from(wanted).unwrap_or(SignedDuration::MAX);
    wanted.min(life / 3)
}

fn later(from: Timestamp, by: SignedDuration) -> Timestamp {
    from.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn time(secret: &Secret, key: &str) -> Option<Timestamp> {
    annotation(secret, key)?.parse().ok()
}

/// Whom to believe, the newest first: successor, authority, predecessor.
pub(crate) fn believed(authority: &Secret) -> Vec<u8> {
    let mut bundle = Vec::new();
    for key in [NEXT.0, "tls.crt", PREVIOUS] {
        let Some(pem) = bytes(authority, key) else {
            continue;
        };
        if !bundle.is_empty() && !bundle.ends_with(b"\n") {
            bundle.push(b'\n');
        }
        bundle.extend_from_slice(pem);
    }
    bundle
}

/// What an operator should know of it.
pub(crate) fn note(
    name: &str,
    secret: &Secret,
    site: &k8s_openapi::api::core::v1::ConfigMap,
) -> Option<Note> {
    let end = |key| Some(CertificateFacts::from_pem(bytes(secret, key)?).ok()?.not_after);
    let message = if let Some(next) = end(NEXT.0) {
        format!(
            "a successor of the authority in Secret {name} is believed beside it and will take its place; it holds until \
             {next}"
        )
    } else if bytes(secret, PREVIOUS).is_some() {
        let until = annotation(secret, labels::PREVIOUS_UNTIL).map_or("its end", String::as_str);
        format!("the authority in Secret {name} is new; the one before it is believed until {until}")
    } else {
        return None;
    };
    Some(Note {
        about: reference("v1", "ConfigMap", &site.metadata),
        warning: false,
        reason: "AuthorityRollover",
        message,
    })
}

/// The order for an authority whose step is due.
pub(crate) fn order(name: &str, secret: &Secret, step: Step) -> RolloverOrder {
    RolloverOrder {
        name: name.to_owned(),
        authority: secret.clone(),
        step,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;
    use karez_identity::Authority;
    use kube::core::ObjectMeta;

    use super::*;
    use crate::issue::Issuer;
    use crate::site_config::Lifetimes;

    const DAY: Duration = Duration::from_secs(86_400);
    const MONTH: Duration = Duration::from_secs(30 * 86_400);

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + day * 86_400).unwrap()
    }

    fn secret(lifetime: Duration) -> Secret {
        let authority = Authority::new("skupper-site-ca", at(0), lifetime).unwrap();
        let data = [
            ("tls.crt", authority.certificate_pem()),
            ("tls.key", authority.key_pem()),
        ];
        Secret {
            metadata: ObjectMeta {
                name: Some("skupper-site-ca".into()),
                ..ObjectMeta::default()
            },
            data: Some(
                data.map(|(key, text)| (key.into(), ByteString(text.as_bytes().to_vec())))
                    .into(),
            ),
            ..Secret::default()
        }
    }

    fn next(secret: &Secret, step: Step, now: Timestamp) -> Secret {
        let secrets = BTreeMap::from([("skupper-site-ca".to_owned(), secret.clone())]);
        let lifetimes = Lifetimes {
            authority: 300 * DAY,
            ..Lifetimes::default()
        };
        let mut issuer = Issuer::new(&secrets, now).lasting(lifetimes);
        issuer.rollover(&order("skupper-site-ca", secret, step)).unwrap()
    }

    fn count(bundle: &[u8]) -> usize {
        String::from_utf8_lossy(bundle)
            .matches("BEGIN CERTIFICATE")
            .count()
    }

    #[test]
    fn an_authority_is_followed_by_another_before_it_ends() {
        let old = secret(300 * DAY);
        let (none, begins) = due(&old, MONTH, at(200));
        assert_eq!((none, begins), (None, Some(at(270))));
        assert_eq!(due(&old, MONTH, at(270)).0, Some(Step::Begin));
        let both = next(&old, Step::Begin, at(270));
        assert_eq!(count(&believed(&both)), 2);
        assert_eq!(
            bytes(&both, "tls.crt"),
            bytes(&old, "tls.crt"),
            "servers keep theirs for now"
        );
        assert_eq!(due(&both, MONTH, at(275)), (None, Some(at(280))));
        let (switch, _) = due(&both, MONTH, at(280));
        assert_eq!(switch, Some(Step::Switch(at(300))));
        let new = next(&both, switch.unwrap(), at(280));
        assert_eq!(bytes(&new, "tls.crt"), bytes(&both, NEXT.0));
        assert_eq!(bytes(&new, PREVIOUS), bytes(&old, "tls.crt"));
        assert_eq!(count(&believed(&new)), 2);
        assert!(
            believed(&new).starts_with(bytes(&new, "tls.crt").unwrap()),
            "the newest first"
        );
        assert_eq!(due(&new, MONTH, at(299)), (None, Some(at(300))));
        let alone = next(&new, due(&new, MONTH, at(300)).0.unwrap(), at(300));
        assert_eq!(count(&believed(&alone)), 1);
        assert_eq!(
            due(&alone, MONTH, at(300)),
            (None, Some(at(540))),
            "270 + 300 - 30"
        );
        assert!(
            alone.metadata.annotations.unwrap().is_empty(),
            "nothing is left over"
        );
    }

    #[test]
    fn an_operator_can_ask_for_it_and_it_is_done_once() {
        let mut old = secret(300 * DAY);
        let annotations = BTreeMap::from([(labels::ROLLOVER.to_owned(), "true".to_owned())]);
        old.metadata.annotations = Some(annotations);
        assert_eq!(due(&old, MONTH, at(10)).0, Some(Step::Begin));
        let both = next(&old, Step::Begin, at(10));
        assert_eq!(
            annotation(&both, labels::ROLLOVER),
            None,
            "asked for once, done once"
        );
        assert_eq!(due(&both, MONTH, at(10)), (None, Some(at(20))));
        let new = next(&both, due(&both, MONTH, at(20)).0.unwrap(), at(20));
        assert_eq!(
            due(&new, MONTH, at(20)),
            (None, Some(at(40))),
            "long before its own end"
        );
    }

    #[test]
    fn short_lives_have_short_overlaps() {
        let hour = Duration::from_secs(3600);
        let old = secret(3 * hour);
        let (_, begins) = due(&old, MONTH, at(0));
        let left = (at(0) + SignedDuration::from_hours(3)).duration_since(begins.unwrap());
        assert!(
            left > SignedDuration::from_mins(59) && left < SignedDuration::from_mins(63),
            "{left}"
        );
    }

    #[test]
    fn an_authority_that_ended_while_nobody_looked_is_replaced_at_once() {
        let old = secret(10 * DAY);
        assert_eq!(due(&old, MONTH, at(20)).0, Some(Step::Begin));
        let both = next(&old, Step::Begin, at(20));
        let (switch, _) = due(&both, MONTH, at(20));
        assert!(matches!(switch, Some(Step::Switch(_))));
        let new = next(&both, switch.unwrap(), at(20));
        assert_eq!(due(&new, MONTH, at(20)).0, Some(Step::Leave));
    }
}
