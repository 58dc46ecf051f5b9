//! Facts for people and programs.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::id::{AppKey, ObjectName, SourceName, VersionNumber};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum EventKind {
    /// A version was recorded and waits for its deployment.
    #[serde(rename = "deployment.pending")]
    DeploymentPending,
    /// A version became live.
    #[serde(rename = "deployment.live")]
    DeploymentLive,
    /// A version is live and has passed its bake window.
    #[serde(rename = "deployment.succeeded")]
    DeploymentSucceeded,
    /// A version never became live.
    #[serde(rename = "deployment.failed")]
    DeploymentFailed,
    /// A deployment was ended by a newer one or by a person.
    #[serde(rename = "deployment.cancelled")]
    DeploymentCancelled,
    /// An earlier version was brought back, by a person or by the agent.
    #[serde(rename = "rollback")]
    Rollback,
    /// A hold ended.
    #[serde(rename = "released")]
    Released,
    /// Git asks for quarantined content; nothing is done.
    #[serde(rename = "quarantined")]
    Quarantined,
    /// An app was frozen or thawed.
    #[serde(rename = "suspended")]
    Suspended,
    /// A frozen app goes on.
    #[serde(rename = "resumed")]
    Resumed,
    /// An app was stopped.
    #[serde(rename = "stopped")]
    Stopped,
    /// An app's instances end again and again.
    #[serde(rename = "app.crashing")]
    AppCrashing,
    /// An app that was crashing is healthy again.
    #[serde(rename = "app.recovered")]
    AppRecovered,
    /// A source cannot be read.
    #[serde(rename = "source.failing")]
    SourceFailing,
    /// A source that was failing can be read again.
    #[serde(rename = "source.recovered")]
    SourceRecovered,
    /// Something a source asks for waits for a person.
    #[serde(rename = "source.waiting")]
    SourceWaiting,
    /// A person let a source have what waited.
    #[serde(rename = "source.approved")]
    SourceApproved,
    /// What waited is no longer asked for.
    #[serde(rename = "source.settled")]
    SourceSettled,
    /// The branch or tag that a source follows was deleted; what runs goes on.
    #[serde(rename = "source.ref_deleted")]
    SourceRefDeleted,
    /// A manifest cannot be read; its app stays as it is.
    #[serde(rename = "manifest.invalid")]
    ManifestInvalid,
    /// Runs of a schedule fail.
    #[serde(rename = "schedule.failed")]
    ScheduleFailed,
    /// A schedule that was failing succeeds again.
    #[serde(rename = "schedule.recovered")]
    ScheduleRecovered,
    /// Runs of a schedule had no chance to start.
    #[serde(rename = "schedule.missed")]
    ScheduleMissed,
    /// Runs of a schedule do not start because one before them is still under way.
    #[serde(rename = "schedule.skipped")]
    ScheduleSkipped,
    /// A schedule whose runs failed is not there any more: it was removed, or its app was stopped.
    #[serde(rename = "schedule.removed")]
    ScheduleRemoved,
    /// Somebody changed a container by hand.
    #[serde(rename = "app.drifted")]
    AppDrifted,
    /// An app comes from another source now.
    #[serde(rename = "app.moved")]
    AppMoved,
    /// A source is no longer configured; its apps go on.
    #[serde(rename = "source.removed")]
    SourceRemoved,
    /// A changed configuration is in force.
    #[serde(rename = "config.reloaded")]
    ConfigReloaded,
    /// A changed configuration cannot be taken over; the one before stays in force.
    #[serde(rename = "config.invalid")]
    ConfigInvalid,
    /// The disk with the agent's data is nearly full.
    #[serde(rename = "disk.low")]
    DiskLow,
    /// That disk has room again.
    #[serde(rename = "disk.recovered")]
    DiskRecovered,
    /// A certificate cannot be had, or not be used. What serves goes on with the one before, if there is one.
    #[serde(rename = "certificate.failing")]
    CertificateFailing,
    /// A certificate is about to expire, or has.
    #[serde(rename = "certificate.expiring")]
    CertificateExpiring,
    /// It is renewed, or can be used.
    #[serde(rename = "certificate.recovered")]
    CertificateRecovered,
    /// A certificate was issued by an authority.
    #[serde(rename = "certificate.issued")]
    CertificateIssued,
}

