//! The provider of identities: its own description and keys, and the exchange of a code for an ID token.
//!
//! What its answers mean, and whether an ID token can be believed (signature, issuer, audience, nonce, expiry), is decided by
//! the crate `openidconnect`; here is what it does not do: deadlines, bounds, when to ask again. Invariants: nothing is asked over
//! a connection that others can read or change; whatever the provider does, each of the three things that
//! it is asked for has an end within [`DEADLINE`]; a provider that fails, or whose keys do not fit, is not asked for its description more often than every
//! [`AGAIN`], however many sign in.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreAuthenticationFlow, CoreClientAuthMethod, CoreErrorResponseType,
    CoreGenderClaim, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreProviderMetadata,
    CoreRevocableToken, CoreRevocationErrorResponse, CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::{
    AdditionalClaims, AuthType, AuthorizationCode, ClaimsVerificationError, Client, ClientId, ClientSecret, CsrfToken,
    DiscoveryError, EmptyExtraTokenFields, EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse,
    IdTokenFields, IssuerUrl, Nonce, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RequestTokenError, Scope,
    StandardErrorResponse, StandardTokenResponse, TokenResponse as _,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{NotSignedIn, Page, Result};
use crate::domain::Claims;
use crate::files::config::OidcConfig;
use crate::files::oidc_keys::is_protected;
use crate::notify::{self, chain};

/// Its description with its keys, the exchange of a code, the keys anew: each takes at most this long.
const DEADLINE: Duration = Duration::from_secs(10);
/// The description of a provider and its keys are believed for so long.
const FRESH: Duration = Duration::from_secs(3600);
/// They are not asked for again sooner than this.
const AGAIN: Duration = Duration::from_secs(5);
/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 256 * 1024;
/// Clocks may differ by so much, in seconds.
const SKEW: i64 = 60;
/// How an ID token may be signed: by nothing that the agent, or anybody else with the client's secret, could sign with.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 8] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
];

/// Claims beyond those that every provider knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Extra(HashMap<String, Value>);

impl AdditionalClaims for Extra {}

type Fields = IdTokenFields<
    Extra,
    EmptyExtraTokenFields,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
>;
type OidcClient = Client<
    Extra,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    StandardTokenResponse<Fields, CoreTokenType>,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// What the description was asked for with.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    issuer: String,
    ca_file: Option<PathBuf>,
}

#[derive(Debug)]
struct Known {
    asked: Asked,
    at: Instant,
    /// When it was asked for because keys did not fit.
    anew_at: Option<Instant>,
    /// Or why there is none.
    metadata: std::result::Result<Arc<CoreProviderMetadata>, String>,
}

/// The provider, as it was last seen.
#[derive(Debug, Default)]
pub(super) struct Provider(tokio::sync::Mutex<Option<Known>>);

/// Why an answer cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unanswered(String);

/// Asks over the agent's own client: no redirects, a deadline, and a bound.
async fn ask(client: reqwest::Client, request: HttpRequest) -> std::result::Result<HttpResponse, Unanswered> {
    let url = request.uri().to_string();
    if !is_protected(&url) {
        return Err(Unanswered("it names an address without https".to_owned()));
    }
    let request = reqwest::Request::try_from(request).map_err(|error| Unanswered(chain(&error)))?;
    let failed = |error: reqwest::Error| Unanswered(chain(&error.without_url()));
    let mut answer = client.execute(request).await.map_err(failed)?;
    let mut response = http::Response::builder().status(answer.status());
    if let Some(headers) = response.headers_mut() {
        headers.clone_from(answer.headers());
    }
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(failed)? {
        if body.len() + piece.len() > MAX_ANSWER {
            return Err(Unanswered(format!("its answer is longer than {MAX_ANSWER} bytes")));
        }
        body.extend_from_slice(&piece);
    }
    response.body(body).map_err(|error| Unanswered(error.to_string()))
}

/// What is told of a failure: the provider's words are for everybody, and end up on a page.
fn unusable(issuer: &str, why: &str) -> String {
    format!("the provider {issuer} cannot be used now: {}", notify::shown(why, &[]))
}

