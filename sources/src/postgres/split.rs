//! Where a large table is cut into parts that are read at once: at keys that a sample of its rows has.
//!
//! Parts that end and begin at the same key leave no row out, whatever the key is. So a sample only has to be good for
//! parts of about the same size, and nothing of it has to stay true.

use super::Options;
use super::catalog::{Catalog, Published, number};
use super::wire::{Row, WireError, identifier};

/// So many pages are looked at, about.
const SAMPLE_PAGES: u64 = 200;

/// More rows than these are not in a page.
const PAGE_ROWS_MAX: u64 = 300;

/// So many parts for each reader: those that end first go on with another one.
const PARTS_EACH: u64 = 4;

/// Keys at which parts of a table end, but for the last of them; none, if it is to be read as a whole. In a transaction
/// that has locked the table.
pub(super) fn bounds(
    catalog: &mut Catalog,
    options: &Options,
    table: &Published,
    source: &str,
    key: &[String],
    conditions: &str,
) -> Result<Vec<Vec<String>>, WireError> {
    let readers = u64::try_from(options.read_parallelism).unwrap_or(1);
    if readers < 2 {
        return Ok(Vec::new());
    }
    let pages = pages(catalog, table.oid)?;
    if pages == 0 || pages * PAGE_ROWS_MAX < options.read_range_rows {
        return Ok(Vec::new());
    }
    let per_cent = (SAMPLE_PAGES * 100) as f64 / pages as f64;
    let parts_max = readers * PARTS_EACH;
    let sql = sample_sql(source, key, conditions, per_cent.min(100.0), parts_max);
    // A table that can't be sampled is read as a whole.
    catalog.connection.query("SAVEPOINT sample")?;
    let sample = match catalog.connection.query(&sql) {
        Ok(sample) => sample,
        Err(WireError::Server(error)) => {
            tracing::debug!(table = table.relation, %error, "the table can't be sampled, and is read as a whole");
            catalog.connection.query("ROLLBACK TO SAVEPOINT sample")?;
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut keys = Vec::with_capacity(sample.len());
    let mut rows: u64 = 0;
    for row in sample {
        let mut cells: std::vec::IntoIter<Option<String>> = Row::into_iter(row);
        rows = number(&mut cells)?;
        keys.push(cells.collect::<Option<Vec<String>>>().ok_or(WireError::Protocol("a key that is null"))?);
    }
    let rows = (rows as f64 * 100.0 / per_cent.min(100.0)) as u64;
    Ok(choose(keys, rows, options.read_range_rows, parts_max))
}

/// How many pages a table has, with its partitions.
fn pages(catalog: &mut Catalog, oid: u32) -> Result<u64, WireError> {
    let sql = format!(
        "SELECT coalesce(sum(pg_relation_size(m.oid)), 0)::bigint / current_setting('block_size')::bigint \
         FROM pg_class m WHERE m.oid = {oid} OR m.oid IN (SELECT p.relid FROM pg_partition_tree({oid}) p WHERE p.isleaf)"
    );
    number(&mut super::catalog::one_row(catalog.connection.query(&sql)?)?)
}

/// How many rows the sample has, and keys that cut it into so many parts.
fn sample_sql(source: &str, key: &[String], conditions: &str, per_cent: f64, parts: u64) -> String {
    let named: Vec<String> =
        key.iter().enumerate().map(|(at, part)| format!("{} AS k{at}", identifier(part))).collect();
    let names: Vec<String> = (0..key.len()).map(|at| format!("k{at}")).collect();
    let order: Vec<String> = key.iter().map(|part| identifier(part)).collect();
    format!(
        "SELECT rows, {} FROM (SELECT {}, row_number() OVER (ORDER BY {}) AS at, count(*) OVER () AS rows \
         FROM {source} TABLESAMPLE SYSTEM ({per_cent}){conditions}) sample \
         WHERE at % greatest(rows / {parts}, 1) = 0 AND at < rows ORDER BY at",
        names.join(", "),
        named.join(", "),
        order.join(", "),
    )
}

/// Of keys in their order so many that the parts are of a good size, evenly.
fn choose(keys: Vec<Vec<String>>, rows: u64, range_rows: u64, parts_max: u64) -> Vec<Vec<String>> {
    if rows < range_rows.max(2) {
        return Vec::new();
    }
    let parts = (rows * PARTS_EACH / range_rows.max(1)).clamp(2, parts_max.max(2));
    let bounds = usize::try_from(parts - 1).unwrap_or(1).min(keys.len());
    let places: Vec<usize> = (1..=bounds).map(|bound| bound * keys.len() / (bounds + 1)).collect();
    let is_chosen = |at: usize| places.binary_search(&at).is_ok();
    keys.into_iter().enumerate().filter(|(at, _)| is_chosen(*at)).map(|(_, key)| key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(count: usize, rows: u64, range_rows: u64, parts_max: u64) -> Vec<usize> {
        let keys = (0..count).map(|key| vec![key.to_string()]).collect();
        choose(keys, rows, range_rows, parts_max).iter().map(|key| key[0].parse().unwrap_or(0)).collect()
    }

    #[test]
    fn a_table_is_cut_evenly_and_a_small_one_is_not_cut() {
        assert!(chosen(15, 99, 100, 16).is_empty());
        assert_eq!(chosen(15, 100, 100, 16), [3, 7, 11]);
        assert_eq!(chosen(15, 1_000_000, 100, 16), (0..15).collect::<Vec<_>>());
        assert_eq!(chosen(16, 1_000_000, 100, 16).len(), 15);
        assert_eq!(chosen(1, 1_000_000, 100, 16), [0]);
        assert!(chosen(0, 1_000_000, 100, 16).is_empty());
        assert_eq!(chosen(7, 10, 1, 8).len(), 7);
    }
}
