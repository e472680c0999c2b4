// Package consulfile makes a mesh.hcl of a definition of services as Consul reads it
// from its disk or its API has it.
package consulfile

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/consul-mesh/mesh-buildpack/src/meshfile"
)

// Left is something in a definition that has no counterpart.
type Left struct {
	Path   string // where it stands, such as service.connect.native
	Reason string
}

// Import gives the text of a mesh.hcl for the services of a definition, in HCL, or in
// JSON where the file's name ends so, and what of the definition is not in it.
func Import(filename string, src []byte) (text []byte, left []Left, err error) {
	values, err := read(filename, src)
	if err != nil {
		return nil, nil, err
	}
	top := newObject("", values, &left)
	services := slices.Concat(top.objects("service"), top.objects("services"))
	if len(services) == 0 {
		if top.values["name"] == nil {
			return nil, nil, fmt.Errorf("%s defines no service\nhint: a definition has service { name = \"…\" }, services, or is that of a service alone", filename)
		}
		services, top = []*object{top}, newObject("", nil, &left)
	}
	file := hclwrite.NewEmptyFile()
	for i, service := range services {
		if i > 0 {
			file.Body().AppendNewline()
		}
		if err := importService(file.Body(), service); err != nil {
			return nil, nil, err
		}
		service.leave()
	}
	top.leave()
	for i := range left {
		name := left[i].Path[strings.LastIndexByte(left[i].Path, '.')+1:]
		left[i].Path = cmp.Or(strings.TrimSuffix(left[i].Path, "."), `""`)
		left[i].Reason = cmp.Or(left[i].Reason, meshfile.Hint(name), "this language has no word for it")
	}
	return file.Bytes(), left, nil
}

var (
	isLabel    = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)
	notInLabel = regexp.MustCompile(`[^A-Za-z0-9]+`)
)

func importService(into *hclwrite.Body, s *object) error {
	name := s.text("name")
	if name == "" {
		return errors.New("a service has no name")
	}
	if kind := s.text("kind"); kind != "" && kind != "typical" {
		return fmt.Errorf("the service %s is of the kind %s\nhint: a mesh.hcl has services, and the sidecar of each by itself", name, kind)
	}
	w := writer{into.AppendNewBlock("service", []string{name}).Body()}
	sidecar := s.object("connect").object("sidecar_service")
	proxy := sidecar.object("proxy")
	config := proxy.object("config")
	if id := s.text("id"); id != name {
		w.text("id", id)
	}
	port := s.number("port")
	w.number("port", port)
	w.text("address", s.text("address"))
	w.text("protocol", config.text("protocol"))
	w.plain("tags", s.take("tags"))
	w.object("meta", s.object("meta"))
	w.flag("enable_tag_override", s.flag("enable_tag_override"))
	if weights := s.object("weights"); len(weights.values) > 0 {
		b := w.block("weights")
		b.number("passing", weights.number("passing"))
		b.number("warning", weights.number("warning"))
		weights.leave()
	}
	addresses := s.object("tagged_addresses")
	for _, tag := range slices.Sorted(maps.Keys(addresses.values)) {
		label := addresses.names[tag]
		for _, address := range addresses.objects(label) {
			b := w.block("tagged_address", label)
			b.text("address", address.text("address"))
			b.number("port", address.number("port"))
			address.leave()
		}
	}
	for i, check := range slices.Concat(s.objects("check"), s.objects("checks")) {
		importCheck(w, check, i, port)
	}
	importSidecar(w, sidecar, proxy, config, port)
	for _, upstream := range proxy.objects("upstreams") {
		importUpstream(w, upstream)
	}
	proxy.leave()
	sidecar.leave()
	return nil
}

// importSidecar writes what is said of the sidecar beside its upstreams.
func importSidecar(w writer, sidecar, proxy, config *object, port int) {
	b := writer{hclwrite.NewBlock("sidecar", nil).Body()}
	b.number("port", sidecar.number("port"))
	b.text("local_service_address", proxy.text("local_service_address"))
	b.text("local_service_socket_path", proxy.text("local_service_socket_path"))
	if local := proxy.number("local_service_port"); local != 0 && local != port {
		proxy.lose("local_service_port", "the sidecar calls the service's own port")
	}
	b.text("mesh_gateway", proxy.object("mesh_gateway").text("mode"))
	b.object("config", config)
	if mode := proxy.text("mode"); mode != "" && mode != "direct" {
		proxy.lose("mode", meshfile.Hint("transparent_proxy"))
	}
	if expose := proxy.object("expose"); len(expose.values) > 0 {
		e := b.block("expose")
		e.flag("checks", expose.flag("checks"))
		for _, path := range expose.objects("paths") {
			p := e.block("path", path.text("path"))
			p.number("listener_port", path.number("listener_port"))
			p.number("local_path_port", path.number("local_path_port"))
			p.text("protocol", path.text("protocol"))
			path.leave()
		}
		expose.leave()
	}
	if len(b.Attributes())+len(b.Blocks()) > 0 {
		w.block("sidecar").AppendUnstructuredTokens(b.BuildTokens(nil))
	}
}

