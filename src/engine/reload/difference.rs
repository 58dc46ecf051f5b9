//! What is different between two configurations, and which part of it can be had while the agent runs. Pure.

use crate::engine::sources::Changed;
use crate::files::config::{ApiConfig, Config};

/// What separates a configuration from the one in force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Difference {
    /// What is taken over now, in words: `limits.builds 2 → 4`.
    pub now: Vec<String>,
    /// Keys that were changed and wait for the next start of the agent.
    pub at_next_start: Vec<&'static str>,
}

impl Difference {
    pub(super) fn between(before: &Config, after: &Config) -> Self {
        let mut now = sources(&Changed::between(&before.sources, &after.sources));
        let mut changed = |key: &str, before: String, after: String| {
            if before != after {
                now.push(format!("{key} {before} → {after}"));
            }
        };
        let addresses =
            |config: &Config| config.proxy.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let trusted = |config: &Config| match config.proxy.trusted_proxies.as_slice() {
            [] => "none".to_owned(),
            some => some.join(", "),
        };
        changed("proxy.listen", addresses(before), addresses(after));
        changed("proxy.trusted_proxies", trusted(before), trusted(after));
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
        changed("agent_name", or_none(&before.agent_name), or_none(&after.agent_name));
        let tls = |config: &Config| {
            let files = config.api.tls.as_ref();
            files.map_or_else(|| "none".to_owned(), |files| files.certificate.display().to_string())
        };
        changed("api.tls", tls(before), tls(after));
        changed("api.public_url", or_none(&before.api.public_url), or_none(&after.api.public_url));
        let number = |number: u32| number.to_string();
        let (old, new) = (before.api.bounds, after.api.bounds);
        changed("api.max_connections", number(old.connections), number(new.connections));
        changed("api.max_connections_per_address", number(old.per_address), number(new.per_address));
        changed("api.requests_per_second", number(old.per_second), number(new.per_second));
        changed("proxy.max_connections", number(before.proxy.max_connections), number(after.proxy.max_connections));
        changed("proxy.access_log", before.proxy.access_log.to_string(), after.proxy.access_log.to_string());
        changed("proxy.call_wait", before.proxy.call_wait.to_string(), after.proxy.call_wait.to_string());
        changed("limits.deployments", number(before.limits.deployments), number(after.limits.deployments));
        changed("limits.builds", number(before.limits.builds), number(after.limits.builds));
        let size = |size: Option<crate::domain::manifest::Bytes>| {
            size.map_or_else(|| "what suits the disk".to_owned(), |size| size.to_string())
        };
        changed("limits.disk_free", size(before.limits.disk_free), size(after.limits.disk_free));
        changed("limits.backlog", number(before.limits.backlog), number(after.limits.backlog));
        changed("retention.versions", number(before.retention.versions), number(after.retention.versions));
        let (old, new) = (&before.retention, &after.retention);
        changed("retention.stopped_apps", old.stopped_apps.to_string(), new.stopped_apps.to_string());
        changed("retention.audit", old.audit.to_string(), new.audit.to_string());
        changed("retention.logs", old.logs.to_string(), new.logs.to_string());
        if before.secrets.providers != after.secrets.providers {
            now.push("secrets.providers changed".to_owned());
        }
        if before.docker != after.docker {
            now.push("docker changed".to_owned());
        }
        // Its address may be a secret of sorts.
        match (&before.heartbeat, &after.heartbeat) {
            (None, Some(_)) => now.push("heartbeat added".to_owned()),
            (Some(_), None) => now.push("heartbeat removed".to_owned()),
            (before, after) if before != after => now.push("heartbeat changed".to_owned()),
            (_, _) => {}
        }
        match (&before.api.oidc, &after.api.oidc) {
            (None, Some(_)) => now.push("api.oidc added".to_owned()),
            (Some(_), None) => now.push("api.oidc removed".to_owned()),
            (before, after) if before != after => now.push("api.oidc changed".to_owned()),
            (_, _) => {}
        }
        if before.traces != after.traces {
            now.push("traces changed".to_owned());
        }
        for channel in &after.notifications {
            match before.notifications.iter().find(|other| other.name == channel.name) {
                None => now.push(format!("channel {} added", channel.name)),
                Some(other) if other != channel => now.push(format!("channel {} changed", channel.name)),
                Some(_) => {}
            }
        }
        let kept = |name: &str| after.notifications.iter().any(|channel| channel.name == name);
        let gone = before.notifications.iter().filter(|channel| !kept(&channel.name));
        now.extend(gone.map(|channel| format!("channel {} removed", channel.name)));
        match (&before.proxy.tls, &after.proxy.tls) {
            (None, Some(_)) => now.push("proxy.tls added".to_owned()),
            (Some(_), None) => now.push("proxy.tls removed".to_owned()),
            (Some(before), Some(after)) if before != after => now.push("proxy.tls changed".to_owned()),
            (Some(_), Some(_)) | (None, None) => {}
        }
        let fixed = [
            ("data_dir", before.data_dir != after.data_dir),
            ("environment", before.environment != after.environment),
            ("proxy.domain", before.proxy.domain != after.proxy.domain),
            ("api.socket", before.api.socket != after.api.socket),
            ("api.listen", before.api.listen != after.api.listen),
            ("secrets.key_file", before.secrets.key_file != after.secrets.key_file),
            ("runtime", before.containers_only != after.containers_only),
            ("users", before.users != after.users),
            ("publish_roots", before.publish_roots != after.publish_roots),
        ];
        Self { now, at_next_start: fixed.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect() }
    }
}

