package envoy

import (
	"net/netip"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	setstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meshctl/meshctl/internal/model"
)

// Under these names a connection's addresses are known to the routes of its requests.
const (
	sourceState      = "mesh.source"
	destinationState = "mesh.destination"
)

// rememberAddresses stands before a connection manager whose routes may have conditions on addresses. It is there whether a rule has such or not:
// a listener that changed with its rules would have to let go of its connections.
func rememberAddresses() *listenerv3.Filter {
	value := func(name, format string) *statev3.FilterStateValue {
		return &statev3.FilterStateValue{
			Key:        &statev3.FilterStateValue_ObjectKey{ObjectKey: name},
			FactoryKey: "envoy.network.ip",
			Value: &statev3.FilterStateValue_FormatString{FormatString: &corev3.SubstitutionFormatString{
				Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{
					Specifier: &corev3.DataSource_InlineString{InlineString: format},
				}},
			}},
			SkipIfEmpty: true,
		}
	}
	return network("envoy.filters.network.set_filter_state", &setstatev3.Config{OnNewConnection: []*statev3.FilterStateValue{
		value(sourceState, "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"),
		value(destinationState, "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%"),
	}})
}

// setAddresses writes the conditions on the connection into m.
func setAddresses(m *routev3.RouteMatch, a *model.Addresses) {
	if a == nil {
		return
	}
	for _, one := range []struct {
		name    string
		subnets []netip.Prefix
	}{{sourceState, a.Sources}, {destinationState, a.Destinations}} {
		if len(one.subnets) > 0 {
			m.FilterState = append(m.FilterState, &matcherv3.FilterStateMatcher{
				Key:     one.name,
				Matcher: &matcherv3.FilterStateMatcher_AddressMatch{AddressMatch: &matcherv3.AddressMatcher{Ranges: ranges(one.subnets)}},
			})
		}
	}
}

func ranges(subnets []netip.Prefix) []*xdscorev3.CidrRange {
	out := make([]*xdscorev3.CidrRange, 0, len(subnets))
	for _, p := range subnets {
		out = append(out, &xdscorev3.CidrRange{AddressPrefix: p.Addr().String(), PrefixLen: wrapperspb.UInt32(uint32(p.Bits()))})
	}
	return out
}
