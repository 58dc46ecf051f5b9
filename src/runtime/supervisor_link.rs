//! The controller's end of the socket pair to the supervisor.
//!
//! One task reads and one writes; requests find their answers by number. Invariant: an `Exited` is
//! never lost and never waits behind an answer. Events that the engine has not taken yet are kept here;
//! there is at most one end per instance, states of the proxies are only worth something when they are new, and
//! beyond [`EVENTS_KEPT`] the socket is no longer read, so memory stays bounded. What a controller that
//! dies has not taken is in the next one's inventory.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use crate::domain::InstanceId;
use crate::domain::manifest::Millis;
use crate::wire::frame::{Decoder, FrameError, encode};
use crate::wire::supervisor::{
    Child, FromSupervisor, Inventory, Plan, ProxyProcess, Reply, Request, StartRequest, ToSupervisor,
};
use crate::wire::{PROGRAM_VERSION, PROTOCOL};

/// The supervisor answers in microseconds; after this long something is badly wrong with the machine.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Requests that may wait to be written.
const REQUESTS_KEPT: usize = 64;
/// Events that may wait for the engine.
const EVENTS_KEPT: usize = 16 * 1024;
/// Events in the channel itself.
const EVENTS_CHANNEL: usize = 64;

/// What the supervisor reports by itself.
#[derive(Debug, Clone)]
pub enum SupervisorEvent {
    /// An instance has ended and nothing of it is left.
    Exited(Box<Child>),
    /// Somebody changed the container of an instance by hand.
    Drifted(Box<Drifted>),
    /// The proxies there are now.
    Proxies(Vec<ProxyProcess>),
    /// The configuration is to be read again.
    Reload,
    /// The agent ends: finish writes and exit.
    Shutdown,
    /// The supervisor is gone; always the last event.
    Lost,
}

/// A container that somebody changed by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drifted {
    /// The instance it is.
    pub instance: InstanceId,
    /// What of it is not as Landfall made it, and what becomes of that.
    pub message: String,
    /// Another is to take its place.
    pub replace: bool,
}

/// Why the supervisor did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It said why.
    #[error("{message}")]
    Refused {
        /// A stable word, see [`Reply::Refused`].
        code: String,
        /// What and how to mend it.
        message: String,
    },
    /// The connection has ended.
    #[error("the connection to the supervisor has ended")]
    Lost,
    /// No answer in time. Requests are idempotent: asking again is safe.
    #[error("the supervisor did not answer `{what}` within {} s", REQUEST_DEADLINE.as_secs())]
    Timeout {
        /// What was asked.
        what: &'static str,
    },
    /// It answered something else than what belongs to the question.
    #[error(
        "the supervisor gave an answer that does not belong to `{what}`; are controller and supervisor of the same release?"
    )]
    Unexpected {
        /// What was asked.
        what: &'static str,
    },
    /// It speaks another version of the protocol.
    #[error("the supervisor speaks protocol {theirs}, this controller {PROTOCOL}; upgrade the agent as a whole")]
    Protocol {
        /// The supervisor's.
        theirs: u32,
    },
    /// A message cannot be written.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The descriptor is no socket that can be used.
    #[error("the descriptor of the supervisor's link cannot be used: {0}")]
    Descriptor(#[from] io::Error),
}

/// Why an instance was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program or the working directory does not exist. Trying again does not help.
    #[error("{0}")]
    NotFound(String),
    /// The program must not be executed. Trying again does not help.
    #[error("{0}")]
    NotPermitted(String),
    /// The agent ends.
    #[error("{0}")]
    ShuttingDown(String),
    /// The machine is short of something.
    #[error("{0}")]
    Io(String),
    /// A secret that it needs cannot be had.
    #[error("{0}")]
    NoSecret(String),
    /// The supervisor could not be asked.
    #[error(transparent)]
    Link(LinkError),
}

impl From<LinkError> for StartError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Refused { code, message } => match code.as_str() {
                "not_found" => Self::NotFound(message),
                "not_permitted" => Self::NotPermitted(message),
                "shutting_down" => Self::ShuttingDown(message),
                _ => Self::Io(message),
            },
            other => Self::Link(other),
        }
    }
}

