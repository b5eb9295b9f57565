//! `restyle styles`: what a style is called and made of.

use super::args::StylesVerb;
use super::output;
use crate::error::{Error, ErrorKind};
use crate::styles::resolve;
use restyle_models::shipped;
use serde_json::json;

pub(super) fn styles(verb: StylesVerb) -> Result<(), Error> {
    match verb {
        StylesVerb::List { json } => list(json),
        StylesVerb::Show { style, json } => show(&style, json),
        StylesVerb::Verify => verify(),
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
    let described = resolve(said)?.weights.describe();
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

fn verify() -> Result<(), Error> {
    for style in shipped::ALL {
        let digest = resolve(style.name)?.weights.describe().digest;
        if digest != style.digest {
            let message = format!("style {} has digest {digest}, its card says {}", style.name, style.digest);
            return Err(Error::new(ErrorKind::Configuration, message));
        }
        output::write(&format!("{:<16} {digest} as its card says\n", style.name))?;
    }
    Ok(())
}
