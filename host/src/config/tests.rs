//! Behaviour of the whole configuration, seen through [`parse`]. The environment and the working folder are
//! arguments, so the tests neither race nor read this machine.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use tempfile::TempDir;

use super::*;

/// Parses a command line in a folder of its own that may hold a `cdc.toml`.
fn invoke(arguments: &[&str], variables: &[(&str, &str)], file: Option<&str>) -> Result<Invocation, ConfigError> {
    let folder = TempDir::new().expect("a folder");
    if let Some(text) = file {
        fs::write(folder.path().join(DEFAULT_FILE), text).expect("a file");
    }
    let arguments = std::iter::once("cdc").chain(arguments.iter().copied());
    parse(arguments, &Environment::from_iter(variables.iter().copied()), folder.path())
}

fn serve(arguments: &[&str], variables: &[(&str, &str)], file: Option<&str>) -> Result<Serve, String> {
    let arguments: Vec<_> = std::iter::once("serve").chain(arguments.iter().copied()).collect();
    match invoke(&arguments, variables, file) {
        Ok(Invocation::Serve(serve)) => Ok(*serve),
        Ok(other) => panic!("not serve: {other:?}"),
        Err(error) => Err(error.to_string()),
    }
}

fn refusal(arguments: &[&str], variables: &[(&str, &str)], file: Option<&str>) -> String {
    serve(arguments, variables, file).expect_err("a refusal")
}

#[test]
fn without_any_source_the_defaults_hold() {
    let Serve { settings, config_file, declared, warnings } = serve(&[], &[], None).expect("defaults");
    assert_eq!((config_file, declared), (None, Declared::default()));
    assert!(warnings.is_empty());
    let expected = ServeSettings {
        listen: ([127, 0, 0, 1], 8002).into(),
        address_file: None,
        cors_origins: vec![],
        allowed_hosts: vec![],
        insecure: false,
        files_folder: None,
        allowed_addresses: vec![],
        engine: None,
        readers: 2,
        compile_cache: "./cdc-data/cache".into(),
        builtin_subscribers: ["console", "publisher", "replication"].map(str::to_owned).to_vec(),
        schema: SchemaMode::Infer,
        data: "./cdc-data".into(),
        durability: Durability::Commit,
        retention_events: Some(10_000),
        retention_age: None,
        retention_bytes: None,
        retention_unacknowledged_events: 1_000_000,
        log_format: crate::logging::LogFormat::Text,
        log_level: "info".to_owned(),
        limits: Limits {
            max_body_bytes: 1 << 20,
            max_bulk_bytes: 256 << 20,
            max_row_bytes: 1 << 20,
            max_key_bytes: 512,
            max_depth: 128,
            max_columns: 1_000,
            max_tables: 1_000,
            max_name_bytes: 128,
            max_page: 10_000,
            max_batch: 1_024,
            max_queue: 8_192,
            max_connections: 10_000,
            max_streams: 8_000,
            max_subscriptions: 256,
            max_components: 1_000,
            max_component_bytes: 64 << 20,
            max_component_versions: 20,
            max_guests: 512,
            guest_stack_bytes: 512 << 10,
            max_past_keys: 1_000_000,
            header_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(10),
            snapshot_timeout: Duration::from_secs(600),
            stream_heartbeat: Duration::from_secs(15),
            stream_stall_timeout: Duration::from_secs(30),
            checkpoint_interval: Duration::from_secs(5),
            segment_bytes: 8 << 20,
        },
    };
    assert_eq!(settings, expected);
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let file = Some("readers = 3");
    let readers = |flags: &[&str], variables: &[(&str, &str)], file: Option<&str>| {
        serve(flags, variables, file).expect("valid").settings.readers
    };
    let variable: &[(&str, &str)] = &[("CDC_READERS", "4")];
    assert_eq!(readers(&[], &[], None), 2);
    assert_eq!(readers(&[], &[], file), 3);
    assert_eq!(readers(&[], variable, file), 4);
    assert_eq!(readers(&["--readers", "5"], variable, file), 5);
    assert_eq!(readers(&["--readers=5"], &[], None), 5);
    assert_eq!(readers(&[], &[("CDC_READERS", "")], file), 3, "an empty variable is not set");
}

