//! Who is at the other end of a connection.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use http::request::Parts;
use nix::unistd::{Uid, User};

use super::problem::Refusal;
use crate::domain::Access;
use crate::engine::Caller;

/// The user database may be on the network; a name is not worth waiting longer for.
const LOOKUP: Duration = Duration::from_secs(2);
/// A name that was looked up is believed for so long.
const FRESH: Duration = Duration::from_secs(60);
/// Names that are remembered.
const NAMES: usize = 256;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A process on this machine, over the Unix socket; the kernel vouches for its user.
    Local {
        /// The user.
        uid: u32,
    },
    /// Anybody on this machine, over the loopback.
    Loopback {
        /// Where from.
        address: IpAddr,
    },
    /// Anybody at all, over an address that other machines reach.
    Outside {
        /// Where from.
        address: IpAddr,
    },
}

impl Peer {
    /// Where from, unless over the Unix socket.
    pub fn address(self) -> Option<IpAddr> {
        match self {
            Peer::Local { .. } => None,
            Peer::Loopback { address } | Peer::Outside { address } => Some(address),
        }
    }
}

/// The caller of a change, as the guard let it in.
impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refusal> {
        let access = of(parts)?;
        Ok(Caller { actor: access.actor, scope: access.scope })
    }
}

/// Who asks, for routes that answer with what the caller may see.
pub struct Asker(pub Access);

impl<S: Sync> FromRequestParts<S> for Asker {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refusal> {
        of(parts).map(Asker)
    }
}

/// Fails closed: a request that did not come through the guard has no access.
fn of(parts: &Parts) -> Result<Access, Refusal> {
    let access = parts.extensions.get::<Access>().cloned();
    access.ok_or_else(|| Refusal::internal(format!("nobody was asked who calls {}", parts.uri.path())))
}

/// Names of this machine's users, as they were looked up.
#[derive(Debug, Default)]
pub struct Users(Mutex<HashMap<u32, (String, Instant)>>);

impl Users {
    /// The login name of a user, or `uid N`.
    pub async fn name(&self, uid: u32) -> String {
        if let Some(name) = self.known(uid) {
            return name;
        }
        let name = look_up(uid).await;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= NAMES {
            known.clear();
        }
        known.insert(uid, (name.clone(), Instant::now()));
        name
    }

    fn known(&self, uid: u32) -> Option<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&uid).filter(|(_, at)| at.elapsed() < FRESH).map(|(name, _)| name.clone())
    }
}

async fn look_up(uid: u32) -> String {
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
        let users = Users::default();
        for _ in 0..2 {
            assert_eq!(users.name(0).await, "root");
            assert_eq!(users.name(3_999_999_999).await, "uid 3999999999");
        }
    }

    #[tokio::test]
    async fn nobody_is_a_caller_who_did_not_pass_the_guard() {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        let caller = Caller::from_request_parts(&mut parts, &()).await;
        assert_eq!(caller.map_err(|refusal| refusal.status().as_u16()), Err(500));
    }
}
