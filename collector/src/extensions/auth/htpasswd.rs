//! Apache's password file.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::{CredentialsError, crypt};

/// Slow hashes are checked once for each of so many credentials.
const REMEMBERED: usize = 256;

/// Users and their passwords' hashes.
pub struct Htpasswd {
    users: HashMap<String, String>,
    /// Salted digests of credentials that were right, so that bcrypt is not paid again for every request.
    right: Mutex<HashSet<[u8; 32]>>,
    salt: [u8; 16],
    /// What an unknown user's password is compared with, so that both cases cost alike.
    decoy: String,
}

impl std::fmt::Debug for Htpasswd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Htpasswd")
            .field("users", &self.users.len())
            .finish_non_exhaustive()
    }
}

impl Htpasswd {
    /// Reads `user:hash` lines; empty ones and comments are passed over, of two lines for a user the later holds.
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        let mut users = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what| CredentialsError::Htpasswd {
                line: index + 1,
                what,
            };
            let (user, hash) = line
                .split_once(':')
                .ok_or_else(|| wrong("no `:` between user and password"))?;
            if user.is_empty() {
                return Err(wrong("no user before the `:`"));
            }
            users.insert(user.to_owned(), hash.to_owned());
        }
        let decoy = users.values().next().cloned().unwrap_or_default();
        Ok(Self {
            users,
            right: Mutex::default(),
            salt: rand::random(),
            decoy,
        })
    }

    /// Whether there is no user.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Whether a user has this password.
    pub fn matches(&self, user: &str, password: &str) -> bool {
        let Some(hash) = self.users.get(user) else {
            crypt::matches(password, &self.decoy);
            return false;
        };
        let mark = self.mark(user, password);
        if self
            .right
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&mark)
        {
            return true;
        }
        let matches = crypt::matches(password, hash);
        if matches {
            let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
            if right.len() >= REMEMBERED {
                right.clear();
            }
            right.insert(mark);
        }
        matches
    }
    /// Whether [`Htpasswd::matches`] would have to compute a hash that is slow on purpose.
    pub fn is_slow(&self, user: &str, password: &str) -> bool {
        let hash = self.users.get(user).unwrap_or(&self.decoy);
        let known = || {
            let mark = self.mark(user, password);
            self.right
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .contains(&mark)
        };
        hash.starts_with('$') && !known()
    }

    fn mark(&self, user: &str, password: &str) -> [u8; 32] {
        Sha256::new()
            .chain_update(self.salt)
            .chain_update((user.len() as u64).to_le_bytes())
            .chain_update(user)
            .chain_update(password)
            .finalize()
            .into()
    }
}
