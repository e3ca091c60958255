//! Our own standard input, piece by piece, for a process somewhere else.

use std::io::{ErrorKind, Read};
use std::thread;

use bytes::Bytes;
use tokio::sync::mpsc;

/// What one read may bring.
const PIECE_BYTES: usize = 32 << 10;

/// Pieces that may wait for the network. At the limit nothing more is read.
const PIECES_MAX: usize = 8;

/// Reads until the end; the receiver then ends as well.
///
/// On a thread of its own, and not one of the runtime's: a read of standard input cannot be given
/// up, and the program must be able to end beside one that nobody answers.
pub fn read() -> std::io::Result<mpsc::Receiver<Bytes>> {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || {
            let mut stdin = std::io::stdin().lock();
            let mut buffer = vec![0; PIECE_BYTES];
            loop {
                match stdin.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(length) => {
                        if sender
                            .blocking_send(Bytes::copy_from_slice(&buffer[..length]))
                            .is_err()
                        {
                            break;
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // A terminal that went away: for the process over there its input has ended.
                    Err(_) => break,
                }
            }
        })?;
    Ok(receiver)
}