#[test]
fn every_option_can_be_set_by_flag_variable_and_file() {
    // The printed configuration has every option; with values that are no defaults each source must give the same.
    let set = [
        ("listen", "0.0.0.0:1"),
        ("address-file", "a"),
        ("cors-origin", "http://a"),
        ("allowed-hosts", "cdc.example"),
        ("insecure", "true"),
        ("files-folder", "f"),
        ("allowed-addresses", "10.0.0.0/8"),
        ("engine", "e"),
        ("readers", "7"),
        ("compile-cache", "c"),
        ("builtin-subscribers", "none"),
        ("schema", "strict"),
        ("data", "d"),
        ("durability", "interval=9"),
        ("retention-events", "unlimited"),
        ("retention-age", "7d"),
        ("retention-bytes", "512MiB"),
        ("retention-unacknowledged-events", "9"),
        ("log-format", "json"),
        ("log-level", "debug"),
        ("max-body-bytes", "2MiB"),
        ("max-bulk-bytes", "1GiB"),
        ("max-row-bytes", "2kB"),
        ("max-key-bytes", "99"),
        ("max-depth", "9"),
        ("max-columns", "9"),
        ("max-tables", "9"),
        ("max-name-bytes", "9"),
        ("max-page", "9"),
        ("max-batch", "9"),
        ("max-queue", "9"),
        ("max-connections", "9"),
        ("max-streams", "9"),
        ("max-subscriptions", "9"),
        ("max-components", "9"),
        ("max-component-bytes", "2MiB"),
        ("max-component-versions", "9"),
        ("max-guests", "9"),
        ("guest-stack-bytes", "1MiB"),
        ("max-past-keys", "9"),
        ("header-timeout-ms", "9"),
        ("request-timeout-ms", "9"),
        ("drain-timeout-ms", "0"),
        ("snapshot-timeout-ms", "9"),
        ("stream-heartbeat-ms", "99"),
        ("stream-stall-timeout-ms", "99"),
        ("checkpoint-interval-ms", "99"),
        ("segment-bytes", "1MiB"),
    ];
    let keys = keys();
    let of_serve = keys.iter().filter(|key| key.table != Some("tail")).map(|key| key.long.as_str());
    assert_eq!(of_serve.collect::<BTreeSet<_>>(), set.iter().map(|(long, _)| *long).collect(), "each is tried");

    let flags: Vec<_> = set.iter().map(|(long, value)| format!("--{long}={value}")).collect();
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let by_flag = serve(&flags, &[], None).expect("flags").settings;

    let variable = |long: &str| format!("CDC_{}", long.replace('-', "_").to_uppercase());
    let variables: Vec<_> = set.iter().map(|(long, value)| (variable(long), *value)).collect();
    let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let by_variable = serve(&[], &variables, None).expect("variables");
    assert!(by_variable.warnings.is_empty(), "{:?}", by_variable.warnings);

    let line = |(long, value): &(&str, &str)| format!("{long} = {value:?}\n");
    let limits_begin = set.iter().position(|(long, _)| *long == "max-body-bytes").expect("the first limit");
    let (top, limits) = set.split_at(limits_begin);
    let file: String = top.iter().map(line).chain(["[limits]\n".to_owned()]).chain(limits.iter().map(line)).collect();
    let by_file = serve(&[], &[], Some(&file)).expect("file");

    assert_eq!(by_variable.settings, by_flag);
    assert_eq!(by_file.settings, by_flag);
    assert_eq!(by_file.config_file, Some(DEFAULT_FILE.into()));
    assert_eq!(by_flag.retention_events, None);
    assert_eq!(by_flag.limits.drain_timeout, Duration::ZERO);
}

#[test]
fn lists_are_flags_repeated_commas_or_a_toml_array() {
    let expected = vec![CorsOrigin::Exact("http://a".to_owned()), CorsOrigin::Exact("http://b:1".to_owned())];
    let origins = |flags: &[&str], variables: &[(&str, &str)], file: Option<&str>| {
        serve(flags, variables, file).expect("valid").settings.cors_origins
    };
    assert_eq!(origins(&["--cors-origin", "http://a", "--cors-origin", "http://b:1"], &[], None), expected);
    assert_eq!(origins(&["--cors-origin=http://a,http://b:1"], &[], None), expected);
    assert_eq!(origins(&[], &[("CDC_CORS_ORIGIN", "http://a,http://b:1")], None), expected);
    assert_eq!(origins(&[], &[], Some("cors-origin = [\"http://a\", \"http://b:1\"]")), expected);
    assert_eq!(origins(&["--cors-origin=*"], &[], Some("cors-origin = \"http://a\"")), [CorsOrigin::Any]);
    assert_eq!(origins(&["--cors-origin=http://a,*"], &[], None), [CorsOrigin::Any], "* is every origin");
    assert_eq!(origins(&[], &[], Some("cors-origin = []")), []);
}

