//! A small OpenID Connect provider on loopback: it lets everybody in at once, and says of them what the test wants it to,
//! honestly or not. It checks what the agent has to prove: its secret, PKCE, the address that browsers come back to.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use landfall::domain::base64;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The agent's secret at the provider.
pub const SECRET: &str = "s3cret-of-the-agent";

/// How the provider behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Honest,
    WrongNonce,
    WrongAudience,
    WrongIssuer,
    Expired,
    /// Signed with a key that is not among the published ones.
    ForeignKey,
    /// `alg: none`
    Unsigned,
    /// `alg: HS256`, with the client's secret as the key.
    Shared,
    /// The description and the tokens are answered with 500.
    Broken,
    /// The same, with nothing at all.
    Hanging,
}

struct Inner {
    issuer: String,
    mood: Mood,
    claims: Value,
    key: EcdsaKeyPair,
    id: u32,
    /// What each code was given out for: nonce, challenge, address.
    codes: HashMap<String, (String, String, String)>,
}

/// The provider.
pub struct Identities {
    pub address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
    task: tokio::task::JoinHandle<()>,
}

type Shared = State<Arc<Mutex<Inner>>>;

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().expect("the provider")
}

fn new_key() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).expect("a key")
}

fn base64url(bytes: &[u8]) -> String {
    base64::encode(bytes).trim_end_matches('=').replace('+', "-").replace('/', "_")
}

impl Identities {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let inner = Arc::new(Mutex::new(Inner {
            issuer: format!("http://{address}"),
            mood: Mood::Honest,
            claims: json!({}),
            key: new_key(),
            id: 1,
            codes: HashMap::new(),
        }));
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(description))
            .route("/keys", get(keys))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .with_state(Arc::clone(&inner));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("serves") });
        Self { address, inner, task }
    }

    pub fn mood(&self, mood: Mood) {
        lock(&self.inner).mood = mood;
    }

    /// What is said of whoever signs in next.
    pub fn says(&self, claims: Value) {
        lock(&self.inner).claims = claims;
    }

    /// Another key, under another name.
    pub fn change_key(&self) {
        let mut inner = lock(&self.inner);
        inner.key = new_key();
        inner.id += 1;
    }
}

impl Drop for Identities {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What it answers with in a bad mood, if it is one in which it answers badly.
async fn failing(inner: &Arc<Mutex<Inner>>) -> Option<Response> {
    let mood = lock(inner).mood;
    match mood {
        Mood::Broken => Some((StatusCode::INTERNAL_SERVER_ERROR, "stack trace of the provider").into_response()),
        Mood::Hanging => std::future::pending().await,
        _ => None,
    }
}

async fn description(State(inner): Shared) -> Response {
    if let Some(failure) = failing(&inner).await {
        return failure;
    }
    let issuer = lock(&inner).issuer.clone();
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/keys"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256", "HS256", "none"],
    }))
    .into_response()
}

async fn keys(State(inner): Shared) -> Json<Value> {
    let inner = lock(&inner);
    let point = inner.key.public_key().as_ref();
    Json(json!({"keys": [{
        "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": inner.id.to_string(),
        "x": base64url(&point[1..33]), "y": base64url(&point[33..]),
    }]}))
}

async fn authorize(State(inner): Shared, Query(query): Query<HashMap<String, String>>) -> Response {
    assert_eq!((query["response_type"].as_str(), query["code_challenge_method"].as_str()), ("code", "S256"));
    let mut inner = lock(&inner);
    let code = format!("code{}", inner.codes.len());
    let back = query["redirect_uri"].clone();
    let location = format!("{back}?code={code}&state={}", query["state"]);
    inner.codes.insert(code, (query["nonce"].clone(), query["code_challenge"].clone(), back));
    (StatusCode::FOUND, [(header::LOCATION, location)]).into_response()
}

async fn token(State(inner): Shared, headers: HeaderMap, Form(form): Form<HashMap<String, String>>) -> Response {
    if let Some(failure) = failing(&inner).await {
        return failure;
    }
    let mut inner = lock(&inner);
    let basic = format!("Basic {}", base64::encode(format!("landfall:{SECRET}").as_bytes()));
    let is_agent = headers.get(header::AUTHORIZATION).is_some_and(|value| *value == basic);
    let known = inner.codes.get(&form["code"]).cloned();
    let Some((nonce, challenge, back)) = known.filter(|_| is_agent) else {
        return (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response();
    };
    let proof = base64url(&Sha256::digest(form["code_verifier"].as_bytes()));
    assert_eq!((proof, &form["redirect_uri"]), (challenge, &back));
    // Only once.
    inner.codes.insert(form["code"].clone(), (String::new(), String::new(), String::new()));
    let id_token = id_token(&inner, &nonce);
    Json(json!({"access_token": "a", "token_type": "Bearer", "id_token": id_token})).into_response()
}

fn id_token(inner: &Inner, nonce: &str) -> String {
    let now = jiff::Timestamp::now().as_second();
    let mood = inner.mood;
    let mut claims = json!({"iss": inner.issuer, "aud": "landfall", "iat": now, "exp": now + 300, "nonce": nonce});
    for (name, value) in inner.claims.as_object().expect("claims") {
        claims[name] = value.clone();
    }
    match mood {
        Mood::WrongNonce => claims["nonce"] = json!("another"),
        Mood::WrongAudience => claims["aud"] = json!("another"),
        Mood::WrongIssuer => claims["iss"] = json!("http://127.0.0.1:1"),
        Mood::Expired => claims["exp"] = json!(now - 120),
        _ => {}
    }
    let algorithm = match mood {
        Mood::Unsigned => "none",
        Mood::Shared => "HS256",
        _ => "ES256",
    };
    let head = json!({"alg": algorithm, "kid": inner.id.to_string()});
    let signed = format!("{}.{}", base64url(head.to_string().as_bytes()), base64url(claims.to_string().as_bytes()));
    let signature = match mood {
        Mood::Unsigned => String::new(),
        Mood::Shared => {
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
            base64url(ring::hmac::sign(&key, signed.as_bytes()).as_ref())
        }
        _ => {
            let foreign = (mood == Mood::ForeignKey).then(new_key);
            let key = foreign.as_ref().unwrap_or(&inner.key);
            base64url(key.sign(&SystemRandom::new(), signed.as_bytes()).expect("signed").as_ref())
        }
    };
    format!("{signed}.{signature}")
}
