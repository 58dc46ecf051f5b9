//! What is measured, gathered at the moment somebody asks.

use std::collections::BTreeMap;

use super::handle::Engine;
use super::reconciler::internal;
use super::traces::Spans;
use super::{Late, Result, disk};
use crate::domain::{AnswerClass, CallOutcome, FunctionKey, SourceName};
use crate::files::config::SourceKind;
use crate::ledger::{facts, schedules};
use crate::wire::api;
use crate::wire::certificates::Certificate;
use crate::wire::functions::FunctionView;
use crate::wire::schedules::Schedule;
use crate::wire::traffic::ObjectTraffic;

/// The agent in numbers.
#[derive(Debug, Clone)]
pub struct Measures {
    /// Processes, sources, problems.
    pub status: api::Status,
    /// All apps.
    pub apps: Vec<api::App>,
    /// The functions of live versions, and how many of their calls have ended how since the controller started.
    pub functions: Vec<(FunctionView, Vec<(CallOutcome, u64)>)>,
    /// The web objects of live versions, and how many of their requests got which answer since the controller started.
    pub traffic: Vec<(ObjectTraffic, BTreeMap<AnswerClass, u64>)>,
    /// How often each kind of event has happened since the ledger was made.
    pub events: Vec<(String, u64)>,
    /// Bytes that the cache of each source's repository may take.
    pub cache_quotas: BTreeMap<SourceName, u64>,
    /// Bytes of the ledger with its journal.
    pub ledger_bytes: u64,
    /// Bytes that may still be written to the disk with the data.
    pub disk_free_bytes: Option<u64>,
    /// What clients are shown over HTTPS.
    pub certificates: Vec<Certificate>,
    /// The schedules of live versions.
    pub schedules: Vec<Schedule>,
    /// How many runs of these have ended in each way since they were first recorded.
    pub runs: Vec<(FunctionKey, CallOutcome, u64)>,
    /// How late runs started since the controller did.
    pub late: Late,
    /// Spans since the controller started.
    pub spans: Spans,
}

impl Engine {
    /// The agent in numbers.
    pub async fn measures(&self) -> Result<Measures> {
        let (status, apps) = (self.status().await?, self.apps(None).await?);
        let functions = self.all_functions().await?;
        let counted = self.ledger().read(|ledger| Ok((facts::tallies(ledger)?, schedules::tallies(ledger)?)));
        let (events, runs) = counted.await.map_err(internal)?;
        let schedules = self.schedules().await?.into_iter().map(|(_, schedule)| schedule).collect();
        let current = self.current();
        let data_dir = &current.config.data_dir;
        let size = |name: &str| data_dir.join(name).metadata().map_or(0, |about| about.len());
        let quotas = current.config.sources.iter().filter_map(|source| match &source.kind {
            SourceKind::Git(git) => Some((source.name.clone(), git.cache_quota.0)),
            SourceKind::Directory(_) => None,
        });
        Ok(Measures {
            status,
            traffic: apps.iter().flat_map(|app| self.traffic_of(app)).collect(),
            apps,
            functions,
            events,
            cache_quotas: quotas.collect(),
            ledger_bytes: size("ledger.db") + size("ledger.db-wal"),
            disk_free_bytes: disk::free(data_dir),
            certificates: self.certificates(),
            schedules,
            runs,
            late: self.parts.scheduler.lateness.read(),
            spans: self.parts.tellers.traces.spans(),
        })
    }
}
