//! Steps of a recipe (`templates.md` 3.1, 4.4).

mod copy;

use casemate_types::BuildContext;
use casemate_types::limits::ENV_BYTES_MAX;

use super::log::{Level, Phase};
use super::sandbox::{BuildSandbox, COMMAND_LIMIT, Ran, Script};
use super::value::VALUE_BYTES_MAX;
use super::{BuildError, Uploads, shell};
use crate::recipe::Step;

/// A step whose arguments are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Run {
        command: String,
        user: Option<String>,
    },
    Env(Vec<(String, String)>),
    Workdir(String),
    User {
        name: String,
        is_admin: bool,
    },
    Copy(Copy),
}

/// What is copied, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) files: String,
    pub(super) source: String,
    pub(super) target: String,
    pub(super) owner: Option<String>,
    pub(super) mode: Option<String>,
}

/// What a step left.
pub(super) enum Left {
    /// Only the context is another one.
    Context(BuildContext),
    /// Files may be others, too.
    Files(BuildContext),
}

impl Action {
    /// The texts are E2B's.
    pub(super) fn of(step: &Step) -> Result<Self, String> {
        let arg = |n: usize| step.args.get(n).filter(|arg| !arg.is_empty()).cloned();
        match step.kind.to_ascii_uppercase().as_str() {
            "RUN" => Ok(Self::Run {
                command: arg(0).ok_or("RUN requires command argument")?,
                user: at_most(arg(1), USER_BYTES_MAX, "RUN: the user's name")?,
            }),
            "ENV" | "ARG" => {
                let (pairs, rest) = step.args.as_chunks::<2>();
                if step.args.is_empty() {
                    return Err("ENV does not support passing no arguments".into());
                }
                if !rest.is_empty() {
                    return Err("ENV requires both a key and value arguments".into());
                }
                let pairs = pairs.iter().map(|[name, value]| {
                    variable(name)?;
                    Ok((name.clone(), value.clone()))
                });
                pairs.collect::<Result<_, String>>().map(Self::Env)
            }
            "WORKDIR" => Ok(Self::Workdir(
                arg(0).ok_or("WORKDIR requires a path argument")?,
            )),
            "USER" => Ok(Self::User {
                name: arg(0).ok_or("USER requires a username argument")?,
                is_admin: step.args.get(1).is_some_and(|arg| arg == "true"),
            }),
            "COPY" | "ADD" => {
                // They travel in the first line of a request.
                let path = |n, what| at_most(arg(n), PATH_BYTES_MAX, what);
                let both = (path(0, "COPY: the source")?, path(1, "COPY: the target")?);
                let (Some(source), Some(target)) = both else {
                    let why = "COPY requires a local path and a container path argument";
                    return Err(why.into());
                };
                let files = step.files_hash.clone();
                Ok(Self::Copy(Copy {
                    files: files.ok_or("COPY requires files hash to be set")?,
                    source,
                    target,
                    owner: at_most(arg(2), OWNER_BYTES_MAX, "COPY: the owner")?,
                    mode: at_most(arg(3), MODE_BYTES_MAX, "COPY: the mode")?,
                }))
            }
            other => Err(format!("command type {other} is not implemented")),
        }
    }
}

impl Action {
    /// The context behind it, where nothing has to be run for that.
    pub(super) fn literal(&self, context: &BuildContext) -> Option<BuildContext> {
        let Self::Env(pairs) = self else {
            return None;
        };
        let is_plain = |(name, value): &(String, String)| {
            !shell::has_variables(value)
                && !value.contains('\0')
                && name.len() + value.len() <= VALUE_BYTES_MAX - 2
        };
        let mut context = context.clone();
        context.envs.extend(pairs.iter().cloned());
        // What is too much is refused where it can be said.
        let fits = pairs.iter().all(is_plain) && bytes_of(&context) <= ENV_BYTES_MAX;
        fits.then_some(context)
    }
}

/// An argument that is short enough for what it is.
fn at_most(arg: Option<String>, bytes_max: usize, what: &str) -> Result<Option<String>, String> {
    match arg {
        Some(arg) if arg.len() > bytes_max => {
            let bytes = arg.len();
            Err(format!(
                "{what} has {bytes} bytes, and can have {bytes_max}"
            ))
        }
        arg => Ok(arg),
    }
}

/// A name that `execve` and shells can carry.
fn variable(name: &str) -> Result<(), String> {
    let fits = !name.is_empty() && !name.contains(['=', '\0']);
    match fits {
        true => Ok(()),
        false => Err(format!(
            "'{}' cannot be the name of a variable",
            name.escape_debug()
        )),
    }
}

/// A step where it is carried out.
pub(super) struct Bench<'a> {
    pub(super) sandbox: &'a BuildSandbox,
    pub(super) context: &'a BuildContext,
    pub(super) phase: &'a Phase,
    pub(super) uploads: &'a dyn Uploads,
    pub(super) team: &'a casemate_types::TeamId,
}

