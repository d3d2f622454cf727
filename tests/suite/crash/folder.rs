//! Folders that a service must not or cannot work on: it says which, why, and what to do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use cdc_tests::harness::{Data, Launch, Refused, Server};

/// A refusal is short, names the place, and is no panic.
#[track_caller]
fn assert_names(refused: &Refused, words: &[&str]) {
    assert!(!refused.status.success());
    assert!(!refused.stderr.contains("panicked"), "{}", refused.stderr);
    for word in words {
        assert!(refused.stderr.contains(word), "{word} is not in: {}", refused.stderr);
    }
}

#[test]
fn a_second_process_on_the_same_folder_is_refused_and_the_first_goes_on() {
    let server = Server::start();
    server.post("/data/t", r#"{"id":1}"#).expect(200);
    let refused = Launch::new().on(server.data()).refused();
    assert_names(&refused, &[server.data().path().to_str().unwrap(), &server.process().to_string()]);
    server.post("/data/t", r#"{"id":2}"#).expect(200);
    let verified = server.data().verify();
    assert!(!verified.status.success(), "verify on a folder in use would see it half-written");
    // The lock goes with its holder, however it ends.
    let server = server.kill().start();
    assert_eq!(server.current_sequence(), 2);
}

#[test]
fn an_unwritable_folder_is_refused_by_its_name() {
    let data = Data::new();
    let path = data.path();
    fs::create_dir_all(path).unwrap();
    // Root may write anywhere but on a file system that is read-only.
    let is_root = rustix::process::geteuid().is_root();
    let mounted = is_root
        && Command::new("mount")
            .args(["-t", "tmpfs", "-o", "ro,size=1m", "cdc-test"])
            .arg(path)
            .output()
            .is_ok_and(|done| done.status.success());
    if !is_root {
        fs::set_permissions(path, fs::Permissions::from_mode(0o555)).unwrap();
    }
    if mounted || !is_root {
        let refused = Launch::new().on(&data).refused();
        if mounted {
            Command::new("umount").arg("--lazy").arg(path).status().unwrap();
        }
        assert_names(&refused, &[path.to_str().unwrap()]);
    }
}

#[test]
fn a_folder_that_cannot_be_is_refused_by_its_name() {
    let data = Data::new();
    fs::write(data.path(), "a file").unwrap();
    assert_names(&Launch::new().on(&data).refused(), &[data.path().to_str().unwrap()]);
    assert_eq!(fs::read_to_string(data.path()).unwrap(), "a file");
}

#[test]
fn a_folder_of_a_newer_format_is_refused_and_left_alone() {
    let server = Server::start();
    server.post("/data/t", r#"{"id":1}"#).expect(200);
    let launch = server.stop();
    let file = launch.data().segments().pop().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    // The format's version stands behind the magic of eight bytes.
    assert_eq!(bytes[8..12], 3_u32.to_le_bytes());
    bytes[8..12].copy_from_slice(&7_u32.to_le_bytes());
    fs::write(&file, &bytes).unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    assert_names(&launch.refused(), &[name, "7"]);
    let verified = launch.data().verify();
    assert!(!verified.status.success());
    assert!(format!("{}{}", verified.stdout, verified.stderr).contains(name), "{verified:?}");
    assert_eq!(fs::read(&file).unwrap(), bytes);
}

#[test]
fn verify_says_what_it_checked_and_refuses_what_is_no_data_folder() {
    let server = Server::start();
    server.post("/data/t", r#"{"id":1}"#).expect(200);
    server.put("/data/t/1", r#"{"v":1}"#).expect(200);
    let launch = server.stop();
    let verified = launch.data().verify().expect_success();
    assert!(verified.stdout.contains('2'), "it names how many events there are: {verified:?}");
    let nothing = Data::new();
    let verified = nothing.verify();
    assert!(!verified.status.success());
    assert!(verified.stderr.contains(nothing.path().to_str().unwrap()), "{verified:?}");
    assert!(!nothing.path().exists(), "verify makes no folder");
}
