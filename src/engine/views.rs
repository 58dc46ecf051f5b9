//! From records and live state to the JSON of the API.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use super::LogQuery;
use super::certificates::CertificateState;
use super::fleet::AppFleet;
use super::reconciler::LiveView;
use super::records::{stop_words, whole_seconds};
use super::reload::Current;
use super::spec::{Surroundings, VersionSpec};
use super::watcher::Watching;
use crate::domain::manifest::{Manifest, ObjectKind};
use crate::domain::{
    AppKey, DeploymentOutcome, EnvironmentName, InstanceState, ObjectName, Phase, PinnedImage, SourceName, VersionKind,
    VersionNumber, VersionStatus, Waiting,
};
use crate::files::config::{ChannelConfig, SourceKind};
use crate::ledger::apps::{AppRecord, WantedKind};
use crate::ledger::deployments::DeploymentRecord;
use crate::ledger::versions::{LiveVersion, VersionRecord};
use crate::ledger::{Connection, Result, sources, waits};
use crate::wire::PROGRAM_VERSION;
use crate::wire::api::{self, AppState};
use crate::wire::certificates::{Certificate, CertificateOrigin, CertificateStanding};
use crate::wire::supervisor::{Inventory, ProxyProcess};

/// Everything the views of apps are made from.
pub(super) struct Scene {
    pub around: Arc<Surroundings>,
    /// The names of all channels.
    pub channels: BTreeSet<String>,
    pub fleet: HashMap<AppKey, AppFleet>,
    pub view: LiveView,
    pub newest: HashMap<AppKey, DeploymentRecord>,
    pub live: BTreeMap<AppKey, LiveVersion>,
}

/// URLs of all web objects, `main` first.
fn urls(environment: &EnvironmentName, manifest: &Manifest, around: &Surroundings) -> Vec<api::ObjectUrl> {
    let mut urls: Vec<_> = manifest
        .web
        .keys()
        .map(|object| api::ObjectUrl { object: object.clone(), url: around.url(environment, manifest, object) })
        .collect();
    urls.sort_by_key(|url| url.object.as_str() != "main");
    urls
}

/// One app.
pub(super) fn app(record: &AppRecord, scene: &Scene) -> api::App {
    let key = &record.key;
    let fleet = scene.fleet.get(key).cloned().unwrap_or_default();
    let newest = scene.newest.get(key);
    let live = scene.live.get(key);
    let fault = scene.view.faults.get(key).map(|(_, fault)| fault);
    let manifest_error = record.manifest_error.as_ref().or(fault).cloned();
    let (state, message) = state(record, &fleet, newest, &scene.view, manifest_error.as_deref());
    let manifest = live.map(|live| &live.manifest).or_else(|| record.material.as_ref().map(|m| &m.manifest));
    api::App {
        app: key.app.clone(),
        environment: key.environment.clone(),
        state,
        message,
        live_version: live.map(|live| live.version),
        commit: live.and_then(|live| live.commit.clone()),
        instances: fleet.instances,
        ready: fleet.ready,
        urls: manifest.map(|manifest| urls(&key.environment, manifest, &scene.around)).unwrap_or_default(),
        source: record.owner.as_ref().map(|(source, _)| source.clone()),
        path: record.owner.as_ref().map(|(_, path)| path.clone()),
        hold: record.hold.as_ref().map(|(hold, _)| hold.clone()),
        suspension: record.suspension.clone(),
        stopped: record.stop.as_ref().map(|stop| api::Stopped {
            at: stop.at,
            actor: stop.actor.to_string(),
            reason: stop.reason.clone(),
        }),
        deployment: newest.map(|deployment| deployment.id),
        manifest_error,
        warnings: live.map(|live| unknown_channels(key, &live.manifest, scene)).unwrap_or_default(),
        updated_at: record.updated_at,
    }
}

/// Channels that an app asks for and that there are none of.
fn unknown_channels(key: &AppKey, manifest: &Manifest, scene: &Scene) -> Vec<String> {
    let unknown = manifest.notify.iter().filter(|name| !scene.channels.contains(*name));
    unknown
        .map(|name| {
            format!(
                "app {}: `notify` names channel `{name}`, and the agent has none of that name; nobody is told by it. Add it \
                 under `notifications` in the agent's configuration, or correct the name",
                key.app
            )
        })
        .collect()
}

