package meshfile

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"net/url"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-version"
	"github.com/hashicorp/hcl/v2"

	"github.com/consul-mesh/mesh-buildpack/src/pairs"
)

// validName is what Consul accepts as a name and what is safe in paths,
// environment variables and check ids.
var validName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)

var validDatacenter = regexp.MustCompile(`^[a-z0-9]([a-z0-9_-]*[a-z0-9])?$`)

// validHost is a name or an IPv4 address; IPv6 is tried on its own.
var validHost = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)

// validVersion tells a version or a constraint from a word; which there are,
// staging knows.
var validVersion = regexp.MustCompile(`^[~^<>=!]*\s*[0-9*xX][0-9A-Za-z.*+~^<>=!|, -]*$`)

var validFile = regexp.MustCompile(`^(/[A-Za-z0-9._@+-]+)+$`)

var validSum = regexp.MustCompile(`^[0-9a-f]{64}$`)

// leastInterval is the least between two runs of a check, and the least that one
// may take.
const leastInterval = 100 * time.Millisecond

// kinds are the values of the tag `is`: what is wrong with a value, empty if
// nothing is. Numbers come as decimal text.
var kinds = map[string]func(text string) (summary, detail string){
	"name": func(text string) (string, string) {
		if validName.MatchString(text) && len(text) <= 128 {
			return "", ""
		}
		return "Not a name", fmt.Sprintf("%q: a name has letters, digits, dashes, dots and underscores, up to 128, with a letter or digit at both ends.", text)
	},
	"datacenter": func(text string) (string, string) {
		if validDatacenter.MatchString(text) {
			return "", ""
		}
		return "Not a datacenter name", fmt.Sprintf("%q: a datacenter has lower-case letters, digits, dashes and underscores.", text)
	},
	"port":       between(1, 65535, "Port out of range", "A port is a number from %d to %d, not %s."),
	"count":      between(0, 1<<31-1, "Number out of range", "It is a whole number from %d to %d, not %s."),
	"limit":      between(1, 1<<31-1, "Number out of range", "A limit is a whole number from %d to %d, not %s. Without it there is Envoy's own."),
	"percent":    between(0, 100, "Number out of range", "A percentage is a number from %d to %d, not %s."),
	"threads":    between(1, 128, "Number out of range", "Envoy runs with %d to %d threads, not %s."),
	"memory":     between(16, 65536, "Memory out of range", "It is a number of MB from %d to %d, not %s."),
	"weight":     between(1, 65535, "Number out of range", "A weight is a number from %d to %d, not %s."),
	"low_weight": between(0, 65535, "Number out of range", "A weight is a number from %d to %d, not %s."),
	"interval": func(text string) (string, string) {
		return durationProblem(text, leastInterval, endless, "which would keep the machine busy")
	},
	"minutes": func(text string) (string, string) {
		return durationProblem(text, time.Minute, endless, "the least that Consul heeds")
	},
	"startup": func(text string) (string, string) {
		return durationProblem(text, 5*time.Second, 10*time.Minute, "too little for an agent to join")
	},
	"drain": func(text string) (string, string) { return durationProblem(text, 0, endless, "") },
	"grace": func(text string) (string, string) {
		return durationProblem(text, usualGrace, 10*time.Minute, "the platform's own")
	},
	"path": func(text string) (string, string) {
		if strings.HasPrefix(text, "/") {
			return "", ""
		}
		return "Not a path", fmt.Sprintf("It is a path such as \"/metrics\", not %q.", text)
	},
	"target": func(text string) (string, string) {
		u, err := url.Parse(text)
		if err == nil && (strings.HasPrefix(text, "/") || (u.Scheme == "http" || u.Scheme == "https") && u.Host != "") {
			return "", ""
		}
		return "Not a path", fmt.Sprintf("It is a path such as \"/health\", or a whole http or https URL, not %q.", text)
	},
	"absolute": func(text string) (string, string) {
		if validFile.MatchString(text) && len(text) <= 107 {
			return "", ""
		}
		return "Not an absolute path", fmt.Sprintf("%q: a file is named from the root, such as \"/home/vcap/tmp/x\", in at most 107 letters, digits and ._@+-.", text)
	},
	"ip": func(text string) (string, string) {
		if ip(text).IsValid() {
			return "", ""
		}
		return "Not an IP address", fmt.Sprintf("%q: it is such as \"127.0.0.2\".", text)
	},
	"host": func(text string) (string, string) {
		if ip(text).IsValid() || validHost.MatchString(text) {
			return "", ""
		}
		return "Not a name or address", fmt.Sprintf("%q: it is a host's name or IP address alone, without scheme, port or path.", text)
	},
	"version": func(text string) (string, string) {
		if validVersion.MatchString(text) {
			return "", ""
		}
		return "Not a version", fmt.Sprintf("%q: it is a version such as %q, or a constraint such as \"1.22.x\".", text, pairs.Consul)
	},
	"constraint": func(text string) (string, string) {
		if _, err := version.NewConstraint(text); err == nil {
			return "", ""
		}
		return "Not a constraint", fmt.Sprintf("%q: it is such as \">= 1.22\" or \"~> 1.38.0\".", text)
	},
	"loopback": func(text string) (string, string) {
		if ip(text).IsLoopback() {
			return "", ""
		}
		return "Not a loopback address", fmt.Sprintf("%q: an upstream is for this app only, on an address such as 127.0.0.1.", text)
	},
	"listen": func(text string) (string, string) {
		if isIPAndPort(text) {
			return "", ""
		}
		return "Not an address and port", fmt.Sprintf("%q: it is such as \"0.0.0.0:9102\".", text)
	},
	// The addresses that consul connect envoy turns into a bootstrap.
	"statsd": func(text string) (string, string) {
		u, err := url.Parse(text)
		// Envoy resolves no names here.
		if err == nil && (u.Scheme == "udp" && isIPAndPort(u.Host) || u.Scheme == "unix" && u.Path != "") {
			return "", ""
		}
		return "Not a statsd address", fmt.Sprintf("%q: it is an IP address and a port, or a socket, such as \"udp://127.0.0.1:8125\" or \"unix:///var/run/statsd.sock\".", text)
	},
	"mode": func(text string) (string, string) {
		if mode, err := strconv.ParseUint(text, 8, 32); err == nil && mode <= 0o777 && strings.HasPrefix(text, "0") {
			return "", ""
		}
		return "Not a file mode", fmt.Sprintf("%q: it is an octal number in quotes, such as \"0600\".", text)
	},
	"source": func(text string) (string, string) {
		u, err := url.Parse(strings.TrimPrefix(text, "git::"))
		switch {
		case err == nil && u.Scheme == "https" && u.Host != "":
			return "", ""
		case err == nil && u.Scheme == "" && filepath.IsLocal(text):
			return "", ""
		}
		return "Not a source", "It is an https address, git::https://… for a file in a git repository, or the path of a file inside the app."
	},
	"sha256": func(text string) (string, string) {
		if validSum.MatchString(text) {
			return "", ""
		}
		return "Not a checksum", fmt.Sprintf("%q: a SHA-256 has 64 hexadecimal digits, in lower case.", text)
	},
	"json": func(text string) (string, string) {
		if problem := jsonProblem(text, "", ""); problem != "" {
			return "Not a JSON object", problem
		}
		return "", ""
	},
}

