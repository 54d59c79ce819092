//! The password hashes of `htpasswd` and `crypt(3)`, after their published descriptions.

use base64::Engine as _;
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq as _;

const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const DEFAULT_ROUNDS: u32 = 5_000;
/// More rounds than this would let one request hold a core for seconds.
const MAX_ROUNDS: u32 = 1_000_000;

/// Compares without telling by its time where the difference is.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// Whether a password has this hash: bcrypt, apr1, MD5-crypt, SHA-crypt, `{SHA}`, `{SSHA}`, or is this very text.
pub(super) fn matches(password: &str, hash: &str) -> bool {
    let bytes = password.as_bytes();
    if ["$2a$", "$2b$", "$2x$", "$2y$"]
        .iter()
        .any(|prefix| hash.starts_with(prefix))
    {
        return bcrypt::verify(password, hash).unwrap_or(false);
    }
    for magic in ["$apr1$", "$1$"] {
        if let Some(rest) = hash.strip_prefix(magic) {
            let salt = rest.split('$').next().unwrap_or_default();
            return same(md5_crypt(bytes, salt, magic).as_bytes(), hash.as_bytes());
        }
    }
    if let Some(rest) = hash.strip_prefix("$5$") {
        return sha_crypt::<Sha256>(bytes, rest, "$5$", &SHA256_ORDER)
            .is_some_and(|made| same(made.as_bytes(), hash.as_bytes()));
    }
    if let Some(rest) = hash.strip_prefix("$6$") {
        return sha_crypt::<Sha512>(bytes, rest, "$6$", &SHA512_ORDER)
            .is_some_and(|made| same(made.as_bytes(), hash.as_bytes()));
    }
    let standard = base64::engine::general_purpose::STANDARD;
    if let Some(encoded) = hash.strip_prefix("{SHA}") {
        return same(
            standard.encode(Sha1::digest(bytes)).as_bytes(),
            encoded.as_bytes(),
        );
    }
    if let Some(encoded) = hash.strip_prefix("{SSHA}") {
        let Ok(decoded) = standard.decode(encoded) else {
            return false;
        };
        let Some((digest, salt)) = decoded.split_at_checked(20) else {
            return false;
        };
        return same(
            &Sha1::new().chain_update(bytes).chain_update(salt).finalize(),
            digest,
        );
    }
    same(bytes, hash.as_bytes())
}

/// MD5-crypt; Apache's variant differs in the magic alone.
pub(super) fn md5_crypt(password: &[u8], salt: &str, magic: &str) -> String {
    let salt = &salt[..salt.char_indices().nth(8).map_or(salt.len(), |(at, _)| at)];
    let mut digest = Md5::new()
        .chain_update(password)
        .chain_update(salt)
        .chain_update(password)
        .finalize();
    let mut hasher = Md5::new()
        .chain_update(password)
        .chain_update(magic)
        .chain_update(salt);
    for chunk in password.chunks(16) {
        hasher.update(&digest[..chunk.len()]);
    }
    let mut bits = password.len();
    while bits > 0 {
        hasher.update(if bits & 1 == 1 { &[0][..] } else { &password[..1] });
        bits >>= 1;
    }
    digest = hasher.finalize();
    for round in 0..1_000 {
        let odd = round & 1 == 1;
        let mut hasher = Md5::new();
        hasher.update(if odd { password } else { &digest[..] });
        if round % 3 != 0 {
            hasher.update(salt);
        }
        if round % 7 != 0 {
            hasher.update(password);
        }
        hasher.update(if odd { &digest[..] } else { password });
        digest = hasher.finalize();
    }
    let mut out = format!("{magic}{salt}$");
    for [a, b, c] in [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]] {
        push64(&mut out, [digest[a], digest[b], digest[c]], 4);
    }
    push64(&mut out, [0, 0, digest[11]], 2);
    out
}

fn push64(out: &mut String, [high, middle, low]: [u8; 3], count: usize) {
    let mut bits = u32::from(high) << 16 | u32::from(middle) << 8 | u32::from(low);
    for _ in 0..count {
        out.push(char::from(ALPHABET[(bits & 63) as usize]));
        bits >>= 6;
    }
}

