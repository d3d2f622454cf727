//! A server that replays a log: it speaks enough of MySQL's protocol to let the source in, answers what the source asks
//! from a description, and then sends the events of a log that a real server wrote, as they are.
//!
//! It is no model of a server: what it answers is only what the log's server would have said of its version, its
//! settings and its tables. Statements that change a session are taken to succeed; a question about what is not
//! described has an empty answer.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::log::{self, Log};

/// A table, as the information schema would describe it.
#[derive(Clone, Debug, Default)]
pub struct Described {
    pub namespace: String,
    pub relation: String,
    pub columns: Vec<Column>,
    /// The primary key's columns.
    pub key: Vec<String>,
    /// How many parts of its indexes are expressions.
    pub expressions: usize,
    /// What a query for its rows is answered with, as text.
    pub rows: Vec<Vec<Option<Vec<u8>>>>,
}

#[derive(Clone, Debug)]
pub struct Column {
    name: String,
    /// `varchar(10)`, as the information schema says it.
    column_type: String,
    charset: Option<String>,
    nullable: bool,
}

impl Described {
    /// A table and its columns, each as `name type [charset NAME] [null]`, one a line.
    pub fn new(name: &str, key: &[&str], columns: &str) -> Described {
        let (namespace, relation) = name.split_once('.').unwrap();
        let columns = columns.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| {
            let (name, rest) = line.split_once(' ').unwrap();
            let (rest, nullable) = rest.strip_suffix(" null").map_or((rest, false), |rest| (rest, true));
            let (column_type, charset) = match rest.split_once(" charset ") {
                Some((column_type, charset)) => (column_type, Some(charset.to_owned())),
                None => (rest, None),
            };
            Column { name: name.into(), column_type: column_type.into(), charset, nullable }
        });
        Described {
            namespace: namespace.into(),
            relation: relation.into(),
            columns: columns.collect(),
            key: key.iter().map(|&column| column.into()).collect(),
            ..Described::default()
        }
    }

    fn definition(&self) -> String {
        let mut lines: Vec<String> =
            self.columns.iter().map(|column| format!("  `{}` {}", column.name, column.column_type)).collect();
        if !self.key.is_empty() {
            lines.push(format!("  PRIMARY KEY (`{}`)", self.key.join("`,`")));
        }
        format!("CREATE TABLE `{}` (\n{}\n) ENGINE=InnoDB", self.relation, lines.join(",\n"))
    }
}

impl Column {
    fn told(&self, what: &str) -> Option<String> {
        let data_type = self.column_type.split(['(', ' ']).next().unwrap_or_default();
        let inside =
            self.column_type.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(inside, _)| inside);
        let numbers: Vec<u64> = inside.unwrap_or_default().split(',').filter_map(|text| text.parse().ok()).collect();
        let first = numbers.first().copied();
        let width = match self.charset.as_deref() {
            Some("utf8mb4") => 4,
            Some("utf8mb3" | "utf8") => 3,
            _ => 1,
        };
        match what {
            "COLUMN_NAME" => Some(self.name.clone()),
            "DATA_TYPE" => Some(data_type.into()),
            "COLUMN_TYPE" => Some(self.column_type.clone()),
            "IS_NULLABLE" => Some(if self.nullable { "YES" } else { "NO" }.into()),
            "CHARACTER_SET_NAME" => self.charset.clone(),
            "CHARACTER_OCTET_LENGTH" => match data_type {
                "char" | "varchar" | "binary" | "varbinary" => first.map(|length| (length * width).to_string()),
                _ => None,
            },
            "NUMERIC_PRECISION" if matches!(data_type, "decimal" | "bit") => first.map(|number| number.to_string()),
            "NUMERIC_SCALE" if data_type == "decimal" => numbers.get(1).map(u64::to_string),
            "DATETIME_PRECISION" if matches!(data_type, "time" | "datetime" | "timestamp") => {
                Some(first.unwrap_or(0).to_string())
            }
            "GENERATION_EXPRESSION" | "EXTRA" => Some(String::new()),
            _ => None,
        }
    }
}

