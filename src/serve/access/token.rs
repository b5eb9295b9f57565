//! Opaque tokens: 256 random bits that name a caller, kept as blake3 hashes.
//!
//! A token is shown once, when it is made; the file holds only its hash, so that reading the file gives nobody access.
//! A token of 256 random bits cannot be guessed, which is why a fast hash without salt is enough.

use super::{AccessError, Role};
use restyle_engine::clock::Clock;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Error, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What every token begins with, so that scanners for leaked secrets can find it.
const PREFIX: &str = "rst_";
const SECRET_BYTES: usize = 32;
/// The prefix and the bytes in hexadecimal.
const SECRET_CHARS: usize = PREFIX.len() + 2 * SECRET_BYTES;
/// The most tokens a file may hold; each request is compared with all of them.
const TOKENS_MAX: usize = 1_000;
const FILE_BYTES_MAX: u64 = 1 << 20;
const NAME_CHARS_MAX: usize = 64;
const SCHEMA: u32 = 1;

/// A token as its holder has it; not printable by accident.
pub struct Secret(String);

impl Secret {
    /// Draws a new one from the system's randomness.
    ///
    /// # Errors
    /// [`AccessError::Invalid`] when the system has no randomness.
    pub fn generate() -> Result<Self, AccessError> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes)
            .map_err(|e| AccessError::Invalid(format!("the system gives no randomness for a token: {e}")))?;
        Ok(Self(format!("{PREFIX}{}", blake3::Hash::from_bytes(bytes).to_hex())))
    }

    /// Takes what a caller presents; `None` for what cannot be a token.
    #[must_use]
    pub fn presented(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(PREFIX)?;
        let legal = text.len() == SECRET_CHARS && digits.bytes().all(|b| b.is_ascii_hexdigit());
        legal.then(|| Self(text.to_owned()))
    }

    /// Returns the token itself, to be shown to its future holder and nowhere else.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    fn hash(&self) -> blake3::Hash {
        blake3::hash(self.0.as_bytes())
    }
}

/// What a token file says of one token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRecord {
    /// Names the holder in logs and job records: letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// What the holder may do.
    pub role: Role,
    /// Whose jobs the holder sees; without one an operator or admin sees every tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// When it was made, in seconds since 1970.
    pub created_unix_seconds: u64,
    /// When it stops being accepted, in seconds since 1970; never without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_unix_seconds: Option<u64>,
    /// blake3 of the token, hexadecimal.
    pub blake3: String,
}

/// What the file looks like.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    schema: u32,
    tokens: Vec<TokenRecord>,
}

/// The tokens of a file, checked.
#[derive(Debug, Clone, Default)]
pub struct TokenFile {
    tokens: Vec<(blake3::Hash, TokenRecord)>,
}

impl TokenFile {
    /// Reads a file; blocks on the disk.
    ///
    /// # Errors
    /// [`AccessError`] for a file that cannot be read, that others than its owner may write, or that holds something else.
    pub fn load(path: &Path) -> Result<Self, AccessError> {
        let refused = |e| AccessError::file("token file", path, e);
        let about = std::fs::metadata(path).map_err(refused)?;
        if about.mode() & 0o022 != 0 {
            let why = "others may write it, and so give themselves any role; run chmod go-w on it";
            return Err(refused(Error::new(ErrorKind::PermissionDenied, why)));
        }
        if about.len() > FILE_BYTES_MAX {
            let why = format!("{} bytes, expected at most {FILE_BYTES_MAX}", about.len());
            return Err(refused(Error::new(ErrorKind::InvalidData, why)));
        }
        let bytes = std::fs::read(path).map_err(refused)?;
        Self::parse(&bytes).map_err(|why| refused(Error::new(ErrorKind::InvalidData, why)))
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let raw: RawFile = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if raw.schema != SCHEMA {
            return Err(format!("schema {}, expected {SCHEMA}", raw.schema));
        }
        let mut file = Self::default();
        for record in raw.tokens {
            file.insert(record)?;
        }
        Ok(file)
    }

    fn insert(&mut self, record: TokenRecord) -> Result<(), String> {
        check_name("token name", &record.name)?;
        record.tenant.as_deref().map_or(Ok(()), |tenant| check_name("tenant", tenant))?;
        if self.tokens.iter().any(|(_, other)| other.name == record.name) {
            return Err(format!("token {} is there already; revoke it first or choose another name", record.name));
        }
        if self.tokens.len() == TOKENS_MAX {
            return Err(format!("{TOKENS_MAX} tokens are there already; revoke some"));
        }
        let hash = blake3::Hash::from_hex(&record.blake3)
            .map_err(|_| format!("token {}: blake3 is not 64 hexadecimal digits", record.name))?;
        self.tokens.push((hash, record));
        Ok(())
    }

    /// Returns what is known of the tokens, never the tokens.
    pub fn records(&self) -> impl Iterator<Item = &TokenRecord> {
        self.tokens.iter().map(|(_, record)| record)
    }

