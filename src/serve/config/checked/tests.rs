use super::*;

const FIVE_LINES: &str = "[[route]]\ninput = \"in\"\noutput = \"out\"\nlogs = \"logs\"\nstyle = \"starry-night\"\n";

fn check(text: &str) -> Result<ServeConfig, Error> {
    ServeFile::from_toml(text, "serve.toml")?.check(Path::new("/srv/videos"))
}

fn refusal(text: &str) -> String {
    let error = check(text).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    error.to_string()
}

#[test]
fn five_lines_are_enough() {
    let config = check(FIVE_LINES).unwrap();
    assert!(config.listen.ip().is_loopback());
    let route = &config.routes[0];
    assert_eq!((route.name.as_str(), route.tenant.as_str()), ("route-1", "default"));
    assert_eq!(route.input.as_str(), "/srv/videos/in");
    assert_eq!(route.poll, Duration::from_secs(5));
    assert!(route.takes("a/clip.mp4") && route.takes("CLIP.MOV") && !route.takes("clip.txt"));
    assert!(!route.takes("clip.mp4.restyle.toml"));
}

#[test]
fn everything_can_be_said() {
    let text = format!(
        "work = \"w\"\njobs_at_once = 3\nlisten = \"127.0.0.1:9000\"\nallow = [\"10.0.0.0/8\"]\n\
         nodes = {{ min = 1, max = 4, low_priority = 2, idle_after = \"2min\" }}\n\
         price_per_node_hour = {{ dedicated = 1.5, low_priority = 0.4 }}\nlimits = {{ upload = \"2GiB\" }}\n\
         [[webhook]]\nurl = \"https://example.com/hook\"\nsecret_file = \"hook\"\n{FIVE_LINES}\
         name = \"films\"\ntenant = \"acme\"\nexclude = [\"draft/**\"]\npoll = \"1s\"\n\
         [route.options]\nsize = 320\ncrf = 20.0\n[route.quota]\njobs_queued = 5\nbytes_queued = \"1GB\"\n[route.nodes]\nmax = 2\n"
    );
    let config = check(&text).unwrap();
    assert_eq!((config.nodes.max, config.nodes.low_priority, config.jobs_at_once), (4, 2, 3));
    assert_eq!(config.limits.upload, 2 << 30);
    let route = config.route(&RouteName::parse("films").unwrap()).unwrap();
    assert_eq!((route.options.size, route.quota.bytes_queued), (Some(320), Some(1_000_000_000)));
    assert!(!route.takes("draft/a.mp4"));
}

#[test]
fn a_route_may_blend_styles() {
    let route = |style: &str| check(&FIVE_LINES.replace("starry-night", style)).unwrap().routes.swap_remove(0);
    let blend = route("starry-night:0.7, own.safetensors:0.3");
    assert_eq!((blend.style.as_str(), blend.blended), ("starry-night:0.7,own:0.3", 2));
    assert_eq!(blend.style_location, "starry-night:0.7,/srv/videos/own.safetensors:0.3");
    let own = ("own".to_owned(), "/srv/videos/own.safetensors".to_owned());
    assert_eq!(blend.style_parts, [("starry-night".to_owned(), "starry-night".to_owned()), own.clone()]);
    let alone = route("own.safetensors");
    assert_eq!((alone.style.as_str(), alone.blended, alone.style_parts), ("own", 0, vec![own]));
    let many = FIVE_LINES.replace("starry-night", &["udnie:1"; 9].join(","));
    assert!(refusal(&many).contains("at most 8"));
}

#[test]
fn mistakes_are_refused_by_name() {
    for (extra, named) in [
        ("colour = 1\n", "colour"),
        ("poll = \"5\"\n", "poll"),
        ("poll = \"1ms\"\n", "poll"),
        ("name = \"a/b\"\n", "route name"),
        ("name_template = \"x.mp4\"\n", "name_template"),
        ("include = [\"[\"]\n", "include"),
        ("[route.options]\nsize = 1\n", "size"),
        ("[route.options]\nstyle = \"x\"\n", "style"),
        ("[route.quota]\nbytes_queued = \"5\"\n", "bytes_queued"),
    ] {
        let message = refusal(&format!("{FIVE_LINES}{extra}"));
        assert!(message.contains(named), "{extra}: {message}");
    }
    assert!(refusal("").contains("[[route]]"));
    assert!(refusal(&format!("nodes = {{ min = 3, max = 2 }}\n{FIVE_LINES}")).contains("nodes.min"));
    assert!(refusal(&format!("{FIVE_LINES}name = \"a\"\n{FIVE_LINES}name = \"a\"\n")).contains("two routes"));
}

#[test]
fn what_others_can_reach_needs_encryption_and_tokens() {
    assert!(refusal(&format!("listen = \"0.0.0.0:8080\"\n{FIVE_LINES}")).contains("tls"));
    let safe = "listen = \"0.0.0.0:8080\"\ntokens = \"t\"\ntls = { certificate = \"c\", key = \"k\" }\n";
    assert!(check(&format!("{safe}{FIVE_LINES}")).is_ok());
}

#[test]
fn secrets_are_refused_and_not_repeated() {
    for secret in [
        "account_key = \"hunter2\"\n",
        "secret-access-key = \"hunter2\"\n",
        "logs2 = \"azblob://c/p?sv=1&sig=hunter2\"\n",
        "tenant = \"s3://user:hunter2@bucket/x\"\n",
    ] {
        let message = refusal(&format!("{FIVE_LINES}{secret}"));
        assert!(message.contains("environment") && !message.contains("hunter2"), "{message}");
    }
}

#[test]
fn circles_of_routes_are_refused_and_chains_are_not() {
    let route = |input: &str, output: &str, name: &str| {
        format!(
            "[[route]]\nname = \"{name}\"\ninput = \"{input}\"\noutput = \"{output}\"\nlogs = \"logs\"\nstyle = \"x\"\n"
        )
    };
    assert!(check(&(route("a", "b", "1") + &route("b", "c", "2"))).is_ok());
    assert!(refusal(&(route("a", "b", "1") + &route("b", "a", "2"))).contains("each other"));
    assert!(
        refusal(&(route("a", "b", "1") + &route("b/x", "c", "2") + &route("c", "a/y", "3"))).contains("each other")
    );
    assert!(check(&route("a", "a/done", "1")).is_ok());
}