#[test]
fn a_wrong_value_names_key_origin_value_and_what_is_allowed() {
    assert_eq!(
        refusal(&["--readers", "65"], &[], None),
        "invalid value \"65\" for readers (flag --readers); allowed: a whole number from 1 to 64"
    );
    assert_eq!(
        refusal(&[], &[("CDC_RETENTION_AGE", "7")], None),
        "invalid value \"7\" for retention-age (environment variable CDC_RETENTION_AGE); \
         allowed: unlimited, or a time like 45s, 30m, 12h or 7d, of at least 1s and at most 100 years"
    );
    assert_eq!(
        refusal(&[], &[], Some("\n[limits]\nmax-row-bytes = \"1XB\"\n")),
        "invalid value \"1XB\" for limits.max-row-bytes (cdc.toml:3); \
         allowed: a size from 64 to 64MiB, in bytes or with kB, MB, GB, TB, KiB, MiB, GiB or TiB"
    );
    assert_eq!(
        refusal(&[], &[], Some("schema = -1")),
        "invalid value \"-1\" for schema (cdc.toml:1); allowed: infer or strict"
    );
    assert_eq!(
        refusal(&[], &[], Some("data = \"\"")),
        "invalid value \"\" for data (cdc.toml:1); allowed: a value that is not empty"
    );
    assert_eq!(refusal(&[], &[], Some("data = [\"a\", \"b\"]")), "data is a list (cdc.toml:1); allowed: one value");
}

#[test]
fn a_wrong_value_is_refused_even_when_a_stronger_source_overrides_it() {
    let message = refusal(&["--readers=2"], &[], Some("readers = 0"));
    assert!(message.contains("(cdc.toml:1)"), "{message}");
}

#[test]
fn an_unknown_key_of_the_file_is_named_with_what_was_meant() {
    let hint = |text: &str| refusal(&[], &[], Some(text));
    assert_eq!(hint("reader = 1"), "unknown key reader (cdc.toml:1); did you mean readers?");
    assert_eq!(
        hint("[limits]\nretention-age = \"1d\""),
        "unknown key limits.retention-age (cdc.toml:2); \
         did you mean retention-age at the top level, before the first table?"
    );
    assert_eq!(hint("max_page = 5"), "unknown key max_page (cdc.toml:1); did you mean max-page in the table [limits]?");
    assert!(hint("zebra = 1").contains("; allowed here: address-file, allowed-addresses, "), "{}", hint("zebra = 1"));
    assert_eq!(hint("[zebra]\nx = 1"), "unknown key zebra.x (cdc.toml:2); tables are: limits, tail");
}

#[test]
fn a_file_that_was_named_must_be_readable() {
    let message = refusal(&["--config", "other.toml"], &[], Some("readers = 3"));
    assert!(message.starts_with("cannot read configuration file other.toml (flag --config): "), "{message}");
    let message = refusal(&[], &[("CDC_CONFIG", "there.toml")], None);
    assert!(message.starts_with("cannot read configuration file there.toml (environment variable CDC_CONFIG): "));
    let message = refusal(&["--config", "."], &[], None);
    assert!(message.starts_with("cannot read configuration file . "), "{message}");
}

#[test]
fn a_variable_that_is_no_option_is_warned_about() {
    let warnings = serve(&[], &[("CDC_READER", "1"), ("CDC_CONFIG", ""), ("HOME", "x")], None).expect("valid").warnings;
    assert_eq!(
        warnings,
        ["environment variable CDC_READER is not an option and has no effect; did you mean CDC_READERS?"]
    );
}

