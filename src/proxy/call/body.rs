//! The body of a call on its way up, and of its answer on the way down.
//!
//! Bodies flow: a call that came with a connection is read as fast as the instance takes it.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::proxy::body::BodyError;
use crate::proxy::exchange::Fate;

/// What a call brings.
#[derive(Debug)]
pub enum Given {
    /// Its body is still coming in.
    Stream(Incoming),
    /// Its body is here.
    Whole(Bytes),
}

impl Given {
    /// The body's length, where it is known.
    pub fn length(&self) -> Option<u64> {
        match self {
            Given::Stream(body) => body.size_hint().exact(),
            Given::Whole(bytes) => Some(bytes.len() as u64),
        }
    }
}

/// How far a body has come.
#[derive(Debug, Default)]
pub struct Upload {
    /// All of it went up.
    pub complete: Cell<bool>,
    /// It is larger than the function allows.
    pub too_large: Cell<bool>,
    /// Bytes so far.
    pub bytes: Cell<u64>,
}

/// A call's body on its way to an instance.
#[derive(Debug)]
pub struct CallBody {
    given: Given,
    upload: Rc<Upload>,
    left: u64,
}

impl CallBody {
    /// At most `limit` bytes of what was given.
    pub fn new(given: Given, upload: Rc<Upload>, limit: u64) -> Self {
        let body = Self { given, upload, left: limit };
        body.upload.complete.set(body.is_end_stream());
        body
    }

    fn poll_given(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.given {
            Given::Stream(body) => Pin::new(body).poll_frame(context),
            Given::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Given::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
        }
    }
}

impl Body for CallBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some(frame) = ready!(this.poll_given(context)).transpose()? else {
            this.upload.complete.set(true);
            return Poll::Ready(None);
        };
        if let Some(data) = frame.data_ref() {
            let Some(left) = this.left.checked_sub(data.len() as u64) else {
                this.upload.too_large.set(true);
                return Poll::Ready(Some(Err(Fate::TooLarge.into())));
            };
            this.left = left;
            this.upload.bytes.set(this.upload.bytes.get() + data.len() as u64);
        }
        // With a known length nobody asks again after the last byte.
        this.upload.complete.set(this.is_end_stream());
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.given {
            Given::Stream(body) => body.is_end_stream(),
            Given::Whole(bytes) => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.given {
            Given::Stream(body) => body.size_hint(),
            Given::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}