/// What the server is and has.
pub struct Server {
    pub version: String,
    pub log: Log,
    pub tables: Vec<Described>,
    /// The transactions before the log, if transactions have identifiers.
    pub previous: Option<String>,
    /// Commands that asked for the log.
    pub dumps: Mutex<Vec<Vec<u8>>>,
    /// Everything that was asked, for whoever looks for what went wrong.
    pub asked: Mutex<Vec<String>>,
}

/// A running server.
pub struct Replay {
    pub port: u16,
    pub server: Arc<Server>,
}

enum Answer {
    Done,
    /// Columns, each with whether it is a number, and values as text.
    Rows(Vec<(String, bool)>, Vec<Vec<Option<Vec<u8>>>>),
    Refused(u16, String),
}

impl Replay {
    pub fn start(version: &str, log: Log, tables: Vec<Described>, previous: Option<&str>) -> Replay {
        let server = Server {
            version: version.into(),
            log,
            tables,
            previous: previous.map(str::to_owned),
            dumps: Mutex::default(),
            asked: Mutex::default(),
        };
        let server = Arc::new(server);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = Arc::clone(&server);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = Arc::clone(&serving);
                // A client that goes away ends its thread.
                std::thread::spawn(move || serving.serve(stream));
            }
        });
        Replay { port, server }
    }

    pub fn url(&self) -> String {
        format!("mysql://reader:secret@127.0.0.1:{}?ssl-mode=disabled", self.port)
    }
}

impl Server {
    fn serve(&self, stream: TcpStream) -> Option<()> {
        // Answers are many small packets.
        stream.set_nodelay(true).ok()?;
        let mut wire = Wire { stream, sequence: 0 };
        let mut hello = vec![10];
        hello.extend(self.version.as_bytes());
        hello.extend(b"\0\x01\0\0\0abcdefgh\0");
        // Protocol 4.1, transactions, secure connections; plugins in the upper half.
        hello.extend([0x01, 0xa2, 45, 2, 0, 0x08, 0, 21]);
        hello.extend([0; 10]);
        hello.extend(b"ijklmnopqrst\0");
        // As these servers do by themselves: the newer way since 8.0.
        let newer = !self.version.starts_with("5.");
        hello.extend(if newer { &b"caching_sha2_password\0"[..] } else { b"mysql_native_password\0" });
        wire.send(&hello)?;
        let login = wire.packet()?;
        // Behind the user is a proof after its length.
        let at = login.windows(7).position(|window| window == b"reader\0")? + 7;
        let proof = &login[at + 1..][..usize::from(login[at])];
        if newer {
            assert_eq!(proof, sha2_proof(b"secret", b"abcdefghijklmnopqrst"));
            // The proof is all right; nothing more is wanted.
            wire.send(&[1, 3])?;
        } else {
            assert_eq!(proof.len(), 20);
        }
        wire.done()?;
        let mut statements: Vec<String> = Vec::new();
        loop {
            wire.sequence = 0;
            let command = wire.packet()?;
            let (kind, rest) = command.split_first()?;
            match kind {
                1 => return None,
                3 => {
                    let sql = String::from_utf8_lossy(rest).into_owned();
                    wire.answer(self.answer(&sql), false)?;
                }
                0x16 => {
                    let sql = String::from_utf8_lossy(rest).into_owned();
                    let parameters = sql.matches('?').count() as u16;
                    statements.push(sql);
                    let mut head = vec![0];
                    head.extend((statements.len() as u32).to_le_bytes());
                    head.extend([0, 0]);
                    head.extend(parameters.to_le_bytes());
                    head.extend([0, 0, 0]);
                    wire.send(&head)?;
                    if parameters > 0 {
                        (0..parameters).try_for_each(|_| wire.send(&definition("?")))?;
                        wire.end()?;
                    }
                }
                0x17 => {
                    let id = u32::from_le_bytes(rest[..4].try_into().ok()?) as usize;
                    let sql = bound(&statements[id - 1], &rest[9..]);
                    wire.answer(self.answer(&sql), true)?;
                }
                // A statement that is closed has no answer.
                0x19 => {}
                0x12 | 0x1e => {
                    self.dumps.lock().unwrap().push(command.clone());
                    self.dump(&mut wire, &command)?;
                }
                _ => wire.done()?,
            }
        }
    }

