//! What a source's position tells of itself, where an envelope shows it in pieces. Read leniently: an envelope never
//! fails for a position, it leaves out what it does not understand.

/// A PostgreSQL position: `<LSN>/<ordinal>`, the LSN of the transaction's commit as PostgreSQL writes it, the ordinal
/// of the change within. `0/16B3748/3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PostgresPlace {
    pub(super) lsn: u64,
    pub(super) ordinal: Option<u64>,
}

impl PostgresPlace {
    pub(super) fn parse(position: &str) -> Option<Self> {
        let mut pieces = position.splitn(3, '/');
        let mut half = || u32::from_str_radix(pieces.next()?, 16).ok();
        let lsn = u64::from(half()?) << 32 | u64::from(half()?);
        Some(Self { lsn, ordinal: pieces.next().and_then(leading_number) })
    }
}

/// A MariaDB or MySQL position: `<transaction>/<row>`, where the transaction is a GTID, or a log file and an offset in
/// it where the server has none: `0-1-42/7`, `binlog.000003:1234/7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BinlogPlace<'a> {
    pub(super) gtid: Option<&'a str>,
    pub(super) file: &'a str,
    pub(super) offset: u64,
    pub(super) row: u64,
}

impl<'a> BinlogPlace<'a> {
    pub(super) fn parse(position: Option<&'a str>, transaction: Option<&'a str>) -> Self {
        let position = position.unwrap_or_default();
        let (log, row) = match position.rsplit_once('/') {
            Some((log, row)) => (log, leading_number(row).unwrap_or(0)),
            None => (position, 0),
        };
        // A GTID of MySQL has a colon too, but no dot.
        let file = log.rsplit_once(':').filter(|(file, _)| file.contains('.'));
        let file = file.and_then(|(file, offset)| Some((file, offset.parse().ok()?)));
        let named = [transaction, Some(log)].into_iter().flatten().find(|name| is_gtid(name));
        let (file, offset) = file.unwrap_or(("", 0));
        Self { gtid: named, file, offset, row }
    }

    /// The server that wrote the transaction, which a GTID of MariaDB names; 0 if it is unknown.
    pub(super) fn server(&self) -> u64 {
        let server = self.gtid.and_then(|gtid| gtid.split('-').nth(1)).filter(|_| self.is_mariadb());
        server.and_then(|server| server.parse().ok()).unwrap_or(0)
    }

    fn is_mariadb(&self) -> bool {
        self.gtid.is_some_and(|gtid| !gtid.contains(':'))
    }
}

/// `domain-server-sequence`, or `uuid:number`.
fn is_gtid(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match name.rsplit_once(':') {
        Some((server, number)) => server.contains('-') && !server.contains('.') && digits(number),
        None => name.split('-').count() == 3 && name.split('-').all(digits),
    }
}

fn leading_number(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_postgresql_position_is_an_lsn_and_an_ordinal() {
        let place = |lsn, ordinal| Some(PostgresPlace { lsn, ordinal });
        assert_eq!(PostgresPlace::parse("0/16B3748/3"), place(23_803_720, Some(3)));
        assert_eq!(PostgresPlace::parse("16/B374D848/12.1"), place(0x16_B374_D848, Some(12)));
        assert_eq!(PostgresPlace::parse("0/16B3748"), place(23_803_720, None));
        for other in ["", "0", "0-1-42/7", "x/y/1"] {
            assert_eq!(PostgresPlace::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_binlog_position_is_a_gtid_or_a_file_and_an_offset_and_a_row() {
        let place = |position, transaction| {
            let place = BinlogPlace::parse(Some(position), transaction);
            (place.gtid, place.file, place.offset, place.row, place.server())
        };
        let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562:23";
        assert_eq!(place("0-7-42/3", Some("0-7-42")), (Some("0-7-42"), "", 0, 3, 7));
        assert_eq!(place("0-7-42/3", None), (Some("0-7-42"), "", 0, 3, 7));
        let of_uuid = format!("{uuid}/3");
        assert_eq!(place(&of_uuid, Some(uuid)), (Some(uuid), "", 0, 3, 0));
        assert_eq!(place("a-b-c.000003:120/3", Some("a-b-c.000003:120")), (None, "a-b-c.000003", 120, 3, 0));
        assert_eq!(place("", None), (None, "", 0, 0, 0));
        assert_eq!(place("é/é", None), (None, "", 0, 0, 0));
    }
}