/// What is said of a deployment that is not live yet: what it waits for, or that it is on its way.
fn on_its_way(newest: Option<&DeploymentRecord>, view: &LiveView) -> String {
    let Some(newest) = newest else { return "its first version is about to be recorded".to_owned() };
    match view.progress.get(&newest.id).filter(|_| newest.phase == Phase::Pending) {
        Some(words) => format!("{} {words}", newest.version),
        None => format!("{} is on its way", newest.version),
    }
}

/// The most pressing thing first: what a person would want to know.
fn state(
    record: &AppRecord,
    fleet: &AppFleet,
    newest: Option<&DeploymentRecord>,
    view: &LiveView,
    manifest_error: Option<&str>,
) -> (AppState, Option<String>) {
    let failed = newest.filter(|deployment| deployment.outcome == Some(DeploymentOutcome::Failed));
    let why_failed = failed.and_then(|deployment| {
        let failure = deployment.failure.as_ref()?;
        Some(format!("{} failed while {}: {}", deployment.version, failure.phase.as_str(), failure.message))
    });
    let deploying = || (AppState::Deploying, Some(on_its_way(newest, view)));
    if view.deploying.contains(&record.key) {
        return deploying();
    }
    if let Some(suspension) = &record.suspension {
        let until = suspension.until.map(|until| format!(" until {}", whole_seconds(until))).unwrap_or_default();
        return (AppState::Suspended, Some(format!("by {}{until}: {}", suspension.actor, suspension.reason)));
    }
    if let Some(stop) = &record.stop {
        return (AppState::Stopped, Some(stop_words(stop)));
    }
    if let Some(crashing) = &fleet.crashing {
        return (AppState::Crashing, Some(crashing.clone()));
    }
    if let Some((hold, _)) = &record.hold {
        let words =
            format!("at {} by {} since {}: {}", hold.version, hold.actor, whole_seconds(hold.since), hold.reason);
        return (AppState::Held, Some(words));
    }
    let manifest = manifest_error.map(|error| error.lines().next().unwrap_or(error).to_owned());
    if record.live.is_none() {
        let is_new =
            record.wanted == WantedKind::Content && newest.is_none_or(|deployment| deployment.outcome.is_none());
        if is_new && manifest.is_none() {
            // Between what is read and what is decided, or between that and the view: nothing has failed.
            return deploying();
        }
        return (AppState::Failed, why_failed.or(manifest));
    }
    let git = record.material.as_ref().map(|material| &material.content);
    let quarantined = git.filter(|content| record.owner.is_some() && record.quarantine.contains(content)).map(|_| {
        "its source asks for quarantined content; push other content, or `landfall app release --force`".to_owned()
    });
    (AppState::Deployed, why_failed.or(manifest).or(quarantined))
}

fn kind_words(kind: VersionKind) -> (String, Option<VersionNumber>, Option<VersionNumber>) {
    match kind {
        VersionKind::Deploy => ("deploy".into(), None, None),
        VersionKind::Rollback { of } => ("rollback".into(), Some(of), None),
        VersionKind::Rollover { of } => ("rollover".into(), None, Some(of)),
    }
}

/// One version.
pub(super) fn version(
    record: &VersionRecord,
    app: Option<&AppRecord>,
    published: Option<VersionNumber>,
) -> api::Version {
    let (kind, rollback_of, rollover_of) = kind_words(record.kind);
    let live = published == Some(record.number);
    // While a switch is recorded and not published yet, the version before is the one that is met.
    let status = match record.status {
        VersionStatus::Live if !live && published.is_some() => VersionStatus::Deploying,
        VersionStatus::Superseded if live => VersionStatus::Live,
        status => status,
    };
    let material = &record.material;
    api::Version {
        version: record.number,
        status,
        kind,
        rollback_of,
        rollover_of,
        commit: material.commit.clone(),
        author: material.author.clone(),
        subject: material.subject.clone(),
        actor: record.actor.to_string(),
        reason: record.reason.clone(),
        created_at: record.created_at,
        live,
        quarantined: app.is_some_and(|app| app.quarantine.contains(&material.content)),
        kept: record.kept,
        secrets: Vec::new(),
        image: record.image.as_ref().map(image),
        services: record.services.iter().map(|(service, of)| (service.clone(), image(of))).collect(),
        deployment: record.deployment,
    }
}

