//! Routes of the main table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use super::{Netlink, NetlinkError, is_errno};
use crate::{Cidr, LinkName};

/// The `rtm_protocol` of the routes that we add: their mark. `t`; not in `/etc/iproute2/rt_protos`.
pub const ROUTE_PROTOCOL: u8 = b't';

/// The `rtm_protocol` of routes to what neighbours have behind them: their mark.
pub const NEIGHBOUR_PROTOCOL: u8 = b'n';

/// A unicast route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to; the host part is zero. `0.0.0.0/0` is the default.
    pub destination: Cidr,
    /// The next router, if the destination is not on the link itself.
    pub gateway: Option<IpAddr>,
    /// The link to send on. Needed without a gateway; with one, the kernel finds it.
    pub link: Option<LinkName>,
    /// The source address for connections from here.
    pub source: Option<IpAddr>,
    /// Who made it: [`ROUTE_PROTOCOL`], unless it says something else.
    pub protocol: u8,
}

impl Route {
    /// The default route by way of `gateway`.
    pub fn default_via(gateway: IpAddr) -> Self {
        Self {
            destination: Cidr::any_like(gateway),
            gateway: Some(gateway),
            link: None,
            source: None,
            protocol: ROUTE_PROTOCOL,
        }
    }

    /// A route to `destination` by way of `gateway`.
    pub fn via(destination: Cidr, gateway: IpAddr) -> Self {
        Self {
            destination: destination.network(),
            gateway: Some(gateway),
            link: None,
            source: None,
            protocol: ROUTE_PROTOCOL,
        }
    }

    /// A route to `destination` on the link itself.
    pub fn on_link(destination: Cidr, link: LinkName) -> Self {
        let (destination, protocol) = (destination.network(), ROUTE_PROTOCOL);
        Self { destination, gateway: None, link: Some(link), source: None, protocol }
    }
}

impl Netlink {
    /// The unicast routes of the main table, both families.
    pub async fn routes(&self) -> Result<Vec<Route>, NetlinkError> {
        let links = self.links().await?;
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let messages = self.handle.route().get(message).execute().try_collect::<Vec<_>>().await;
            let messages = messages.map_err(|error| self.refused("list", "the routes", error))?;
            routes.extend(messages.iter().filter_map(|message| {
                let (mut route, output) = parse(message)?;
                route.link = links
                    .iter()
                    .find(|link| Some(link.index) == output)
                    .map(|link| link.name.clone());
                Some(route)
            }));
        }
        Ok(routes)
    }

    /// Those of the [`Netlink::routes`] that have this mark.
    pub async fn routes_of(&self, protocol: u8) -> Result<Vec<Route>, NetlinkError> {
        let mut routes = self.routes().await?;
        routes.retain(|route| route.protocol == protocol);
        Ok(routes)
    }

    /// Adds the route, in place of another one to the same destination.
    pub async fn replace_route(&self, route: &Route) -> Result<(), NetlinkError> {
        let message = self.route_message(route).await?;
        let added = self.handle.route().add(message).replace().execute().await;
        added.map_err(|error| self.refused("add", describe(route), error))
    }

    /// Deletes the route; whether there was one.
    pub async fn delete_route(&self, route: &Route) -> Result<bool, NetlinkError> {
        let message = self.route_message(route).await?;
        match self.handle.route().del(message).execute().await {
            Ok(()) => Ok(true),
            Err(error) if is_errno(&error, libc::ESRCH) => Ok(false),
            Err(error) => Err(self.refused("delete", describe(route), error)),
        }
    }

    async fn route_message(&self, route: &Route) -> Result<RouteMessage, NetlinkError> {
        let destination = route.destination.network();
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = if destination.address().is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        header.destination_prefix_length = destination.length();
        header.table = RouteHeader::RT_TABLE_MAIN;
        header.protocol = RouteProtocol::from(route.protocol);
        header.scope =
            if route.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
        header.kind = RouteType::Unicast;
        if destination.length() > 0 {
            message.attributes.push(RouteAttribute::Destination(destination.address().into()));
        }
        if let Some(gateway) = route.gateway {
            message.attributes.push(RouteAttribute::Gateway(gateway.into()));
        }
        if let Some(source) = route.source {
            message.attributes.push(RouteAttribute::PrefSource(source.into()));
        }
        if let Some(link) = &route.link {
            message.attributes.push(RouteAttribute::Oif(self.link(link).await?.index));
        }
        Ok(message)
    }
}

fn describe(route: &Route) -> String {
    let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
    let on = route.link.as_ref().map(|link| format!(" on {link}")).unwrap_or_default();
    format!("the route to {}{via}{on}", route.destination)
}

/// The route and the index of its link, when it is a unicast route of the main table.
fn parse(message: &RouteMessage) -> Option<(Route, Option<u32>)> {
    let header = &message.header;
    let any = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let (mut destination, mut gateway, mut source, mut output) = (any, None, None, None);
    let mut table = u32::from(header.table);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip_of(address)?,
            RouteAttribute::Gateway(address) => gateway = ip_of(address),
            RouteAttribute::PrefSource(address) => source = ip_of(address),
            RouteAttribute::Oif(index) => output = Some(*index),
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    if header.kind != RouteType::Unicast || table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return None;
    }
    let destination = Cidr::new(destination, header.destination_prefix_length).ok()?;
    let protocol = header.protocol.into();
    Some((Route { destination, gateway, link: None, source, protocol }, output))
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}