impl Bench<'_> {
    pub(super) async fn carry_out(&self, action: &Action) -> Result<Left, BuildError> {
        match action {
            Action::Run { command, user } => self.command(command, user.as_deref()).await,
            Action::Env(pairs) => self.env(pairs).await,
            Action::Workdir(path) => self.workdir(path).await,
            Action::User { name, is_admin } => self.user(name, *is_admin).await,
            Action::Copy(copy) => self.copy(copy).await,
        }
    }

    fn failed(&self, message: impl Into<String>) -> BuildError {
        BuildError::recipe(self.phase.step(), message)
    }

    async fn command(&self, command: &str, user: Option<&str>) -> Result<Left, BuildError> {
        let run = Script {
            script: command,
            context: self.context,
            user,
            phase: self.phase,
            limit: COMMAND_LIMIT,
        };
        let ran = self
            .sandbox
            .run(run)
            .await
            .map_err(|error| self.refused(error))?;
        if ran.is_ok() {
            return Ok(Left::Files(self.context.clone()));
        }
        self.show_tail(&ran);
        let status = ran.status();
        Err(self.failed(format!("failed to run command '{command}': {status}")))
    }

    /// What the agent says of a user or a folder that is not there is the recipe's fault.
    fn refused(&self, error: BuildError) -> BuildError {
        match crate::builder::refused(&error) {
            Some(message) => self.failed(message),
            None => match error {
                BuildError::TooLong => self.failed(error.to_string()),
                error => error,
            },
        }
    }

    /// What a script prints; `failing` is what could not be done where it fails.
    async fn value(
        &self,
        script: &str,
        context: &BuildContext,
        failing: &str,
    ) -> Result<String, BuildError> {
        let failed = |why: String| self.failed(format!("{failing}: {why}"));
        match self.sandbox.value(script, context, self.phase).await {
            Ok(Ok(Some(value))) => Ok(value),
            Ok(Ok(None)) => Err(failed(NO_VALUE.into())),
            Ok(Err(ran)) => Err(failed(said(&ran))),
            Err(error @ BuildError::TooLong) => Err(failed(error.to_string())),
            Err(error) => Err(match super::refused(&error) {
                Some(why) => failed(why),
                None => error,
            }),
        }
    }

    /// What came last, for whoever reads no more than the failure.
    fn show_tail(&self, ran: &Ran) {
        let tail = ran.tail.lines(20);
        if !tail.is_empty() {
            self.phase
                .say(Level::Error, format_args!("the last output was:\n{tail}"));
        }
    }

    async fn env(&self, pairs: &[(String, String)]) -> Result<Left, BuildError> {
        let mut context = self.context.clone();
        for (name, value) in pairs {
            let value = match shell::has_variables(value) {
                false => value.clone(),
                true => {
                    let script = format!("printf %s {}", shell::expanded(value));
                    let failing = format!("failed to evaluate environment variable {name}");
                    self.value(&script, &context, &failing).await?
                }
            };
            if name.len() + value.len() > VALUE_BYTES_MAX - 2 || value.contains('\0') {
                let why = "it is longer than a variable can be, or holds a zero byte";
                let message = format!("failed to evaluate environment variable {name}: {why}");
                return Err(self.failed(message));
            }
            context.envs.insert(name.clone(), value);
        }
        if bytes_of(&context) > ENV_BYTES_MAX {
            let message = format!("all variables together have more than {ENV_BYTES_MAX} bytes");
            return Err(self.failed(message));
        }
        Ok(Left::Context(context))
    }

    /// Makes what is missing as root and gives that to the user.
    async fn workdir(&self, path: &str) -> Result<Left, BuildError> {
        let base = self.context.workdir.as_deref().unwrap_or("/");
        let script = format!(
            "target={target}\n\
             case $target in /*) ;; *) target={base}/$target ;; esac\n\
             made= at=$target\n\
             while [ ! -e \"$at\" ] && [ ! -L \"$at\" ]; do made=$at; at=$(dirname -- \"$at\"); done\n\
             mkdir -p -- \"$target\" || exit 1\n\
             [ -z \"$made\" ] || chown -R -- {user}: \"$made\" || exit 1\n\
             cd -- \"$target\" && pwd",
            target = shell::expanded(path),
            base = shell::word(base),
            user = shell::word(&self.context.user),
        );
        let made = self
            .value(&script, self.context, "failed to create workdir")
            .await?;
        let workdir = made.trim_end_matches('\n').to_owned();
        let is_path = workdir.starts_with('/') && !workdir.contains(['\n', '\0']);
        if !is_path || workdir.len() > PATH_BYTES_MAX {
            let why = format!(
                "error getting absolute path of workdir: '{}' is none",
                workdir.chars().take(100).collect::<String>().escape_debug()
            );
            return Err(self.failed(why));
        }
        Ok(Left::Files(BuildContext {
            workdir: Some(workdir),
            ..self.context.clone()
        }))
    }

    /// Makes a user that is missing, and the home that one of an image lacks: commands without a
    /// folder run there. `/nonexistent` is Debian's name for none.
    async fn user(&self, name: &str, is_admin: bool) -> Result<Left, BuildError> {
        let script = format!(
            "name={name}\n\
             id -u -- \"$name\" >/dev/null 2>&1 || \
             useradd --create-home --shell /bin/bash -- \"$name\" >&2 || exit 1\n\
             home=$(getent passwd -- \"$(id -un -- \"$name\")\" | cut -d: -f6)\n\
             case $home in\n\
             /nonexistent | /nonexistent/*) ;;\n\
             /*) [ -e \"$home\" ] || {{ mkdir -p -- \"$home\" && chown -- \"$name\": \"$home\"; }} || exit 1 ;;\n\
             esac\n\
             id -un -- \"$name\"",
            name = shell::expanded(name),
        );
        let made = self
            .value(&script, self.context, "failed to create user")
            .await?;
        let user = made.trim_end().to_owned();
        if !is_user(&user) {
            let why = "failed to create user: its name cannot be used";
            return Err(self.failed(why));
        }
        if is_admin {
            self.administrator(&user).await?;
        }
        Ok(Left::Files(BuildContext {
            user,
            ..self.context.clone()
        }))
    }

    async fn administrator(&self, user: &str) -> Result<(), BuildError> {
        let script = format!("name={}\n{ADMINISTRATOR}", shell::word(user));
        let failing = "failed to add user to sudo group";
        self.value(&script, self.context, failing).await.map(drop)
    }
}