func importUpstream(w writer, u *object) {
	name, local := u.text("destination_name"), u.text("local_bind_socket_path")
	b := w.block("upstream", name)
	if kind := u.text("destination_type"); kind == "prepared_query" {
		b.text("prepared_query", name)
	}
	b.text("namespace", u.text("destination_namespace"))
	b.text("partition", u.text("destination_partition"))
	b.text("peer", u.text("destination_peer"))
	b.text("datacenter", u.text("datacenter"))
	b.text("address", u.text("local_bind_address"))
	b.number("port", u.number("local_bind_port"))
	b.text("socket", local)
	b.text("socket_mode", u.text("local_bind_socket_mode"))
	config := u.object("config")
	b.text("protocol", config.text("protocol"))
	if timeout := config.number("connect_timeout_ms"); timeout != 0 {
		b.text("connect_timeout", strconv.Itoa(timeout)+"ms")
	}
	b.text("mesh_gateway", u.object("mesh_gateway").text("mode"))
	b.object("config", config)
	u.leave()
}

func importCheck(w writer, c *object, index, port int) {
	name := cmp.Or(c.text("name"), "check-"+strconv.Itoa(index+1))
	id := cmp.Or(c.text("check_id"), c.text("id"))
	if !isLabel.MatchString(name) {
		name = cmp.Or(id, strings.Trim(notInLabel.ReplaceAllString(name, "-"), "-"))
	}
	b := writer{hclwrite.NewBlock("check", nil).Body()}
	kinds := 0
	if text := c.text("http"); text != "" {
		kinds++
		if address, err := url.Parse(text); err == nil && isOwn(address.Hostname(), address.Port(), port) {
			text = cmp.Or(address.RequestURI(), "/")
			b.flag("tls", address.Scheme == "https")
		}
		b.text("http", text)
	}
	for _, kind := range []string{"tcp", "udp", "h2ping"} {
		if text := c.text(kind); text != "" {
			kinds++
			elsewhere(c, kind, text, port)
			b.flag(kind, true)
		}
	}
	if text := c.text("grpc"); text != "" {
		kinds++
		address, service, _ := strings.Cut(text, "/")
		elsewhere(c, "grpc", address, port)
		b.plain("grpc", service)
	}
	if text := c.text("ttl"); text != "" {
		kinds++
		b.text("ttl", text)
	}
	if text := c.text("alias_service"); text != "" {
		kinds++
		b.text("alias", text)
	}
	b.flag("tls", c.flag("grpc_use_tls") || c.flag("tcp_use_tls") || c.flag("h2ping_use_tls"))
	for _, key := range []string{"interval", "timeout", "method", "body", "tls_server_name", "deregister_critical_service_after", "status", "notes"} {
		b.text(key, c.text(key))
	}
	b.flag("disable_redirects", c.flag("disable_redirects"))
	b.flag("tls_skip_verify", c.flag("tls_skip_verify"))
	b.object("headers", c.object("header"))
	for _, key := range []string{"success_before_passing", "failures_before_warning", "failures_before_critical"} {
		b.number(key, c.number(key))
	}
	c.leave()
	if kinds == 0 {
		c.lose("", "the check "+name+" is of no kind that there is here")
		return
	}
	block := w.block("check", name)
	block.AppendUnstructuredTokens(b.BuildTokens(nil))
}

// elsewhere notes a check of another host or port than the service's.
func elsewhere(c *object, kind, address string, port int) {
	if host, number, err := net.SplitHostPort(address); err == nil && !isOwn(host, number, port) {
		c.lose(kind, "here it is of the service's own port, not of "+address)
	}
}

// isOwn says that a host and port are those of the service itself. One that has no port
// in its definition listens on the app's PORT.
func isOwn(host, number string, port int) bool {
	ip := net.ParseIP(host)
	return (host == "localhost" || ip.IsLoopback() || ip.IsUnspecified()) && (port == 0 || number == strconv.Itoa(port))
}

// writer writes attributes that have a value.
type writer struct{ *hclwrite.Body }

func (w writer) block(kind string, labels ...string) writer {
	return writer{w.AppendNewBlock(kind, labels).Body()}
}

func (w writer) text(name, value string) {
	if value != "" {
		w.SetAttributeValue(name, cty.StringVal(value))
	}
}

func (w writer) number(name string, value int) {
	if value != 0 {
		w.SetAttributeValue(name, cty.NumberIntVal(int64(value)))
	}
}

func (w writer) flag(name string, value bool) {
	if value {
		w.SetAttributeValue(name, cty.True)
	}
}

// object writes what of an object has not been taken, as it is.
func (w writer) object(name string, o *object) {
	values := map[string]any{}
	for key := range o.values {
		values[o.names[key]] = o.values[key]
	}
	clear(o.values)
	if len(values) > 0 {
		w.plain(name, values)
	}
}

// plain writes a value as JSON has it.
func (w writer) plain(name string, value any) {
	if value != nil {
		w.SetAttributeValue(name, toCty(value))
	}
}

func toCty(value any) cty.Value {
	switch value := value.(type) {
	case string:
		return cty.StringVal(value)
	case bool:
		return cty.BoolVal(value)
	case float64:
		return cty.NumberFloatVal(value)
	case []any:
		var all []cty.Value
		for _, element := range value {
			all = append(all, toCty(element))
		}
		return cty.TupleVal(all)
	case map[string]any:
		all := map[string]cty.Value{}
		for key, element := range value {
			all[key] = toCty(element)
		}
		return cty.ObjectVal(all)
	}
	return cty.NullVal(cty.DynamicPseudoType)
}