fn image(image: &PinnedImage) -> api::VersionImage {
    api::VersionImage { reference: image.reference.clone(), digest: image.digest.clone(), id: image.id.clone() }
}

/// One deployment.
pub(super) fn deployment(
    record: &DeploymentRecord,
    version: &VersionRecord,
    view: &LiveView,
    instances: &[api::Instance],
    around: &Surroundings,
) -> api::Deployment {
    let manifest = &version.material.manifest;
    let spec = VersionSpec {
        key: record.key.clone(),
        version: record.version,
        manifest: manifest.clone(),
        commit: None,
        directory: std::path::PathBuf::new(),
        image: None,
        services: BTreeMap::new(),
    };
    let mine = |object: &ObjectName| {
        let ready = instances.iter().filter(|instance| {
            instance.app == record.key.app
                && instance.environment == record.key.environment
                && instance.version == record.version
                && instance.object == object.as_str()
                && instance.state == InstanceState::Ready
        });
        u32::try_from(ready.count()).unwrap_or(u32::MAX)
    };
    let objects = manifest.objects().map(|(object, kind)| api::ObjectSummary {
        object: object.clone(),
        kind,
        url: (kind == ObjectKind::Web).then(|| around.url(&record.key.environment, manifest, object)),
        ready: mine(object),
        wanted: spec.initial_instances(object),
    });
    api::Deployment {
        id: record.id,
        app: record.key.app.clone(),
        environment: record.key.environment.clone(),
        version: record.version,
        kind: kind_words(version.kind).0,
        phase: record.phase,
        outcome: record.outcome,
        failure: record.failure.clone(),
        actor: version.actor.to_string(),
        created_at: record.created_at,
        // The switch is recorded before it is published; only then is it so.
        live_at: record.live_at.filter(|_| record.phase > Phase::Switching),
        ended_at: record.ended_at,
        phases: record.phases.iter().map(|(phase, at)| api::PhaseTime { phase: *phase, at: *at }).collect(),
        progress: view.progress.get(&record.id).cloned().filter(|_| record.outcome.is_none()),
        urls: urls(&record.key.environment, manifest, around),
        objects: objects.collect(),
    }
}

/// What the ledger says of one source.
#[derive(Debug, Clone, Default)]
pub(super) struct SourceFacts {
    pub dirty: bool,
    pub problems: Vec<String>,
    pub waiting: Vec<Waiting>,
    pub reports: Option<api::Standing>,
}

/// What the ledger says of all sources.
pub(super) fn source_facts(ledger: &Connection) -> Result<BTreeMap<SourceName, SourceFacts>> {
    let mut facts: BTreeMap<SourceName, SourceFacts> = BTreeMap::new();
    for record in sources::all(ledger)? {
        facts.entry(record.name).or_default().dirty = record.dirty;
    }
    for (source, problem) in sources::problems(ledger)? {
        facts.entry(source).or_default().problems.push(problem);
    }
    for (source, waiting) in waits::all(ledger)? {
        facts.entry(source).or_default().waiting.push(waiting);
    }
    Ok(facts)
}

/// One source.
pub(super) fn source(watching: &Watching, facts: SourceFacts) -> api::Source {
    let state = watching.state.borrow().clone();
    let (kind, location, reference) = match &watching.config.kind {
        SourceKind::Git(git) => ("git", git.url.clone(), Some(git.reference.to_string())),
        SourceKind::Directory(directory) => ("directory", directory.path.display().to_string(), None),
    };
    let looked = watching.shared.looked();
    api::Source {
        source: watching.config.name.clone(),
        environment: watching.config.environment.clone(),
        kind: kind.to_owned(),
        location,
        reference,
        revision: state.revision,
        read_at: state.read_at,
        looked_at: state.looked_at,
        next_look_at: state.next_look_at,
        error_kind: state.error.as_ref().map(|problem| problem.kind.clone()),
        error: state.error.map(|problem| problem.message),
        notes: looked.notes(),
        cache_bytes: looked.cache_bytes,
        manifest_errors: facts.problems,
        waiting: facts.waiting,
        apps: state.apps,
        dirty: facts.dirty || state.looking,
        last_hook: watching.hooks.last(),
        hooks_refused: watching.hooks.refused(),
        suspension: state.suspension,
        reports: facts.reports,
    }
}

