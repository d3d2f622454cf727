//! The worst moments: killed under load, a damaged tail, a full disk, a folder that is not ours to write.

mod damage;
mod folder;
mod full_disk;
mod kill;

use cdc_tests::captured::{Captured, Tables, read_log, read_snapshot};
use cdc_tests::harness::Server;

/// Reads the whole log (gap-free or the test fails) and holds rows, snapshots and the service's own replay against it.
#[track_caller]
pub(crate) fn assert_consistent(server: &Server) -> (Vec<Captured>, Tables) {
    let log = read_log(server, 0);
    assert_eq!(server.current_sequence(), log.len() as u64);
    let mut tables = Tables::default();
    tables.apply(&log, |_| "id");
    for table in tables.0.keys() {
        let (rows, sequence) = read_snapshot(server, &format!("/snapshot/{table}"));
        assert_eq!(sequence, log.len() as u64);
        assert!(rows == tables.images(table), "the rows of {table} are not what the log says");
    }
    let replay = server.post("/replay", "").expect(200).json();
    assert_eq!(replay["equal"], true, "{replay}");
    (log, tables)
}
