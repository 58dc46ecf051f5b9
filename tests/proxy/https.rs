//! HTTPS: whom a client is shown, and what it may speak.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use landfall::wire::proxy::{Challenge, ChallengeKind, TlsOptions, ToProxy};
use rcgen::{CertificateParams, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::support::*;

/// A certificate for a host, as PEM with its key, and as a client trusts it.
fn certificate(host: &str) -> (String, CertificateDer<'static>) {
    let key = KeyPair::generate().expect("a key");
    let made = CertificateParams::new(vec![host.to_owned()]).expect("a name").self_signed(&key).expect("signs");
    (made.pem() + &key.serialize_pem(), made.der().clone())
}

/// As RFC 8737 wants it: with a critical extension that only authorities know.
fn challenge_certificate(host: &str) -> (String, CertificateDer<'static>) {
    let key = KeyPair::generate().expect("a key");
    let mut parameters = CertificateParams::new(vec![host.to_owned()]).expect("a name");
    parameters.custom_extensions = vec![rcgen::CustomExtension::new_acme_identifier(&[7; 32])];
    let made = parameters.self_signed(&key).expect("signs");
    (made.pem() + &key.serialize_pem(), made.der().clone())
}

#[derive(Debug)]
struct TakesAll;

impl ServerCertVerifier for TakesAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn lay(data_dir: &Path, file: &str, pem: &str) {
    let directory = data_dir.join("certificates");
    std::fs::create_dir_all(&directory).expect("makes a directory");
    std::fs::write(directory.join(file), pem).expect("writes");
}

struct Secure {
    house: House,
    address: SocketAddr,
    roots: RootCertStore,
}

impl Secure {
    /// A proxy with HTTPS for `shop.localhost`.
    async fn new(server: &Server) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (pem, der) = certificate("shop.localhost");
        lay(dir.path(), "shop.pem", &pem);
        let mut roots = RootCertStore::empty();
        roots.add(der).expect("a root");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("an address");
        let controller = Controller::listen(dir.path());
        let proxy = Proxy::start(dir.path(), |settings| settings.tls_listeners.push(listener));
        let (_, _, mut line) = controller.accept().await;
        line.publish(1, vec![shop(&[(&instance(1), server.address)])]).await;
        Self { house: House { dir, proxy, controller, line }, address, roots }
    }

    async fn connect(&self, host: &str, protocols: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(self.address).await.expect("connects");
        let name = ServerName::try_from(host.to_owned()).expect("a name");
        soon("a handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
    }

    /// What somebody is shown who validates a host, and the protocol agreed on.
    async fn look(&self, host: &str) -> std::io::Result<(CertificateDer<'static>, Vec<u8>)> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TakesAll))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
        let stream = TcpStream::connect(self.address).await.expect("connects");
        let name = ServerName::try_from(host.to_owned()).expect("a name");
        let stream = soon("a handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await?;
        let (_, connection) = stream.get_ref();
        let shown = connection.peer_certificates().expect("certificates")[0].clone().into_owned();
        Ok((shown, connection.alpn_protocol().unwrap_or_default().to_vec()))
    }

    /// Tells the proxy, and waits until it has heard.
    async fn tell(&mut self, options: TlsOptions, generation: u64) {
        self.house.line.say(&ToProxy::Tls(options)).await;
        self.house.line.change(generation, Vec::new()).await;
    }
}

async fn get(stream: &mut TlsStream<TcpStream>, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("writes");
    let mut text = String::new();
    soon("an answer", stream.read_to_string(&mut text)).await.expect("reads");
    text
}

#[tokio::test]
async fn a_request_in_tls_reaches_the_instance_and_is_known_as_such() {
    let server = Server::echoing_heads().await;
    let house = Secure::new(&server).await;
    let mut stream = house.connect("shop.localhost", &["http/1.1"]).await.expect("a handshake");
    let seen = get(&mut stream, "/a").await.to_lowercase();
    assert!(seen.starts_with("http/1.1 200"), "{seen}");
    let port = house.address.port();
    for line in ["x-forwarded-proto: https".to_owned(), format!("x-forwarded-port: {port}")] {
        assert!(seen.lines().any(|seen| seen == line), "{line} is missing in\n{seen}");
    }
    assert!(seen.contains(";proto=https"), "{seen}");
}

#[tokio::test]
async fn clients_that_can_speak_http2() {
    let server = Server::saying("hello").await;
    let house = Secure::new(&server).await;
    let stream = house.connect("shop.localhost", &["h2", "http/1.1"]).await.expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("a handshake");
    let task = tokio::spawn(connection);
    let request =
        hyper::Request::get("https://shop.localhost/").body(Empty::<hyper::body::Bytes>::new()).expect("a request");
    let answer = soon("an answer", sender.send_request(request)).await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.version()), (200, hyper::Version::HTTP_2));
    assert_eq!(answer.into_body().collect().await.expect("a body").to_bytes(), "hello");
    task.abort();
}

