//! What is the service's alone: its files, the code that it runs, and the terminal of whoever reads rows.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cdc_tests::guests;
use cdc_tests::harness::{Launch, Output, Server, cdc, until};
use cdc_tests::http::Request;
use serde_json::json;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

/// Everything below a folder, with the folder.
fn below(folder: &Path, found: &mut Vec<PathBuf>) {
    found.push(folder.to_owned());
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { below(&path, found) } else { found.push(path) }
    }
}

fn upload(server: &Server, name: &str, bytes: Vec<u8>) -> cdc_tests::http::Answer {
    server.send(&Request::new("PUT", &format!("/components/{name}")).body("application/wasm", bytes))
}

#[test]
fn nobody_else_reads_the_data_folder_whatever_the_umask_is() {
    let careless = ["sh", "-c", "umask 000; exec \"$@\"", "sh"];
    let launch = Launch::new().through(&careless).compile_cache_as_configured();
    let server = launch.start();
    server.post("/data/t", r#"{"id":1}"#).expect(200);
    upload(&server, "active", fs::read(guests::rust("filter")).unwrap()).expect(200);
    let data = launch.data().path().to_owned();
    let open = |data: &Path| {
        let mut found = Vec::new();
        below(data, &mut found);
        assert!(found.iter().any(|path| path.extension().is_some_and(|end| end == "cwasm")), "{found:?}");
        assert!(found.iter().any(|path| path.extension().is_some_and(|end| end == "wasm")), "{found:?}");
        found.into_iter().filter(|path| mode(path) & 0o077 != 0).collect::<Vec<_>>()
    };
    assert_eq!(open(&data), Vec::<PathBuf>::new());
    let launch = server.stop();
    assert_eq!(open(&data), Vec::<PathBuf>::new());
    // As an older version left it: others are kept out, a group stays.
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    launch.start().stop();
    assert_eq!(mode(&data), 0o750);
}

#[test]
fn compiled_code_that_others_could_have_written_is_not_run() {
    let launch = Launch::new();
    let cache = launch.data().beside("cache");
    fs::create_dir(&cache).unwrap();
    let launch = launch.compile_cache_as_configured().option("--compile-cache", cache.display());
    for open in [0o777, 0o775, 0o757] {
        fs::set_permissions(&cache, fs::Permissions::from_mode(open)).unwrap();
        let refused = launch.refused();
        assert!(refused.stderr.contains("may be written by others"), "{}", refused.stderr);
        assert!(refused.stderr.contains("--compile-cache"), "{}", refused.stderr);
    }
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o755)).unwrap();
    launch.start().stop();
    // A file that others may write counts for nothing, and is compiled anew.
    let files = || fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path());
    let code = files().find(|path| path.extension().is_some_and(|end| end == "cwasm")).unwrap();
    fs::set_permissions(&code, fs::Permissions::from_mode(0o666)).unwrap();
    let server = launch.start();
    assert!(server.log().contains("compiling again"), "{}", server.log());
    assert_eq!(mode(&code), 0o600);
}

#[test]
fn a_component_whose_file_was_replaced_is_not_run_until_it_is_uploaded_again() {
    let launch = Launch::new().options("--builtin-subscribers none");
    let server = launch.start();
    let bytes = fs::read(guests::rust("filter")).unwrap();
    let uploaded = upload(&server, "active", bytes.clone()).expect(200).json();
    let file = launch.data().path().join("components").join(format!("{}.wasm", uploaded["sha256"].as_str().unwrap()));
    let subscription = json!({"filter": "active", "subscriber": {"builtin": "console"}, "start": "beginning",
        "grants": {"config": {"column": "status", "value": "active"}}, "retry": {"initialMs": 10, "maxMs": 50}});
    server.put("/subscriptions/s", &subscription.to_string()).expect(200);
    server.stop();
    // Other code, as long and longer.
    let other = fs::read(guests::rust("noop-filter")).unwrap();
    let mut damaged = bytes.clone();
    *damaged.last_mut().unwrap() ^= 1;
    for (id, replaced) in [damaged, [other, bytes.clone()].concat()].into_iter().enumerate() {
        fs::write(&file, replaced).unwrap();
        let server = launch.start();
        server.post("/data/t", &json!({"status": "active", "id": id}).to_string()).expect(200);
        let reason = until("a reason", || {
            let status = server.get("/subscriptions/s").expect(200).json();
            (status["state"] == "retrying").then(|| status["reason"].as_str().unwrap_or_default().to_owned())
        });
        assert!(reason.contains("is not what was uploaded"), "{reason}");
        let again = upload(&server, "active", bytes.clone()).expect(200).json();
        assert_eq!(again["new"], false);
        until("what was uploaded is back", || {
            (server.get("/subscriptions/s").expect(200).json()["state"] == "running").then_some(())
        });
        assert!(fs::read(&file).unwrap() == bytes);
        server.stop();
    }
}

#[test]
fn a_row_steers_nobodys_terminal() {
    let launch = Launch::new();
    let console = launch.data().beside("console.txt");
    let into = format!("exec \"$@\" > '{}'", console.display());
    let server = launch.through(&["sh", "-c", &into, "sh"]).start();
    let row = "{\"id\":\"\u{9b}31m\",\"text\":\"\u{7f}\u{202e}\\u001b[2J\"}";
    server.post("/data/t", row).expect(200);
    let printed = until("the line", || fs::read_to_string(&console).ok().filter(|text| text.ends_with('\n')));
    assert!(!printed.trim_end().chars().any(char::is_control) && !printed.contains('\u{202e}'), "{printed:?}");
    assert!(printed.contains("\\u009b31m") && printed.contains("\\u007f\\u202e\\u001b[2J"), "{printed}");
    let tail = Output::of(Command::new(cdc()).args(["tail", "--url", &server.url(), "--once", "--json"]));
    let tail = tail.expect_success().stdout;
    assert!(!tail.trim_end().chars().any(char::is_control), "{tail:?}");
    let event: serde_json::Value = serde_json::from_str(&tail).unwrap();
    assert_eq!(event["after"]["id"], "\u{9b}31m", "it means the same");
}