#[test]
fn the_printed_configuration_says_where_values_came_from_and_gives_the_same_again() {
    let arguments = ["serve", "--print-config", "--data=/tmp/\"d\"", "--cors-origin=http://a,http://b"];
    let printed = match invoke(&arguments, &[("CDC_MAX_PAGE", "77")], Some("readers = 3")) {
        Ok(Invocation::PrintConfig(text)) => text,
        other => panic!("not printed: {other:?}"),
    };
    for line in [
        "listen = \"127.0.0.1:8002\" # default",
        "# address-file is not set",
        "cors-origin = [\"http://a\", \"http://b\"] # flag --cors-origin",
        "readers = 3 # cdc.toml:1",
        "data = '/tmp/\"d\"' # flag --data",
        "[limits]",
        "max-page = 77 # environment variable CDC_MAX_PAGE",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line}\n{printed}");
    }
    let mut again = serve(&[], &[], Some(&printed)).expect("valid").settings;
    let first = serve(&arguments[2..], &[("CDC_MAX_PAGE", "77")], Some("readers = 3")).expect("valid").settings;
    // Its default is the folder of the file, which is another one.
    again.files_folder.clone_from(&first.files_folder);
    assert_eq!(again, first);
}

#[test]
fn the_data_folder_of_the_file_is_the_one_that_verify_checks() {
    let data = |arguments: &[&str], variables: &[(&str, &str)]| match invoke(
        arguments,
        variables,
        Some("data = \"/srv/cdc\"\n[limits]\nmax-page = 5\n"),
    ) {
        Ok(Invocation::Verify(settings)) => settings,
        other => panic!("not verify: {other:?}"),
    };
    assert_eq!(data(&["verify"], &[]), VerifySettings { data: "/srv/cdc".into(), json: false });
    assert_eq!(data(&["verify", "--json"], &[("CDC_DATA", "v")]), VerifySettings { data: "v".into(), json: true });
}

#[test]
fn tail_takes_its_server_from_the_file_and_its_selection_from_flags() {
    let arguments = ["tail", "--from-start", "--operation", "update", "--limit", "3", "--json"];
    let settings = match invoke(&arguments, &[("CDC_TAIL_INTERVAL_MS", "50")], Some("[tail]\nurl = \"http://h:1\"")) {
        Ok(Invocation::Tail(settings)) => settings,
        other => panic!("not tail: {other:?}"),
    };
    assert_eq!(settings.server.url, "http://h:1/");
    assert_eq!(settings.server.interval, Duration::from_millis(50));
    assert_eq!(settings.operation.as_deref(), Some("UPDATE"));
    assert_eq!((settings.limit, settings.from_start, settings.json, settings.once), (Some(3), true, true, false));
    invoke(&["tail", "--from-start", "--after", "3"], &[], None).expect_err("a contradiction");
    let error = invoke(&["tail", "--url", "https://h"], &[], None).expect_err("no TLS").to_string();
    assert!(error.contains("(flag --url)") && error.contains("https is not supported"), "{error}");
}

#[test]
fn sources_come_from_the_file_and_from_the_command_line_and_show_no_password() {
    let file = "[sources.shop]\nurl = \"postgres://u:${SHOP_PASSWORD}@h/d\"\n";
    let variables = [("SHOP_PASSWORD", "secret"), ("CDC_SOURCE", "mysql://u:secret@h/d")];
    let declared = serve(&[], &variables, Some(file)).expect("valid");
    assert!(declared.warnings.is_empty(), "{:?}", declared.warnings);
    let names: Vec<_> = declared.declared.sources.iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(names, ["shop", "mysql"]);
    assert!(!format!("{declared:?}").contains("secret"));
    let by_flag = serve(&["--source=postgres://h/d", "--source=postgres://i/d"], &variables, None).expect("valid");
    let names: Vec<_> = by_flag.declared.sources.iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(names, ["postgres", "postgres-2"], "a flag beats the variable");
    for message in [
        refusal(&["--source=oracle://u:secret@h"], &[], None),
        refusal(&[], &[("CDC_SOURCE", "oracle://u:secret@h")], None),
        refusal(&["--source=mysql://h"], &[], Some("[sources.mysql]\nurl = \"mysql://u:secret@h\"\n")),
    ] {
        assert!(!message.contains("secret") && message.contains("source"), "{message}");
    }
    match invoke(&["serve", "--print-config"], &variables, Some(file)) {
        Ok(Invocation::PrintConfig(text)) => assert!(!text.contains("secret"), "{text}"),
        other => panic!("not printed: {other:?}"),
    }
    // Whoever only reads events need not know the secrets of sources.
    assert!(matches!(invoke(&["tail"], &[], Some(file)), Ok(Invocation::Tail(_))));
    assert!(refusal(&[], &[], Some(file)).contains("sources.shop ("), "the variable is missing");
}

