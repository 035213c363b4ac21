//! A set of places of an object: who owns what is kept in these.
//!
//! The set is a tree of sorted vectors, so a set of a thousand fields is some tens of kilobytes and
//! its operations are merges of sorted lists. A place may be a member without the places below it
//! being members, and the other way round. It knows no schema.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::path::{Element, ElementError};

/// What two sets, walked side by side, leave at one place.
type Choose<'a> = dyn Fn(Option<&Node>, Option<&Node>) -> Option<Node> + 'a;

/// How deep a set that is read may be: as deep as JSON itself may nest.
pub const FIELD_SET_MAX_DEPTH: usize = 128;

/// How many places a set that is read may have. An object of the largest size that is stored cannot
/// have more fields than this.
pub const FIELD_SET_MAX_PLACES: usize = 1 << 17;

/// A level that is so many times smaller than another is looked up in it step by step: an object may have
/// thousands of records, and each is compared with all that a write sets.
const SPARSE: usize = 8;

/// What `fieldsV1` calls the place itself among the places below it.
pub(super) const ITSELF: &str = ".";

/// What `fieldsType` calls this form of a set.
pub(super) const FIELDS_TYPE: &str = "FieldsV1";

/// A set of places. The place at the root is never a member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// Sorted by element; none is empty.
    nodes: Vec<Node>,
}

/// A place that is a member, or has members below it, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) element: Element,
    pub(super) member: bool,
    pub(super) below: FieldSet,
}

/// A `fieldsV1` that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldSetError {
    /// Something else than a map of steps.
    #[error("fieldsV1 must be a map of path elements, found {0}")]
    Shape(String),
    /// A step is malformed.
    #[error(transparent)]
    Element(#[from] ElementError),
    /// It nests too deep.
    #[error("fieldsV1 is deeper than {FIELD_SET_MAX_DEPTH}")]
    TooDeep,
    /// It has too many places.
    #[error("fieldsV1 has more than {FIELD_SET_MAX_PLACES} places")]
    TooLarge,
}

impl FieldSet {
    /// The set with no place.
    #[must_use]
    pub const fn new() -> Self {
        Self { nodes: Vec::new() }
    }

    /// A set of paths of fields: `&[&["metadata", "name"], &["status"]]`.
    #[must_use]
    pub fn of_fields(paths: &[&[&str]]) -> Self {
        let mut set = Self::new();
        for path in paths {
            let path: Vec<Element> = path.iter().map(|name| Element::field(name)).collect();
            set.insert(&path);
        }
        set
    }

