//! The line to the controller: routes come in, loads and facts go out.
//!
//! Runs on the process's first thread and owns the [`Registry`]. Neighbours: `shared.rs` gets every new table, the file
//! `run/routes.json` a copy of it.
//!
//! ```text
//! beginning ──table in time──► following
//!     └──none: the routes of the last run──► away, or hello said
//!
//! away ──connected──► hello said ──table──► following ──change, drain, cut, settings──► following
//!   ▲                                          │
//!   └──── connection lost, bad message, a change that does not follow ◄──┘   (50 ms … 1 s, for ever)
//! ```
//!
//! Attempts of calls that were ordered here are held until their end is acknowledged ([`Held`]), and named in every hello.
//!
//! Invariants: a proxy that begins beside a controller accepts nothing before it has that controller's table, for what
//! is on disk may name instances that were stopped while there was no proxy. A generation is acknowledged only after it was published to all threads and is on disk. Drains go on
//! while the controller is away; one that was asked for on an earlier connection is reported when it is asked for again.

mod telling;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

use crate::domain::{Grant, Grants, InstanceId};
use crate::whole;
use crate::wire::calls::{CallRecord, Ended, Seeking};
use crate::wire::frame::{Decoder, FrameError};
use crate::wire::proxy::{FromProxy, RouteTable, ToProxy};
use crate::wire::{PROGRAM_VERSION, PROTOCOL};

use super::call::detached::Detaching;
use super::call::durable::Held;
use super::call::underway;
use super::guarding;
use super::queue::Object;
use super::settings::Live;
use super::shared::Shared;
use super::table::{Gap, Registry};
use telling::{Talk, wanted};

/// First and longest pause between two tries to reach the controller.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Ends of calls taken at once.
const ENDS: usize = 256;
/// At most one load report in this time.
const REPORT: Duration = Duration::from_millis(250);

/// A controller that is there brings its table within this time; without one the routes of the last run must do.
const BEGINNING: Duration = Duration::from_secs(1);

/// Why a connection to the controller was given up.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("the controller closed the connection")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Gap(#[from] Gap),
    #[error("the controller reads nothing")]
    Stuck,
    #[error("the proxy has nothing more to do")]
    Over,
}

/// The line to the controller and what it brings.
#[derive(Debug)]
pub struct Link {
    /// The controller's socket.
    pub socket: PathBuf,
    /// The copy of the last table.
    pub routes_file: PathBuf,
    /// The copy of the living tokens.
    pub tokens_file: PathBuf,
    /// Apps, objects, instances.
    pub registry: Registry,
    /// What the threads share.
    pub shared: Arc<Shared>,
    /// Instances that have drained.
    pub drained: mpsc::UnboundedReceiver<InstanceId>,
    /// Objects that need a first instance.
    pub wanted: mpsc::Receiver<Arc<Object>>,
    /// Calls that are carried out for the controller.
    pub held: Held,
    /// Their ends.
    pub ends: mpsc::UnboundedReceiver<Ended>,
    /// Calls that go on without their callers.
    pub detaching: mpsc::UnboundedReceiver<Detaching>,
    /// Answers about calls under way.
    pub found: (mpsc::Sender<FromProxy>, mpsc::Receiver<FromProxy>),
    /// Records of calls that were answered here.
    pub records: mpsc::Receiver<Vec<CallRecord>>,
    /// Becomes true when the proxy is told to leave.
    pub leaving: watch::Receiver<bool>,
    /// Everything under way is done: the line ends with what there is to be told yet.
    pub over: Arc<Notify>,
}

/// A connection on which hello was said.
pub struct Line {
    read: OwnedReadHalf,
    decoder: Decoder,
    buffer: Vec<u8>,
    talk: Talk,
}

impl Link {
    /// Makes the routes known that the first connection is to find: the controller's if there is one, else those of
    /// the last run. Answers the line that was opened, to be handed to [`Link::run`].
    pub async fn begin(&mut self) -> Option<Line> {
        let mut line = None;
        let table = timeout(BEGINNING, self.first_table(&mut line)).await;
        if !matches!(table, Ok(Ok(()))) {
            self.load_routes();
        }
        // Also one that brought nothing in time: the socket is the supervisor's, and the next controller takes it up.
        line.filter(|_| !matches!(table, Ok(Err(_))))
    }

