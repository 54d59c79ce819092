//! Extension `bearertokenauth`: a token that both sides know.

use std::path::PathBuf;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::file::SecretFile;
use super::{AuthError, ClientAuth, CredentialsError, Principal, ServerAuth, crypt};

/// The extension's keys.
#[derive(Clone)]
pub struct BearerConfig {
    /// What stands before the token; empty for nothing.
    pub scheme: String,
    /// The header.
    pub header: String,
    /// A token.
    pub token: String,
    /// Several; a client sends the first, a server takes any.
    pub tokens: Vec<String>,
    /// A file with one token a line; read again when it changes, and used instead of the others.
    pub filename: Option<PathBuf>,
}

impl Default for BearerConfig {
    fn default() -> Self {
        Self {
            scheme: "Bearer".to_owned(),
            header: "Authorization".to_owned(),
            token: String::new(),
            tokens: Vec::new(),
            filename: None,
        }
    }
}

/// Either side.
pub struct BearerTokenAuth {
    scheme: String,
    header: HeaderName,
    shown: String,
    tokens: Tokens,
}

enum Tokens {
    Fixed(Vec<String>),
    File(SecretFile<Vec<String>>),
}

impl std::fmt::Debug for BearerTokenAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BearerTokenAuth")
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

impl BearerTokenAuth {
    /// Takes the tokens, or the file that holds them.
    pub fn new(config: &BearerConfig) -> Result<Self, CredentialsError> {
        let header = HeaderName::try_from(config.header.as_str())
            .map_err(|_| CredentialsError::HeaderName(config.header.clone()))?;
        let tokens = match &config.filename {
            Some(path) => Tokens::File(SecretFile::open(path, lines)?),
            None => {
                let all = std::iter::once(&config.token).chain(&config.tokens);
                Tokens::Fixed(all.filter(|token| !token.is_empty()).cloned().collect())
            }
        };
        let made = Self {
            scheme: config.scheme.clone(),
            header,
            shown: config.header.clone(),
            tokens,
        };
        if made.current().is_empty() {
            return Err(CredentialsError::Missing("give `token`, `tokens` or `filename`"));
        }
        Ok(made)
    }

    fn current(&self) -> Vec<String> {
        match &self.tokens {
            Tokens::Fixed(tokens) => tokens.clone(),
            Tokens::File(file) => file.current(),
        }
    }

    fn value(&self, token: &str) -> String {
        match self.scheme.is_empty() {
            true => token.to_owned(),
            false => format!("{} {token}", self.scheme),
        }
    }

    #[cfg(test)]
    pub(super) fn expire(&self) {
        if let Tokens::File(file) = &self.tokens {
            file.expire();
        }
    }
}

fn lines(text: &str) -> Vec<String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

impl ServerAuth for BearerTokenAuth {
    fn scheme(&self) -> &str {
        // What carries no scheme is still a token.
        if self.scheme.is_empty() {
            "Bearer"
        } else {
            &self.scheme
        }
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, AuthError> {
        let given = headers.get(&self.header).filter(|value| !value.is_empty());
        let given = given.ok_or_else(|| AuthError::MissingHeader(self.shown.clone()))?;
        // All are compared, so that the time does not tell which one was nearly right.
        let tokens = self.current();
        let right = tokens
            .iter()
            .filter(|token| crypt::same(self.value(token).as_bytes(), given.as_bytes()))
            .count();
        match right {
            0 => Err(AuthError::WrongToken),
            _ => Ok(Principal::default()),
        }
    }
}

impl ClientAuth for BearerTokenAuth {
    fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, CredentialsError> {
        let tokens = self.current();
        let token = tokens
            .first()
            .ok_or(CredentialsError::Missing("the token file is empty"))?;
        let mut value =
            HeaderValue::try_from(self.value(token)).map_err(|_| CredentialsError::NotAHeader("token"))?;
        value.set_sensitive(true);
        Ok(vec![(self.header.clone(), value)])
    }
}