/// The handle to the supervisor. Cheap to clone; the connection ends with the last one.
#[derive(Debug, Clone)]
pub struct SupervisorLink {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    out: mpsc::Sender<Vec<u8>>,
    waiting: Arc<Waiting>,
    next: AtomicU64,
    _tasks: [AbortOnDropHandle<()>; 2],
}

/// Requests without an answer; `None` once the connection has ended.
#[derive(Debug)]
struct Waiting(Mutex<Option<HashMap<u64, oneshot::Sender<Reply>>>>);

impl Waiting {
    fn with<T>(&self, action: impl FnOnce(&mut Option<HashMap<u64, oneshot::Sender<Reply>>>) -> T) -> T {
        action(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Forgets a request when its caller stops waiting.
struct Ticket<'a> {
    id: u64,
    waiting: &'a Waiting,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.waiting.with(|waiting| waiting.as_mut().and_then(|waiting| waiting.remove(&self.id)));
    }
}

impl SupervisorLink {
    /// Introduces this controller over an inherited descriptor. The inventory is what the supervisor knew at that
    /// moment; everything after it comes as events.
    pub async fn connect(fd: OwnedFd) -> Result<(Self, Inventory, mpsc::Receiver<SupervisorEvent>), LinkError> {
        let stream = std::os::unix::net::UnixStream::from(fd);
        stream.set_nonblocking(true)?;
        let (read, write) = UnixStream::from_std(stream)?.into_split();
        let (out, queue) = mpsc::channel(REQUESTS_KEPT);
        let (events, receiver) = mpsc::channel(EVENTS_CHANNEL);
        let waiting = Arc::new(Waiting(Mutex::new(Some(HashMap::new()))));
        let reader = Reader { read, waiting: waiting.clone(), events, kept: VecDeque::new() };
        let tasks = [tokio::spawn(reader.run()), tokio::spawn(write_all(write, queue))];
        let tasks = tasks.map(AbortOnDropHandle::new);
        let link = Self { shared: Arc::new(Shared { out, waiting, next: AtomicU64::new(1), _tasks: tasks }) };
        let inventory = link.inventory().await?;
        if inventory.protocol != PROTOCOL {
            return Err(LinkError::Protocol { theirs: inventory.protocol });
        }
        Ok((link, inventory, receiver))
    }

    /// All the supervisor knows now.
    pub async fn inventory(&self) -> Result<Inventory, LinkError> {
        let hello = Request::Hello { protocol: PROTOCOL, version: PROGRAM_VERSION.to_owned() };
        match self.ask("hello", hello).await? {
            Reply::Inventory(inventory) => Ok(*inventory),
            Reply::Started(_) | Reply::Done | Reply::Refused { .. } => Err(LinkError::Unexpected { what: "hello" }),
        }
    }

    /// Starts an instance; one that exists is answered as it is.
    pub async fn start(&self, request: StartRequest) -> Result<Child, StartError> {
        match self.ask("start", Request::Start(Box::new(request))).await? {
            Reply::Started(child) => Ok(*child),
            Reply::Inventory(_) | Reply::Done | Reply::Refused { .. } => {
                Err(LinkError::Unexpected { what: "start" }.into())
            }
        }
    }

    /// SIGTERM now, SIGKILL to everything of it after `grace`.
    pub async fn stop(&self, instance: &InstanceId, grace: Millis) -> Result<(), LinkError> {
        self.order("stop", Request::Stop { instance: instance.clone(), grace }).await
    }

    /// Drops the record of an instance that has ended.
    pub async fn forget(&self, instance: &InstanceId) -> Result<(), LinkError> {
        self.order("forget", Request::Forget { instance: instance.clone() }).await
    }

    /// Writes a `system` line into an instance's log.
    pub async fn log(&self, instance: &InstanceId, line: &str) -> Result<(), LinkError> {
        self.order("log", Request::Log { instance: instance.clone(), line: line.to_owned() }).await
    }

    /// Appends whole lines to the log of an instance that is no child of the supervisor.
    pub async fn append(&self, log: &Path, lines: String) -> Result<(), LinkError> {
        self.order("append", Request::Append { log: log.to_owned(), lines }).await
    }

    /// Says that nothing more is appended to that log.
    pub async fn close(&self, log: &Path) -> Result<(), LinkError> {
        self.order("close", Request::Close { log: log.to_owned() }).await
    }

