//! The control plane process: configuration in, engine and API up, drained down.
//!
//! Started by the supervisor with inherited sockets. May die at any moment; the next one carries on from the
//! ledger and from what the supervisor says runs.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::api;
use crate::domain::manifest::Millis;
use crate::engine::{self, Configured, End, Inherited};
use crate::runtime::supervisor_link::SupervisorLink;
use crate::runtime::{Docker, ProcessRuntime, Runtime};
use crate::wire::supervisor::{FDS_VARIABLE, fds};

/// Threads for the controller's own work; git and SQLite run on threads of their own.
const THREADS: usize = 2;
/// This often the supervisor is told that the engine does its work, and after this long without it takes another controller.
const ALIVE: (Duration, Millis) = (Duration::from_secs(10), Millis::seconds(60));
/// The API may finish its answers for this long at the end.
const API_DRAIN: Duration = Duration::from_secs(6);

/// At the agent's end: how often it is asked whether requests are finished …
const DRAIN_LOOKS: Duration = Duration::from_millis(50);
/// … and for how long at most; the supervisor cuts them off long before.
const DRAIN_AT_LONGEST: Duration = Duration::from_secs(3600);

/// Why the controller ends with an error.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// It was not started by a supervisor.
    #[error(
        "{FDS_VARIABLE} does not name descriptor `{0}`: the controller is started by `landfall agent`, not by hand"
    )]
    NotInherited(&'static str),
    /// The supervisor does not answer as it should.
    #[error("the supervisor cannot be talked to: {0}")]
    Link(String),
    /// The engine cannot be brought up.
    #[error(transparent)]
    Start(#[from] engine::StartError),
    /// The system.
    #[error("{doing}: {error}")]
    Io {
        /// What was under way.
        doing: &'static str,
        /// What the system says.
        error: std::io::Error,
    },
    /// The supervisor has gone.
    #[error("the connection to the supervisor ended; a new controller takes over")]
    SupervisorLost,
}

/// Runs the control plane until it is told to end.
pub fn run(configured: Configured) -> Result<(), ControllerError> {
    let descriptors = Descriptors::from_environment();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("controller")
        .enable_all()
        .build()
        .map_err(|error| ControllerError::Io { doing: "starting the runtime", error })?;
    let result = runtime.block_on(control(configured, &descriptors));
    // Blocking work (a look at a remote that hangs) must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn control(configured: Configured, descriptors: &Descriptors) -> Result<(), ControllerError> {
    let link = descriptors.take(fds::LINK)?;
    let (link, inventory, events) =
        SupervisorLink::connect(link).await.map_err(|error| ControllerError::Link(error.to_string()))?;
    let shutdown = CancellationToken::new();
    end_on_signals(shutdown.clone())?;
    let settings = engine::docker_settings(&configured.config.docker);
    let (docker, ends) = Docker::new(&configured.data_dir, link.clone(), settings)
        .map_err(|error| ControllerError::Io { doing: "naming this agent for its containers", error })?;
    let (logs, rendezvous) = (configured.data_dir.join("logs"), configured.data_dir.join("run"));
    let process = ProcessRuntime { link: link.clone(), logs, rendezvous };
    let inherited = Inherited {
        runtime: Runtime::new(process, docker.clone()),
        inventory,
        events,
        ends,
        control: descriptors.take(fds::CONTROL)?.into(),
    };
    let data_dir = configured.data_dir.clone();
    let apps_socket = configured.data_dir.join("run").join("apps.sock");
    let running = engine::start(configured, inherited, shutdown.clone()).await?;
    let unix = descriptors.take(fds::API_UNIX)?.into();
    let tcp = descriptors.take(fds::API_TCP).ok().map(Into::into);
    let api = tokio::spawn(api::serve(running.engine.clone(), unix, tcp, shutdown.clone()));
    let (engine, ending) = (running.engine.clone(), shutdown.clone());
    let for_apps = tokio::spawn(async move {
        let served = api::serve_apps(engine, &apps_socket, ending).await;
        served.inspect_err(|error| error!(%error, "apps cannot spawn calls"))
    });
    info!(pid = std::process::id(), "controller is up");
    if let Err(error) = link.up().await {
        // The engine hears of the lost connection by itself.
        warn!(%error, "the supervisor was not told that the controller is up");
    }
    let pulse = tokio::spawn(say_alive(running.engine.clone(), link.clone(), shutdown.clone()));
    let end = running.until_end().await;
    shutdown.cancel();
    // Ends with the token.
    let _ = pulse.await;
    for api in [api, for_apps] {
        match tokio::time::timeout(API_DRAIN, api).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => error!(%error, "the API ended with an error"),
            Ok(Err(error)) => error!(%error, "the API ended unexpectedly"),
            Err(_) => error!("the API did not end in time"),
        }
    }
    match end {
        End::Shutdown => {
            // Requests finish first, as with those that the supervisor ends.
            until_drained(&link).await;
            tokio::join!(docker.end_all(), engine::end_projects(&data_dir, &docker));
            Ok(())
        }
        End::SupervisorLost => Err(ControllerError::SupervisorLost),
    }
}

/// Waits until no proxy is left that could have requests under way.
async fn until_drained(link: &SupervisorLink) {
    let gone = async {
        while link.inventory().await.is_ok_and(|inventory| !inventory.proxies.is_empty()) {
            tokio::time::sleep(DRAIN_LOOKS).await;
        }
    };
    if tokio::time::timeout(DRAIN_AT_LONGEST, gone).await.is_err() {
        warn!("proxies still have requests; containers end all the same");
    }
}

/// A controller that hangs must not go unnoticed: the supervisor replaces one that is no longer heard of.
async fn say_alive(engine: engine::Engine, link: SupervisorLink, shutdown: CancellationToken) {
    let (every, within) = ALIVE;
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let pulse = async {
        loop {
            tick.tick().await;
            engine.answers().await;
            if let Err(error) = link.alive(within).await {
                warn!(%error, "the supervisor was not told that the controller works");
            }
        }
    };
    shutdown.run_until_cancelled(pulse).await;
}

fn end_on_signals(shutdown: CancellationToken) -> Result<(), ControllerError> {
    let catch = |kind| signal(kind).map_err(|error| ControllerError::Io { doing: "catching signals", error });
    let (mut term, mut int) = (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
    // SIGHUP is the supervisor's to hand on.
    let _hup = catch(SignalKind::hangup())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            // Ctrl-C reaches the whole foreground group; the supervisor decides when the controller ends.
            () = async { loop { int.recv().await; } } => {}
            () = shutdown.cancelled() => {}
        }
        shutdown.cancel();
    });
    Ok(())
}

/// Descriptors inherited from the supervisor, by name.
struct Descriptors(Vec<(String, RawFd)>);

impl Descriptors {
    fn from_environment() -> Self {
        let text = std::env::var(FDS_VARIABLE).unwrap_or_default();
        let pairs = text.split(',').filter_map(|pair| {
            let (name, number) = pair.split_once('=')?;
            Some((name.to_owned(), number.parse().ok()?))
        });
        Self(pairs.collect())
    }

    #[allow(unsafe_code)]
    fn take(&self, name: &'static str) -> Result<OwnedFd, ControllerError> {
        let found = self.0.iter().find(|(candidate, _)| candidate == name);
        let (_, number) = found.ok_or(ControllerError::NotInherited(name))?;
        // SAFETY: the supervisor opened this descriptor for us under this name, and each name is taken once.
        Ok(unsafe { OwnedFd::from_raw_fd(*number) })
    }
}
