//! How much a client may send and ask for.

/// The limits of requests. The engine has its own for what a row is; where both know one (names, keys, rows) the
/// embedder gives both the same figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest table name, in bytes.
    pub max_name_bytes: usize,
    /// The longest key, in bytes of its canonical text.
    pub max_key_bytes: usize,
    /// The longest row: a whole body, or a line of NDJSON.
    pub max_row_bytes: usize,
    /// The longest JSON body that is not one row: an array of rows, a declaration. It is held in memory whole.
    pub max_body_bytes: u64,
    /// The longest NDJSON body. It streams, so this bounds time rather than memory.
    pub max_stream_bytes: u64,
    /// The largest component that can be uploaded. It is held in memory whole while it is compiled.
    pub max_component_bytes: u64,
    /// The most rows of a JSON array.
    pub max_rows: usize,
    /// How many events a page has when the client does not say.
    pub default_page: u32,
    /// The most events of a page.
    pub max_page: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_name_bytes: 255,
            max_key_bytes: 1024,
            max_row_bytes: 1 << 20,
            max_body_bytes: 16 << 20,
            max_stream_bytes: 1 << 30,
            max_component_bytes: 64 << 20,
            max_rows: 100_000,
            default_page: 1_000,
            max_page: 10_000,
        }
    }
}