#[test]
fn check_and_drop_know_the_sources_of_the_file() {
    let file = Some("data = \"/srv/cdc\"\n[sources.shop]\nurl = \"postgres://h/d\"\n");
    match invoke(&["check", "shop", "--json", "--source=mysql://h/d"], &[], file) {
        Ok(Invocation::Check(check)) => {
            let names: Vec<_> = check.declared.sources.iter().map(|spec| spec.name.as_str()).collect();
            assert_eq!((names, check.names, check.json), (vec!["shop", "mysql"], vec!["shop".to_owned()], true));
        }
        other => panic!("not check: {other:?}"),
    }
    let dropped = |arguments: &[&str]| match invoke(arguments, &[], file) {
        Ok(Invocation::DropSource(drop)) => drop,
        other => panic!("not drop: {other:?}"),
    };
    let drop = dropped(&["source", "drop", "shop"]);
    assert_eq!(drop.data, Path::new("/srv/cdc"));
    assert_eq!(drop.spec.map(|spec| spec.url.to_string()).as_deref(), Some("postgres://h/d"));
    assert_eq!(dropped(&["source", "drop", "gone", "--data=d"]).spec, None);
    invoke(&["source", "drop", "a/b"], &[], None).expect_err("no name");
}

#[test]
fn sources_are_steered_over_the_service_that_is_followed_too() {
    let file = Some("[tail]\nurl = \"http://there:1\"\n[sources.shop]\nurl = \"postgres://${SECRET}@h/d\"\n");
    let steered = |arguments: &[&str], variables: &[(&str, &str)]| match invoke(arguments, variables, file) {
        Ok(Invocation::Steer(steering)) => steering,
        other => panic!("not steered: {other:?}"),
    };
    let reread = steered(&["source", "reread", "shop", "public.users"], &[]);
    let one = OneTable { name: "shop".to_owned(), table: "public.users".to_owned() };
    assert_eq!(reread.command, SteeringCommand::Reread(one));
    assert_eq!((reread.asked.url.to_string().as_str(), reread.asked.json), ("http://there:1/", false));
    let show = steered(&["source", "show", "shop", "--json"], &[("CDC_TAIL_URL", "http://elsewhere:2")]);
    assert_eq!(show.command, SteeringCommand::Show(SourceOrTable { name: "shop".to_owned(), table: None }));
    assert_eq!((show.asked.url.to_string().as_str(), show.asked.json), ("http://elsewhere:2/", true));
    let select =
        steered(&["source", "select", "shop", "--tables", "a.*", "b.*", "--exclude=a.x", "--url=http://h"], &[]);
    assert_eq!(select.asked.url.to_string(), "http://h/");
    assert!(matches!(select.command, SteeringCommand::Select(choice) if choice.tables == ["a.*", "b.*"]));
    assert!(matches!(steered(&["source", "select", "shop", "--reset"], &[]).command, SteeringCommand::Select(_)));
    let audit = match invoke(&["source", "audit", "shop", "t", "--mend", "--url=http://h"], &[], file) {
        Ok(Invocation::Audit(audit)) => audit,
        other => panic!("no audit: {other:?}"),
    };
    assert_eq!((audit.what.table.as_deref(), audit.what.mend, audit.what.no_wait), (Some("t"), true, false));
    assert_eq!(audit.asked.url.to_string(), "http://h/");
    invoke(&["source", "audit", "shop", "--show", "--mend"], &[], file).expect_err("one or the other");
    for wrong in [&["source", "reread", "shop"][..], &["source", "select", "shop"], &["source", "pause"]] {
        invoke(wrong, &[], file).expect_err("it lacks something");
    }
}

#[test]
fn the_engine_goes_to_a_file_or_to_stdout() {
    let file = |arguments: &[&str]| match invoke(arguments, &[], None) {
        Ok(Invocation::Engine(settings)) => settings.file,
        other => panic!("not engine: {other:?}"),
    };
    assert_eq!(file(&["engine"]), None);
    assert_eq!(file(&["engine", "engine.wasm"]), Some("engine.wasm".into()));
}