/// Which digest bytes make which group of characters; 255 stands for a zero, the last number is the characters' count.
type Order = [[usize; 4]];

const NONE: usize = 255;
const SHA256_ORDER: [[usize; 4]; 11] = [
    [0, 10, 20, 4],
    [21, 1, 11, 4],
    [12, 22, 2, 4],
    [3, 13, 23, 4],
    [24, 4, 14, 4],
    [15, 25, 5, 4],
    [6, 16, 26, 4],
    [27, 7, 17, 4],
    [18, 28, 8, 4],
    [9, 19, 29, 4],
    [NONE, 31, 30, 3],
];
const SHA512_ORDER: [[usize; 4]; 22] = [
    [0, 21, 42, 4],
    [22, 43, 1, 4],
    [44, 2, 23, 4],
    [3, 24, 45, 4],
    [25, 46, 4, 4],
    [47, 5, 26, 4],
    [6, 27, 48, 4],
    [28, 49, 7, 4],
    [50, 8, 29, 4],
    [9, 30, 51, 4],
    [31, 52, 10, 4],
    [53, 11, 32, 4],
    [12, 33, 54, 4],
    [34, 55, 13, 4],
    [56, 14, 35, 4],
    [15, 36, 57, 4],
    [37, 58, 16, 4],
    [59, 17, 38, 4],
    [18, 39, 60, 4],
    [40, 61, 19, 4],
    [62, 20, 41, 4],
    [NONE, NONE, 63, 2],
];

/// SHA-crypt (Drepper); `rest` is what follows the magic: `[rounds=N$]salt[$…]`.
fn sha_crypt<D: Digest>(password: &[u8], rest: &str, magic: &str, order: &Order) -> Option<String> {
    let (given, rest) = match rest.strip_prefix("rounds=").and_then(|rest| rest.split_once('$')) {
        Some((rounds, rest)) => (Some(rounds.parse::<u32>().ok()?.max(1_000)), rest),
        None => (None, rest),
    };
    let rounds = given.unwrap_or(DEFAULT_ROUNDS);
    if rounds > MAX_ROUNDS {
        return None;
    }
    let salt = rest.split('$').next()?;
    let salt = salt.get(..salt.len().min(16))?;
    let second = D::new()
        .chain_update(password)
        .chain_update(salt)
        .chain_update(password)
        .finalize();
    let mut hasher = D::new().chain_update(password).chain_update(salt);
    hasher.update(repeated(&second, password.len()));
    let mut bits = password.len();
    while bits > 0 {
        hasher.update(if bits & 1 == 1 { &second[..] } else { password });
        bits >>= 1;
    }
    let mut digest = hasher.finalize();
    let mut hasher = D::new();
    password.iter().for_each(|_| hasher.update(password));
    let p = repeated(&hasher.finalize(), password.len());
    let mut hasher = D::new();
    (0..16 + u32::from(digest[0])).for_each(|_| hasher.update(salt));
    let s = repeated(&hasher.finalize(), salt.len());
    for round in 0..rounds {
        let odd = round & 1 == 1;
        let mut hasher = D::new();
        hasher.update(if odd { &p[..] } else { &digest[..] });
        if round % 3 != 0 {
            hasher.update(&s);
        }
        if round % 7 != 0 {
            hasher.update(&p);
        }
        hasher.update(if odd { &digest[..] } else { &p[..] });
        digest = hasher.finalize();
    }
    let rounds = given
        .map(|rounds| format!("rounds={rounds}$"))
        .unwrap_or_default();
    let mut out = format!("{magic}{rounds}{salt}$");
    for [a, b, c, count] in order {
        let byte = |at: usize| digest.get(at).copied().unwrap_or(0);
        push64(&mut out, [byte(*a), byte(*b), byte(*c)], *count);
    }
    Some(out)
}

/// `digest` over and over, up to a length.
fn repeated(digest: &[u8], length: usize) -> Vec<u8> {
    digest.iter().copied().cycle().take(length).collect()
}
