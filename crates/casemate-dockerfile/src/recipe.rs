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

/// Something in the file without effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    pub line: usize,
    pub text: String,
}