/// Whether it can be the name of a user.
pub(super) fn is_user(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, ':' | '/');
    (1..=USER_BYTES_MAX).contains(&name.len()) && name.chars().all(plain)
}

pub(super) fn bytes_of(context: &BuildContext) -> usize {
    let bytes = |(name, value): (&String, &String)| name.len() + value.len() + 2;
    context.envs.iter().map(bytes).sum()
}

/// Of a shell that ended well and said nothing.
const NO_VALUE: &str = "a login script of the image (/etc/profile, ~/.bash_profile) ended the shell, \
                        or closed its standard output, before it could answer";
/// Of a user's name, of a user with a group, and of a mode, bytes; more than any of them has.
const USER_BYTES_MAX: usize = 256;
const OWNER_BYTES_MAX: usize = 2 * USER_BYTES_MAX + 1;
const MODE_BYTES_MAX: usize = 16;
/// Bytes of a path at most, the kernel's limit.
pub(super) const PATH_BYTES_MAX: usize = 4095;

/// Lets `$name` do everything without a password. A second time changes nothing.
pub(super) const ADMINISTRATOR: &str = "\
group=sudo; getent group sudo >/dev/null 2>&1 || group=wheel
getent group \"$group\" >/dev/null 2>&1 || groupadd -- \"$group\" || exit 1
usermod -aG \"$group\" -- \"$name\" || exit 1
passwd -d -- \"$name\" >/dev/null 2>&1 || usermod -p '' -- \"$name\" || exit 1
line=\"$name ALL=(ALL:ALL) NOPASSWD: ALL\"
grep -qxF -- \"$line\" /etc/sudoers 2>/dev/null || printf '%s\\n' \"$line\" >>/etc/sudoers
";

/// The status of a command, and what it said of it.
fn said(ran: &Ran) -> String {
    let tail = ran.tail.lines(3);
    let status = ran.status();
    match tail.is_empty() {
        true => status,
        false => format!("{status}: {tail}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(kind: &str, args: &[&str]) -> Step {
        Step {
            kind: kind.into(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            files_hash: (kind == "COPY").then(|| "f".repeat(64)),
            force: false,
        }
    }

    #[test]
    fn steps_are_read_in_any_case() {
        let run = Action::of(&step("run", &["ls", ""])).unwrap();
        let expected = Action::Run {
            command: "ls".into(),
            user: None,
        };
        assert_eq!(run, expected);
        let env = Action::of(&step("Arg", &["A", "", "B", "x y"])).unwrap();
        let pairs = [("A", ""), ("B", "x y")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(env, Action::Env(pairs.into()));
        let Action::Copy(copy) = Action::of(&step("COPY", &["a", "/b"])).unwrap() else {
            panic!("a COPY is a copy");
        };
        assert_eq!((copy.owner, copy.mode), (None, None));
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut copy = step("COPY", &["a", "b"]);
        copy.files_hash = None;
        for (step, expected) in [
            (step("RUN", &[]), "RUN requires command argument"),
            (
                step("ENV", &[]),
                "ENV does not support passing no arguments",
            ),
            (
                step("ENV", &["A"]),
                "ENV requires both a key and value arguments",
            ),
            (
                step("ENV", &["A=B", "c"]),
                "'A=B' cannot be the name of a variable",
            ),
            (step("WORKDIR", &[""]), "WORKDIR requires a path argument"),
            (step("USER", &[]), "USER requires a username argument"),
            (
                step("COPY", &["a"]),
                "COPY requires a local path and a container path argument",
            ),
            (copy, "COPY requires files hash to be set"),
            (
                step("volume", &["/x"]),
                "command type VOLUME is not implemented",
            ),
        ] {
            assert_eq!(Action::of(&step).unwrap_err(), expected);
        }
    }
}
