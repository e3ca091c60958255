//! An image's layer on its way into a sandbox: read by a thread of its own, because unpacking blocks.

use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use casemate_images::{ImageError, LayerReader};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{mpsc, oneshot};

const PIECE: usize = 128 * 1024;
/// Pieces that wait for whoever takes them.
const WAITING: usize = 8;

/// What a thread reads.
pub(super) struct Body {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    now: Bytes,
}

/// Says whether the layer was what its image says, to its end; whoever sends it must ask.
pub(super) type Verdict = oneshot::Receiver<Result<(), ImageError>>;

pub(super) fn of_layer(reader: LayerReader) -> (Body, Verdict) {
    let (sender, pieces) = mpsc::channel(WAITING);
    let (verdict, asked) = oneshot::channel();
    tokio::task::spawn_blocking(move || read(reader, &sender, verdict));
    let body = Body {
        pieces,
        now: Bytes::new(),
    };
    (body, asked)
}

fn read(
    mut reader: LayerReader,
    pieces: &mpsc::Sender<io::Result<Bytes>>,
    verdict: oneshot::Sender<Result<(), ImageError>>,
) {
    let mut piece = vec![0; PIECE];
    loop {
        match reader.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => {
                let sent = pieces.blocking_send(Ok(Bytes::copy_from_slice(&piece[..count])));
                if sent.is_err() {
                    break;
                }
            }
            Err(error) => {
                let cut = io::Error::other("the layer cannot be read to its end");
                match ImageError::from_io(error) {
                    // Told first: whoever sends asks once the content has failed.
                    Ok(error) => drop(verdict.send(Err(error))),
                    Err(_) => drop(verdict),
                }
                let _ = pieces.blocking_send(Err(cut));
                return;
            }
        }
    }
    // Behind the archive's end there may be more that belongs to the digest.
    if !verdict.is_closed() {
        let _ = verdict.send(reader.finish().map(drop));
    }
}

impl AsyncRead for Body {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.now.is_empty() {
            match ready!(self.pieces.poll_recv(context)) {
                Some(piece) => self.now = piece?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = self.now.len().min(into.remaining());
        into.put_slice(&self.now[..count]);
        self.now.advance(count);
        Poll::Ready(Ok(()))
    }
}
