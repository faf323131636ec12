//! What certificates say: until when they are valid, and of whom they are.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use feast_registry_core::access::Identity;
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::asn1::{Any, Ia5StringRef, PrintableStringRef, TeletexStringRef, Utf8StringRef};
use x509_cert::der::{Decode, Tag, Tagged};

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");

/// From when until when a certificate is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Validity {
    not_before: Duration,
    not_after: Duration,
    /// The latter as people read it.
    pub(super) text: String,
}

impl Validity {
    /// Its end in seconds since 1970.
    pub(super) fn not_after(&self) -> f64 {
        self.not_after.as_secs_f64()
    }

    /// How long it is valid yet; zero when it has expired.
    pub(super) fn left(&self, now: SystemTime) -> Duration {
        self.not_after.saturating_sub(now.duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// How long it is valid in all.
    pub(super) fn whole(&self) -> Duration {
        self.not_after.saturating_sub(self.not_before)
    }
}

/// How long a certificate is valid, if it can be read.
pub(super) fn validity(certificate: &[u8]) -> Option<Validity> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let x509_cert::time::Validity { not_before, not_after } = certificate.tbs_certificate.validity;
    Some(Validity {
        not_before: not_before.to_unix_duration(),
        not_after: not_after.to_unix_duration(),
        text: not_after.to_date_time().to_string(),
    })
}

/// Whether a certificate names another as its issuer, if both can be read.
pub(super) fn is_issued_by(certificate: &[u8], issuer: &[u8]) -> Option<bool> {
    let [certificate, issuer] = [certificate, issuer].map(|der| Certificate::from_der(der).ok());
    Some(certificate?.tbs_certificate.issuer == issuer?.tbs_certificate.subject)
}

/// Who has a certificate that was verified: the common name of its subject is the name, its organizations are the groups.
///
/// # Errors
/// Why it names nobody.
pub(super) fn of_certificate(certificate: &[u8]) -> Result<Identity, &'static str> {
    let certificate = Certificate::from_der(certificate).map_err(|_| "it cannot be read")?;
    let attributes = || certificate.tbs_certificate.subject.0.iter().flat_map(|names| names.0.iter());
    let values =
        |oid| attributes().filter(move |attribute| attribute.oid == oid).map(|attribute| text(&attribute.value));
    let unreadable = "its subject has a name that is empty or no plain text";
    let mut names = values(COMMON_NAME);
    let name = names.next().ok_or("its subject has no common name (CN)")?.ok_or(unreadable)?;
    if names.next().is_some() {
        return Err("its subject has more than one common name (CN)");
    }
    let groups: Option<Vec<String>> = values(ORGANIZATION).collect();
    Ok(Identity::new(name).with_groups(groups.ok_or(unreadable)?))
}

/// The text of an attribute; none of one that could be taken for something else than it is.
fn text(value: &Any) -> Option<String> {
    let text = match value.tag() {
        Tag::Utf8String => Utf8StringRef::try_from(value).ok()?.as_str().to_owned(),
        Tag::PrintableString => PrintableStringRef::try_from(value).ok()?.as_str().to_owned(),
        Tag::Ia5String => Ia5StringRef::try_from(value).ok()?.as_str().to_owned(),
        Tag::TeletexString => TeletexStringRef::try_from(value).ok()?.as_str().to_owned(),
        _ => return None,
    };
    (!text.is_empty() && !text.contains(char::is_control)).then_some(text)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    use super::*;

    fn certificate(subject: &[(DnType, DnValue)]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate").der().to_vec()
    }

    fn utf8(text: &str) -> DnValue {
        DnValue::Utf8String(text.to_owned())
    }

    #[test]
    fn the_common_name_is_the_name_and_organizations_are_groups() {
        let printable = DnValue::PrintableString("fleet".try_into().expect("a string"));
        let der = certificate(&[(DnType::CommonName, utf8("björn")), (DnType::OrganizationName, printable)]);
        assert_eq!(of_certificate(&der), Ok(Identity::new("björn").with_groups(["fleet"])));
        // Units are no groups.
        let der = certificate(&[(DnType::OrganizationalUnitName, utf8("x")), (DnType::CommonName, utf8("ann"))]);
        assert_eq!(of_certificate(&der), Ok(Identity::new("ann")));
    }

    #[test]
    fn a_certificate_that_could_be_taken_for_several_people_names_nobody() {
        let another = DnType::CustomDnType(vec![2, 5, 4, 3]);
        let twice = [(DnType::CommonName, utf8("ann")), (another.clone(), utf8("root"))];
        for (subject, why) in [
            (&twice[..], "more than one common name"),
            (&[(DnType::OrganizationName, utf8("fleet"))], "no common name"),
            (&[], "no common name"),
            (&[(DnType::CommonName, utf8(""))], "empty"),
            (&[(DnType::CommonName, utf8("ann\nroot"))], "no plain text"),
            (&[(DnType::CommonName, utf8("ann\0"))], "no plain text"),
            (&[(DnType::CommonName, DnValue::BmpString("ann".try_into().expect("a string")))], "no plain text"),
            (&[(DnType::CommonName, utf8("ann")), (DnType::OrganizationName, utf8(""))], "empty"),
        ] {
            let error = of_certificate(&certificate(subject)).expect_err(why);
            assert!(error.contains(why), "{error}: {why}");
        }
        assert_eq!(of_certificate(b"0"), Err("it cannot be read"));
    }

    #[test]
    fn the_end_of_a_certificate_is_known() {
        let mut params = CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2031, 5, 1);
        params.not_after = rcgen::date_time_ymd(2031, 5, 31);
        let der = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate").der().to_vec();
        let validity = validity(&der).expect("a certificate");
        assert_eq!((validity.text.as_str(), validity.not_after()), ("2031-05-31T00:00:00Z", 1_937_952_000.0));
        let day = Duration::from_secs(86_400);
        assert_eq!((validity.whole(), validity.left(UNIX_EPOCH)), (30 * day, validity.not_after));
        assert_eq!(validity.left(UNIX_EPOCH + validity.not_after + day), Duration::ZERO);
    }
}
