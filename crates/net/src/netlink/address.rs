//! Addresses of links.

use std::net::IpAddr;

use futures::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};

use super::{Netlink, NetlinkError, is_errno};
use crate::{Cidr, LinkName};

impl Netlink {
    /// The addresses of a link.
    pub async fn addresses(&self, link: &LinkName) -> Result<Vec<Cidr>, NetlinkError> {
        let messages = self.address_messages(link).await?;
        Ok(messages.iter().filter_map(cidr_of).collect())
    }

    /// Every address of the namespace, with the index of its link.
    pub async fn all_addresses(&self) -> Result<Vec<(u32, Cidr)>, NetlinkError> {
        let messages = self.handle.address().get().execute().try_collect::<Vec<_>>().await;
        let messages = messages.map_err(|error| self.refused("list", "the addresses", error))?;
        Ok(messages
            .iter()
            .filter_map(|message| Some((message.header.index, cidr_of(message)?)))
            .collect())
    }

    /// Gives the link this address. No effect when it has it.
    pub async fn ensure_address(&self, link: &LinkName, address: Cidr) -> Result<(), NetlinkError> {
        let index = self.link(link).await?.index;
        let added =
            self.handle.address().add(index, address.address(), address.length()).execute().await;
        match added {
            Err(error) if !is_errno(&error, libc::EEXIST) => {
                Err(self.refused("add", format!("the address {address} on {link}"), error))
            }
            _ => Ok(()),
        }
    }

    /// Takes the address from the link; whether it had it.
    pub async fn delete_address(
        &self,
        link: &LinkName,
        address: Cidr,
    ) -> Result<bool, NetlinkError> {
        let messages = self.address_messages(link).await?;
        let Some(message) = messages.into_iter().find(|message| cidr_of(message) == Some(address))
        else {
            return Ok(false);
        };
        match self.handle.address().del(message).execute().await {
            Ok(()) => Ok(true),
            Err(error) if is_errno(&error, libc::EADDRNOTAVAIL) => Ok(false),
            Err(error) => {
                Err(self.refused("delete", format!("the address {address} on {link}"), error))
            }
        }
    }

    async fn address_messages(&self, link: &LinkName) -> Result<Vec<AddressMessage>, NetlinkError> {
        let index = self.link(link).await?.index;
        let get = self.handle.address().get().set_link_index_filter(index);
        let messages = get.execute().try_collect::<Vec<_>>().await;
        messages.map_err(|error| self.refused("list", format!("the addresses of {link}"), error))
    }
}

/// The link's own address. On a point-to-point link `IFA_ADDRESS` is the other end's and `IFA_LOCAL` ours;
/// IPv6 has only the former.
fn cidr_of(message: &AddressMessage) -> Option<Cidr> {
    let mut own: Option<IpAddr> = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => own = Some(*address),
            AddressAttribute::Address(address) => own = own.or(Some(*address)),
            _ => {}
        }
    }
    Cidr::new(own?, message.header.prefix_len).ok()
}