    async fn first_table(&mut self, place: &mut Option<Line>) -> Result<(), Lost> {
        let stream = UnixStream::connect(&self.socket).await?;
        let line = place.insert(self.greet(stream).await?);
        while self.registry.generation() == 0 {
            self.hear(line).await?;
        }
        Ok(())
    }

    /// Serves the table of the last run until the controller brings a newer one.
    fn load_routes(&mut self) {
        let table = match read_routes(&self.routes_file) {
            Ok(Some(table)) => table,
            Ok(None) => return,
            Err(error) => {
                warn!(path = %self.routes_file.display(), %error, "the last routes cannot be read; waiting for the controller");
                return;
            }
        };
        match guarding::read(&self.tokens_file) {
            Ok(grants) => self.shared.grants.store(Arc::new(Grants::new(grants))),
            Err(error) => {
                warn!(path = %self.tokens_file.display(), %error, "the tokens cannot be read; none is worth anything until the controller is there");
            }
        }
        info!(generation = table.generation, apps = table.apps.len(), "serving the routes of the last run");
        self.registry.replace(table);
        self.publish();
    }

    /// Every look from here on, on every thread, sees the present generation; who waits looks again.
    fn publish(&self) {
        self.shared.table.store(Arc::new(self.registry.table()));
        self.registry.wake_waiting();
    }

    fn publish_news(&self) {
        if self.shared.table.load().generation != self.registry.generation() {
            self.publish();
        }
    }

