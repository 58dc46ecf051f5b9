//! Sending a request where the connection it goes out on cannot be lost between two threads.
//!
//! hyper hands a request to its connection's task through a channel. On a runtime of several threads the connection may
//! end (an agent's controller that is replaced) just while the request is put into that channel: nobody takes it out
//! any more, nobody tells its sender, and it waits until its deadline although the next controller would answer. On one
//! thread the two cannot overlap.
//!
//! Invariant: a request and its connection are always polled by the same thread.

use std::sync::OnceLock;

use reqwest::{RequestBuilder, Response};
use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};
use tokio_util::task::AbortOnDropHandle;

/// Sends `request` and waits for the head of its answer. Dropping this gives the request up.
pub(super) async fn send(request: RequestBuilder) -> reqwest::Result<Response> {
    let Some(runtime) = one_thread() else { return request.send().await };
    match AbortOnDropHandle::new(runtime.spawn(request.send())).await {
        Ok(answered) => answered,
        // It is aborted by nobody but the handle above, so it has panicked: that is the caller's, too.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// The thread all clients of this program send on; `None` where the caller's runtime has no more than one itself, or
/// where no thread can be had.
fn one_thread() -> Option<&'static Runtime> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    if Handle::try_current().is_ok_and(|here| here.runtime_flavor() == RuntimeFlavor::CurrentThread) {
        return None;
    }
    let start =
        || Builder::new_multi_thread().worker_threads(1).thread_name("landfall-client").enable_all().build().ok();
    RUNTIME.get_or_init(start).as_ref()
}
