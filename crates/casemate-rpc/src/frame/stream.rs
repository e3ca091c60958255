//! Frames on a stream of bytes: each is its length, four bytes with the highest first, and then so
//! many bytes. A length of zero is a sign of life and no frame.
//!
//! Each end that has nothing to say gives a sign of life every [`ALIVE_EVERY`]; one of which nothing
//! came for [`SILENCE_MAX`] is gone, as behind a cable that was pulled.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::sync::{Mutex, mpsc};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, timeout};

use super::FRAME_MAX;
use crate::wire::Wire;

/// How often a silent end says that it lives.
pub(crate) const ALIVE_EVERY: Duration = Duration::from_secs(2);
/// Silence after which the other end is taken for gone; also how long it may take to accept bytes.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(8);
/// Frames that wait to be written; beyond it senders wait.
const QUEUE: usize = 256;
/// Written at once at most, unless one frame alone is longer.
const BATCH_BYTES: usize = 64 * 1024;

type Reader = BufReader<ReadHalf<Box<dyn Wire>>>;

pub(crate) struct StreamChannel {
    reader: Mutex<Reader>,
    /// `None` once nothing more is sent.
    frames: Mutex<Option<mpsc::Sender<Vec<u8>>>>,
    writer: Mutex<JoinHandle<()>>,
    abort: AbortHandle,
}

impl StreamChannel {
    pub(crate) fn new(stream: Box<dyn Wire>) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        let (frames, waiting) = mpsc::channel(QUEUE);
        let writer = tokio::spawn(write(writer, waiting));
        Self {
            reader: Mutex::new(BufReader::new(reader)),
            frames: Mutex::new(Some(frames)),
            abort: writer.abort_handle(),
            writer: Mutex::new(writer),
        }
    }

    /// Returns once the frame is in the queue of what is written.
    pub(crate) async fn send(&self, bytes: Vec<u8>) -> io::Result<()> {
        if bytes.is_empty() || bytes.len() > FRAME_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let frames = self.frames.lock().await.clone();
        let frames = frames.ok_or(io::ErrorKind::BrokenPipe)?;
        let sent = frames.send(bytes).await;
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Whether there was a frame: `buffer` is it. Otherwise the other end has left.
    pub(crate) async fn recv(&self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        let mut reader = self.reader.lock().await;
        loop {
            match timeout(SILENCE_MAX, read(&mut reader, buffer)).await {
                Ok(Ok(Read::Alive)) => {}
                Ok(Ok(Read::Frame)) => return Ok(true),
                Ok(Ok(Read::End)) => return Ok(false),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    /// What is in the queue is still written.
    pub(crate) async fn end_sending(&self) -> io::Result<()> {
        self.frames.lock().await.take();
        Ok(())
    }

    /// After [`StreamChannel::end_sending`]: returns when everything was written, or can never be.
    pub(crate) async fn written(&self) {
        // A panic of the writer is in the log by now.
        let _ = (&mut *self.writer.lock().await).await;
    }
}

impl Drop for StreamChannel {
    fn drop(&mut self) {
        // What it holds of the connection goes with it.
        self.abort.abort();
    }
}

enum Read {
    Alive,
    Frame,
    End,
}

async fn read(reader: &mut Reader, buffer: &mut Vec<u8>) -> io::Result<Read> {
    let mut length = [0; 4];
    match reader.read_exact(&mut length[..1]).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Read::End),
        Err(error) => return Err(error),
    }
    reader.read_exact(&mut length[1..]).await?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length == 0 {
        return Ok(Read::Alive);
    }
    if length > FRAME_MAX {
        let text = format!("a frame of {length} bytes; {FRAME_MAX} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    // Not made as long as it says before it comes: only a peer of the cluster gets this far, but
    // each connection has a buffer of its own.
    buffer.clear();
    let mut rest = (&mut *reader).take(length as u64);
    while buffer.len() < length {
        if rest.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(Read::Frame)
}

/// Until nobody sends any more, or the other end is gone; then senders find the queue closed.
async fn write(mut writer: WriteHalf<Box<dyn Wire>>, mut frames: mpsc::Receiver<Vec<u8>>) {
    let mut bytes = Vec::new();
    let mut next_alive = Instant::now() + ALIVE_EVERY;
    loop {
        bytes.clear();
        let frame = tokio::select! {
            frame = frames.recv() => frame,
            () = tokio::time::sleep_until(next_alive) => Some(Vec::new()),
        };
        let Some(frame) = frame else {
            let _ = timeout(SILENCE_MAX, writer.shutdown()).await;
            return;
        };
        put(&mut bytes, &frame);
        while bytes.len() < BATCH_BYTES
            && let Ok(frame) = frames.try_recv()
        {
            put(&mut bytes, &frame);
        }
        let written = timeout(SILENCE_MAX, async {
            writer.write_all(&bytes).await?;
            writer.flush().await
        });
        match written.await {
            Ok(Ok(())) => next_alive = Instant::now() + ALIVE_EVERY,
            // The reader sees the same end, and says so.
            Ok(Err(_)) | Err(_) => return,
        }
        bytes.shrink_to(BATCH_BYTES);
    }
}

fn put(bytes: &mut Vec<u8>, frame: &[u8]) {
    let length = u32::try_from(frame.len()).expect("no frame is longer than FRAME_MAX");
    bytes.extend(length.to_be_bytes());
    bytes.extend(frame);
}