async fn in_time<T>(work: impl Future<Output = std::result::Result<T, String>>) -> std::result::Result<T, String> {
    let late = || format!("there was no answer within {} s", DEADLINE.as_secs());
    tokio::time::timeout(DEADLINE, work).await.map_err(|_| late())?
}

async fn discover(config: &OidcConfig) -> std::result::Result<CoreProviderMetadata, String> {
    let client = notify::http::client(config.ca_file.as_deref())?;
    let issuer = IssuerUrl::new(config.issuer.clone()).map_err(|error| error.to_string())?;
    let ask = |request| ask(client.clone(), request);
    let found = CoreProviderMetadata::discover_async(issuer, &ask).await.map_err(|error| match error {
        DiscoveryError::Response(status, _, _) => format!("its description is answered with {status}"),
        error => chain(&error),
    })?;
    if !is_protected(found.authorization_endpoint().as_str()) {
        return Err("its page is at an address without https".to_owned());
    }
    Ok(found)
}

impl Provider {
    /// The provider's description. `anew`: the keys of the known one did not fit.
    async fn metadata(&self, config: &OidcConfig, anew: bool) -> Result<Arc<CoreProviderMetadata>> {
        let asked = Asked { issuer: config.issuer.clone(), ca_file: config.ca_file.clone() };
        // Held while the provider is asked: everybody who comes meanwhile waits for the same answer.
        let mut known = self.0.lock().await;
        let believed = |known: &Known| match (&known.metadata, anew) {
            (Ok(_), false) => known.at.elapsed() < FRESH,
            (Ok(_), true) => known.anew_at.is_some_and(|at| at.elapsed() < AGAIN),
            (Err(_), _) => known.at.elapsed() < AGAIN,
        };
        let metadata = match known.as_ref().filter(|known| known.asked == asked && believed(known)) {
            Some(known) => known.metadata.clone(),
            None => {
                let metadata = in_time(discover(config)).await.map(Arc::new);
                if let Err(why) = &metadata {
                    tracing::warn!(issuer = config.issuer, "nobody can sign in with OpenID Connect: {why}");
                }
                let at = Instant::now();
                *known = Some(Known { asked, at, anew_at: anew.then_some(at), metadata: metadata.clone() });
                metadata
            }
        };
        metadata.map_err(|why| NotSignedIn::Provider(unusable(&config.issuer, &why)))
    }

    /// Where a browser is sent, and what must be remembered until it comes back.
    pub(super) async fn page(&self, config: &OidcConfig) -> Result<Page> {
        let metadata = self.metadata(config, false).await?;
        let client = client(&metadata, config, None)?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let flow = CoreAuthenticationFlow::AuthorizationCode;
        let (url, state, nonce) = client
            .authorize_url(flow, CsrfToken::new_random, Nonce::new_random)
            .add_scopes(config.scopes.iter().filter(|scope| *scope != "openid").cloned().map(Scope::new))
            .set_pkce_challenge(challenge)
            .url();
        Ok((url.into(), state.into_secret(), nonce, verifier))
    }

