//! Neighbours: which Ethernet address an internet address on a link has.

use std::net::IpAddr;

use futures::TryStreamExt;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};

use super::{Netlink, NetlinkError, is_errno};
use crate::{LinkName, MacAddress};

/// An entry of a link's neighbour table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Its internet address.
    pub address: IpAddr,
    /// Its Ethernet address, once known.
    pub mac: Option<MacAddress>,
    /// Whether it was set by hand, and so is neither asked for nor forgotten.
    pub permanent: bool,
}

impl Netlink {
    /// The neighbours of a link.
    pub async fn neighbours(&self, link: &LinkName) -> Result<Vec<Neighbour>, NetlinkError> {
        let messages = self.neighbour_messages(link).await?;
        Ok(messages.iter().filter_map(parse).collect())
    }

    /// A permanent neighbour, in place of another one of the same address.
    pub async fn replace_neighbour(
        &self,
        link: &LinkName,
        address: IpAddr,
        mac: MacAddress,
    ) -> Result<(), NetlinkError> {
        let index = self.link(link).await?.index;
        let add =
            self.handle.neighbours().add(index, address).link_layer_address(&mac.bytes()).replace();
        let added = add.execute().await;
        added.map_err(|error| {
            self.refused("add", format!("the neighbour {address} on {link}"), error)
        })
    }

    /// Forgets the neighbour; whether it was known.
    pub async fn delete_neighbour(
        &self,
        link: &LinkName,
        address: IpAddr,
    ) -> Result<bool, NetlinkError> {
        let messages = self.neighbour_messages(link).await?;
        let found = messages
            .into_iter()
            .find(|message| parse(message).is_some_and(|entry| entry.address == address));
        let Some(message) = found else { return Ok(false) };
        match self.handle.neighbours().del(message).execute().await {
            Ok(()) => Ok(true),
            Err(error) if is_errno(&error, libc::ENOENT) => Ok(false),
            Err(error) => {
                Err(self.refused("delete", format!("the neighbour {address} on {link}"), error))
            }
        }
    }

    async fn neighbour_messages(
        &self,
        link: &LinkName,
    ) -> Result<Vec<NeighbourMessage>, NetlinkError> {
        let index = self.link(link).await?.index;
        let messages = self.handle.neighbours().get().execute().try_collect::<Vec<_>>().await;
        let mut messages = messages
            .map_err(|error| self.refused("list", format!("the neighbours of {link}"), error))?;
        messages.retain(|message| message.header.ifindex == index);
        Ok(messages)
    }
}

fn parse(message: &NeighbourMessage) -> Option<Neighbour> {
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                address = Some(IpAddr::V4(*ip))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                address = Some(IpAddr::V6(*ip))
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = MacAddress::try_from(bytes.as_slice()).ok()
            }
            _ => {}
        }
    }
    let permanent = message.header.state == NeighbourState::Permanent;
    Some(Neighbour { address: address?, mac, permanent })
}
