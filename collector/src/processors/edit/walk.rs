//! The way to the attributes: export request → resource → scope → item (→ data → data point).

use std::borrow::Cow;

use karez_collector_config::Signal;

use super::select::Item;
use super::{Edit, Target};
use crate::processors::edit::attributes::Attributes;
use crate::wire::field::{Field, fields, put_delimited};

/// The payload with its attributes changed; `None` if nothing has changed.
pub(super) fn edit(plan: &Edit<'_>, signal: Signal, payload: &[u8]) -> Option<Vec<u8>> {
    rewrite(payload, |field| match field.number {
        1 => match plan.target {
            Target::Resource => edit_resource(plan, field.value),
            Target::Items => edit_items(plan, signal, field.value),
        },
        _ => None,
    })
}

/// A message with some of its fields replaced; `None` if none was.
fn rewrite(message: &[u8], mut change: impl FnMut(&Field<'_>) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    // Everything up to the first change is copied at once when it comes.
    let mut out: Option<Vec<u8>> = None;
    let mut passed = 0;
    for field in fields(message).flatten() {
        match (change(&field), &mut out) {
            (Some(changed), out) => {
                let out = out.get_or_insert_with(|| {
                    let mut start = Vec::with_capacity(message.len() + 256);
                    start.extend_from_slice(&message[..passed]);
                    start
                });
                put_delimited(out, field.number, &changed);
            }
            (None, Some(out)) => out.extend_from_slice(field.whole),
            (None, None) => {}
        }
        passed += field.whole.len();
    }
    out
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
    rewrite(payload, |field| match field.number {
        1 => with_resource(field.value, |resource| {
            let mut attributes = Attributes::read(resource, 1);
            change(&mut attributes);
            attributes.write(resource)
        }),
        _ => None,
    })
}

fn edit_resource(plan: &Edit<'_>, message: &[u8]) -> Option<Vec<u8>> {
    with_resource(message, |resource| apply(plan, resource, 1))
}

/// A message with its resource, field 1, changed.
fn with_resource(message: &[u8], change: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let resource = single(message, 1);
    let edited = change(&resource)?;
    let mut out = Vec::with_capacity(message.len() + 256);
    put_delimited(&mut out, 1, &edited);
    for field in fields(message).flatten().filter(|field| field.number != 1) {
        out.extend_from_slice(field.whole);
    }
    Some(out)
}

fn apply(plan: &Edit<'_>, holder: &[u8], number: u32) -> Option<Vec<u8>> {
    let mut attributes = Attributes::read(holder, number);
    for action in &plan.actions {
        action.apply(&mut attributes, plan.context);
    }
    attributes.write(holder)
}

fn edit_items(plan: &Edit<'_>, signal: Signal, message: &[u8]) -> Option<Vec<u8>> {
    let resource = single(message, 1);
    rewrite(message, |scope_items| match scope_items.number {
        2 => {
            let scope = single(scope_items.value, 1);
            rewrite(scope_items.value, |item| match item.number {
                2 => edit_item(
                    plan,
                    Place {
                        signal,
                        resource: &resource,
                        scope: &scope,
                    },
                    item.value,
                ),
                _ => None,
            })
        }
        _ => None,
    })
}

#[derive(Clone, Copy)]
struct Place<'a> {
    signal: Signal,
    resource: &'a [u8],
    scope: &'a [u8],
}

fn edit_item(plan: &Edit<'_>, place: Place<'_>, item: &[u8]) -> Option<Vec<u8>> {
    match place.signal {
        Signal::Traces => edit_holder(plan, place, item, item, 9),
        Signal::Logs => edit_holder(plan, place, item, item, 6),
        Signal::Metrics => rewrite(item, |data| {
            let number = match data.number {
                // gauge, sum, histogram, exponential histogram, summary
                5 | 7 | 11 => 7,
                9 => 9,
                10 => 1,
                _ => return None,
            };
            rewrite(data.value, |point| match point.number {
                1 => edit_holder(plan, place, item, point.value, number),
                _ => None,
            })
        }),
    }
}

fn edit_holder(
    plan: &Edit<'_>,
    place: Place<'_>,
    item: &[u8],
    holder: &[u8],
    number: u32,
) -> Option<Vec<u8>> {
    let Place {
        signal,
        resource,
        scope,
    } = place;
    match plan.selection.takes(&Item {
        signal,
        resource,
        scope,
        item,
        holder,
        number,
    }) {
        true => apply(plan, holder, number),
        false => None,
    }
}
