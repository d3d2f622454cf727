#!/usr/bin/env bash
# MariaDB 10.11.14 with binlog_format=ROW: of a temporary table nothing is in the binary log (not its CREATE, its rows, its
# ALTER or its DROP), but RENAME TABLE of it is. If there is a permanent table of the same name, whoever goes by the log has
# that one renamed, though it never was.
#
# Seen with Debian's packages of that version: after CREATE TEMPORARY TABLE t; RENAME TABLE t TO u; the log has the Query
# event "RENAME TABLE t TO u", and the permanent table t is still there. Fails if that changes. Needs apt-get (Debian 12,
# amd64), and nothing else that runs.
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
sql "CREATE DATABASE d; USE d; CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1);
CREATE TEMPORARY TABLE t (other INT); INSERT INTO t VALUES (2); ALTER TABLE t ADD COLUMN more INT; RENAME TABLE t TO u;
DROP TEMPORARY TABLE u;"
sql 'SHOW BINLOG EVENTS' | awk -F'\t' '$3 == "Query" { print $6 }' >seen
cat seen
echo "tables that are there: $(sql 'SHOW TABLES FROM d' | tr '\n' ' ')"
[ "$(sql 'SHOW TABLES FROM d')" = t ] || { echo 'changed: the permanent table is another'; exit 1; }
grep -q 'RENAME TABLE t TO u' seen || { echo 'changed: the RENAME is not in the log'; exit 1; }
! grep -qE 'TEMPORARY|ADD COLUMN' seen || { echo 'changed: more of the temporary table is in the log'; exit 1; }
echo 'as it was seen: of a temporary table the log has the RENAME alone'
