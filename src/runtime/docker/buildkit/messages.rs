//! The messages of BuildKit's services that are spoken here, as far as they are needed.
//!
//! Numbers and names are those of BuildKit's `api/services/control/control.proto` (what a build reports),
//! `session/auth/auth.proto` and `session/secrets/secrets.proto` (what it asks for) and gRPC's `health.proto`.

use prost::Message;

/// A login is asked for.
#[derive(Clone, PartialEq, Message)]
pub(super) struct CredentialsRequest {
    /// The registry's host, `registry-1.docker.io` for Docker Hub.
    #[prost(string, tag = "1")]
    pub host: String,
}

/// The login; without a user for nobody in particular.
#[derive(Clone, PartialEq, Message)]
pub(super) struct CredentialsResponse {
    #[prost(string, tag = "1")]
    pub username: String,
    #[prost(string, tag = "2")]
    pub secret: String,
}

/// A secret is asked for.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SecretRequest {
    /// What the Dockerfile calls it.
    #[prost(string, tag = "1")]
    pub id: String,
}

/// The secret. As it holds one it is not to be printed.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SecretResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub data: Vec<u8>,
}

/// How a service is.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HealthCheckResponse {
    /// 1 for well.
    #[prost(int32, tag = "1")]
    pub status: i32,
}

/// What is new of a build.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StatusResponse {
    #[prost(message, repeated, tag = "1")]
    pub vertexes: Vec<Vertex>,
    #[prost(message, repeated, tag = "3")]
    pub logs: Vec<VertexLog>,
    #[prost(message, repeated, tag = "4")]
    pub warnings: Vec<VertexWarning>,
}

/// A step. Told anew whenever something of it changes.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Vertex {
    #[prost(string, tag = "1")]
    pub digest: String,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(bool, tag = "4")]
    pub cached: bool,
    #[prost(message, optional, tag = "5")]
    pub started: Option<Timestamp>,
    #[prost(message, optional, tag = "6")]
    pub completed: Option<Timestamp>,
    #[prost(string, tag = "7")]
    pub error: String,
}

/// What a step's programs wrote.
#[derive(Clone, PartialEq, Message)]
pub(super) struct VertexLog {
    #[prost(string, tag = "1")]
    pub vertex: String,
    #[prost(bytes = "vec", tag = "4")]
    pub msg: Vec<u8>,
}

/// What BuildKit does not like about a Dockerfile.
#[derive(Clone, PartialEq, Message)]
pub(super) struct VertexWarning {
    #[prost(bytes = "vec", tag = "3")]
    pub short: Vec<u8>,
}

/// A moment.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Timestamp {
    /// Seconds since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}
