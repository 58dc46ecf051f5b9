//! An app that is a Compose project, deployed as it stands.

use serde::{Deserialize, Serialize};

use super::manifest::Millis;

/// The name of the one object that such an app has: the instance that looks after its project.
pub const OBJECT: &str = "compose";

/// Which project, and how it is brought up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compose {
    /// Its files, relative to the app's directory; later ones override earlier ones.
    pub files: Vec<String>,
    /// Services with one of these profiles run too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// Images must be there and all services healthy after this long.
    pub timeout: Millis,
}
