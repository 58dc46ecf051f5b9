//! Why a call to the agent failed, with what to do about it.

use std::path::PathBuf;
use std::time::Duration;

use super::Target;
use crate::domain::CallError;
use crate::wire::api::Problem;

/// Why a call failed. The message says what and where; [`ClientError::mend`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there.
    #[error("no agent answers at {target}: {why}")]
    NoAgent {
        /// Where it was looked for.
        target: Target,
        /// What the system said.
        why: String,
    },
    /// The agent answered, and said no.
    #[error("{}", problem_text(.0))]
    Problem(Problem),
    /// What came back is not what an agent of this version says.
    #[error("{target} answered {what} in a way that is not understood: {why}")]
    Protocol {
        /// Who answered.
        target: Target,
        /// The route.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The agent took the call and went away before its answer was complete.
    #[error("the agent at {target} went away while it answered {what}: {why}")]
    Interrupted {
        /// Who was asked.
        target: Target,
        /// The route.
        what: String,
        /// What the system said.
        why: String,
    },
    /// No answer in time.
    #[error("the agent at {target} did not answer {what} within {} s", after.as_secs())]
    Timeout {
        /// Who was asked.
        target: Target,
        /// The route.
        what: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// A local file or directory cannot be read.
    #[error("{}: {why}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The function was called, and failed.
    #[error("the function failed: {0}")]
    Failed(CallError),
    /// The place of the agent is none.
    #[error("`{target}` is no place of an agent: {why}")]
    Target {
        /// What was given.
        target: Target,
        /// What is wrong with it.
        why: String,
    },
}

impl ClientError {
    /// Whether the agent says that what was asked for is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, ClientError::Problem(problem) if problem.status == 404)
    }

    /// What to do about it; empty where there is nothing to advise.
    pub fn mend(&self) -> String {
        match self {
            ClientError::NoAgent { .. } => {
                "start one with `landfall agent --config FILE`, or say where it is with --agent or LANDFALL_AGENT".into()
            }
            ClientError::Problem(problem) => problem.mend.clone(),
            ClientError::Protocol { .. } => {
                "check that --agent names a Landfall agent, and that its version is not older than this program's"
                    .into()
            }
            ClientError::Interrupted { .. } => {
                "a change that was already accepted goes on; look with `landfall status` and try again".into()
            }
            // Nothing that may take long is behind this one.
            ClientError::Timeout { what, .. } if what == "GET /v1/status" => {
                "see the agent's own log. A controller that hangs (a process `landfall internal-controller`) may be ended \
                 with `kill -9`: apps and requests go on, and the agent starts it again"
                    .into()
            }
            ClientError::Timeout { .. } => "see `landfall status` and the agent's own log, then try again".into(),
            ClientError::Io { .. } => "check that it exists and that you may read it".into(),
            ClientError::Failed(_) => "`landfall calls list --app APP` shows its calls".into(),
            ClientError::Target { .. } => {
                "give the path of the agent's socket or a URL such as http://127.0.0.1:7171".into()
            }
        }
    }

    /// The agent's refusal, where it is one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            ClientError::Problem(problem) => Some(problem),
            ClientError::NoAgent { .. }
            | ClientError::Protocol { .. }
            | ClientError::Interrupted { .. }
            | ClientError::Timeout { .. }
            | ClientError::Io { .. }
            | ClientError::Failed(_)
            | ClientError::Target { .. } => None,
        }
    }
}

fn problem_text(problem: &Problem) -> String {
    if problem.detail.is_empty() { problem.title.clone() } else { format!("{}: {}", problem.title, problem.detail) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_asked_for_nothing_but_the_status_is_told_that_the_controller_hangs() {
        let mend = |what: &str| {
            let target = Target::Socket("landfall.sock".into());
            ClientError::Timeout { target, what: what.into(), after: Duration::from_secs(60) }.mend()
        };
        assert!(mend("GET /v1/status").contains("kill -9"));
        for what in ["GET /v1/plan?source=fleet", "POST /v1/apps/shop/stop"] {
            assert!(!mend(what).contains("kill -9") && mend(what).contains("landfall status"), "{what}");
        }
    }
}