    /// Finds a presented token; the time it takes tells nothing about how near a guess was.
    #[must_use]
    pub fn find(&self, presented: &Secret) -> Option<&TokenRecord> {
        let hash = presented.hash();
        // blake3::Hash compares in constant time, and every token is compared.
        self.tokens.iter().fold(None, |found, (known, record)| if *known == hash { Some(record) } else { found })
    }

    /// Makes a token and stores its hash; creates the file where there is none. Blocks on the disk.
    ///
    /// # Errors
    /// [`AccessError`] for a name that is taken or illegal, and when the file cannot be read or replaced.
    pub fn issue(path: &Path, request: TokenRequest, clock: &dyn Clock) -> Result<Secret, AccessError> {
        let secret = Secret::generate()?;
        let created = clock.unix().as_secs();
        let record = TokenRecord {
            name: request.name,
            role: request.role,
            tenant: request.tenant,
            created_unix_seconds: created,
            expires_unix_seconds: request.lifetime.map(|l| created.saturating_add(l.as_secs())),
            blake3: secret.hash().to_hex().to_string(),
        };
        change(path, |file| file.insert(record).map_err(AccessError::Invalid))?;
        Ok(secret)
    }

    /// Takes a token out of the file: it is refused from then on. Blocks on the disk.
    ///
    /// # Errors
    /// [`AccessError`] when there is no such token, and when the file cannot be read or replaced.
    pub fn revoke(path: &Path, name: &str) -> Result<(), AccessError> {
        change(path, |file| {
            let before = file.tokens.len();
            file.tokens.retain(|(_, record)| record.name != name);
            if file.tokens.len() == before {
                return Err(AccessError::Invalid(format!("no token is called {name}; see restyle token list")));
            }
            Ok(())
        })
    }
}

/// What a new token shall be.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// See [`TokenRecord::name`].
    pub name: String,
    /// See [`TokenRecord::role`].
    pub role: Role,
    /// See [`TokenRecord::tenant`].
    pub tenant: Option<String>,
    /// How long it is accepted; for ever without one.
    pub lifetime: Option<Duration>,
}

fn check_name(what: &str, name: &str) -> Result<(), String> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.bytes().all(legal) {
        return Err(format!(
            "{what} {name:?}: expected 1 to {NAME_CHARS_MAX} letters, digits, dots, dashes or underscores"
        ));
    }
    Ok(())
}

/// Reads, changes and atomically replaces the file, under a lock on its folder.
fn change(path: &Path, edit: impl FnOnce(&mut TokenFile) -> Result<(), AccessError>) -> Result<(), AccessError> {
    let refused = |e| AccessError::file("token file", path, e);
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let lock = File::open(folder).map_err(refused)?;
    lock.lock().map_err(refused)?;
    let mut file = if path.try_exists().map_err(refused)? { TokenFile::load(path)? } else { TokenFile::default() };
    edit(&mut file)?;
    let raw = RawFile { schema: SCHEMA, tokens: file.records().cloned().collect() };
    let text = serde_json::to_vec_pretty(&raw).map_err(|e| refused(e.into()))?;
    replace(path, &text).and_then(|()| lock.sync_all()).map_err(refused)
}

