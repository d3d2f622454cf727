#!/usr/bin/env bash
# MariaDB 10.11.14 with binlog_format=ROW: rows of a table whose versions are told by transactions (its period is of BIGINT
# UNSIGNED columns, "transaction-precise history") are not in the binary log. The statement is, as under STATEMENT, and no
# warning is given; a table versioned by timestamps beside it is logged by rows. Who follows the log by its row events
# never hears of such a table's changes.
#
# Seen with Debian's packages of that version: a Query event "INSERT INTO precise …" and no row event for `precise`; a
# Write_rows event for `timed`. Fails if that changes. Needs apt-get (Debian 12, amd64), and nothing else that runs.
set -euo pipefail
VERSION=1:10.11.14-0+deb12u2
D=$(mktemp -d)
trap '[ -z "${SERVER-}" ] || { kill "$SERVER"; wait "$SERVER"; } 2>/dev/null; rm -rf "$D"' EXIT
cd "$D"
apt-get download -q "mariadb-server-core=$VERSION" "mariadb-client-core=$VERSION" "mariadb-client=$VERSION" >/dev/null 2>&1
for package in *.deb; do dpkg -x "$package" root; done
export LD_LIBRARY_PATH="$D/root/usr/lib/x86_64-linux-gnu"
bin="$D/root/usr/bin" sbin="$D/root/usr/sbin" share="$D/root/usr/share/mysql"
mkdir data
{ printf 'CREATE DATABASE mysql;\nUSE mysql;\n'; cat "$share"/*_system_tables.sql "$share"/*_system_tables_data.sql; } |
    "$sbin/mariadbd" --no-defaults --bootstrap --user="$(id -un)" --datadir="$D/data" --lc-messages-dir="$share" \
        >bootstrap.log 2>&1 || { cat bootstrap.log; exit 1; }
"$sbin/mariadbd" --no-defaults --user="$(id -un)" --datadir="$D/data" --lc-messages-dir="$share" --socket="$D/s" \
    --skip-networking --skip-grant-tables --log-bin=log --binlog-format=ROW --server-id=1 >server.log 2>&1 &
SERVER=$!
sql() { "$bin/mariadb" --no-defaults --socket="$D/s" --batch --skip-column-names -e "$1"; }
for _ in $(seq 300); do sql 'SELECT 1' >/dev/null 2>&1 && break; sleep 0.1; done
echo "MariaDB $(sql 'SELECT version(), @@binlog_format' | tr '\t' ' ')"
sql "CREATE DATABASE d;
CREATE TABLE d.precise (id INT PRIMARY KEY, s BIGINT UNSIGNED GENERATED ALWAYS AS ROW START,
    e BIGINT UNSIGNED GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (s, e)) ENGINE=InnoDB WITH SYSTEM VERSIONING;
CREATE TABLE d.timed (id INT PRIMARY KEY) ENGINE=InnoDB WITH SYSTEM VERSIONING;
INSERT INTO d.precise (id) VALUES (1);
INSERT INTO d.timed (id) VALUES (2);"
sql 'SHOW BINLOG EVENTS' | awk -F'\t' '$3 ~ /Query|Table_map|Write_rows/ && $6 !~ /CREATE/ { print $3 ": " $6 }' >seen
grep -E 'precise|timed|INSERT|Write' seen
grep -q 'Query: .*INSERT INTO d.precise' seen || { echo 'changed: the statement is not in the log'; exit 1; }
! grep -q 'Table_map: .*precise' seen || { echo 'changed: rows of the table are in the log'; exit 1; }
grep -q 'Table_map: .*timed' seen || { echo 'changed: rows of the other table are not in the log'; exit 1; }
echo 'as it was seen: versions told by transactions put the statement into a log of rows'