    /// Sends the log, and then nothing until the client goes.
    fn dump(&self, wire: &mut Wire, command: &[u8]) -> Option<()> {
        let from = if command[0] == 0x12 { u32::from_le_bytes(command[1..5].try_into().ok()?) } else { 4 };
        let mut body = u64::from(from).to_le_bytes().to_vec();
        body.extend(self.log.file.as_bytes());
        let first = log::event(4, 0x20, 0, &body, self.log.checksums);
        wire.send(&[&[0][..], &first].concat())?;
        for (at, event) in self.log.events.iter().enumerate() {
            let end = u32::from_le_bytes(event[13..17].try_into().ok()?);
            if at == 0 || end > from {
                wire.send(&[&[0][..], event].concat())?;
            }
        }
        wire.packet()?;
        None
    }

    fn variable(&self, name: &str) -> String {
        let name = name.trim_start_matches("@@").trim_start_matches("GLOBAL.").trim_start_matches("SESSION.");
        match name {
            "server_uuid" => "55778904-0299-11f1-b1b8-4ef0c4956feb".into(),
            "gtid_mode" => if self.previous.is_some() { "ON" } else { "OFF" }.into(),
            "gtid_executed" => self.previous.clone().unwrap_or_default(),
            "log_bin" | "server_id" => "1".into(),
            "binlog_format" => "ROW".into(),
            "binlog_row_image" => "FULL".into(),
            "binlog_checksum" => if self.log.checksums { "CRC32" } else { "NONE" }.into(),
            "max_allowed_packet" => "67108864".into(),
            "wait_timeout" => "28800".into(),
            "lower_case_table_names" => "0".into(),
            _ => String::new(),
        }
    }

    fn answer(&self, sql: &str) -> Answer {
        self.asked.lock().unwrap().push(sql.to_owned());
        let one = |columns: &[&str], row: Vec<String>| {
            let columns = columns.iter().map(|&column| (column.into(), false)).collect();
            Answer::Rows(columns, vec![row.into_iter().map(|text| Some(text.into_bytes())).collect()])
        };
        let old_words = ["5.", "8.0", "8.1", "8.2", "8.3"].iter().any(|version| self.version.starts_with(version));
        let upper = sql.to_ascii_uppercase();
        if upper.starts_with("SHOW MASTER STATUS") && !old_words {
            return Answer::Refused(1064, "You have an error in your SQL syntax near 'MASTER STATUS'".into());
        }
        if upper.starts_with("SHOW MASTER STATUS") || upper.starts_with("SHOW BINARY LOG STATUS") {
            let row = vec![
                self.log.file.clone(),
                self.log.begin.to_string(),
                String::new(),
                String::new(),
                self.variable("gtid_executed"),
            ];
            return one(&["File", "Position", "Binlog_Do_DB", "Binlog_Ignore_DB", "Executed_Gtid_Set"], row);
        }
        if upper.starts_with("SHOW BINARY LOGS") {
            return one(&["Log_name", "File_size"], vec![self.log.file.clone(), "1000".into()]);
        }
        if upper.starts_with("SHOW CREATE TABLE") {
            return match self.tables.iter().find(|table| sql.contains(&named(table))) {
                Some(table) => one(&["Table", "Create Table"], vec![table.relation.clone(), table.definition()]),
                None => Answer::Refused(1146, format!("Table doesn't exist: {sql}")),
            };
        }
        if !upper.starts_with("SELECT") {
            return if upper.starts_with("SHOW") {
                Answer::Rows(vec![("Value".into(), false)], Vec::new())
            } else {
                Answer::Done
            };
        }
        let (wanted, from) = sql["SELECT".len()..].split_once(" FROM ").unwrap_or((&sql["SELECT".len()..], ""));
        let wanted: Vec<&str> = wanted.split(',').map(str::trim).collect();
        self.select(sql, &wanted, from)
    }

