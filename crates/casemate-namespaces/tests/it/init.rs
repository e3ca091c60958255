//! Stands in for the agent in tests: keeps PID 1's contract and runs shell commands for who
//! connects. Compiled by the test with `rustc`, static, and never part of the product.
//!
//! Request: a command, ended by closing the writing half. Answer: its output, then a line
//! `exit CODE`. As `attack NAME` it tries one system call and says its error number.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::FromRawFd;
use std::process::{Command, Stdio};

fn main() {
    let args: Vec<_> = std::env::args().collect();
    if args.get(1).is_some_and(|word| word == "attack") {
        println!("{}", attack(&args[2]));
        return;
    }
    if args.get(1).is_some_and(|word| word == "eat") {
        let mut eaten = Vec::new();
        for _ in 0..args[2].parse().expect("a number of MiB") {
            eaten.push(vec![1_u8; 1 << 20]);
        }
        println!("ate {} MiB", eaten.len());
        if let Some(told) = args.get(3) {
            File::create(told).expect("it is told");
            std::thread::sleep(std::time::Duration::from_secs(3600));
        }
        return;
    }
    if args.get(1).is_some_and(|word| word == "terminals") {
        let mut open = Vec::new();
        let error = loop {
            match File::options().read(true).write(true).open("/dev/ptmx") {
                Ok(terminal) => open.push(terminal),
                Err(error) => break error.raw_os_error().unwrap_or(0),
            }
        };
        println!("{}, then error {error}", open.len());
        if args.len() > 2 {
            std::thread::sleep(std::time::Duration::from_secs(3600));
        }
        return;
    }
    if args.get(1).is_some_and(|word| word == "map") {
        map(&args[2]);
        std::thread::sleep(std::time::Duration::from_secs(3600));
        return;
    }
    if args.get(1).is_some_and(|word| word == "grant") {
        grant(&args[2]);
        return;
    }
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

unsafe extern "C" {
    fn syscall(number: i64, ...) -> i64;
}

/// Writes to a file by a mapping of it, which stays.
fn map(path: &str) {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
    let file = file.expect("it opens");
    file.set_len(4096).expect("it grows");
    let text = b"mapped\n";
    unsafe {
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        let place = syscall(9, 0, 4096, 3, 1, fd, 0) as *mut u8;
        std::ptr::copy_nonoverlapping(text.as_ptr(), place, text.len());
    }
}

/// Gives a program a capability (`cap_net_raw+ep`), as `setcap` does.
fn grant(path: &str) {
    let capability = [1_u8, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let path = std::ffi::CString::new(path).expect("a path");
    let name = c"security.capability".as_ptr();
    let set = unsafe { syscall(188, path.as_ptr(), name, capability.as_ptr(), capability.len(), 0) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// The error number of one forbidden thing; 0 when it went through.
fn attack(name: &str) -> i32 {
    let nothing = std::ptr::null::<u8>();
    let path = c"/".as_ptr();
    let attributes = [0_u64; 16];
    let answer = unsafe {
        match name {
            "vsock" => syscall(41, 40, 1, 0),
            "packet" => syscall(41, 17, 3, 0),
            "alg" => syscall(41, 38, 5, 0),
            "netfilter" => syscall(41, 16, 3, 12),
            "route" => syscall(41, 16, 3, 0),
            "tcp6" => syscall(41, 10, 1, 0),
            "socketpair-tipc" => syscall(53, 30, 1, 0, attributes.as_ptr()),
            "raw" => syscall(41, 2, 3, 1),
            "ping" => syscall(41, 2, 2, 1),
            "mount" => syscall(165, c"none".as_ptr(), path, c"tmpfs".as_ptr(), 0, nothing),
            "umount" => syscall(166, c"/proc/cmdline".as_ptr(), 2),
            "fsopen" => syscall(430, c"tmpfs".as_ptr(), 0),
            "open-tree" => syscall(428, -100, path, 1),
            "unshare-user" => syscall(272, 0x1000_0000),
            "unshare-mount" => syscall(272, 0x2_0000),
            "clone-user" => syscall(56, 0x1000_0000 | 17, 0, 0, 0, 0),
            "clone3" => syscall(435, attributes.as_ptr(), 88),
            "setns" => syscall(308, 0, 0),
            "io-uring" => syscall(425, 1, attributes.as_ptr()),
            "bpf" => syscall(321, 0, attributes.as_ptr(), 0),
            "perf" => syscall(298, attributes.as_ptr(), 0, -1, -1, 0),
            "keyctl" => syscall(250, 0, -3, 0),
            "add-key" => syscall(248, c"user".as_ptr(), c"a".as_ptr(), c"b".as_ptr(), 1, -3),
            "handle" => syscall(304, -100, nothing, 0),
            "userfaultfd" => syscall(323, 1),
            "tiocsti" => syscall(16, 0, 0x5412, c"x".as_ptr()),
            "tiocsti-high" => syscall(16, 0, 0xffff_ffff_0000_5412_u64, c"x".as_ptr()),
            "syslog" => syscall(103, 3, nothing, 0),
            "reboot" => syscall(169, 0, 0, 0, nothing),
            "mknod" => syscall(133, c"/tmp/disk".as_ptr(), 0o060_666, 0x0801),
            "x32" => syscall(0x4000_0000 | 39),
            "personality-query" => syscall(135, 0xffff_ffff_u64),
            "getpid" => syscall(39),
            _ => panic!("no such attack"),
        }
    };
    if name == "clone-user" && answer == 0 {
        std::process::exit(0);
    }
    if answer >= 0 { 0 } else { std::io::Error::last_os_error().raw_os_error().unwrap_or(-1) }
}
