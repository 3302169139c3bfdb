//! What the stores in SQL databases share: rows.

use sqlx::{ColumnIndex, Decode, Row, Type};

use super::{ApiKeyId, ApiKeyRecord, StoreError, StoreErrorKind, StoredKey};
use crate::{api_key::format::ApiKeyDigest, store_error::sql::failed, time::UnixMillis};

/// Reads a key from the columns `id, subject, name, scopes, networks, request_limit, created_at,
/// expires_at, last_used_at, replaces, is_replaced, revoked_at, digest`.
pub(super) fn read<'r, R>(row: &'r R) -> Result<StoredKey, StoreError>
where
    R: Row,
    usize: ColumnIndex<R>,
    &'r str: Decode<'r, R::Database> + Type<R::Database>,
    &'r [u8]: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    bool: Decode<'r, R::Database> + Type<R::Database>,
{
    let corrupt = || StoreError::new(StoreErrorKind::Corrupt);
    let millis = |index: usize| -> Result<Option<UnixMillis>, StoreError> {
        let millis: Option<i64> = row.try_get(index).map_err(failed)?;
        Ok(millis.map(UnixMillis::new))
    };
    let text = |index: usize| row.try_get::<&str, _>(index).map_err(failed);
    let limit: Option<i64> = row.try_get(5).map_err(failed)?;
    let replaces: Option<&str> = row.try_get(9).map_err(failed)?;
    let networks = text(4)?.split_whitespace().map(str::parse);
    let digest: &[u8] = row.try_get(12).map_err(failed)?;
    Ok(StoredKey {
        record: ApiKeyRecord {
            id: id_of(row, 0)?,
            subject: text(1)?.into(),
            name: text(2)?.into(),
            scopes: text(3)?.split_whitespace().map(Into::into).collect(),
            networks: networks.collect::<Result<_, _>>().map_err(|_| corrupt())?,
            limit: limit
                .map(u32::try_from)
                .transpose()
                .map_err(|_| corrupt())?,
            created_at: millis(6)?.ok_or_else(corrupt)?,
            expires_at: millis(7)?.ok_or_else(corrupt)?,
            last_used_at: millis(8)?,
            replaces: replaces
                .map(str::parse)
                .transpose()
                .map_err(|_| corrupt())?,
            is_replaced: row.try_get(10).map_err(failed)?,
            revoked_at: millis(11)?,
        },
        digest: ApiKeyDigest::from_bytes(digest.try_into().map_err(|_| corrupt())?),
    })
}

pub(super) fn id_of<'r, R>(row: &'r R, index: usize) -> Result<ApiKeyId, StoreError>
where
    R: Row,
    usize: ColumnIndex<R>,
    &'r str: Decode<'r, R::Database> + Type<R::Database>,
{
    let id: &str = row.try_get(index).map_err(failed)?;
    id.parse().map_err(|_| StoreErrorKind::Corrupt.into())
}
