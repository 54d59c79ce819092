//! Sequences of operations on the pure store.

use super::*;
use crate::error::ApiError;
use proptest::prelude::*;
use serde_json::json;

fn context(at: i64) -> Context<'static> {
    Context {
        now: jiff::Timestamp::from_second(1_700_000_000 + at).expect("a time in range"),
        uid: format!("uid-{at}"),
        random: 7,
        manager: "test",
        validation: FieldValidation::Strict,
        admission: &[],
    }
}

struct Bench {
    store: Store,
    clock: i64,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            store: Store::new(1),
            clock: 0,
        };
        bench
            .run("Namespace", "", "default", |store, target, ctx| {
                create(store, target, json!({}), ctx)
            })
            .expect("a namespace");
        bench
    }

    fn run(
        &mut self,
        kind: &str,
        namespace: &str,
        name: &str,
        plan: impl FnOnce(&Store, Target<'_>, &Context<'_>) -> Result<Planned, ApiError>,
    ) -> Result<Arc<Value>, ApiError> {
        self.clock += 1;
        let kind = self.store.registry.in_group("", kind).expect("a kind");
        let target = Target {
            kind: &kind,
            namespace,
            name,
            subresource: "",
        };
        let planned = plan(&self.store, target, &context(self.clock))?;
        if let Some(change) = planned.change {
            self.store.commit(change);
        }
        while let Some(step) = gc::steps(&self.store).into_iter().next() {
            self.clock += 1;
            let planned = gc::plan(&self.store, &step, &context(self.clock)).expect("a step can be done");
            match planned.and_then(|p| p.change) {
                Some(change) => {
                    self.store.commit(change);
                }
                None => break,
            }
        }
        Ok(planned.object)
    }
}

#[test]
fn events_follow_the_order_of_writes() {
    let mut bench = Bench::new();
    let start = bench.store.version();
    bench
        .run("ConfigMap", "default", "a", |s, t, c| create(s, t, json!({}), c))
        .unwrap();
    bench
        .run("ConfigMap", "default", "a", |s, t, c| {
            patch(
                s,
                t,
                crate::patch::PatchKind::Merge,
                &json!({"data": {"x": "y"}}),
                c,
            )
        })
        .unwrap();
    bench
        .run("ConfigMap", "default", "a", |s, t, c| {
            delete(s, t, &DeleteOptions::default(), c)
        })
        .unwrap();
    let kinds: Vec<EventType> = bench.store.events_after(start).unwrap().map(|e| e.kind).collect();
    assert_eq!(kinds, [EventType::Added, EventType::Modified, EventType::Deleted]);
}

#[test]
fn history_is_bounded() {
    let mut bench = Bench::new();
    let start = bench.store.version();
    bench
        .run("ConfigMap", "default", "a", |s, t, c| create(s, t, json!({}), c))
        .unwrap();
    for i in 0..HISTORY {
        let patch_body = json!({"data": {"x": i.to_string()}});
        bench
            .run("ConfigMap", "default", "a", |s, t, c| {
                patch(s, t, crate::patch::PatchKind::Merge, &patch_body, c)
            })
            .unwrap();
    }
    assert!(bench.store.events_after(start).is_none());
    assert_eq!(bench.store.events_after(start + 1).unwrap().count(), HISTORY);
}

#[test]
fn a_dependent_of_an_owner_that_never_was_goes() {
    let mut bench = Bench::new();
    let body = json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "gone"}]}});
    bench
        .run("ConfigMap", "default", "a", |s, t, c| create(s, t, body, c))
        .unwrap();
    assert!(bench.store.get("", "ConfigMap", Some("default"), "a").is_none());
}

#[derive(Debug, Clone)]
enum Action {
    Create(u8, Option<u8>),
    Data(u8, u8),
    Finalize(u8, bool),
    Delete(u8, Option<&'static str>),
}

fn any_action() -> impl Strategy<Value = Action> {
    let policy = prop_oneof![
        Just(None),
        Just(Some("Foreground")),
        Just(Some("Background")),
        Just(Some("Orphan"))
    ];
    prop_oneof![
        (0u8..4, prop::option::of(0u8..4)).prop_map(|(n, o)| Action::Create(n, o)),
        (0u8..4, 0u8..3).prop_map(|(n, v)| Action::Data(n, v)),
        (0u8..4, any::<bool>()).prop_map(|(n, on)| Action::Finalize(n, on)),
        (0u8..4, policy).prop_map(|(n, p)| Action::Delete(n, p)),
    ]
}

fn perform(bench: &mut Bench, action: Action) {
    let merge = crate::patch::PatchKind::Merge;
    let _ = match action {
        Action::Create(name, owner) => {
            let owner = owner.and_then(|o| {
                bench
                    .store
                    .get("", "ConfigMap", Some("default"), &format!("m{o}"))
            });
            let references = owner.map(|o| json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": o["metadata"]["name"], "uid": o["metadata"]["uid"], "blockOwnerDeletion": true}]));
            let body = json!({"metadata": {"ownerReferences": references}});
            bench.run("ConfigMap", "default", &format!("m{name}"), |s, t, c| {
                create(s, t, body, c)
            })
        }
        Action::Data(name, value) => {
            let body = json!({"data": {"v": value.to_string()}});
            bench.run("ConfigMap", "default", &format!("m{name}"), |s, t, c| {
                patch(s, t, merge, &body, c)
            })
        }
        Action::Finalize(name, on) => {
            let body = json!({"metadata": {"finalizers": on.then(|| vec!["a.b/c"])}});
            bench.run("ConfigMap", "default", &format!("m{name}"), |s, t, c| {
                patch(s, t, merge, &body, c)
            })
        }
        Action::Delete(name, propagation) => {
            let options = DeleteOptions {
                propagation: propagation.map(str::to_owned),
                ..DeleteOptions::default()
            };
            bench.run("ConfigMap", "default", &format!("m{name}"), |s, t, c| {
                delete(s, t, &options, c)
            })
        }
    };
}

proptest! {
    /// Whatever happens: versions rise, nothing is left that waits for nothing, and replaying the events gives the objects.
    #[test]
    fn any_sequence_keeps_the_store_whole(actions in prop::collection::vec(any_action(), 0..40)) {
        let mut bench = Bench::new();
        let start = bench.store.version();
        for action in actions {
            perform(&mut bench, action);
        }
        let mut replayed = BTreeMap::new();
        let mut last = start;
        for event in bench.store.events_after(start).expect("few events") {
            prop_assert!(event.version > last);
            last = event.version;
            match event.kind {
                EventType::Deleted => replayed.remove(&event.key),
                _ => replayed.insert(event.key.clone(), event.object.clone()),
            };
        }
        for (key, object) in bench.store.objects().filter(|(k, _)| k.resource == "configmaps") {
            prop_assert_eq!(replayed.get(key), Some(object));
            let waits = !meta::finalizers(object).is_empty();
            prop_assert!(!meta::is_deleting(object) || waits);
        }
        prop_assert!(gc::steps(&bench.store).is_empty());
    }
}
