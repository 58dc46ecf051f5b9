//! What the API asks and commands about sources.

use std::collections::BTreeMap;

use super::handle::Engine;
use super::hooks::{self, Hook, HookAnswer};
use super::reconciler::internal;
use super::views::{self, SourceFacts};
use super::watcher::Watching;
use super::{Caller, Result, plan};
use crate::domain::SourceName;
use crate::ledger::outbox::COMMIT_STATUS;
use crate::wire::api;

impl Engine {
    /// All sources.
    pub async fn sources(&self) -> Result<Vec<api::Source>> {
        let mut facts = self.source_facts().await?;
        let mut facts = |name: &SourceName| facts.remove(name).unwrap_or_default();
        let all = self.parts.sources.all();
        Ok(all.iter().map(|watching| views::source(watching, facts(&watching.config.name))).collect())
    }

    /// One source.
    pub async fn source(&self, name: &SourceName) -> Result<api::Source> {
        let watching = self.watching(name)?;
        let mut facts = self.source_facts().await?;
        Ok(views::source(&watching, facts.remove(name).unwrap_or_default()))
    }

    /// What is recorded of the sources, what their receivers say, and what is wrong with how their apps name each other.
    async fn source_facts(&self) -> Result<BTreeMap<SourceName, SourceFacts>> {
        let mut facts = self.parts.ledger.read(views::source_facts).await.map_err(internal)?;
        let mut standings = self.parts.tellers.standings(COMMIT_STATUS).await.map_err(internal)?;
        for (name, facts) in &mut facts {
            facts.reports = standings.remove(name.as_str());
        }
        for (source, fault) in self.live_view().await.faults.into_values() {
            if let Some(source) = source {
                facts.entry(source).or_default().problems.push(fault);
            }
        }
        Ok(facts)
    }

    pub(super) fn watching(&self, name: &SourceName) -> Result<Watching> {
        self.parts.sources.one(name)
    }

    /// Has a source looked at, and waits until it is decided what follows.
    pub(super) async fn look_at(&self, name: &SourceName) -> Result<api::Source> {
        self.parts.sources.look_at(name).await?;
        self.source(name).await
    }

    /// Looks at a source now; answers when it is decided what follows from the look.
    pub async fn sync(&self, caller: Caller, name: SourceName) -> Result<api::Source> {
        self.parts.sources.sync(caller, &name).await?;
        self.source(&name).await
    }

    /// Freezes a source: it is not looked at until that ends.
    pub async fn suspend_source(
        &self,
        caller: Caller,
        name: SourceName,
        request: api::SuspendRequest,
    ) -> Result<api::Source> {
        self.parts.sources.suspend(caller, &name, request).await?;
        self.source(&name).await
    }

    /// Thaws a source.
    pub async fn resume_source(&self, caller: Caller, name: SourceName) -> Result<api::Source> {
        self.parts.sources.resume(caller, &name).await?;
        self.source(&name).await
    }

    /// Takes a push hook: checks it, records it, and has its source looked at. Needs no caller: the signature is what counts.
    pub async fn hook(&self, hook: Hook) -> Result<HookAnswer> {
        let parts = &self.parts;
        let sources = parts.sources.all();
        let watching = sources.iter().find(|watching| watching.config.name.as_str() == hook.source);
        hooks::receive(&parts.ledger, watching, &parts.strangers, hook).await
    }

    /// What the newest revision would change, without doing it.
    pub async fn plan(&self, source: Option<SourceName>) -> Result<Vec<api::PlanItem>> {
        match source {
            Some(name) => plan::plan_one(&self.parts, &self.parts.sources.one(&name)?).await,
            None => plan::plan_all(&self.parts, &self.parts.sources.all()).await,
        }
    }
}
