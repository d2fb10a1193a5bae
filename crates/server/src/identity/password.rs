//! Secrets: how they are made, hashed and compared.
//!
//! What people choose is hashed by Argon2id (RFC 9106), which takes time and memory: in a thread of
//! its own, and few at once, so that logins cannot take the server's memory. What we make ourselves
//! has 256 random bits, and one SHA-256 is enough for it.

use std::sync::OnceLock;

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::phc::{Output, ParamsString, PasswordHash, Salt},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::keys::hexadecimal;

/// Hashes computed at once; each takes 19 MiB.
const AT_ONCE: usize = 1;
/// The longest password that is looked at, in octets.
pub const MAX_PASSWORD: usize = 1024;
const OWN: &str = "sha256$";

static TURN: Semaphore = Semaphore::const_new(AT_ONCE);

/// Octets that are set aside for a hash. A piece of 32 MiB or more goes back as soon as it is free, with
/// glibc's allocator (`DEFAULT_MMAP_THRESHOLD_MAX`) and with hextet's (`LargeApart`); of a smaller one an
/// allocator keeps what it took. What the parameters do not need of it is never touched, and so takes nothing.
const SET_ASIDE: usize = 33 << 20;

/// Argon2id, as what follows from the parameters.
fn argon2id(params: &Params, secret: &[u8], salt: &[u8]) -> Option<Output> {
    let mut blocks: Vec<Block> = Vec::with_capacity(SET_ASIDE / Block::SIZE);
    blocks.resize(params.block_count(), Block::new());
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
    let length = params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN);
    let mut buffer = [0; Output::MAX_LENGTH];
    let out = buffer.get_mut(..length)?;
    argon2
        .hash_password_into_with_memory(secret, salt, out, &mut blocks)
        .ok()?;
    Output::new(out).ok()
}

/// As [`hash`], here and now. The parameters are OWASP's for 19 MiB: two passes.
fn hash_now(secret: &str) -> Option<String> {
    let (params, salt) = (Params::default(), Salt::generate());
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&params).ok()?,
        salt: Some(salt),
        hash: Some(argon2id(&params, secret.as_bytes(), &salt)?),
    };
    Some(hash.to_string())
}

fn verify_now(secret: &str, hash: &str) -> Option<bool> {
    let parsed = PasswordHash::new(hash).ok()?;
    let ours = parsed.algorithm == Algorithm::Argon2id.ident()
        && parsed.version == Some(Version::V0x13.into());
    let params = Params::try_from(&parsed).ok().filter(|_| ours)?;
    let found = argon2id(&params, secret.as_bytes(), &parsed.salt?)?;
    Some(found.as_bytes().ct_eq(parsed.hash?.as_bytes()).into())
}

/// 256 random bits as text.
pub fn random_secret() -> String {
    loop {
        let secret = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        // `openstack token revoke -x…` would take it for an option.
        if !secret.starts_with('-') {
            return secret;
        }
    }
}

/// A random identifier as the identity API writes them: 32 hexadecimal digits.
pub fn random_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// The hash of a secret that [`random_secret`] made.
pub fn hash_own(secret: &str) -> String {
    format!("{OWN}{}", hexadecimal(&Sha256::digest(secret)))
}

/// The name under which the store knows a token.
pub fn token_hash(token: &str) -> String {
    hexadecimal(&Sha256::digest(token))
}

/// The hash of a secret that somebody chose; none when it cannot be hashed.
pub async fn hash(secret: String) -> Option<String> {
    let _turn = TURN.acquire().await.ok()?;
    spawn_blocking(move || hash_now(&secret)).await.ok()?
}

/// Whether the secret has that hash; takes as long when there is no hash.
pub async fn verify(secret: String, hash: Option<String>) -> bool {
    if let Some(own) = hash.as_deref().and_then(|h| h.strip_prefix(OWN)) {
        let digest = hexadecimal(&Sha256::digest(&secret));
        return digest.as_bytes().ct_eq(own.as_bytes()).into();
    }
    let Ok(_turn) = TURN.acquire().await else {
        return false;
    };
    let checked = spawn_blocking(move || {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| nobody().to_owned());
        verify_now(&secret, &hash) == Some(true) && known
    });
    checked.await.unwrap_or(false)
}

/// The hash of a secret that nobody knows.
fn nobody() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| hash_now(&random_secret()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_secret_is_known_by_its_hash_alone() {
        let hash = hash("correct horse".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$") && !hash.contains("horse"));
        assert!(verify("correct horse".into(), Some(hash.clone())).await);
        assert!(!verify("wrong horse".into(), Some(hash)).await);
        assert!(!verify("anything".into(), None).await);
        assert!(!verify("anything".into(), Some("no hash".into())).await);
    }

    #[test]
    fn hashes_are_those_that_the_reference_makes() {
        // `printf password | argon2 somesalt -id -t 2 -m 16 -p 1 -l 32`, as phc-winner-argon2's
        // test.c has it.
        let known = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ\
                     $CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        assert_eq!(verify_now("password", known), Some(true));
        assert_eq!(verify_now("Password", known), Some(false));
        assert_eq!(
            verify_now("password", &known.replace("argon2id", "argon2i")),
            None
        );
        assert_eq!(
            verify_now("password", "$argon2id$v=19$m=65536,t=2,p=1"),
            None
        );
    }

    #[tokio::test]
    async fn our_own_secrets_are_hashed_fast_and_never_twice_the_same() {
        let (a, b) = (random_secret(), random_secret());
        assert_ne!(a, b);
        assert!(verify(a.clone(), Some(hash_own(&a))).await);
        assert!(!verify(b, Some(hash_own(&a))).await);
    }
}
