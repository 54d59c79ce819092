//! The way to the attributes: export request → resource → scope → item (→ data → data point).

use std::borrow::Cow;

use karez_collector_config::Signal;

use super::attributes::Entry;
use super::select::Item;
use super::splice::Splice;
use super::{Edit, Target};
use crate::processors::edit::attributes::Attributes;
use crate::wire::field::{Field, fields};

/// The payload with its attributes changed; `None` if nothing has changed.
pub(super) fn edit(plan: &Edit<'_>, signal: Signal, payload: &[u8]) -> Option<Vec<u8>> {
    match plan.target {
        Target::Resource => with_resources(payload, |resource| {
            let mut attributes = Attributes::read(resource, 1);
            apply(plan, &mut attributes);
            attributes.write(resource)
        }),
        Target::Items => {
            let mut walk = Walk {
                plan,
                signal,
                out: Splice::new(payload),
                entries: Vec::with_capacity(32),
            };
            walk.export(payload).then(|| walk.out.finish())
        }
    }
}

fn apply<'a>(plan: &'a Edit<'_>, attributes: &mut Attributes<'a>) {
    for action in &plan.actions {
        action.apply(attributes, plan.context);
    }
}

/// The message of a field that stands once; several mean their concatenation.
fn single(message: &[u8], number: u32) -> Cow<'_, [u8]> {
    let mut found = fields(message).flatten().filter(|field| field.number == number);
    match (found.next(), found.next()) {
        (None, _) => Cow::Borrowed(&[]),
        (Some(only), None) => Cow::Borrowed(only.value),
        (Some(first), Some(second)) => {
            let mut all = [first.value, second.value].concat();
            found.for_each(|field| all.extend_from_slice(field.value));
            Cow::Owned(all)
        }
    }
}

/// The payload with the attributes of its resources changed; `None` if nothing has changed.
pub(super) fn edit_resources(payload: &[u8], change: &mut dyn FnMut(&mut Attributes<'_>)) -> Option<Vec<u8>> {
    with_resources(payload, |resource| {
        let mut attributes = Attributes::read(resource, 1);
        change(&mut attributes);
        attributes.write(resource)
    })
}

/// The payload with its resources, field 1 of each of its messages, changed.
fn with_resources(payload: &[u8], mut change: impl FnMut(&[u8]) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let (mut out, mut changed) = (Splice::new(payload), false);
    for field in fields(payload).flatten() {
        let edited = (field.number == 1)
            .then(|| change(&single(field.value, 1)))
            .flatten();
        let Some(edited) = edited else {
            out.stays(field.whole);
            continue;
        };
        let open = out.open(&field);
        out.write(1, &edited);
        for field in fields(field.value).flatten().filter(|field| field.number != 1) {
            out.stays(field.whole);
        }
        changed |= out.close(open, &field, true);
    }
    changed.then(|| out.finish())
}

/// The way to the attributes of items.
struct Walk<'a> {
    plan: &'a Edit<'a>,
    signal: Signal,
    out: Splice<'a>,
    /// Memory of the last list of attributes.
    entries: Vec<Entry<'a>>,
}

/// Where an item stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    resource: &'a [u8],
    scope: &'a [u8],
}

impl<'a> Walk<'a> {
    fn export(&mut self, payload: &'a [u8]) -> bool {
        self.each(
            payload,
            |number| number == 1,
            |this, field| {
                let resource = single(field.value, 1);
                this.each(
                    field.value,
                    |number| number == 2,
                    |this, field| {
                        let scope = single(field.value, 1);
                        let place = Place {
                            resource: &resource,
                            scope: &scope,
                        };
                        this.each(
                            field.value,
                            |number| number == 2,
                            |this, item| this.item(place, item),
                        )
                    },
                )
            },
        )
    }

    /// Changes fields of a message; gives whether one has changed.
    fn each(
        &mut self,
        message: &'a [u8],
        concerns: impl Fn(u32) -> bool,
        mut change: impl FnMut(&mut Self, &Field<'a>) -> bool,
    ) -> bool {
        let mut any = false;
        for field in fields(message).flatten() {
            if !concerns(field.number) {
                self.out.stays(field.whole);
                continue;
            }
            let open = self.out.open(&field);
            let changed = change(self, &field);
            any |= self.out.close(open, &field, changed);
        }
        any
    }

    fn item(&mut self, place: Place<'_>, item: &Field<'a>) -> bool {
        let item = item.value;
        match self.signal {
            Signal::Traces => self.holder(place, item, item, 9),
            Signal::Logs => self.holder(place, item, item, 6),
            Signal::Metrics => self.each(
                item,
                |number| points(number).is_some(),
                |this, data| {
                    let number = points(data.number).unwrap_or_default();
                    this.each(
                        data.value,
                        |number| number == 1,
                        |this, point| this.holder(place, item, point.value, number),
                    )
                },
            ),
        }
    }

    /// Changes a message that holds attributes as field `number`.
    fn holder(&mut self, place: Place<'_>, item: &'a [u8], holder: &'a [u8], number: u32) -> bool {
        let taken = self.plan.selection.takes(&Item {
            signal: self.signal,
            resource: place.resource,
            scope: place.scope,
            item,
            holder,
            number,
        });
        if !taken {
            return false;
        }
        let mut attributes = Attributes::read_into(std::mem::take(&mut self.entries), holder, number);
        apply(self.plan, &mut attributes);
        let changed = attributes.splice(&mut self.out, holder);
        self.entries = attributes.into_entries();
        changed
    }
}

/// The field of the attributes in the data points of a metric's field; `None` if it holds none.
fn points(data: u32) -> Option<u32> {
    match data {
        // gauge, sum, histogram, exponential histogram, summary
        5 | 7 | 11 => Some(7),
        9 => Some(9),
        10 => Some(1),
        _ => None,
    }
}
