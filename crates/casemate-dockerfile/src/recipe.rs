//! What a Dockerfile becomes.

/// A template's recipe. It always begins as root in `/`, as Docker's do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// The image, as it is written.
    pub from: String,
    pub steps: Vec<Step>,
    /// What runs in every sandbox, from `ENTRYPOINT` and `CMD`.
    pub start: Option<String>,
    /// What says that it is ready; there is one where there is a `start`.
    pub ready: Option<String>,
    /// What was passed over.
    pub warnings: Vec<Warning>,
}

/// One step of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Where its instruction begins; for what the file does not say, the line of `FROM` (before) or
    /// the last line (after).
    pub line: usize,
    pub action: Action,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Copy {
        /// A path or a pattern below the context.
        source: String,
        destination: String,
        /// `user` or `user:group`.
        owner: Option<String>,
        mode: Option<u32>,
    },
    /// Names and values in order, each name once.
    Env(Vec<(String, String)>),
    Run {
        command: String,
        /// Who runs it instead of the user at that point.
        user: Option<String>,
    },
    Workdir(String),
    User(String),
}

impl Action {
    /// `type` and `args` of the step in the body of `POST /v2/templates/{templateID}/builds/{buildID}`,
    /// as the SDKs send them: what a `COPY` does not say is an empty string there, a mode has four
    /// octal digits, and an `ENV` has names and values by turns.
    pub fn wire(&self) -> (&'static str, Vec<String>) {
        match self {
            Self::Copy {
                source,
                destination,
                owner,
                mode,
            } => {
                let owner = owner.clone().unwrap_or_default();
                let mode = mode.map(|mode| format!("{mode:04o}")).unwrap_or_default();
                (
                    "COPY",
                    vec![source.clone(), destination.clone(), owner, mode],
                )
            }
            Self::Env(pairs) => {
                let flat = pairs.iter().flat_map(|(name, value)| [name, value]);
                ("ENV", flat.cloned().collect())
            }
            Self::Run { command, user } => {
                let args = [command].into_iter().chain(user);
                ("RUN", args.cloned().collect())
            }
            Self::Workdir(path) => ("WORKDIR", vec![path.clone()]),
            Self::User(user) => ("USER", vec![user.clone()]),
        }
    }
}

/// Something in the file without effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    pub line: usize,
    pub text: String,
}