    fn select(&self, sql: &str, wanted: &[&str], from: &str) -> Answer {
        let columns: Vec<(String, bool)> = wanted.iter().map(|&name| (name.to_owned(), false)).collect();
        let bytes = |text: Option<String>| text.map(String::into_bytes);
        let source = from.split_whitespace().next().unwrap_or_default().trim_start_matches("information_schema.");
        let of = |table: &Described| {
            !sql.contains("TABLE_NAME = '")
                || (sql.contains(&format!("TABLE_NAME = '{}'", table.relation))
                    && sql.contains(&format!("TABLE_SCHEMA = '{}'", table.namespace)))
        };
        let tables = || self.tables.iter().filter(|table| of(table));
        let mut rows: Vec<Vec<Option<String>>> = Vec::new();
        match source {
            "" => {
                let value = |name: &&str| match *name {
                    "VERSION()" => self.version.clone(),
                    "CURRENT_USER()" => "reader@%".into(),
                    name => self.variable(name),
                };
                rows.push(wanted.iter().map(|name| Some(value(name))).collect());
            }
            "TABLES" => rows.extend(tables().map(|table| {
                let value = |name: &&str| match *name {
                    "TABLE_SCHEMA" => Some(table.namespace.clone()),
                    "TABLE_NAME" => Some(table.relation.clone()),
                    "ENGINE" => Some("InnoDB".into()),
                    _ => None,
                };
                wanted.iter().map(value).collect()
            })),
            "COLUMNS" => {
                for table in tables() {
                    rows.extend(
                        table.columns.iter().map(|column| wanted.iter().map(|name| column.told(name)).collect()),
                    );
                }
            }
            "STATISTICS" if sql.contains("COLUMN_NAME IS NULL") => {
                rows.push(vec![tables().next().map(|table| table.expressions.to_string())]);
            }
            "STATISTICS" => {
                for table in tables() {
                    let part = |column: &String| {
                        let value = |name: &&str| match *name {
                            "INDEX_NAME" => Some("PRIMARY".into()),
                            "COLUMN_NAME" => Some(column.clone()),
                            "NON_UNIQUE" => Some("0".into()),
                            _ => None,
                        };
                        wanted.iter().map(value).collect()
                    };
                    rows.extend(table.key.iter().map(part));
                }
            }
            "COLLATION_CHARACTER_SET_APPLICABILITY" => {
                return Answer::Refused(1054, "Unknown column 'ID' in 'field list'".into());
            }
            "COLLATIONS" => {
                let known = [(8, "latin1"), (33, "utf8mb3"), (45, "utf8mb4"), (63, "binary"), (255, "utf8mb4")];
                rows.extend(known.map(|(id, name)| vec![Some(id.to_string()), Some(name.to_owned())]));
            }
            _ => {
                if let Some(table) = self.tables.iter().find(|table| sql.contains(&named(table))) {
                    // Everything is in the first chunk.
                    let rows = if sql.contains(" WHERE ") { Vec::new() } else { table.rows.clone() };
                    let number = |column: &Column| column.column_type.contains("int");
                    let columns = table.columns.iter().map(|column| (column.name.clone(), number(column)));
                    return Answer::Rows(columns.collect(), rows);
                }
            }
        }
        Answer::Rows(columns, rows.into_iter().map(|row| row.into_iter().map(bytes).collect()).collect())
    }
}

/// How a client proves that it knows a password: `SHA256(password) XOR SHA256(SHA256(SHA256(password)) nonce)`.
fn sha2_proof(password: &[u8], nonce: &[u8]) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let once = Sha256::digest(password);
    let mut mask = Sha256::new();
    mask.update(Sha256::digest(once));
    mask.update(nonce);
    once.iter().zip(mask.finalize()).map(|(one, other)| one ^ other).collect()
}

