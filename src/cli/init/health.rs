//! A service's `healthcheck`: what it asks over HTTP is what Landfall asks.

use crate::files::yaml::{Node, NodeKind};

use super::service::{Reading, Service, entries};

impl Reading<'_> {
    pub(super) fn healthcheck(&mut self, service: &mut Service, path: &str, value: &Node) {
        for (key, value) in entries(value) {
            let path = format!("{path}.{}", key.text);
            match key.text.as_str() {
                "test" => self.test(service, &path, value),
                "interval" => self.health_duration(service, "interval", &path, value),
                "timeout" => self.health_duration(service, "timeout", &path, value),
                "start_period" => self.health_duration(service, "deadline", &path, value),
                "retries" => {
                    if let NodeKind::Scalar(scalar) = &value.kind {
                        service.health.bare("fall", &scalar.text);
                    }
                }
                "start_interval" => self.note(key.place.line, path, "probes have one `interval`"),
                _ => self.note(key.place.line, path, "without `health.path`, an open port is what is waited for"),
            }
        }
    }

    fn health_duration(&mut self, service: &mut Service, key: &str, path: &str, value: &Node) {
        if let Some(text) = self.duration(path, value) {
            service.health.bare(key, text);
        }
    }

    fn test(&mut self, service: &mut Service, path: &str, value: &Node) {
        let words: Vec<&str> = match &value.kind {
            NodeKind::List(items) => items
                .iter()
                .filter_map(|item| match &item.kind {
                    NodeKind::Scalar(scalar) => Some(scalar.text.as_str()),
                    _ => None,
                })
                .flat_map(str::split_whitespace)
                .collect(),
            NodeKind::Scalar(scalar) => scalar.text.split_whitespace().collect(),
            NodeKind::Map(_) | NodeKind::Broken => Vec::new(),
        };
        match asked(&words) {
            Some(asked) => service.health.text("path", asked),
            None => self.note(
                value.place.line,
                path,
                "no command is run to ask for health: give `health.path` of an endpoint, or put HEALTHCHECK into the Dockerfile; without either an open port is what is waited for",
            ),
        }
    }
}

/// The path that `curl` or `wget` asks its own machine for.
fn asked(words: &[&str]) -> Option<String> {
    let url = words.iter().map(|word| word.trim_matches(['"', '\''])).find_map(|word| word.strip_prefix("http://"))?;
    let (host, path) = url.split_once('/').unwrap_or((url, ""));
    let host = host.split(':').next().unwrap_or_default();
    let path = path.trim_end_matches([';', '"', '\'']);
    ["localhost", "127.0.0.1", "0.0.0.0"].contains(&host).then(|| format!("/{path}"))
}

#[cfg(test)]
mod tests {
    use super::asked;

    #[test]
    fn what_curl_and_wget_ask_is_found() {
        let path = |test: &str| asked(&test.split_whitespace().collect::<Vec<_>>());
        assert_eq!(path("CMD curl -f http://localhost:8000/healthz").as_deref(), Some("/healthz"));
        assert_eq!(path("wget -qO- 'http://127.0.0.1/' || exit 1").as_deref(), Some("/"));
        assert_eq!(path("CMD curl http://localhost").as_deref(), Some("/"));
        assert_eq!(path("CMD pg_isready -U postgres"), None);
        assert_eq!(path("curl -f http://other/healthz"), None);
    }
}
