//! An agent whose controller is killed hangs up on whoever is connected, at any moment of a call.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use landfall::client::{Client, Target};

/// Enough that some calls meet the end of their connection in the very moment they are sent.
const CALLS: u32 = 8000;
/// A call that is over neither way after this is never over.
const NEVER: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_ends_whenever_the_other_side_hangs_up() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let moment = Arc::new(AtomicU32::new(0));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let moment = moment.fetch_add(1, Ordering::Relaxed);
            std::thread::spawn(move || hang_up(stream, moment));
        }
    });
    let client = Client::connect(&Target::Socket(socket)).unwrap();
    let mut answered = 0;
    for call in 0..CALLS {
        let over = tokio::time::timeout(NEVER, client.apps(None)).await;
        let over = over.unwrap_or_else(|_| panic!("call {call} is neither answered nor failed after {NEVER:?}"));
        answered += u32::from(over.is_ok());
    }
    assert!(answered > 0 && answered < CALLS, "{answered} of {CALLS} calls answered: both must happen");
}

/// Answers no request, or some, and hangs up after some microseconds more.
fn hang_up(mut stream: UnixStream, moment: u32) {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n[]";
    for _ in 0..moment % 4 {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(answer);
    }
    std::thread::sleep(Duration::from_micros(u64::from(moment * 7 % 300)));
}
