//! The proxies: who is connected, what they have, and who waits for them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::State;
use crate::domain::manifest::Millis;
use crate::domain::{AppKey, AttemptId, Grant, TokenId};
use crate::engine::caller::{Batch, Input, ProxyLine, ProxyLines, Said};
use crate::wire::frame::{Decoder, encode};
use crate::wire::proxy::{AppRoutes, FromProxy, ProxyOptions, TlsOptions, ToProxy};
use crate::wire::supervisor::ProxyProcess;

/// Messages that may wait for one proxy; one that falls further behind is cut off and gets a whole table anew.
const OUTGOING: usize = 1024;

/// What reaches the fleet from a proxy's connection.
#[derive(Debug)]
pub enum ProxyMessage {
    /// A proxy has said hello; messages for it go into `outgoing`.
    Connected {
        /// This connection.
        connection: u64,
        /// The proxy's process.
        pid: i32,
        /// The generation it serves.
        generation: u64,
        /// It takes nothing new.
        draining: bool,
        /// Attempts of calls it has.
        attempts: Vec<AttemptId>,
        /// Frames to send.
        outgoing: mpsc::Sender<Arc<[u8]>>,
        /// Ends the connection.
        cut: CancellationToken,
    },
    /// It said something.
    Said {
        /// On which connection.
        connection: u64,
        /// What.
        message: FromProxy,
    },
    /// Its connection has ended.
    Gone {
        /// Which.
        connection: u64,
    },
}

struct Connection {
    pid: i32,
    applied: u64,
    outgoing: mpsc::Sender<Arc<[u8]>>,
    /// Others have senders too: letting go of ours would not end the connection.
    cut: CancellationToken,
}

impl Connection {
    /// A proxy that falls behind is cut off. Its connection is known until its end has come, and with it everything that
    /// the proxy had said on it.
    fn send(&self, connection: u64, frame: Arc<[u8]>) {
        if self.cut.is_cancelled() {
            return;
        }
        // One that is closed has ended already; the news of that is on its way.
        if let Err(mpsc::error::TrySendError::Full(_)) = self.outgoing.try_send(frame) {
            warn!(connection, pid = self.pid, "a proxy does not keep up; it gets a whole table when it connects again");
            self.cut.cancel();
        }
    }
}

type Waiting = (u64, Box<dyn FnOnce() + Send>);

/// The fleet's side of all proxies.
pub(super) struct Proxies {
    pub table: BTreeMap<AppKey, AppRoutes>,
    pub generation: u64,
    pub processes: Vec<ProxyProcess>,
    pub options: ProxyOptions,
    pub grants: Vec<Grant>,
    used_tokens: mpsc::Sender<Vec<TokenId>>,
    pub tls: TlsOptions,
    connections: HashMap<u64, Connection>,
    waiting: Vec<Waiting>,
    given_up_on: u64,
    /// The same for the caller.
    lines: watch::Sender<ProxyLines>,
}

impl Proxies {
    pub fn new(
        processes: Vec<ProxyProcess>,
        options: ProxyOptions,
        grants: Vec<Grant>,
        used_tokens: mpsc::Sender<Vec<TokenId>>,
        lines: watch::Sender<ProxyLines>,
    ) -> Self {
        // Above every generation an earlier controller can have reached, so that a proxy never mistakes an old
        // table for a newer one; raised further by what proxies say in their hello.
        let generation = u64::try_from(jiff::Timestamp::now().as_microsecond()).unwrap_or(1);
        lines.send_modify(|lines| lines.processes = processes.iter().map(|process| process.pid).collect());
        Self {
            table: BTreeMap::new(),
            generation,
            processes,
            options,
            grants,
            used_tokens,
            tls: TlsOptions::default(),
            connections: HashMap::new(),
            waiting: Vec::new(),
            given_up_on: 0,
            lines,
        }
    }

    /// Whoever has calls for proxies hears that a connection ended.
    fn line_ends(&self, connection: u64) {
        self.lines.send_modify(|lines| lines.lines.retain(|line| line.connection != connection));
    }

