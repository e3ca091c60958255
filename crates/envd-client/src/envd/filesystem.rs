//! Files and folders of a sandbox, by name: look, list, make, move, remove, watch.

use envd_wire::filesystem::{
    CreateWatcherRequest, CreateWatcherResponse, EntryInfo, FilesystemEvent,
    GetWatcherEventsRequest, GetWatcherEventsResponse, ListDirRequest, ListDirResponse,
    MakeDirRequest, MakeDirResponse, MoveRequest, MoveResponse, RemoveRequest, RemoveResponse,
    RemoveWatcherRequest, RemoveWatcherResponse, StatRequest, StatResponse, WatchDirRequest,
    WatchDirResponse, watch_dir_response,
};

use super::{Envd, MessageStream};
use crate::error::EnvdError;

/// What to watch, and how much to be told.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    pub path: String,
    pub recursive: bool,
    /// Also say what the changed file is now.
    pub include_entry: bool,
    pub allow_network_mounts: bool,
}

impl Envd {
    pub async fn filesystem_stat(&self, path: &str) -> Result<EntryInfo, EnvdError> {
        let request = StatRequest {
            path: path.to_owned(),
        };
        let answer: StatResponse = self.unary("/filesystem.Filesystem/Stat", &request).await?;
        answer.entry.ok_or(without_entry("Stat"))
    }

    /// Everything in a folder, down to `depth` (1: the folder's own entries).
    pub async fn filesystem_list(
        &self,
        path: &str,
        depth: u32,
    ) -> Result<Vec<EntryInfo>, EnvdError> {
        let request = ListDirRequest {
            path: path.to_owned(),
            depth,
        };
        let answer: ListDirResponse = self
            .unary("/filesystem.Filesystem/ListDir", &request)
            .await?;
        Ok(answer.entries)
    }

    /// Makes a folder and those above it.
    pub async fn filesystem_make_dir(&self, path: &str) -> Result<EntryInfo, EnvdError> {
        let request = MakeDirRequest {
            path: path.to_owned(),
        };
        let answer: MakeDirResponse = self
            .unary("/filesystem.Filesystem/MakeDir", &request)
            .await?;
        answer.entry.ok_or(without_entry("MakeDir"))
    }

    pub async fn filesystem_move(
        &self,
        source: &str,
        destination: &str,
    ) -> Result<EntryInfo, EnvdError> {
        let request = MoveRequest {
            source: source.to_owned(),
            destination: destination.to_owned(),
        };
        let answer: MoveResponse = self.unary("/filesystem.Filesystem/Move", &request).await?;
        answer.entry.ok_or(without_entry("Move"))
    }

    /// Removes a file, or a folder with all that is in it.
    pub async fn filesystem_remove(&self, path: &str) -> Result<(), EnvdError> {
        let request = RemoveRequest {
            path: path.to_owned(),
        };
        let RemoveResponse {} = self
            .unary("/filesystem.Filesystem/Remove", &request)
            .await?;
        Ok(())
    }

    /// Follows what changes in a folder until the stream is dropped. When this answers, the watch
    /// stands: every later change is seen.
    pub async fn filesystem_watch(&self, watch: Watch) -> Result<Changes, EnvdError> {
        let request = WatchDirRequest {
            path: watch.path,
            recursive: watch.recursive,
            include_entry: watch.include_entry,
            allow_network_mounts: watch.allow_network_mounts,
        };
        let mut stream = self
            .server_stream::<_, WatchDirResponse>("/filesystem.Filesystem/WatchDir", &request, None)
            .await?;
        match stream.next().await?.and_then(|message| message.event) {
            Some(watch_dir_response::Event::Start(_)) => Ok(Changes { stream }),
            _ => Err(EnvdError::Stream {
                method: "WatchDir",
                fault: "it did not begin with its start",
            }),
        }
    }

    /// Begins a watch that is asked for its events, and answers its name.
    pub async fn watcher_create(&self, watch: Watch) -> Result<String, EnvdError> {
        let request = CreateWatcherRequest {
            path: watch.path,
            recursive: watch.recursive,
            include_entry: watch.include_entry,
            allow_network_mounts: watch.allow_network_mounts,
        };
        let answer: CreateWatcherResponse = self
            .unary("/filesystem.Filesystem/CreateWatcher", &request)
            .await?;
        Ok(answer.watcher_id)
    }

    /// What happened since the last time that this was asked.
    pub async fn watcher_events(
        &self,
        watcher_id: &str,
    ) -> Result<Vec<FilesystemEvent>, EnvdError> {
        let request = GetWatcherEventsRequest {
            watcher_id: watcher_id.to_owned(),
        };
        let answer: GetWatcherEventsResponse = self
            .unary("/filesystem.Filesystem/GetWatcherEvents", &request)
            .await?;
        Ok(answer.events)
    }

    pub async fn watcher_remove(&self, watcher_id: &str) -> Result<(), EnvdError> {
        let request = RemoveWatcherRequest {
            watcher_id: watcher_id.to_owned(),
        };
        let RemoveWatcherResponse {} = self
            .unary("/filesystem.Filesystem/RemoveWatcher", &request)
            .await?;
        Ok(())
    }
}

/// What changes in a watched folder.
#[derive(Debug)]
pub struct Changes {
    stream: MessageStream<WatchDirResponse>,
}

impl Changes {
    /// The next change; `None` when the agent ended the watch.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Result<Option<FilesystemEvent>, EnvdError> {
        while let Some(message) = self.stream.next().await? {
            if let Some(watch_dir_response::Event::Filesystem(event)) = message.event {
                return Ok(Some(*event));
            }
        }
        Ok(None)
    }
}

const fn without_entry(method: &'static str) -> EnvdError {
    EnvdError::Stream {
        method,
        fault: "it answered without an entry",
    }
}
