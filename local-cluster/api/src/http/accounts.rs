//! Service accounts' tokens, reviews of who may what, evictions: small parts of the API that clients ask for.

use super::{
    Asked,
    objects::At,
    respond::{self, ApiBody},
};
use crate::{
    cluster::{LocalCluster, WriteOptions},
    error::ApiError,
    store::{self, DeleteOptions, Store},
};
use http::{Method, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::sync::{Arc, PoisonError};

/// Tokens that are held at a time; the oldest go first.
const TOKENS: usize = 4096;

impl LocalCluster {
    /// Whether a bearer token was issued here and is still valid.
    pub(crate) fn knows_token(&self, token: &str) -> bool {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens
            .get(token)
            .is_some_and(|(_, until)| *until > Timestamp::now())
    }

    /// A token for an account; it ends with the process at the latest.
    fn issue_token(&self, account: String, seconds: i64) -> (String, Timestamp) {
        let now = Timestamp::now();
        let until = now
            .saturating_add(SignedDuration::from_secs(seconds.clamp(600, 1 << 32)))
            .unwrap_or(now);
        let secret: [u8; 32] = rand::random();
        let token = format!("karez-sa-{}", hex::encode(secret));
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, (_, until)| *until > now);
        if tokens.len() >= TOKENS
            && let Some(oldest) = tokens
                .iter()
                .min_by_key(|(_, (_, until))| *until)
                .map(|(t, _)| t.clone())
        {
            tokens.remove(&oldest);
        }
        tokens.insert(token.clone(), (account, until));
        (token, until)
    }
}

/// `POST serviceaccounts/<name>/token`.
pub(super) fn token(cluster: &LocalCluster, asked: &Asked, at: &At) -> Result<Response<ApiBody>, ApiError> {
    if asked.method != Method::POST {
        return Err(ApiError::method_not_allowed());
    }
    let target = at.target();
    cluster.object(&at.kind, target.namespace, target.name)?;
    let mut request = asked.document()?;
    let seconds = request
        .pointer("/spec/expirationSeconds")
        .and_then(Value::as_i64)
        .unwrap_or(3600);
    let account = format!("system:serviceaccount:{}:{}", target.namespace, target.name);
    let (token, until) = cluster.issue_token(account, seconds);
    if !request.is_object() {
        request = json!({});
    }
    request["kind"] = json!("TokenRequest");
    request["apiVersion"] = json!("authentication.k8s.io/v1");
    if !request.get("spec").is_some_and(Value::is_object) {
        request["spec"] = json!({"audiences": []});
    }
    request["spec"]["expirationSeconds"] = json!(seconds);
    let until = until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    request["status"] = json!({"token": token, "expirationTimestamp": until});
    Ok(respond::json(StatusCode::CREATED, &request))
}

/// `POST pods/<name>/eviction`: a deletion.
pub(super) async fn evict(
    cluster: Arc<LocalCluster>,
    asked: Asked,
    at: At,
) -> Result<Response<ApiBody>, ApiError> {
    if asked.method != Method::POST {
        return Err(ApiError::method_not_allowed());
    }
    let body = if asked.body.is_empty() {
        Value::Null
    } else {
        asked.document()?
    };
    let options = DeleteOptions::from_body(body.get("deleteOptions").unwrap_or(&Value::Null));
    let write = WriteOptions {
        manager: asked.manager(),
        dry_run: options.dry_run,
        ..WriteOptions::default()
    };
    let plan =
        move |store: &Store, ctx: &store::Context<'_>| store::delete(store, at.target(), &options, ctx);
    cluster.write(write, plan).await?;
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    Ok(respond::json(StatusCode::CREATED, &status))
}

/// Reviews that clients create to learn what they may do. Everybody who gets in may do everything.
pub(super) fn review(
    cluster: &LocalCluster,
    asked: &Asked,
    group: &str,
    plural: &str,
) -> Option<Result<Response<ApiBody>, ApiError>> {
    if asked.method != Method::POST {
        return None;
    }
    let status = match (group, plural) {
        ("authorization.k8s.io", "selfsubjectaccessreviews" | "subjectaccessreviews") => {
            json!({"allowed": true})
        }
        ("authorization.k8s.io", "selfsubjectrulesreviews") => json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}], "incomplete": false}),
        ("authentication.k8s.io", "selfsubjectreviews") => {
            json!({"userInfo": {"username": "karez-admin", "groups": ["system:masters", "system:authenticated"]}})
        }
        ("authentication.k8s.io", "tokenreviews") => Value::Null,
        _ => return None,
    };
    Some(asked.document().map(|mut review| {
        let status = if status.is_null() {
            token_status(cluster, &review)
        } else {
            status
        };
        if review.is_object() {
            review["status"] = status;
        }
        respond::json(StatusCode::CREATED, &review)
    }))
}

fn token_status(cluster: &LocalCluster, review: &Value) -> Value {
    let token = store::text(review, "/spec/token");
    if !cluster.knows_token(token) {
        return json!({"authenticated": false, "error": "the token is unknown or has expired"});
    }
    let tokens = cluster.tokens.lock().unwrap_or_else(PoisonError::into_inner);
    let account = tokens
        .get(token)
        .map(|(account, _)| account.clone())
        .unwrap_or_default();
    json!({"authenticated": true, "user": {"username": account, "groups": ["system:serviceaccounts", "system:authenticated"]}})
}