    pub fn broadcast(&mut self, message: &ToProxy) {
        let frame: Arc<[u8]> = match encode(message) {
            Ok(frame) => frame.into(),
            Err(error) => {
                warn!(%error, "a message to the proxies cannot be sent");
                return;
            }
        };
        for (connection, link) in &self.connections {
            link.send(*connection, Arc::clone(&frame));
        }
    }

    fn send(&self, connection: u64, message: &ToProxy) {
        let Some(link) = self.connections.get(&connection) else { return };
        match encode(message) {
            Ok(frame) => link.send(connection, frame.into()),
            Err(_) => link.cut.cancel(),
        }
    }

    /// Says something to every proxy that is connected.
    pub fn tell_all(&mut self, message: &ToProxy) {
        let all: Vec<u64> = self.connections.keys().copied().collect();
        all.into_iter().for_each(|connection| self.send(connection, message));
    }

    /// Whether every proxy process there is has said so on its present connection. One that is connected counts
    /// even if the supervisor has not told of it yet.
    pub fn all_have_drained(&self, said: &HashSet<u64>) -> bool {
        let known = |pid: i32| self.processes.iter().any(|process| process.pid == pid);
        self.processes.iter().all(|process| {
            self.connections.iter().any(|(connection, link)| link.pid == process.pid && said.contains(connection))
        }) && self.connections.iter().all(|(connection, link)| known(link.pid) || said.contains(connection))
    }

    /// Runs `then` once every proxy process serves the present table.
    pub fn when_published(&mut self, then: impl FnOnce() + Send + 'static) {
        self.waiting.push((self.generation, Box::new(then)));
        self.answer_published();
    }

    /// Lets those who wait for this generation go on although a proxy has not said that it serves it.
    pub fn give_up_on(&mut self, generation: u64) {
        self.given_up_on = self.given_up_on.max(generation);
        self.answer_published();
    }

    fn answer_published(&mut self) {
        let everywhere = self.served_everywhere().max(self.given_up_on);
        let (ready, waiting): (Vec<_>, Vec<_>) =
            self.waiting.drain(..).partition(|(generation, _)| *generation <= everywhere);
        self.waiting = waiting;
        for (generation, then) in ready {
            if generation > self.served_everywhere() {
                warn!(generation, "a proxy has not said in time that it serves the new routes");
            }
            then();
        }
    }

    /// The newest generation that every proxy process serves; 0 while one is not connected or none is there.
    fn served_everywhere(&self) -> u64 {
        self.processes
            .iter()
            .filter(|process| !process.draining)
            .map(|process| {
                let applied = self.connections.values().filter(|link| link.pid == process.pid).map(|link| link.applied);
                applied.max().unwrap_or(0)
            })
            .min()
            .unwrap_or(0)
    }
}

impl State {
    pub(super) fn on_proxy(&mut self, message: ProxyMessage) {
        match message {
            ProxyMessage::Connected { connection, pid, generation, draining, attempts, outgoing, cut } => {
                debug!(pid, generation, "a proxy is connected");
                self.publish();
                if generation >= self.proxies.generation {
                    self.proxies.generation = generation + 1;
                }
                let line = ProxyLine {
                    connection,
                    pid,
                    leaving: draining,
                    holding: attempts.into(),
                    outgoing: outgoing.clone(),
                };
                let link = Connection { pid, applied: 0, outgoing, cut };
                self.proxies.connections.insert(connection, link);
                let options = ToProxy::Settings(self.proxies.options.clone());
                self.proxies.send(connection, &options);
                let tokens = ToProxy::Tokens { grants: self.proxies.grants.clone() };
                self.proxies.send(connection, &tokens);
                if self.proxies.tls != TlsOptions::default() {
                    let tls = ToProxy::Tls(self.proxies.tls.clone());
                    self.proxies.send(connection, &tls);
                }
                let table = self.whole_table();
                self.proxies.send(connection, &table);
                let instances = self.draining();
                if !instances.is_empty() {
                    self.proxies.send(connection, &ToProxy::Drain { instances, stagger: Millis(0) });
                }
                // After the table: a call must find its route.
                self.proxies.lines.send_modify(|lines| lines.lines.push(line));
            }
            ProxyMessage::Said { connection, message } => self.proxy_said(connection, message),
            ProxyMessage::Gone { connection } => {
                self.proxies.line_ends(connection);
                if let Some(link) = self.proxies.connections.remove(&connection) {
                    debug!(pid = link.pid, "a proxy's connection has ended");
                    for inst in self.instances.values_mut() {
                        inst.in_flight.remove(&link.pid);
                    }
                    self.recheck_drains();
                }
            }
        }
    }

