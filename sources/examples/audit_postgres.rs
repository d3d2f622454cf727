//! Has a PostgreSQL table compared with nothing, and prints how long that takes: what it costs the database is for
//! whoever asks to measure.
//!
//! `audit_postgres URL SLOT PUBLICATION TABLE ROWS_PER_SECOND`: reads the tables, says `ready`, and begins when it is given
//! a line.

use std::time::Instant;

use cdc_sources::postgres::{Feed, Options};
use cdc_sources::{AuditOrder, AuditPace, AuditScope, Feed as _, Step, TableState};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, url, slot, publication, table, rate] = arguments.as_slice() else {
        return Err("usage: audit_postgres URL SLOT PUBLICATION TABLE ROWS_PER_SECOND".into());
    };
    let pace = AuditPace { rows_per_second: rate.parse()?, ..AuditPace::default() };
    let options = Options { slot: slot.clone(), publication: publication.clone(), ..Options::new(url.clone()) };
    let mut feed = Feed::open(options, None).await?;
    let follows =
        |feed: &Feed| feed.progress().tables.iter().any(|t| t.table == *table && t.state == TableState::Following);
    while !follows(&feed) {
        let portion = feed.next().await?;
        feed.confirm(&portion.checkpoint);
    }
    println!("ready");
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    let began = Instant::now();
    feed.audit(AuditOrder { table: table.clone(), scope: AuditScope::Sums, pace });
    let (mut rows, mut pieces) = (0, 0);
    'audit: loop {
        let portion = feed.next().await?;
        feed.confirm(&portion.checkpoint);
        for step in &portion.steps {
            match step {
                Step::Audited(piece) => {
                    rows += piece.rows.len();
                    pieces += 1;
                    if piece.is_last {
                        break 'audit;
                    }
                }
                Step::AuditOff { reason, .. } => return Err(reason.message.clone().into()),
                _ => {}
            }
        }
    }
    let took = began.elapsed().as_secs_f64();
    println!("{rows} rows in {pieces} pieces: {took:.3} s, {:.0} per second", rows as f64 / took);
    Ok(())
}
