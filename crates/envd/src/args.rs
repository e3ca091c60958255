//! The command line, in Go's style: `-x` and `--x` are the same.

use crate::PORT;

/// What to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Args {
    Init,
    Version,
    Commit,
    Serve {
        port: u16,
        /// A file, or `-` for standard input.
        config: Option<String>,
        in_sandbox: bool,
    },
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    #[error(
        "unknown argument '{0}'; known are: init, serve, -port N, -config FILE, -isnotfc, -cgroup-root PATH, -no-cgroups, -verbose, -version, -commit"
    )]
    Unknown(String),
    #[error("flag -{0} needs a value")]
    NoValue(&'static str),
    #[error("invalid port '{0}'")]
    Port(String),
    #[error("live upgrades are not available in this agent")]
    Handover,
}

/// Without a command it serves, as upstream does.
pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Args, ArgsError> {
    let mut arguments = arguments.peekable();
    match arguments.peek().map(String::as_str) {
        Some("init") => {
            arguments.next();
            return match arguments.next() {
                None => Ok(Args::Init),
                Some(other) => Err(ArgsError::Unknown(other)),
            };
        }
        Some("serve") => drop(arguments.next()),
        _ => {}
    }
    let (mut port, mut config, mut in_sandbox) = (PORT, None, true);
    while let Some(argument) = arguments.next() {
        let unknown = || ArgsError::Unknown(argument.clone());
        let flag = argument
            .strip_prefix("--")
            .or_else(|| argument.strip_prefix('-'));
        let flag = flag.ok_or_else(unknown)?;
        let (name, inline) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        let mut value = |name| {
            inline
                .clone()
                .or_else(|| arguments.next())
                .ok_or(ArgsError::NoValue(name))
        };
        match name {
            "port" => {
                let text = value("port")?;
                port = text.parse().map_err(|_| ArgsError::Port(text))?;
            }
            "config" => config = Some(value("config")?),
            "isnotfc" => in_sandbox = inline.as_deref() == Some("false"),
            // No cgroups are managed here, and there are no logs to show.
            "cgroup-root" => drop(value("cgroup-root")?),
            "no-cgroups" | "verbose" => {}
            "version" => return Ok(Args::Version),
            "commit" => return Ok(Args::Commit),
            "resume-handover" => return Err(ArgsError::Handover),
            _ => return Err(unknown()),
        }
    }
    Ok(Args::Serve {
        port,
        config,
        in_sandbox,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Result<Args, ArgsError>) {
        assert_eq!(
            parse(line.split_whitespace().map(str::to_owned)),
            expected,
            "{line}"
        );
    }

    fn serve(port: u16, config: Option<&str>, in_sandbox: bool) -> Result<Args, ArgsError> {
        Ok(Args::Serve {
            port,
            config: config.map(str::to_owned),
            in_sandbox,
        })
    }

    #[test]
    fn lines() {
        check("", serve(49_983, None, true));
        check("init", Ok(Args::Init));
        check("init now", Err(ArgsError::Unknown("now".to_owned())));
        check("-version", Ok(Args::Version));
        check("--commit", Ok(Args::Commit));
        check(
            "serve --port 0 --config - -isnotfc",
            serve(0, Some("-"), false),
        );
        check(
            "-port=7 -verbose -no-cgroups -cgroup-root /x",
            serve(7, None, true),
        );
        check("-isnotfc=false", serve(49_983, None, true));
        check("-port", Err(ArgsError::NoValue("port")));
        check("-port x", Err(ArgsError::Port("x".to_owned())));
        check("-cmd x", Err(ArgsError::Unknown("-cmd".to_owned())));
        check("-resume-handover", Err(ArgsError::Handover));
    }
}
