//! Settings of libgit2 that hold for the whole process, made once before its first use here.
#![allow(unsafe_code)]

use std::sync::OnceLock;

use super::error::Trouble;
use super::transport;

/// Makes the settings; cheap after the first time.
pub(crate) fn ensure() -> Result<(), Trouble> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    DONE.get_or_init(|| setup().map_err(|error| error.message().to_owned()))
        .clone()
        .map_err(|message| Trouble::new(super::SourceErrorKind::Unsupported, message, "libgit2 could not be set up"))
}

fn setup() -> Result<(), git2::Error> {
    // A repository is only read here, and its configuration can start nothing in libgit2 (no hooks, no pagers,
    // no file system monitor), so whose it is does not matter: an agent with a user of its own reads repositories
    // of others.
    // SAFETY: libgit2 wants its options set while no other thread uses it for the same thing; `OnceLock`
    // makes this the only writer, and each repository this process opens for a source is opened after it.
    unsafe { git2::opts::set_verify_owner_validation(false)? };
    // What the agent does must not depend on the git configuration of whoever started it, and a home directory that
    // cannot be read is no reason to fail.
    for level in [git2::ConfigLevel::System, git2::ConfigLevel::Global, git2::ConfigLevel::XDG] {
        // SAFETY: as above.
        unsafe { git2::opts::set_search_path(level, "")? };
    }
    for scheme in transport::SCHEMES {
        // SAFETY: registration has to be synchronised with the creation of transports; transports are only made by
        // `remote`, after this function has returned.
        unsafe { git2::transport::register(scheme, transport::create)? };
    }
    Ok(())
}
