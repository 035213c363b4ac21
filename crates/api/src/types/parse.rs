//! Reads the table's text. A line that is not understood is left out; a test sees to it that there
//! is none.

use std::collections::HashMap;

use super::{Field, Keys, MergeType, Message, Patch, Shape, Type};

pub(super) fn table(text: &'static str) -> HashMap<&'static str, Message> {
    let mut table: HashMap<&str, Message> = HashMap::new();
    let mut message = "";
    for line in text.lines() {
        if let Some(line) = line.strip_prefix(' ') {
            table.entry(message).or_default().by_number.extend(field(line));
            continue;
        }
        let (name, facts) = line.split_once(' ').unwrap_or((line, ""));
        message = name;
        let has = |fact| facts.split(' ').any(|found| found == fact);
        let (has_kind, atomic) = (has("kind"), has("atomic"));
        table.insert(name, Message { name, has_kind, atomic, ..Message::default() });
    }
    let names: Vec<&str> = table.keys().copied().collect();
    for name in names {
        let mut fields = Vec::new();
        flatten(&table, name, &mut fields);
        fields.sort_by_key(|field| field.name);
        fields.shrink_to_fit();
        if let Some(message) = table.get_mut(name) {
            message.by_number.sort_by_key(|field| field.number);
            message.by_number.shrink_to_fit();
            message.by_name = fields;
        }
    }
    table
}

/// The fields of a message as JSON has them.
fn flatten(table: &HashMap<&str, Message>, name: &str, into: &mut Vec<Field>) {
    for field in table.get(name).iter().flat_map(|message| &message.by_number) {
        match field.shape {
            Shape::Plain(Type::Message(inner)) | Shape::Optional(Type::Message(inner))
                if field.name == "." =>
            {
                flatten(table, inner, into);
            }
            _ => into.push(*field),
        }
    }
}

fn field(line: &'static str) -> Option<Field> {
    let mut words = line.split(' ');
    let number = words.next()?.parse().ok()?;
    let name = words.next()?;
    let shape = match words.next()? {
        "map" => match words.next()? {
            "[]string" => Shape::MapOfLists,
            inner => Shape::Map(kind(inner)),
        },
        word => match (word.strip_prefix('*'), word.strip_prefix("[]")) {
            (Some(inner), _) => Shape::Optional(kind(inner)),
            (_, Some(inner)) => Shape::List(kind(inner)),
            (None, None) => Shape::Plain(kind(word)),
        },
    };
    let mut field = Field {
        number,
        name,
        shape,
        required: false,
        patch: Patch::default(),
        merge_type: None,
        default: None,
    };
    for word in words {
        fact(&mut field, word)?;
    }
    Some(field)
}

/// `None` for a word that is no fact.
fn fact(field: &mut Field, word: &'static str) -> Option<()> {
    match word.split_once('=').map_or((word, None), |(fact, value)| (fact, Some(value))) {
        ("required", None) => field.required = true,
        ("merge", key) => (field.patch.merge, field.patch.merge_key) = (true, key),
        ("retainKeys", None) => field.patch.retain_keys = true,
        ("replace", None) => field.patch.replace = true,
        ("atomic", None) => field.merge_type = Some(MergeType::Atomic),
        ("granular", None) => field.merge_type = Some(MergeType::Granular),
        ("set", None) => field.merge_type = Some(MergeType::Set),
        ("map", Some(keys)) => field.merge_type = Some(MergeType::Map(Keys(keys))),
        ("default", Some(value)) => field.default = Some(value),
        _ => return None,
    }
    Some(())
}

fn kind(name: &'static str) -> Type {
    match name {
        "string" => Type::Text,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "double" => Type::Double,
        "bool" => Type::Boolean,
        "bytes" => Type::Bytes,
        "Time" => Type::Time,
        "MicroTime" => Type::MicroTime,
        "Quantity" => Type::Quantity,
        "IntOrString" => Type::IntOrString,
        "Raw" => Type::Raw,
        "SchemaOrBool" => Type::SchemaOrBool,
        "SchemaOrArray" => Type::SchemaOrArray,
        "SchemaOrTexts" => Type::SchemaOrTexts,
        message => Type::Message(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_understood() {
        let text = include_str!("types.txt");
        for line in text.lines() {
            match line.strip_prefix(' ') {
                Some(line) => assert!(field(line).is_some(), "{line}"),
                None => {
                    let mut facts = line.split(' ').skip(1);
                    assert!(facts.all(|fact| matches!(fact, "kind" | "atomic")), "{line}");
                }
            }
        }
        let messages = text.lines().filter(|line| !line.starts_with(' ')).count();
        assert_eq!(table(text).len(), messages, "a message is there twice");
    }
}
