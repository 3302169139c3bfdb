//! Bodies that are sent compressed.

use std::{fmt, io::Write as _, mem};

use bytes::{Buf as _, Bytes};
use flate2::write::GzDecoder;

use super::{fault::Fault, policy::KIB};

/// Undoes `Content-Encoding: gzip`, a step at a time, so that no frame becomes many at once.
pub(super) struct Decoder {
    gzip: GzDecoder<Vec<u8>>,
    /// What is still to be decoded.
    input: Bytes,
    read: u64,
    written: u64,
    max_read: u64,
    max_ratio: u64,
}

impl Decoder {
    /// Reads at most `max_read` bytes, and writes at most `max_ratio` times what it has read.
    pub(super) fn new(max_read: u64, max_ratio: u64) -> Self {
        Self {
            gzip: GzDecoder::new(Vec::new()),
            input: Bytes::new(),
            read: 0,
            written: 0,
            max_read,
            max_ratio,
        }
    }

    /// The next bytes to decode, once those before are.
    pub(super) fn push(&mut self, data: Bytes) {
        debug_assert!(self.input.is_empty(), "nothing is read while there is work");
        self.input = data;
    }

    pub(super) fn is_idle(&self) -> bool {
        self.input.is_empty()
    }

    /// Decodes a step of what is there.
    pub(super) fn step(&mut self) -> Result<Bytes, Fault> {
        let read = self.gzip.write(&self.input).map_err(|_| Fault::Encoding)?;
        // Something stands behind the end.
        if read == 0 {
            return Err(Fault::Encoding);
        }
        self.input.advance(read);
        self.read += read as u64;
        if self.read > self.max_read {
            return Err(Fault::BodySize);
        }
        self.take()
    }

    /// What is left, once all was pushed.
    pub(super) fn finish(&mut self) -> Result<Bytes, Fault> {
        self.gzip.try_finish().map_err(|_| Fault::Encoding)?;
        self.take()
    }

    fn take(&mut self) -> Result<Bytes, Fault> {
        let data = mem::take(self.gzip.get_mut());
        self.written += data.len() as u64;
        // A short body of one letter is no bomb.
        let most = self.read.saturating_mul(self.max_ratio).max(64 * KIB);
        match self.written <= most {
            true => Ok(data.into()),
            false => Err(Fault::Ratio),
        }
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("read", &self.read)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}