/// A certificate as the API shows it.
pub(super) fn certificate(state: &CertificateState) -> Certificate {
    let in_use = state.in_use.as_ref();
    Certificate {
        subject: state.subject.clone(),
        origin: if state.from_file { CertificateOrigin::File } else { CertificateOrigin::Acme },
        state: match (in_use, &state.problem) {
            (Some(_), None) => CertificateStanding::Valid,
            (Some(_), Some(_)) => CertificateStanding::Troubled,
            (None, Some(_)) => CertificateStanding::Missing,
            (None, None) => CertificateStanding::Ordered,
        },
        names: in_use.map(|in_use| in_use.names.clone()).unwrap_or_default(),
        issuer: in_use.map(|in_use| in_use.issuer.clone()),
        not_before: in_use.map(|in_use| in_use.not_before),
        not_after: in_use.map(|in_use| in_use.not_after),
        next_order: state.next_order,
        problem: state.problem.clone(),
    }
}

/// One channel.
pub(super) fn channel(config: &ChannelConfig, standing: api::Standing) -> api::Channel {
    api::Channel {
        channel: config.name.clone(),
        kind: config.kind.as_str().to_owned(),
        events: config.events.clone(),
        apps: config.apps.clone(),
        standing,
    }
}

/// The agent as a whole.
pub(super) fn status(
    current: &Current,
    started_at: Timestamp,
    supervisor: &Inventory,
    proxies: &[ProxyProcess],
    apps: &[api::App],
    (sources, channels): (Vec<api::Source>, Vec<api::Channel>),
    more: Vec<String>,
) -> api::Status {
    let process = |proxy: &ProxyProcess| api::Process {
        pid: proxy.pid,
        version: proxy.version.clone(),
        started_at: proxy.started_at,
    };
    let proxy = proxies.iter().find(|proxy| !proxy.draining).map(process);
    let mut problems = problems(proxy.is_some(), apps, &sources);
    problems.extend(channels.iter().filter_map(dead_channel));
    problems.extend(more);
    let config = &current.config;
    if let Some(problem) = &current.problem {
        let since = whole_seconds(current.read_at);
        problems.push(format!("{problem}\nthe configuration of {since} stays in force until that is mended"));
    }
    if !current.at_next_start.is_empty() {
        problems.push(super::reload::next_start(&current.at_next_start));
    }
    let mut by_state: BTreeMap<String, u32> = BTreeMap::new();
    for app in apps {
        *by_state.entry(app.state.as_str().to_owned()).or_default() += 1;
    }
    api::Status {
        healthy: problems.is_empty(),
        problems,
        processes: api::Processes {
            supervisor: api::Process {
                pid: supervisor.pid,
                version: supervisor.version.clone(),
                started_at: supervisor.started_at,
            },
            controller: api::Process {
                pid: i32::try_from(std::process::id()).unwrap_or(0),
                version: PROGRAM_VERSION.to_owned(),
                started_at,
            },
            proxy,
            draining_proxies: proxies.iter().filter(|proxy| proxy.draining).map(process).collect(),
        },
        data_dir: config.data_dir.display().to_string(),
        environment: config.environment.clone(),
        listen: api::Listen {
            proxy: config.proxy.listen.iter().map(ToString::to_string).collect(),
            api_socket: config.api.socket.display().to_string(),
            api: config.api.listen.map(|address| address.to_string()),
            domain: config.proxy.domain.clone(),
        },
        apps: by_state,
        instances: apps.iter().map(|app| app.instances).sum(),
        sources,
        channels,
        configuration: Some(api::Configuration {
            file: current.file.as_ref().map(|file| file.display().to_string()),
            read_at: current.read_at,
            error: current.problem.clone(),
            at_next_start: current.at_next_start.iter().map(ToString::to_string).collect(),
        }),
        time_zones: Some(time_zones()),
    }
}

fn time_zones() -> api::TimeZones {
    let data = crate::zones::Zones::of_this_machine().data();
    api::TimeZones {
        warning: data.warning(),
        directory: data.directory.map(|directory| directory.display().to_string()),
        system: data.system,
        bundled: data.bundled,
    }
}

