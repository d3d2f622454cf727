//! No room left: what is answered as captured is there, what is refused is not, reading goes on, and with room again
//! everything does.

use std::path::{Path, PathBuf};
use std::process::Command;

use cdc_tests::captured::{Captured, read_log};
use cdc_tests::harness::{Launch, Server};
use cdc_tests::http::{Answer, Request};

/// How room is taken away from a service.
enum SmallDisk {
    /// A file system of its own: the real thing.
    Mounted(PathBuf),
    /// No file may grow beyond a size: what remains where nothing can be mounted.
    Limited,
}

impl SmallDisk {
    fn new(folder: &Path, mebibytes: u32) -> SmallDisk {
        std::fs::create_dir_all(folder).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "cdc-test"])
            .arg(folder)
            .output();
        match mount {
            Ok(done) if done.status.success() => SmallDisk::Mounted(folder.into()),
            _ => SmallDisk::Limited,
        }
    }

    fn launch(&self, launch: Launch) -> Launch {
        match self {
            SmallDisk::Mounted(_) => launch,
            // With the signal ignored, a write beyond the limit fails instead of killing.
            SmallDisk::Limited => launch.through(&["sh", "-c", "trap '' XFSZ; ulimit -f 6000; exec \"$0\" \"$@\""]),
        }
    }

    /// Makes room and answers how the service is to be started then.
    fn grow(&self, launch: Launch) -> Launch {
        if let SmallDisk::Mounted(folder) = self {
            let done = Command::new("mount").args(["-o", "remount,size=256m"]).arg(folder).status().unwrap();
            assert!(done.success());
        }
        launch.through(&[])
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let SmallDisk::Mounted(folder) = self {
            // Lazily: the service may still be on its way out when a test fails.
            let _ = Command::new("umount").arg("--lazy").arg(folder).status();
        }
    }
}

fn insert(server: &Server, id: u64) -> (String, Answer) {
    // Text that no compression makes small.
    let text: String =
        (0..4_000).map(|part| format!("{:016x}", cdc_tests::random::scramble(id * 4_000 + part + 1))).collect();
    let row = format!(r#"{{"id":{id},"text":"{text}"}}"#);
    let answer = server.send(&Request::post("/data/t", row.clone()));
    (row, answer)
}

#[test]
fn a_full_disk_refuses_writes_loses_none_and_recovers_when_there_is_room() {
    let launch = Launch::new().options("--retention-events 1000000 --segment-bytes 4MiB");
    let disk = SmallDisk::new(launch.data().path(), 20);
    let launch = disk.launch(launch);
    let server = launch.start();
    let mut captured = Vec::new();
    let mut refused = 0;
    // After the first refusal some more: a store that is full must stay as consistent as at first.
    for id in 0..2_000 {
        let (row, answer) = insert(&server, id);
        match answer.status {
            200 => captured.push((Captured::of_write(answer.text()), row)),
            503 => {
                answer.expect_problem(503, "storage-full");
                assert!(answer.header("retry-after").is_some(), "{:?}", answer.headers);
                refused += 1;
            }
            other => panic!("{other}: {}", answer.text()),
        }
        if refused == 20 {
            break;
        }
    }
    assert_eq!(refused, 20, "the disk never filled");
    assert!(!captured.is_empty());

    // Reading goes on, and agrees with what was answered.
    let assert_complete = |server: &Server, captured: &[(Captured, String)]| {
        let log = read_log(server, 0);
        assert_eq!(log.len(), captured.len());
        for ((event, row), logged) in captured.iter().zip(&log) {
            assert_eq!((event.sequence, &logged.after), (logged.sequence, &Some(row.clone())));
        }
    };
    assert_complete(&server, &captured);
    server.get("/healthz").expect(200);

    // With room again the same service, or the next, takes writes; none of the refused ones turns up.
    let server = disk.grow(server.kill()).start();
    assert_complete(&server, &captured);
    let (row, answer) = insert(&server, 1_000_000);
    captured.push((Captured::of_write(answer.expect(200).text()), row));
    let server = server.kill().start();
    assert_complete(&server, &captured);
    let launch = server.stop();
    launch.data().verify().expect_success();
}

#[test]
fn room_made_beside_a_running_service_is_used() {
    let launch = Launch::new().options("--retention-events 1000000 --segment-bytes 4MiB");
    let disk = SmallDisk::new(launch.data().path(), 20);
    let SmallDisk::Mounted(folder) = &disk else {
        // A limit on the size of files cannot be lifted from outside of the process.
        return;
    };
    let server = launch.start();
    let mut id = 0;
    while insert(&server, id).1.status == 200 {
        id += 1;
        assert!(id < 2_000, "the disk never filled");
    }
    let done = Command::new("mount").args(["-o", "remount,size=256m"]).arg(folder).status().unwrap();
    assert!(done.success());
    cdc_tests::harness::until("the service to use the room", || (insert(&server, id).1.status == 200).then_some(()));
    assert_eq!(server.current_sequence(), id + 1);
    assert_eq!(read_log(&server, 0).len() as u64, id + 1);
}
