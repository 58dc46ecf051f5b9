//! The words Landfall is written in. One meaning each, in code, command line, API and docs.
//!
//! | word | meaning |
//! |---|---|
//! | source | a watched git repository (url, ref, path) or directory |
//! | hook | a forge's message that something was pushed: a hint to look at a source, never more |
//! | revision | one state of a source: a commit, or a snapshot of a directory |
//! | manifest | `landfall.yaml`: what one app is |
//! | app | the unit of deployment; key = (environment, name) |
//! | object | a part of an app: a `web` endpoint, a `function` or a `worker` |
//! | version | a numbered, immutable record of an app's content: manifest, file tree, commit, who, when, why |
//! | deployment | the act of making a version live, in phases, with an outcome |
//! | live version | the one that receives new work |
//! | instance | one running process of an object, of one version |
//! | outdated | an instance of a version that is no longer live: it finishes what it has and takes nothing new |
//! | drain | waiting for outdated instances to finish |
//! | hold | the recorded reason why an app runs another version than git asks for |
//! | quarantine | content that must not be started again by itself |
//! | actor | who caused a change: a local user, a token, a commit's author via a source, the agent |
//! | token | what lets somebody ask from elsewhere: a name, a scope, an end |
//! | scope | what somebody may do (verbs), and to which apps |
//! | event | a fact for people and programs |
//! | channel | a way to people: a chat, a mailbox, a program |
//! | notice | one message to people |
//! | call | one request to a function; has attempts and one outcome |
//! | attempt | one try to carry a call out |
//! | schedule | a cron expression with a zone, or an interval: when something runs by itself |
//! | run | one instant of a schedule and what became of it: a call, or the reason why there was none |
//!
//! Floor 0: plain data and the rules that hold for it by construction. No I/O, no clock, no async.

pub mod access;
pub mod answer;
pub mod attempt;
pub mod base64;
pub mod call;
pub mod claims;
pub mod compose;
pub mod container;
pub mod deployment;
pub mod event;
pub mod hex;
pub mod hold;
pub mod hook;
pub mod id;
pub mod instance;
pub mod manifest;
pub mod notice;
pub mod publish;
pub mod report;
#[cfg(feature = "server")]
pub mod schedule;
pub mod scheduled;
pub mod secret;
pub mod token;
pub mod trace;
pub mod version;
pub mod waiting;

pub use access::{Access, AppPattern, Denied, Scope, TokenId, Verb, Via};
pub use answer::AnswerClass;
pub use attempt::{AttemptEnd, AttemptId, CallResult, Payload, Place, Times};
pub use call::{AttemptOutcome, CallError, CallId, CallOutcome, CallState, FunctionKey, Trigger};
pub use claims::{AllowRule, Claims};
pub use container::{Builder, Container, Drift, ImageOrigin, ImageSource, PinnedImage, Pull};
pub use deployment::{DeploymentId, DeploymentKind, DeploymentOutcome, Failure, Phase};
pub use event::{Event, EventKind, Tone};
pub use hold::{Hold, Suspension};
pub use hook::{HookOutcome, LastHook, Provider};
pub use id::{
    Actor, AppKey, AppName, CommitId, ContentId, EnvironmentName, InstanceId, NameError, ObjectName, SecretName,
    SourceName, TreeId, VersionNumber,
};
pub use instance::{ExitStatus, InstanceState};
pub use manifest::Manifest;
pub use notice::{Notice, NoticePart, NoticeStatus};
pub use report::{CommitReport, CommitState};
#[cfg(feature = "server")]
pub use schedule::{Cron, Every, Schedule, ScheduleError};
pub use scheduled::{Overlap, Scheduled, When};
pub use secret::Secret;
pub use token::{Grant, Grants, TokenHash};
pub use trace::TraceParent;
pub use version::{VersionKind, VersionStatus};
pub use waiting::{Brake, WaitReason, Waiting};
