//! The database, asked over its live connection.

use super::line::{Line, Verdict};

/// What the connection to SQLite says: where the data are, whether a commit outlives a power cut,
/// and who may read the file.
#[cfg(feature = "sqlite")]
pub async fn sqlite(pool: &sqlx::SqlitePool) -> Line {
    let asked = async {
        let file: String =
            sqlx::query_scalar("SELECT file FROM pragma_database_list WHERE name = 'main'")
                .fetch_one(pool)
                .await?;
        let sync: i64 = sqlx::query_scalar("PRAGMA synchronous")
            .fetch_one(pool)
            .await?;
        Ok::<_, sqlx::Error>((file, sync))
    };
    let (file, sync) = match asked.await {
        Ok(asked) => asked,
        Err(_) => return line(Verdict::Fails, "the database does not answer"),
    };
    if file.is_empty() {
        return line(
            Verdict::Operators,
            "the data are in memory and end with the process",
        );
    }
    if sync == 0 {
        return line(Verdict::Fails, "a commit does not wait for the disk");
    }
    if is_open_to_others(&file) {
        return line(Verdict::Fails, "others than its owner may read the file");
    }
    line(
        Verdict::Observed,
        "a file of its owner alone, synchronous, asked over the live connection",
    )
}

#[cfg(all(feature = "sqlite", unix))]
fn is_open_to_others(file: &str) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(file).is_ok_and(|file| file.mode() & 0o077 != 0)
}

#[cfg(all(feature = "sqlite", not(unix)))]
fn is_open_to_others(_: &str) -> bool {
    false
}

/// What the connection to PostgreSQL says: whether it is encrypted or does not leave the host,
/// whether a commit outlives a power cut, and whether its user may do everything.
#[cfg(feature = "postgres")]
pub async fn postgres(pool: &sqlx::PgPool) -> Line {
    let asked = sqlx::query_as::<_, (bool, bool, bool, bool)>(
        "SELECT coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false),
                coalesce(inet_client_addr() = inet_server_addr(), true),
                coalesce((SELECT rolsuper FROM pg_roles WHERE rolname = current_user), true),
                current_setting('synchronous_commit') <> 'off'",
    );
    match asked.fetch_one(pool).await {
        Err(_) => line(Verdict::Fails, "the database does not answer"),
        Ok((false, false, _, _)) => line(
            Verdict::Fails,
            "the connection leaves the host and is not encrypted",
        ),
        Ok((_, _, true, _)) => line(Verdict::Fails, "the user is a superuser"),
        Ok((_, _, _, false)) => line(Verdict::Fails, "a commit does not wait for the disk"),
        Ok(_) => line(
            Verdict::Observed,
            "encrypted or local, not a superuser, synchronous: asked over the live connection",
        ),
    }
}

fn line(verdict: Verdict, how: &'static str) -> Line {
    Line::new(
        "database",
        "sessions are stored securely in a database",
        verdict,
        how,
    )
    .set_by("DATABASE_URL")
    .to_do(
        "use a file that only the service's user may read, or a server over TLS as a user that \
         owns its own tables alone",
    )
}