fn named(table: &Described) -> String {
    format!("`{}`.`{}`", table.namespace, table.relation)
}

/// A statement with its parameters, which are all text, in their places.
fn bound(sql: &str, mut rest: &[u8]) -> String {
    let count = sql.matches('?').count();
    if count == 0 {
        return sql.to_owned();
    }
    rest = &rest[count.div_ceil(8) + 1 + 2 * count..];
    let mut pieces = sql.split('?');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let length = usize::from(rest[0]);
        out.push_str(&format!("'{}'", String::from_utf8_lossy(&rest[1..=length])));
        out.push_str(piece);
        rest = &rest[1 + length..];
    }
    out
}

/// The definition of a column of text.
fn definition(name: &str) -> Vec<u8> {
    let mut out = b"\x03def\0\0\0".to_vec();
    out.extend(counted(name.as_bytes()));
    out.extend([0, 0x0c, 45, 0, 0, 1, 0, 0, 0xfd, 0, 0, 0, 0, 0]);
    out
}

/// The definition of a column of numbers of eight bytes.
fn number(name: &str) -> Vec<u8> {
    let mut out = definition(name);
    let end = out.len() - 6;
    // Its type, and that it has no sign.
    out[end..end + 2].copy_from_slice(&[8, 0x20]);
    out
}

fn counted(bytes: &[u8]) -> Vec<u8> {
    let mut out = match bytes.len() {
        length @ 0..=250 => vec![length as u8],
        length => [&[0xfc], &(length as u16).to_le_bytes()[..]].concat(),
    };
    out.extend(bytes);
    out
}

/// A client's connection. Whatever it does wrong ends it.
struct Wire {
    stream: TcpStream,
    sequence: u8,
}

impl Wire {
    fn packet(&mut self) -> Option<Vec<u8>> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head).ok()?;
        self.sequence = head[3].wrapping_add(1);
        let mut body = vec![0; u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize];
        self.stream.read_exact(&mut body).ok()?;
        Some(body)
    }

    fn send(&mut self, body: &[u8]) -> Option<()> {
        let mut out = (body.len() as u32).to_le_bytes();
        out[3] = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        self.stream.write_all(&[&out, body].concat()).ok()
    }

    fn done(&mut self) -> Option<()> {
        self.send(&[0, 0, 0, 2, 0, 0, 0])
    }

    fn end(&mut self) -> Option<()> {
        self.send(&[0xfe, 0, 0, 2, 0])
    }

    fn answer(&mut self, answer: Answer, binary: bool) -> Option<()> {
        match answer {
            Answer::Done => self.done(),
            Answer::Refused(code, message) => {
                let code = code.to_le_bytes();
                self.send(&[&[0xff, code[0], code[1]][..], b"#42000", message.as_bytes()].concat())
            }
            Answer::Rows(columns, rows) => {
                self.send(&[columns.len() as u8])?;
                let describe =
                    |(name, is_number): &(String, bool)| if *is_number { number(name) } else { definition(name) };
                columns.iter().try_for_each(|column| self.send(&describe(column)))?;
                self.end()?;
                for row in rows {
                    let mut out = Vec::new();
                    if binary {
                        out.push(0);
                        let mut nulls = vec![0; (row.len() + 9) / 8];
                        for (at, _) in row.iter().enumerate().filter(|(_, value)| value.is_none()) {
                            nulls[(at + 2) / 8] |= 1 << ((at + 2) % 8);
                        }
                        out.extend(nulls);
                    }
                    for (value, (_, is_number)) in row.into_iter().zip(&columns) {
                        match value {
                            Some(value) if binary && *is_number => {
                                let number: u64 = String::from_utf8(value).unwrap().parse().unwrap();
                                out.extend(number.to_le_bytes());
                            }
                            Some(value) => out.extend(counted(&value)),
                            None if binary => {}
                            None => out.push(0xfb),
                        }
                    }
                    self.send(&out)?;
                }
                self.end()
            }
        }
    }
}