    /// Whether there is no place in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// How many places it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.iter().map(|node| usize::from(node.member) + node.below.len()).sum()
    }

    /// Adds a place; the empty path is not one.
    pub fn insert(&mut self, path: &[Element]) {
        let Some((element, rest)) = path.split_first() else { return };
        let mut below = Self::new();
        below.insert(rest);
        self.put(Node { element: element.clone(), member: rest.is_empty(), below });
    }

    /// Adds a place with what is below it.
    pub(super) fn put(&mut self, node: Node) {
        if !node.member && node.below.is_empty() {
            return;
        }
        // Most are put in order.
        if self.nodes.last().is_none_or(|last| last.element < node.element) {
            self.nodes.push(node);
            return;
        }
        match self.nodes.binary_search_by(|other| other.element.cmp(&node.element)) {
            Ok(at) => {
                if let Some(found) = self.nodes.get_mut(at) {
                    found.member |= node.member;
                    found.below = std::mem::take(&mut found.below).union(node.below);
                }
            }
            Err(at) => self.nodes.insert(at, node),
        }
    }

    pub(super) fn node(&self, element: &Element) -> Option<&Node> {
        let at = self.nodes.binary_search_by(|node| node.element.cmp(element)).ok()?;
        self.nodes.get(at)
    }

    /// The step to a field, without making one to look for.
    pub(super) fn field(&self, name: &str) -> Option<&Node> {
        let order = |node: &Node| match &node.element {
            Element::Field(field) => (**field).cmp(name),
            // Fields come first.
            _ => Ordering::Greater,
        };
        let at = self.nodes.binary_search_by(order).ok()?;
        self.nodes.get(at)
    }

    /// Whether every place of it is in the other.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        let mut theirs = other.nodes.iter().peekable();
        self.nodes.iter().all(|mine| {
            while theirs.next_if(|theirs| theirs.element < mine.element).is_some() {}
            let theirs = theirs.next_if(|theirs| theirs.element == mine.element);
            theirs.is_some_and(|theirs| {
                (!mine.member || theirs.member) && mine.below.is_subset(&theirs.below)
            })
        })
    }

    /// Whether the place is a member.
    #[must_use]
    pub fn contains(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.node(last).is_some_and(|node| node.member),
            [first, rest @ ..] => self.below(first).is_some_and(|below| below.contains(rest)),
        }
    }

    /// What is below a place, if something is.
    #[must_use]
    pub fn below(&self, element: &Element) -> Option<&Self> {
        self.node(element).map(|node| &node.below).filter(|below| !below.is_empty())
    }

    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The places that are in either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        if self.nodes.is_empty() {
            return other;
        }
        if other.nodes.is_empty() {
            return self;
        }
        let mut nodes = Vec::with_capacity(self.nodes.len().max(other.nodes.len()));
        let (mut mine, mut theirs) =
            (self.nodes.into_iter().peekable(), other.nodes.into_iter().peekable());
        loop {
            let order = match (mine.peek(), theirs.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(mine), Some(theirs)) => mine.element.cmp(&theirs.element),
            };
            let mine = if order.is_le() { mine.next() } else { None };
            let theirs = if order.is_ge() { theirs.next() } else { None };
            nodes.extend(match (mine, theirs) {
                (Some(mine), Some(theirs)) => Some(Node {
                    element: mine.element,
                    member: mine.member || theirs.member,
                    below: mine.below.union(theirs.below),
                }),
                (one, None) | (None, one) => one,
            });
        }
        Self { nodes }
    }

    /// The places that are in any of the sets; pair by pair, so that many small ones do not copy a large one
    /// again and again.
    #[must_use]
    pub fn union_of(mut sets: Vec<Self>) -> Self {
        while sets.len() > 1 {
            let mut rest = sets.into_iter();
            let mut pairs = Vec::with_capacity(rest.len().div_ceil(2));
            while let Some(one) = rest.next() {
                pairs.push(one.union(rest.next().unwrap_or_default()));
            }
            sets = pairs;
        }
        sets.pop().unwrap_or_default()
    }

    fn is_sparse_beside(&self, other: &Self) -> bool {
        self.nodes.len().saturating_mul(SPARSE) < other.nodes.len()
    }

    /// The places that are in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let both = |mine: &Node, theirs: &Node| Node {
            element: mine.element.clone(),
            member: mine.member && theirs.member,
            below: mine.below.intersection(&theirs.below),
        };
        if self.is_sparse_beside(other) {
            let found = self.nodes.iter().filter_map(|mine| {
                let node = both(mine, other.node(&mine.element)?);
                (node.member || !node.below.is_empty()).then_some(node)
            });
            return Self { nodes: found.collect() };
        }
        self.join(other, &|mine, theirs| Some(both(mine?, theirs?)))
    }

    /// The places that are here and not there. Places below one that is there stay.
    #[must_use]
    pub fn difference(mut self, other: &Self) -> Self {
        self.remove(other, false);
        self
    }

    /// The places that are neither there nor below a place that is there.
    #[must_use]
    pub fn recursive_difference(mut self, other: &Self) -> Self {
        self.remove(other, true);
        self
    }

    fn remove(&mut self, other: &Self, with_below: bool) {
        if other.nodes.is_empty() {
            return;
        }
        let sparse = self.is_sparse_beside(other);
        let mut theirs = other.nodes.iter().peekable();
        self.nodes.retain_mut(|mine| {
            let found = if sparse {
                other.node(&mine.element)
            } else {
                while theirs.next_if(|theirs| theirs.element < mine.element).is_some() {}
                theirs.next_if(|theirs| theirs.element == mine.element)
            };
            if let Some(theirs) = found {
                if theirs.member && with_below {
                    return false;
                }
                mine.member &= !theirs.member;
                mine.below.remove(&theirs.below, with_below);
            }
            mine.member || !mine.below.is_empty()
        });
    }

    /// The members below which there is no other.
    #[must_use]
    pub fn leaves(&self) -> Self {
        let nodes = self.nodes.iter().map(|node| Node {
            element: node.element.clone(),
            member: node.member && node.below.is_empty(),
            below: node.below.leaves(),
        });
        Self { nodes: nodes.collect() }
    }

    /// Every place on the way to a member, members aside.
    #[must_use]
    pub fn prefixes(&self) -> Self {
        let nodes = self.nodes.iter().filter(|node| !node.below.is_empty()).map(|node| Node {
            element: node.element.clone(),
            member: true,
            below: node.below.prefixes(),
        });
        Self { nodes: nodes.collect() }
    }

    /// Every place, in Kubernetes' order: the members of a level before those below it.
    #[must_use]
    pub fn paths(&self) -> Vec<Vec<Element>> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, at: &mut Vec<Element>, paths: &mut Vec<Vec<Element>>) {
        for node in self.nodes.iter().filter(|node| node.member) {
            let mut path = at.clone();
            path.push(node.element.clone());
            paths.push(path);
        }
        for node in &self.nodes {
            at.push(node.element.clone());
            node.below.collect(at, paths);
            at.pop();
        }
    }

    /// Walks both sets side by side; what `choose` makes empty is left out.
    fn join(&self, other: &Self, choose: &Choose<'_>) -> Self {
        let mut nodes = Vec::with_capacity(self.nodes.len());
        let (mut mine, mut theirs) = (self.nodes.iter().peekable(), other.nodes.iter().peekable());
        loop {
            let order = match (mine.peek(), theirs.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(mine), Some(theirs)) => mine.element.cmp(&theirs.element),
            };
            let chosen = choose(
                if order.is_le() { mine.next() } else { None },
                if order.is_ge() { theirs.next() } else { None },
            );
            nodes.extend(chosen.filter(|node| node.member || !node.below.is_empty()));
        }
        Self { nodes }
    }

    /// The set as `fieldsV1`.
    #[must_use]
    pub fn encode(&self) -> Value {
        Value::Object(self.encode_map())
    }

    fn encode_map(&self) -> Map<String, Value> {
        let encode = |node: &Node| {
            let mut below = Map::new();
            if node.member && !node.below.is_empty() {
                below.insert(ITSELF.to_owned(), Value::Object(Map::new()));
            }
            below.extend(node.below.encode_map());
            (node.element.encode(), Value::Object(below))
        };
        self.nodes.iter().map(encode).collect()
    }

    /// Reads a `fieldsV1`.
    ///
    /// # Errors
    /// When it is no map of steps, or exceeds a limit.
    pub fn decode(fields: &Value) -> Result<Self, FieldSetError> {
        let mut places_left = FIELD_SET_MAX_PLACES;
        decode(fields, FIELD_SET_MAX_DEPTH, &mut places_left)
    }
}