#[test]
fn help_reads_as_written() {
    let help = |name: Option<&str>| {
        let arguments = std::iter::once("cdc").chain(name).chain(["--help"]);
        let answer = command(&keys()).term_width(100).try_get_matches_from(arguments).expect_err("help");
        answer.to_string()
    };
    let golden = [
        (None, include_str!("golden/help.txt")),
        (Some("serve"), include_str!("golden/help-serve.txt")),
        (Some("tail"), include_str!("golden/help-tail.txt")),
        (Some("verify"), include_str!("golden/help-verify.txt")),
        (Some("engine"), include_str!("golden/help-engine.txt")),
        (Some("component"), include_str!("golden/help-component.txt")),
        (Some("check"), include_str!("golden/help-check.txt")),
        (Some("source"), include_str!("golden/help-source.txt")),
        (Some("subscription"), include_str!("golden/help-subscription.txt")),
    ];
    for (name, expected) in golden {
        if std::env::var("CDC_GOLDEN").is_ok_and(|value| value == "write") {
            let file = name.map_or("help.txt".to_owned(), |name| format!("help-{name}.txt"));
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/golden");
            fs::write(Path::new(folder).join(file), help(name)).expect("the kept help");
            continue;
        }
        assert_eq!(help(name), expected, "{name:?}");
    }
}

#[test]
fn help_and_version_are_answers_and_not_errors() {
    for arguments in [&["--help"][..], &["--version"], &["serve", "-h"]] {
        match invoke(arguments, &[], None) {
            Err(ConfigError::Usage(error)) => assert_eq!(error.exit_code(), 0, "{arguments:?}"),
            other => panic!("{other:?}"),
        }
    }
    match invoke(&["serve", "--reader=2"], &[], None) {
        Err(ConfigError::Usage(error)) => {
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains("'--readers'"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definition_of_the_command_line_is_sound() {
    command(&keys()).debug_assert();
}

#[test]
fn no_message_about_a_configuration_quotes_a_secret() {
    for file in [
        "[sources.s]\nurl = \"postgres://u:hunter2@h\"\npassword = 'hunter2\n",
        "[sources.s]\nurl = postgres://u:hunter2@h/d\n",
        "[sources.s]\nurl = 'postgers://u:hunter2@h/d'\n",
        "[sources.s]\nurl = ['hunter2']\n",
        "[sources.s]\nurl = 'postgres://h'\npassword = { text = 'hunter2' }\n",
        "[sources.s]\nurl = 'postgres://h'\nmask.salt = ['hunter2']\n",
        "[sources]\ns = 'postgres://u:hunter2@h'\n",
        "[components]\nc = 'hunter2'\n",
        "[components.c]\nfile = ['hunter2']\n",
        "[subscriptions]\ns = 'hunter2'\n",
        "[subscriptions.s]\nsubscriber = 'redis://:hunter2@h'\n",
        "[subscriptions.s]\nsubscriber = { sink = 'redis://:hunter2@h' }\n",
        "[subscriptions.s]\nsubscriber = { component = 'redis://:hunter2@h' }\n",
        "[subscriptions.s]\nsubscriber = { sink = 'redis', format = 'hunter2' }\n",
        "[subscriptions.s]\nsubscriber = { component = 'c' }\nlanes = 'hunter2'\n",
        "[subscriptions.s]\nsubscriber = { component = 'c' }\ngrants = { config = { token = ['hunter2'] } }\n",
        "[subscriptions.s]\nsubscriber = { component = 'c' }\ngrants = { http = ['https://u:hunter2@h'] }\n",
        "listen = 'postgres:/u:hunter2@h'\n",
        "a = \"hunter2\\q\"\n",
        "a = 'x' hunter2\n",
        "hunter2\n",
    ] {
        let message = refusal(&[], &[], Some(file));
        assert!(!message.contains("hunter2"), "{file}: {message}");
    }
    for arguments in [
        ["--source", "postgers://u:hunter2@h"],
        ["--source", "postgres:/u:hunter2@h"],
        ["--sorce=postgres://u:hunter2@h", "--json"],
        ["postgres://u:hunter2@h", "--print-config"],
        ["--log-level", "postgres://u:hunter2@h"],
    ] {
        let message = refusal(&arguments, &[], None);
        assert!(!message.contains("hunter2"), "{arguments:?}: {message}");
    }
    let message = refusal(&[], &[("CDC_SOURCE", "postgres:/u:hunter2@h")], None);
    assert!(!message.contains("hunter2"), "{message}");
}
