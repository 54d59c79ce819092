//! Extension `basicauth`: user and password, on either side.

use std::path::PathBuf;

use base64::Engine as _;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::file::{self, SecretFile};
use super::{AuthError, ClientAuth, CredentialsError, Htpasswd, Principal, ServerAuth};

const PREFIX: &str = "Basic ";

/// `htpasswd:` of the extension.
#[derive(Clone, Default)]
pub struct HtpasswdConfig {
    /// A password file.
    pub file: Option<PathBuf>,
    /// Its content in place; of a user in both, this one holds.
    pub inline: String,
}

/// The server's side.
#[derive(Debug)]
pub struct BasicAuthServer {
    htpasswd: Htpasswd,
}

impl BasicAuthServer {
    /// Reads the users.
    pub fn new(config: &HtpasswdConfig) -> Result<Self, CredentialsError> {
        let mut text = config
            .file
            .as_deref()
            .map(file::read)
            .transpose()?
            .unwrap_or_default();
        text.push('\n');
        text.push_str(&config.inline);
        let htpasswd = Htpasswd::parse(&text)?;
        match htpasswd.is_empty() {
            true => Err(CredentialsError::Missing(
                "`htpasswd` names no user; give `inline` or `file` lines of user:password",
            )),
            false => Ok(Self { htpasswd }),
        }
    }
}

impl ServerAuth for BasicAuthServer {
    fn scheme(&self) -> &str {
        "Basic"
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, AuthError> {
        let (user, password) = credentials(headers)?;
        match self.htpasswd.matches(&user, &password) {
            true => Ok(Principal {
                username: Some(user),
                ..Principal::default()
            }),
            false => Err(AuthError::InvalidCredentials),
        }
    }

    fn authenticate_at_once(&self, headers: &HeaderMap) -> Option<Result<Principal, AuthError>> {
        match credentials(headers) {
            Err(error) => Some(Err(error)),
            Ok((user, password)) if self.htpasswd.is_slow(&user, &password) => None,
            Ok(_) => Some(self.authenticate(headers)),
        }
    }
}

/// User and password of a request.
fn credentials(headers: &HeaderMap) -> Result<(String, String), AuthError> {
    let header = headers.get(AUTHORIZATION).ok_or(AuthError::NoBasicAuth)?;
    if header.is_empty() {
        return Err(AuthError::NoBasicAuth);
    }
    let encoded = header
        .as_bytes()
        .strip_prefix(PREFIX.as_bytes())
        .ok_or(AuthError::InvalidSchemePrefix)?;
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .map_err(|_| AuthError::InvalidFormat)?;
    let text = String::from_utf8(decoded).map_err(|_| AuthError::InvalidFormat)?;
    let (user, password) = text.split_once(':').ok_or(AuthError::InvalidFormat)?;
    Ok((user.to_owned(), password.to_owned()))
}

/// `client_auth:` of the extension.
#[derive(Clone, Default)]
pub struct ClientAuthConfig {
    /// The user.
    pub username: String,
    /// The password.
    pub password: String,
    /// A file with the user; read again when it changes.
    pub username_file: Option<PathBuf>,
    /// A file with the password; read again when it changes.
    pub password_file: Option<PathBuf>,
}

/// The client's side.
pub struct BasicAuthClient {
    user: Value,
    password: Value,
}

enum Value {
    Fixed(String),
    File(SecretFile<String>),
}

impl Value {
    fn new(fixed: &str, file: Option<&PathBuf>, missing: &'static str) -> Result<Self, CredentialsError> {
        match file {
            Some(path) => Ok(Self::File(SecretFile::open(path, |text| text.trim().to_owned())?)),
            None if fixed.is_empty() => Err(CredentialsError::Missing(missing)),
            None => Ok(Self::Fixed(fixed.to_owned())),
        }
    }

    fn current(&self) -> String {
        match self {
            Self::Fixed(value) => value.clone(),
            Self::File(file) => file.current(),
        }
    }
}

impl std::fmt::Debug for BasicAuthClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BasicAuthClient").finish_non_exhaustive()
    }
}

impl BasicAuthClient {
    /// Takes the credentials, or the files that hold them.
    pub fn new(config: &ClientAuthConfig) -> Result<Self, CredentialsError> {
        let user = "`client_auth` has neither `username` nor `username_file`";
        Ok(Self {
            user: Value::new(&config.username, config.username_file.as_ref(), user)?,
            password: match config.password_file.is_none() && config.password.is_empty() {
                true => Value::Fixed(String::new()),
                false => Value::new(&config.password, config.password_file.as_ref(), "")?,
            },
        })
    }
}

impl ClientAuth for BasicAuthClient {
    fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, CredentialsError> {
        let pair = format!("{}:{}", self.user.current(), self.password.current());
        let encoded = format!(
            "{PREFIX}{}",
            base64::engine::general_purpose::STANDARD.encode(pair)
        );
        let mut value =
            HeaderValue::try_from(encoded).map_err(|_| CredentialsError::NotAHeader("user and password"))?;
        value.set_sensitive(true);
        Ok(vec![(AUTHORIZATION, value)])
    }
}
