//! The bodies of requests and answers on their way through: counted, limited, never collected.
//!
//! Owned by hyper while they flow; their [`Exchange`] hears of every frame. Neighbours: `forward.rs` wraps, `worker.rs`
//! sweeps for exchanges whose client stopped moving.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::call::body::CallBody;
use super::call::serve::CallAnswer;
use super::exchange::{Exchange, Fate};

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The other side's connection failed.
    #[error(transparent)]
    Transport(#[from] hyper::Error),
    /// The proxy ended the exchange.
    #[error(transparent)]
    Ended(#[from] Fate),
}

/// What goes up to an instance.
#[derive(Debug)]
pub enum RequestBody {
    /// A request's body.
    Web(WebBody),
    /// A call's.
    Call(CallBody),
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            RequestBody::Web(body) => Pin::new(body).poll_frame(context),
            RequestBody::Call(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Web(body) => body.is_end_stream(),
            RequestBody::Call(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Web(body) => body.size_hint(),
            RequestBody::Call(body) => body.size_hint(),
        }
    }
}

/// A request's body on its way to an instance.
#[derive(Debug)]
pub struct WebBody {
    inner: Incoming,
    exchange: Rc<Exchange>,
    left: u64,
}

impl WebBody {
    /// At most `limit` bytes of `inner`.
    pub fn new(inner: Incoming, exchange: Rc<Exchange>, limit: u64) -> Self {
        Self { inner, exchange, left: limit }
    }
}

impl Body for WebBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        this.exchange.watch_up(context)?;
        let polled = Pin::new(&mut this.inner).poll_frame(context);
        this.exchange.upload_waits(polled.is_pending());
        let Some(frame) = ready!(polled).transpose()? else { return Poll::Ready(None) };
        if let Some(data) = frame.data_ref() {
            let Some(left) = this.left.checked_sub(data.len() as u64) else {
                this.exchange.end(Fate::TooLarge);
                return Poll::Ready(Some(Err(Fate::TooLarge.into())));
            };
            this.left = left;
            this.exchange.count_in(data.len());
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An answer's body on its way to the client.
#[derive(Debug)]
pub struct ResponseBody {
    inner: Incoming,
    exchange: Rc<Exchange>,
}

impl ResponseBody {
    /// The body of an answer whose head has just come.
    pub fn new(inner: Incoming, exchange: Rc<Exchange>) -> Self {
        if inner.is_end_stream() {
            exchange.answer_complete();
        }
        Self { inner, exchange }
    }

    fn poll_inner(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.exchange.watch_down(context)?;
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if polled.is_pending() {
            // The instance's turn. An event stream may be silent for hours.
            self.exchange.download_waits(false);
        }
        let Some(frame) = ready!(polled).transpose()? else {
            self.exchange.answer_complete();
            return Poll::Ready(None);
        };
        if let Some(data) = frame.data_ref() {
            self.exchange.count_out(data.len());
        }
        // With a known length nobody asks again after the last byte.
        if self.inner.is_end_stream() {
            self.exchange.answer_complete();
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

/// The body of any answer.
#[derive(Debug)]
pub enum AnswerBody {
    /// From an instance.
    Passed(ResponseBody),
    /// Landfall's own, with the exchange it ends.
    Own(Option<Bytes>, Rc<Exchange>),
    /// The answer to a call.
    Call(CallAnswer),
    /// Nothing: the answer that starts a tunnel.
    Empty,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            AnswerBody::Passed(body) => body.poll_inner(context),
            AnswerBody::Own(text, exchange) => Poll::Ready(text.take().map(|text| {
                exchange.count_out(text.len());
                Ok(Frame::data(text))
            })),
            AnswerBody::Call(answer) => Pin::new(answer).poll_frame(context),
            AnswerBody::Empty => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            AnswerBody::Passed(body) => body.inner.is_end_stream(),
            AnswerBody::Own(text, _) => text.is_none(),
            AnswerBody::Call(answer) => answer.is_end_stream(),
            AnswerBody::Empty => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AnswerBody::Passed(body) => body.inner.size_hint(),
            AnswerBody::Own(text, _) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
            AnswerBody::Call(answer) => answer.size_hint(),
            AnswerBody::Empty => SizeHint::with_exact(0),
        }
    }
}