#[tokio::test]
async fn a_host_without_a_certificate_is_shown_no_other() {
    let server = Server::saying("hello").await;
    let mut house = Secure::new(&server).await;
    let error = house.connect("other.localhost", &["http/1.1"]).await.expect_err("refused");
    assert!(error.to_string().contains("alert"), "{error}");

    // One that comes later is served without another start; a damaged one beside it does no harm.
    let (pem, der) = certificate("other.localhost");
    lay(house.house.dir.path(), "other.pem", &pem);
    lay(house.house.dir.path(), "damaged.pem", &pem[..pem.len() / 3]);
    house.roots.add(der).expect("a root");
    house.tell(TlsOptions { certificates: 1, ..TlsOptions::default() }, 2).await;
    house.connect("other.localhost", &["http/1.1"]).await.expect("a handshake");
    house.connect("shop.localhost", &["http/1.1"]).await.expect("a handshake");
}

#[tokio::test]
async fn plain_http_is_sent_to_https_and_challenges_are_answered_before_that() {
    let server = Server::saying("hello").await;
    let mut house = Secure::new(&server).await;
    let challenge = Challenge {
        host: "shop.localhost".to_owned(),
        kind: ChallengeKind::Http,
        token: "tok".to_owned(),
        answer: "tok.thumb".to_owned(),
    };
    house.tell(TlsOptions { certificates: 0, redirect: Some(443), challenges: vec![challenge] }, 2).await;
    let mut client = house.house.client().await;
    let answer = client.get("/x?y=z").await;
    assert_eq!((answer.status(), answer.header("location")), (308, "https://shop.localhost/x?y=z"));
    let answer = client.get("/.well-known/acme-challenge/tok").await;
    assert_eq!((answer.status(), answer.text()), (200, "tok.thumb".to_owned()));
    client.send("POST /form HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 3\r\n\r\na=b").await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.header("location")), (308, "https://shop.localhost/form"));
}

#[tokio::test]
async fn an_authority_is_shown_the_certificate_of_its_challenge_and_nobody_else() {
    let server = Server::saying("hello").await;
    let mut house = Secure::new(&server).await;
    let (answer, der) = challenge_certificate("new.localhost");
    let challenge =
        Challenge { host: "new.localhost".to_owned(), kind: ChallengeKind::Tls, token: "tok".to_owned(), answer };
    house.tell(TlsOptions { challenges: vec![challenge], ..TlsOptions::default() }, 2).await;
    // As an authority looks: whatever is shown, it takes, and compares.
    let (seen, protocol) = house.look("new.localhost").await.expect("a handshake");
    assert_eq!((seen, protocol.as_slice()), (der, &b"acme-tls/1"[..]));
    assert!(house.connect("new.localhost", &["http/1.1"]).await.is_err());
    assert!(house.look("shop.localhost").await.is_err(), "no challenge is open for it");
}

#[tokio::test]
async fn a_client_that_never_ends_its_handshake_is_let_go() {
    let server = Server::saying("hello").await;
    let dir = tempfile::tempdir().expect("a directory");
    let (pem, _) = certificate("shop.localhost");
    lay(dir.path(), "shop.pem", &pem);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("an address");
    let controller = Controller::listen(dir.path());
    let _proxy = Proxy::start(dir.path(), |settings| {
        settings.tls_listeners.push(listener);
        settings.timings.head = 1;
    });
    let (_, _, mut line) = controller.accept().await;
    line.publish(1, vec![shop(&[(&instance(1), server.address)])]).await;
    let mut silent = Client::connect(address).await;
    silent.send([0x16, 0x03, 0x01]).await;
    silent.closes().await;
}
