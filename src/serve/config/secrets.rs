//! Refuses credentials written into the configuration file, and says where they belong.

/// Keys that hold secrets in the configuration of some store or other, in lower case without `-` and `_`.
const SECRET_KEYS: [&str; 14] = [
    "accountkey",
    "accesskey",
    "accesskeyid",
    "secretaccesskey",
    "secretkey",
    "secret",
    "password",
    "passwd",
    "sastoken",
    "sas",
    "connectionstring",
    "token",
    "apikey",
    "credential",
];

const ADVICE: &str = "take it out and give it by the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AZURE_STORAGE_ACCOUNT_KEY or \
AZURE_STORAGE_SAS_TOKEN, GOOGLE_APPLICATION_CREDENTIALS), by a file that the environment names, or by the machine's managed identity";

/// Looks through a whole file; the message names the key and never the value.
pub(super) fn refuse(table: &toml::Table) -> Result<(), String> {
    table.iter().try_for_each(|(key, value)| look(key, value))
}

fn look(path: &str, value: &toml::Value) -> Result<(), String> {
    match value {
        toml::Value::Table(table) => table.iter().try_for_each(|(key, value)| look(&format!("{path}.{key}"), value)),
        toml::Value::Array(values) => values.iter().try_for_each(|value| look(path, value)),
        toml::Value::String(text) => look_at_text(path, text),
        _ => Ok(()),
    }
}

fn look_at_text(path: &str, text: &str) -> Result<(), String> {
    let name = path.rsplit('.').next().unwrap_or(path);
    let plain: String = name.chars().filter(|c| !matches!(c, '-' | '_')).collect::<String>().to_ascii_lowercase();
    if SECRET_KEYS.contains(&plain.as_str()) {
        return Err(format!("{path} holds a secret: {ADVICE}"));
    }
    let lower = text.to_ascii_lowercase();
    let is_url = lower.split_once(':').is_some_and(|(scheme, _)| scheme.len() > 1 && !scheme.contains(['/', '.']));
    let rest = text.split_once("//").map_or("", |(_, rest)| rest);
    let has_user = is_url && rest.split(['/', '?']).next().is_some_and(|host| host.contains('@'));
    let signed = ["sig=", "accountkey=", "sharedaccesssignature=", "x-amz-signature=", "secret="];
    if has_user || signed.iter().any(|mark| lower.contains(mark)) {
        return Err(format!("{path} holds a URL with a secret in it: {ADVICE}"));
    }
    Ok(())
}
