//! Drains a prepared log as fast as it goes, and prints the rate: `drain_mysql URL PATTERN CHANGES [CHECKPOINT]`.
//!
//! Without a checkpoint it prints one for the present and ends, so that changes can be made after it.

use std::time::Instant;

use cdc_sources::mysql::{Feed, Options};
use cdc_sources::{Checkpoint, Feed as _, Rules, Step};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, url, pattern, changes, rest @ ..] = arguments.as_slice() else {
        return Err("usage: drain_mysql URL PATTERN CHANGES [CHECKPOINT-FILE]".into());
    };
    let rules = Rules { include: vec![pattern.clone()], ..Rules::default() };
    let snapshot = std::env::var_os("SNAPSHOT").is_some();
    let options = Options { url: url.clone(), rules, snapshot, ..Options::default() };
    let wanted: usize = changes.parse()?;
    let checkpoint = match rest.first() {
        Some(file) => Some(Checkpoint(std::fs::read_to_string(file)?)),
        None => None,
    };
    let begun = Instant::now();
    let mut feed = Feed::open(options, checkpoint.as_ref()).await?;
    let (mut count, mut bytes, mut portions) = (0, 0, 0);
    loop {
        let portion = feed.next().await?;
        portions += 1;
        for step in &portion.steps {
            if let Step::Change(change) = step {
                count += 1;
                bytes += change.image.as_ref().map_or(0, String::len);
            }
        }
        feed.confirm(&portion.checkpoint);
        if count >= wanted {
            let seconds = begun.elapsed().as_secs_f64();
            if wanted == 0 {
                print!("{}", portion.checkpoint.0);
            } else {
                let rate = count as f64 / seconds;
                println!(
                    "{count} changes, {bytes} bytes of images, {portions} portions in {seconds:.2} s: {rate:.0}/s"
                );
                let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
                for line in status.lines().filter(|line| line.starts_with("VmHWM")) {
                    println!("{line}");
                }
            }
            return Ok(());
        }
    }
}
