//! Web requests, counted: what API, dashboard and metrics show is what the clients did, whatever dies between.

use std::collections::BTreeMap;

use landfall::domain::AnswerClass::{self, ClientError, Redirected, ServerError, Successful};
use landfall::wire::traffic::ObjectTraffic;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::metrics::scrape;
use crate::support::asking::name;
use crate::support::http::Connection;
use crate::support::{Agent, Setup, free_port, until, web_manifest};

type Answers = BTreeMap<AnswerClass, u64>;

impl Agent {
    async fn requests(&self) -> ObjectTraffic {
        let all = self.client.requests(None, &name("shop")).await.expect("requests");
        assert_eq!(all.len(), 1, "{all:?}");
        all.into_iter().next().expect("one object")
    }

    async fn until_counted(&self, expected: &Answers) -> ObjectTraffic {
        until(&format!("{expected:?} are counted"), || async {
            let seen = self.requests().await;
            if seen.hour.answers == *expected { Ok(seen) } else { Err(format!("{:?}", seen.hour.answers)) }
        })
        .await
    }

    /// Sends requests of these statuses on one connection.
    async fn statuses(&self, statuses: &[u16]) {
        let mut connection = Connection::open(self.proxy, "shop.localhost").await.expect("connects");
        for status in statuses {
            let answer = connection.get(&format!("/status?code={status}")).await.expect("an answer");
            assert_eq!(answer.status, *status);
        }
    }

    /// What the history has on disk.
    fn kept(&self) -> Result<Answers, String> {
        let words = |error: rusqlite::Error| error.to_string();
        let history = rusqlite::Connection::open(self.root.join("data/history.db")).map_err(words)?;
        let mut sums = history.prepare("SELECT sum FROM minutes").map_err(words)?;
        let mut kept = Answers::new();
        for sum in sums.query_map([], |row| row.get::<_, String>(0)).map_err(words)? {
            let sum: serde_json::Value = serde_json::from_str(&sum.map_err(words)?).expect("JSON");
            let answers: Answers = serde_json::from_value(sum["answers"].clone()).unwrap_or_default();
            for (class, count) in answers {
                *kept.entry(class).or_default() += count;
            }
        }
        Ok(kept)
    }
}

/// The counters of a scrape.
fn counted(text: &str) -> Answers {
    let of = |class: &AnswerClass| {
        let label = format!("{{environment=\"main\",app=\"shop\",object=\"main\",class=\"{class}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix("landfall_web_requests_total")?.strip_prefix(&label));
        line.map(|number| (*class, number.parse().expect("a number")))
    };
    AnswerClass::ALL.iter().filter_map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_once_by_answer_also_while_no_controller_is_there() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut setup = Setup::new();
    let port = free_port();
    setup.api = format!(", listen: \"127.0.0.1:{port}\"");
    setup.repo.write("shop/landfall.yaml", web_manifest("shop", "    max_body: 1KiB\n"));
    setup.repo.push("one");
    let agent = setup.start().await;
    agent.until_live("shop", 1).await;
    agent.rest(&["shop"]).await;
    assert!(agent.requests().await.minutes.is_empty(), "probes are no requests");

    agent.statuses(&[200, 200, 204, 301, 304, 404, 404, 410, 500]).await;
    // Refused by the proxy itself, gone before there was an answer, and never asked of an app.
    let mut large = Connection::open(agent.proxy, "shop.localhost").await.expect("connects");
    let refused = large.send(b"POST /echo HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 5000\r\n\r\n").await;
    assert_eq!(refused.expect("an answer").status, 413);
    let mut gone = TcpStream::connect(agent.proxy).await.expect("connects");
    gone.write_all(b"GET /slow?ms=3000 HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await.expect("sent");
    until("the request is under way", || async {
        let busy = agent.instances("shop").await?.iter().any(|one| one.in_flight > 0);
        if busy { Ok(()) } else { Err("nothing is".to_owned()) }
    })
    .await;
    drop(gone);
    assert_eq!(agent.get("nobody", "/").await.expect("an answer").status, 404);
    let mut expected = Answers::from([(Successful, 3), (Redirected, 2), (ClientError, 5), (ServerError, 1)]);
    let seen = agent.until_counted(&expected).await;
    assert_eq!(seen.minutes.iter().flat_map(|minute| minute.answers.values()).sum::<u64>(), 11);
    assert!(seen.hour.head.p50_us.is_some() && seen.hour.head.p50_us <= seen.hour.head.p99_us, "{seen:?}");
    assert_eq!(counted(&scrape(port).await), expected);

    // What is kept, the next controller goes on from; what is answered until then waits with the proxy.
    until("they are on disk", || async {
        let kept = agent.kept()?;
        if kept == expected { Ok(()) } else { Err(format!("{kept:?}")) }
    })
    .await;
    let killed = agent.kill_controller().await;
    agent.statuses(&[200, 503, 404]).await;
    assert_ne!(agent.until_new_controller(killed).await, killed);
    agent.statuses(&[200]).await;
    for (class, more) in [(Successful, 2), (ClientError, 1), (ServerError, 1)] {
        *expected.entry(class).or_default() += more;
    }
    agent.until_counted(&expected).await;
    let since = Answers::from([(Successful, 2), (ClientError, 1), (ServerError, 1)]);
    assert_eq!(counted(&scrape(port).await), since, "counters are of one controller");

    let page =
        reqwest::Client::builder().unix_socket(agent.root.join("agent.sock").as_path()).build().expect("a client");
    let page = page.get("http://localhost/apps/shop").send().await.expect("an answer").text().await.expect("text");
    assert!(page.contains("15 in the last hour, 6 answered with 4xx, 2 with 5xx"), "{page}");
    assert!(page.contains("<g class=\"deploy\">"), "deployments are marked in {page}");
}