fn decode(
    fields: &Value,
    depth_left: usize,
    places_left: &mut usize,
) -> Result<FieldSet, FieldSetError> {
    let Some(depth_left) = depth_left.checked_sub(1) else { return Err(FieldSetError::TooDeep) };
    let Value::Object(fields) = fields else {
        return Err(FieldSetError::Shape(kind_of(fields).to_owned()));
    };
    let mut nodes = Vec::with_capacity(fields.len());
    for (step, below) in fields.iter().filter(|(step, _)| *step != ITSELF) {
        *places_left = places_left.checked_sub(1).ok_or(FieldSetError::TooLarge)?;
        let Some(element) = Element::parse(step)? else { continue };
        let bare = below.as_object().is_some_and(Map::is_empty);
        let member = bare || below.get(ITSELF).is_some();
        let below = decode(below, depth_left, places_left)?;
        if member || !below.is_empty() {
            nodes.push(Node { element, member, below });
        }
    }
    // Two spellings of one key become one place.
    nodes.sort_by(|one, other| one.element.cmp(&other.element));
    let mut set = FieldSet { nodes: Vec::with_capacity(nodes.len()) };
    for node in nodes {
        match set.nodes.last_mut() {
            Some(last) if last.element == node.element => {
                last.member |= node.member;
                last.below = std::mem::take(&mut last.below).union(node.below);
            }
            _ => set.nodes.push(node),
        }
    }
    Ok(set)
}

/// What a JSON value is, for messages.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}
