//! The items of a list by what tells them apart, so that two lists can be gone through side by side. It reads
//! lists and makes none.

use std::iter::Peekable;

use serde_json::Value;
use toono_api::Place;

use super::{
    identity::{ItemError, identity},
    path::Element,
};

/// The items of a list by what tells them apart. An object may come with several equal items, since
/// only what is applied is checked for them.
#[derive(Default)]
pub(super) struct Items<'v> {
    /// Sorted by element; equal ones in the list's order.
    sorted: Vec<Item<'v>>,
}

/// One item.
pub(super) struct Item<'v> {
    /// What tells it.
    pub(super) element: Element,
    /// Its position in the list.
    pub(super) at: usize,
    pub(super) value: &'v Value,
}

/// The items that one element tells: mostly one, and never none where there is such a list.
pub(super) type Same<'a, 'v> = &'a [Item<'v>];

impl<'v> Items<'v> {
    /// # Errors
    /// When one of them cannot be told from others.
    pub(super) fn of(items: &'v [Value], place: Place<'_>) -> Result<Self, ItemError> {
        let item = |(at, value)| Ok(Item { element: identity(place, value)?, at, value });
        let mut sorted = items.iter().enumerate().map(item).collect::<Result<Vec<_>, _>>()?;
        sorted.sort_by(|one, other| one.element.cmp(&other.element));
        Ok(Self { sorted })
    }

    /// Each element with its items, in the elements' order.
    pub(super) fn groups(&self) -> impl Iterator<Item = (&Element, Same<'_, 'v>)> {
        let groups = self.sorted.chunk_by(|one, other| one.element == other.element);
        groups.filter_map(|same| Some((&same.first()?.element, same)))
    }

    /// The items in their list's order, with what tells them.
    pub(super) fn in_order(&self) -> Vec<&Item<'v>> {
        let mut items: Vec<&Item<'v>> = self.sorted.iter().collect();
        items.sort_unstable_by_key(|item| item.at);
        items
    }

    /// Whether an item is there twice.
    pub(super) fn has_duplicates(&self) -> bool {
        !self.sorted.is_sorted_by(|one, other| one.element < other.element)
    }
}

/// Two lists side by side, in the elements' order: each element with its items in both, none where it is in one
/// only.
pub(super) fn pairs<'a, 'v>(
    old: Option<&'a Items<'v>>,
    new: Option<&'a Items<'v>>,
) -> impl Iterator<Item = (&'a Element, Same<'a, 'v>, Same<'a, 'v>)> {
    let mut old = old.into_iter().flat_map(Items::groups).peekable();
    let mut new = new.into_iter().flat_map(Items::groups).peekable();
    std::iter::from_fn(move || next_pair(&mut old, &mut new))
}

type Group<'a, 'v> = (&'a Element, Same<'a, 'v>);

fn next_pair<'a, 'v>(
    old: &mut Peekable<impl Iterator<Item = Group<'a, 'v>>>,
    new: &mut Peekable<impl Iterator<Item = Group<'a, 'v>>>,
) -> Option<(&'a Element, Same<'a, 'v>, Same<'a, 'v>)> {
    let order = match (old.peek(), new.peek()) {
        (None, None) => return None,
        (Some(_), None) => std::cmp::Ordering::Less,
        (None, Some(_)) => std::cmp::Ordering::Greater,
        (Some((old, _)), Some((new, _))) => old.cmp(new),
    };
    let old = if order.is_le() { old.next() } else { None };
    let new = if order.is_ge() { new.next() } else { None };
    let (element, _) = old.or(new)?;
    let same = |group: Option<Group<'a, 'v>>| group.map_or(&[][..], |(_, same)| same);
    Some((element, same(old), same(new)))
}
