//! Secrets: how they are made, hashed and compared.
//!
//! What people choose is hashed by Argon2id (RFC 9106), which takes time and memory: in a thread of
//! its own, and few at once, so that logins cannot take the server's memory. What we make ourselves
//! has 256 random bits, and one SHA-256 is enough for it.

use std::sync::OnceLock;

use argon2::{
    Argon2, Params,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
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

/// Argon2id with the parameters that OWASP names first: 19 MiB, two passes.
fn argon2() -> Argon2<'static> {
    Argon2::new(
        argon2::Algorithm::Argon2id,
        argon2::Version::V0x13,
        Params::default(),
    )
}

/// 256 random bits as text.
pub fn random_secret() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
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
    spawn_blocking(move || {
        let hash = argon2().hash_password(secret.as_bytes()).ok()?;
        Some(hash.to_string())
    })
    .await
    .ok()?
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
        let parsed = PasswordHash::new(&hash);
        let holds = parsed.is_ok_and(|h| argon2().verify_password(secret.as_bytes(), &h).is_ok());
        holds && known
    });
    checked.await.unwrap_or(false)
}

/// The hash of a secret that nobody knows.
fn nobody() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| {
        let secret = random_secret();
        argon2()
            .hash_password(secret.as_bytes())
            .map(|h| h.to_string())
            .unwrap_or_default()
    })
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

    #[tokio::test]
    async fn our_own_secrets_are_hashed_fast_and_never_twice_the_same() {
        let (a, b) = (random_secret(), random_secret());
        assert_ne!(a, b);
        assert!(verify(a.clone(), Some(hash_own(&a))).await);
        assert!(!verify(b, Some(hash_own(&a))).await);
    }
}
