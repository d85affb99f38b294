//! Who a connection is: its ids, and the auth packets that add to them.
//!
//! An auth packet takes effect at once for everything read after it, and its reply may overtake others.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha1::Sha1;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512, Sha512_224, Sha512_256};
use sha3::{Sha3_224, Sha3_256, Sha3_384, Sha3_512};
use smallvec::{SmallVec, smallvec};

use crate::tree::access::{AccessSettings, Provider};
use crate::types::acl::Id;
use crate::types::digest_algorithm::DigestAlgorithm;
use crate::types::limits;
use crate::wire::client::AuthPacket;

#[cfg(test)]
mod tests;

/// The ids of a connection, in the order in which they were added and each once. Never fewer than the address it comes
/// from, and none is ever taken away.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthIds {
    ids: SmallVec<[Id; 1]>,
}

impl AuthIds {
    /// A connection of which only the address is known.
    pub fn of_peer(peer: SocketAddr) -> AuthIds {
        AuthIds { ids: smallvec![Id { scheme: "ip".to_owned(), id: address_text(peer) }] }
    }

    pub fn ids(&self) -> &[Id] {
        &self.ids
    }

    pub fn has_scheme(&self, scheme: &str) -> bool {
        self.ids.iter().any(|id| id.scheme == scheme)
    }

    /// Adds an id if it is new. Errors: one connection has more of them than anybody needs.
    fn add(ids: &mut Arc<AuthIds>, id: Id) -> Result<(), TooManyIds> {
        if ids.ids.contains(&id) {
            return Ok(());
        }
        let size = |id: &Id| size_of::<Id>() + id.scheme.len() + id.id.len();
        if ids.ids.iter().map(size).sum::<usize>() + size(&id) > limits::AUTH_BYTES_PER_CONNECTION_MAX {
            return Err(TooManyIds);
        }
        // Requests on their way keep the ids that they were read with.
        Arc::make_mut(ids).ids.push(id);
        Ok(())
    }
}

struct TooManyIds;

/// An address as Java's `getHostAddress` prints it: IPv6 in eight groups without compression and with the zone that the
/// kernel tells, IPv4 also where it came mapped into IPv6.
pub fn address_text(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => match (address.ip().to_canonical(), address.scope_id()) {
            (IpAddr::V4(mapped), _) => mapped.to_string(),
            (IpAddr::V6(ip), zone) => {
                let groups = ip.segments().map(|group| format!("{group:x}")).join(":");
                if zone == 0 { groups } else { format!("{groups}%{zone}") }
            }
        },
    }
}

/// What `whoAmI` shows of an id: for digest the user, for schemes without a provider (super) nothing.
pub fn user_name(id: &Id) -> &str {
    match id.scheme.as_str() {
        "ip" => &id.id,
        "digest" => id.id.split(':').next().unwrap_or_default(),
        _ => "",
    }
}

/// `user:BASE64(HASH(user:password))` of `user:password`; without a colon all of it is the user.
pub fn digest_id(algorithm: DigestAlgorithm, text: &str) -> String {
    let user = text.split(':').next().unwrap_or_default();
    format!("{user}:{}", BASE64.encode(hash(algorithm, text.as_bytes())))
}

fn hash(algorithm: DigestAlgorithm, bytes: &[u8]) -> SmallVec<[u8; 64]> {
    match algorithm {
        DigestAlgorithm::Sha1 => SmallVec::from_slice(&Sha1::digest(bytes)),
        DigestAlgorithm::Sha224 => SmallVec::from_slice(&Sha224::digest(bytes)),
        DigestAlgorithm::Sha256 => SmallVec::from_slice(&Sha256::digest(bytes)),
        DigestAlgorithm::Sha384 => SmallVec::from_slice(&Sha384::digest(bytes)),
        DigestAlgorithm::Sha512 => SmallVec::from_slice(&Sha512::digest(bytes)),
        DigestAlgorithm::Sha512_224 => SmallVec::from_slice(&Sha512_224::digest(bytes)),
        DigestAlgorithm::Sha512_256 => SmallVec::from_slice(&Sha512_256::digest(bytes)),
        DigestAlgorithm::Sha3_224 => SmallVec::from_slice(&Sha3_224::digest(bytes)),
        DigestAlgorithm::Sha3_256 => SmallVec::from_slice(&Sha3_256::digest(bytes)),
        DigestAlgorithm::Sha3_384 => SmallVec::from_slice(&Sha3_384::digest(bytes)),
        DigestAlgorithm::Sha3_512 => SmallVec::from_slice(&Sha3_512::digest(bytes)),
    }
}

