//! Stands in for the agent in tests: keeps PID 1's contract and runs shell commands for who
//! connects. Compiled by the test with `rustc`, static, and never part of the product.
//!
//! Request: a command, ended by closing the writing half. Answer: its output, then a line
//! `exit CODE`.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::FromRawFd;
use std::process::{Command, Stdio};

fn main() {
    let args: Vec<_> = std::env::args().collect();
    assert_eq!(args, ["envd", "init"]);
    let mut config = String::new();
    let listener = unsafe {
        File::from_raw_fd(3).read_to_string(&mut config).expect("the config is readable");
        TcpListener::from_raw_fd(4)
    };
    if config.contains("\"die\"") {
        eprintln!("told to die");
        std::process::exit(7);
    }
    if config.contains("\"hang\"") {
        std::thread::sleep(std::time::Duration::from_secs(3600));
    }
    std::fs::write("/tmp/config", &config).expect("/tmp is writable");
    let mut ready = unsafe { File::from_raw_fd(5) };
    ready.write_all(b"1").expect("somebody waits");
    drop(ready);
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || serve(stream));
    }
}

fn serve(mut stream: TcpStream) {
    let mut text = String::new();
    if stream.read_to_string(&mut text).is_err() {
        return;
    }
    let done = Command::new("/bin/sh").arg("-c").arg(&text).stdin(Stdio::null()).output();
    let answer = match done {
        Ok(done) => {
            let out = String::from_utf8_lossy(&done.stdout).into_owned();
            let err = String::from_utf8_lossy(&done.stderr).into_owned();
            format!("{out}{err}exit {}", done.status.code().unwrap_or(-1))
        }
        Err(error) => format!("{error}\nexit -2"),
    };
    let _ = stream.write_all(answer.as_bytes());
    let _ = stream.shutdown(Shutdown::Both);
}
