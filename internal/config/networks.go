package config

import (
	"errors"
	"net/netip"
)

// network returns what s names: a network such as 10.0.0.0/8, or one address.
func network(s string) (netip.Prefix, error) {
	n, err := netip.ParsePrefix(s)
	if err != nil {
		var addr netip.Addr
		if addr, err = netip.ParseAddr(s); err != nil || addr.Zone() != "" {
			return n, errors.New("no network")
		}
		n = netip.PrefixFrom(addr, addr.BitLen())
	}
	if n.Addr().Is4In6() { // it would hold nothing: addresses are compared as IPv4
		if n.Bits() < 96 {
			return n, errors.New("no network")
		}
		n = netip.PrefixFrom(n.Addr().Unmap(), n.Bits()-96)
	}
	return n.Masked(), nil
}

// networks returns the networks that are named, without names that are not valid.
func networks(names []string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range names {
		if n, err := network(s); err == nil {
			out = append(out, n)
		}
	}
	return out
}

func areNetworks(p *Problems, name string, names []string) {
	for _, s := range names {
		if _, err := network(s); err != nil {
			p.add(name, "must be an address such as 10.0.0.1 or a network such as 10.0.0.0/8 or 2001:db8::/32, not %q", s)
		}
	}
}