/// What of the configuration decides who a connection is.
#[derive(Clone, Debug, Default)]
pub struct AuthSettings {
    pub digest_algorithm: DigestAlgorithm,
    /// `DigestAuthenticationProvider.superDigest`: the `user:hash` who passes every check.
    pub super_digest: Option<String>,
    /// `ensembleAuthName`, split at its commas. `None`: any name will do.
    pub ensemble_names: Option<Vec<String>>,
    /// `enforce.auth.schemes`, if `enforce.auth.enabled`; `sasl` for `sessionRequireClientSASLAuth`. A connection without an
    /// id of one of them may only authenticate.
    pub enforced_schemes: Option<Vec<String>>,
}

/// Why a server must not start with these settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EnforcedAuthError {
    NoSchemes,
    /// Nobody could ever get an id of this scheme.
    NoProvider(String),
}

impl fmt::Display for EnforcedAuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EnforcedAuthError::NoSchemes => f.write_str(
                "enforce.auth.enabled is true but enforce.auth.schemes is empty: name the schemes, for example digest",
            ),
            EnforcedAuthError::NoProvider(scheme) => {
                write!(f, "authentication by {scheme} is enforced but this server has no provider for it")
            }
        }
    }
}

impl std::error::Error for EnforcedAuthError {}

/// What an auth packet came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Answer 0 (zxid 0).
    Accepted,
    /// Answer `AuthFailed` (zxid 0), then close. Clients do not come back from it.
    Failed,
    /// Close without an answer, so that the client tries another server.
    WrongEnsemble,
}

impl AuthSettings {
    /// To be called before a server starts.
    pub fn check_enforced(&self, access: &AccessSettings) -> Result<(), EnforcedAuthError> {
        let Some(schemes) = &self.enforced_schemes else { return Ok(()) };
        if schemes.is_empty() {
            return Err(EnforcedAuthError::NoSchemes);
        }
        match schemes.iter().find(|scheme| access.provider(scheme).is_none()) {
            Some(scheme) => Err(EnforcedAuthError::NoProvider(scheme.clone())),
            None => Ok(()),
        }
    }

    /// Whether a connection with these ids may do more than authenticate. If not, every other request is answered
    /// with `SessionClosedRequireSaslAuth` (zxid 0), and the connection closes.
    pub fn is_admitted(&self, ids: &AuthIds) -> bool {
        self.enforced_schemes.as_ref().is_none_or(|schemes| schemes.iter().any(|scheme| ids.has_scheme(scheme)))
    }

    /// Takes an auth packet; `ids` grow if it is accepted. SASL and X.509 have no packets of this kind.
    pub fn authenticate(&self, access: &AccessSettings, packet: &AuthPacket<'_>, ids: &mut Arc<AuthIds>) -> Outcome {
        let Some(provider) = packet.scheme.as_deref().and_then(|scheme| access.provider(scheme)) else {
            return Outcome::Failed;
        };
        match provider {
            // The address is known already.
            Provider::Ip => Outcome::Accepted,
            Provider::Digest => match packet.auth.map(|auth| self.add_digest(auth, ids)) {
                Some(Ok(())) => Outcome::Accepted,
                Some(Err(TooManyIds)) | None => Outcome::Failed,
            },
            Provider::Ensemble => self.compare_ensemble(packet.auth.unwrap_or_default()),
        }
    }

    /// Any user with any password: this only says who somebody is.
    fn add_digest(&self, auth: &[u8], ids: &mut Arc<AuthIds>) -> Result<(), TooManyIds> {
        let id = digest_id(self.digest_algorithm, &String::from_utf8_lossy(auth));
        if self.super_digest.as_ref() == Some(&id) {
            AuthIds::add(ids, Id::new("super", ""))?;
        }
        AuthIds::add(ids, Id { scheme: "digest".to_owned(), id })
    }

    fn compare_ensemble(&self, name: &[u8]) -> Outcome {
        match &self.ensemble_names {
            Some(names) if !name.is_empty() && !names.iter().any(|known| known.as_bytes() == name) => {
                Outcome::WrongEnsemble
            }
            Some(_) | None => Outcome::Accepted,
        }
    }
}
