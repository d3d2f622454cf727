//! What an answer and a request cost: `cargo bench -p cdc-rest`. No harness: the best of several rounds is enough to
//! see whether a change costs something.

use std::hint::black_box;
use std::time::Instant;

use cdc_rest::envelope::{Format, Subject};
use cdc_rest::{
    Column, ColumnType, EventRef, InsertBody, Limits, LineSplitter, Operation, OriginRef, Relation, RequestHead,
    TableSchema, route, write_captured, write_event,
};

fn main() {
    let row = br#"{"id":"user_123","email":"john@example.com","name":"John Doe","created_at":1699380000000,"updated_at":1699380000000,"address":"12 Long Street"}"#;
    let insert = EventRef {
        sequence: 123_456_789,
        timestamp_ms: 1_699_380_000_000,
        table: "users",
        operation: Operation::Insert,
        before: None,
        after: Some(row),
        schema_version: 3,
        origin: None,
    };
    let origin = OriginRef {
        source: "postgres",
        transaction: Some("741"),
        position: Some("0/16B3748/1"),
        snapshot: false,
        committed_at_ms: Some(1_699_380_000_000),
        unavailable: None,
    };
    let update = EventRef { operation: Operation::Update, before: Some(row), origin: Some(origin), ..insert };
    let mut out = Vec::with_capacity(1 << 16);
    let limits = Limits::default();

    measure("write_captured, insert", 1, || {
        out.clear();
        write_captured(&mut out, black_box(&insert));
    });
    measure("write_captured, insert, new Vec", 1, || {
        let mut out = Vec::new();
        write_captured(&mut out, black_box(&insert));
        black_box(out);
    });
    measure("write_event, update with origin", 1, || {
        out.clear();
        write_event(&mut out, black_box(&update));
    });
    let schema = schema();
    let subject =
        Subject { event: update, id: "evt_1699380000000_21i3v9", key: "user_123", schema: &schema, subscription: None };
    for &format in Format::READABLE {
        measure(&format!("Format::write, {}, update with origin", format.as_str()), 1, || {
            out.clear();
            format.write(&mut out, black_box(&subject));
        });
    }
    let post = RequestHead {
        method: "POST",
        path: "/data/users",
        content_type: Some("application/json"),
        ..RequestHead::default()
    };
    measure("route, POST /data/users", 1, || {
        let _ = black_box(route(black_box(&post), &limits));
    });
    let events = RequestHead {
        method: "GET",
        path: "/events",
        query: Some("table=users&operation=INSERT&after=1000&limit=100"),
        ..RequestHead::default()
    };
    measure("route, GET /events with four parameters", 1, || {
        let _ = black_box(route(black_box(&events), &limits));
    });

    let lines: Vec<u8> = std::iter::repeat_n([row.as_slice(), b"\n"].concat(), 1000).flatten().collect();
    measure("LineSplitter, per row, chunks of 16 KiB", 1000, || {
        let mut splitter = LineSplitter::new(&limits);
        for chunk in lines.chunks(16 << 10) {
            splitter.push(chunk);
            while let Some(line) = splitter.next_line() {
                black_box(line);
            }
        }
    });
    let array = [b"[".as_slice(), &vec![row.as_slice(); 1000].join(&b','), b"]"].concat();
    measure("InsertBody, per row", 1000, || {
        let _ = black_box(InsertBody::parse(black_box(&array), &limits));
    });
}

/// Of the row, as if it came from PostgreSQL.
fn schema() -> TableSchema {
    let column = |(name, column_type, native): (&str, ColumnType, &str)| Column {
        name: name.into(),
        column_type,
        nullable: name != "id",
        native_type: Some(native.into()),
    };
    let columns = [
        ("id", ColumnType::String, "character varying(20)"),
        ("email", ColumnType::String, "text"),
        ("name", ColumnType::String, "text"),
        ("created_at", ColumnType::Number, "bigint"),
        ("updated_at", ColumnType::Number, "numeric(20,0)"),
        ("address", ColumnType::String, "text"),
    ];
    TableSchema {
        name: "users".into(),
        columns: columns.into_iter().map(column).collect(),
        primary_key: vec!["id".into()],
        version: 3,
        relation: Some(Relation {
            source: "postgres".into(),
            connector: "postgresql".into(),
            database: "shop".into(),
            namespace: "public".into(),
            name: "users".into(),
        }),
    }
}

fn measure(name: &str, units: u32, mut run: impl FnMut()) {
    let repetitions = 200_000 / units;
    let best = (0..7)
        .map(|_| {
            let start = Instant::now();
            (0..repetitions).for_each(|_| run());
            start.elapsed().as_nanos() as f64 / f64::from(repetitions * units)
        })
        .fold(f64::INFINITY, f64::min);
    println!("{best:8.1} ns  {name}");
}