    /// What the provider says of whom this code is for.
    pub(super) async fn claims(
        &self,
        config: &OidcConfig,
        code: AuthorizationCode,
        verifier: PkceCodeVerifier,
        nonce: &Nonce,
    ) -> Result<Claims> {
        let metadata = self.metadata(config, false).await?;
        let unusable = |why: String| {
            tracing::warn!(issuer = config.issuer, "a sign-in with OpenID Connect failed: {why}");
            NotSignedIn::Provider(unusable(&config.issuer, &why))
        };
        let secret = secret(config).await.map_err(|why| {
            tracing::error!("nobody can sign in with OpenID Connect: {why}");
            NotSignedIn::Provider("the agent cannot read its own secret; its log says why".to_owned())
        })?;
        let client_of = |metadata: &CoreProviderMetadata| client(metadata, config, secret.clone());
        let own = client_of(&metadata)?;
        let http = notify::http::client(config.ca_file.as_deref()).map_err(unusable)?;
        let ask = |request| ask(http.clone(), request);
        let exchange = async {
            let request = own.exchange_code(code).map_err(|_| "it names no address for tokens".to_owned())?;
            let answer = request.set_pkce_verifier(verifier).request_async(&ask).await;
            answer.map_err(|error| match error {
                RequestTokenError::ServerResponse(refused) => {
                    format!("it refuses the code: {}", refused.error().as_ref())
                }
                // What it answered is not repeated.
                RequestTokenError::Parse(_, _) | RequestTokenError::Other(_) => {
                    "its answer to the code is not understood".to_owned()
                }
                error @ RequestTokenError::Request(_) => chain(&error),
            })
        };
        let answer = in_time(exchange).await.map_err(unusable)?;
        let unbelievable = |why: String| {
            tracing::warn!(issuer = config.issuer, "an ID token was refused: {why}");
            NotSignedIn::Unbelievable(notify::shown(&why, &[nonce.secret()]))
        };
        let token = answer.id_token().ok_or_else(|| unbelievable("there is no ID token in it".to_owned()))?;
        let believed = match check(&own, token, nonce) {
            // The provider may have new keys since its description was read.
            Err(ClaimsVerificationError::SignatureVerification(_)) => {
                let anew = self.metadata(config, true).await?;
                check(&client_of(&anew)?, token, nonce)
            }
            checked => checked,
        };
        let believed = believed.map_err(|error| unbelievable(chain(&error)))?;
        match serde_json::to_value(&believed) {
            Ok(Value::Object(claims)) => Ok(claims),
            Ok(_) | Err(_) => Err(unbelievable("its claims are no object".to_owned())),
        }
    }
}

type IdToken =
    openidconnect::IdToken<Extra, CoreGenderClaim, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm>;

/// The claims of an ID token, if it can be believed.
fn check(
    client: &OidcClient,
    token: &IdToken,
    nonce: &Nonce,
) -> std::result::Result<openidconnect::IdTokenClaims<Extra, CoreGenderClaim>, ClaimsVerificationError> {
    let now = chrono::DateTime::from_timestamp_secs(jiff::Timestamp::now().as_second()).unwrap_or_default();
    let skew = chrono::TimeDelta::seconds(SKEW);
    let verifier = client
        .id_token_verifier()
        .set_allowed_algs(ALGORITHMS)
        .set_time_fn(move || now - skew)
        .set_issue_time_verifier_fn(move |at| match at <= now + skew {
            true => Ok(()),
            false => Err("it was issued in the future; compare the clocks of both machines".to_owned()),
        });
    token.claims(&verifier, nonce).cloned()
}

fn client(metadata: &CoreProviderMetadata, config: &OidcConfig, secret: Option<ClientSecret>) -> Result<OidcClient> {
    let back = RedirectUrl::new(config.redirect_url.clone())
        .map_err(|error| NotSignedIn::Provider(format!("`api.public_url` is no URL: {error}")))?;
    let methods = metadata.token_endpoint_auth_methods_supported();
    let in_header = methods.is_none_or(|methods| methods.contains(&CoreClientAuthMethod::ClientSecretBasic));
    let how = if in_header { AuthType::BasicAuth } else { AuthType::RequestBody };
    let client = OidcClient::from_provider_metadata(metadata.clone(), ClientId::new(config.client_id.clone()), secret);
    Ok(client.set_redirect_uri(back).set_auth_type(how))
}

/// This agent's secret at the provider.
async fn secret(config: &OidcConfig) -> std::result::Result<Option<ClientSecret>, String> {
    let Some(file) = config.client_secret_file.clone() else { return Ok(None) };
    let read = tokio::task::spawn_blocking(move || notify::secret("secret of the client", &file));
    let secret = read.await.map_err(|error| format!("reading a secret broke off: {error}"))??;
    Ok(Some(ClientSecret::new(secret)))
}