    fn proxy_said(&mut self, connection: u64, message: FromProxy) {
        let Some(link) = self.proxies.connections.get_mut(&connection) else { return };
        let pid = link.pid;
        match message {
            FromProxy::Applied { generation } => {
                link.applied = link.applied.max(generation);
                self.proxies.answer_published();
            }
            FromProxy::Drained { instance } => self.drained(&instance, connection),
            FromProxy::Load { objects } => self.load(pid, objects),
            FromProxy::Wanted { app, object, pinned } => self.wanted(&app, &object, pinned),
            FromProxy::Overdue { instance, call } => self.overdue(&instance, &call),
            FromProxy::TokensUsed { tokens } => {
                // When the receiver is behind, they are used again or it does not matter.
                let _ = self.proxies.used_tokens.try_send(tokens);
            }
            FromProxy::Draining => {
                self.proxies.lines.send_modify(|lines| {
                    lines
                        .lines
                        .iter_mut()
                        .filter(|line| line.connection == connection)
                        .for_each(|line| line.leaving = true);
                });
                if let Some(process) = self.proxies.processes.iter_mut().find(|process| process.pid == pid) {
                    process.draining = true;
                }
            }
            // Read off the line before, for the caller.
            FromProxy::Ended { .. }
            | FromProxy::Detached { .. }
            | FromProxy::Calls { .. }
            | FromProxy::Answers { .. }
            | FromProxy::Found { .. }
            | FromProxy::Hello { .. } => {}
        }
    }

    pub(super) fn proxy_processes(&mut self, processes: Vec<ProxyProcess>) {
        let pids = processes.iter().map(|process| process.pid).collect();
        self.proxies.lines.send_modify(|lines| lines.processes = pids);
        self.proxies.processes = processes;
        self.proxies.answer_published();
        // One that has died took its requests with it.
        self.recheck_drains();
    }
}

/// Accepts proxies on the control socket until told to stop.
pub async fn serve_proxies(
    listener: UnixListener,
    messages: mpsc::Sender<ProxyMessage>,
    calls: Said,
    shutdown: CancellationToken,
) {
    let mut next = 0;
    let tasks = tokio_util::task::TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                next += 1;
                tasks.spawn(serve_one(stream, next, messages.clone(), calls.clone(), shutdown.clone()));
            }
            Err(error) => {
                warn!(%error, "a proxy cannot connect");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
    tasks.close();
    tasks.wait().await;
}

async fn serve_one(
    stream: UnixStream,
    connection: u64,
    messages: mpsc::Sender<ProxyMessage>,
    calls: Said,
    shutdown: CancellationToken,
) {
    let (read, mut write) = stream.into_split();
    let (outgoing, mut frames) = mpsc::channel::<Arc<[u8]>>(OUTGOING);
    let writer = async {
        while let Some(frame) = frames.recv().await {
            write.write_all(&frame).await?;
        }
        std::io::Result::Ok(())
    };
    let cut = CancellationToken::new();
    let reader = read_proxy(read, connection, (outgoing, cut.clone()), messages.clone(), calls);
    // Either end closes both; the proxy connects again and gets a whole table.
    tokio::select! {
        _ = writer => {}
        () = reader => {}
        () = cut.cancelled() => {}
        () = shutdown.cancelled() => {}
    }
    let _ = messages.send(ProxyMessage::Gone { connection }).await;
}

