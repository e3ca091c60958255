//! Whose, where and with which variables the commands of a template run.

use std::io;

use envd_wire::process::{ProcessConfig, StartRequest};

use crate::config;
use crate::paths::expand;
use crate::process::environment::DEFAULT_PATH;
use crate::users::User;

/// An account and a folder that are there.
pub struct Context {
    pub user: User,
    cwd: String,
    envs: Vec<(String, String)>,
}

impl Context {
    /// An error is in words for whoever built the template.
    pub fn find(wanted: &config::Context) -> Result<Self, String> {
        let name = &wanted.user;
        let user = User::by_name(name).ok_or_else(|| format!("user '{name}' does not exist"))?;
        let workdir = wanted.workdir.as_deref().unwrap_or_default();
        let cwd = expand(workdir, &user, None).map_err(|denied| denied.to_string())?;
        if std::fs::metadata(&cwd).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Err(format!("cwd '{cwd}' does not exist"));
        }
        let envs = wanted.envs.iter().map(|(name, value)| {
            let value = match name.as_str() {
                // An image may name only its own folders.
                "PATH" => format!("{value}:{DEFAULT_PATH}"),
                _ => value.clone(),
            };
            (name.clone(), value)
        });
        Ok(Self {
            envs: envs.collect(),
            user,
            cwd,
        })
    }

    /// As builds run all commands: by a login shell, without input.
    pub fn request(&self, command: &str) -> StartRequest {
        let config = ProcessConfig {
            cmd: "/bin/bash".to_owned(),
            args: ["-l", "-c", command].map(str::to_owned).into(),
            envs: self.envs.iter().cloned().collect(),
            cwd: Some(self.cwd.clone()),
        };
        StartRequest {
            process: config.into(),
            stdin: Some(false),
            ..Default::default()
        }
    }
}
