//! Writes that leave together, as with TCP_CORK.
//!
//! hyper's client sends a body through a pipe that waits for capacity on a stream which h2 keeps in `pending_open`, so that a
//! call's DATA misses the write of its HEADERS: two system calls here, and two wake-ups at the server, which at one call in
//! flight were a tenth of its time. So what is written is kept until the connection's task has nothing more to do, and leaves
//! then.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, BufWriter, ReadBuf};

use super::connector::BoxedIo;

/// Bytes that are kept at most: some small calls. Longer writes go past it, uncopied.
const CAPACITY: usize = 8192;

/// A connection whose writes are kept, unless there are too many of them, until its [`Flusher`] sends them.
pub(crate) struct WriteBuffer(Arc<Mutex<Kept>>);

/// Lets go what a [`WriteBuffer`] connection has kept.
pub(crate) struct Flusher(Arc<Mutex<Kept>>);

struct Kept {
    io: BufWriter<BoxedIo>,
    /// Whether something was written that may not have left.
    unflushed: bool,
    /// The task that writes.
    writer: Option<Waker>,
    /// Whether the writer waits for room.
    waiting: bool,
    /// Whether the flusher has tried and not all has left, so that the connection knows its waker and not the writer's.
    flushing: bool,
    /// Why what was kept could not be written.
    broken: Option<io::Error>,
}

impl WriteBuffer {
    pub(crate) fn new(io: BoxedIo) -> (Self, Flusher) {
        let io = BufWriter::with_capacity(CAPACITY, io);
        let kept = Kept { io, unflushed: false, writer: None, waiting: false, flushing: false, broken: None };
        let kept = Arc::new(Mutex::new(kept));
        (Self(kept.clone()), Flusher(kept))
    }
}

impl Flusher {
    /// Sends what is kept, as far as the peer takes it; `context` is woken when it takes more.
    pub(crate) fn flush(&self, context: &mut Context<'_>) {
        let mut kept = self.0.lock();
        if !kept.unflushed || kept.broken.is_some() {
            return;
        }
        kept.flushing |= !kept.io.buffer().is_empty();
        let flushed = Pin::new(&mut kept.io).poll_flush(context);
        kept.flushing |= flushed.is_pending();
        let Poll::Ready(flushed) = flushed else { return };
        kept.unflushed = false;
        kept.broken = flushed.err();
        // Otherwise it waits for the connection itself, which will wake it.
        let room = std::mem::take(&mut kept.flushing) && std::mem::take(&mut kept.waiting);
        if (room || kept.broken.is_some())
            && let Some(writer) = &kept.writer
        {
            writer.wake_by_ref();
        }
    }
}

impl Kept {
    fn unbroken(&mut self) -> io::Result<Pin<&mut BufWriter<BoxedIo>>> {
        match self.broken.take() {
            Some(error) => Err(error),
            None => Ok(Pin::new(&mut self.io)),
        }
    }

    /// Writes, and notes the writer's waker: the flusher has another one.
    fn write<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut BufWriter<BoxedIo>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let written = write(self.unbroken()?, context);
        self.unflushed = true;
        self.waiting = written.is_pending();
        if !self.writer.as_ref().is_some_and(|writer| writer.will_wake(context.waker())) {
            self.writer = Some(context.waker().clone());
        }
        written
    }
}

impl AsyncRead for WriteBuffer {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.lock().unbroken()?.poll_read(context, buf)
    }
}

impl AsyncWrite for WriteBuffer {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().write(context, |io, context| io.poll_write(context, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().write(context, |io, context| io.poll_write_vectored(context, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.lock().io.is_write_vectored()
    }

    /// Nothing to do: what is kept leaves with the flusher.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().unbroken()?;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().write(context, AsyncWrite::poll_shutdown)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, future::poll_fn};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    fn flush(flusher: &Flusher) -> impl Future<Output = ()> {
        poll_fn(|context| {
            flusher.flush(context);
            Poll::Ready(())
        })
    }

    #[tokio::test]
    async fn what_is_written_leaves_together_with_the_flusher() {
        let (near, mut far) = duplex(1 << 16);
        let (mut io, flusher) = WriteBuffer::new(Box::new(near));
        io.write_all(b"head").await.expect("kept");
        io.write_all(b"body").await.expect("kept");
        io.flush().await.expect("kept");
        let mut read = [0; 16];
        tokio::select! {
            biased;
            read = far.read(&mut read) => panic!("{read:?} bytes have left"),
            () = flush(&flusher) => {}
        }
        assert_eq!(far.read(&mut read).await.expect("written"), 8);
        assert_eq!(&read[..8], b"headbody");
    }

    #[tokio::test]
    async fn a_writer_for_whom_there_is_no_room_goes_on_when_the_peer_has_read() {
        const SIZE: usize = 1 << 20;
        let (near, mut far) = duplex(100);
        let (mut io, flusher) = WriteBuffer::new(Box::new(near));
        let writing = tokio::spawn(async move {
            let mut writing = Box::pin(async {
                for _ in 0..SIZE / 1000 {
                    io.write_all(&[7; 1000]).await.expect("the peer reads");
                }
                io.shutdown().await.expect("the peer reads");
            });
            poll_fn(|context| {
                let polled = writing.as_mut().poll(context);
                flusher.flush(context);
                polled
            })
            .await;
        });
        let mut read = Vec::new();
        far.read_to_end(&mut read).await.expect("written");
        assert_eq!(read.len(), SIZE / 1000 * 1000);
        writing.await.expect("no panic");
    }

    /// Delivers only when it is flushed, as TLS does.
    struct Buffering(Vec<u8>, tokio::io::DuplexStream);

    impl AsyncRead for Buffering {
        fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.get_mut().1).poll_read(context, buf)
        }
    }

    impl AsyncWrite for Buffering {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.get_mut().0.extend_from_slice(buf);
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            let Self(kept, io) = self.get_mut();
            while !kept.is_empty() {
                let written = std::task::ready!(Pin::new(&mut *io).poll_write(context, kept))?;
                kept.drain(..written);
            }
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_connection_that_itself_keeps_what_is_written_is_flushed() {
        for size in [10, 2 * CAPACITY] {
            let (near, mut far) = duplex(1 << 16);
            let (mut io, flusher) = WriteBuffer::new(Box::new(Buffering(Vec::new(), near)));
            io.write_all(&vec![7; size]).await.expect("kept");
            flush(&flusher).await;
            far.read_exact(&mut vec![0; size]).now_or_never().expect("it has left").expect("written");
        }
    }

    #[tokio::test]
    async fn that_what_was_kept_could_not_be_written_is_said_at_the_next_use() {
        let (near, far) = duplex(100);
        let (mut io, flusher) = WriteBuffer::new(Box::new(near));
        io.write_all(b"head").await.expect("kept");
        drop(far);
        flush(&flusher).await;
        io.write_all(b"body").await.expect_err("the peer has gone");
    }
}