    /// Starts a program beside an instance that runs a command for whoever listens on `socket`.
    pub async fn attend(&self, instance: &InstanceId, socket: &Path) -> Result<(), LinkError> {
        self.order("attend", Request::Attend { instance: instance.clone(), socket: socket.to_owned() }).await
    }

    /// Says that this controller serves.
    pub async fn up(&self) -> Result<(), LinkError> {
        self.order("up", Request::Up).await
    }

    /// Says that this controller works, and will say so again within that time or is to be replaced.
    pub async fn alive(&self, within: Millis) -> Result<(), LinkError> {
        self.order("alive", Request::Alive { within }).await
    }

    /// Starts a new proxy on the same sockets and drains the old one.
    pub async fn replace_proxy(&self) -> Result<(), LinkError> {
        self.order("replace proxy", Request::ReplaceProxy).await
    }

    /// Replaces supervisor, controller and proxy by the program now installed.
    pub async fn upgrade(&self) -> Result<(), LinkError> {
        self.order("upgrade", Request::Upgrade).await
    }

    /// Hands new settings to the supervisor.
    pub async fn apply(&self, plan: Plan) -> Result<(), LinkError> {
        self.order("apply", Request::Apply(Box::new(plan))).await
    }

    async fn order(&self, what: &'static str, request: Request) -> Result<(), LinkError> {
        match self.ask(what, request).await? {
            Reply::Done => Ok(()),
            Reply::Refused { code, message } => Err(LinkError::Refused { code, message }),
            Reply::Inventory(_) | Reply::Started(_) => Err(LinkError::Unexpected { what }),
        }
    }

    async fn ask(&self, what: &'static str, request: Request) -> Result<Reply, LinkError> {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let frame = encode(&ToSupervisor { id, request })?;
        let (answer, answered) = oneshot::channel();
        self.shared
            .waiting
            .with(|waiting| waiting.as_mut().map(|waiting| waiting.insert(id, answer)))
            .ok_or(LinkError::Lost)?;
        let _ticket = Ticket { id, waiting: &self.shared.waiting };
        let exchange = async {
            self.shared.out.send(frame).await.map_err(|_| LinkError::Lost)?;
            answered.await.map_err(|_| LinkError::Lost)
        };
        match tokio::time::timeout(REQUEST_DEADLINE, exchange).await.map_err(|_| LinkError::Timeout { what })?? {
            Reply::Refused { code, message } => Err(LinkError::Refused { code, message }),
            reply @ (Reply::Inventory(_) | Reply::Started(_) | Reply::Done) => Ok(reply),
        }
    }
}

async fn write_all(mut write: OwnedWriteHalf, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = queue.recv().await {
        if let Err(error) = write.write_all(&frame).await {
            // The reader sees the end of the connection and tells everyone.
            tracing::debug!(%error, "cannot write to the supervisor");
            break;
        }
    }
}

struct Reader {
    read: OwnedReadHalf,
    waiting: Arc<Waiting>,
    events: mpsc::Sender<SupervisorEvent>,
    /// Not taken by the engine yet.
    kept: VecDeque<SupervisorEvent>,
}

impl Reader {
    async fn run(mut self) {
        if let Err(error) = self.read_until_end().await {
            tracing::error!(%error, "connection to the supervisor failed");
        }
        self.waiting.with(|waiting| *waiting = None);
        self.kept.push_back(SupervisorEvent::Lost);
        for event in self.kept {
            if self.events.send(event).await.is_err() {
                break;
            }
        }
    }

    async fn read_until_end(&mut self) -> Result<(), LinkError> {
        let mut decoder = Decoder::default();
        let mut buffer = vec![0; 64 * 1024];
        let events = self.events.clone();
        loop {
            tokio::select! {
                read = self.read.read(&mut buffer), if self.kept.len() < EVENTS_KEPT => {
                    let count = read?;
                    if count == 0 {
                        return Ok(());
                    }
                    decoder.extend(buffer.get(..count).unwrap_or_default());
                    while let Some(message) = decoder.message()? {
                        self.take(message);
                    }
                }
                permit = events.reserve(), if !self.kept.is_empty() => match (permit, self.kept.pop_front()) {
                    (Ok(permit), Some(event)) => permit.send(event),
                    // Nobody listens for events any more; answers are still wanted.
                    (Err(_), _) => self.kept.clear(),
                    (Ok(_), None) => {}
                },
            }
        }
    }

