//! Writes on a thread of its own, so that what is not read never holds up the rest.
//!
//! What waits is bounded in bytes: what finds no room is dropped whole, and counted. The
//! caller waits a moment for each write, so that it learns at once of an output that is
//! closed or full, and not at all for one that is behind. For room it waits once; a reader
//! that is slow and reads on loses nothing by that.

use std::{
    collections::VecDeque,
    io::{self, Write},
    os::fd::AsRawFd as _,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// So much waits behind the piece that is being written, but one piece at least: some
/// dozen snapshots.
const MOST_BYTES: usize = 512 << 10;
/// A write is waited for so long.
const PATIENCE: Duration = Duration::from_millis(20);
/// What waits at the end is waited for so long, and once for room.
const LAST_PATIENCE: Duration = Duration::from_millis(400);
/// The thread calls write(2) and nothing else.
const STACK_BYTES: usize = 64 << 10;

/// The caller's side.
pub(super) struct Writer {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Vec<u8>>,
    /// Those of the queue.
    bytes: usize,
    /// A piece is being written.
    is_writing: bool,
    /// The last write was not done in time.
    is_behind: bool,
    /// Room was waited for in vain, and nothing was written since.
    is_stuck: bool,
    is_over: bool,
    dropped: u64,
    end: Option<End>,
}

enum End {
    /// The reader has gone.
    Closed,
    Failed(io::Error),
}

impl Writer {
    /// One that writes to standard output.
    ///
    /// # Errors
    /// There can be no more threads.
    pub(super) fn to_stdout() -> io::Result<Self> {
        Self::to(Stdout)
    }

    fn to(mut sink: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let its = Arc::clone(&shared);
        thread::Builder::new()
            .name("output".into())
            .stack_size(STACK_BYTES)
            .spawn(move || its.write_all(&mut sink))?;
        Ok(Self { shared })
    }

    /// Hands bytes over; false once the reader has gone.
    ///
    /// # Errors
    /// These bytes, or some before, could not be written.
    pub(super) fn write(&self, bytes: Vec<u8>) -> io::Result<bool> {
        let mut state = self.shared.lock();
        if !state.is_stuck {
            state = self.shared.wait_for_room(state, bytes.len());
            state.is_stuck = !state.has_room(bytes.len());
        }
        if !state.has_room(bytes.len()) {
            state.dropped += 1;
        } else if !bytes.is_empty() {
            state.bytes += bytes.len();
            state.queue.push_back(bytes);
            self.shared.changed.notify_all();
        }
        if !state.is_behind {
            state = self.shared.wait(state, PATIENCE);
            state.is_behind = state.is_busy();
        }
        state.answer()
    }

    /// Waits a bounded time until all is written.
    ///
    /// # Errors
    /// It could not be written.
    pub(super) fn finish(&self) -> io::Result<bool> {
        self.shared.wait(self.shared.lock(), LAST_PATIENCE).answer()
    }

    /// Whether something waits to be written.
    pub(super) fn is_busy(&self) -> bool {
        self.shared.lock().is_busy()
    }

    /// Pieces that were dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.shared.lock().dropped
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_all();
    }
}

impl State {
    fn has_room(&self, bytes: usize) -> bool {
        self.bytes == 0 || self.bytes + bytes <= MOST_BYTES || self.end.is_some()
    }

    fn is_busy(&self) -> bool {
        (self.is_writing || !self.queue.is_empty()) && self.end.is_none()
    }

