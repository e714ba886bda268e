//! A controller that is lost and comes back from a backup, through the real binaries and under a fleet that lives on.

mod errors;
mod fleet;
mod live;

use muster_server::store::{Db, Source};
use muster_tests::Controller;

/// Something read from the database of a controller that does not run.
fn from_database<T>(controller: &Controller, read: impl AsyncFnOnce(&Db) -> T) -> T {
    let source = match controller.database_url() {
        Some(url) => Source::Postgres(url),
        None => Source::Sqlite(controller.data_dir()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let db = Db::open(&source).await.expect("the controller's database");
        let found = read(&db).await;
        db.close().await;
        found
    })
}