    fn take(&mut self, message: FromSupervisor) {
        match message {
            FromSupervisor::Reply { id, reply } => {
                let waiting = self.waiting.with(|waiting| waiting.as_mut().and_then(|waiting| waiting.remove(&id)));
                if let Some(waiting) = waiting {
                    let _ = waiting.send(reply);
                }
            }
            FromSupervisor::Exited(child) => self.kept.push_back(SupervisorEvent::Exited(child)),
            FromSupervisor::Proxies { proxies } => {
                self.kept.retain(|event| !matches!(event, SupervisorEvent::Proxies(_)));
                self.kept.push_back(SupervisorEvent::Proxies(proxies));
            }
            FromSupervisor::Reload => {
                self.kept.retain(|event| !matches!(event, SupervisorEvent::Reload));
                self.kept.push_back(SupervisorEvent::Reload);
            }
            FromSupervisor::Shutdown => self.kept.push_back(SupervisorEvent::Shutdown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A supervisor that answers hello, then whatever `script` says.
    async fn with_supervisor(
        script: impl FnOnce(std::os::unix::net::UnixStream) + Send + 'static,
    ) -> (SupervisorLink, mpsc::Receiver<SupervisorEvent>) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        std::thread::spawn(move || {
            let mut theirs = theirs;
            let hello = next(&mut theirs);
            let inventory = Inventory {
                protocol: PROTOCOL,
                version: "test".into(),
                pid: 1,
                started_at: jiff::Timestamp::UNIX_EPOCH,
                proxies: vec![],
                children: vec![],
                controller_restarts: 0,
                plan: None,
            };
            say(&mut theirs, &FromSupervisor::Reply { id: hello.id, reply: Reply::Inventory(Box::new(inventory)) });
            script(theirs);
        });
        let (link, _, events) = SupervisorLink::connect(ours.into()).await.expect("connects");
        (link, events)
    }

    fn next(stream: &mut std::os::unix::net::UnixStream) -> ToSupervisor {
        use std::io::Read;
        let mut head = [0; 4];
        stream.read_exact(&mut head).expect("a head");
        let mut body = vec![0; u32::from_be_bytes(head) as usize];
        stream.read_exact(&mut body).expect("a body");
        serde_json::from_slice(&body).expect("a message")
    }

    fn say(stream: &mut std::os::unix::net::UnixStream, message: &FromSupervisor) {
        use std::io::Write;
        stream.write_all(&encode(message).expect("encodes")).expect("written");
    }

    #[tokio::test]
    async fn answers_arrive_while_nobody_takes_events() {
        let (link, mut events) = with_supervisor(|mut stream| {
            for _ in 0..EVENTS_CHANNEL * 4 {
                say(&mut stream, &FromSupervisor::Shutdown);
            }
            let request = next(&mut stream);
            say(&mut stream, &FromSupervisor::Reply { id: request.id, reply: Reply::Done });
        })
        .await;
        link.forget(&InstanceId::from_recorded("x")).await.expect("answered");
        let mut seen = 0;
        while !matches!(events.recv().await, Some(SupervisorEvent::Lost) | None) {
            seen += 1;
        }
        assert_eq!(seen, EVENTS_CHANNEL * 4);
    }

    #[tokio::test]
    async fn a_lost_supervisor_is_an_error_for_those_who_wait_and_the_last_event() {
        let (link, mut events) = with_supervisor(|mut stream| drop(next(&mut stream))).await;
        let instance = InstanceId::from_recorded("x");
        assert!(matches!(link.forget(&instance).await, Err(LinkError::Lost)));
        assert!(matches!(events.recv().await, Some(SupervisorEvent::Lost)));
        assert!(matches!(link.forget(&instance).await, Err(LinkError::Lost)));
    }

    #[tokio::test]
    async fn a_refusal_says_why() {
        let (link, _events) = with_supervisor(|mut stream| {
            let request = next(&mut stream);
            let reply = Reply::Refused { code: "running".into(), message: "stop it first".into() };
            say(&mut stream, &FromSupervisor::Reply { id: request.id, reply });
        })
        .await;
        let error = link.forget(&InstanceId::from_recorded("x")).await.expect_err("refused");
        assert_eq!(error.to_string(), "stop it first");
    }
}
