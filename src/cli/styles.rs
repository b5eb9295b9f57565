//! `restyle styles`: what a style is called and made of.

use super::args::StylesVerb;
use super::output;
use crate::error::{Error, ErrorKind};
use crate::styles::trained;
use restyle_actors::publish::publish;
use restyle_actors::storage::Location;
use restyle_models::{import, shipped};
use serde_json::json;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What `verify` says of a network whose bytes are those that were built in.
const SOUND: &str = "is the BLAKE3 that this program was made with";

pub(super) fn styles(verb: StylesVerb) -> Result<(), Error> {
    match verb {
        StylesVerb::List { json } => list(json),
        StylesVerb::Show { style, json } => show(&style, json),
        StylesVerb::Verify => verify(),
        #[cfg(feature = "train")]
        StylesVerb::Sheet(args) => super::sheet::sheet(&args),
        StylesVerb::Convert { input, output, overwrite } => convert(&input, &output, overwrite),
    }
}

fn list(json: bool) -> Result<(), Error> {
    for style in shipped::ALL {
        if json {
            output::write_json(&json!({"name": style.name, "painting": style.painting, "bytes": style.bytes.len()}))?;
        } else {
            output::write(&format!("{:<16} {}\n", style.name, style.painting))?;
        }
    }
    Ok(())
}

fn show(said: &str, json: bool) -> Result<(), Error> {
    let described = trained(said)?.describe();
    if json {
        return output::write_json(&described);
    }
    let shape = serde_json::to_string(&described.shape).unwrap_or_default();
    let mut text = format!("{said}\n  digest      {}\n  network     {}\n", described.digest, described.architecture);
    text += &format!("  parameters  {}\n  shape       {shape}\n", described.parameters);
    for (key, value) in &described.metadata {
        text += &format!("  {key:<11} {value}\n");
    }
    output::write(&text)
}

fn convert(input: &Path, into: &Path, overwrite: bool) -> Result<(), Error> {
    let output = into.canonicalize().ok();
    if output.is_some() && input.canonicalize().ok() == output {
        let message = format!("input and output are both {}: name another output", into.display());
        return Err(Error::new(ErrorKind::Usage, message));
    }
    let unreadable =
        |e: std::io::Error| Error::new(ErrorKind::InputUnreadable, format!("cannot read {}: {e}", input.display()));
    if std::fs::metadata(input).map_err(unreadable)?.len() > import::FILE_BYTES_MAX as u64 {
        let message =
            format!("{} has more than {} bytes: is it a style network?", input.display(), import::FILE_BYTES_MAX);
        return Err(Error::new(ErrorKind::Configuration, message));
    }
    let bytes = std::fs::read(input).map_err(unreadable)?;
    let style = import::convert(&bytes)
        .map_err(|e| Error::new(ErrorKind::Configuration, format!("{}: {e}", input.display())))?;
    put(into, &style, overwrite)?;
    output::write(&format!("{}: {} bytes, blake3 {}\n", into.display(), style.len(), blake3::hash(&style).to_hex()))
}

/// Writes a file whole or not at all, as outputs of jobs are.
fn put(path: &Path, bytes: &[u8], overwrite: bool) -> Result<(), Error> {
    let failed = |e: std::io::Error| Error::new(ErrorKind::Storage, format!("cannot write a temporary file: {e}"));
    let mut staged = tempfile::Builder::new().permissions(Permissions::from_mode(0o644)).tempfile().map_err(failed)?;
    staged.write_all(bytes).map_err(failed)?;
    Ok(publish(staged.path(), &Location::File(path.to_owned()), overwrite)?)
}

fn verify() -> Result<(), Error> {
    for style in shipped::ALL {
        let digest = trained(style.name)?.describe().digest;
        if digest != style.digest {
            return Err(changed(&format!("style {}", style.name), &digest, style.digest));
        }
        output::write(&format!("{:<16} {digest} {SOUND}\n", style.name))?;
    }
    let digest = blake3::hash(shipped::ANY.bytes).to_hex();
    if digest.as_str() != shipped::ANY.digest {
        return Err(changed("the network for any picture", &digest, shipped::ANY.digest));
    }
    output::write(&format!("{:<16} {digest} {SOUND}\n", "any picture"))
}

fn changed(what: &str, digest: &str, expected: &str) -> Error {
    let message = format!("{what} has the BLAKE3 {digest}, expected {expected}, with which this program was made");
    Error::new(ErrorKind::Configuration, message)
}
