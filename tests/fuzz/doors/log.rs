//! What must hold of a segment's bytes, whatever they are: reading them ends, without a panic, and what follows the last
//! whole batch never takes away from what stands before it.

/// As `host/src/store/log` has them: a segment's header, a frame's header, and where things stand in that.
const SEGMENT_HEADER: usize = 64;
const HEADER: usize = 44;
const CRC: usize = 0;
const MARK: usize = 4;
const FLAGS: usize = 6;
const STORED: usize = 8;
const RAW: usize = 12;
const PAYLOAD_CRC: usize = 16;
const EVENTS: usize = 20;
const FIRST: usize = 28;
const LZ4: u8 = 1;

/// `recover` reads a segment and answers how many events it holds.
pub(crate) fn log(data: &[u8], recover: impl Fn(&[u8]) -> u64) {
    for data in [data, &mended(data)] {
        let events = recover(data);
        let start = &data[..data.len() / 2];
        if start.len() >= SEGMENT_HEADER {
            assert!(recover(start) <= events, "events are lost to what follows them");
        }
    }
}

/// The data with what random bytes never have: marks, lengths, sequence numbers and checksums that fit. What the frames
/// hold is left as it is, so that decoding it is put to the test too and not only refusing it.
fn mended(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    let mut at = SEGMENT_HEADER;
    let mut next = 1_u64;
    while let Some(room) = data.len().checked_sub(at + HEADER) {
        let frame = &mut data[at..];
        let stored = (u32_at(frame, STORED) as usize).min(room);
        put(frame, MARK, &0xCDC1_u16.to_le_bytes());
        put(frame, STORED, &(stored as u32).to_le_bytes());
        if frame[FLAGS] & LZ4 == 0 {
            put(frame, RAW, &(stored as u32).to_le_bytes());
        }
        put(frame, FIRST, &next.to_le_bytes());
        next += u64::from(u32_at(frame, EVENTS));
        let payload = crc32c::crc32c(&frame[HEADER..HEADER + stored]);
        put(frame, PAYLOAD_CRC, &payload.to_le_bytes());
        let header = crc32c::crc32c(&frame[MARK..HEADER]);
        put(frame, CRC, &header.to_le_bytes());
        at += HEADER + stored;
    }
    data
}

fn put(frame: &mut [u8], at: usize, bytes: &[u8]) {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
}

fn u32_at(frame: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]])
}
