//! Certificates and certificate requests byte by byte (X.509 and PKCS #10 in DER), with whatever content an attacker would
//! choose and any key below them. The libraries that issue certificates are built to refuse most of this.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use muster_certs::{
    identity_file::IdentityFile,
    key::KeyPair,
    pem,
    rustls::{
        SignatureScheme,
        crypto::aws_lc_rs::sign::any_supported_type,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        sign::SigningKey,
    },
};

pub const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 2;
const BIT_STRING: u8 = 3;
const OCTET_STRING: u8 = 4;
const OID: u8 = 6;
const UTF8: u8 = 12;
const UTC_TIME: u8 = 23;
const ECDSA_SHA256: &[u8] = b"\x2a\x86\x48\xce\x3d\x04\x03\x02";
const EXTENSION_REQUEST: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0e";
const CLIENT_AUTH: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x03\x02";
const SERVER_AUTH: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x03\x01";
/// keyUsage digitalSignature, and keyCertSign with cRLSign.
pub const SIGNS: &[u8] = b"\x03\x02\x07\x80";
pub const CERTIFIES: &[u8] = b"\x03\x02\x01\x06";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What a client shows in a handshake and proves to hold.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: Arc<dyn SigningKey>,
}

/// Whoever signs certificates: a CA whose key lies open, or one that only looks like it.
#[derive(Clone, Debug)]
pub struct Signer {
    pub certificate: CertificateDer<'static>,
    name: Vec<u8>,
    key_id: Vec<u8>,
    key: Arc<dyn SigningKey>,
}

/// A certificate to be: at first one that the controller's own CA could have made for a client.
#[derive(Clone, Debug)]
pub struct Draft {
    pub serial: Vec<u8>,
    pub uris: Vec<String>,
    pub dns: Vec<String>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    pub is_ca: bool,
    pub key_usage: Option<&'static [u8]>,
    pub client_auth: bool,
    pub server_auth: bool,
    /// An extension that nobody knows and that must be understood.
    pub critical_unknown: bool,
}

impl Credentials {
    pub fn of(identity: &IdentityFile) -> Self {
        Self {
            chain: identity.chain().to_vec(),
            key: signing_key(&identity.to_pem()),
        }
    }
}

impl Signer {
    /// A CA from its files.
    pub fn load(certificate: &Path, key: &Path) -> Self {
        let text = fs::read_to_string(certificate).expect("a certificate of the controller");
        let certificate = pem::certificates(&text).expect("certificates").remove(0);
        let key = signing_key(&fs::read_to_string(key).expect("a key of the controller"));
        Self::new(certificate, key)
    }

    pub fn new(certificate: CertificateDer<'static>, key: Arc<dyn SigningKey>) -> Self {
        Self {
            name: subject(&certificate).to_vec(),
            key_id: key_id(&certificate),
            certificate,
            key,
        }
    }

    /// The same name and the same key identifier over a key of its own.
    pub fn imposter(&self) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut draft = Draft::new("spiffe://example.muster");
        draft.is_ca = true;
        draft.key_usage = Some(CERTIFIES);
        draft.not_after += 100 * DAY;
        let own = signing_key(&key.to_pem());
        let own = Self {
            key: own,
            ..self.clone()
        };
        let certificate = own.certify(&draft, key.public_key().der(), &self.name, Some(&self.key_id));
        Self { certificate, ..own }
    }

    /// Signs a draft for a new key.
    pub fn issue(&self, draft: &Draft) -> Credentials {
        let key = KeyPair::generate().expect("a key");
        let leaf = self.certify(draft, key.public_key().der(), &sequence(&[]), None);
        Credentials {
            chain: vec![leaf, self.certificate.clone()],
            key: signing_key(&key.to_pem()),
        }
    }

    fn certify(&self, draft: &Draft, spki: &[u8], subject: &[u8], own_id: Option<&[u8]>) -> CertificateDer<'static> {
        let algorithm = sequence(&[&tlv(OID, ECDSA_SHA256)]);
        let mut extensions = vec![draft.names(subject.len() < 3)];
        extensions.push(extension(35, false, &sequence(&[&tlv(0x80, &self.key_id)])));
        if let Some(id) = own_id {
            extensions.push(extension(14, false, &tlv(OCTET_STRING, id)));
        }
        let constraints: &[u8] = if draft.is_ca { b"\x01\x01\xff" } else { b"" };
        extensions.push(extension(19, true, &sequence(&[constraints])));
        if let Some(usage) = draft.key_usage {
            extensions.push(extension(15, true, usage));
        }
        extensions.extend(draft.extended_usages());
        if draft.critical_unknown {
            extensions.push(extension(113, true, b"\x05\x00"));
        }
        let to_sign = sequence(&[
            &tlv(0xa0, b"\x02\x01\x02"),
            &tlv(INTEGER, &draft.serial),
            &algorithm,
            &self.name,
            &sequence(&[&time(draft.not_before), &time(draft.not_after)]),
            subject,
            spki,
            &tlv(0xa3, &sequence_of(&extensions)),
        ]);
        let signature = bits(&sign(&self.key, &to_sign));
        CertificateDer::from(sequence(&[&to_sign, &algorithm, &signature]))
    }
}

