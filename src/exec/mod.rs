//! Functions that are a process per call: an HTTP server around a command. Beside it, commands that people run in an
//! instance ([`attend`]).
//!
//! Started as an instance's program, `landfall internal-exec -- COMMAND…`, in the app's directory with the instance's
//! environment. Neighbours: the proxy, which makes calls as to any other instance, and `process`, which runs one.
//!
//! Invariant: a process lives at most as long as the connection that asked for it: whoever gives a call up closes the
//! connection, and the whole process group ends.

pub mod attend;
mod process;
pub mod signal;
mod terminal;

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};

use self::process::{Asked, End, Failure};

/// Out of descriptors: others must finish first.
const PAUSE: Duration = Duration::from_millis(50);

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// It was not started by an agent.
    #[error("`{0}` is not set; this program is started by the agent for functions with `mode: exec`")]
    NoPlace(&'static str),
    /// There is nothing to run.
    #[error("no command is given")]
    NoCommand,
    /// The system.
    #[error("{doing}: {error}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// What the system says.
        error: io::Error,
    },
}

/// What a call runs, and what must not be in what is told of it.
struct Program {
    command: Vec<String>,
    /// Values of the instance's secrets.
    secrets: Vec<String>,
}

/// The instance is told which of its variables hold secrets, and which the paths of files with them.
fn secrets_of_this_process() -> Vec<String> {
    let values = |told: &str| -> Vec<String> {
        let names = std::env::var(told).unwrap_or_default();
        names.split(',').filter_map(|name| std::env::var(name).ok()).collect()
    };
    let files = values("LANDFALL_SECRET_FILES").into_iter().filter_map(|path| std::fs::read_to_string(path).ok());
    values("LANDFALL_SECRETS").into_iter().chain(files).collect()
}

/// Serves calls until SIGTERM, and then until those under way are over.
pub fn run(command: Vec<String>) -> Result<(), ExecError> {
    let failed = |doing| move |error| ExecError::System { doing, error };
    if command.is_empty() {
        return Err(ExecError::NoCommand);
    }
    let port = std::env::var("PORT").ok().and_then(|text| text.parse::<u16>().ok());
    let port = port.ok_or(ExecError::NoPlace("PORT"))?;
    let command = Program { command, secrets: secrets_of_this_process() };
    let host = std::env::var("HOST").ok().and_then(|text| text.parse::<IpAddr>().ok());
    let host = host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed("the runtime cannot be started"))?;
    LocalSet::new().block_on(&runtime, async move {
        let terminate = signal(SignalKind::terminate()).map_err(failed("SIGTERM cannot be awaited"))?;
        let listener = TcpListener::bind((host, port)).await.map_err(failed("the port cannot be bound"))?;
        serve(listener, terminate, Rc::new(command)).await;
        Ok(())
    })
}

async fn serve(listener: TcpListener, mut terminate: Signal, command: Rc<Program>) {
    let (leave, leaving) = watch::channel(false);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn_local(converse(stream, Rc::clone(&command), leaving.clone()))),
                Err(_) => tokio::time::sleep(PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
            _ = terminate.recv() => break,
        }
    }
    drop(listener);
    leave.send_replace(true);
    while connections.join_next().await.is_some() {}
}

/// One connection to its end; on leaving, until its call is over.
async fn converse(stream: TcpStream, command: Rc<Program>, mut leaving: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(Rc::clone(&command), request));
    let mut served = std::pin::pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // A caller that goes away ends its process: the service's future is dropped with the connection.
        _ = served.as_mut() => return,
        _ = leaving.wait_for(|leaving| *leaving) => served.as_mut().graceful_shutdown(),
    }
    let _ = poll_fn(|context| served.as_mut().poll(context)).await;
}

type Answer = Response<Full<Bytes>>;

async fn answer(command: Rc<Program>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    if request.method() != Method::POST {
        return Ok(plain(StatusCode::METHOD_NOT_ALLOWED, "calls are made by POST\n"));
    }
    let (parts, body) = request.into_parts();
    let text = |name: &str| header(&parts.headers, name);
    let asked = Asked {
        call: text("landfall-call"),
        attempt: text("landfall-attempt"),
        deadline: text("landfall-deadline"),
        function: text("landfall-function"),
        traceparent: text("traceparent"),
    };
    Ok(match process::run(&command.command, &command.secrets, &asked, body).await {
        Ok(End { output }) => success(output),
        Err(failure) => failed(&failure),
    })
}

fn header(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

/// What a program wrote is called what it is: JSON, text or bytes.
fn success(output: Vec<u8>) -> Answer {
    let kind = match std::str::from_utf8(&output) {
        Ok(text) if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() => "application/json",
        Ok(_) => "text/plain; charset=utf-8",
        Err(_) => "application/octet-stream",
    };
    let mut response = Response::new(Full::new(Bytes::from(output)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn failed(failure: &Failure) -> Answer {
    let body = serde_json::json!({
        "type": failure.kind,
        "message": failure.message,
        "traceback": failure.tail,
        "exit_code": failure.code,
    });
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert("landfall-error", HeaderValue::from_static("1"));
    response
}
