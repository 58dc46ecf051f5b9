//! Environment variables over the configuration: `LANDFALL_API__LISTEN` is `api.listen`.
//!
//! A variable is put into the tree before it is read, so that it is checked like text of the file.
//! One that looks like a key but is none is an error: a misspelt override must not be ignored in silence.

use std::sync::Arc;

use super::errors::FileError;
use super::keys::{Kind, Table};
use super::reader::closest;
use super::yaml::{Key, Node, NodeKind, Place, Scalar, Style};

/// What every variable of Landfall starts with.
const PREFIX: &str = "LANDFALL_";
/// What joins nested keys.
const NESTING: &str = "__";
/// Variables that are no keys: of the command line, of the process tree, and what instances are told, for an
/// agent that is itself an instance of another.
const OTHERS: [&str; 10] = ["AGENT", "ENV", "LOG", "CONFIG", "FDS", "APP", "VERSION", "COMMIT", "OBJECT", "INSTANCE"];
/// What variables about volumes start with; those are told to instances too.
const VOLUMES: &str = "VOLUME_";

/// Puts every variable that is a key into the tree.
pub fn apply(
    tree: &mut Node,
    table: &'static Table,
    env: &mut dyn Iterator<Item = (String, String)>,
) -> Vec<FileError> {
    // Sorted, so that list entries come in their order and errors do not depend on the environment's.
    let mut variables: Vec<_> = env.filter(|(name, _)| name.starts_with(PREFIX)).collect();
    variables.sort();
    let apply = |(name, value): (String, String)| {
        let rest = name.strip_prefix(PREFIX)?;
        if OTHERS.contains(&rest) || rest.starts_with(VOLUMES) {
            return None;
        }
        let path: Vec<String> = rest.split(NESTING).map(str::to_lowercase).collect();
        let first = path.first().map(String::as_str).unwrap_or_default();
        let meant = path.len() > 1 || closest(first, table.keys.iter().map(|key| key.name)).is_some();
        if !meant {
            return None;
        }
        let result = check_path(&path, table).and_then(|()| put(tree, &path, &name, value));
        result.err().map(|(message, hint)| FileError::whole(format!("${name}"), message, hint))
    };
    variables.into_iter().filter_map(apply).collect()
}

type Refusal = (String, Option<String>);

/// Whether a path names a key of the table.
fn check_path(path: &[String], mut table: &'static Table) -> Result<(), Refusal> {
    let mut kind: Option<&'static Kind> = None;
    let mut known = String::from(PREFIX);
    for (depth, segment) in path.iter().enumerate() {
        if let Some(Kind::List(..) | Kind::Tables(..)) = kind {
            segment.parse::<usize>().map_err(|_| {
                (format!("`{segment}` must be the number of a list entry, from 0"), Some(format!("write {known}0")))
            })?;
            kind = match kind {
                Some(Kind::Tables(inner, _)) => {
                    table = inner;
                    None
                }
                Some(_) | None => Some(&Kind::Variable),
            };
        } else if kind.is_none() {
            let Some(key) = table.key(segment) else {
                let guess = closest(segment, table.keys.iter().map(|key| key.name));
                let message = match guess {
                    Some(guess) => format!("unknown key `{segment}`, did you mean `{known}{}`?", guess.to_uppercase()),
                    None => format!("unknown key `{segment}` in {}", table.what),
                };
                let names = table.keys.iter().map(|key| key.name).collect::<Vec<_>>().join(", ");
                return Err((message, Some(format!("{} has the keys {names}", table.what))));
            };
            match &key.kind {
                Kind::Table(inner) => table = inner,
                other => kind = Some(other),
            }
        } else {
            return Err((format!("`{}` has no keys of its own", path[..depth].join(".")), None));
        }
        known.push_str(&segment.to_uppercase());
        known.push_str(NESTING);
    }
    Ok(())
}

fn put(node: &mut Node, path: &[String], variable: &str, value: String) -> Result<(), Refusal> {
    let Some((segment, rest)) = path.split_first() else {
        let scalar = Scalar { text: value, style: Style::Variable };
        *node = Node { place: Place::variable(variable), kind: NodeKind::Scalar(scalar) };
        return Ok(());
    };
    put(child(node, segment, variable)?, rest, variable, value)
}

/// The part of a list or map under that name, made if it is not there.
fn child<'n>(node: &'n mut Node, segment: &str, variable: &str) -> Result<&'n mut Node, Refusal> {
    let place = Place { variable: Some(Arc::from(variable)), ..Place::NOWHERE };
    let index = segment.parse::<usize>().ok();
    let refuse = |message: String| (message, None);
    if matches!(node.kind, NodeKind::Scalar(_) | NodeKind::Broken) {
        if let Some(index) = index.filter(|index| *index > 0) {
            return Err(refuse(format!("entry {index} needs the entries before it, the list has 0")));
        }
        let kind = if index.is_some() { NodeKind::List(Vec::new()) } else { NodeKind::Map(Vec::new()) };
        *node = Node { place: place.clone(), kind };
    }
    // Filled by the caller; where that fails, the failure is reported and not this.
    let empty = Node { place: place.clone(), kind: NodeKind::Broken };
    match (&mut node.kind, index) {
        (NodeKind::List(items), Some(index)) => {
            if index > items.len() {
                return Err(refuse(format!("entry {index} needs the entries before it, the list has {}", items.len())));
            }
            if index == items.len() {
                items.push(empty);
            }
            items.get_mut(index).ok_or_else(|| refuse("no such entry".to_owned()))
        }
        (NodeKind::Map(entries), _) => {
            let found = entries.iter().position(|(key, _)| key.text == segment).unwrap_or(entries.len());
            if found == entries.len() {
                entries.push((Key { place, text: segment.to_owned() }, empty));
            }
            entries.get_mut(found).map(|(_, node)| node).ok_or_else(|| refuse("no such key".to_owned()))
        }
        (NodeKind::List(_) | NodeKind::Scalar(_) | NodeKind::Broken, _) => {
            Err(refuse(format!("the file has something else where `{segment}` would stand")))
        }
    }
}