    fn answer(&mut self) -> io::Result<bool> {
        match self.end.take() {
            None => Ok(true),
            Some(End::Closed) => {
                self.end = Some(End::Closed);
                Ok(false)
            }
            Some(End::Failed(error)) => {
                self.end = Some(End::Closed);
                Err(error)
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        let waited = self
            .changed
            .wait_timeout_while(state, time, |state| state.is_busy());
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn wait_for_room<'a>(
        &self,
        state: MutexGuard<'a, State>,
        bytes: usize,
    ) -> MutexGuard<'a, State> {
        let has_none = |state: &mut State| !state.has_room(bytes);
        let waited = self
            .changed
            .wait_timeout_while(state, LAST_PATIENCE, has_none);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// The thread: one piece after the other, until all are written and no more come.
    fn write_all(&self, sink: &mut impl Write) {
        loop {
            let waits = |state: &mut State| state.queue.is_empty() && !state.is_over;
            let state = self.changed.wait_while(self.lock(), waits);
            let mut state = state.unwrap_or_else(PoisonError::into_inner);
            let Some(piece) = state.queue.pop_front() else {
                return;
            };
            state.bytes -= piece.len();
            state.is_writing = true;
            drop(state);
            let written = sink.write_all(&piece).and_then(|()| sink.flush());
            let mut state = self.lock();
            state.is_writing = false;
            state.is_stuck = false;
            state.is_behind &= !state.queue.is_empty();
            if let Err(error) = written {
                state.end = Some(match error.kind() {
                    io::ErrorKind::BrokenPipe => End::Closed,
                    _ => End::Failed(error),
                });
            }
            let is_end = state.end.is_some();
            drop(state);
            self.changed.notify_all();
            if is_end {
                return;
            }
        }
    }
}

/// Standard output without a buffer and without a lock: a thread that is stopped in a
/// write holds nothing that the end of the process waits for.
struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stdout = io::stdout();
        match rustix::io::write(&stdout, bytes) {
            Err(rustix::io::Errno::AGAIN) => {
                // Whoever started this process made it so.
                let mut fd = libc::pollfd {
                    fd: stdout.as_raw_fd(),
                    events: libc::POLLOUT,
                    revents: 0,
                };
                // SAFETY: one structure, which is ours.
                unsafe { libc::poll(&raw mut fd, 1, -1) };
                Err(io::ErrorKind::Interrupted.into())
            }
            written => Ok(written?),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::mpsc::{Receiver, SyncSender, sync_channel},
        time::Duration,
    };

    use super::{MOST_BYTES, Writer};

    /// Each write waits until it is taken, and can fail.
    struct Slow(SyncSender<Vec<u8>>, Option<io::ErrorKind>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(kind) = self.1 {
                return Err(kind.into());
            }
            let sent = self.0.send(bytes.to_vec());
            sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow(fails: Option<io::ErrorKind>) -> (Writer, Receiver<Vec<u8>>) {
        let (send, receive) = sync_channel(0);
        (Writer::to(Slow(send, fails)).expect("a thread"), receive)
    }

    #[test]
    fn what_is_not_read_is_dropped_and_counted() {
        let (writer, reader) = slow(None);
        let piece = |byte: u8| vec![byte; MOST_BYTES / 4];
        // One is being written, four wait.
        for byte in 0..7 {
            assert!(writer.write(piece(byte)).expect("no error"));
            while !writer.shared.lock().is_writing {
                std::thread::yield_now();
            }
        }
        assert_eq!(writer.dropped(), 2);
        assert!(writer.finish().expect("no error"), "the end is bounded");
        // Read again: what was kept comes in order and whole.
        for byte in 0..5 {
            let read = reader
                .recv_timeout(Duration::from_secs(5))
                .expect("a piece");
            assert_eq!(read, piece(byte));
        }
        let last = std::thread::spawn(move || reader.recv_timeout(Duration::from_secs(5)));
        assert!(writer.write(piece(9)).expect("no error"));
        assert_eq!(last.join().expect("no panic").expect("a piece"), piece(9));
        assert_eq!(writer.dropped(), 2);
    }

    #[test]
    fn a_piece_larger_than_the_bound_is_written() {
        let (writer, reader) = slow(None);
        let large = vec![7; 2 * MOST_BYTES];
        assert!(writer.write(large.clone()).expect("no error"));
        let read = reader
            .recv_timeout(Duration::from_secs(5))
            .expect("a piece");
        assert_eq!((read, writer.dropped()), (large, 0));
    }

    #[test]
    fn a_reader_that_has_gone_and_a_full_disk_are_known_at_once() {
        let (writer, reader) = slow(None);
        drop(reader);
        assert!(!writer.write(b"x".to_vec()).expect("no error"));
        assert!(!writer.write(b"x".to_vec()).expect("no error"));
        let (writer, _reader) = slow(Some(io::ErrorKind::StorageFull));
        let error = writer.write(b"x".to_vec()).expect_err("the disk is full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
