//! Who is at the other end of a connection.

use std::time::Duration;

use axum::extract::FromRequestParts;
use http::request::Parts;
use nix::unistd::{Uid, User};

use super::problem::Refusal;
use crate::domain::Actor;
use crate::engine::Caller;

/// The user database may be on the network; a name is not worth waiting longer for.
const LOOKUP: Duration = Duration::from_secs(2);

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A process on this machine, over the Unix socket; the kernel vouches for its user.
    Local {
        /// The user.
        uid: u32,
    },
    /// Anybody on this machine, over the loopback.
    Tcp,
    /// Anybody at all, over an address that other machines reach.
    Outside,
}

/// The caller of a change: only a local user can be one.
impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refusal> {
        match parts.extensions.get::<Peer>() {
            Some(Peer::Local { uid }) => Ok(Caller { actor: Actor::User { name: user_name(*uid).await } }),
            Some(Peer::Tcp | Peer::Outside) | None => Err(read_only()),
        }
    }
}

/// What a change over TCP gets.
pub fn read_only() -> Refusal {
    Refusal::refused(
        "this address only answers questions; it takes no changes",
        "send changes to the agent's Unix socket; over TCP they need tokens, which do not exist yet",
    )
}

/// The login name of a user, or `uid N`.
async fn user_name(uid: u32) -> String {
    let lookup = tokio::task::spawn_blocking(move || User::from_uid(Uid::from_raw(uid)).ok().flatten());
    match tokio::time::timeout(LOOKUP, lookup).await {
        Ok(Ok(Some(user))) => user.name,
        Ok(Ok(None) | Err(_)) | Err(_) => format!("uid {uid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_user_without_a_name_is_its_number() {
        assert_eq!(user_name(0).await, "root");
        assert_eq!(user_name(3_999_999_999).await, "uid 3999999999");
    }

    async fn caller(peer: Option<Peer>) -> Result<Actor, u16> {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        if let Some(peer) = peer {
            parts.extensions.insert(peer);
        }
        let caller = Caller::from_request_parts(&mut parts, &()).await;
        caller.map(|caller| caller.actor).map_err(|refusal| refusal.status().as_u16())
    }

    #[tokio::test]
    async fn only_the_user_of_a_local_process_can_be_a_caller() {
        assert_eq!(caller(Some(Peer::Local { uid: 0 })).await, Ok(Actor::User { name: "root".into() }));
        assert_eq!(caller(Some(Peer::Tcp)).await, Err(403));
        assert_eq!(caller(Some(Peer::Outside)).await, Err(403));
        assert_eq!(caller(None).await, Err(403));
    }
}
