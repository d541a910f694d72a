//! TLS: the certificate and key that a server shows, read once at its start. Owns what is said of files that are none.

use super::ServerError;
use super::options::TlsFiles;
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What answers the handshakes of clients.
///
/// # Errors
/// A file that cannot be read, holds no certificate or key, or the two do not belong together.
pub fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, ServerError> {
    let wrong = |path: &Path, message: String| ServerError::Certificate { path: path.to_owned(), message };
    let certificates = &files.certificates;
    let read = CertificateDer::pem_file_iter(certificates).and_then(Iterator::collect);
    let chain: Vec<CertificateDer<'static>> = read.map_err(|error| wrong(certificates, error.to_string()))?;
    if chain.is_empty() {
        return Err(wrong(certificates, "holds no certificate; expected PEM".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key);
    let key = key.map_err(|error| wrong(&files.key, format!("{error}; expected a private key in PEM")))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| wrong(certificates, error.to_string()))?.with_no_client_auth();
    let config = builder.with_single_cert(chain, key);
    let mut config = config.map_err(|error| {
        wrong(certificates, format!("does not go with the key of {}: {error}", files.key.display()))
    })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
