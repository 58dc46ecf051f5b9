//! `traces`: where spans of deployments and calls go.

use std::path::{Path, PathBuf};

use super::forms;
use super::keys::{Default, Key, Kind, Table};
use super::record::Record;
use super::schedule_keys::PING_URL;

/// Where spans go, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracesConfig {
    /// The collector's address, without `/v1/traces`.
    pub endpoint: String,
    /// A file with headers that are sent along.
    pub headers_file: Option<PathBuf>,
    /// Certificate authorities that the collector's certificate is checked against, instead of the usual ones.
    pub ca_file: Option<PathBuf>,
    /// `service.name`
    pub service: String,
    /// Of so many traces that no caller has begun, one is kept.
    pub one_in: u32,
}

pub(super) static TRACES: Table = Table {
    what: "where traces go",
    place: "traces",
    keys: &[
        Key {
            name: "endpoint",
            kind: Kind::Text(&PING_URL),
            default: Default::Required,
            doc: "The address of an OpenTelemetry collector that takes OTLP over HTTP, like `http://localhost:4318`; `/v1/traces` is added.",
        },
        Key {
            name: "headers_file",
            kind: Kind::Text(&forms::FILE_PATH),
            default: Default::Nothing("no headers are added"),
            doc: "A file with headers that the collector wants, a line `Name: value` each; read for each request.",
        },
        Key {
            name: "ca_file",
            kind: Kind::Text(&forms::FILE_PATH),
            default: Default::Nothing("the usual authorities"),
            doc: "Certificate authorities (PEM) that the collector's certificate is checked against.",
        },
        Key {
            name: "service",
            kind: Kind::Text(&forms::LINE),
            default: Default::Text("landfall"),
            doc: "`service.name` of all spans.",
        },
        Key {
            name: "one_in",
            kind: Kind::Number(1, 1_000_000),
            default: Default::Number(1),
            doc: "Of so many traces one is kept. A caller that sends `traceparent` decides for its own.",
        },
    ],
};

/// Where traces go, if anywhere.
pub(super) fn traces(config: &Record, resolve: &dyn Fn(&str) -> PathBuf) -> Option<TracesConfig> {
    let traces = config.record("traces")?;
    Some(TracesConfig {
        endpoint: traces.text("endpoint")?.trim_end_matches('/').to_owned(),
        headers_file: traces.text("headers_file").map(resolve),
        ca_file: traces.text("ca_file").map(resolve),
        service: traces.text("service")?.to_owned(),
        one_in: traces.number("one_in")?,
    })
}

/// The headers of such a file; the error names the line.
pub fn headers(text: &str, file: &Path) -> Result<Vec<(String, String)>, String> {
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let header = |(number, line): (usize, &str)| match line.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.trim().to_owned())),
        Some(_) | None => Err(format!("{}:{number}: a header is `Name: value`", file.display())),
    };
    lines.map(header).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_lines_and_a_bad_one_is_named_without_its_text() {
        let file = Path::new("/etc/landfall/otlp");
        let good = headers("# ours\nAuthorization: Basic abc:def\n\nx-tenant:  7\n", file).unwrap();
        assert_eq!(good, [("Authorization", "Basic abc:def"), ("x-tenant", "7")].map(|(n, v)| (n.into(), v.into())));
        let bad = headers("a: b\nsecret\n", file).unwrap_err();
        assert_eq!(bad, "/etc/landfall/otlp:2: a header is `Name: value`");
    }
}
