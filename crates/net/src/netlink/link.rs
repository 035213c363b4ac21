//! Links: bridges and veth pairs made, any link set, listed and deleted. Created links are ours by their
//! mark; a link of the same name that is not ours is never touched.

use std::os::fd::AsRawFd;

use futures::TryStreamExt;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::{LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::{Netlink, NetlinkError, is_errno};
use crate::{LinkName, MacAddress, Mark, NetNs};

/// What kind of device a link is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkKind {
    /// A software bridge.
    Bridge,
    /// One end of a virtual cable.
    Veth,
    /// Hardware, loopback, or anything else without a kind.
    Device,
    /// Another kind, in the kernel's words.
    Other(String),
}

/// A link as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The number of the link in its namespace.
    pub index: u32,
    /// Its name.
    pub name: LinkName,
    /// Its kind.
    pub kind: LinkKind,
    /// Whether it is set up (which is not yet a carrier).
    pub up: bool,
    /// Its largest packet in bytes.
    pub mtu: u32,
    /// Its Ethernet address, where it has one.
    pub address: Option<MacAddress>,
    /// The index of the bridge that it is a port of.
    pub master: Option<u32>,
    /// The index of a veth's other end, in that end's namespace.
    pub peer: Option<u32>,
    /// Its alias, which holds our mark when it is ours.
    pub alias: Option<String>,
}

/// The far end of a veth pair: where it lives and what it is called there.
#[derive(Debug, Clone)]
pub struct VethPeer<'a> {
    /// The namespace that it is put into.
    pub netns: &'a NetNs,
    /// Its name there.
    pub name: &'a LinkName,
}

impl Link {
    /// Our mark, when it carries one.
    pub fn mark(&self) -> Option<Mark> {
        self.alias.as_deref().and_then(|alias| Mark::new(alias).ok())
    }

    fn parse(message: LinkMessage) -> Option<Self> {
        let mut link = Self {
            index: message.header.index,
            name: LinkName::loopback(),
            kind: LinkKind::Device,
            up: message.header.flags.contains(LinkFlags::Up),
            mtu: 0,
            address: None,
            master: None,
            peer: None,
            alias: None,
        };
        let mut named = false;
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => {
                    link.name = LinkName::new(name).ok()?;
                    named = true;
                }
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Address(bytes) => {
                    link.address = MacAddress::try_from(bytes.as_slice()).ok()
                }
                LinkAttribute::Controller(index) => {
                    link.master = Some(index).filter(|index| *index != 0)
                }
                LinkAttribute::Link(index) => link.peer = Some(index),
                LinkAttribute::IfAlias(alias) => {
                    link.alias = Some(alias).filter(|alias| !alias.is_empty())
                }
                LinkAttribute::LinkInfo(infos) => link.kind = kind_of(&infos),
                _ => {}
            }
        }
        named.then_some(link)
    }

    /// Ours, or made by us but not yet marked: the mark can only be set in a second step, before the link
    /// is first used.
    fn is_ours(&self, kind: &LinkKind, mark: &Mark) -> bool {
        let half_made = self.alias.is_none() && !self.up && self.master.is_none();
        self.kind == *kind && (self.mark().as_ref() == Some(mark) || half_made)
    }
}

fn kind_of(infos: &[LinkInfo]) -> LinkKind {
    infos
        .iter()
        .find_map(|info| match info {
            LinkInfo::Kind(InfoKind::Bridge) => Some(LinkKind::Bridge),
            LinkInfo::Kind(InfoKind::Veth) => Some(LinkKind::Veth),
            LinkInfo::Kind(other) => Some(LinkKind::Other(other.to_string())),
            _ => None,
        })
        .unwrap_or(LinkKind::Device)
}

