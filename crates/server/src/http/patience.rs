//! Clients that keep us waiting: a connection on which nothing moves ends, and so does a request whose
//! body does not come to its end.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    BoxError,
    body::{Body, Bytes},
};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// For the first octet of a connection.
pub const FIRST_OCTET: Duration = Duration::from_secs(10);
/// For an octet to move either way. More than any answer takes to be made.
pub const IDLE: Duration = Duration::from_secs(60);
/// For a request's body to arrive as a whole.
pub const WHOLE_BODY: Duration = Duration::from_secs(60);

/// A stream that fails when nothing moves on it.
#[derive(Debug)]
pub struct Patient<S> {
    stream: S,
    until: Pin<Box<Sleep>>,
}

impl<S> Patient<S> {
    /// Waits for the first octet from now on.
    pub fn new(stream: S) -> Self {
        Patient {
            stream,
            until: Box::pin(sleep(FIRST_OCTET)),
        }
    }

    fn judge<T>(
        &mut self,
        done: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.until.as_mut().reset(Instant::now() + IDLE);
            return done;
        }
        ready!(self.until.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.judge(done, context)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(context, octets);
        self.judge(done, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(context, octets);
        self.judge(done, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_flush(context);
        if done.is_ready() {
            return done;
        }
        self.judge(done, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judge(done, context)
    }
}

/// A request's body, as long as it comes in time.
pub fn within_patience(body: Incoming) -> Body {
    if body.is_end_stream() {
        return Body::empty();
    }
    Body::new(Timed {
        body,
        until: Box::pin(sleep(WHOLE_BODY)),
    })
}

struct Timed {
    body: Incoming,
    until: Pin<Box<Sleep>>,
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame.map(|f| f.map_err(Into::into)));
        }
        ready!(self.until.as_mut().poll(context));
        let text = format!("not all of it came within {} s", WHOLE_BODY.as_secs());
        Poll::Ready(Some(Err(text.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