impl Draft {
    pub fn new(uri: impl Into<String>) -> Self {
        let now = SystemTime::now();
        let serial = KeyPair::generate().expect("a key").public_key().der()[70..86].to_vec();
        Self {
            serial: [&[0x41], serial.as_slice()].concat(),
            uris: vec![uri.into()],
            dns: Vec::new(),
            not_before: now - Duration::from_secs(60),
            not_after: now + DAY,
            is_ca: false,
            key_usage: Some(SIGNS),
            client_auth: true,
            server_auth: false,
            critical_unknown: false,
        }
    }

    /// With the serial number of a certificate that is on file, in hexadecimal.
    pub fn with_serial(mut self, serial: &str) -> Self {
        let digit = |at: usize| u8::from_str_radix(&serial[at..at + 2], 16).expect("a serial number");
        self.serial = (0..serial.len()).step_by(2).map(digit).collect();
        self
    }

    pub fn lasting(mut self, not_before: SystemTime, not_after: SystemTime) -> Self {
        (self.not_before, self.not_after) = (not_before, not_after);
        self
    }

    fn names(&self, is_critical: bool) -> Vec<u8> {
        let uris = self.uris.iter().map(|uri| tlv(0x86, uri.as_bytes()));
        let dns = self.dns.iter().map(|name| tlv(0x82, name.as_bytes()));
        extension(17, is_critical, &sequence_of(&uris.chain(dns).collect::<Vec<_>>()))
    }

    fn extended_usages(&self) -> Option<Vec<u8>> {
        let client = self.client_auth.then(|| tlv(OID, CLIENT_AUTH));
        let server = self.server_auth.then(|| tlv(OID, SERVER_AUTH));
        let usages: Vec<_> = client.into_iter().chain(server).collect();
        (!usages.is_empty()).then(|| extension(37, false, &sequence_of(&usages)))
    }
}

/// A certificate request for this key, signed by `signer`, with these extensions asked for.
pub fn request(key: &KeyPair, signer: &KeyPair, extensions: &[Vec<u8>]) -> Vec<u8> {
    let common_name = sequence(&[&tlv(OID, b"\x55\x04\x03"), &tlv(UTF8, b"root")]);
    let name = sequence(&[&tlv(SET, &common_name)]);
    let attribute = sequence(&[&tlv(OID, EXTENSION_REQUEST), &tlv(SET, &sequence_of(extensions))]);
    let attributes = if extensions.is_empty() { Vec::new() } else { attribute };
    let to_sign = sequence(&[b"\x02\x01\x00", &name, key.public_key().der(), &tlv(0xa0, &attributes)]);
    let algorithm = sequence(&[&tlv(OID, ECDSA_SHA256)]);
    let signature = bits(&sign(&signing_key(&signer.to_pem()), &to_sign));
    sequence(&[&to_sign, &algorithm, &signature])
}

/// An extension below 2.5.29.
pub fn extension(id: u8, is_critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if is_critical { b"\x01\x01\xff" } else { b"" };
    sequence(&[&tlv(OID, &[0x55, 0x1d, id]), critical, &tlv(OCTET_STRING, value)])
}

