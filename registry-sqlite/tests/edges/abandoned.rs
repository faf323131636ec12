//! Reads whose callers leave.

use std::sync::Arc;

use feast_registry_core::ErrorKind;

use super::*;

const ENTITIES: usize = 50_000;

/// The threads of this process.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

#[tokio::test]
async fn callers_who_leave_do_not_pile_up_work() {
    let folder = Folder::new();
    let backend = Arc::new(folder.open().await);
    let fill = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ENTITIES}) \
         INSERT INTO entities (entity_name, project_id, last_updated_timestamp, entity_proto) \
         SELECT 'e' || i, 'p', 7, zeroblob(200) FROM n"
    );
    folder.stranger().execute_batch(&fill).expect("entities are written");
    assert_eq!(names(&backend).await.len(), ENTITIES);

    let before = threads();
    let reads = (0..200).map(|number| {
        let backend = Arc::clone(&backend);
        tokio::spawn(async move {
            let deadline = Deadline::after(Duration::from_millis(1 + number % 5));
            backend.read(&[Query::objects(Kind::Entity, None)], &deadline).await
        })
    });
    let reads: Vec<_> = reads.collect();
    let mut most = 0;
    for read in reads {
        if let Err(error) = read.await.expect("no panic") {
            assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
        }
        most = most.max(threads());
    }
    // 16 connections, and some for what else the tests of this process do.
    assert!(most <= before + 32, "{most} threads, {before} before");
    assert_eq!(names(&backend).await.len(), ENTITIES);
}
