//! The roles and bindings that every cluster has: written at a start where they are missing, and brought up
//! to date where they are not. One transaction of many objects, so that a start waits for one write.

use serde_json::Value;
use toono_access::{
    Object,
    bootstrap::{self, Reconciled, reconcile},
};
use toono_api::ApiError;
use toono_mvcc::{Expect, Key, Op, Owner, Txn};
use toono_store::CommitError;

use crate::{
    encode,
    server::{ApiServer, expired},
    verbs::whole_seconds,
};

/// Most objects of one transaction: etcd's own limit is 128 operations, and each has a condition.
const OBJECTS_AT_ONCE: usize = 50;
/// How often a start tries again when another replica starts at the same time.
const TRIES: usize = 8;
const GROUP: &str = "rbac.authorization.k8s.io";

/// Writes what is missing.
///
/// # Errors
/// When the store does not take it.
pub(crate) async fn ensure(server: &ApiServer) -> Result<(), ApiError> {
    for _ in 0..TRIES {
        let mut ops = Vec::new();
        for expected in bootstrap::objects() {
            ops.extend(operation(server, &expected)?);
        }
        match write(server, ops).await {
            Ok(()) => return Ok(()),
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(ApiError::Internal(error.to_string())),
        }
    }
    Err(ApiError::Internal("others keep changing the default roles".to_owned()))
}

async fn write(server: &ApiServer, mut ops: Vec<(Expect, Op)>) -> Result<(), CommitError> {
    while !ops.is_empty() {
        let rest = ops.split_off(ops.len().min(OBJECTS_AT_ONCE));
        server.inner.store.commit(Txn { guards: Vec::new(), ops }).await?;
        ops = rest;
    }
    Ok(())
}

/// What is to be written for a default object, if anything is.
fn operation(server: &ApiServer, expected: &Object) -> Result<Option<(Expect, Op)>, ApiError> {
    let kind = expected.kind();
    let key = Key::new(GROUP, kind.plural(), expected.namespace(), expected.name());
    let Some(entry) = server.inner.store.get(&key, None).map_err(expired)? else {
        return put(key, Expect::Absent, new(expected)?).map(Some);
    };
    // What cannot be read grants nothing, and is an administrator's to mend.
    let Ok(existing) = Object::parse(kind, &entry.value) else { return Ok(None) };
    match reconcile(&existing, expected) {
        Reconciled::Kept => Ok(None),
        Reconciled::Updated(object) => {
            put(key, Expect::At(entry.modified), json(&object)?).map(Some)
        }
        // With another UID it is another object to all who know it.
        Reconciled::Replaced(object) => {
            put(key, Expect::At(entry.modified), new(&object)?).map(Some)
        }
    }
}

fn put(key: Key, expect: Expect, object: Value) -> Result<(Expect, Op), ApiError> {
    let value = encode::draft_of(&object);
    Ok((expect, Op::Put { key, value, owner: Owner::PLATFORM }))
}

fn json(object: &Object) -> Result<Value, ApiError> {
    object.to_json().map_err(|error| ApiError::Internal(error.to_string()))
}

fn new(object: &Object) -> Result<Value, ApiError> {
    let mut object = json(object)?;
    let metadata = encode::metadata(&mut object)?;
    metadata.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".to_owned(), whole_seconds(ApiServer::now()).into());
    Ok(object)
}
