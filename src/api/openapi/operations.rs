//! What each route is called, does, takes and answers: the words of the document, and the types the routes go by.

use schemars::JsonSchema;

use super::super::routes::{self, Empty, InEnvironment};
use super::super::{audit, call_records, calls, diffs, facts, map, schedules};
use super::document::SchemaOf;
use crate::wire::{
    api, call_views, certificates, diffs as wire_diffs, functions, schedules as runs, secrets, services, tokens,
    traffic,
};

/// One operation.
pub struct Operation {
    /// As in `RULES`.
    pub method: &'static str,
    /// As in `RULES`.
    pub path: &'static str,
    /// Its name for programs that make clients.
    pub id: &'static str,
    /// What it does; the first sentence is its summary.
    pub words: &'static str,
    /// What its query may say.
    pub query: Option<SchemaOf>,
    /// Headers it looks at.
    pub headers: &'static [(&'static str, &'static str)],
    /// Its body.
    pub takes: Takes,
    /// Its answer when all is well.
    pub answers: Answers,
    /// That answer in words.
    pub brings: &'static str,
}

/// The body of a request.
#[derive(Clone, Copy)]
pub enum Takes {
    /// None.
    Nothing,
    /// JSON; where it is not required, no body is a body with nothing said.
    Json { schema: SchemaOf, required: bool },
    /// Bytes of this media type.
    Media { media: &'static str, words: &'static str },
    /// A form.
    Form { fields: &'static [(&'static str, &'static str)] },
}

/// The answer when all is well.
#[derive(Clone, Copy)]
pub enum Answers {
    /// JSON.
    Json { status: &'static str, schema: SchemaOf },
    /// Server-sent events.
    Stream { schema: SchemaOf },
    /// Something else.
    Media { media: &'static str },
    /// Where a browser goes on.
    Redirect,
    /// Whatever a function answers.
    Function,
}

impl Operation {
    /// The group it belongs to.
    pub fn tag(&self) -> &'static str {
        let words: Vec<&str> = self.path.split('/').filter(|word| !word.is_empty() && *word != "v1").collect();
        match words.as_slice() {
            ["apps", _, inner @ ("functions" | "schedules"), ..] => inner,
            [first, ..] => first.strip_suffix(".json").unwrap_or(first),
            [] => "agent",
        }
    }

    fn query<T: JsonSchema>(self) -> Self {
        Self { query: Some(|schemas| schemas.subschema_for::<T>()), ..self }
    }

    fn headers(self, headers: &'static [(&'static str, &'static str)]) -> Self {
        Self { headers, ..self }
    }

    /// A JSON body that may be left out.
    fn takes<T: JsonSchema>(self) -> Self {
        Self { takes: Takes::Json { schema: |schemas| schemas.subschema_for::<T>(), required: false }, ..self }
    }

    /// A JSON body that must be there.
    fn wants<T: JsonSchema>(self) -> Self {
        Self { takes: Takes::Json { schema: |schemas| schemas.subschema_for::<T>(), required: true }, ..self }
    }

    fn takes_media(self, media: &'static str, words: &'static str) -> Self {
        Self { takes: Takes::Media { media, words }, ..self }
    }

    fn answers<T: JsonSchema>(self, brings: &'static str) -> Self {
        Self {
            answers: Answers::Json { status: "200", schema: |schemas| schemas.subschema_for::<T>() },
            brings,
            ..self
        }
    }

    fn accepts<T: JsonSchema>(self, brings: &'static str) -> Self {
        Self {
            answers: Answers::Json { status: "202", schema: |schemas| schemas.subschema_for::<T>() },
            brings,
            ..self
        }
    }

    fn streams<T: JsonSchema>(self, brings: &'static str) -> Self {
        Self {
            headers: &[("Last-Event-ID", "The place of the last event that was had.")],
            answers: Answers::Stream { schema: |schemas| schemas.subschema_for::<T>() },
            brings,
            ..self
        }
    }

    fn answers_media(self, media: &'static str, brings: &'static str) -> Self {
        Self { answers: Answers::Media { media }, brings, ..self }
    }
}

const fn operation(method: &'static str, path: &'static str, id: &'static str, words: &'static str) -> Operation {
    let (takes, answers) = (Takes::Nothing, Answers::Redirect);
    Operation { method, path, id, words, query: None, headers: &[], takes, answers, brings: "" }
}

const fn get(path: &'static str, id: &'static str, words: &'static str) -> Operation {
    operation("GET", path, id, words)
}

const fn post(path: &'static str, id: &'static str, words: &'static str) -> Operation {
    operation("POST", path, id, words)
}

/// All of them.
pub fn all() -> Vec<Operation> {
    let mut all = of_agent();
    all.extend(of_apps());
    all.extend(of_calls());
    all.extend(of_schedules());
    all.extend(of_sources());
    all.extend(of_access());
    all
}

fn of_agent() -> Vec<Operation> {
    vec![
        get("/v1/openapi.json", "openapi", "This document.").answers_media("application/json", "OpenAPI 3.1."),
        get(
            "/v1/status",
            "status",
            "The agent as a whole. Its processes, where it listens, its sources, and what is wrong.",
        )
        .answers::<api::Status>("The agent."),
        get("/metrics", "metrics", "Figures for Prometheus and whoever reads OpenMetrics.")
            .answers_media("application/openmetrics-text", "OpenMetrics text."),
        get(
            "/v1/events",
            "events",
            "What happened, oldest first. Whoever asks for an event stream gets it as it happens.",
        )
        .query::<facts::FactsQuery>()
        .answers::<api::Page<api::EventRecord>>("Facts."),
        get("/v1/instances", "instances", "Instances of all apps, or of one.")
            .query::<routes::InstancesQuery>()
            .answers::<Vec<api::Instance>>("Instances."),
        post(
            "/v1/instances/{instance}/stop",
            "stopInstance",
            "Has an instance finish what it has and end. Another takes its place.",
        )
        .takes::<Empty>()
        .answers::<api::Instance>("The instance as it was."),
        post(
            "/v1/instances/{instance}/exec",
            "execInInstance",
            "Runs a command in an instance. Both bodies are sequences of frames and go on at once: a byte for the sort (1 start, \
             2 input, 3 end of input, 4 resize, 5 output, 6 error, 7 ended), four bytes of length (big endian), the payload. \
             Start, resize and ended hold JSON. The first frame of the request is a start, the last of the answer tells how it ended.",
        )
        .takes_media(crate::wire::exec::MEDIA_TYPE, "Frames.")
        .answers_media(crate::wire::exec::MEDIA_TYPE, "Frames."),
        get("/v1/certificates", "certificates", "The certificates that clients are shown.")
            .answers::<Vec<certificates::Certificate>>("Certificates."),
        get("/v1/channels", "channels", "The channels that people hear by, and how they stand.")
            .answers::<Vec<api::Channel>>("Channels."),
        post("/v1/channels/{channel}/test", "testChannel", "Sends a message to a channel now.")
            .takes::<Empty>()
            .answers::<api::ChannelTested>("Whether it was taken."),
    ]
}

fn of_apps() -> Vec<Operation> {
    vec![
        get("/v1/apps", "apps", "All apps the caller may see, or those of one environment.")
            .query::<InEnvironment>()
            .answers::<Vec<api::App>>("Apps, by name."),
        get("/v1/apps/{app}", "app", "One app: how it stands and where it answers.")
            .query::<InEnvironment>()
            .answers::<api::App>("The app."),
        get("/v1/apps/{app}/versions", "versions", "The app's versions, newest first.")
            .query::<routes::PagesQuery>()
            .answers::<api::Page<api::Version>>("Versions."),
        get(
            "/v1/apps/{app}/versions/{from}/diff/{to}",
            "diff",
            "How one version of an app differs from another. Files, manifest and secrets, without their values.",
        )
        .query::<diffs::DiffQuery>()
        .answers::<wire_diffs::VersionDiff>("The differences."),
        get("/v1/apps/{app}/deployments", "deployments", "The app's deployments, newest first.")
            .query::<routes::PagesQuery>()
            .answers::<api::Page<api::Deployment>>("Deployments."),
        get("/v1/apps/{app}/logs", "logs", "What the app's instances wrote, oldest first. With `follow` it goes on.")
            .query::<routes::LogsQuery>()
            .streams::<api::LogLine>("Lines."),
        post("/v1/apps/{app}/rollback", "rollback", "Brings an earlier version back and holds it.")
            .query::<InEnvironment>()
            .takes::<api::RollbackRequest>()
            .answers::<api::Accepted>("What follows."),
        post("/v1/apps/{app}/release", "release", "Ends a hold: the app follows git again.")
            .query::<InEnvironment>()
            .takes::<api::ReleaseRequest>()
            .answers::<api::Accepted>("What follows."),
        post("/v1/apps/{app}/rollover", "rollover", "Starts the live version afresh, as a new version.")
            .query::<InEnvironment>()
            .takes::<api::ReasonRequest>()
            .answers::<api::Accepted>("What follows."),
        post("/v1/apps/{app}/suspend", "suspend", "Freezes the app. Nothing is deployed to it until it is resumed.")
            .query::<InEnvironment>()
            .takes::<api::SuspendRequest>()
            .answers::<api::App>("The app after it."),
        post("/v1/apps/{app}/resume", "resume", "Ends the app's freeze.")
            .query::<InEnvironment>()
            .takes::<Empty>()
            .answers::<api::App>("The app after it."),
        post("/v1/apps/{app}/stop", "stop", "Stops the app. Its versions and volumes stay.")
            .query::<InEnvironment>()
            .takes::<api::ReasonRequest>()
            .answers::<api::Accepted>("What follows."),
        post(
            "/v1/apps/{app}/scale",
            "scale",
            "Other bounds for the instances of an object, until the next deployment.",
        )
        .query::<InEnvironment>()
        .wants::<api::ScaleRequest>()
        .answers::<api::Scaled>("The bounds that hold now."),
        post("/v1/deploy", "deploy", "Deploys a directory as a new version of the app whose manifest it holds.")
            .query::<routes::DeployQuery>()
            .takes_media("application/x-tar", "A tar archive of the app's directory, not compressed, at most 512 MiB.")
            .answers::<api::Accepted>("What follows."),
        get("/v1/deployments/{deployment}", "deployment", "One deployment.")
            .answers::<api::Deployment>("The deployment."),
        get(
            "/v1/deployments/{deployment}/events",
            "followDeployment",
            "Each change of a deployment, its present state first. Ends after the one that is done.",
        )
        .streams::<api::Deployment>("The deployment as it stands."),
    ]
}

fn of_calls() -> Vec<Operation> {
    const BODY: &str = "What it is called with: JSON, bytes, or nothing.";
    vec![
        get("/v1/apps/{app}/requests", "requests", "The requests of each web object of the live version, minute by minute.")
            .query::<InEnvironment>()
            .answers::<Vec<traffic::ObjectTraffic>>("Web objects."),
        get("/v1/apps/{app}/services", "services", "The containers of an app that is a Compose project, as the engine says now.")
            .query::<InEnvironment>()
            .answers::<Vec<services::ServiceView>>("Containers; none for an app that is no project."),
        get("/v1/apps/{app}/functions", "functions", "The functions of the live version. Instances, work, and how it goes.")
            .query::<InEnvironment>()
            .answers::<Vec<functions::FunctionView>>("Functions."),
        get("/v1/apps/{app}/functions/{function}", "function", "One function, minute by minute.")
            .query::<InEnvironment>()
            .answers::<functions::FunctionDetail>("The function."),
        Operation {
            answers: Answers::Function,
            ..post("/v1/apps/{app}/functions/{function}/call", "call", "Calls a function and waits for its answer. A caller that has waited for `proxy.call_wait` is sent to the result's address.")
                .query::<calls::CallQuery>()
                .takes_media("*/*", BODY)
        },
        post("/v1/apps/{app}/functions/{function}/spawn", "spawn", "Records a call that runs whatever dies, and does not wait for it.")
            .query::<call_records::SpawnQuery>()
            .headers(&[("Idempotency-Key", "At most one call is made for a key.")])
            .takes_media("*/*", BODY)
            .accepts::<call_views::Spawned>("The call's identifier; `Location` names its address."),
        post("/v1/apps/{app}/functions/{function}/map", "map", "Calls a function once for each line of the body.")
            .query::<map::MapQuery>()
            .takes_media("application/x-ndjson", "A JSON value a line.")
            .answers_media("application/x-ndjson", "What became of each line, a JSON value a line."),
        get("/v1/calls", "calls", "Calls that are on record, newest first.")
            .query::<call_records::ListQuery>()
            .answers::<api::Page<call_views::CallView>>("Calls."),
        get("/v1/calls/{call}", "callRecord", "One call with its attempts, at once or when it is done.")
            .query::<call_records::WaitQuery>()
            .answers::<call_views::CallDetail>("The call."),
        get("/v1/calls/{call}/result", "callResult", "What a call brought back. 409 while it is not done, 410 when it is no longer kept.")
            .query::<call_records::ResultQuery>()
            .answers_media("*/*", "What the function answered."),
        get("/v1/calls/{call}/logs", "callLogs", "What a call wrote, in all its attempts.")
            .query::<routes::CallLogsQuery>()
            .streams::<api::LogLine>("Lines."),
        post("/v1/calls/{call}/cancel", "cancelCall", "Ends a call.").answers::<call_views::CallView>("The call."),
        post("/v1/calls/{call}/redrive", "redriveCall", "Tries a call that is done anew, as another call.")
            .accepts::<call_views::Spawned>("The new call's identifier."),
    ]
}

fn of_schedules() -> Vec<Operation> {
    vec![
        get("/v1/schedules", "schedules", "The schedules of live versions.")
            .query::<schedules::ListQuery>()
            .answers::<Vec<runs::Schedule>>("Schedules."),
        get("/v1/apps/{app}/schedules/{function}", "schedule", "One schedule.")
            .query::<InEnvironment>()
            .answers::<runs::Schedule>("The schedule."),
        get("/v1/apps/{app}/schedules/{function}/runs", "runs", "Runs of a schedule, the latest instant first.")
            .query::<schedules::RunsQuery>()
            .answers::<api::Page<runs::Run>>("Runs."),
        get(
            "/v1/apps/{app}/schedules/{function}/output",
            "runOutput",
            "What a run that failed has written, as far as it is kept.",
        )
        .query::<schedules::OutputQuery>()
        .answers::<runs::RunOutput>("Its first and last lines."),
        post("/v1/apps/{app}/schedules/{function}/run", "runSchedule", "Starts a run now.")
            .query::<InEnvironment>()
            .takes::<Empty>()
            .answers::<runs::RunStarted>("The run."),
        post(
            "/v1/apps/{app}/schedules/{function}/pause",
            "pauseSchedule",
            "Pauses a schedule. Nothing starts by itself until that ends.",
        )
        .query::<InEnvironment>()
        .takes::<api::SuspendRequest>()
        .answers::<runs::Schedule>("The schedule after it."),
        post("/v1/apps/{app}/schedules/{function}/resume", "resumeSchedule", "Ends a pause.")
            .query::<InEnvironment>()
            .takes::<Empty>()
            .answers::<runs::Schedule>("The schedule after it."),
    ]
}

fn of_sources() -> Vec<Operation> {
    vec![
        get("/v1/sources", "sources", "The sources that apps come from.").answers::<Vec<api::Source>>("Sources."),
        get("/v1/sources/{source}", "source", "One source.").answers::<api::Source>("The source."),
        post("/v1/sources/{source}/sync", "sync", "Looks at a source now. Answers after the look.")
            .takes::<Empty>()
            .answers::<api::Source>("The source after it."),
        post(
            "/v1/sources/{source}/approve",
            "approve",
            "Lets a source have what waits. Only what the request names is approved.",
        )
        .takes::<api::ApproveRequest>()
        .answers::<api::Approved>("What was approved."),
        post("/v1/sources/{source}/suspend", "suspendSource", "Freezes a source. It is not looked at until that ends.")
            .takes::<api::SuspendRequest>()
            .answers::<api::Source>("The source after it."),
        post("/v1/sources/{source}/resume", "resumeSource", "Ends the freeze of a source.")
            .takes::<Empty>()
            .answers::<api::Source>("The source after it."),
        get("/v1/plan", "plan", "What the newest revisions would change, without doing it.")
            .query::<routes::PlanQuery>()
            .answers::<Vec<api::PlanItem>>("What would be done, app by app."),
        post(
            "/v1/hooks/{source}",
            "hook",
            "A forge's push hook. Proves itself by its signature; `docs/hooks.md` names the headers.",
        )
        .takes_media("application/json", "The forge's event, as it signed it.")
        .accepts::<api::HookTaken>("What follows."),
    ]
}

fn of_access() -> Vec<Operation> {
    vec![
        get("/v1/secrets", "secrets", "The secrets that are stored, without their values.")
            .answers::<Vec<secrets::Secret>>("Secrets."),
        post("/v1/secrets", "setSecret", "Stores a secret. Its value goes in and never comes out.")
            .wants::<secrets::SetSecret>()
            .answers::<secrets::Secret>("The secret, without its value."),
        post("/v1/secrets/remove", "removeSecret", "Removes a secret.")
            .wants::<secrets::NamedSecret>()
            .answers::<Removed>("Nothing more to say."),
        post("/v1/secrets/rotate-key", "rotateSecretsKey", "Seals all secrets anew with a new key.")
            .takes::<Empty>()
            .answers::<secrets::Rotated>("The new key's name."),
        get("/v1/tokens", "tokens", "All tokens, newest first. Revoked ones too; none shows what it is itself.")
            .answers::<Vec<tokens::Token>>("Tokens."),
        post("/v1/tokens", "createToken", "Makes a token. What it is itself is in this answer and nowhere else.")
            .wants::<tokens::TokenRequest>()
            .answers::<tokens::TokenMade>("The token."),
        post(
            "/v1/tokens/{token}/revoke",
            "revokeToken",
            "Revokes a token. Within a second it is worth nothing anywhere.",
        )
        .takes::<Empty>()
        .answers::<tokens::Token>("The token after it."),
        get("/v1/audit", "audit", "Who did what, newest first.")
            .query::<audit::AuditQuery>()
            .answers::<api::Page<tokens::AuditEntry>>("Entries."),
        Operation {
            brings: "A cookie, and where to go on.",
            takes: Takes::Form {
                fields: &[("token", "The token."), ("next", "Where to go on: a path of this agent.")],
            },
            ..post("/login", "login", "Signs a browser in with a token. It gets a cookie.")
        },
        Operation { brings: "The cookie is taken back.", ..post("/logout", "logout", "Signs a browser out.") },
    ]
}

/// An answer with nothing in it.
#[derive(JsonSchema)]
#[allow(dead_code)] // Only its schema is used.
struct Removed {}
