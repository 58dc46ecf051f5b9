//! Steady traffic on one app, some of it on kept connections and some on new ones, and what became of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;

use super::http::Connection;

/// Between two requests of one connection. Keeps the machine busy but leaves room for what is tested.
const PAUSE: Duration = Duration::from_millis(10);

/// What one request came to, where it was not a 200 of a version that may answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// No connection could be made.
    Refused(String),
    /// The connection ended before the answer did.
    Broken(String),
    /// The answer was none of the app's, or an error.
    Wrong(String),
    /// A version older than one that was live before the request was sent.
    Stale { answered: u32, live: u32 },
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    live: AtomicU32,
    requests: AtomicU64,
    troubles: Mutex<Vec<Trouble>>,
}

/// Running traffic.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

/// What it came to.
#[derive(Debug)]
pub struct Report {
    pub requests: u64,
    pub troubles: Vec<Trouble>,
}

impl Load {
    /// Starts `kept` connections that are used again and again, and `fresh` clients that open one for each request.
    pub fn start(proxy: SocketAddr, app: &str, kept: usize, fresh: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        for index in 0..kept + fresh {
            let (shared, host) = (Arc::clone(&shared), format!("{app}.localhost"));
            tasks.spawn(async move {
                let mut kept_open = None;
                while !shared.stop.load(Ordering::Relaxed) {
                    kept_open = shared.request(proxy, &host, kept_open).await.filter(|_| index < kept);
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        Self { shared, tasks }
    }

    /// From now on an answer of an older version counts as stale.
    pub fn live(&self, version: u32) {
        self.shared.live.fetch_max(version, Ordering::SeqCst);
    }

    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Waits until every client can have made a request after this call began.
    pub async fn go_on(&self) {
        let enough = self.requests() + 2 * self.tasks.len() as u64;
        super::until("traffic goes on", || async {
            let now = self.requests();
            if now >= enough { Ok(()) } else { Err(format!("{now} of {enough} requests")) }
        })
        .await;
    }

    pub async fn stop(mut self) -> Report {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a client does not panic");
        }
        let troubles = std::mem::take(&mut *self.shared.troubles.lock().expect("the list"));
        Report { requests: self.requests(), troubles }
    }

    /// Stops, and fails the test unless every request was answered well.
    pub async fn stop_unharmed(self) -> Report {
        let report = self.stop().await;
        assert!(report.requests > 0, "nothing was asked");
        let first: Vec<_> = report.troubles.iter().take(5).collect();
        assert!(report.troubles.is_empty(), "{} of {}: {first:#?}", report.troubles.len(), report.requests);
        report
    }
}

impl Shared {
    /// One request; hands the connection back if it can be used again.
    async fn request(&self, proxy: SocketAddr, host: &str, kept: Option<Connection>) -> Option<Connection> {
        // Read before anything is sent: what is live now may be newer, never older.
        let live = self.live.load(Ordering::SeqCst);
        let trouble = match self.exchange(proxy, host, kept, live).await {
            Ok(connection) => return connection,
            Err(trouble) => trouble,
        };
        self.troubles.lock().expect("the list").push(trouble);
        None
    }

    async fn exchange(
        &self,
        proxy: SocketAddr,
        host: &str,
        kept: Option<Connection>,
        live: u32,
    ) -> Result<Option<Connection>, Trouble> {
        let mut connection = match kept {
            Some(connection) => connection,
            None => Connection::open(proxy, host).await.map_err(Trouble::Refused)?,
        };
        let answer = connection.get("/").await;
        self.requests.fetch_add(1, Ordering::Relaxed);
        let answer = answer.map_err(Trouble::Broken)?;
        match answer.version {
            Some(answered) if answer.status == 200 && answered < live => Err(Trouble::Stale { answered, live }),
            Some(_) if answer.status == 200 => {
                let closes = answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
                Ok((!closes).then_some(connection))
            }
            Some(_) | None => Err(Trouble::Wrong(format!("{answer:?}"))),
        }
    }
}
