//! The node's certificate after the first: a new one is asked for long before the old one ends, and when a server
//! says that it has ended, which this node's clock may not know.
//!
//! A node that was away for longer than its certificate lasted is heard all the same, since heartbeats need none, and
//! asks by the one that has expired; so nobody has to go there.

use std::time::Duration;

use jiff::Timestamp;
use toono_pki::{Issued, NodeKey};
use toono_wire::{
    join::{CertificateReply, CertificateRequest},
    path,
};

use crate::{cloud::Cloud, identity::Credentials, join::chain, retry};

/// A clock may be set while this waits, so the time is looked at once in a while.
const LOOK: Duration = Duration::from_secs(24 * 3600);
/// The share of its life after which a certificate is renewed, in percent; each node adds as much as 20 of its own,
/// so that those that joined together do not come together again. As the kubelet does.
const RENEWED_AT: u32 = 70;
const SPREAD: u32 = 20;

/// Between two tries while servers refuse the certificate, at most.
const AGAIN: Duration = Duration::from_secs(10);

/// Keeps the certificate fresh for as long as the agent lives.
pub(crate) async fn keep(credentials: Credentials, cloud: Cloud) {
    let share = RENEWED_AT + retry::random_u32() % SPREAD;
    loop {
        let wait = until_due(&credentials.own(), share, Timestamp::now());
        if wait > Duration::ZERO {
            tokio::select! {
                () = tokio::time::sleep(wait.min(LOOK)) => continue,
                () = cloud.refused() => {}
            }
        }
        match renew(&credentials, &cloud).await {
            Ok(()) => tracing::info!("the node has a new certificate"),
            Err(reason) => {
                tracing::warn!(reason, "no new certificate yet");
                // There is time, unless a server says otherwise.
                tokio::select! {
                    () = tokio::time::sleep(retry::unasked()) => {}
                    () = cloud.refused() => tokio::time::sleep(retry::jittered(AGAIN)).await,
                }
            }
        }
    }
}

/// How long until the certificate is to be renewed, after this share of its life.
fn until_due(own: &Issued, share: u32, now: Timestamp) -> Duration {
    // One that cannot be read is replaced.
    let Ok(life) = toono_pki::lifetime_of_pem(&own.cert_pem) else { return Duration::ZERO };
    let length = life.end.saturating_sub(life.start);
    let due = life.start.saturating_add(length.saturating_mul(share.into()) / 100);
    Duration::from_secs(u64::try_from(due.saturating_sub(now.as_second())).unwrap_or(0))
}

async fn renew(credentials: &Credentials, cloud: &Cloud) -> Result<(), String> {
    let key = NodeKey::generate(&credentials.name()).map_err(|error| chain(&error))?;
    let request = CertificateRequest { csr_pem: key.csr_pem };
    let body = serde_json::to_vec(&request).map_err(|error| chain(&error))?;
    let reply: CertificateReply =
        cloud.post(path::CERTIFICATE, body).await.map_err(|error| chain(&error))?;
    let own = Issued { cert_pem: reply.certificate_pem, key_pem: key.key_pem };
    // What cannot be used is not kept. What is kept is on disk before it is used: the cloud may forget the old one.
    toono_pki::node_client_config(&credentials.ca_pem(), &own).map_err(|error| chain(&error))?;
    let kept = credentials.change(|identity| {
        identity.certificate_pem.clone_from(&own.cert_pem);
        identity.key_pem.clone_from(&own.key_pem);
    });
    kept.map_err(|error| chain(&error))?;
    cloud.show(&own).await.map_err(|error| chain(&error))
}

#[cfg(test)]
mod tests {
    use toono_pki::ClusterCa;

    use super::*;

    #[test]
    fn it_is_due_after_its_share_of_life() {
        let dir = tempfile::tempdir().unwrap();
        let ca = ClusterCa::load_or_create(dir.path()).unwrap();
        let key = NodeKey::generate("n1").unwrap();
        let life = Duration::from_secs(1000);
        let cert_pem = ca.sign_node_csr(&key.csr_pem, "n1", life).unwrap();
        let own = Issued { cert_pem, key_pem: key.key_pem };
        let made = Timestamp::now();
        let wait = until_due(&own, 70, made);
        assert!(wait.abs_diff(Duration::from_secs(700)) <= Duration::from_secs(2), "{wait:?}");
        let late = made + jiff::SignedDuration::from_secs(800);
        assert_eq!(until_due(&own, 70, late), Duration::ZERO);
        let lagging = made - jiff::SignedDuration::from_hours(24 * 365 * 50);
        assert!(until_due(&own, 70, lagging) > LOOK, "the server will say when it is over");
        let unreadable = Issued { cert_pem: String::new(), ..own };
        assert_eq!(until_due(&unreadable, 70, made), Duration::ZERO);
    }
}
