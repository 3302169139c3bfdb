//! What the stores in SQL databases share: rows, and the outcomes that follow from them.

use sqlx::{ColumnIndex, Decode, Error, Row, Type};

use super::{
    super::record::{Device, KeyId, Seed, TokenDigest},
    EndReason, Ended, Lineage, SessionId, SessionRecord, StoreError, StoreErrorKind,
};
use crate::time::UnixMillis;

/// A row whose columns are of the types that the tables are made of.
pub(super) trait Columns<'r>: Row {
    fn text(&'r self, index: usize) -> Result<Option<&'r str>, Error>;
    fn bytes(&'r self, index: usize) -> Result<Option<&'r [u8]>, Error>;
    fn number(&'r self, index: usize) -> Result<Option<i64>, Error>;
}

impl<'r, R: Row> Columns<'r> for R
where
    usize: ColumnIndex<R>,
    &'r str: Decode<'r, R::Database> + Type<R::Database>,
    &'r [u8]: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    fn text(&'r self, index: usize) -> Result<Option<&'r str>, Error> {
        self.try_get(index)
    }

    fn bytes(&'r self, index: usize) -> Result<Option<&'r [u8]>, Error> {
        self.try_get(index)
    }

    fn number(&'r self, index: usize) -> Result<Option<i64>, Error> {
        self.try_get(index)
    }
}

/// Reads a session from the columns `id, subject, created_at, last_used_at, expires_at,
/// absolute_end, ended_at, end_reason, label, user_agent, ip, generation, current, previous, seed,
/// key_id`.
pub(super) fn read<'r>(row: &'r impl Columns<'r>) -> Result<(SessionRecord, Lineage), StoreError> {
    let number = |index| there(row.number(index));
    let millis = |index| number(index).map(UnixMillis::new);
    let text = |index| row.text(index).map_err(unreadable);
    let digest = |bytes: Option<&[u8]>| bytes.map(exact).transpose();
    let mut device = Device::new().with_ip(text(10)?.and_then(|ip| ip.parse().ok()));
    device.label = text(8)?.map(str::to_owned);
    device.user_agent = text(9)?.map(str::to_owned);
    let ended = row.number(6).map_err(unreadable)?;
    let record = SessionRecord {
        id: read_id(row, 0)?,
        subject: there(row.text(1))?.to_owned(),
        created_at: millis(2)?,
        last_used_at: millis(3)?,
        expires_at: millis(4)?,
        absolute_end: millis(5)?,
        device,
        ended: match ended {
            Some(at) => Some(ended_at(at, text(7)?)),
            None => None,
        },
    };
    let lineage = Lineage {
        generation: number(11)? as u64,
        current: TokenDigest::from_bytes(exact(there(row.bytes(12))?)?),
        previous: digest(row.bytes(13).map_err(unreadable)?)?.map(TokenDigest::from_bytes),
        seed: digest(row.bytes(14).map_err(unreadable)?)?.map(Seed::from_bytes),
        key: KeyId::new(u32::try_from(number(15)?).map_err(|_| StoreErrorKind::Corrupt)?),
        rotated_at: record.last_used_at,
    };
    Ok((record, lineage))
}

/// Reads an end from the columns `id, ended_at, end_reason`.
pub(super) fn read_end<'r>(row: &'r impl Columns<'r>) -> Result<(SessionId, Ended), StoreError> {
    let reason = row.text(2).map_err(unreadable)?;
    Ok((read_id(row, 0)?, ended_at(there(row.number(1))?, reason)))
}

pub(super) fn read_id<'r>(
    row: &'r impl Columns<'r>,
    index: usize,
) -> Result<SessionId, StoreError> {
    Ok(SessionId::from_bytes(exact(there(row.bytes(index))?)?))
}

fn ended_at(at: i64, reason: Option<&str>) -> Ended {
    Ended {
        at: UnixMillis::new(at),
        reason: reason.map_or(EndReason::Other, EndReason::from_name),
    }
}

fn there<T>(column: Result<Option<T>, Error>) -> Result<T, StoreError> {
    column
        .map_err(unreadable)?
        .ok_or_else(|| StoreErrorKind::Corrupt.into())
}

fn exact<const N: usize>(bytes: &[u8]) -> Result<[u8; N], StoreError> {
    bytes.try_into().map_err(|_| StoreErrorKind::Corrupt.into())
}

fn unreadable(error: Error) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt).with_source(error)
}

/// The day after which a session may be over. It changes once a day, so that a rotation seldom
/// touches the index that clearing away goes by.
pub(super) fn sweep_day(end: UnixMillis) -> i64 {
    end.as_millis().div_euclid(24 * 60 * 60 * 1_000)
}
