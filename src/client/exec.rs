//! Commands in instances.

use futures_util::stream;
use reqwest::{Body, Method, Response};
use tokio::sync::mpsc;

use super::query::Route;
use super::{ANSWER, Client, ClientError, describe, send};
use crate::wire::exec::{ExecStart, Frame, Frames, MEDIA_TYPE};

/// Frames that wait until the agent takes them.
const WAITING: usize = 8;

/// A command that runs in an instance. Dropping it ends the command.
#[derive(Debug)]
pub struct Exec {
    client: Client,
    what: String,
    /// Open as long as this lives, so that the agent does not take the end of the input for its own decision.
    input: mpsc::Sender<Frame>,
    response: Response,
    frames: Frames,
}

impl Client {
    /// Runs a command in an instance. It is told what is sent to [`Exec::input`], and says what [`Exec::next`] answers.
    ///
    /// # Errors
    /// When the agent is not reached, or does not run it. A program that is not there is told by the last frame.
    pub async fn exec(&self, instance: &str, start: ExecStart) -> Result<Exec, ClientError> {
        let route = Route::new(&["instances", instance, "exec"]);
        let what = format!("POST {}", route.as_str());
        let (input, waiting) = mpsc::channel(WAITING);
        let first = Frame::Start(start).encode().map_err(|error| self.protocol(&what, &error))?;
        let frames = stream::unfold((Some(first), waiting), |(first, mut waiting): (_, mpsc::Receiver<Frame>)| async {
            if let Some(first) = first {
                return Some((Ok::<_, std::io::Error>(first), (None, waiting)));
            }
            let frame = waiting.recv().await?;
            Some((frame.encode().map_err(std::io::Error::other), (None, waiting)))
        });
        let request =
            self.request(Method::POST, &route).header("content-type", MEDIA_TYPE).body(Body::wrap_stream(frames));
        let sent = tokio::time::timeout(ANSWER, send::send(request)).await;
        let response =
            sent.map_err(|_| self.timeout(&what, ANSWER))?.map_err(|error| self.failed(&what, ANSWER, &error))?;
        if !response.status().is_success() {
            return Err(self.refused(&what, response).await);
        }
        Ok(Exec { client: self.clone(), what, input, response, frames: Frames::default() })
    }
}

impl Exec {
    /// Where frames for the command go: input in pieces of at most [`crate::wire::exec::MAX_PAYLOAD`] bytes, its end,
    /// sizes of its terminal. Waits while the command does not take what was sent before.
    pub fn input(&self) -> mpsc::Sender<Frame> {
        self.input.clone()
    }

    /// What the command says next; [`Frame::Ended`] is the last. May be dropped and called again without losing anything.
    ///
    /// # Errors
    /// When the connection breaks before the command's end is told.
    pub async fn next(&mut self) -> Result<Frame, ClientError> {
        let interrupted =
            |why: String| ClientError::Interrupted { target: self.client.target.clone(), what: self.what.clone(), why };
        loop {
            match self.frames.next_frame() {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => {}
                Err(error) => return Err(self.client.protocol(&self.what, &error)),
            }
            match self.response.chunk().await {
                Ok(Some(piece)) => self.frames.extend(&piece),
                Ok(None) => return Err(interrupted("the agent ended the command without saying how".to_owned())),
                Err(error) => return Err(interrupted(describe(&error))),
            }
        }
    }
}
