//! Kept files and sealed layers on their way to other machines, and from them.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use casemate_runtime::CarryError;
use casemate_types::Portable;

use super::Shared;

/// How long the other end may keep silent, or take nothing.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn pack(
    shared: &Arc<Shared>,
    what: &Portable,
    to: UnixStream,
) -> Result<(), CarryError> {
    let (pool, named) = (Arc::clone(&shared.pool), what.clone());
    blocking("pack what is kept", what, to, move |to| match named {
        Portable::Snapshot(snapshot) => pool.pack_kept(&snapshot, to),
        Portable::Layer(layer) => pool.pack_sealed(&layer, to),
    })
    .await
}

pub(super) async fn unpack(
    shared: &Arc<Shared>,
    what: &Portable,
    from: UnixStream,
) -> Result<u64, CarryError> {
    let (pool, named) = (Arc::clone(&shared.pool), what.clone());
    blocking("unpack what comes", what, from, move |from| match named {
        Portable::Snapshot(snapshot) => pool.unpack_kept(&snapshot, from),
        Portable::Layer(layer) => pool.unpack_sealed(&layer, from),
    })
    .await
}

async fn blocking<T: Send + 'static>(
    step: &'static str,
    what: &Portable,
    stream: UnixStream,
    work: impl FnOnce(&mut Watched) -> io::Result<T> + Send + 'static,
) -> Result<T, CarryError> {
    let done = tokio::task::spawn_blocking(move || {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut watched = Watched {
            stream,
            broke: Cell::new(false),
        };
        let done = work(&mut watched);
        Ok((done, watched.broke.get()))
    });
    let (done, broke) = match done.await {
        Ok(Ok(done)) => done,
        Ok(Err(source)) => (Err(source), false),
        Err(abandoned) => (Err(io::Error::other(abandoned)), false),
    };
    done.map_err(|source| {
        let what = what.clone();
        match source.kind() {
            _ if broke => CarryError::Stream { what, source },
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                CarryError::Stream { what, source }
            }
            io::ErrorKind::NotFound => CarryError::NotHere(what),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => CarryError::Capacity(what),
            _ => CarryError::Step {
                step,
                source: source.into(),
            },
        }
    })
}

/// A stream that remembers whether an error was its own.
struct Watched {
    stream: UnixStream,
    broke: Cell<bool>,
}

impl Watched {
    fn note<T>(&self, done: io::Result<T>) -> io::Result<T> {
        done.inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                self.broke.set(true);
            }
        })
    }
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer);
        self.note(read)
    }
}

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.stream.write(bytes);
        self.note(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