async fn read_proxy(
    mut read: tokio::net::unix::OwnedReadHalf,
    connection: u64,
    line: (mpsc::Sender<Arc<[u8]>>, CancellationToken),
    messages: mpsc::Sender<ProxyMessage>,
    calls: Said,
) {
    let mut line = Some(line);
    let mut decoder = Decoder::default();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match read.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(length) => decoder.extend(&chunk[..length]),
        }
        loop {
            let message = match decoder.message::<FromProxy>() {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(error) => {
                    warn!(%error, "a proxy said something that cannot be understood");
                    return;
                }
            };
            let forwarded = match (message, line.take()) {
                (FromProxy::Hello { pid, generation, draining, attempts, .. }, Some((outgoing, cut))) => {
                    ProxyMessage::Connected { connection, pid, generation, draining, attempts, outgoing, cut }
                }
                (FromProxy::Calls { records, dropped }, None) => {
                    if calls.records.send(Batch::Calls { records, dropped }).await.is_err() {
                        return;
                    }
                    continue;
                }
                (FromProxy::Answers { objects }, None) => {
                    if calls.records.send(Batch::Answers(objects)).await.is_err() {
                        return;
                    }
                    continue;
                }
                (FromProxy::Found { ticket, calls: found }, None) => {
                    calls.questions.answer(ticket, found);
                    continue;
                }
                (FromProxy::Ended { ended }, None) => {
                    // Past the fleet, and before the news of this line's end, which takes the way through the fleet.
                    if calls.inputs.send(Input::Ended { connection, ended }).await.is_err() {
                        return;
                    }
                    continue;
                }
                (FromProxy::Detached { calls: detached }, None) => {
                    if calls.inputs.send(Input::Detached { connection, calls: detached }).await.is_err() {
                        return;
                    }
                    continue;
                }
                (message, None) => ProxyMessage::Said { connection, message },
                (_, Some(_)) => return,
            };
            if messages.send(forwarded).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::engine::caller;
    use crate::wire::PROTOCOL;

    const SOON: Duration = Duration::from_secs(20);

    fn proxies() -> Proxies {
        let options = ProxyOptions::default();
        Proxies::new(Vec::new(), options, Vec::new(), mpsc::channel(1).0, watch::channel(ProxyLines::default()).0)
    }

    /// Whoever has calls for a proxy keeps a way to it; its connection must end all the same.
    #[tokio::test]
    async fn a_proxy_that_does_not_keep_up_is_cut_off_although_others_can_still_speak_to_it() {
        let (here, mut there) = UnixStream::pair().expect("a pair");
        let (messages, mut said) = mpsc::channel(8);
        let calls =
            Said { inputs: mpsc::channel(1).0, records: mpsc::channel(1).0, questions: caller::Questions::default() };
        let serving = tokio::spawn(serve_one(here, 7, messages, calls, CancellationToken::new()));
        let hello = FromProxy::Hello {
            protocol: PROTOCOL,
            version: "1.0.0".to_owned(),
            pid: 100,
            generation: 0,
            draining: false,
            attempts: Vec::new(),
        };
        there.write_all(&encode(&hello).expect("a frame")).await.expect("sent");
        let connected = timeout(SOON, said.recv()).await.expect("in time").expect("a message");
        let ProxyMessage::Connected { pid, outgoing, cut, .. } = connected else { panic!("{connected:?}") };
        let others = outgoing.clone();
        let mut proxies = proxies();
        proxies.connections.insert(7, Connection { pid, applied: 0, outgoing, cut });
        // It reads nothing: the socket fills, then the queue.
        let message =
            ToProxy::Settings(ProxyOptions { trusted_proxies: vec!["x".repeat(100_000)], ..ProxyOptions::default() });
        while !proxies.connections[&7].cut.is_cancelled() {
            proxies.broadcast(&message);
            tokio::task::yield_now().await;
        }
        timeout(SOON, serving).await.expect("the connection ends").expect("without a panic");
        let gone = timeout(SOON, said.recv()).await.expect("in time");
        assert!(matches!(gone, Some(ProxyMessage::Gone { connection: 7 })), "{gone:?}");
        let mut rest = Vec::new();
        timeout(SOON, there.read_to_end(&mut rest)).await.expect("in time").expect("read to its end");
        drop(others);
    }
}
