//! What the bare kernel needs: the floor under each figure.
//!
//! Runs as a process of its own with one thread (`casemate internal bench-floor`), because only
//! such a process may fork without exec. It serves one line at a time on its standard streams: a
//! word in, a line of JSON out. So a floor is measured between two samples of the platform, under
//! the same load. It leaves nothing behind: its only mounts are in its own mount namespace.

mod sandbox;
mod still;

use std::ffi::CString;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use casemate_linux::clone::SingleThreaded;
use serde::{Deserialize, Serialize};

use super::error::BenchError;
use sandbox::Ground;

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    /// Namespaces, an overlay, exec of `/bin/true`, its end.
    Sandbox,
    /// The same with what the SDKs run: `bash -l -c true`.
    SandboxShell,
    /// This many of the first kind, all at once.
    Together(u16),
    /// fork, exec of `/bin/true`, wait; no namespaces.
    Spawn,
    /// Three processes, from the order to their control group until all stand still.
    Freeze,
    /// The same three, let go on.
    Thaw,
    /// This many at once, with our agent in them until it serves, then `/bin/true`, then their end.
    Agents(u16),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Microseconds(u64),
    Failed(String),
}

/// Serves until standard input ends. Must be called in a process that has started no thread.
pub fn serve(agent: Option<&Path>) -> Result<(), BenchError> {
    let floor = |action| move |source| BenchError::Floor { action, source };
    let proof = SingleThreaded::prove().map_err(floor("be a process of one thread"))?;
    let mut ground = Ground::prepare().map_err(floor("prepare a mount namespace"))?;
    for line in io::stdin().lock().lines() {
        let line = line.map_err(floor("read a request"))?;
        let answer = match serde_json::from_str(&line) {
            Ok(request) => answer(&proof, &mut ground, agent, request),
            Err(error) => Answer::Failed(error.to_string()),
        };
        let mut out = serde_json::to_vec(&answer).expect("an answer is plain data");
        out.push(b'\n');
        io::stdout()
            .lock()
            .write_all(&out)
            .map_err(floor("answer"))?;
    }
    Ok(())
}

fn answer(
    proof: &SingleThreaded,
    ground: &mut Ground,
    agent: Option<&Path>,
    request: Request,
) -> Answer {
    let measured = match request {
        Request::Sandbox => ground.run(proof, 1, &program(&["/bin/true"])),
        Request::SandboxShell => ground.run(proof, 1, &program(&["/bin/bash", "-l", "-c", "true"])),
        Request::Together(count) => ground.run(proof, count, &program(&["/bin/true"])),
        Request::Spawn => spawn(),
        Request::Freeze => still::freeze_and_thaw().map(|(freeze, _)| freeze),
        Request::Thaw => still::freeze_and_thaw().map(|(_, thaw)| thaw),
        Request::Agents(count) => match agent {
            Some(agent) => ground.run_agents(proof, count, agent, spawn),
            None => Err(io::Error::other("this floor needs the agent's binary")),
        },
    };
    match measured {
        Ok(took) => Answer::Microseconds(u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
        Err(error) => Answer::Failed(error.to_string()),
    }
}

fn program(words: &[&str]) -> Vec<CString> {
    words
        .iter()
        .map(|word| CString::new(*word).expect("our own words have no zero byte"))
        .collect()
}

fn spawn() -> io::Result<Duration> {
    let mut command = Command::new("/bin/true");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let begun = Instant::now();
    let status = command.status()?;
    let took = begun.elapsed();
    if status.success() {
        Ok(took)
    } else {
        Err(io::Error::other(status.to_string()))
    }
}
