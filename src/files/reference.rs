//! The reference pages `docs/manifest.md` and `docs/configuration.md`, from the tables the reader uses.

use super::keys::{Default, Key, Kind, Table};
use super::schema::Which;
use super::values::{format_cores, format_duration, format_size};

/// The tables of keys as Markdown, outermost first.
pub fn reference(which: Which) -> String {
    let root = which.root();
    let (title, intro) = match which {
        Which::Manifest => ("`landfall.yaml`: one app", MANIFEST_INTRO),
        Which::Config => ("The agent's configuration", CONFIG_INTRO),
    };
    let mut page =
        format!("# {title}\n\n<!-- Generated from the tables in src/files; a test holds it up to date. -->\n\n{intro}");
    let mut tables: Vec<&'static Table> = vec![root.table];
    let mut next = 0;
    while let Some(table) = tables.get(next).copied() {
        section(&mut page, table);
        for inner in table.keys.iter().filter_map(|key| inner_table(&key.kind)) {
            if !tables.iter().any(|known| std::ptr::eq(*known, inner)) {
                tables.push(inner);
            }
        }
        next += 1;
    }
    page
}

const MANIFEST_INTRO: &str = "It lies in the app's directory; that directory is the app's file tree. Unknown keys are errors.\n\
Durations are written `500ms`, `30s`, `5m`, `2h`, `7d` or `1h30m`; sizes `512KiB`, `64MiB`, `1GiB` or `10MB`.\n\
`landfall check FILE` prints every mistake at once, `--explain` the file with its defaults;\n\
`landfall schema manifest` prints the JSON Schema for editors.\n";

const CONFIG_INTRO: &str = "Every key can also be given as an environment variable: `LANDFALL_` and the key in capitals, nested keys joined\n\
by two underscores (`LANDFALL_API__LISTEN`), lists with commas or by number (`LANDFALL_SOURCES__0__NAME`).\n\
A variable wins over the file. Relative paths start at the directory of the file.\n\
`landfall check FILE` prints every mistake at once, `landfall schema config` the JSON Schema for editors.\n";

fn section(page: &mut String, table: &Table) {
    page.push_str(&format!("\n## `{}`\n\n| key | value | default | meaning |\n|---|---|---|---|\n", table.place));
    for key in table.keys {
        let (value, default) = match key.kind {
            Kind::Later => ("*not available yet*".to_owned(), String::new()),
            _ => (value(&key.kind), default(key)),
        };
        page.push_str(&format!("| `{}` | {value} | {default} | {} |\n", key.name, key.doc.replace('|', "\\|")));
    }
}

fn inner_table(kind: &'static Kind) -> Option<&'static Table> {
    match kind {
        Kind::Table(table)
        | Kind::Tables(table, _)
        | Kind::NamedTables(_, table)
        | Kind::NumberOr(_, _, table)
        | Kind::TextOr(_, table) => Some(table),
        _ => None,
    }
}

fn value(kind: &Kind) -> String {
    match kind {
        Kind::Text(form) => form.what.to_owned(),
        Kind::Variable => "text, number or boolean".to_owned(),
        Kind::Bool => "`true` or `false`".to_owned(),
        Kind::Number(min, max) => format!("{min} to {max}"),
        Kind::Duration(min, max) => format!("{} to {}", format_duration(*min), format_duration(*max)),
        Kind::Size(min, max) => format!("{} to {}", format_size(*min), format_size(*max)),
        Kind::Cores(min, max) => format!("{} to {} cores", format_cores(*min), format_cores(*max)),
        Kind::CountOrPart(max) => format!("0 to {max}, or 0% to 100%"),
        Kind::Choice { now, .. } => now.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or "),
        Kind::Command => "list of texts, or one text for `sh -c`".to_owned(),
        Kind::List(item, _) => format!("list, each {}", value(item)),
        Kind::Tables(table, _) => format!("list of [`{0}`](#{1})", table.place, anchor(table)),
        Kind::Map(name, inner) => format!("map from {} to {}", name.what, value(inner)),
        Kind::NamedTables(_, table) => format!("map from a name to [`{}`](#{})", table.place, anchor(table)),
        Kind::Table(table) => format!("[`{}`](#{})", table.place, anchor(table)),
        Kind::NumberOr(min, max, table) => format!("{min} to {max}, or [`{}`](#{})", table.place, anchor(table)),
        Kind::TextOr(form, table) => format!("{}, or [`{}`](#{})", form.what, table.place, anchor(table)),
        Kind::Json(_) => "any value that JSON has".to_owned(),
        Kind::Later => String::new(),
    }
}

/// The anchor that Markdown renderers make of a heading.
fn anchor(table: &Table) -> String {
    let keep = |c: char| match c {
        ' ' => Some('-'),
        c if c.is_ascii_alphanumeric() || c == '_' => Some(c),
        _ => None,
    };
    table.place.chars().filter_map(keep).collect()
}

fn default(key: &Key) -> String {
    match key.default {
        Default::Required => "**required**".to_owned(),
        Default::Nothing(meaning) => meaning.to_owned(),
        Default::Empty => "empty".to_owned(),
        Default::Table => String::new(),
        Default::Text("") => "empty".to_owned(),
        Default::Text(text) => format!("`{text}`"),
        Default::Bool(value) => format!("`{value}`"),
        Default::Number(value) => format!("`{value}`"),
        Default::Duration(value) => format!("`{}`", format_duration(value)),
        Default::Size(value) => format!("`{}`", format_size(value)),
    }
}