fn sources(changed: &Changed) -> Vec<String> {
    let told = |names: &[crate::domain::SourceName], what: &str| {
        names.iter().map(|name| format!("source {name} {what}")).collect::<Vec<_>>()
    };
    [told(&changed.added, "added"), told(&changed.changed, "changed"), told(&changed.removed, "removed")].concat()
}

/// The configuration that can be in force while the agent runs: `after`, but for what waits for the next start.
pub(super) fn in_force(before: &Config, after: &Config) -> Config {
    let mut config = after.clone();
    config.data_dir.clone_from(&before.data_dir);
    config.environment.clone_from(&before.environment);
    config.proxy.domain.clone_from(&before.proxy.domain);
    config.api = ApiConfig { socket: before.api.socket.clone(), listen: before.api.listen, ..after.api.clone() };
    config.users.clone_from(&before.users);
    config.containers_only = before.containers_only;
    config.publish_roots.clone_from(&before.publish_roots);
    config.secrets.key_file.clone_from(&before.secrets.key_file);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        crate::files::read_config("/etc/landfall.yaml".as_ref(), text, &mut std::iter::empty()).unwrap()
    }

    #[test]
    fn what_can_be_had_at_once_is_told_apart_from_what_needs_a_start() {
        let before = config("sources: [{name: a, directory: {path: /a}}]\n");
        let after = config(
            "data_dir: /other\nsources: [{name: b, directory: {path: /b}}]\nlimits: {builds: 9}\nproxy: {domain: example.com, listen: ['127.0.0.1:81']}\nusers: {agent: ops, apps: web}\n",
        );
        let difference = Difference::between(&before, &after);
        assert_eq!(difference.at_next_start, ["data_dir", "proxy.domain", "api.socket", "users"]);
        let builds = format!("limits.builds {} → 9", before.limits.builds);
        let listen = format!("proxy.listen {} → 127.0.0.1:81", before.proxy.listen[0]);
        assert_eq!(difference.now, ["source b added", "source a removed", &listen, &builds]);

        let config = in_force(&before, &after);
        assert_eq!(config.sources, after.sources);
        assert_eq!(config.limits, after.limits);
        assert_eq!((config.data_dir.clone(), config.users.clone()), (before.data_dir.clone(), None));
        assert_eq!(Difference::between(&config, &after).now, Vec::<String>::new());
        assert_eq!(Difference::between(&before, &before), Difference::default());
    }
}
