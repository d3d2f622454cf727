//! Drains a PostgreSQL database into nothing, and prints how fast: changes that wait in its slot, or its tables' rows.
//!
//! `drain_postgres URL SLOT PUBLICATION changes|rows COUNT`: ends after that many changes or rows.

use std::time::{Duration, Instant};

use cdc_sources::postgres::{Feed, Options};
use cdc_sources::{Action, Feed as _, Step};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, url, slot, publication, what, count] = arguments.as_slice() else {
        return Err("usage: drain_postgres URL SLOT PUBLICATION changes|rows COUNT".into());
    };
    let count: u64 = count.parse()?;
    let options = Options {
        slot: slot.clone(),
        publication: publication.clone(),
        snapshot: what == "rows",
        ..Options::new(url.clone())
    };
    let began = Instant::now();
    let mut feed = Feed::open(options, None).await?;
    let opened = began.elapsed();
    let (mut changes, mut bytes, mut portions) = (0u64, 0usize, 0u64);
    while changes < count {
        let portion = feed.next().await?;
        portions += 1;
        for step in &portion.steps {
            if let Step::Change(change) = step
                && (change.action == Action::Read) == (what == "rows")
            {
                changes += 1;
                bytes += change.image.as_ref().map_or(0, String::len);
            }
        }
        feed.confirm(&portion.checkpoint);
    }
    let took = began.elapsed();
    println!(
        "{changes} {what} in {portions} portions, {bytes} bytes of images: {:.3} s ({:.3} s of it to open), {:.0} per \
         second, {:.3} s of CPU, {} KiB at most",
        took.as_secs_f64(),
        opened.as_secs_f64(),
        changes as f64 / took.as_secs_f64(),
        cpu_time()?.as_secs_f64(),
        memory_kib_max()?,
    );
    Ok(())
}

/// What this process has computed so far.
fn cpu_time() -> Result<Duration, Box<dyn std::error::Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or("no process")?.1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    // Linux counts in hundredths of a second here.
    Ok(Duration::from_millis(ticks * 10))
}

fn memory_kib_max() -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no peak of memory")?;
    Ok(line.trim_end_matches(" kB").trim().parse()?)
}
