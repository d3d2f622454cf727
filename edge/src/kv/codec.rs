//! Bytes of heads, pages and records: numbers as LEB128, texts with their length before them.

use cdc_engine::store::StoreError;

/// Writes.
#[derive(Debug, Default)]
pub(super) struct Encoder(pub(super) Vec<u8>);

impl Encoder {
    pub(super) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    pub(super) fn id(&mut self, id: u128) {
        self.0.extend_from_slice(&id.to_be_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn optional(&mut self, bytes: Option<&[u8]>) {
        self.number(u64::from(bytes.is_some()));
        if let Some(bytes) = bytes {
            self.bytes(bytes);
        }
    }
}

/// Reads. What is not as it was written is the store's failure, never a panic.
#[derive(Debug)]
pub(super) struct Decoder<'a>(pub(super) &'a [u8]);

pub(super) fn damaged() -> StoreError {
    StoreError::Failed("a record in the key-value store is not as it was written".to_owned())
}

impl<'a> Decoder<'a> {
    pub(super) fn number(&mut self) -> Result<u64, StoreError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.take(1)? else { return Err(damaged()) };
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(damaged())
    }

    pub(super) fn length(&mut self) -> Result<usize, StoreError> {
        usize::try_from(self.number()?).map_err(|_| damaged())
    }

    pub(super) fn id(&mut self) -> Result<u128, StoreError> {
        let bytes = self.take(16)?;
        Ok(u128::from_be_bytes(bytes.try_into().map_err(|_| damaged())?))
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], StoreError> {
        let length = self.length()?;
        self.take(length)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, StoreError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| damaged())
    }

    pub(super) fn optional_text(&mut self) -> Result<Option<&'a str>, StoreError> {
        if self.number()? == 0 { Ok(None) } else { self.text().map(Some) }
    }

    pub(super) fn take(&mut self, bytes: usize) -> Result<&'a [u8], StoreError> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or_else(damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