func between(least, most int, summary, detail string) func(string) (string, string) {
	return func(text string) (string, string) {
		if n, err := strconv.Atoi(text); err == nil && n >= least && n <= most {
			return "", ""
		}
		return summary, fmt.Sprintf(detail, least, most, text)
	}
}

const endless = math.MaxInt64

// durationProblem judges a duration; why says what is wrong with a duration that
// is shorter than the least.
func durationProblem(text string, least, most time.Duration, why string) (string, string) {
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return "Not a duration", fmt.Sprintf("%q is not a duration such as \"500ms\", \"5s\" or \"1m30s\".", text)
	case d < 0:
		return "Not a duration", fmt.Sprintf("%q is negative.", text)
	case d < least:
		return "Duration too short", fmt.Sprintf("%q is shorter than %s, %s.", text, least, why)
	case d > most:
		return "Duration too long", fmt.Sprintf("%q is longer than %s.", text, most)
	}
	return "", ""
}

// judge checks one value that the file has, and whose text is given.
func (d *decoder) judge(field reflect.StructField, value reflect.Value, text string, at hcl.Range) {
	if values := valuesOf(field); values != nil && !slices.Contains(values, text) {
		d.fail(at, "Unknown value", "%q is none of: %s.", text, strings.Join(values, ", "))
	}
	switch is := field.Tag.Get("is"); is {
	case "":
	case "meta":
		d.meta(value.Interface().(map[string]string), at)
	default:
		if summary, detail := kinds[is](text); summary != "" {
			d.fail(at, summary, "%s", detail)
		}
	}
}

var validMetaKey = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)

// meta judges metadata by Consul's rules (service configuration reference,
// meta).
func (d *decoder) meta(meta map[string]string, at hcl.Range) {
	if len(meta) > 64 {
		d.fail(at, "Too much metadata", "Consul keeps at most 64 pairs, not %d.", len(meta))
	}
	for _, key := range slices.Sorted(maps.Keys(meta)) {
		value := meta[key]
		if !validMetaKey.MatchString(key) {
			d.fail(at, "Not a metadata key", "%q: a key has 1 to 128 letters, digits, dashes and underscores.", key)
		}
		if strings.HasPrefix(key, "consul-") {
			d.fail(at, "Not a metadata key", "%q: Consul keeps keys that start with consul- for itself.", key)
		}
		if len(value) > 512 {
			d.fail(at, "Metadata too long", "The value of %q has %d bytes, Consul keeps at most 512.", key, len(value))
		}
	}
}

// ip reads an IP address. It returns the zero address where the text is none, or
// has a zone, which means something on one machine alone.
func ip(text string) netip.Addr {
	address, err := netip.ParseAddr(text)
	if err != nil || address.Zone() != "" {
		return netip.Addr{}
	}
	return address
}

func isIPAndPort(text string) bool {
	address, err := netip.ParseAddrPort(text)
	return err == nil && address.Port() != 0 && address.Addr().Zone() == ""
}