impl Netlink {
    /// All links of the namespace.
    pub async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        let messages = self.handle.link().get().execute().try_collect::<Vec<_>>().await;
        let messages = messages.map_err(|error| self.refused("list", "the links", error))?;
        Ok(messages.into_iter().filter_map(Link::parse).collect())
    }

    /// All links whose mark is `owner` or below it.
    pub async fn links_of(&self, owner: &Mark) -> Result<Vec<Link>, NetlinkError> {
        let mut links = self.links().await?;
        links.retain(|link| link.mark().is_some_and(|mark| mark.belongs_to(owner)));
        Ok(links)
    }

    /// The link of this name, if there is one.
    pub async fn find_link(&self, name: &LinkName) -> Result<Option<Link>, NetlinkError> {
        let mut answer = Box::pin(self.handle.link().get().match_name(name.as_str()).execute());
        match answer.try_next().await {
            Ok(message) => Ok(message.and_then(Link::parse)),
            Err(error) if is_errno(&error, libc::ENODEV) => Ok(None),
            Err(error) => Err(self.refused("read", format!("the link {name}"), error)),
        }
    }

    /// The link of this name; an error when there is none.
    pub async fn link(&self, name: &LinkName) -> Result<Link, NetlinkError> {
        let no_link = || NetlinkError::NoLink { link: name.to_string(), netns: self.label() };
        self.find_link(name).await?.ok_or_else(no_link)
    }

    /// A bridge of this name, down when it is new. Its Ethernet address is chosen once: a bridge that takes
    /// its ports' address would change it under the feet of everyone who has it in a neighbour table.
    pub async fn ensure_bridge(&self, name: &LinkName, mark: &Mark) -> Result<Link, NetlinkError> {
        let existing = self.find_link(name).await?;
        if let Some(link) = &existing {
            self.check_ours(link, &LinkKind::Bridge, mark)?;
        } else {
            let address = MacAddress::derived(&format!("{mark} {name}"));
            let message = LinkMessageBuilder::<LinkBridge>::new(name.as_str())
                .address(address.bytes().to_vec())
                .build();
            self.add_link(name, message).await?;
        }
        self.set_mark(name, mark).await?;
        self.link(name).await
    }

    /// A veth pair whose near end is `name` here and whose far end is `peer`. A pair whose far end is not
    /// where it should be is made anew. Both ends are down when they are new; both carry the mark.
    pub async fn ensure_veth(
        &self,
        name: &LinkName,
        peer: &VethPeer<'_>,
        mark: &Mark,
    ) -> Result<Link, NetlinkError> {
        let there = Netlink::in_namespace(peer.netns)?;
        if let Some(near) = self.find_link(name).await? {
            self.check_ours(&near, &LinkKind::Veth, mark)?;
            let far = there.find_link(peer.name).await?;
            let paired = far.is_some_and(|far| {
                far.kind == LinkKind::Veth
                    && far.peer == Some(near.index)
                    && near.peer == Some(far.index)
            });
            if !paired {
                self.delete_link(name).await?;
                self.add_veth(name, peer).await?;
            }
        } else {
            self.add_veth(name, peer).await?;
        }
        there.set_mark(peer.name, mark).await?;
        self.set_mark(name, mark).await?;
        self.link(name).await
    }

    /// Sets the link up. No effect when it is.
    pub async fn set_up(&self, name: &LinkName) -> Result<(), NetlinkError> {
        if self.link(name).await?.up {
            return Ok(());
        }
        self.set_link("set up", name, |message| message.up()).await
    }

    /// Sets the link down. No effect when it is.
    pub async fn set_down(&self, name: &LinkName) -> Result<(), NetlinkError> {
        if !self.link(name).await?.up {
            return Ok(());
        }
        self.set_link("set down", name, |message| message.down()).await
    }

    /// Makes the link a port of the bridge `master`, or of none.
    pub async fn set_master(
        &self,
        name: &LinkName,
        master: Option<&LinkName>,
    ) -> Result<(), NetlinkError> {
        let wanted = match master {
            Some(master) => Some(self.link(master).await?.index),
            None => None,
        };
        if self.link(name).await?.master == wanted {
            return Ok(());
        }
        self.set_link("set the bridge of", name, |message| message.controller(wanted.unwrap_or(0)))
            .await
    }

    /// Lets frames that came in by this port of a bridge go out by it again: those that were led, on their way
    /// through the bridge, to where they came from.
    pub async fn set_hairpin(&self, name: &LinkName) -> Result<(), NetlinkError> {
        let message = LinkBridgePort::new(self.link(name).await?.index);
        let set = self.handle.link().set_port(message.hairpin(true).build()).execute().await;
        set.map_err(|error| self.refused("lead back by", format!("the link {name}"), error))
    }

    /// Sets the largest packet of the link in bytes.
    pub async fn set_mtu(&self, name: &LinkName, mtu: u32) -> Result<(), NetlinkError> {
        if self.link(name).await?.mtu == mtu {
            return Ok(());
        }
        self.set_link("set the MTU of", name, |message| message.mtu(mtu)).await
    }

    /// Sets the Ethernet address of the link.
    pub async fn set_mac(&self, name: &LinkName, address: MacAddress) -> Result<(), NetlinkError> {
        if self.link(name).await?.address == Some(address) {
            return Ok(());
        }
        self.set_link("set the Ethernet address of", name, |message| {
            message.address(address.bytes().to_vec())
        })
        .await
    }

    /// Sets the link's alias to our mark.
    pub async fn set_mark(&self, name: &LinkName, mark: &Mark) -> Result<(), NetlinkError> {
        if self.link(name).await?.alias.as_deref() == Some(mark.as_str()) {
            return Ok(());
        }
        self.set_link("mark", name, |message| message.alias(mark.as_str())).await
    }

    /// Deletes the link; whether there was one.
    pub async fn delete_link(&self, name: &LinkName) -> Result<bool, NetlinkError> {
        let Some(link) = self.find_link(name).await? else { return Ok(false) };
        match self.handle.link().del(link.index).execute().await {
            Ok(()) => Ok(true),
            // A veth goes with its other end, and a namespace with all in it, at any moment.
            Err(error) if is_errno(&error, libc::ENODEV) => Ok(false),
            Err(error) => Err(self.refused("delete", format!("the link {name}"), error)),
        }
    }

    async fn add_veth(&self, name: &LinkName, peer: &VethPeer<'_>) -> Result<(), NetlinkError> {
        let far = LinkMessageBuilder::<LinkUnspec>::new()
            .name(peer.name.as_str())
            .setns_by_fd(peer.netns.as_raw_fd())
            .build();
        let message = LinkMessageBuilder::<LinkVeth>::new(name.as_str(), peer.name.as_str())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(far)))
            .build();
        self.add_link(name, message).await
    }

    async fn add_link(&self, name: &LinkName, message: LinkMessage) -> Result<(), NetlinkError> {
        let added = self.handle.link().add(message).execute().await;
        added.map_err(|error| self.refused("add", format!("the link {name}"), error))
    }

    async fn set_link(
        &self,
        action: &'static str,
        name: &LinkName,
        change: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
    ) -> Result<(), NetlinkError> {
        let message = change(LinkUnspec::new_with_name(name.as_str())).build();
        let set = self.handle.link().set(message).execute().await;
        set.map_err(|error| self.refused(action, format!("the link {name}"), error))
    }

    fn check_ours(&self, link: &Link, kind: &LinkKind, mark: &Mark) -> Result<(), NetlinkError> {
        if link.is_ours(kind, mark) {
            return Ok(());
        }
        let alias = link.alias.as_deref().unwrap_or("no alias");
        let found = format!("{:?} with {alias}", link.kind);
        Err(NetlinkError::Foreign { link: link.name.to_string(), netns: self.label(), found })
    }
}