/// What is wrong with a channel, if anything is.
fn dead_channel(channel: &api::Channel) -> Option<String> {
    let standing = &channel.standing;
    let why = standing.error.as_ref()?;
    let since = standing.failing_since.map(|at| format!(" since {}", whole_seconds(at))).unwrap_or_default();
    Some(format!(
        "channel {0} ({1}) takes no messages{since}, {2} wait: {why}; when it is mended, `landfall notify test {0}` sends them at once",
        channel.channel, channel.kind, standing.queued
    ))
}

fn problems(proxy: bool, apps: &[api::App], sources: &[api::Source]) -> Vec<String> {
    let mut problems = Vec::new();
    if !proxy {
        problems.push("no proxy runs at this moment; the supervisor starts it again by itself".to_owned());
    }
    for source in sources {
        problems.extend(source.error.clone());
        problems.extend(source.manifest_errors.iter().cloned());
        let unapproved = source.waiting.iter().filter(|waiting| waiting.approved_by.is_none());
        problems.extend(unapproved.map(|waiting| waiting.reason.words_for(&source.source)));
        let refused = source.reports.as_ref().and_then(|reports| reports.error.as_ref());
        problems.extend(refused.map(|why| format!("source `{}`: commit statuses are not taken: {why}", source.source)));
    }
    for app in apps {
        problems.extend(app.warnings.iter().cloned());
        let message = app.message.clone().unwrap_or_default();
        match app.state {
            AppState::Failed => problems.push(format!("app {} runs nothing: {message}", app.app)),
            AppState::Crashing => {
                problems.push(format!("app {} is crashing: {message}; see `landfall app logs {}`", app.app, app.app));
            }
            AppState::Held => problems.push(format!(
                "app {0} is held {message}; new content in git ends that, or `landfall app release {0}`",
                app.app
            )),
            AppState::Deployed if message.contains(" failed while ") => {
                problems.push(format!("app {0}: {message}; see `landfall app show {0}`", app.app))
            }
            AppState::Deployed | AppState::Deploying | AppState::Suspended | AppState::Stopped => {}
        }
    }
    problems
}

/// The filter of `runtime::logs` for a query.
pub(super) fn log_filter(query: LogQuery) -> crate::runtime::logs::LogFilter {
    crate::runtime::logs::LogFilter {
        follow: query.follow,
        since: query.since,
        until: query.until,
        tail: query.tail,
        object: query.object,
        version: query.version,
        instance: query.instance,
        source: query.source,
        call: query.call,
        after: query.after,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::DeploymentId;

    fn found(wanted: WantedKind) -> AppRecord {
        AppRecord {
            key: AppKey::new("main".parse().expect("a name"), "shop".parse().expect("a name")),
            owner: None,
            wanted,
            material: None,
            manifest_error: None,
            live: None,
            hold: None,
            quarantine: BTreeSet::new(),
            suspension: None,
            stop: None,
            updated_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn deployment(outcome: Option<DeploymentOutcome>) -> DeploymentRecord {
        DeploymentRecord {
            id: DeploymentId(1),
            key: found(WantedKind::Content).key,
            version: VersionNumber::FIRST,
            replaces: None,
            phase: Phase::Pending,
            outcome,
            failure: None,
            created_at: Timestamp::UNIX_EPOCH,
            live_at: None,
            ended_at: None,
            phases: Vec::new(),
        }
    }

    #[test]
    fn an_app_that_was_only_just_found_has_not_failed() {
        let of = |record: &AppRecord, newest: Option<&DeploymentRecord>, error: Option<&str>| {
            state(record, &AppFleet::default(), newest, &LiveView::default(), error).0
        };
        let found_now = found(WantedKind::Content);
        assert_eq!(of(&found_now, None, None), AppState::Deploying, "read, and not decided yet");
        assert_eq!(
            of(&found_now, Some(&deployment(None)), None),
            AppState::Deploying,
            "decided, and not in the view yet"
        );
        let failed = deployment(Some(DeploymentOutcome::Failed));
        assert_eq!(of(&found_now, Some(&failed), None), AppState::Failed);
        assert_eq!(of(&found_now, None, Some("two apps are called shop")), AppState::Failed);
        assert_eq!(of(&found(WantedKind::Unknown), None, None), AppState::Failed, "its manifest cannot be read");
    }
}