    /// Talks to the controller, whoever it is at the time. Does not end.
    pub async fn run(mut self, begun: Option<Line>) {
        let mut pause = PAUSES.0;
        if let Some(line) = begun {
            if self.follow_until_lost(Ok(line)).await {
                return;
            }
            self.wait(pause).await;
        }
        loop {
            match UnixStream::connect(&self.socket).await {
                Ok(stream) => {
                    pause = PAUSES.0;
                    let line = self.greet(stream).await;
                    if self.follow_until_lost(line).await {
                        return;
                    }
                }
                Err(error) => debug!(socket = %self.socket.display(), %error, "the controller cannot be reached"),
            }
            self.wait(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Answers whether that was the last line.
    async fn follow_until_lost(&mut self, line: Result<Line, Lost>) -> bool {
        let lost = match line {
            Ok(line) => match self.follow(line).await {
                Err(lost) => lost,
            },
            Err(lost) => lost,
        };
        if matches!(lost, Lost::Over) {
            return true;
        }
        info!(reason = %lost, "the line to the controller ended; serving on");
        false
    }

    /// Away from the controller facts are not kept: it asks again when it is back.
    async fn wait(&mut self, pause: Duration) {
        let over = sleep(pause);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return,
                Some(_) = self.drained.recv() => self.registry.forget_unused(),
                Some(_) = self.wanted.recv() => {}
                // These are kept: the next controller is told.
                Some(ended) = self.ends.recv() => drop(self.held.ended(ended)),
                Some(detaching) = self.detaching.recv() => self.held.detach(detaching, &self.shared),
            }
        }
    }

    async fn greet(&mut self, stream: UnixStream) -> Result<Line, Lost> {
        let (read, write) = stream.into_split();
        let mut talk = Talk::new(write);
        let draining = *self.leaving.borrow_and_update();
        talk.send(&FromProxy::Hello {
            protocol: PROTOCOL,
            version: PROGRAM_VERSION.to_owned(),
            pid: std::process::id().cast_signed(),
            generation: self.registry.generation(),
            draining,
            attempts: self.held.attempts(),
        })
        .await?;
        let unacknowledged = self.held.unacknowledged();
        talk.send_ends(unacknowledged).await?;
        let calls = self.held.detached();
        if !calls.is_empty() {
            talk.send(&FromProxy::Detached { calls }).await?;
        }
        self.repeat_wanted(&mut talk).await?;
        self.tell_given_up(&mut talk).await?;
        Ok(Line { read, decoder: Decoder::default(), buffer: vec![0; 64 * 1024], talk })
    }

    /// Waits for what the controller says next and applies it.
    async fn hear(&mut self, line: &mut Line) -> Result<(), Lost> {
        match line.read.read(&mut line.buffer).await? {
            0 => Err(Lost::Closed),
            read => {
                line.decoder.extend(&line.buffer[..read]);
                self.apply_all(&mut line.decoder, &mut line.talk).await
            }
        }
    }

    async fn follow(&mut self, line: Line) -> Result<std::convert::Infallible, Lost> {
        let Line { mut read, mut decoder, mut buffer, mut talk } = line;
        let shared = Arc::clone(&self.shared);
        let activity = &shared.activity;
        let (mut leaving, over) = (self.leaving.clone(), Arc::clone(&self.over));
        let mut ends = Vec::new();
        // Whoever went before may have taken the mark and not reported.
        activity.clear();
        activity.mark();
        let report = async || {
            activity.changed().await;
            sleep(REPORT).await;
        };
        let mut next_report = Box::pin(report());
        loop {
            tokio::select! {
                read = read.read(&mut buffer) => match read? {
                    0 => return Err(Lost::Closed),
                    read => {
                        decoder.extend(&buffer[..read]);
                        self.apply_all(&mut decoder, &mut talk).await?;
                    }
                },
                Some(instance) = self.drained.recv() => self.tell_drained(instance, &mut talk).await?,
                Some(object) = self.wanted.recv() => {
                    talk.send(&wanted(&object)).await?;
                }
                count = self.ends.recv_many(&mut ends, ENDS) => if count > 0 {
                    let ended = ends.drain(..).filter_map(|one| self.held.ended(one)).collect();
                    talk.send_ends(ended).await?;
                },
                Some(detaching) = self.detaching.recv() => {
                    let calls = vec![detaching.call.clone()];
                    self.held.detach(detaching, &shared);
                    talk.send(&FromProxy::Detached { calls }).await?;
                }
                Some(records) = self.records.recv() => {
                    let dropped = shared.records.sent(records.len());
                    talk.send(&FromProxy::Calls { records, dropped }).await?;
                }
                Some(found) = self.found.1.recv() => talk.send(&found).await?,
                () = shared.given_up.notified() => self.tell_given_up(&mut talk).await?,
                () = &mut next_report => {
                    // Cleared before the numbers are read: what changes meanwhile makes another report.
                    activity.clear();
                    self.report(&mut talk).await?;
                    next_report = Box::pin(report());
                }
                Ok(()) = leaving.changed() => talk.send(&FromProxy::Draining).await?,
                () = over.notified() => {
                    self.report(&mut talk).await?;
                    return Err(Lost::Over);
                }
            }
        }
    }

    /// Applies every whole message there is, in order. Generations that came together are written to disk once.
    async fn apply_all(&mut self, decoder: &mut Decoder, talk: &mut Talk) -> Result<(), Lost> {
        let mut applied = Vec::new();
        let outcome = self.apply_each(decoder, talk, &mut applied).await;
        // Also when one of them was bad: those before it hold.
        self.publish_news();
        outcome?;
        if applied.is_empty() {
            return Ok(());
        }
        self.persist();
        // Only now: the controller stops old instances on the strength of this. Every look at the table from here on, on
        // every thread, finds this generation, because a table is published by swapping the one pointer all of them read;
        // and a proxy that starts from the file finds it too.
        for generation in applied {
            talk.send(&FromProxy::Applied { generation }).await?;
        }
        Ok(())
    }

    async fn apply_each(&mut self, decoder: &mut Decoder, talk: &mut Talk, applied: &mut Vec<u64>) -> Result<(), Lost> {
        while let Some(message) = decoder.message::<ToProxy>()? {
            // Changes that came together make one table. Everything else finds what was said before it.
            if !matches!(message, ToProxy::Table(_) | ToProxy::Change { .. }) {
                self.publish_news();
            }
            match message {
                ToProxy::Table(table) => {
                    applied.push(table.generation);
                    self.registry.replace(table);
                }
                ToProxy::Change { generation, set, remove } => {
                    self.registry.change(generation, set, &remove)?;
                    applied.push(generation);
                }
                ToProxy::Drain { instances, stagger } => self.drain(instances, Some(stagger.duration()), talk).await?,
                ToProxy::Cut { instances } => self.drain(instances, None, talk).await?,
                ToProxy::Over { instance, why } => {
                    if let Some(instance) = self.registry.instance(&instance) {
                        instance.set_over(why);
                    }
                }
                ToProxy::Run { runs } => {
                    let refused = self.held.take(runs, &self.shared);
                    let refused = refused.into_iter().filter_map(|one| self.held.ended(one)).collect();
                    talk.send_ends(refused).await?;
                }
                ToProxy::Kept { attempts } => {
                    let over = self.held.kept(&attempts);
                    talk.send_ends(over).await?;
                }
                ToProxy::CancelRuns { attempts } => self.held.cancel(&attempts),
                ToProxy::Seek { ticket, seeking } => self.seek(ticket, seeking),
                ToProxy::Acknowledge { attempts } => self.held.acknowledge(&attempts, &self.shared),
                ToProxy::Tokens { grants } => self.take_grants(grants, talk).await?,
                ToProxy::Tls(options) => self.shared.tls.set(options),
                ToProxy::Settings(options) => {
                    self.shared.settings.store(Arc::new(Live::new(&options)));
                    self.shared.gate.set_limit(options.max_connections as usize);
                }
            }
        }
        Ok(())
    }

    /// Asks the threads without waiting for them. Who asked and is away by then does not need the answer.
    fn seek(&self, ticket: u64, seeking: Seeking) {
        let (shared, sender) = (Arc::clone(&self.shared), self.found.0.clone());
        tokio::spawn(async move {
            let calls = underway::ask(shared, seeking).await;
            let _ = sender.try_send(FromProxy::Found { ticket, calls });
        });
    }

    /// From here on, on every thread, only these are worth something.
    async fn take_grants(&self, grants: Vec<Grant>, talk: &mut Talk) -> Result<(), Lost> {
        if let Err(error) = guarding::write(&self.tokens_file, &grants) {
            error!(path = %self.tokens_file.display(), %error, "the tokens cannot be written; a restarted proxy begins with older ones");
        }
        let before = self.shared.grants.swap(Arc::new(Grants::new(grants)));
        self.tell_used(&before, talk).await
    }

    /// Blocks this thread while the disk works, which is meant: what comes next must not overtake it. Requests run on others.
    fn persist(&self) {
        if let Err(error) = write_routes(&self.routes_file, &self.registry.written()) {
            // Going on is the lesser evil: a full disk must not stop deployments, and a proxy that starts from an old
            // table gets the new one as soon as it reaches the controller.
            error!(path = %self.routes_file.display(), %error, "the routes cannot be written; a restarted proxy begins with older ones");
        }
    }

    async fn drain(
        &mut self,
        instances: Vec<InstanceId>,
        stagger: Option<Duration>,
        talk: &mut Talk,
    ) -> Result<(), Lost> {
        let mut done = Vec::new();
        for id in instances {
            let drained = self.registry.instance(&id).is_none_or(|instance| match stagger {
                Some(stagger) => instance.drain(stagger),
                None => instance.cut(),
            });
            if drained {
                talk.asked.remove(&id);
                done.push(id);
            } else {
                talk.asked.insert(id);
            }
        }
        // Threads close idle connections to these, and end what was cut.
        self.shared.look_everywhere();
        for instance in done {
            talk.send(&FromProxy::Drained { instance }).await?;
        }
        self.registry.forget_unused();
        Ok(())
    }
}

fn read_routes(path: &Path) -> io::Result<Option<RouteTable>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write_routes(path: &Path, table: &[u8]) -> io::Result<()> {
    // Two proxies may write at the same time while one replaces the other.
    let temporary = path.with_extension(format!("json.{}", std::process::id()));
    whole::write(path, &temporary, table)
}
