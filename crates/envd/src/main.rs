//! The agent's command line: `envd init`, `envd serve`, `envd -version`.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;

use envd::args::{Args, parse};
use envd::config::{Config, ConfigError};
use envd::server::{ServeError, Start, serve};
use envd::{VERSION, init};

#[derive(Debug, thiserror::Error)]
enum MainError {
    #[error("{0}")]
    Init(#[from] init::InitError),
    #[error("listen on port {port}")]
    Listen { port: u16, source: io::Error },
    #[error("open {path}")]
    Open { path: String, source: io::Error },
    #[error("configuration")]
    Config(#[source] ConfigError),
    #[error("serve")]
    Serve(#[source] ServeError),
}

fn main() -> ExitCode {
    let done = match parse(std::env::args().skip(1)) {
        Ok(Args::Init) => init::run().map_err(MainError::Init),
        Ok(Args::Version) => {
            println!("{VERSION}");
            Ok(())
        }
        Ok(Args::Commit) => {
            println!("{}", option_env!("CASEMATE_COMMIT").unwrap_or("unknown"));
            Ok(())
        }
        Ok(Args::Serve {
            port,
            config,
            in_sandbox,
        }) => server(port, config, in_sandbox),
        Err(wrong) => {
            eprintln!("envd: {wrong}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("envd: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn server(port: u16, config: Option<String>, in_sandbox: bool) -> Result<(), MainError> {
    init::prepare("envd");
    let config = match config.as_deref() {
        None => None,
        Some("-") => Some(Config::read(io::stdin()).map_err(MainError::Config)?),
        Some(path) => {
            let file = File::open(path).map_err(|source| MainError::Open {
                path: path.to_owned(),
                source,
            })?;
            Some(Config::read(file).map_err(MainError::Config)?)
        }
    };
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        .map_err(|source| MainError::Listen { port, source })?;
    let address = listener
        .local_addr()
        .map_err(|source| MainError::Listen { port, source })?;
    envd::raise_descriptor_limit();
    let facts = config.clone();
    let ready = Box::new(move || {
        if let Some(config) = facts {
            init::write_facts(&config, in_sandbox);
        }
        eprintln!("envd {VERSION} on {address}");
    });
    match serve(Start {
        listener,
        config,
        in_sandbox,
        disk: None,
        log: None,
        is_first: true,
        startup: None,
        variables: None,
        ready,
    }) {
        Ok(never) => match never {},
        Err(error) => Err(MainError::Serve(error)),
    }
}

/// An error and all that caused it, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
