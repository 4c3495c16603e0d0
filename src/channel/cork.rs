//! Writes that leave together, as with TCP_CORK.
//!
//! h2 writes a call's HEADERS when it opens the stream and its DATA a turn later, which would be two system calls here and two
//! wake-ups at the server. So what is written is kept until the connection's task has nothing more to do, and leaves then.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, BufWriter, ReadBuf};

use super::connector::BoxedIo;

/// Bytes that are kept at most: some small calls. Longer writes go past it, uncopied.
const CAPACITY: usize = 4096;

/// A connection whose writes are kept, unless there are too many of them, until its [`Cork`] is pulled.
pub(super) struct Corked(Arc<Mutex<Kept>>);

/// Lets go what a [`Corked`] connection has kept.
pub(super) struct Cork(Arc<Mutex<Kept>>);

struct Kept {
    io: BufWriter<BoxedIo>,
    /// Who waits for room.
    writer: Option<Waker>,
    /// Why what was kept could not be written.
    broken: Option<io::Error>,
}

impl Corked {
    pub(super) fn new(io: BoxedIo) -> (Self, Cork) {
        let io = BufWriter::with_capacity(CAPACITY, io);
        let kept = Arc::new(Mutex::new(Kept { io, writer: None, broken: None }));
        (Self(kept.clone()), Cork(kept))
    }
}

impl Cork {
    /// Writes what is kept, as far as the peer takes it; `context` is woken when it takes more.
    pub(super) fn pull(&self, context: &mut Context<'_>) {
        let mut kept = lock(&self.0);
        // Without anything kept, a writer that waits for room waits for the connection itself, which will wake it.
        if kept.io.buffer().is_empty() || kept.broken.is_some() {
            return;
        }
        let Poll::Ready(written) = Pin::new(&mut kept.io).poll_flush(context) else { return };
        kept.broken = written.err();
        if let Some(writer) = kept.writer.take() {
            writer.wake();
        }
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    // The buffer stands at every step.
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kept {
    fn unbroken(&mut self) -> io::Result<Pin<&mut BufWriter<BoxedIo>>> {
        match self.broken.take() {
            Some(error) => Err(error),
            None => Ok(Pin::new(&mut self.io)),
        }
    }

    /// Writes, or notes who waits for room: the cork is pulled with another waker than the writer's.
    fn write<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut BufWriter<BoxedIo>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let written = write(self.unbroken()?, context);
        if written.is_pending() {
            self.writer = Some(context.waker().clone());
        }
        written
    }
}

impl AsyncRead for Corked {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).unbroken()?.poll_read(context, buf)
    }
}

impl AsyncWrite for Corked {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        lock(&self.0).write(context, |io, context| io.poll_write(context, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        lock(&self.0).write(context, |io, context| io.poll_write_vectored(context, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        lock(&self.0).io.is_write_vectored()
    }

    /// Nothing to do: what is kept leaves when the cork is pulled.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).unbroken()?;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).write(context, AsyncWrite::poll_shutdown)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::poll_fn;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    fn pull(cork: &Cork) -> impl Future<Output = ()> {
        poll_fn(|context| {
            cork.pull(context);
            Poll::Ready(())
        })
    }

    #[tokio::test]
    async fn what_is_written_leaves_together_when_the_cork_is_pulled() {
        let (near, mut far) = duplex(1 << 16);
        let (mut io, cork) = Corked::new(Box::new(near));
        io.write_all(b"head").await.expect("kept");
        io.write_all(b"body").await.expect("kept");
        io.flush().await.expect("kept");
        let mut read = [0; 16];
        tokio::select! {
            biased;
            read = far.read(&mut read) => panic!("{read:?} bytes have left"),
            () = pull(&cork) => {}
        }
        assert_eq!(far.read(&mut read).await.expect("written"), 8);
        assert_eq!(&read[..8], b"headbody");
    }

    #[tokio::test]
    async fn a_writer_for_whom_there_is_no_room_goes_on_when_the_peer_has_read() {
        const SIZE: usize = 1 << 20;
        let (near, mut far) = duplex(100);
        let (mut io, cork) = Corked::new(Box::new(near));
        let writing = tokio::spawn(async move {
            let mut writing = Box::pin(async {
                for _ in 0..SIZE / 1000 {
                    io.write_all(&[7; 1000]).await.expect("the peer reads");
                }
                io.shutdown().await.expect("the peer reads");
            });
            poll_fn(|context| {
                let polled = writing.as_mut().poll(context);
                cork.pull(context);
                polled
            })
            .await;
        });
        let mut read = Vec::new();
        far.read_to_end(&mut read).await.expect("written");
        assert_eq!(read.len(), SIZE / 1000 * 1000);
        writing.await.expect("no panic");
    }

    #[tokio::test]
    async fn that_what_was_kept_could_not_be_written_is_said_at_the_next_use() {
        let (near, far) = duplex(100);
        let (mut io, cork) = Corked::new(Box::new(near));
        io.write_all(b"head").await.expect("kept");
        drop(far);
        pull(&cork).await;
        io.write_all(b"body").await.expect_err("the peer has gone");
    }
}