fn replace(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut name = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    // What a run that died left behind; the lock says that nobody is writing it.
    let _ = std::fs::remove_file(&beside);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

/// How often the file is looked at: a revoked token is refused after this time at the latest.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The tokens of a file that may change while the daemon runs; clones share one.
#[derive(Clone)]
pub struct TokenKeeper {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<Kept>>,
}

struct Kept {
    looked_at: Duration,
    stamp: Stamp,
    /// `None` while the file cannot be used: then nobody is let in.
    tokens: Option<Arc<TokenFile>>,
}

/// Tells whether a file was replaced or rewritten.
type Stamp = Option<(u64, i64, i64, u64)>;

fn stamp(path: &Path) -> Stamp {
    std::fs::metadata(path).ok().map(|m| (m.ino(), m.mtime(), m.mtime_nsec(), m.len()))
}

impl TokenKeeper {
    /// Reads the file; blocks on the disk.
    ///
    /// # Errors
    /// As [`TokenFile::load`].
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, AccessError> {
        let stamp = stamp(path);
        let tokens = Some(Arc::new(TokenFile::load(path)?));
        let state = Arc::new(Mutex::new(Kept { looked_at: clock.now(), stamp, tokens }));
        Ok(Self { path: path.to_owned(), clock, state })
    }

    /// Finds who presents a token now. Looks at the file once a second at most, which blocks for a system call.
    ///
    /// # Errors
    /// [`Refused`], of which callers learn no more than that they are refused.
    pub fn authenticate(&self, presented: &str) -> Result<TokenRecord, Refused> {
        let tokens = self.tokens().ok_or(Refused::FileUnusable)?;
        let secret = Secret::presented(presented).ok_or(Refused::Unknown)?;
        let record = tokens.find(&secret).ok_or(Refused::Unknown)?;
        match record.expires_unix_seconds {
            Some(end) if self.clock.unix().as_secs() >= end => Err(Refused::Expired),
            _ => Ok(record.clone()),
        }
    }

    fn tokens(&self) -> Option<Arc<TokenFile>> {
        let mut kept = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        if now >= kept.looked_at + LOOK_EVERY {
            kept.looked_at = now;
            let found = stamp(&self.path);
            if found != kept.stamp || kept.tokens.is_none() {
                kept.stamp = found;
                kept.tokens = TokenFile::load(&self.path)
                    .inspect_err(|e| tracing::error!(error = %e, "token file cannot be used: every caller is refused"))
                    .ok()
                    .map(Arc::new);
            }
        }
        kept.tokens.clone()
    }
}

/// Why a token was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No such token, or one that was revoked.
    Unknown,
    /// Its time is over.
    Expired,
    /// The token file cannot be read: nobody is let in.
    FileUnusable,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use restyle_engine::clock::{ManualClock, SystemClock};

    fn request(name: &str) -> TokenRequest {
        TokenRequest { name: name.into(), role: Role::Submitter, tenant: Some("acme".into()), lifetime: None }
    }

    #[test]
    fn a_token_is_found_by_itself_alone_and_its_file_does_not_hold_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.json");
        let clock = SystemClock::new();
        let (one, two) = (
            TokenFile::issue(&path, request("one"), &clock).unwrap(),
            TokenFile::issue(&path, request("two"), &clock).unwrap(),
        );
        let file = TokenFile::load(&path).unwrap();
        assert_eq!(file.find(&one).unwrap().name, "one");
        assert_eq!(file.find(&two).unwrap().tenant.as_deref(), Some("acme"));
        assert!(file.find(&Secret::generate().unwrap()).is_none());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&one.reveal()[PREFIX.len()..]) && text.contains(&one.hash().to_hex().to_string()));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(TokenFile::issue(&path, request("one"), &clock).is_err(), "a name was given twice");
        for name in ["", "a b", "../x", "ä", &"x".repeat(65)] {
            assert!(TokenFile::issue(&path, request(name), &clock).is_err(), "{name}");
        }
    }

    #[test]
    fn revoked_expired_and_unreadable_all_refuse() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.json");
        let clock = ManualClock::shared();
        let brief = TokenRequest { lifetime: Some(Duration::from_secs(10)), ..request("brief") };
        let brief = TokenFile::issue(&path, brief, clock.as_ref()).unwrap();
        let stays = TokenFile::issue(&path, request("stays"), clock.as_ref()).unwrap();
        let keeper = TokenKeeper::open(&path, clock.clone()).unwrap();
        let ask = |secret: &Secret| keeper.authenticate(secret.reveal()).map(|r| r.name);
        assert_eq!((ask(&brief), ask(&stays)), (Ok("brief".into()), Ok("stays".into())));
        assert_eq!(keeper.authenticate("rst_0"), Err(Refused::Unknown));

        clock.advance(Duration::from_secs(10));
        assert_eq!((ask(&brief), ask(&stays)), (Err(Refused::Expired), Ok("stays".into())));

        TokenFile::revoke(&path, "stays").unwrap();
        assert!(TokenFile::revoke(&path, "stays").is_err());
        clock.advance(LOOK_EVERY);
        assert_eq!(ask(&stays), Err(Refused::Unknown));

        std::fs::write(&path, "{").unwrap();
        clock.advance(LOOK_EVERY);
        assert_eq!(ask(&brief), Err(Refused::FileUnusable));
        std::fs::remove_file(&path).unwrap();
        let again = TokenFile::issue(&path, request("again"), clock.as_ref()).unwrap();
        clock.advance(LOOK_EVERY);
        assert_eq!(ask(&again), Ok("again".into()));
    }

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.json");
        TokenFile::issue(&path, request("one"), &SystemClock::new()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o620)).unwrap();
        assert!(TokenFile::load(&path).unwrap_err().to_string().contains("chmod"));
    }

    proptest! {
        #[test]
        fn no_text_but_the_token_is_accepted(text in "\\PC*", flip in 0usize..SECRET_CHARS) {
            let secret = Secret::generate().unwrap();
            let record = TokenRecord {
                name: "one".into(), role: Role::Viewer, tenant: None, created_unix_seconds: 0, expires_unix_seconds: None,
                blake3: secret.hash().to_hex().to_string(),
            };
            let mut file = TokenFile::default();
            file.insert(record).unwrap();
            prop_assert!(Secret::presented(&text).is_none_or(|s| file.find(&s).is_none()));
            let mut near = secret.reveal().as_bytes().to_vec();
            near[flip] ^= 1;
            let near = String::from_utf8(near).unwrap();
            prop_assert!(Secret::presented(&near).is_none_or(|s| file.find(&s).is_none()));
            prop_assert!(file.find(&Secret::presented(secret.reveal()).unwrap()).is_some());
        }

        #[test]
        fn damaged_files_are_errors_and_no_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = TokenFile::parse(&bytes);
        }
    }
}
