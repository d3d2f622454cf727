#!/usr/bin/env bash
# MariaDB 10.11.14 with binlog_format=ROW and FULL images: DELETE from a table WITH SYSTEM VERSIONING is no Delete_rows event
# in the binary log, but an Update_rows event that sets the row's end. So it is by a foreign key's CASCADE, too: the statement
# maps the child, and the only row event is the parent's Update_rows, although no column that the key refers to changed.
# Who goes by the kinds of events sees neither the row's deletion nor any reason for the child to lose rows.
#
# Seen: DELETE FROM parent leaves Table_map events of parent and child, one Update_rows and no Delete_rows, and both tables
# empty. Fails if that changes. Needs apt-get (Debian 12, amd64), and nothing else that runs.
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
    --skip-networking --skip-grant-tables --log-bin=log --binlog-format=ROW --binlog-row-image=FULL --server-id=1 \
    >server.log 2>&1 &
SERVER=$!
sql() { "$bin/mariadb" --no-defaults --socket="$D/s" --batch --skip-column-names -e "$1"; }
for _ in $(seq 300); do sql 'SELECT 1' >/dev/null 2>&1 && break; sleep 0.1; done
echo "MariaDB $(sql 'SELECT version(), @@binlog_format' | tr '\t' ' ')"
sql "CREATE DATABASE d; USE d;
CREATE TABLE parent (id INT PRIMARY KEY) ENGINE=InnoDB WITH SYSTEM VERSIONING;
CREATE TABLE child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE) ENGINE=InnoDB;
INSERT INTO parent VALUES (1); INSERT INTO child VALUES (10, 1); FLUSH BINARY LOGS; DELETE FROM parent"
sql "SHOW BINLOG EVENTS IN 'log.000002'" | awk -F'\t' '$3 ~ /Annotate|Table_map|_rows_/ { print $3 ": " $6 }' >seen
cat seen
left=$(sql 'SELECT (SELECT COUNT(*) FROM d.parent) + (SELECT COUNT(*) FROM d.child)')
[ "$left" = 0 ] || { echo "changed: $left rows are left"; exit 1; }
! grep -q Delete_rows seen || { echo 'changed: the deletion is logged as one'; exit 1; }
grep -q 'Table_map: .*d.child' seen || { echo 'changed: the child is not mapped'; exit 1; }
[ "$(grep -c Update_rows seen)" = 1 ] || { echo 'changed: there are other updates'; exit 1; }
echo 'as it was seen: rows of two tables were deleted, and the log has one update'