pub fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(SEQUENCE, &parts.concat())
}

fn sequence_of(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(SEQUENCE, &parts.concat())
}

/// Tag, length, value.
pub fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = value.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut der = vec![tag];
    match value.len() {
        0..128 => der.push(value.len() as u8),
        _ => {
            der.push(0x80 | significant.len() as u8);
            der.extend(significant);
        }
    }
    der.extend(value);
    der
}

fn bits(bytes: &[u8]) -> Vec<u8> {
    tlv(BIT_STRING, &[&[0], bytes].concat())
}

fn sign(key: &Arc<dyn SigningKey>, message: &[u8]) -> Vec<u8> {
    let signer = key
        .choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256])
        .expect("a key of P-256");
    signer.sign(message).expect("a signature")
}

fn signing_key(pem: &str) -> Arc<dyn SigningKey> {
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("a private key");
    any_supported_type(&der).expect("a key of a known kind")
}

/// Seconds of UTCTime, which ends in 2049.
fn time(time: SystemTime) -> Vec<u8> {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let (mut days, mut year) = (seconds / 86_400, 1970);
    let is_leap = |year: u64| year.is_multiple_of(4);
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let text = format!(
        "{:02}{month:02}{:02}{hour:02}{minute:02}{second:02}Z",
        year % 100,
        days + 1
    );
    tlv(UTC_TIME, text.as_bytes())
}

/// The sixth part of what is signed in a certificate, as it stands.
fn subject(certificate: &[u8]) -> &[u8] {
    let (signed, _) = inside(certificate);
    let (mut rest, _) = inside(signed);
    for _ in 0..5 {
        rest = inside(rest).1;
    }
    &rest[..rest.len() - inside(rest).1.len()]
}

/// What is in the first element, and what follows it.
fn inside(der: &[u8]) -> (&[u8], &[u8]) {
    let (head, length) = match der[1] {
        short @ 0..128 => (2, usize::from(short)),
        long => {
            let head = 2 + usize::from(long & 0x7f);
            (
                head,
                der[2..head].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
            )
        }
    };
    der[head..].split_at(length)
}

/// The subject key identifier, or none.
fn key_id(certificate: &[u8]) -> Vec<u8> {
    let id = b"\x06\x03\x55\x1d\x0e\x04";
    let at = certificate.windows(id.len()).position(|window| window == id);
    at.map_or_else(Vec::new, |at| inside(inside(&certificate[at + 5..]).0).0.to_vec())
}

#[cfg(test)]
mod tests {
    use muster_certs::{certificate::Certificate, csr};

    use super::*;

    fn forged(draft: &Draft) -> Certificate {
        let key = KeyPair::generate().expect("a key");
        let authority = Signer {
            certificate: CertificateDer::from(Vec::new()),
            name: sequence(&[]),
            key_id: vec![7; 20],
            key: signing_key(&key.to_pem()),
        };
        Certificate::parse(&authority.issue(draft).chain[0]).expect("a certificate")
    }

    #[test]
    fn a_forged_certificate_says_what_was_drafted() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        // 2024-02-29T23:59:59Z and 2031-12-31T00:00:00Z.
        let draft = Draft::new("spiffe://a/user/b")
            .with_serial("0102ff")
            .lasting(at(1_709_251_199), at(1_956_441_600));
        let read = forged(&draft);
        assert_eq!(
            (read.not_before, read.not_after),
            (at(1_709_251_199), at(1_956_441_600))
        );
        assert_eq!((read.uris, read.serial.as_str()), (draft.uris, "0102ff"));
        assert!(read.client_auth && read.digital_signature && !read.is_ca && !read.server_auth);
    }

    #[test]
    fn a_request_is_good_exactly_when_its_own_key_signs_it() {
        let (mine, yours) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
        let wish = extension(19, true, &sequence(&[b"\x01\x01\xff"]));
        csr::verify(&request(&mine, &mine, std::slice::from_ref(&wish))).expect("a good request");
        csr::verify(&request(&mine, &yours, &[wish])).expect_err("signed by another");
    }
}