impl EventKind {
    /// The word in the event's JSON and in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::DeploymentPending => "deployment.pending",
            EventKind::DeploymentLive => "deployment.live",
            EventKind::DeploymentSucceeded => "deployment.succeeded",
            EventKind::DeploymentFailed => "deployment.failed",
            EventKind::DeploymentCancelled => "deployment.cancelled",
            EventKind::Rollback => "rollback",
            EventKind::Released => "released",
            EventKind::Quarantined => "quarantined",
            EventKind::Suspended => "suspended",
            EventKind::Resumed => "resumed",
            EventKind::Stopped => "stopped",
            EventKind::AppCrashing => "app.crashing",
            EventKind::AppRecovered => "app.recovered",
            EventKind::SourceFailing => "source.failing",
            EventKind::SourceRecovered => "source.recovered",
            EventKind::SourceWaiting => "source.waiting",
            EventKind::SourceApproved => "source.approved",
            EventKind::SourceSettled => "source.settled",
            EventKind::SourceRefDeleted => "source.ref_deleted",
            EventKind::ManifestInvalid => "manifest.invalid",
            EventKind::ScheduleFailed => "schedule.failed",
            EventKind::ScheduleRecovered => "schedule.recovered",
            EventKind::ScheduleMissed => "schedule.missed",
            EventKind::ScheduleSkipped => "schedule.skipped",
            EventKind::ScheduleRemoved => "schedule.removed",
            EventKind::AppDrifted => "app.drifted",
            EventKind::AppMoved => "app.moved",
            EventKind::SourceRemoved => "source.removed",
            EventKind::ConfigReloaded => "config.reloaded",
            EventKind::ConfigInvalid => "config.invalid",
            EventKind::DiskLow => "disk.low",
            EventKind::DiskRecovered => "disk.recovered",
            EventKind::CertificateFailing => "certificate.failing",
            EventKind::CertificateExpiring => "certificate.expiring",
            EventKind::CertificateRecovered => "certificate.recovered",
            EventKind::CertificateIssued => "certificate.issued",
        }
    }
}

/// How good or bad a fact is, for whoever sees it among others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Something is wrong.
    Bad,
    /// Somebody should know.
    Warning,
    /// Neither.
    Quiet,
}

impl EventKind {
    /// How good or bad it is.
    pub fn tone(self) -> Tone {
        match self {
            EventKind::DeploymentLive
            | EventKind::DeploymentSucceeded
            | EventKind::Released
            | EventKind::Resumed
            | EventKind::AppRecovered
            | EventKind::SourceRecovered
            | EventKind::SourceApproved
            | EventKind::SourceSettled
            | EventKind::DiskRecovered
            | EventKind::ScheduleRecovered
            | EventKind::CertificateRecovered
            | EventKind::ConfigReloaded => Tone::Good,
            EventKind::DeploymentFailed
            | EventKind::AppCrashing
            | EventKind::SourceFailing
            | EventKind::ManifestInvalid
            | EventKind::DiskLow
            | EventKind::ScheduleFailed
            | EventKind::CertificateFailing
            | EventKind::ConfigInvalid => Tone::Bad,
            EventKind::Rollback
            | EventKind::Quarantined
            | EventKind::Suspended
            | EventKind::Stopped
            | EventKind::AppDrifted
            | EventKind::SourceWaiting
            | EventKind::SourceRefDeleted
            | EventKind::ScheduleMissed
            | EventKind::CertificateExpiring
            | EventKind::ScheduleSkipped => Tone::Warning,
            EventKind::DeploymentPending
            | EventKind::DeploymentCancelled
            | EventKind::AppMoved
            | EventKind::CertificateIssued
            | EventKind::ScheduleRemoved
            | EventKind::SourceRemoved => Tone::Quiet,
        }
    }
}

/// A fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(rename = "event")]
    pub kind: EventKind,
    /// Which app it concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<AppKey>,
    /// Which version of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionNumber>,
    /// Which source it concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceName>,
    /// Which object of the app it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectName>,
    /// The kind of error, where it is one: a stable word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// In words.
    pub message: String,
}
